"""The lab's comparison of a live host with its plan names every kind of difference, and allows what is meant."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from example_keys import EXAMPLES
from example_trees import read_fleet, under
from lab.expected import MEANT, Aspect, Meant, expected_state
from lab_sample import NEAR, NEXT, OTHER_PSK, OWN, PLAN, PSK, RESOLVER, TEXT, altered, changed, compare, rule

from wgnet.cli.planjson import plan_to_json
from wgnet.syntax.spec import Manager

# --- comparing -------------------------------------------------------------------------------------------------------


def test_a_host_as_planned_has_no_differences() -> None:
    """Nothing is said of the host that the plan describes, whoever the configured endpoint's name resolved to."""
    assert compare(TEXT) == []
    assert compare(changed("192.0.2.1:51820", "[2001:db8::1]:51820", count=2)) == []


ALLOWED_EXIT, ALLOWED_NEAR = "0.0.0.0/0,10.0.0.2/32", "10.0.0.3/32,10.66.0.0/16,fd00::3/128,fd66::/48"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (
            f"{ALLOWED_NEAR}\t1763835349",
            f"{ALLOWED_NEAR},10.0.0.2/32\t1763835349",
            ["wg0: extra AllowedIPs of peer near: 10.0.0.2/32"],
        ),
        (ALLOWED_EXIT, "0.0.0.0/0", ["wg0: missing AllowedIPs of peer exit: 10.0.0.2/32"]),
        (
            "AllowedIPs = 0.0.0.0/0, 10",
            "AllowedIPs = 10",
            ["wg0: missing AllowedIPs of peer exit: 0.0.0.0/0 (wg showconf)"],
        ),
        (f"\t{PSK}\t", "\t(none)\t", ["wg0: PresharedKey of peer exit: expected the link's, found none"]),
        (f"\t{PSK}\t", f"\t{OTHER_PSK}\t", ["wg0: PresharedKey of peer exit: expected the link's, found another"]),
        (f"{NEAR}\t(none)", f"{NEAR}\t{PSK}", ["wg0: PresharedKey of peer near: expected none, found another"]),
        ("148\t25\n", "148\toff\n", ["wg0: PersistentKeepalive of peer exit: expected 25 s, found 0 s"]),
        ("92\toff\n", "92\t25\n", ["wg0: PersistentKeepalive of peer near: expected 0 s, found 25 s"]),
        (f"wg0\t{NEXT}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n", "", [f"wg0: missing peer: near (next key) ({NEXT})"]),
        (
            f"wg0\t{NEXT}\t",
            f"wg0\t{OTHER_PSK}\t(none)\t(none)\t(none)\t0\t0\t0\toff\nwg0\t{NEXT}\t",
            [f"wg0: extra peer: {OTHER_PSK}"],
        ),
        (
            "\t192.0.2.1:51820\t",
            "\t192.0.2.1:51821\t",
            ["wg0: Endpoint of peer exit: expected 192.0.2.1:51820 or [2001:db8::1]:51820, found 192.0.2.1:51821"],
        ),
        (
            "\t192.0.2.1:51820\t",
            "\t(none)\t",
            ["wg0: Endpoint of peer exit: expected 192.0.2.1:51820 or [2001:db8::1]:51820, found none"],
        ),
        ("\t51820\t0xca6c", "\t51821\t0xca6c", ["wg0: ListenPort: expected 51820, found 51821"]),
        ("\t51820\t0xca6c", "\t51820\toff", ["wg0: FwMark: expected 51820, found 0"]),
        (
            f"{OWN.public()}\t51820",
            f"{NEAR}\t51820",
            [f"wg0: public key: expected {OWN.public()}, found {NEAR}"],
        ),
        (f"wg0\t{OWN.reveal()}\t", "wg0\t(none)\t", ["wg0: has no private key"]),
        ('"mtu":1380', '"mtu":1420', ["wg0: MTU: expected 1380, found 1420"]),
        ('"NOARP","UP"', '"NOARP"', ["wg0: the interface is down"]),
        (
            '"local":"fd00::1","prefixlen":64',
            '"local":"fd00::1","prefixlen":128',
            ["wg0: missing address: fd00::1/64", "wg0: extra address: fd00::1/128"],
        ),
        (
            '"addr_info":[{"family":"inet","local":"10',
            '"addr_info":[{"family":"inet6","local":"fe80::5","prefixlen":64},{"family":"inet","local":"10',
            ["wg0: extra address: fe80::5/64"],
        ),
        (
            '{"dst":"10.66.0.0/16","dev":"wg0","protocol":"static","scope":"link","metric":2000,"flags":[]},',
            "",
            ["missing route: 10.66.0.0/16 dev wg0 table 254 metric 2000 proto static scope link"],
        ),
        (
            '{"dst":"10.66.0.0/16",',
            '{"dst":"10.67.0.0/16","dev":"wg0","scope":"link"},{"dst":"10.66.0.0/16",',
            ["extra route: 10.67.0.0/16 dev wg0 table 254 metric 0 proto boot scope link"],
        ),
        (
            '"scope":"link","metric":2000,"flags":[]},{"dst":"default","gateway"',
            '"scope":"link","metric":50,"flags":[]},{"dst":"default","gateway"',
            [
                "missing route: 0.0.0.0/0 dev wg0 table 51820 metric 2000 proto static scope link",
                "extra route: 0.0.0.0/0 dev wg0 table 51820 metric 50 proto static scope link",
            ],
        ),
        (
            '"dst":"default","dev":"wg0","table":"51820"',
            '"dst":"default","dev":"wg0"',
            [
                "missing route: 0.0.0.0/0 dev wg0 table 51820 metric 2000 proto static scope link",
                "extra route: 0.0.0.0/0 dev wg0 table 254 metric 2000 proto static scope link",
            ],
        ),
        (
            '"prefsrc":"10.0.0.1","metric":2000',
            '"prefsrc":"10.0.0.1"',
            [
                "missing route: 10.0.0.0/24 dev wg0 table 254 metric 2000 proto kernel scope link",
                "extra route: 10.0.0.0/24 dev wg0 table 254 metric 0 proto kernel scope link",
            ],
        ),
        (
            '{"dst":"fd66::/48"',
            '{"dst":"fe80::/64","dev":"wg0","protocol":"kernel","metric":256},{"dst":"fd66::/48"',
            ["extra route: fe80::/64 dev wg0 table 254 metric 256 proto kernel"],
        ),
        (
            '{"priority":32764,"src":"all","table":"main","suppress_prefixlen":0,"protocol":"static"},',
            "",
            ["missing rule: IPv4 32764: from all lookup 254 suppress_prefixlength 0 proto static"],
        ),
        (
            '"not":null,',
            "",
            [
                "missing rule: IPv4 32765: not from all fwmark 0xca6c lookup 51820 proto static",
                "extra rule: IPv4 32765: from all fwmark 0xca6c lookup 51820 proto static",
            ],
        ),
        (
            "@@ rules6\n[",
            '@@ rules6\n[{"priority":32764,"src":"all","table":"main","suppress_prefixlen":0},',
            ["extra rule: IPv6 32764: from all lookup 254 suppress_prefixlength 0 proto unspec"],
        ),
        ("net/ipv4/ip_forward 1", "net/ipv4/ip_forward 0", ["forwarding of IP versions: expected [4], found []"]),
        (
            "net/ipv6/conf/all/forwarding 0",
            "net/ipv6/conf/all/forwarding 1",
            ["forwarding of IP versions: expected [4], found [4, 6]"],
        ),
        ("net/ipv4/conf/wg0/forwarding 1", "net/ipv4/conf/wg0/forwarding 0", ["wg0: does not forward IPv4"]),
        ("src_valid_mark 1", "src_valid_mark 0", ["net.ipv4.conf.all.src_valid_mark: expected True, found False"]),
        (
            "wgnet_masquerade_wg0",
            "masquerade_wg0",
            ["nftables' tables: expected ['wgnet_mark_wg0', 'wgnet_masquerade_wg0'], found ['wgnet_mark_wg0']"],
        ),
        (
            "wgnet_mark_wg0",
            "wg-quick-wg0",
            ["nftables' tables: expected ['wgnet_mark_wg0', 'wgnet_masquerade_wg0'], found ['wgnet_masquerade_wg0']"],
        ),
        (
            ": 10.0.0.53 fd00::53",
            ": 10.0.0.53 10.0.0.54",
            [
                "wg0: DNS servers of IPv4: expected 10.0.0.53, found 10.0.0.53 10.0.0.54",
                "wg0: DNS servers of IPv6: expected fd00::53, found none",
            ],
        ),
        ("~. corp.example", "corp.example", ["wg0: missing DNS domain: ~."]),
        ("~. corp.example", "~. corp.example lan", ["wg0: extra DNS domain: lan"]),
        ("(wg0): yes", "(wg0): no", ["wg0: DNS default route: expected True, found False"]),
    ],
)
def test_names_a_difference(old: str, new: str, lines: list[str]) -> None:
    """One thing otherwise on the host is one thing said, and no other."""
    # wg showconf goes its own way where only one of the two is changed.
    assert compare(changed(old, new)) == lines


