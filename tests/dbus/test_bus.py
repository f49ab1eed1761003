"""The D-Bus client: values of every type, faults of the bus at every place, and secrets that stay inside."""

from __future__ import annotations

import gc
import os
import socket
import struct
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_sample import UUID, key, secrets_of, small
from hypothesis import given
from hypothesis import strategies as st
from realparsers.bus import BusHost

from wgnet.keys.types import HIDDEN
from wgnet.system.dbus import Bus, DBusCallError, DBusError, NoBusError, from_json, to_json

NAME, PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


# --- values ----------------------------------------------------------------------------------------------------------

BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63) + 1, (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20),
    "o": st.sampled_from(["/", "/a", "/a/b_1"]),
    "g": st.sampled_from(["", "s", "a{sv}"]),
}


def typed(depth: int) -> st.SearchStrategy[tuple[str, Any]]:
    """Return signatures of one complete type, each with a plain value of it."""
    basic = st.sampled_from(sorted(BASIC)).flatmap(lambda code: st.tuples(st.just(code), BASIC[code]))
    if depth == 0:
        return basic | st.tuples(st.just("ay"), st.binary(max_size=10))
    inner = typed(depth - 1)
    return st.one_of(
        basic,
        inner.map(lambda pair: ("v", pair)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda pairs: ("(" + "".join(pair[0] for pair in pairs) + ")", tuple(pair[1] for pair in pairs))
        ),
        inner.filter(lambda pair: pair[0] != "y").map(lambda pair: ("a" + pair[0], [pair[1], pair[1]])),
        st.tuples(BASIC["s"], inner).map(lambda pair: ("a{s" + pair[1][0] + "}", {pair[0]: pair[1][1]})),
    )


class Peer:
    """The other end of a connection, which answers a call by a function of its bytes."""

    def __init__(self, *answers: Callable[[bytes], bytes]) -> None:
        ours, self._theirs = socket.socketpair()
        self.bus = Bus(ours)
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._theirs:
            for answer in self._answers:
                call = self._theirs.recv(1 << 20)
                data = answer(call)
                if not data:
                    return
                self._theirs.sendall(data)
            # Until the other end has what it wants.
            while self._theirs.recv(1 << 16):
                continue

    def close(self) -> None:
        self.bus.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


def echo(call: bytes) -> bytes:
    """Return a call as the reply to itself, with its body."""
    body_size, serial, _ = struct.unpack_from("<III", call, 4)
    body = call[len(call) - body_size :]
    start = call.index(b"\x08\x01g\0") + 4 if b"\x08\x01g\0" in call else None
    fields = b"\x05\x01u\0" + struct.pack("<I", serial)
    if start is not None:
        signature = call[start : start + call[start] + 2]
        fields += b"\x08\x01g\0" + signature
    header = b"l\x02\x01\x01" + struct.pack("<III", body_size, 7, len(fields)) + fields
    return header + b"\0" * (-len(header) % 8) + body


@given(typed(3))
def test_values_of_every_type_come_back_as_they_were(pair: tuple[str, Any]) -> None:
    signature, value = pair
    peer = Peer(echo)
    try:
        assert peer.bus.call("a.b", "/", "a.b", "Echo", signature, (value,), timeout=10) == [value]
    finally:
        peer.close()


@given(typed(3))
def test_values_of_every_type_go_through_json(pair: tuple[str, Any]) -> None:
    import json

    signature, value = pair
    assert from_json(signature, json.loads(json.dumps(to_json(signature, value)))) == value


WRONG = [
    ("s", 1),
    ("s", "a\0b"),
    ("s", "\ud800"),
    ("u", -1),
    ("u", True),
    ("u", 1 << 32),
    ("b", 1),
    ("as", "text"),
    ("ay", 5),
    ("ay", [1, 2]),
    ("v", "text"),
    ("v", ("ss", "a")),
    ("v", ("u", key(1))),
    ("(su)", ("a",)),
    ("a{sv}", [("a", ("s", "b"))]),
    ("a{sa{sv}}", {"wireguard": {"private-key": key(1)}}),
    ("a{sa{sv}}", {"wireguard": {"private-key": ("u", key(1))}}),
    ("o", key(1)),
    ("z", key(1)),
    ("", key(1)),
]


@pytest.mark.parametrize(("signature", "value"), WRONG, ids=repr)
def test_values_that_do_not_go_with_the_signature_are_refused_unquoted(signature: str, value: object) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Bus(ours) as bus:
        with pytest.raises(ValueError, match=r"^Echo: the values do not go with the signature") as caught:
            bus.call("a.b", "/", "a.b", "Echo", signature, (value,))
        says_nothing_of(caught.value, key(1))
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


