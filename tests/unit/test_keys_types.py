"""The strict form of keys, and secrets that do not show themselves."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import pprint
import re
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import wgnet
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.span import Span
from wgnet.keys.base64 import KeyProblem, check_key
from wgnet.keys.match import check_key_pair
from wgnet.keys.types import MasterSecret, PresharedKey, PrivateKey, Secret

RAW = bytes(range(1, 33))
KINDS = [PrivateKey, PresharedKey, MasterSecret]
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- the strict form ---


@given(st.binary(min_size=32, max_size=32))
@example(b"\xff" * 32)
def test_every_32_bytes_but_zeros_are_a_key(raw: bytes) -> None:
    expected = None if any(raw) else KeyProblem.ZERO
    assert check_key(encode(raw)) is expected


@given(st.text(alphabet=ALPHABET + "=", min_size=42, max_size=46) | st.text())
@example("A" * 42 + "B=")
@example("A" * 43 + "=")
def test_agrees_with_decoding_and_encoding_again(text: str) -> None:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    shaped = re.fullmatch(r"[A-Za-z0-9+/]{43}=", text) is not None and len(raw) == 32
    if not shaped:
        assert check_key(text) is KeyProblem.NOT_A_KEY
    elif encode(raw) != text:
        assert check_key(text) is KeyProblem.NOT_CANONICAL
    else:
        assert check_key(text) is (None if any(raw) else KeyProblem.ZERO)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        encode(RAW)[:-1],
        encode(RAW) + "=",
        encode(RAW) + "\n",
        " " + encode(RAW)[1:],
        encode(RAW).replace("=", "A"),
        encode(RAW[:31]),
        encode(RAW + b"\0"),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "é" + encode(RAW)[1:],
        RAW.hex(),
    ],
)
def test_no_key_at_all(text: str) -> None:
    assert check_key(text) is KeyProblem.NOT_A_KEY


@pytest.mark.parametrize("character", ALPHABET)
def test_the_last_character_has_two_unused_bits(character: str) -> None:
    """16 of the 64 last characters are canonical; wg(8) refuses the others, Python's decoder does not."""
    text = "B" * 42 + character + "="
    assert len(base64.b64decode(text, validate=True)) == 32
    expected = None if ALPHABET.index(character) % 4 == 0 else KeyProblem.NOT_CANONICAL
    assert check_key(text) is expected


def test_ten_thousand_keys_are_checked_in_twenty_milliseconds() -> None:
    keys = [encode(os.urandom(32)) for _ in range(10_000)]
    best = 1.0
    for _ in range(10):
        begin = time.perf_counter()
        assert all(check_key(key) is None for key in keys)
        best = min(best, time.perf_counter() - begin)
    assert best < 0.020


