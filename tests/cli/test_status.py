"""`wgnet status`: what a machine has beside its topology, in words and in JSON, once and again and again.

The programs that it asks are stand-ins that print a state; the lab asks real ones.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli.command import INTERRUPTIBLE, PROGRAM, Result, environment, wgnet
from example_keys import EXAMPLES, make_store, private_key
from example_trees import read_fleet
from live_sample import live_of, write_tools

from wgnet.cli.commands.status import age, size
from wgnet.live.device import LivePeer
from wgnet.live.state import LiveState

OFFICE = (EXAMPLES / "office.yaml").read_text()
STRANGER = private_key("office", "stranger").public()
HUB = private_key("office", "fra").public()
Change = Callable[[LiveState], LiveState]


def live(host: str = "laptop") -> LiveState:
    fleet, _ = read_fleet({"office.yaml": OFFICE})
    return live_of(fleet.plan_host(host))


def peer(key: str, **words: Any) -> Change:
    def change(state: LiveState) -> LiveState:
        device = state.devices["wg0"]
        return replace(
            state,
            devices={"wg0": replace(device, peers={**device.peers, key: replace(device.peers[key], **words)})},
        )

    return change


def stranger(state: LiveState) -> LiveState:
    device = state.devices["wg0"]
    known: LivePeer = device.peers[HUB]
    unknown = replace(known, public_key=STRANGER, preshared_key=None, endpoint=None, allowed_ips=frozenset())
    return replace(state, devices={"wg0": replace(device, peers={**device.peers, STRANGER: unknown})})


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Path:
    """A root with the topology, the host's name and its keys, as `wgnet render --system --keys` leaves it."""
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    (root / "etc/wgnet/office.yaml").write_text(OFFICE)
    (root / "etc/wgnet/host").write_text("laptop\n")
    make_store(tmp_path / "keys", "office", ["laptop", "fra"], [])
    done = wgnet("render", "--system", "--root", root, "--keys", tmp_path / "keys", cwd=tmp_path)
    assert done.status == 0, done.err
    return tmp_path


def status(machine: Path, *arguments: str, change: Change | None = None, **words: str) -> Result:
    """Run status on the machine with a state."""
    state = live()
    write_tools(machine / "tools", state if change is None else change(state), **words)
    return wgnet("status", "--root", machine / "root", *arguments, cwd=machine, PATH=path(machine))


def path(machine: Path) -> str:
    return f"{machine / 'tools'}:/usr/sbin:/usr/bin:/sbin:/bin"


def test_a_machine_as_planned(machine: Path) -> None:
    """Peers by their hosts' names; nothing else is said, and the status is 0."""
    at = int(time.time()) - 125
    heard = peer(HUB, latest_handshake=at, received=2048, sent=5_000_000, endpoint="192.0.2.77:4000")
    done = status(machine, "--exit-code", change=heard)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "wg0: network office, NetworkManager, up"
    assert lines[1] == "  addresses    10.80.0.7/24, fd42:80::7/64, fe80::9d2c/64"
    assert re.search(r"^  PEER +HANDSHAKE +RECEIVED +SENT +ENDPOINT +CONFIGURED$", done.out, re.MULTILINE)
    assert re.search(
        r"^  fra +2 minutes \d+ seconds? ago +2\.00 KiB +4\.77 MiB +192\.0\.2\.77:4000 +fra\.example\.net:51820$",
        done.out,
        re.MULTILINE,
    )
    assert "not as planned" not in done.out
    assert "firewall" not in done.out


def test_the_machine_itself_needs_no_public_key_in_the_topology(machine: Path) -> None:
    """A package's topology cannot know the key of who installs it; its peers' keys it must."""
    own, hub = private_key("office", "laptop").public(), HUB
    topology = machine / "root/etc/wgnet/office.yaml"
    topology.write_text(OFFICE.replace(f'    public-key: "{own}"\n', ""))
    done = status(machine, "--exit-code")
    assert done.status == 0, done.out + done.err
    assert "note[WG5001]: 'laptop' has no public key" in done.err
    topology.write_text(OFFICE.replace(f'    public-key: "{hub}"\n', ""))
    done = status(machine, "--exit-code")
    assert done.status == 1
    assert "error[WG5001]: 'fra' has no public key" in done.err


def test_what_is_not_as_planned(machine: Path) -> None:
    """Each difference is a line, a peer that nobody knows goes by its key, and `--exit-code` tells."""

    def change(state: LiveState) -> LiveState:
        return stranger(peer(HUB, endpoint=None, preshared_key=None)(state))

    done = status(machine, change=change)
    assert done.status == 0
    told = done.out.split("  not as planned:\n")[1]
    assert told.splitlines() == [
        f"    unknown peer {STRANGER}",
        "    missing preshared key of peer fra (the link's)",
        "    missing endpoint of peer fra (fra.example.net:51820)",
    ]
    assert re.search(rf"^  {re.escape(STRANGER)} +never ", done.out, re.MULTILINE)
    assert status(machine, "--exit-code", change=change).status == 3


