"""Reading what iproute2, nft(8) and resolvectl(1) print, as captured and as the kernel here says it."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_keys import EXAMPLES
from example_trees import examples, read_fleet
from lab_sample import TEXT
from live_sample import live_of, write_tools

from wgnet.live.state import (
    LiveDns,
    LiveLink,
    NotUnderstoodError,
    PolicyRule,
    Route,
    parse_dns,
    parse_links,
    parse_routes,
    parse_rules,
    parse_tables,
)
from wgnet.system.live import LiveError, read_state

NET = ipaddress.ip_network


def section(name: str) -> str:
    """Return a section of the lab's sample, which has the form of the tools' own output."""
    found = re.search(rf"^@@ {re.escape(name)}\n(.*?)\n\n@@ ", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_links() -> None:
    """Addresses with their prefixes, whatever else `ip -d` says; what a filter left out is no link."""
    links = parse_links(section("addresses"), lambda name: frozenset({4}) if name == "wg0" else frozenset())
    assert set(links) == {"lo", "wg0"}
    assert links["wg0"] == LiveLink(
        name="wg0",
        kind="wireguard",
        up=True,
        mtu=1380,
        addresses=frozenset(map(ipaddress.ip_interface, ("10.0.0.1/24", "fd00::1/64"))),
        forwarding=frozenset({4}),
    )
    assert (links["lo"].kind, links["lo"].forwarding) == ("", frozenset())


def test_routes() -> None:
    """Names or numbers, of all tables but local; a protocol makes no other route of one."""
    assert parse_routes(section("routes4"), 4) == [
        Route(NET("0.0.0.0/0"), 51820, 2000, "wg0"),
        Route(NET("0.0.0.0/0"), 254, 0, "eth0", gateway="198.51.100.1"),
        Route(NET("10.0.0.0/24"), 254, 2000, "wg0"),
        Route(NET("10.66.0.0/16"), 254, 2000, "wg0"),
    ]
    assert [route.protocol for route in parse_routes(section("routes4"), 4)] == [4, 4, 2, 4]
    assert [str(route) for route in parse_routes(section("routes6"), 6)] == [
        "fd00::/64 dev wg0 metric 2000",
        "fd66::/48 dev wg0 metric 2000",
        "fe80::/64 dev eth0 metric 256",
    ]


@pytest.mark.parametrize(
    ("item", "route"),
    [
        ({"dst": "1.2.3.4"}, Route(NET("1.2.3.4"), 254, 0, "wg0", protocol=3)),
        ({"type": "7", "dst": "10.8.0.0/16", "table": "77"}, Route(NET("10.8.0.0/16"), 77, 0, None, "unreachable")),
        ({"type": "blackhole", "dst": "10.8.0.0/16"}, Route(NET("10.8.0.0/16"), 254, 0, None, "blackhole")),
        ({"dst": "10.8.0.0/16", "protocol": "zebra"}, Route(NET("10.8.0.0/16"), 254, 0, "wg0", protocol=-1)),
        ({"dst": "10.8.0.0/16", "dev": "wg1", "via": {"host": "fe80::1"}}, "10.8.0.0/16 via fe80::1 dev wg1 metric 0"),
        ({"dst": "10.8.0.0/16", "nexthops": [{"dev": "wg1"}]}, "10.8.0.0/16 dev wg1 metric 0"),
        ({"type": "7", "dst": "default", "table": "main"}, "unreachable 0.0.0.0/0 metric 0"),
    ],
)
def test_a_route_of_an_unusual_form(item: dict[str, Any], route: Route | str) -> None:
    """What `ip` leaves out is what is usual, or what it was asked for with `dev`."""
    (found,) = parse_routes(json.dumps([item]), 4, "wg0")
    if isinstance(route, Route):
        assert (found, found.protocol) == (route, route.protocol if "type" not in item else 3)
    else:
        assert str(found) == route


def test_rules() -> None:
    """All but the kernel's own, by name or number."""
    assert [str(rule) for rule in parse_rules(section("rules4"), 4)] == [
        "IPv4 32600: from 10.0.0.0/24 to 10.0.0.0/24 iif wg0 prohibit",
        "IPv4 32763: from all to 192.0.2.9/32 lookup main",
        "IPv4 32764: from all lookup main suppress_prefixlength 0",
        "IPv4 32765: not from all fwmark 0xca6c lookup 51820",
    ]
    assert parse_rules(section("rules6"), 6) == []
    assert [rule.protocol for rule in parse_rules(section("rules4"), 4)] == [4] * 4


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (
            {"action": "8", "src": "10.0.0.0", "srclen": 24, "iif": "d0", "iif_detached": None},
            "10.0.0.0/24 iif d0 prohibit",
        ),
        ({"src": "all", "fwmark": "0x1", "fwmask": "0xff", "table": "7"}, "all fwmark 0x1/0xff lookup 7"),
        ({"src": "all", "table": "7", "uid_start": 5, "uid_end": 6}, "all lookup 7 uid_end 6 uid_start 5"),
        ({"src": "0.0.0.0", "srclen": 0, "action": "goto", "goto": 9}, "all goto goto 9"),
        ({"src": "all", "table": "mine"}, "all lookup -1"),
        # A kernel's own place, but not the kernel's rule.
        ({"priority": 32766, "src": "all", "iif": "wg0", "table": "main"}, "all iif wg0 lookup main"),
        # 6.1 and later name it otherwise.
        ({"src": "all", "table": "254", "suppress_prefixlength": 0}, "all lookup main suppress_prefixlength 0"),
    ],
)
def test_a_rule_of_an_unusual_form(item: dict[str, Any], text: str) -> None:
    """Nothing of a rule is lost."""
    (found,) = parse_rules(json.dumps([{"priority": 5, **item}]), 4)
    assert str(found) == f"IPv4 {found.priority}: from {text}"


