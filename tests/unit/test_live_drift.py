"""Drift: a host as its manager makes it has none, one thing otherwise is one difference, what is others' is none."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from example_keys import next_private_key, private_key
from example_trees import examples, read_fleet, under
from live_sample import drift_of, live_of, wanted_of

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PresharedKey
from wgnet.live.device import LivePeer
from wgnet.live.drift import ASPECTS, find_drift
from wgnet.live.state import LiveDns, LiveState, PolicyRule, Route
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.plan.types import HostPlan
from wgnet.syntax.spec import Manager

MANAGERS = (None, Manager.NETWORKD, Manager.NETWORKMANAGER, Manager.WG_QUICK)


def plans(example: str, manager: Manager | None) -> list[HostPlan]:
    """Return the plans of an example's hosts that the manager can express."""
    texts = {path.name: path.read_text() for path in examples()[example]}
    if manager is not None:
        texts = {name: under(manager, text)[0] for name, text in texts.items()}
    fleet, _ = read_fleet(texts)
    found = []
    for name in fleet.host_names():
        said = Diagnostics()
        plan = fleet.plan_host(name)
        managers = Managers(Templates())
        for interface in plan.interfaces:
            managers.check(interface, said)
        if not said.has_errors:
            found.append(plan)
    return found


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda each: each.value if each else "own")
@pytest.mark.parametrize("example", sorted(examples()))
def test_a_host_as_its_manager_makes_it_has_no_drift(example: str, manager: Manager | None) -> None:
    """What the lab expects of each manager's hosts is what the product expects."""
    hosts = plans(example, manager)
    assert hosts or manager is not None
    assert [str(drift) for plan in hosts for drift in drift_of(plan)] == []


@pytest.mark.parametrize("manager", [Manager.NETWORKD, Manager.NETWORKMANAGER, Manager.WG_QUICK])
def test_a_host_without_anything_lacks_its_interfaces_alone(manager: Manager) -> None:
    """Where the link is absent, its addresses, routes and rules are not told one by one."""
    plan = host("exit-node", manager, "desktop")
    live = live_of(plan)
    bare = replace(live, devices={}, links={}, routes=frozenset(), rules=frozenset(), dns={})
    assert [str(each) for each in drift_of(plan, bare)] == ["exits: the interface: expected up, found absent"]


def host(example: str, manager: Manager | None, name: str) -> HostPlan:
    return next(plan for plan in plans(example, manager) if plan.name == name)


# --- each single difference ------------------------------------------------------------------------------------------

Change = Callable[[LiveState], LiveState]


def link(**words: Any) -> Change:
    return lambda live: replace(live, links={name: replace(each, **words) for name, each in live.links.items()})


def device(**words: Any) -> Change:
    return lambda live: replace(live, devices={name: replace(each, **words) for name, each in live.devices.items()})


def peer(key: str, **words: Any) -> Change:
    def change(live: LiveState) -> LiveState:
        devices = {
            name: replace(each, peers={**each.peers, key: replace(each.peers[key], **words)})
            for name, each in live.devices.items()
        }
        return replace(live, devices=devices)

    return change


def dns(**words: Any) -> Change:
    return lambda live: replace(live, dns={name: replace(each, **words) for name, each in (live.dns or {}).items()})


def without(key: str) -> Change:
    def change(live: LiveState) -> LiveState:
        return replace(
            live,
            devices={
                name: replace(each, peers={k: v for k, v in each.peers.items() if k != key})
                for name, each in live.devices.items()
            },
        )

    return change


def route(old: str | None, new: Route | None) -> Change:
    def change(live: LiveState) -> LiveState:
        gone = {each for each in live.routes if str(each) == old}
        assert len(gone) == (old is not None)
        return replace(live, routes=(live.routes - gone) | ({new} if new else set()))

    return change


def rule(old: str | None, new: PolicyRule | None) -> Change:
    def change(live: LiveState) -> LiveState:
        gone = {each for each in live.rules if str(each) == old}
        assert len(gone) == (old is not None)
        return replace(live, rules=(live.rules - gone) | ({new} if new else set()))

    return change


