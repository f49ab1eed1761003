"""Masks the secrets in files that wgnet rendered, before anything shows them."""

from __future__ import annotations

import re

from wgnet.keys.types import HIDDEN

# Every key in a rendered file is a secret but public keys, which stand after a name or head a line or section.
_ASSIGNED = re.compile(r"^(\s*(?:PrivateKey|PresharedKey|private-key|preshared-key)\s*=\s*)(?!@)(\S.*)$", re.MULTILINE)
# The third word is the host's own public key.
_PEER_LINE = re.compile(r"^([A-Za-z0-9+/]{43}= )[A-Za-z0-9+/]{43}=((?: [A-Za-z0-9+/]{43}=)?)$", re.MULTILINE)
_LONE = re.compile(r"^[A-Za-z0-9+/]{43}=$", re.MULTILINE)


def mask_secrets(text: str) -> str:
    """Return a rendered file's text with each private and preshared key replaced by `(hidden)`."""
    text = _ASSIGNED.sub(rf"\g<1>{HIDDEN}", text)
    text = _PEER_LINE.sub(rf"\g<1>{HIDDEN}\g<2>", text)
    return _LONE.sub(HIDDEN, text)
