"""What wg(8) is told: the words of each call, and secrets that it reads from memory, never from its arguments."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.live.changes import DeviceChange, PeerChange
from wgnet.live.device import LiveDevice
from wgnet.system.programs import ProgramError, find_program, memory_file, run_program
from wgnet.system.wireguard import free_ports, read_devices, set_device, set_peers

#: Writes down what it is called with, and what the files among its arguments hold.
FAKE = r"""#!/usr/bin/python3
import json, os, sys
read = {word: open(word).read() for word in sys.argv[1:] if word.startswith("/dev/fd/")}
with open(os.path.dirname(os.path.realpath(__file__)) + "/calls", "a") as log:
    log.write(json.dumps([sys.argv[1:], read, sorted(os.environ)]) + "\n")
if os.path.exists(os.path.dirname(os.path.realpath(__file__)) + "/fail"):
    print("Unable to modify interface: No such device", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def wg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `wg` that writes down its calls, in a folder that comes first in PATH."""
    program = tmp_path / "wg"
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def calls(folder: Path) -> list[tuple[list[str], dict[str, str], list[str]]]:
    return [tuple(json.loads(line)) for line in (folder / "calls").read_text().splitlines()]


def test_one_call_sets_all_that_changes(wg: Path) -> None:
    psk, private = PresharedKey(b"\1" * 32), PrivateKey(b"\2" * 32)
    change = DeviceChange(
        name="wg0",
        private_key=private,
        listen_port=5000,
        firewall_mark=0,
        peers=(
            PeerChange(
                name="a",
                public_key="A=",
                new=True,
                preshared_key=psk,
                endpoint="a.example:51820",
                allowed_ips=frozenset({ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("fd00::/64")}),
                persistent_keepalive=25,
            ),
            PeerChange(name="b", public_key="B=", clear_preshared_key=True, endpoint="b.example:1"),
            PeerChange(name="c", public_key="C=", remove=True),
        ),
        kicked=(PeerChange(name="a", public_key="A=", persistent_keepalive=0),),
    )
    set_device(change, {"a.example:51820": "192.0.2.1:51820", "b.example:1": ""})
    (words, read, environment), (again, _, _) = calls(wg)
    keys = list(read)
    assert words == [
        *("set", "wg0", "private-key", keys[0], "listen-port", "5000", "fwmark", "0"),
        *("peer", "A=", "preshared-key", keys[1], "endpoint", "192.0.2.1:51820", "persistent-keepalive", "25"),
        *("allowed-ips", "10.0.0.0/24,fd00::/64"),
        *("peer", "B=", "preshared-key", "/dev/null"),
        *("peer", "C=", "remove"),
    ]
    assert [text.strip() for text in read.values()] == [private.reveal(), psk.reveal()]
    assert "HOME" not in environment
    assert again == ["set", "wg0", "peer", "A=", "persistent-keepalive", "0"]


def test_two_that_exchange_their_ports_give_them_up_first(wg: Path) -> None:
    """The kernel gives no port to two; a device that is nobody's here keeps its own."""
    ports = {"wg0": 1, "wg1": 2, "wg2": 3, "wg3": 4, "alien": 5}
    live = {name: replace(LiveDevice.empty(name), listen_port=port) for name, port in ports.items()}
    free_ports({"wg0": 2, "wg1": 1, "wg2": 3, "wg3": 6, "wg4": 4, "wg5": 5, "wg6": 0}, live)
    assert [words for words, *_ in calls(wg)] == [["set", name, "listen-port", "0"] for name in ("wg0", "wg1", "wg3")]


def test_no_secret_is_an_argument_and_none_is_left_open(wg: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    peers = [PeerChange(name=str(n), public_key=f"{n}=", preshared_key=PresharedKey.generate()) for n in range(450)]
    set_peers("wg0", peers)
    found = calls(wg)
    # As many calls as open files allow.
    assert [len(read) for _, read, _ in found] == [200, 200, 50]
    for peer in peers:
        assert peer.preshared_key is not None
        assert peer.preshared_key.reveal() not in json.dumps([words for words, _, _ in found])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_peer_of_more_prefixes_than_an_argument_takes_is_read_from_a_file(wg: Path) -> None:
    networks = frozenset(ipaddress.ip_network(f"fd00:{a:x}:{b:x}::/48") for a in range(64) for b in range(64))
    set_peers("wg0", [PeerChange(name="a", public_key="A=", allowed_ips=networks, persistent_keepalive=9)])
    (words, _, _), (added, read, _) = calls(wg)
    assert words == ["set", "wg0", "peer", "A=", "persistent-keepalive", "9"]
    assert added[:2] == ["addconf", "wg0"]
    lines = read[added[2]].splitlines()
    assert lines[:2] == ["[Peer]", "PublicKey = A="]
    assert {ipaddress.ip_network(line.split(" = ")[1]) for line in lines[2:]} == networks


def test_a_failure_says_what_the_program_said(wg: Path) -> None:
    (wg / "fail").touch()
    with pytest.raises(ProgramError, match="'wg' failed: Unable to modify interface: No such device"):
        set_peers("wg0", [PeerChange(name="a", public_key="A=", remove=True)])


def test_what_is_no_dump_is_not_quoted(wg: Path) -> None:
    key = PresharedKey.generate().reveal()
    (wg / "wg").write_text(f"#!/bin/sh\necho 'wg0 {key} nonsense'\n")
    with pytest.raises(ProgramError) as raised:
        read_devices()
    assert key not in str(raised.value)
    assert key not in repr(raised.value.__context__)


def test_a_program_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("wgnet.system.programs._MORE_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("wg") is None
    with pytest.raises(ProgramError, match="there is no program 'wg' here; install wireguard-tools"):
        read_devices()


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(ProgramError, match=r"'sleep' did not end within 0\.1 seconds"):
        run_program("sleep", ["60"], timeout=0.1)


def test_a_file_in_memory_has_no_name() -> None:
    descriptor = memory_file("text\n" * 50_000)
    try:
        assert os.fstat(descriptor).st_nlink == 0
        assert os.read(descriptor, 9) == b"text\ntext"
    finally:
        os.close(descriptor)