def test_tables_and_dns() -> None:
    """The tables that are wgnet's; servers in order, as Python writes them, over several lines."""
    assert parse_tables(section("tables")) == {"wgnet_mark_wg0", "wgnet_masquerade_wg0"}
    found = parse_dns(section("servers"), section("domains"), section("default-route"))
    assert found["wg0"] == LiveDns(
        servers=("10.0.0.53", "fd00::53"), domains=frozenset({"~.", "corp.example"}), default_route=True
    )
    assert found["eth0"] == LiveDns(servers=(), domains=frozenset({"~lan"}), default_route=False)
    long = parse_dns("Link 3 (wg0): 10.0.0.53\n              FD00::53 9.9.9.9#dns.quad9.net\n", "", "")
    assert long == {"wg0": LiveDns(servers=("10.0.0.53", "fd00::53", "9.9.9.9#dns.quad9.net"))}


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", '[{"dst": "x"}]', '[{"priority": 1, "src": "x"}]'])
def test_what_is_not_understood_is_not_guessed(text: str) -> None:
    """Each reader says which tool printed it, and nothing of what it printed."""
    for tool, read in (
        ("ip address", lambda: parse_links(text, lambda _: frozenset())),
        ("ip route", lambda: parse_routes(text, 4)),
        ("ip rule", lambda: parse_rules(text, 4)),
        ("nft list tables", lambda: parse_tables(text)),
    ):
        with pytest.raises(NotUnderstoodError, match=f"the output of `{tool}` was not understood"):
            read()


# --- a real kernel ---------------------------------------------------------------------------------------------------

_READ = """
import json
from wgnet.system.live import read_state
state = read_state(["d0", "gone"])
print(json.dumps({
    "links": {n: [l.kind, l.up, l.mtu, sorted(map(str, l.addresses)), sorted(l.forwarding)]
              for n, l in state.links.items()},
    "routes": sorted([str(r), r.protocol] for r in state.routes),
    "rules": sorted([str(r), r.protocol] for r in state.rules),
    "forwarding": sorted(state.forwarding), "mark": state.source_valid_mark,
    "tables": sorted(state.tables), "devices": sorted(state.devices),
}))
"""


