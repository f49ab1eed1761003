"""The pages of WG5xxx: keys. No topology draws them by itself: they depend on what lies in a key store or on a host."""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.explanations.explanation import Explanation

PAGES = (
    Explanation(
        code=codes.NO_PUBLIC_KEY,
        meaning=(
            "A host has no `public-key`, so no peer can be told whom to expect. `wgnet check` only notes it, since a "
            "topology is often written before its keys; `render` cannot go on without it."
        ),
        way_out=(
            "Run `wgnet keys generate`, which makes the missing key pairs in the key store or on this host and writes "
            "the public keys into the file, or copy the output of `wg pubkey` from the host to its `public-key`."
        ),
    ),
    Explanation(
        code=codes.KEY_STORE,
        meaning=(
            "The folder that `--keys` names, a file in it, or the host's own /etc/wgnet/NETWORK.key or .psk is not "
            "there, cannot be read or written, is readable for other users, or is not of a form that this version "
            "knows. wgnet does not read private keys from a place that others can read too: they would have to be "
            "taken for known."
        ),
        way_out=(
            "Check the path. Give the folder to yourself with mode 0700 and its files 0600, and replace keys that "
            "others could read. `wgnet keys generate --keys DIR` makes a new store."
        ),
    ),
    Explanation(
        code=codes.KEY_MISMATCH,
        meaning=(
            "The host's private key belongs to another public key than the one in the topology. Its peers would "
            "answer to a key that the host does not have, and no handshake would ever succeed, without a message on "
            "either side."
        ),
        way_out=(
            "If the private key is the right one, put the output of `wg pubkey` for it into the host's `public-key`; "
            "if the topology is right, bring the private key that belongs to it. During a rotation the new key stands "
            "in `next-public-key`."
        ),
    ),
    Explanation(
        code=codes.PRIVATE_KEY_ABSENT,
        meaning=(
            "The host's private key is not at hand here, so its file is written without one, and the tunnel cannot "
            "start until the key is added. NetworkManager and wg-quick want the key in the file itself; networkd's "
            "file names the key's place on the host, and draws no warning."
        ),
        way_out=(
            "Name the key store with `--keys`, or run `wgnet render --system` on the host itself, where its key lies "
            "in /etc/wgnet."
        ),
    ),
    Explanation(
        code=codes.PRESHARED_KEY_ABSENT,
        meaning=(
            "The link has a preshared key, but its value is not at hand here and the file is written without it. A "
            "handshake needs the same preshared key on both ends: as long as one lacks it, there is none. Derived "
            "preshared keys come from the master secret in the key store, so only its owner can compute them; a host "
            "holds those of its own links."
        ),
        way_out="Name the key store with `--keys`, or deliver the host's keys to it with `wgnet keys export HOST`.",
    ),
    Explanation(
        code=codes.PASSPHRASE,
        meaning=(
            "The key store is encrypted, and what was entered does not open it; or there was no terminal to ask for "
            "the passphrase at. A damaged store looks the same, since the encryption shows every change."
        ),
        way_out=(
            "Try again, minding the keyboard's layout; if the passphrase is right, restore the store from a backup."
        ),
    ),
)