@pytest.mark.parametrize("data", [None, 5, "text", [1], {"a": 1}, {"a": {"b": ["u"]}}, {"a": {"b": ["ay", "!"]}}])
def test_broken_json_is_a_value_error(data: object) -> None:
    with pytest.raises(ValueError, match="does not go with the signature") as caught:
        from_json("a{sa{sv}}", data)
    assert caught.value.__context__ is None


def says_nothing_of(error: BaseException, *secrets: str) -> None:
    """Assert that an error, all that is chained to it, and what a traceback prints, hold no secret."""
    said = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__) + repr(error.args)
    assert not any(secret in said for secret in secrets)
    assert error.__cause__ is None
    assert error.__context__ is None


# --- faults ----------------------------------------------------------------------------------------------------------


def error_reply(text: str) -> Callable[[bytes], bytes]:
    def answer(call: bytes) -> bytes:
        [serial] = struct.unpack_from("<I", call, 8)
        name = b"a.b.Failed"
        said = text.encode()
        body = struct.pack("<I", len(said)) + said + b"\0"
        fields = b"\x05\x01u\0" + struct.pack("<I", serial)
        fields += b"\x08\x01g\0\x01s\0\0"
        fields += b"\x04\x01s\0" + struct.pack("<I", len(name)) + name + b"\0"
        header = b"l\x03\x01\x01" + struct.pack("<III", len(body), 7, len(fields)) + fields
        return header + b"\0" * (-len(header) % 8) + body

    return answer


def test_an_error_is_told_without_keys() -> None:
    peer = Peer(error_reply(f"property '{key(1)}' of {key(2)}, invalid"))
    try:
        with pytest.raises(DBusCallError) as caught:
            peer.bus.call("a.b", "/", "a.b", "Add", "s", (key(1),), timeout=10)
    finally:
        peer.close()
    assert (caught.value.name, caught.value.member) == ("a.b.Failed", "Add")
    assert caught.value.message == f"property '{HIDDEN}' of {HIDDEN}, invalid"
    assert not caught.value.unanswered
    says_nothing_of(caught.value, key(1), key(2))


GARBAGE = {
    "nothing": b"",
    "zeroes": bytes(64),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 64,
    "half a header": b"l\x02\x01\x01\0\0",
    "too large": b"l\x02\x01\x01" + b"\xff" * 12,
    "no fields": b"l\x02\x01\x01" + struct.pack("<III", 4, 1, 0) + b"abcd",
    "another version": b"l\x02\x01\x09" + struct.pack("<III", 0, 1, 0) + bytes(8),
    "a key in it": b"l\x02\x01\x01" + struct.pack("<III", 44, 1, 0) + key(1).encode(),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_message_ends_the_connection_or_the_time(data: bytes) -> None:
    peer = Peer(lambda _: data)
    try:
        with pytest.raises(DBusError) as caught:
            peer.bus.call("a.b", "/", "a.b", "Add", "s", (key(1),), timeout=0.5)
    finally:
        peer.close()
    says_nothing_of(caught.value, key(1))


@given(st.integers(0, 200), st.integers(0, 255))
def test_no_damage_to_a_reply_brings_anything_but_its_errors(place: int, byte: int) -> None:
    def damage(call: bytes) -> bytes:
        data = bytearray(echo(call))
        data[place % len(data)] = byte
        return bytes(data)

    peer = Peer(damage)
    try:
        body = {"wireguard": {"private-key": ("s", key(1))}}
        # Anything else than a value or an error of this module fails the test.
        peer.bus.call("a.b", "/", "a.b", "Add", "a{sa{sv}}", (body,), timeout=0.1)
    except DBusError as error:
        says_nothing_of(error, key(1))
    finally:
        peer.close()


def test_a_late_reply_is_not_taken_for_the_next_one() -> None:
    first: list[bytes] = []

    def late(call: bytes) -> bytes:
        return first[0] + echo(call)

    def silent(call: bytes) -> bytes:
        first.append(echo(call))
        # A message that answers nothing: a signal without a body.
        fields = b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0\x02\x01s\0\x03\0\0\0a.b\0\0\0\0\0\x03\x01s\0\x01\0\0\0S\0"
        header = b"l\x04\x01\x01" + struct.pack("<III", 0, 9, len(fields)) + fields
        return header + b"\0" * (-len(header) % 8)

    peer = Peer(silent, late)
    try:
        with pytest.raises(DBusCallError) as caught:
            peer.bus.call("a.b", "/", "a.b", "Echo", "s", ("first",), timeout=0.3)
        assert caught.value.unanswered
        assert peer.bus.call("a.b", "/", "a.b", "Echo", "s", ("second",), timeout=10) == ["second"]
        signal = peer.bus.next_signal(1)
        assert signal is not None
        assert (signal.path, signal.interface, signal.member, signal.values) == ("/", "a.b", "S", [])
        assert peer.bus.next_signal(0.05) is None
    finally:
        peer.close()


def test_no_socket_stays_open() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(NoBusError):
                Bus.connect("unix:path=/nonexistent/socket")
        gc.collect()
        assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "address", ["", "tcp:host=127.0.0.1,port=1", "unix:path=", "unix:path=/nonexistent", "nonsense", ";;"]
)
def test_no_bus_is_one_error(address: str) -> None:
    with pytest.raises(NoBusError, match="no connection to D-Bus: "):
        Bus.connect(address)