def in_namespace(script: str) -> dict[str, Any]:
    """Run a shell script, then read the state, as root of a network namespace of its own."""
    # /proc/sys is of the network namespace of whoever reads it.
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-euc", f'{script}\n{sys.executable} -c "$READ"'],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "READ": _READ, "PYTHONPATH": str(Path.cwd())},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_kernels_own_state() -> None:
    """Of the interfaces that were asked about, and what is the whole host's; one that is not there is no error."""
    found = in_namespace(
        """
        ip link set lo up
        ip link add d0 mtu 1400 type bridge
        ip link set d0 up
        ip link add d1 type bridge
        ip link set d1 up
        ip address add 10.0.0.1/24 dev d0 metric 2000
        ip address add fd00::1/64 dev d0 nodad
        ip address add 10.1.0.1/24 dev d1
        ip route add 10.9.0.0/16 dev d0 table 77 metric 5 proto static
        ip route add fd99::/16 dev d0 proto static
        ip route add unreachable 10.8.0.0/16 table 77
        ip rule add not fwmark 51820 table 77 priority 32765 protocol static
        ip rule add from 10.0.0.0/24 iif d0 prohibit priority 99
        ip -6 rule add table main suppress_prefixlength 0 priority 5
        nft add table inet wgnet_mark_d0
        nft add table inet other
        """
    )
    assert {name: link[:4] for name, link in found["links"].items()} == {
        "d0": ["bridge", True, 1400, [*found["links"]["d0"][3]]]
    }
    assert {"10.0.0.1/24", "fd00::1/64"} < set(found["links"]["d0"][3])
    assert [each for each in found["routes"] if "fe80" not in each[0]] == [
        ["10.0.0.0/24 dev d0 metric 2000", 2],
        ["10.9.0.0/16 dev d0 table 77 metric 5", 4],
        ["fd00::/64 dev d0 metric 256", 2],
        ["fd99::/16 dev d0 metric 1024", 4],
    ]
    assert found["rules"] == [
        ["IPv4 32765: not from all fwmark 0xca6c lookup 77", 4],
        ["IPv4 99: from 10.0.0.0/24 iif d0 prohibit", 0],
        ["IPv6 5: from all lookup main suppress_prefixlength 0", 0],
    ]
    assert found["tables"] == ["wgnet_mark_d0"]
    assert found["devices"] == []
    assert found["mark"] is False


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "message", "way_out"),
    [
        (
            "echo 'Unable to access interface wg0: Operation not permitted' >&2; exit 1",
            "'wg' is not allowed to read the live state",
            "run it as root (CAP_NET_ADMIN)",
        ),
        ("echo 'some other trouble' >&2; exit 1", "'wg' failed: some other trouble", None),
        ("echo wg0", "the output of `wg show all dump` was not understood", None),
    ],
)
def test_why_it_cannot_be_read(
    script: str, message: str, way_out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privilege the way out is named; a tool's own words are passed on, but not what it printed."""
    tool(tmp_path, "wg", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    with pytest.raises(LiveError) as caught:
        read_state()
    assert (caught.value.message, caught.value.help) == (message, way_out)


def test_a_kernel_without_ipv6_or_nftables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked for the one, and what nft(8) says of the other is no failure; a refusal is."""
    fleet, _ = read_fleet({"office.yaml": (EXAMPLES / "office.yaml").read_text()})
    live = live_of(fleet.plan_host("laptop"))
    assert live.tables is not None
    write_tools(tmp_path / "tools", replace(live, links={}))
    monkeypatch.setenv("PATH", f"{tmp_path}/tools:/usr/sbin:/usr/bin:/sbin:/bin")
    assert read_state(["wg0"]).tables == frozenset()
    (tmp_path / "tools/rules6.txt").unlink()
    tool(tmp_path / "tools", "nft", "echo 'Error: cache initialization failed: Protocol not supported' >&2; exit 1")
    monkeypatch.setattr("wgnet.system.live._PARAMETERS", tmp_path / "net")
    state = read_state(["wg0"])
    assert (state.tables, state.forwarding) == (None, frozenset())
    tool(tmp_path / "tools", "nft", "echo 'Operation not permitted (you must be root)' >&2; exit 1")
    with pytest.raises(LiveError, match="'nft' is not allowed"):
        read_state(["wg0"])


@pytest.mark.parametrize("example", ["office", "exit-node", "site-to-site"])
def test_a_state_that_tools_print_is_the_same_state(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every host: devices with their keys, links, routes, rules and tables, nothing lost and nothing added."""
    fleet, _ = read_fleet({path.name: path.read_text() for path in examples()[example]})
    monkeypatch.setenv("PATH", f"{tmp_path}/tools:/usr/sbin:/usr/bin:/sbin:/bin")
    # Whatever is there here.
    monkeypatch.setattr("wgnet.system.live._forwarding", lambda name: frozenset())
    for host in fleet.host_names():
        live = live_of(fleet.plan_host(host))
        write_tools(tmp_path / "tools", live)
        found = read_state([each.interface for each in fleet.plan_host(host).interfaces])
        assert (found.devices, found.routes, found.rules, found.tables) == (
            live.devices,
            live.routes,
            live.rules,
            live.tables,
        )
        assert found.links == {name: replace(link, forwarding=frozenset()) for name, link in live.links.items()}


def test_a_tool_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is named."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("wgnet.system.programs._MORE_PATH", "/nowhere")
    with pytest.raises(LiveError, match="there is no program 'wg' here; install wireguard-tools"):
        read_state()


def test_a_rule_and_a_route_are_the_same_whoever_made_them() -> None:
    """The protocol is told, and not compared."""
    assert Route(NET("10.0.0.0/8"), 254, 0, "wg0", protocol=3) == Route(NET("10.0.0.0/8"), 254, 0, "wg0", protocol=4)
    assert PolicyRule(4, 5, protocol=0) == PolicyRule(4, 5)
    assert PolicyRule(4, 5) != PolicyRule(4, 5, invert=True)