SHAPE = {
    "": {"version", "host", "time", "drift", "unconfirmed", "interfaces", "leftovers"},
    "interfaces": {
        *("network", "interface", "manager", "state", "autoconnect", "public_key", "listen_port", "firewall_mark"),
        *("mtu", "addresses", "live_until_boot", "peers", "drift", "firewall", "dns_unread"),
    },
    "peers": {
        *("name", "public_key", "present", "endpoint", "allowed_ips", "latest_handshake", "received", "sent"),
        "persistent_keepalive",
    },
    "drift": {"aspect", "subject", "expected", "found"},
}


def test_json_has_the_shape_that_is_promised_and_no_secret(machine: Path) -> None:
    """Every key of version 1, and neither a private nor a preshared key."""
    done = status(machine, "--format", "json", change=peer(HUB, preshared_key=None, latest_handshake=7))
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    (interface,) = found["interfaces"]
    (one,) = interface["peers"]
    (drift,) = interface["drift"]
    assert {"": set(found), "interfaces": set(interface), "peers": set(one), "drift": set(drift)} == SHAPE
    assert (found["version"], found["host"], found["drift"], found["leftovers"]) == (1, "laptop", True, [])
    assert (one["name"], one["latest_handshake"], one["endpoint"]["configured"]) == ("fra", 7, "fra.example.net:51820")
    assert drift == {"aspect": "preshared-key", "subject": "fra", "expected": "the link's", "found": None}
    state = live()
    key, psk = state.devices["wg0"].private_key, state.devices["wg0"].peers[HUB].preshared_key
    assert key is not None
    assert psk is not None
    for secret in (key.reveal(), psk.reveal()):
        assert secret not in done.out
        assert secret not in status(machine).out


def test_a_link_that_is_not_there(machine: Path) -> None:
    """It is one difference, and JSON says what it can."""

    def gone(state: LiveState) -> LiveState:
        return replace(state, devices={}, links={}, routes=frozenset())

    done = status(machine, change=gone)
    assert done.out.splitlines() == [
        "wg0: network office, NetworkManager, absent",
        "",
        "  not as planned:",
        "    the interface: expected up, found absent",
    ]
    (interface,) = json.loads(status(machine, "--format", "json", change=gone).out)["interfaces"]
    assert (interface["state"], interface["mtu"], interface["peers"][0]["present"]) == ("absent", None, False)


def test_without_privilege(machine: Path) -> None:
    """The way out is named, and the exit status is that of what could not start."""
    write_tools(machine / "tools", live())
    (machine / "tools/wg").write_text("#!/bin/sh\necho 'Unable to access wg0: Operation not permitted' >&2\nexit 1\n")
    done = wgnet("status", "--root", machine / "root", cwd=machine, PATH=path(machine))
    assert (done.status, done.out) == (6, "")
    assert "error[WG6020]: 'wg' is not allowed to read the live state" in done.err
    assert "CAP_NET_ADMIN" in done.err


def test_what_the_machine_lacks_is_no_error_of_the_topology(tmp_path: Path) -> None:
    done = wgnet("status", "--root", tmp_path / "none", cwd=tmp_path)
    assert (done.status, "error[WG6001]" in done.err) == (6, True)


def test_keys_that_cannot_be_read_are_not_compared(machine: Path) -> None:
    """Everything else is; a warning says what is not."""
    for file in (machine / "root/etc/wgnet").rglob("*"):
        if file.is_file() and file.suffix not in (".yaml",) and file.name != "host":
            file.chmod(0o666)
    done = status(machine, "--exit-code", change=peer(HUB, preshared_key=None))
    assert done.status == 0
    assert "warning[WG6021]: keys of 'wg0' are not compared: " in done.err
    assert status(machine, "--exit-code", change=peer(HUB, persistent_keepalive=7)).status == 3


def test_what_no_topology_describes_any_more(machine: Path) -> None:
    """An interface that wgnet wrote goes by its network; with files named, only those count."""
    other = OFFICE.replace("name: office", "name: lab").replace("interface: wg0", "interface: wg7")
    (machine / "root/etc/wgnet/office.yaml").write_text(
        "\n".join(line for line in other.split("\n") if "preshared-keys" not in line)
    )
    done = status(machine, "--exit-code")
    assert done.status == 3
    assert done.out.splitlines()[-2:] == [
        "wg0: network office, up",
        "  no topology describes it any more; `wgnet remove office` takes it off",
    ]
    found = json.loads(status(machine, "--format", "json").out)
    assert found["leftovers"] == [{"network": "office", "interface": "wg0", "state": "up"}]
    (machine / "root/etc/wgnet/office.yaml").unlink()
    done = status(machine)
    assert done.status == 0, done.err
    assert done.out.splitlines()[0] == "wg0: network office, up"
    (machine / "office.yaml").write_text(OFFICE)
    assert "no topology" not in status(machine, "office.yaml").out