NET = ipaddress.ip_network
TOPOLOGY = """\
wgnet: 1
network: {name: net, subnets: [10.0.0.0/24, "fd00::/64"], dns: {servers: [10.0.0.3, "fd00::3"], search: [corp.example]}}
defaults: {all: {}}
peering:
  - hub: exit
  - link: [exit, own]
    preshared-key: true
hosts:
  exit:
    addresses: [10.0.0.2, "fd00::2"]
    endpoint: exit.example
    advertise: [0.0.0.0/0, 10.66.0.0/16]
    public-key: EXIT
  own:
    addresses: [10.0.0.1, "fd00::1"]
    exit-node: exit
    bypass: [192.0.2.0/24]
    mtu: 1380
    public-key: OWN
  near: {addresses: [10.0.0.3, "fd00::3"], public-key: NEAR, next-public-key: NEXT}
"""
KEYS = {name.upper(): private_key("net", name).public() for name in ("own", "exit", "near")}
KEYS["NEXT"] = next_private_key("net", "near").public()
STRANGER = private_key("other", "stranger").public()
OTHER_PSK = PresharedKey(b"\1" * 32)


def own(name: str = "own", manager: Manager = Manager.NETWORKD, text: str = TOPOLOGY) -> HostPlan:
    """Return a host of the topology above."""
    for word, key in KEYS.items():
        text = text.replace(f"public-key: {word}", f'public-key: "{key}"')
    if manager is not Manager.NETWORKD:
        text = text.replace("defaults: {all: {", f"defaults: {{all: {{manager: {manager.value}")
    fleet, diagnostics = read_fleet({"net.yaml": text})
    assert not diagnostics.has_errors, [each.message for each in diagnostics]
    return fleet.plan_host(name)


EXTRA_PEER = LivePeer(
    public_key=STRANGER,
    preshared_key=None,
    endpoint=None,
    allowed_ips=frozenset(),
    latest_handshake=0,
    received=0,
    sent=0,
    persistent_keepalive=0,
)


def stranger(live: LiveState) -> LiveState:
    devices = {name: replace(each, peers={**each.peers, STRANGER: EXTRA_PEER}) for name, each in live.devices.items()}
    return replace(live, devices=devices)


