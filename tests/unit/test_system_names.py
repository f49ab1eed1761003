"""Names found without a tunnel: the file of hosts, systemd-resolved link by link, servers outside, what is known."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgnet.live.dns import read_answer
from wgnet.system import names
from wgnet.system.names import NameFinder, find_unroutable

NAME = "hub.example.net"


@pytest.fixture
def finder(tmp_path: Path) -> Callable[..., NameFinder]:
    """Return what makes a finder that knows nothing of this machine."""

    def make(**values: object) -> NameFinder:
        places = {"hosts": tmp_path / "hosts", "servers": tmp_path / "resolv.conf", "resolved": tmp_path / "resolved"}
        return NameFinder(**{"tunnels": ("wg0",), "mark": 0, **places, **values})  # type: ignore[arg-type]

    return make


@contextmanager
def serving(answers: dict[int, list[bytes]], *, silent: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Serve DNS at 127.0.0.1: the data of records by question type; yield the port and what was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        end = threading.Event()

        def serve() -> None:
            while not end.is_set():
                try:
                    message, sender = server.recvfrom(1000)
                except TimeoutError:
                    continue
                asked.append(message)
                if silent:
                    continue
                (kind,) = struct.unpack_from("!H", message, len(message) - 4)
                records = answers.get(kind, [])
                head = message[:2] + struct.pack("!5H", 0x8180, 1, len(records), 0, 0)
                body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 9, len(data)) + data for data in records)
                server.sendto(head + message[12:] + body, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], asked
        finally:
            end.set()
            thread.join()


@contextmanager
def resolved(path: Path, answer: Callable[[dict[str, object]], object]) -> Iterator[list[dict[str, object]]]:
    """Serve systemd-resolved's varlink calls; yield the parameters that they had."""
    asked: list[dict[str, object]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(0.1)
        end = threading.Event()

        def serve() -> None:
            while not end.is_set():
                try:
                    stream, _ = server.accept()
                except TimeoutError:
                    continue
                with stream:
                    data = stream.recv(10_000)
                    if not data:
                        continue  # only looked whether anybody is there
                    call = json.loads(data.rstrip(b"\0"))
                    assert call["method"] == "io.systemd.Resolve.ResolveHostname"
                    asked.append(call["parameters"])
                    stream.sendall(json.dumps(answer(call["parameters"])).encode() + b"\0")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            end.set()
            thread.join()


def test_the_file_of_hosts_comes_first(finder: Callable[..., NameFinder]) -> None:
    made = finder()
    made.hosts.write_text(
        "# 192.0.2.9 hub.example.net\n192.0.2.1 x HUB.example.net # y\nfe80::1%eth0 hub.example.net\n"
    )
    assert made.find([NAME], {}) == {NAME: ("192.0.2.1",)}


def test_servers_outside_the_tunnels_are_asked_for_both_versions(finder: Callable[..., NameFinder]) -> None:
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    with serving({1: [bytes((192, 0, 2, 1))], 28: [six]}) as (port, asked):
        made = finder(port=port)
        made.servers.write_text("search example.net\nnameserver nonsense\nnameserver 127.0.0.1\n")
        assert made.find([NAME], {}) == {NAME: ("2001:db8::1", "192.0.2.1")}
    assert len(asked) == 2
    assert len({message[:2] for message in asked}) in (1, 2)
    assert all(read_answer(message, message, 4) is None for message in asked)


def test_a_server_that_a_tunnel_leads_to_is_never_asked(finder: Callable[..., NameFinder]) -> None:
    with serving({1: [bytes((192, 0, 2, 1))]}) as (port, asked):
        # The route to 127.0.0.1 goes by the interface lo.
        made = finder(port=port, tunnels=("lo",))
        made.servers.write_text("nameserver 127.0.0.1\n")
        assert made.find(["nowhere.invalid"], {}) == {}
    assert asked == []


def test_a_server_that_says_nothing_costs_its_turn_and_no_more(
    finder: Callable[..., NameFinder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_TURN_S", 0.2)
    monkeypatch.setattr(names, "_PATIENCE_S", 0.5)
    with serving({}, silent=True) as (port, asked):
        made = finder(port=port)
        made.servers.write_text("nameserver 127.0.0.1\n")
        # What was found last stands in.
        assert made.find(["nowhere.invalid"], {"nowhere.invalid": ("192.0.2.3",)}) == {
            "nowhere.invalid": ("192.0.2.3",)
        }
    assert len(asked) == 2


def test_resolved_is_asked_on_every_link_but_the_tunnels(
    finder: Callable[..., NameFinder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0"), (3, "wg0"), (4, "wlan0")])
    monkeypatch.setattr(names, "_default_links", lambda: {"wlan0"})
    made = finder()

    def only_eth0(parameters: dict[str, object]) -> object:
        if parameters.get("ifindex") != 2:
            return {"error": "io.systemd.Resolve.NoNameServers", "parameters": {}}
        address = {"ifindex": 2, "family": 2, "address": [192, 0, 2, 1]}
        return {"parameters": {"addresses": [address], "name": NAME, "flags": 1}}

    with resolved(made.resolved, only_eth0) as asked:
        assert made.find([NAME], {}) == {NAME: ("192.0.2.1",)}
    assert asked == [{"name": NAME, "ifindex": 4}, {"name": NAME, "ifindex": 2}]


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "io.systemd.Resolve.ResourceRecordTypeInvalidForQuery"},
        {"parameters": {"addresses": [{"address": [1, 2, 3]}]}},
        {"parameters": {"addresses": [{"address": [1, 2, 3, 999]}]}},
        {"parameters": {"addresses": "x"}},
        {"parameters": None},
        [],
    ],
)
def test_whatever_resolved_says_is_an_address_or_nothing(
    answer: object, finder: Callable[..., NameFinder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(2, "eth0")])
    made = finder()
    with resolved(made.resolved, lambda _: answer) as asked:
        assert made.find([NAME], {}) == {}
    # Last without a link, for servers that belong to none.
    assert asked == [{"name": NAME, "ifindex": 2}, {"name": NAME}]


def test_a_resolved_that_has_ended_is_not_asked_though_its_socket_is_there(finder: Callable[..., NameFinder]) -> None:
    with serving({1: [bytes((192, 0, 2, 1))]}) as (port, _):
        made = finder(port=port)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
            left.bind(str(made.resolved))
        made.servers.write_text("nameserver 127.0.0.1\n")
        assert made.resolved.exists()
        assert made.find([NAME], {}) == {NAME: ("192.0.2.1",)}


def test_what_has_a_route_is_told_without_sending() -> None:
    with serving({}) as (port, asked):
        assert find_unroutable([f"127.0.0.1:{port}", "255.255.255.255:0", "nonsense", "[::]:99999"], 0) == {
            "255.255.255.255:0",
            "nonsense",
            "[::]:99999",
        }
    assert asked == []