def test_names_swapped_allowed_ips() -> None:
    """Two peers with each other's AllowedIPs: both are named, once, although both of wg's ways say so."""
    text = TEXT
    for comma in (",", ", "):
        of_exit, of_near = (comma.join(each.split(",")) for each in (ALLOWED_EXIT, ALLOWED_NEAR))
        text = changed("@@@", of_exit, changed(of_exit, of_near, changed(of_near, "@@@", text)))
    assert compare(text) == [
        *(f"wg0: missing AllowedIPs of peer exit: {prefix}" for prefix in ALLOWED_EXIT.split(",")),
        *(f"wg0: extra AllowedIPs of peer exit: {prefix}" for prefix in ALLOWED_NEAR.split(",")),
        *(f"wg0: missing AllowedIPs of peer near: {prefix}" for prefix in ALLOWED_NEAR.split(",")),
        *(f"wg0: extra AllowedIPs of peer near: {prefix}" for prefix in ALLOWED_EXIT.split(",")),
    ]


def test_names_interfaces_that_are_missing_or_too_many() -> None:
    """Each way, and an interface that nobody was to bring up."""
    other = changed("wg0", "wg1", TEXT, TEXT.count("wg0"))
    assert compare(other)[:2] == ["wg0: the interface is missing", "wg1: no such interface is meant to be"]
    assert "wg0: the interface is up, and nobody activated it" in compare(TEXT, inactive=["wg0"])