EXIT = KEYS["EXIT"]
ALLOWED = frozenset(map(NET, ("0.0.0.0/0", "10.0.0.0/24", "10.66.0.0/16", "fd00::/64")))
ADDRESSES = frozenset(map(ipaddress.ip_interface, ("10.0.0.1/24", "fd00::1/64")))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (link(up=False), ["net: the interface: expected up, found down"]),
        (link(mtu=1420), ["net: MTU: expected 1380, found 1420"]),
        (
            link(addresses=frozenset(list(ADDRESSES)[:0])),
            ["net: missing address 10.0.0.1 (10.0.0.1/24)", "net: missing address fd00::1 (fd00::1/64)"],
        ),
        (
            link(addresses=ADDRESSES | {ipaddress.ip_interface("10.9.0.1/24")}),
            ["net: extra address 10.9.0.1 (10.9.0.1/24)"],
        ),
        (
            link(addresses=frozenset(map(ipaddress.ip_interface, ("10.0.0.1/32", "fd00::1/64")))),
            ["net: address 10.0.0.1: expected 10.0.0.1/24, found 10.0.0.1/32"],
        ),
        (
            link(addresses=ADDRESSES | {ipaddress.ip_interface("fe80::1/64")}),
            ["net: extra address fe80::1 (fe80::1/64)"],
        ),
        (device(listen_port=51999), ["net: listen port: expected 51820, found 51999"]),
        (device(firewall_mark=0), ["net: firewall mark: expected 51820, found 0"]),
        (device(private_key=None, public_key=None), ["net: key: expected a key, found none"]),
        (device(public_key=STRANGER), [f"net: key: expected {KEYS['OWN']}, found {STRANGER}"]),
        (without(EXIT), ["net: missing peer exit"]),
        (stranger, [f"net: unknown peer {STRANGER}"]),
        (
            peer(EXIT, allowed_ips=ALLOWED - {NET("10.66.0.0/16")}),
            ["net: AllowedIPs of peer exit lacks 10.66.0.0/16"],
        ),
        (
            peer(EXIT, allowed_ips=ALLOWED | {NET("10.67.0.0/16")}),
            ["net: AllowedIPs of peer exit has too much: 10.67.0.0/16"],
        ),
        (peer(EXIT, preshared_key=None), ["net: missing preshared key of peer exit (the link's)"]),
        (
            peer(EXIT, preshared_key=OTHER_PSK),
            ["net: preshared key of peer exit: expected the link's, found another"],
        ),
        (peer(EXIT, endpoint=None), ["net: missing endpoint of peer exit (exit.example:51820)"]),
        (peer(EXIT, persistent_keepalive=0), ["net: persistent keepalive of peer exit: expected 25 s, found off"]),
        (
            route("10.66.0.0/16 dev net metric 2000", None),
            ["net: missing route 10.66.0.0/16 (10.66.0.0/16 dev net metric 2000)"],
        ),
        (
            route("10.66.0.0/16 dev net metric 2000", Route(NET("10.66.0.0/16"), 254, 5, "net")),
            ["net: route 10.66.0.0/16: expected 10.66.0.0/16 dev net metric 2000, found 10.66.0.0/16 dev net metric 5"],
        ),
        (
            route(None, Route(NET("10.67.0.0/16"), 254, 0, "net", protocol=3)),
            ["net: extra route 10.67.0.0/16 (10.67.0.0/16 dev net metric 0)"],
        ),
        (
            route(None, Route(NET("fe80::/64"), 254, 256, "net", protocol=2)),
            ["net: extra route fe80::/64 (fe80::/64 dev net metric 256)"],
        ),
        (
            rule("IPv4 32765: not from all fwmark 0xca6c lookup 51820", None),
            ["net: missing rule IPv4 32765: not from all fwmark 0xca6c lookup 51820"],
        ),
        (
            rule(None, PolicyRule(4, 32763, table=254, destination=NET("198.51.100.0/24"))),
            ["net: extra rule IPv4 32763: from all to 198.51.100.0/24 lookup main"],
        ),
        (
            rule(None, PolicyRule(6, 32765, table=51820, firewall_mark=51820, invert=True)),
            ["net: extra rule IPv6 32765: not from all fwmark 0xca6c lookup 51820"],
        ),
        (
            rule(None, PolicyRule(4, 32600, "prohibit", incoming_interface="net")),
            ["net: extra rule IPv4 32600: from all iif net prohibit"],
        ),
        (
            lambda live: replace(live, source_valid_mark=False),
            ["net: forwarding net.ipv4.conf.all.src_valid_mark: expected 1, found 0"],
        ),
        (lambda live: replace(live, tables=frozenset()), ["net: missing nftables table wgnet_mark_net"]),
        (
            lambda live: replace(live, tables=frozenset((*(live.tables or ()), "wgnet_masquerade_net"))),
            ["net: extra nftables table wgnet_masquerade_net"],
        ),
        (
            dns(servers=("10.0.0.3",)),
            ["net: missing DNS servers of IPv6 (fd00::3)"],
        ),
        (
            dns(servers=("9.9.9.9", "10.0.0.3", "fd00::3")),
            ["net: DNS servers of IPv4: expected 10.0.0.3, found 9.9.9.9 10.0.0.3"],
        ),
        (dns(domains=frozenset({"corp.example"})), ["net: missing DNS domain ~. (~.)"]),
        (dns(domains=frozenset({"corp.example", "~.", "lan"})), ["net: extra DNS domain lan (lan)"]),
        (dns(default_route=False), ["net: DNS default route: expected yes, found no"]),
    ],
)
def test_one_difference_is_named_once(change: Change, lines: list[str]) -> None:
    """Each single thing that is otherwise on a host of networkd is told, and nothing else."""
    plan = own()
    found = drift_of(plan, change(live_of(plan)))
    assert [str(each) for each in found] == lines
    assert all(each.aspect in ASPECTS for each in found)
    # Whoever takes it away needs the thing itself.
    assert all(
        (str(each.extra) == each.found) == (each.expected is None) for each in found if each.aspect in ("route", "rule")
    )