def test_a_stranger_behind_the_socket_is_no_bus(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"REJECTED EXTERNAL\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(NoBusError, match="refused this user"):
            Bus.connect(f"unix:path={tmp_path}/socket")
        thread.join(10)


# --- a real bus ------------------------------------------------------------------------------------------------------


def test_the_system_bus_is_the_one_that_is_named(daemon: BusHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path=/nonexistent;{daemon.address}")
    before = sorted(os.listdir("/proc/self/fd"))
    with Bus.system() as bus:
        assert bus.name_has_owner("org.freedesktop.NetworkManager")
        assert not bus.name_has_owner("org.freedesktop.nobody")
        [names] = bus.call(NAME, PATH, NAME, "ListNames")
        assert NAME in names
        assert "Features" in bus.get_all(NAME, PATH, NAME)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(NoBusError, match="closed"):
        bus.name_has_owner("org.freedesktop.nobody")


def test_a_service_that_does_not_run_is_named(daemon: BusHost) -> None:
    with Bus.connect(daemon.address) as bus, pytest.raises(DBusCallError) as caught:
        bus.call("org.freedesktop.nobody", "/", "a.b", "C", "a{sa{sv}}", (small(),), auto_start=False)
    assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"
    says_nothing_of(caught.value, *secrets_of(small()))


def test_large_bodies_go_through(bus: Bus) -> None:
    settings = small()
    peers = [
        {"public-key": ("s", key(number % 250)), "allowed-ips": ("as", [f"10.{number >> 8}.{number & 255}.0/24"])}
        for number in range(5000)
    ]
    settings["wireguard"]["peers"] = ("aa{sv}", peers)
    path, _ = bus.call(
        "org.freedesktop.NetworkManager",
        "/org/freedesktop/NetworkManager/Settings",
        "org.freedesktop.NetworkManager.Settings",
        "AddConnection2",
        "a{sa{sv}}ua{sv}",
        (settings, 0x22, {}),
    )
    [found] = bus.call(
        "org.freedesktop.NetworkManager", path, "org.freedesktop.NetworkManager.Settings.Connection", "GetSettings"
    )
    assert found["connection"]["uuid"] == ("s", UUID)


def test_faults_of_the_daemons_have_their_errors(daemon: BusHost) -> None:
    """NetworkManager stopped, killed and gone in the middle of a call, then the bus itself."""
    nm = ("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager", "org.freedesktop.DBus.Properties")
    call = (*nm, "Get", "ss", ("org.freedesktop.NetworkManager", "Version"))
    with Bus.connect(daemon.address) as bus:
        daemon.pause("NetworkManager")
        with pytest.raises(DBusCallError) as caught:
            bus.call(*call, timeout=0.3)
        assert caught.value.unanswered
        killer = threading.Timer(0.3, daemon.kill, ["NetworkManager"])
        killer.start()
        began = time.monotonic()
        with pytest.raises(DBusCallError) as caught:
            bus.call(*call, timeout=20)
        killer.join()
        assert caught.value.name == "org.freedesktop.DBus.Error.NoReply"
        assert caught.value.unanswered
        assert time.monotonic() - began < 10
        assert not bus.name_has_owner(nm[0])
        daemon.kill("bus")
        with pytest.raises(NoBusError):
            bus.call(*call, timeout=20)
    with pytest.raises(NoBusError):
        Bus.connect(daemon.address)
    daemon.start("bus")
    daemon.start("NetworkManager")
    with Bus.connect(daemon.address) as bus:
        assert bus.call(*call)
