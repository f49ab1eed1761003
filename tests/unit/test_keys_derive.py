"""Preshared keys from the master secret."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.types import MasterSecret, PresharedKey

MASTER = MasterSecret(bytes(range(32)))

raw_keys = st.binary(min_size=32, max_size=32)


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def by_hand(master: bytes, first: bytes, second: bytes) -> str:
    """HKDF as RFC 5869 writes it, for one block of output."""
    pseudorandom = hmac.new(b"wgnet master secret v1", master, hashlib.sha256).digest()
    info = b"wgnet preshared key v1" + min(first, second) + max(first, second)
    return encode(hmac.new(pseudorandom, info + b"\x01", hashlib.sha256).digest())


@given(raw_keys, raw_keys, raw_keys)
def test_is_hkdf_sha256_and_symmetric(master: bytes, first: bytes, second: bytes) -> None:
    if first == second:
        return
    secret = MasterSecret(master)
    there = derive_preshared_key(secret, encode(first), encode(second))
    back = derive_preshared_key(secret, encode(second), encode(first))
    assert isinstance(there, PresharedKey)
    assert there == back
    assert there.reveal() == by_hand(master, first, second)


def test_the_derivation_never_changes() -> None:
    """A fixed vector: a change here cuts every link of every network until all of its hosts are rendered anew."""
    key = derive_preshared_key(MASTER, encode(b"\x01" * 32), encode(b"\xfe" * 32))
    assert key.reveal() == "0GK/58hKCzLGjSFS86+R8GyGDjJsJ0ZanXzOm6Fh69w="


def test_order_is_by_bytes_and_not_by_text() -> None:
    """'+' sorts before 'a' as text, and stands for the greater number in base64."""
    low, high = b"\x68" + b"\x01" * 31, b"\xf8" + b"\x01" * 31
    assert (encode(low)[0], encode(high)[0]) == ("a", "+")
    assert encode(low) > encode(high)
    assert derive_preshared_key(MASTER, encode(low), encode(high)).reveal() == by_hand(bytes(range(32)), low, high)


def test_everything_enters_the_key() -> None:
    one, two, three = (encode(bytes([n]) * 32) for n in (1, 2, 3))
    keys = [
        derive_preshared_key(MASTER, one, two),
        derive_preshared_key(MASTER, one, three),
        derive_preshared_key(MASTER, two, three),
        derive_preshared_key(MasterSecret(bytes(31) + b"\x01"), one, two),
    ]
    assert len({key.reveal() for key in keys}) == len(keys)


@pytest.mark.parametrize("bad", ["", "AAAA", encode(b"\x01" * 31), encode(b"\x01" * 33), encode(b"\x02" * 32)])
def test_what_is_no_link_is_a_bug(bad: str) -> None:
    with pytest.raises(ValueError, match="two different public keys"):
        derive_preshared_key(MASTER, encode(b"\x02" * 32), bad)