def test_an_endpoint_of_nobody_is_named_and_one_that_a_peer_came_from_is_not() -> None:
    plan = own(text=TOPOLOGY.replace("exit.example\n", "192.0.2.7\n"))
    elsewhere = peer(EXIT, endpoint="198.51.100.9:4000")(live_of(plan))
    assert [str(each) for each in drift_of(plan, elsewhere)] == [
        "net: endpoint of peer exit: expected 192.0.2.7:51820, found 198.51.100.9:4000"
    ]
    assert drift_of(plan, peer(EXIT, latest_handshake=1)(elsewhere)) == []
    assert drift_of(plan, peer(EXIT, received=148)(elsewhere)) == []


def test_without_wg_everything_else_is_compared() -> None:
    """A user sees addresses, routes and rules, and what kind of interface it is."""
    plan = host("exit-node", Manager.NETWORKMANAGER, "desktop")
    live = replace(live_of(plan), devices={}, devices_known=False)
    wanted = wanted_of(plan)
    assert find_drift(wanted, live) == []
    [route, *others] = sorted(live.routes, key=str)
    assert len(find_drift(wanted, replace(live, routes=frozenset(others)))) == 1, route
    [(name, link)] = live.links.items()
    [told] = find_drift(wanted, replace(live, links={name: replace(link, kind="dummy")}))
    assert (told.aspect, told.found) == ("link", "dummy")


def test_forwarding_is_missed_and_never_too_much() -> None:
    """Others want a host to forward too, but an interface that is kept from it does not."""
    plan = own("exit")
    live = live_of(plan)
    assert live.forwarding == {4, 6}
    assert drift_of(own(), replace(live_of(own()), forwarding=frozenset({4, 6}))) == []
    assert [str(each) for each in drift_of(plan, replace(live, forwarding=frozenset({4})))] == [
        "net: forwarding IPv6: expected on, found off"
    ]
    assert [str(each) for each in drift_of(plan, link(forwarding=frozenset())(live))] == [
        "net: forwarding IPv4 of net: expected on, found off"
    ]


@pytest.mark.parametrize(
    "change",
    [
        # A peer that roamed, and one of which nobody configured where it is.
        peer(EXIT, endpoint="198.51.100.9:4000"),
        peer(EXIT, latest_handshake=1, received=7, sent=9),
        # A routing daemon's routes (bird, zebra, babel), and those of other interfaces.
        route(None, Route(NET("10.70.0.0/16"), 254, 32, "net", protocol=12)),
        route(None, Route(NET("10.71.0.0/16"), 51820, 0, "eth0")),
        # An administrator's rules: elsewhere, without a protocol, or with what wgnet never writes.
        rule(None, PolicyRule(4, 1000, table=100, incoming_interface="net")),
        rule(None, PolicyRule(4, 32700, table=100, incoming_interface="net", protocol=0)),
        rule(None, PolicyRule(4, 32700, table=51820, source=NET("10.5.0.0/16"), protocol=0)),
        rule(None, PolicyRule(4, 32761, table=99, firewall_mark=99, invert=True)),
        rule(None, PolicyRule(4, 32600, "prohibit", incoming_interface="net", other=("uid_start 5",))),
        # Without systemd-resolved, and where it has not heard of the link yet.
        lambda live: replace(live, dns=None),
        lambda live: replace(live, dns={}),
        # Other interfaces' tables.
        lambda live: replace(live, tables=frozenset((*(live.tables or ()), "wgnet_mark_other", "wgnet"))),
        # Whoever made what is there.
        lambda live: replace(live, routes=frozenset(replace(each, protocol=3) for each in live.routes)),
    ],
)
def test_what_is_others_business_is_no_drift(change: Change) -> None:
    """No false alarm: `apply` would put a good change back."""
    plan = own()
    assert drift_of(plan, change(live_of(plan))) == []


