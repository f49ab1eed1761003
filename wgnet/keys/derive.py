"""Preshared keys, derived from a network's master secret.

Stage: keys. Input: the master secret and the public keys of a link's two ends; output: the link's preshared
key. Nothing is stored and nothing is read: both ends, and every later run, come to the same key. It opens
no file.
"""

from __future__ import annotations

import binascii

from wgnet.keys.types import KEY_BYTES, MasterSecret, PresharedKey

__all__ = ["INFO", "SALT", "derive_preshared_key"]

#: The salt of HKDF's extraction. Fixed: the same secret must give the same keys on every run.
SALT = b"wgnet master secret v1"
#: The beginning of HKDF's info. A change of the derivation is a new version of this text, so that no key
#: means two things.
INFO = b"wgnet preshared key v1"


def derive_preshared_key(master: MasterSecret, public_a: str, public_b: str) -> PresharedKey:
    """Derive the preshared key of the link between two public keys; their order does not matter.

    HKDF-SHA256 (RFC 5869) of the master secret's 32 bytes, with the salt `wgnet master secret v1` and as
    info the text `wgnet preshared key v1` followed by the two public keys, 32 bytes each, the smaller first
    by unsigned bytes. The first 32 bytes are the key. The network's name is not part of it, so a renamed
    network keeps its keys; a host that gets a new key pair gets new preshared keys with it.

    Raises ValueError for texts that are no two different public keys: the decoder has refused them before.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    first, second = sorted((binascii.a2b_base64(public_a), binascii.a2b_base64(public_b)))
    if len(first) != KEY_BYTES or len(second) != KEY_BYTES or first == second:
        raise ValueError("a link has two different public keys")
    secret = binascii.a2b_base64(master.reveal())
    return PresharedKey(HKDF(SHA256(), KEY_BYTES, SALT, INFO + first + second).derive(secret))