def test_the_modules_start_without_cryptography() -> None:
    script = (
        "import sys, wgnet.keys.base64, wgnet.keys.types, wgnet.keys.store, wgnet.keys.host, wgnet.keys.derive,"
        " wgnet.keys.match, wgnet.system.keystore, wgnet.system.hostkeys;"
        "print([m for m in sys.modules if m.partition('.')[0] in {'cryptography', 'jinja2', 'dbus_next'}])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(wgnet.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "[]\n"


# --- secrets ---


@dataclass(frozen=True)
class Holder:
    secret: Secret


def shown_forms(secret: Secret) -> list[str]:
    return [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>60}",
        f"{secret:>60}",
        "%s %r" % (secret, secret),  # noqa: UP031 - the form is what is tested
        pprint.pformat([secret, {"key": secret}]),
        json.dumps({"key": secret}, default=str),
        repr(Holder(secret)),
        ascii(secret),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_form_holds_the_secret(kind: type[Secret]) -> None:
    secret = kind(RAW)
    for text in shown_forms(secret):
        assert "(hidden)" in text
        for leak in (secret.reveal(), secret.reveal()[4:12], RAW.hex()[8:16], repr(RAW)[4:20], str(list(RAW))):
            assert leak not in text


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_holds_the_secret(kind: type[Secret]) -> None:
    secret = kind(RAW)
    attempts = [
        lambda: pickle.dumps(secret),
        lambda: pickle.dumps(secret, protocol=0),
        lambda: secret.__getstate__(),
        lambda: hash(secret),
        lambda: {secret},
        lambda: json.dumps(secret),
        lambda: secret + "",  # type: ignore[operator]
        lambda: bytes(secret),  # type: ignore[call-overload]
        lambda: setattr(secret, "_raw", b""),
        lambda: delattr(secret, "_raw"),
        lambda: setattr(secret, "other", 1),
        lambda: kind(RAW + b"x"),
        lambda: secret < secret,  # type: ignore[operator]
        lambda: vars(secret),
    ]
    for attempt in attempts:
        with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
            attempt()
        assert secret.reveal() not in str(caught.value) + repr(caught.value)
        assert repr(RAW)[4:20] not in repr(caught.value)
    assert secret == kind(RAW)


@pytest.mark.parametrize("kind", KINDS)
def test_reveal_and_parse_are_inverse(kind: type[Secret]) -> None:
    secret = kind.generate()
    assert kind.parse(secret.reveal()) == secret
    assert check_key(secret.reveal()) is None
    assert kind.generate() != secret
    assert copy.copy(secret) is secret
    assert copy.deepcopy(Holder(secret)) == Holder(secret)


@pytest.mark.parametrize("kind", KINDS)
def test_parse_is_strict(kind: type[Secret]) -> None:
    assert kind.parse("A" * 43 + "=") is KeyProblem.ZERO
    assert kind.parse("B" * 42 + "B=") is KeyProblem.NOT_CANONICAL
    assert kind.parse(encode(RAW) + "\n") is KeyProblem.NOT_A_KEY


def test_secrets_of_two_kinds_are_never_equal() -> None:
    assert PresharedKey(RAW) != MasterSecret(RAW)
    assert PresharedKey(RAW) == PresharedKey(RAW)
    assert PresharedKey(RAW) != PresharedKey(RAW[::-1])
    assert PresharedKey(RAW) != encode(RAW)


@given(st.binary(min_size=32, max_size=32))
def test_private_keys_are_clamped_and_the_others_are_not(raw: bytes) -> None:
    clamped = base64.b64decode(PrivateKey(raw).reveal())
    number = int.from_bytes(clamped, "little")
    # RFC 7748, section 5: a multiple of 8 between 2^254 and 2^255.
    assert number % 8 == 0
    assert 2**254 <= number < 2**255
    assert clamped[1:31] == raw[1:31]
    assert base64.b64decode(PresharedKey(raw).reveal()) == raw
    assert base64.b64decode(MasterSecret(raw).reveal()) == raw


def test_public_key_is_that_of_rfc_7748() -> None:
    """Section 6.1, Bob's keys."""
    private = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    public = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert PrivateKey(private).public() == encode(public)


# --- pairs ---


def test_a_private_key_belongs_to_one_of_the_public_keys() -> None:
    old, new, other = (PrivateKey.generate() for _ in range(3))
    diagnostics = Diagnostics()
    assert check_key_pair(old, (old.public(),), "/etc/wgnet/office.key", diagnostics)
    assert check_key_pair(new, (old.public(), new.public()), "/etc/wgnet/office.key", diagnostics)
    assert len(diagnostics) == 0
    at = Span("office.yaml", 3, 5, 3, 49)
    assert not check_key_pair(other, (old.public(), new.public()), "/etc/wgnet/office.key", diagnostics, at)
    (found,) = diagnostics
    assert found.code is codes.KEY_MISMATCH
    assert "'/etc/wgnet/office.key'" in found.message
    assert found.primary is not None
    assert found.primary.span == at
    assert other.public() in found.help[0]
    assert other.reveal() not in repr(found)
