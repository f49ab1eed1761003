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
    Explanation(
        code=codes.ROTATION,
        meaning=(
            "A host has a `next-public-key`: it is on its way from one key to the next. Its peers know both, and "
            "`wgnet refresh` on each moves its AllowedIPs to the one that shook hands last. The file alone does not "
            "show whether the host itself has switched yet; `wgnet keys rotate`, where its private key is, does. A "
            "host of wg-quick, and one that wgnet renders nothing for, has no refresh: it loses the host when that "
            "switches, until it is given the files of the next step."
        ),
        way_out=(
            "Apply this file on every host that the note names before `wgnet keys rotate switch`, and on the host "
            "itself after it; only then `wgnet keys rotate finish`, and once more apply."
        ),
    ),
    Explanation(
        code=codes.ROTATION_STEP,
        meaning=(
            "`wgnet keys rotate` was asked for a step whose turn it is not, or whose keys are not at hand: `switch` "
            "before `prepare`, `finish` before `switch`, or the interface still uses the key that is to go. Taken now, "
            "the step would lose a key or cut the host off from peers that know only the other one."
        ),
        way_out="Run `wgnet keys rotate` without a step: it says where each host stands and what comes next.",
    ),
    Explanation(
        code=codes.KEY_IN_USE_UNKNOWN,
        meaning=(
            "A derived preshared key belongs to a pair of public keys. The host is between two keys of its own, and "
            "its private key, which would say which of them it uses, is not at hand here. So its files get the "
            "preshared keys of its present key, which are the wrong ones from the moment when it switches. Its "
            "NETWORK.psk has both."
        ),
        way_out=(
            "Render or apply on the host itself, where its private key is, or name the key store that has it. Before "
            "it has switched the files are right as they are."
        ),
    ),
)