def test_an_inactive_interface_may_be_down_with_its_rules() -> None:
    """networkd makes rules and addresses of an interface before somebody activates it, but no route."""
    down = changed('"NOARP","UP"', '"NOARP"')
    text = "\n".join("[]" if line.startswith('[{"dst"') else line for line in down.split("\n"))
    assert compare(text, inactive=["wg0"]) == []
    assert any(line.startswith("missing rule") for line in compare(text.replace('"not":null,', "")))


def test_what_a_plan_leaves_open_may_be_anything() -> None:
    """Port 0 is the kernel's choice, an MTU of null WireGuard's own, and a peer that moved is where it is."""
    assert compare(changed("\t51820\t0xca6c", "\t40000\t0xca6c"), altered(listen_port=0)) == []
    assert compare(changed('"mtu":1380', '"mtu":1420'), altered(mtu=None)) == []
    assert compare(changed('"mtu":1380', '"mtu":1412'), altered(mtu=None), mtu={"wg0": 1412}) == []
    assert compare(changed("\t192.0.2.1:51820\t", "\t198.51.100.9:7\t"), roamed=["exit"]) == []


def test_refuses_a_plan_that_it_cannot_expect_anything_of() -> None:
    """Another version, a peer without key, a name that resolves to nothing known."""
    with pytest.raises(ValueError, match="version 1, found 2"):
        expected_state(PLAN | {"version": 2}, resolver=RESOLVER)
    with pytest.raises(KeyError, match=r"exit\.example"):
        expected_state(PLAN)
    plan = copy.deepcopy(PLAN)
    plan["interfaces"][0]["peers"][1]["public_key"] = None
    with pytest.raises(ValueError, match="'near' has no public key"):
        expected_state(plan, resolver=RESOLVER)


