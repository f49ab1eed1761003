"""Questions to DNS servers, and answers of any kind to them."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgnet.live.dns import read_answer, write_question

NAME = "hub.example.net"
POINTER = b"\xc0\x0c"
FOUR, SIX = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")


def question(version: int = 4, name: str = NAME, number: int = 7) -> bytes:
    written = write_question(number, name, version)
    assert written is not None
    return written


def record(owner: bytes, kind: int, data: bytes, network: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", kind, network, 60, len(data)) + data


def name(text: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in text.split(".")) + b"\0"


def answer(*records: bytes, asked: bytes | None = None, flags: int = 0x8180, number: int = 7) -> bytes:
    asked = question() if asked is None else asked
    return struct.pack("!6H", number, flags, 1, len(records), 0, 0) + asked[12:] + b"".join(records)


def test_a_question_is_that_of_the_rfc() -> None:
    assert question(6, "a.example.") == (b"\0\7\1\0\0\1\0\0\0\0\0\0" + b"\1a\7example\0" + b"\0\x1c\0\1")


@pytest.mark.parametrize("text", ["", ".", "a..b", "a" * 64, ".".join(["a" * 60] * 5), "bücher.example", ".a"])
def test_a_name_that_no_question_can_have(text: str) -> None:
    assert write_question(1, text, 4) is None


def test_addresses_are_those_of_the_name() -> None:
    found = answer(record(POINTER, 1, FOUR.packed), record(POINTER, 1, bytes((203, 0, 113, 7))))
    assert read_answer(found, question(), 4) == ["192.0.2.1", "203.0.113.7"]
    six = question(6)
    assert read_answer(answer(record(POINTER, 28, SIX.packed), asked=six), six, 6) == ["2001:db8::1"]


def test_an_alias_is_followed_whatever_is_compressed() -> None:
    alias = name("srv.example.org")
    found = answer(record(POINTER, 5, alias), record(alias.upper(), 1, FOUR.packed))
    assert read_answer(found, question(), 4) == ["192.0.2.1"]
    # The alias ends with a pointer into the question; the address bears a pointer to the alias.
    short = answer(record(POINTER, 5, b"\3srv\xc0\x10"), record(b"\xc0\x2d", 1, FOUR.packed))
    assert short[0x2D:0x31] == b"\3srv"
    assert read_answer(short, question(), 4) == ["192.0.2.1"]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(record(name("other.example"), 1, FOUR.packed), id="another name"),
        pytest.param(record(POINTER, 1, FOUR.packed, network=3), id="another class"),
        pytest.param(record(POINTER, 28, SIX.packed), id="another version"),
        pytest.param(record(POINTER, 16, b"\4text"), id="another type"),
    ],
)
def test_records_of_something_else_are_passed_over(wrong: bytes) -> None:
    assert read_answer(answer(wrong, record(POINTER, 1, FOUR.packed)), question(), 4) == ["192.0.2.1"]


def test_a_name_that_is_not_there_has_no_address() -> None:
    assert read_answer(answer(flags=0x8183), question(), 4) == []
    assert read_answer(answer(), question(), 4) == []


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(answer(record(POINTER, 1, FOUR.packed), number=8), id="another number"),
        pytest.param(answer(record(POINTER, 1, FOUR.packed), flags=0x0100), id="a question"),
        pytest.param(answer(record(POINTER, 1, FOUR.packed), asked=question(6)), id="another type asked"),
        pytest.param(answer(record(POINTER, 1, FOUR.packed), asked=question(name="x.example")), id="another name"),
        pytest.param(answer(flags=0x8182), id="the server failed"),
        pytest.param(answer(flags=0x8185), id="the server refused"),
        pytest.param(answer(record(POINTER, 1, b"\1\2\3")), id="three bytes of an address"),
        pytest.param(answer(record(b"\xc0\x21", 1, FOUR.packed)), id="a pointer to itself"),
        pytest.param(answer(record(b"\xff\xff", 1, FOUR.packed)), id="a pointer beyond the end"),
        pytest.param(answer(record(b"\x80", 1, FOUR.packed)), id="a label of no kind"),
        pytest.param(b"", id="nothing"),
        pytest.param(question()[:5], id="a piece"),
    ],
)
def test_what_is_no_answer(message: bytes) -> None:
    assert read_answer(message, question(), 4) is None


def test_an_answer_that_was_cut_off_gives_what_is_in_it() -> None:
    whole = answer(record(POINTER, 1, FOUR.packed), record(POINTER, 1, bytes((203, 0, 113, 7))), flags=0x8380)
    assert read_answer(whole[:-16], question(), 4) == ["192.0.2.1"]


@given(st.binary(max_size=600))
def test_noise_has_no_address_of_ours(noise: bytes) -> None:
    assert read_answer(noise, question(), 4) in (None, [])
    found = read_answer(answer() + noise, question(), 4)
    assert found == []
    count = struct.pack("!6H", 7, 0x8180, 1, 5, 0, 0)
    found = read_answer(count + question()[12:] + noise, question(), 4)
    assert found is None or all(ipaddress.ip_address(each).version == 4 for each in found)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(0, 200))
def test_a_damaged_answer_never_ends_in_anything_else(changes: list[int], start: int) -> None:
    message = bytearray(answer(record(POINTER, 5, name("a.example")), record(name("a.example"), 1, FOUR.packed)))
    for offset, value in enumerate(changes):
        message[(start + offset * 7) % len(message)] = value
    found = read_answer(bytes(message), question(), 4)
    assert found is None or all(ipaddress.ip_address(each).version == 4 for each in found)