def test_tables_for_the_mark_are_only_missed_where_there_is_nft() -> None:
    """Their unit does nothing without nft(8); source NAT cannot do without."""
    plan = own()
    assert drift_of(plan, replace(live_of(plan), tables=None)) == []
    nat = own("exit", text=TOPOLOGY.replace("    advertise: [0.0", "    masquerade: true\n    advertise: [0.0"))
    assert [str(each) for each in drift_of(nat, replace(live_of(nat), tables=None))] == [
        "net: missing nftables table wgnet_masquerade_net"
    ]


# --- rotation and secrets --------------------------------------------------------------------------------------------


def test_allowed_ips_stand_at_either_key_of_a_rotating_peer() -> None:
    """Whichever key is in use has them; split between the two they are wrong."""
    plan = own("exit")
    live = live_of(plan)
    peers = live.devices["net"].peers
    prefixes = peers[KEYS["NEAR"]].allowed_ips
    assert prefixes
    moved = peer(KEYS["NEXT"], allowed_ips=prefixes)(peer(KEYS["NEAR"], allowed_ips=frozenset())(live))
    assert drift_of(plan, moved) == []
    nowhere = peer(KEYS["NEAR"], allowed_ips=frozenset())(live)
    assert {each.aspect for each in drift_of(plan, nowhere)} == {"allowed-ips"}
    both = peer(KEYS["NEXT"], allowed_ips=frozenset({NET("10.9.0.0/16")}))(live)
    assert len(drift_of(plan, both)) == 1
    assert [str(each) for each in drift_of(plan, without(KEYS["NEXT"])(live))] == [
        f"net: missing peer near ({KEYS['NEXT'][:8]}...)"
    ]


def test_a_rotating_host_has_either_of_its_keys() -> None:
    """Its own old key and its own new one are right, another is not."""
    plan = own("near")
    live = live_of(plan)
    assert drift_of(plan, device(public_key=KEYS["NEXT"])(live)) == []
    assert [each.aspect for each in drift_of(plan, device(public_key=STRANGER)(live))] == ["private-key"]


def test_a_preshared_key_that_is_not_at_hand_is_any() -> None:
    """A status without readable keys compares what it can."""
    plan = own()
    wanted = wanted_of(plan)
    blind = [
        replace(
            each,
            device=replace(
                each.device,
                private_key=None,
                peers={
                    key: replace(one, preshared_key=None, preshared_key_known=False)
                    for key, one in each.device.peers.items()
                },
            ),
        )
        for each in wanted
    ]
    assert find_drift(blind, peer(EXIT, preshared_key=OTHER_PSK)(live_of(plan))) == []
    assert find_drift(wanted, peer(EXIT, preshared_key=OTHER_PSK)(live_of(plan))) != []


def test_no_secret_is_in_a_drift() -> None:
    """Neither the key that is meant nor the one that is there."""
    plan = own()
    live = live_of(plan)
    psk = live.devices["net"].peers[EXIT].preshared_key
    assert psk is not None
    for change in (peer(EXIT, preshared_key=OTHER_PSK), device(public_key=STRANGER)):
        text = repr(drift_of(plan, change(live)))
        assert psk.reveal() not in text
        assert OTHER_PSK.reveal() not in text
        assert private_key("net", "own").reveal() not in text


# --- what each manager leaves open -----------------------------------------------------------------------------------


def test_an_interface_that_a_person_brings_up_may_be_up_down_or_absent() -> None:
    """Up, it is to be right all the same."""
    text = TOPOLOGY.replace("    mtu: 1380", "    mtu: 1380\n    autoconnect: false")
    down, up = own(text=text), own()
    assert drift_of(down) == []
    assert drift_of(down, live_of(up)) == []
    assert drift_of(down, link(up=False)(live_of(up))) == []
    assert [str(each) for each in drift_of(down, link(mtu=1420)(live_of(up)))] == [
        "net: MTU: expected 1380, found 1420"
    ]