# --- what managers are meant to do otherwise -------------------------------------------------------------------------


def test_networkmanagers_own_ways_are_networkmanagers_alone() -> None:
    """A link-local address with its route, and zones of reverse names: expected of one manager, named of the others."""
    address = '{"family":"inet6","local":"fe80::9d2c","prefixlen":64,"scope":"link","noprefixroute":true}'
    text = changed('"addr_info":[{"family":"inet","local":"10', f'"addr_info":[{address},{{"family":"inet","local":"10')
    route = '{"dst":"fe80::/64","dev":"wg0","protocol":"kernel","metric":1024,"flags":[],"pref":"medium"}'
    text = changed('{"dst":"fd66::/48"', f'{route},{{"dst":"fd66::/48"', text)
    text = changed("~. corp.example", "~. corp.example ~0.0.10.in-addr.arpa", text)
    assert compare(text, manager="networkmanager") == []
    assert compare(text) == [
        "wg0: extra address: fe80::9d2c/64",
        "wg0: extra DNS domain: ~0.0.10.in-addr.arpa",
        "extra route: fe80::/64 dev wg0 table 254 metric 1024 proto kernel",
    ]


def test_wg_quicks_own_ways_are_wg_quicks_alone() -> None:
    """No metric, no protocol, its own table: expected of wg-quick, and of nobody else."""
    text = TEXT.replace(',"protocol":"static"', "").replace(',"metric":2000,"flags"', ',"flags"')
    text = changed(
        '"dst":"fd00::/64","dev":"wg0","protocol":"kernel"',
        '"dst":"fd00::/64","dev":"wg0","protocol":"kernel","metric":256',
        text,
    )
    text = changed('"dst":"fd66::/48","dev":"wg0"', '"dst":"fd66::/48","dev":"wg0","metric":1024', text)
    text = changed("wgnet_mark_wg0", "wg-quick-wg0", text)
    assert compare(text, manager="wg-quick") == []
    assert len(compare(text)) == 2 * (5 + 4) + 1
    assert compare(changed("(wg0): yes", "(wg0): no", text), manager="wg-quick") == []


def _plans() -> list[dict[str, Any]]:
    """Return plans that between them have all that managers do otherwise."""
    addresses = [{"address": each, "prefix_route": False} for each in ("10.0.0.1/24", "fd00::1/64", "fd01::1/128")]
    routes = [{"destination": each, "table": 77, "metric": 2000} for each in ("10.0.0.0/24", "fd00::/64")]
    mark = rule(4, 32700, table=254, fwmark=51820)
    dns = PLAN["interfaces"][0]["dns"]
    two = altered(rules=[mark, *PLAN["interfaces"][0]["rules"]])
    two["interfaces"].append({**copy.deepcopy(PLAN["interfaces"][0]), "interface": "wg1"})
    return [
        PLAN,
        two,
        altered(addresses=addresses, routes=routes, rules=[], table=77),
        altered(addresses=addresses, routes=[], rules=[], table=0),
        altered(addresses=PLAN["interfaces"][0]["addresses"][:1]),
        altered(dns={**dns, "everything": False}),
    ]


