"""Reading a live host: what wg(8), ip(8), nft(8) and resolvectl(1) print, nothing lost and no secret kept."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from lab.state import READ, HostAddress, LiveState, PolicyRule, Route, StateError, fingerprint, parse_state
from lab_sample import EXIT, NEAR, NEXT, OWN, PSK, TEXT, changed, compare, live


def test_reads_an_interface_with_its_peers() -> None:
    """Keys become fingerprints, `off` and `(none)` become 0 and None, and showconf says what the dump says."""
    wg0 = live().interfaces["wg0"]
    assert (wg0.up, wg0.mtu, wg0.forwarding) == (True, 1380, frozenset({4}))
    assert wg0.addresses == {
        HostAddress(ipaddress.ip_interface("10.0.0.1/24")),
        HostAddress(ipaddress.ip_interface("fd00::1/64")),
    }
    assert wg0.wireguard.private_key_sha256 == fingerprint(OWN.reveal())
    assert (wg0.wireguard.public_key, wg0.wireguard.listen_port, wg0.wireguard.firewall_mark) == (
        OWN.public(),
        51820,
        51820,
    )
    exit_node, near, coming = (wg0.wireguard.peers[key] for key in (EXIT, NEAR, NEXT))
    assert exit_node.preshared_key_sha256 == fingerprint(PSK)
    assert exit_node.allowed_ips == {ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("10.0.0.2/32")}
    assert (exit_node.endpoint, exit_node.persistent_keepalive) == ("192.0.2.1:51820", 25)
    assert (near.preshared_key_sha256, near.persistent_keepalive, len(near.allowed_ips)) == (None, 0, 4)
    assert (coming.endpoint, coming.allowed_ips) == (None, frozenset())
    assert wg0.configuration.peers == wg0.wireguard.peers
    assert wg0.configuration.firewall_mark == 51820
    assert wg0.dns is not None
    assert wg0.dns.servers == ("10.0.0.53", "fd00::53")
    assert wg0.dns.domains == {"~.", "corp.example"}
    assert wg0.dns.default_route is True


def test_keeps_no_secret() -> None:
    """Nothing that a failing test could print has a key in it."""
    for key in (OWN.reveal(), PSK):
        assert key not in repr(live())


def test_reads_the_routes_of_its_interfaces_in_all_tables() -> None:
    """Those of the underlay and of the table local are left out; a default route has its family's prefix."""
    assert live().routes == {
        Route(ipaddress.ip_network("0.0.0.0/0"), 51820, 2000, "wg0", "static", "link"),
        Route(ipaddress.ip_network("10.0.0.0/24"), 254, 2000, "wg0", "kernel", "link"),
        Route(ipaddress.ip_network("10.66.0.0/16"), 254, 2000, "wg0", "static", "link"),
        Route(ipaddress.ip_network("fd00::/64"), 254, 2000, "wg0", "kernel"),
        Route(ipaddress.ip_network("fd66::/48"), 254, 2000, "wg0", "static"),
    }


@pytest.mark.parametrize(
    ("version", "item", "route"),
    [
        (4, {"dst": "1.2.3.4", "dev": "wg0"}, Route(ipaddress.ip_network("1.2.3.4"), 254, 0, "wg0")),
        (6, {"dst": "default", "dev": "wg0", "metric": 1024}, Route(ipaddress.ip_network("::/0"), 254, 1024, "wg0")),
        (
            4,
            {"type": "unreachable", "dst": "10.67.0.0/16", "table": "77", "metric": 99},
            Route(ipaddress.ip_network("10.67.0.0/16"), 77, 99, None, type="unreachable"),
        ),
        (
            6,
            {"type": "unreachable", "dst": "fd67::/16", "dev": "lo", "table": "77", "metric": 99, "pref": "medium"},
            Route(ipaddress.ip_network("fd67::/16"), 77, 99, None, type="unreachable"),
        ),
        (
            4,
            {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "table": "51820"},
            Route(ipaddress.ip_network("0.0.0.0/0"), 51820, 0, "eth0", gateway="192.0.2.1"),
        ),
        (
            4,
            {"dst": "10.9.0.0/16", "nexthops": [{"dev": "wg0", "weight": 1}, {"dev": "eth0", "gateway": "192.0.2.1"}]},
            Route(ipaddress.ip_network("10.9.0.0/16"), 254, 0, "wg0"),
        ),
        (
            4,
            # With -d, as some have it, nothing is left out.
            {"type": "unicast", "dst": "1.2.3.4", "dev": "wg0", "table": "main", "protocol": "boot", "scope": "link"},
            Route(ipaddress.ip_network("1.2.3.4"), 254, 0, "wg0", scope="link"),
        ),
    ],
)
def test_reads_unusual_routes(version: int, item: dict[str, Any], route: Route) -> None:
    """What `ip -j` leaves out has the kernel's default; routes in a table of wgnet's count whoever's they are."""
    marker = f"@@ routes{version}\n["
    assert live(changed(marker, f"{marker}{json.dumps(item)},")).routes == live().routes | {route}