def test_networkmanager_brings_a_link_local_address_and_zones() -> None:
    """Neither is drift of its interfaces; a second global address is."""
    plan = own(manager=Manager.NETWORKMANAGER)
    live = live_of(plan)
    assert any(each.is_link_local for each in live.links["net"].addresses)
    zones = dns(domains=(live.dns or {})["net"].domains | {"~0.0.10.in-addr.arpa"})(live)
    assert drift_of(plan, route(None, Route(NET("fe80::/64"), 254, 1024, "net", protocol=2))(zones)) == []
    assert len(drift_of(plan, dns(domains=frozenset({"~.", "corp.example", "lan"}))(live))) == 1


WG_QUICK = TOPOLOGY.replace("    bypass: [192.0.2.0/24]\n", "").replace("    mtu: 1380\n", "")


def test_wg_quick_chooses_its_mark_and_its_rules_priorities() -> None:
    """Where another interface has 51820 it takes the next number; a rule that is missing is missed all the same."""
    plan = own(manager=Manager.WG_QUICK, text=WG_QUICK)
    live = live_of(plan)

    def moved(number: int | None) -> int | None:
        return 51821 if number == 51820 else number

    other = replace(
        device(firewall_mark=51821)(live),
        routes=frozenset(replace(each, table=moved(each.table) or 0) for each in live.routes),
        rules=frozenset(
            replace(each, table=moved(each.table), firewall_mark=moved(each.firewall_mark)) for each in live.rules
        ),
    )
    assert other != live
    assert drift_of(plan, other) == []
    assert drift_of(plan, link(mtu=1392)(live)) == []
    assert [each.aspect for each in drift_of(plan, device(firewall_mark=0)(live))] == ["firewall-mark"]
    bare = replace(live, rules=frozenset(each for each in live.rules if not each.invert))
    assert [each.aspect for each in drift_of(plan, bare)] == ["rule"]
    # Of networkd neither is open.
    strict = own(text=WG_QUICK)
    assert {each.aspect for each in drift_of(strict, device(firewall_mark=51821)(live_of(strict)))} == {"firewall-mark"}


def test_wg_quick_sets_parameters_and_dns_when_it_is_up() -> None:
    """Down it has none of them; up it may have given DNS to another than systemd-resolved."""
    plan = own(manager=Manager.WG_QUICK, text=WG_QUICK)
    live = live_of(plan)
    gone = replace(live, devices={}, links={}, routes=frozenset(), rules=frozenset(), source_valid_mark=False)
    assert [each.aspect for each in drift_of(plan, gone)] == ["link"]
    assert [each.aspect for each in drift_of(plan, replace(live, source_valid_mark=False))] == ["forwarding"]
    assert drift_of(plan, replace(live, dns={"net": LiveDns()})) == []
    assert [each.aspect for each in drift_of(plan, dns(servers=("9.9.9.9",))(live))] == ["dns", "dns"]


def test_an_interface_of_another_kind_is_said_to_be_one() -> None:
    """Its addresses and routes are nobody's business then."""
    plan = own()
    live = replace(live_of(plan), devices={})
    assert [str(each) for each in drift_of(plan, link(kind="dummy")(live))] == [
        "net: the interface: expected a WireGuard interface, found dummy"
    ]


def test_a_rule_of_another_network_is_not_left_over() -> None:
    """Two networks with exit nodes, changed one at a time: the other's bypass looks like one that this once had."""
    plan = own()
    wanted, live = wanted_of(plan), live_of(plan)
    bypass = PolicyRule(4, 32763, table=254, destination=NET("198.51.100.0/24"))
    more = replace(live, rules=live.rules | {bypass})
    assert [each.extra for each in find_drift(wanted, more)] == [bypass]
    assert find_drift(wanted, more, {bypass}) == []
    # What both ask for is missing all the same.
    shared = next(iter(live.rules))
    assert [each.aspect for each in find_drift(wanted, replace(live, rules=live.rules - {shared}), {shared})] == [
        "rule"
    ]