@pytest.mark.parametrize("meant", MEANT, ids=lambda one: f"{one.manager}-{one.aspect.name}")
def test_every_difference_that_is_meant_is_one(meant: Meant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of the table changes what is expected of some host, and gives a reason."""

    def expect() -> list[object]:
        return [expected_state(plan, manager=meant.manager, resolver=RESOLVER) for plan in _plans()]

    before = expect()
    monkeypatch.setattr("lab.expected._MEANT", {(one.manager, one.aspect) for one in MEANT if one is not meant})
    assert expect() != before
    assert meant.reason


def test_the_table_has_each_aspect_and_no_row_twice() -> None:
    """What the module knows of is in the table, and networkd is what the others are held against."""
    rows = [(one.manager, one.aspect) for one in MEANT]
    assert len(rows) == len(set(rows))
    assert {aspect for _, aspect in rows} == set(Aspect)
    assert {manager for manager, _ in rows} == {Manager.NETWORKMANAGER.value, Manager.WG_QUICK.value}


@pytest.mark.parametrize(
    ("manager", "table", "addresses", "routes"),
    [
        # `table: off`: nothing but addresses.
        ("networkd", 0, ["10.0.0.1/24", "fd00::1/64"], []),
        (
            "networkmanager",
            0,
            ["10.0.0.1/32", "fd00::1/128"],
            ["fd00::1/128 dev wg0 table 254 metric 2000 proto kernel"],
        ),
        ("wg-quick", 0, ["10.0.0.1/32", "fd00::1/128"], ["fd00::1/128 dev wg0 table 254 metric 256 proto kernel"]),
        # A table of its own: the network's prefix lies there too.
        (
            "networkd",
            77,
            ["10.0.0.1/24", "fd00::1/64"],
            [
                "10.0.0.0/24 dev wg0 table 77 metric 2000 proto static scope link",
                "fd00::/64 dev wg0 table 77 metric 2000 proto static",
            ],
        ),
        (
            "networkmanager",
            77,
            ["10.0.0.1/24", "fd00::1/64"],
            [
                "10.0.0.0/24 dev wg0 table 77 metric 2000 proto kernel scope link",
                "fd00::/64 dev wg0 table 77 metric 2000 proto kernel",
            ],
        ),
        (
            "wg-quick",
            77,
            ["10.0.0.1/32", "fd00::1/128"],
            [
                "10.0.0.3/32 dev wg0 table 77 metric 0 proto boot scope link",
                "10.66.0.0/16 dev wg0 table 77 metric 0 proto boot scope link",
                "fd00::1/128 dev wg0 table 254 metric 256 proto kernel",
                "fd00::3/128 dev wg0 table 77 metric 1024 proto boot",
                "fd66::/48 dev wg0 table 77 metric 1024 proto boot",
            ],
        ),
    ],
)
def test_expects_of_each_manager_its_way_with_tables(
    manager: str, table: int, addresses: list[str], routes: list[str]
) -> None:
    """The routes that come of addresses are the manager's own affair; the plan's come with its metric."""
    plan = altered(
        addresses=[{"address": each, "prefix_route": False} for each in ("10.0.0.1/24", "fd00::1/64")],
        routes=[
            {"destination": each, "table": table, "metric": 2000} for each in ("10.0.0.0/24", "fd00::/64") if table
        ],
        peers=PLAN["interfaces"][0]["peers"][1:],
        rules=[],
        table=table,
    )
    found = expected_state(plan, manager=manager)
    assert sorted(map(str, found.interfaces["wg0"].addresses)) == addresses
    assert sorted(map(str, found.routes)) == routes


def test_an_address_of_full_length_has_the_kernels_route() -> None:
    """Of IPv6 only, with the kernel's metric: networkd names none for it. Metric 0 is none to IPv6."""
    plan = altered(
        addresses=[{"address": each, "prefix_route": True} for each in ("10.0.0.1/32", "fd00::1/128", "fd01::1/64")],
        routes=[{"destination": "fd66::/48", "table": 254, "metric": 0}],
        metric=0,
    )
    assert sorted(map(str, expected_state(plan, resolver=RESOLVER).routes)) == [
        "fd00::1/128 dev wg0 table 254 metric 256 proto kernel",
        "fd01::/64 dev wg0 table 254 metric 256 proto kernel",
        "fd66::/48 dev wg0 table 254 metric 1024 proto static",
    ]


def test_a_metric_that_no_route_tells_is_the_interfaces() -> None:
    """A hub without other routes may have a metric of its own, and a table."""
    plan = altered(routes=[])
    assert {route.metric for route in expected_state(plan, resolver=RESOLVER).routes} == {2000}
    told = altered(routes=[], metric=8, table=77)
    found = expected_state(told, resolver=RESOLVER, manager="networkmanager").routes
    assert {(route.metric, route.table) for route in found} == {(8, 77)}


def test_several_exit_nodes_of_wg_quick_come_in_any_order() -> None:
    """The kernel gives priorities to rules as they come; all else about them is fixed."""
    plan = altered(rules=[rule(4, 32764, table=254, suppress_prefixlength=0), rule(4, 32765, table=7, fwmark=7)])
    plan["interfaces"].append({**copy.deepcopy(plan["interfaces"][0]), "interface": "wg1"})
    plan["interfaces"][1]["rules"] = [rule(4, 32761, table=254, suppress_prefixlength=0), rule(4, 32762, table=8)]
    words: list[dict[str, Any]] = [
        {"priority": 32765, "src": "all", "table": "8"},
        {"priority": 32764, "src": "all", "table": "main", "suppress_prefixlen": 0},
        {"priority": 32763, "src": "all", "table": "7", "fwmark": "0x7"},
        {"priority": 32762, "src": "all", "table": "main", "suppress_prefixlen": 0},
    ]
    lines = [
        json.dumps(words) if line.startswith('[{"priority":0') and "32600" in line else line
        for line in TEXT.split("\n")
    ]

    def rules(manager: str, text: str) -> list[str]:
        return [line for line in compare(text, plan, manager=manager) if " rule: " in line]

    text = "\n".join(lines)
    assert rules("wg-quick", text) == []
    assert len(rules("networkd", text)) == 8
    assert rules("wg-quick", changed(json.dumps(words[1]) + ", ", "", text)) == [
        "missing rule: IPv4 0: from all lookup 254 suppress_prefixlength 0 proto unspec"
    ]


@pytest.mark.parametrize("manager", [None, *sorted(set(Manager) - {Manager.EXTERNAL}, key=lambda one: one.value)])
def test_both_ends_of_a_link_are_expected_the_same_key(manager: Manager | None) -> None:
    """Over all hosts of the examples: each end knows the other by its key, and both their preshared key."""
    secured = 0
    for path in sorted(EXAMPLES.glob("*.yaml")):
        text = path.read_text()
        fleet, _ = read_fleet({path.name: text if manager is None else under(manager, text)[0]})
        plans = {name: plan_to_json(fleet.plan_host(name)) for name in fleet.host_names()}
        names = {
            peer["endpoint"].rpartition(":")[0]: ["192.0.2.1"]
            for plan in plans.values()
            for interface in plan["interfaces"]
            for peer in interface["peers"]
            if peer["endpoint"]
        }
        hosts = {name: expected_state(plan, resolver=names).interfaces for name, plan in plans.items()}
        ends = {str(each.public_key): each for interfaces in hosts.values() for each in interfaces.values()}
        for own, interface in ends.items():
            for key, peer in interface.peers.items():
                other = ends.get(key)
                if other is not None and own in other.peers:
                    assert other.peers[own].preshared_key_sha256 == peer.preshared_key_sha256
                    secured += peer.preshared_key_sha256 is not None
    assert secured >= 10
