"""The strict form of a WireGuard key in text.

Stage: decoding. Input: a string; output: what is wrong with it, or nothing. It must import nothing but the
standard library, since `wgnet check` decodes every public key with it, and it never puts the text into a
message.

Source: `key_from_base64` of wireguard-tools (src/encoding.c): 44 characters, the last of them '=', whose
unused bits are zero. Python's own decoders, systemd-networkd and NetworkManager accept more, so none of
them can be asked.
"""

from __future__ import annotations

import enum
import re

__all__ = ["KeyProblem", "check_key"]

# 32 bytes (WG_KEY_LEN) are 42 characters and 4 bits: the 43rd character carries those and two bits that are zero, which
# leaves 16 of the 64 characters.
_match_key = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=").fullmatch
_match_loose = re.compile(r"[A-Za-z0-9+/]{43}=").fullmatch
_ZERO = "A" * 43 + "="


class KeyProblem(enum.Enum):
    """Why a text is no key; the value completes the sentence 'the key ...'."""

    #: Not 44 characters of the alphabet of base64 with one '=' at the end.
    NOT_A_KEY = "is not 44 characters of base64"
    #: It decodes to 32 bytes, which would be written in another way; wg(8) refuses it.
    NOT_CANONICAL = "is not canonical base64"
    #: WireGuard's way to say 'no key'.
    ZERO = "is all zero"


def check_key(text: str) -> KeyProblem | None:
    """Return what keeps `text` from being a key, or None for a key.

    Holds for public, private and preshared keys alike. White space is not taken away: it is a problem.
    """
    if _match_key(text) is not None:
        return KeyProblem.ZERO if text == _ZERO else None
    return KeyProblem.NOT_CANONICAL if _match_loose(text) is not None else KeyProblem.NOT_A_KEY