def test_reads_rules_but_the_kernels_own() -> None:
    """A rule that refuses looks into no table, whatever is printed; `not` has no value."""
    assert sorted(map(str, live().rules)) == [
        "IPv4 32600: from 10.0.0.0/24 to 10.0.0.0/24 iif wg0 prohibit proto static",
        "IPv4 32763: from all to 192.0.2.9/32 lookup 254 proto static",
        "IPv4 32764: from all lookup 254 suppress_prefixlength 0 proto static",
        "IPv4 32765: not from all fwmark 0xca6c lookup 51820 proto static",
    ]


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (
            {"priority": 5, "src": "all", "table": "main", "suppress_prefixlength": 0},
            PolicyRule(6, 5, table=254, suppress_prefix_length=0),
        ),
        # A kernel's own place, but not the kernel's rule.
        (
            {"priority": 32766, "not": None, "src": "all", "iif": "wg0", "table": "main"},
            PolicyRule(6, 32766, table=254, incoming_interface="wg0", invert=True),
        ),
        (
            {"priority": 5, "src": "all", "fwmark": "0x1", "fwmask": "0xff", "table": "7"},
            PolicyRule(6, 5, table=7, firewall_mark=1, firewall_mask=255),
        ),
        (
            {"priority": 5, "src": "all", "iif": "wg9", "iif_detached": None, "action": "prohibit"},
            PolicyRule(6, 5, "prohibit", incoming_interface="wg9"),
        ),
        (
            {"priority": 5, "src": "fd00::", "srclen": 64, "oif": "eth0", "table": "main"},
            PolicyRule(6, 5, table=254, source=ipaddress.ip_network("fd00::/64"), other=("oif eth0",)),
        ),
    ],
)
def test_reads_unusual_rules(item: dict[str, Any], rule: PolicyRule) -> None:
    """Older and newer spellings; nothing that a rule says is dropped."""
    assert live(changed("@@ rules6\n[", f"@@ rules6\n[{json.dumps(item)},")).rules == live().rules | {rule}


def test_says_which_address_the_kernel_made() -> None:
    """IFA_PROTO tells a link-local address of the kernel's from a manager's."""
    item = '{"family":"inet6","local":"fe80::5","prefixlen":64,"scope":"link","protocol":"kernel_ll"}'
    found = live(
        changed('"addr_info":[{"family":"inet","local":"10', f'"addr_info":[{item},{{}},{{"family":"inet","local":"10')
    )
    assert HostAddress(ipaddress.ip_interface("fe80::5/64"), by_kernel=True) in found.interfaces["wg0"].addresses


def test_reads_a_host_without_interfaces_resolved_and_nftables() -> None:
    """Nothing printed is nothing there; DNS is unknown, and not compared."""
    text = TEXT[: TEXT.index("@@ servers")] + "@@ end\n"
    assert live(text).interfaces["wg0"].dns is None
    assert compare(text) == []
    bare = "".join(f"@@ {name}\n\n" for name in ("dump", "addresses", "routes4", "routes6", "rules4", "rules6"))
    empty = parse_state(f"{bare}@@ parameters\nnet/ipv4/conf/all/src_valid_mark 0\n@@ end\n")
    assert empty == LiveState({}, frozenset(), frozenset(), frozenset(), False, frozenset())


def test_joins_lists_that_go_on_in_the_next_line() -> None:
    """resolvectl(1) folds what is longer than the terminal is wide."""
    assert compare(changed("10.0.0.53 fd00::53", "10.0.0.53\n                  fd00::53")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT[: TEXT.index("@@ end")], "no section 'end'"),
        (changed("@@ tables\n", "@@ tables\n\n@@ failed nft 1\n"), "`nft` ended with status 1 in section 'tables'"),
        (changed("\t51820\t0xca6c\n", "\t51820\n"), "has 4 fields"),
        (
            changed('"table":"51820","protocol":"static","scope"', '"table":"blue","scope"'),
            "a table has the name 'blue'",
        ),
        (changed("ListenPort = 51820\n", "ListenPort = 51820\nListenPort = 1\n"), "no new key"),
    ],
)
def test_refuses_what_is_not_whole(text: str, words: str) -> None:
    """Silence is not taken for emptiness, and no complaint quotes a key."""
    with pytest.raises(StateError) as raised:
        live(text)
    assert words in str(raised.value)
    assert OWN.reveal() not in str(raised.value)


def test_refuses_an_interface_that_is_not_there() -> None:
    """Who asks for certain interfaces gets these, or an error; another interface's routes are not theirs."""
    assert parse_state(TEXT, ["wg0"]) == live()
    assert parse_state(TEXT, []).interfaces == {}
    with pytest.raises(StateError, match="wg7"):
        parse_state(TEXT, ["wg0", "wg7"])


def test_the_script_prints_all_sections() -> None:
    """What the parser wants is what the script prints, so that neither changes alone."""
    for line in filter(None, (line.strip() for line in TEXT.splitlines())):
        if line.startswith("@@ "):
            name = line.split()[1]
            assert f"section {name} " in READ or f"@@ {name}" in READ or f'"{name} $' in READ