def test_a_device_that_networkd_leaves_alone(machine: Path) -> None:
    """What the drop-in of a running change means is said in a line."""
    folder = machine / "root/run/systemd/network/50-wgnet-wg0.netdev.d"
    folder.mkdir(parents=True)
    (folder / "zz-wgnet-live.conf").touch()
    assert "\n  live until the next boot: systemd-networkd leaves the running device alone" in status(machine).out
    assert json.loads(status(machine, "--format", "json").out)["interfaces"][0]["live_until_boot"] is True


def test_a_firewall_is_named_and_is_no_drift(machine: Path) -> None:
    """It is the administrator's, and may be meant."""
    base = {"family": "ip", "table": "t", "name": "c", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}
    rules = json.dumps({"nftables": [{"chain": base}, {"chain": {**base, "family": "ip6", "table": "s"}}]})
    for file in (machine / "root/etc/wgnet").rglob("*"):
        if file.is_file() and file.suffix != ".yaml":
            file.unlink()
    (machine / "root/etc/wgnet/host").write_text("nyc\n")
    state = live("nyc")
    write_tools(machine / "tools", state, rules)
    arguments = ("status", "--root", machine / "root", "--exit-code")
    done = wgnet(*arguments, cwd=machine, PATH=path(machine))
    assert done.status == 0, done.out
    assert (
        "  the firewall does not let in UDP port 51820: chain c (hook input) of table ip t drops it (IPv4)\n"
        in done.out
    )
    found = json.loads(wgnet(*arguments, "--format", "json", cwd=machine, PATH=path(machine)).out)
    assert found["interfaces"][0]["firewall"] == [
        {
            "need": "let in UDP port 51820",
            "versions": [4],
            "family": "ip",
            "table": "t",
            "chain": "c",
            "hook": "input",
        }
    ]
    # What cannot be read, or is not understood, is no reason to say anything.
    write_tools(machine / "tools", state, "nonsense")
    assert "firewall" not in wgnet(*arguments, cwd=machine, PATH=path(machine)).out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--watch", "--exit-code"], 2, "--exit-code does not go with --watch"),
        (["--watch", "office.yaml"], 2, "expected a number of seconds, found 'office.yaml'"),
        (["--watch=0"], 2, "expected a number of seconds, found '0'"),
        (["--watch=nan"], 2, "expected a number of seconds, found 'nan'"),
        (["--host", "nobody"], 1, "there is no host 'nobody'"),
        (["none.yaml"], 1, "cannot be read"),
    ],
)
def test_refusals(arguments: list[str], code: int, words: str, machine: Path) -> None:
    """A command line or a topology that says nothing of this machine."""
    done = status(machine, *arguments)
    assert (done.status, done.out) == (code, "")
    assert words in done.err


# --- again and again -------------------------------------------------------------------------------------------------


def watch(machine: Path, output: int, *arguments: str) -> subprocess.Popen[bytes]:
    write_tools(machine / "tools", live())
    return subprocess.Popen(
        [*INTERRUPTIBLE, *PROGRAM, "status", "--root", str(machine / "root"), "--watch=0.2", *arguments],
        stdout=output,
        stderr=subprocess.PIPE,
        cwd=machine,
        env=environment(PATH=path(machine), TERM="xterm"),
    )


def test_watching_prints_documents_where_nobody_redraws(machine: Path) -> None:
    """In JSON one a line, each of the moment; it ends when nobody reads any more."""
    with watch(machine, subprocess.PIPE, "--format", "json") as running:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        write_tools(machine / "tools", peer(HUB, persistent_keepalive=7)(live()))
        for _ in range(20):
            later = json.loads(running.stdout.readline())
            if later["drift"]:
                break
        assert (first["drift"], later["drift"]) == (False, True)
        running.stdout.close()
        assert running.wait(20) == 141


def test_watching_redraws_a_terminal_in_place(machine: Path) -> None:
    """It is cleared once; then each line replaces the one before, and an interrupt ends it."""
    ours, theirs = pty.openpty()
    running = watch(machine, theirs)
    os.close(theirs)
    text = b""
    while text.count(b"\x1b[H") < 3:
        text += os.read(ours, 65536)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == -signal.SIGINT
    assert running.stderr is not None
    assert running.stderr.read() == b""
    running.stderr.close()
    os.close(ours)
    assert text.count(b"\x1b[2J") == 1
    assert text.startswith(b"\x1b[2J\x1b[Hwg0: network office")
    assert b"\x1b[K\r\n" in text
    assert b"\x1b[J" in text


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 seconds ago"),
        (0.9, "0 seconds ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "1 minute ago"),
        (61, "1 minute 1 second ago"),
        (599, "9 minutes 59 seconds ago"),
        (659, "10 minutes ago"),
        (3600 + 59, "1 hour ago"),
        (3 * 3600 + 120, "3 hours 2 minutes ago"),
        (86400 * 12, "12 days ago"),
        (86400 + 7200, "1 day 2 hours ago"),
    ],
)
def test_age(seconds: float, text: str) -> None:
    """The greatest unit, and the next one while there are few of it."""
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (5 * 2**20, "5.00 MiB"),
        (2**30, "1.00 GiB"),
        (2**51, "2048.00 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    """In the units of wg(8)."""
    assert size(count) == text
