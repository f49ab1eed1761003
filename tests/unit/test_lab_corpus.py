"""The corpus that wgnet is held against wg-quick with: sound by itself, whole, and equal where plans can tell.

What kernels have of it is seen in the lab. Here wg-quick's part is told by what linux.bash of wireguard-tools does, in
a few lines of Python, and the managers' by what the lab expects of a plan.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from example_trees import read_fleet
from lab.corpus import CORPUS, FEATURES, HOST, MANAGERS, NAMES, NARROW, Conf, Entry, entries, parse_conf, render_under
from lab.expected import ExpectedState, expected_state
from lab.held import MEANT, Verdict, compare, differences, judge, table
from lab.state import HostAddress, LiveInterface, LiveState, Peer, PolicyRule, Route, WireGuard, fingerprint
from realparsers.tools import lint_wg_quick

from wgnet.cli.planjson import plan_to_json
from wgnet.plan.types import HostPlan
from wgnet.syntax.spec import Manager

ENTRIES = entries()
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "wg-quick.md"
LINK_LOCAL = ipaddress.ip_network("fe80::/64")
#: What a kernel that is left to choose takes: no two the same.
CHOSEN = {None: 40001, Manager.NETWORKD: 40002, Manager.NETWORKMANAGER: 40003}

each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
each_manager = pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.value)


# --- models ----------------------------------------------------------------------------------------------------------


def under_wg_quick(entry: Entry) -> LiveState:
    """Return what wg-quick makes of a file, by the steps of its `cmd_up`."""
    conf, name = entry.parsed, entry.interface
    routes = set(_prefix_routes(conf, name))
    rules: set[PolicyRule] = set()
    mark = conf.mark
    for prefix in sorted(conf.allowed_ips, key=lambda prefix: -prefix.prefixlen):
        version, metric = prefix.version, 0 if prefix.version == 4 else 1024
        if conf.table == "off":
            continue
        if conf.table_number is not None:
            routes.add(_route(prefix, conf.table_number, metric, name))
        elif not prefix.prefixlen:
            mark = mark or 51820
            routes.add(_route(prefix, mark, metric, name))
            rules.add(PolicyRule(version, 32765, table=mark, firewall_mark=mark, invert=True))
            rules.add(PolicyRule(version, 32764, table=254, suppress_prefix_length=0))
        elif not any(r.table == 254 and _contains(r.destination, prefix) for r in routes):
            routes.add(_route(prefix, 254, metric, name))
    secrets = dict(re.findall(r"(?im)^PublicKey\s*=\s*(\S+)\nPresharedKey\s*=\s*(\S+)$", entry.conf))
    peers = {
        peer.public_key: Peer(
            peer.public_key,
            fingerprint(secrets[peer.public_key]) if peer.preshared else None,
            _resolve(peer.endpoint),
            peer.allowed_ips,
            peer.keepalive,
        )
        for peer in conf.peers
    }
    private = re.search(r"(?im)^PrivateKey\s*=\s*(\S+)$", entry.conf)
    assert private is not None
    wireguard = WireGuard(None, fingerprint(private[1]), conf.listen_port or CHOSEN[None], mark, peers)
    addresses = frozenset(map(HostAddress, conf.addresses))
    valid = any(prefix.version == 4 for prefix in conf.defaults) and conf.table == "auto"
    mtu = conf.mtu or _mtu_of_way(conf) - 80
    interface = LiveInterface(name, True, mtu, addresses, wireguard, wireguard, frozenset(), None)
    return LiveState({name: interface}, frozenset(routes), frozenset(rules), frozenset(), valid, frozenset())


def _prefix_routes(conf: Conf, name: str) -> Iterator[Route]:
    for address in conf.addresses:
        prefix = address.network
        if prefix.version == 6:
            yield replace(_route(prefix, 254, 256, name), protocol="kernel")
        elif prefix.prefixlen < 32:
            yield replace(_route(prefix, 254, 0, name), protocol="kernel")


def _route(prefix: ipaddress.IPv4Network | ipaddress.IPv6Network, table: int, metric: int, name: str) -> Route:
    return Route(prefix, table, metric, name, "boot", "link" if prefix.version == 4 else "global")


def _contains(
    outer: ipaddress.IPv4Network | ipaddress.IPv6Network, inner: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _resolve(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    host, _, port = endpoint.rpartition(":")
    address = NAMES.get(host, host)
    return f"[{address}]:{port}" if ":" in address and not address.startswith("[") else f"{address}:{port}"


def _mtu_of_way(conf: Conf) -> int:
    ways = [
        next((mtu for to, mtu in NARROW.items() if ipaddress.ip_address(host) in ipaddress.ip_network(to)), 1500)
        for peer in conf.peers
        if peer.endpoint and (host := (_resolve(peer.endpoint) or "").rpartition(":")[0].strip("[]"))
    ]
    return max(ways, default=1500)


def under_manager(entry: Entry, manager: Manager) -> LiveState:
    """Return what a manager makes of wgnet's files, as the lab expects it."""
    plan = plan_to_json(HostPlan(name=HOST, interfaces=(entry.plan(manager),)))
    expected = expected_state(plan, resolver={name: [address] for name, address in NAMES.items()})
    private_key = under_wg_quick(entry).interfaces[entry.interface].wireguard.private_key_sha256
    conf = entry.parsed
    has_ipv6 = 6 in conf.versions() or any(prefix.version == 6 for prefix in conf.allowed_ips)
    has_its_own = any(address.ip.is_link_local for address in conf.addresses)
    return _live(expected, manager, private_key, link_local=has_ipv6 and not has_its_own)


def _live(expected: ExpectedState, manager: Manager, private_key: str | None, *, link_local: bool) -> LiveState:
    interfaces = {}
    routes = set(expected.routes)
    for name, one in expected.interfaces.items():
        peers = {
            key: Peer(
                key,
                peer.preshared_key_sha256,
                next(iter(peer.endpoints)) if peer.endpoints else None,
                peer.allowed_ips,
                peer.persistent_keepalive,
            )
            for key, peer in one.peers.items()
        }
        wireguard = WireGuard(None, private_key, one.listen_port or CHOSEN[manager], one.firewall_mark, peers)
        addresses = set(map(HostAddress, one.addresses))
        if one.link_local and link_local:
            addresses.add(HostAddress(ipaddress.ip_interface("fe80::99/64")))
            routes.add(Route(LINK_LOCAL, 254, 1024, name, "kernel"))
        if one.link_local:
            routes = {replace(route, metric=1024) if route.destination == LINK_LOCAL else route for route in routes}
        interfaces[name] = LiveInterface(
            name, True, one.mtu, frozenset(addresses), wireguard, wireguard, frozenset(), None
        )
    return LiveState(
        interfaces, frozenset(routes), expected.rules, frozenset(), expected.source_valid_mark, frozenset()
    )


# --- the corpus ------------------------------------------------------------------------------------------------------


def test_every_configuration_is_a_pair() -> None:
    confs = {path.stem for path in CORPUS.glob("*.conf")}
    assert confs == {path.stem for path in CORPUS.iterdir() if path.suffix != ".conf"}
    assert len(confs) == len(ENTRIES) >= 64
    # No two say the same.
    assert len({(entry.parsed.addresses, entry.topology.split("\n", 5)[5]) for entry in ENTRIES}) == len(ENTRIES)


def test_every_feature_is_covered() -> None:
    counts = Counter(feature for entry in ENTRIES for feature in entry.covers)
    assert [feature for feature in FEATURES if not counts[feature]] == []


@each_entry
def test_no_secret_stands_in_a_file(entry: Entry) -> None:
    for path in (CORPUS / f"{entry.name}.conf", CORPUS / f"{entry.name}.yaml"):
        for key, value in re.findall(r"(?im)^\s*(private-?key|preshared-?key)\s*[=:]\s*(\S+)", path.read_text()):
            assert value.startswith("@") or value in ("true", "{file:"), f"{path.name}: {key}"
    assert "@" not in re.sub(r"#.*", "", entry.conf)


@each_entry
def test_topology_is_without_a_word(entry: Entry) -> None:
    _, diagnostics = read_fleet({f"{entry.name}.yaml": entry.topology})
    assert [item.message for item in diagnostics.sorted()] == []
    assert entry.description.endswith((".", ","))


@each_entry
@each_manager
def test_topology_renders(entry: Entry, manager: Manager) -> None:
    files = {artifact.path for artifact in render_under(entry, manager)}
    assert f"/etc/wgnet/{entry.name}.key" in files
    if manager is Manager.NETWORKD:
        assert f"/etc/systemd/network/50-wgnet-{entry.interface}.network" in files
    else:
        assert f"/etc/NetworkManager/system-connections/wgnet-{entry.interface}.nmconnection" in files


@each_entry
def test_wg_quick_takes_the_file(entry: Entry, tmp_path: Path) -> None:
    path = tmp_path / f"{entry.interface}.conf"
    path.touch(mode=0o600)
    path.write_text(entry.conf)
    # wg(8) says no word where the bits of a host are written; the kernel masks them.
    said = [line for line in lint_wg_quick(path) if "Warning: AllowedIP has nonzero host part" not in line]
    assert said == []


@each_entry
def test_file_and_plan_name_the_same_peers(entry: Entry) -> None:
    plan = entry.plan(Manager.NETWORKD)
    written = {peer.public_key: peer for peer in entry.parsed.peers}
    planned = {peer.public_key: peer for peer in plan.peers}
    assert planned.keys() == written.keys()
    for key, peer in planned.items():
        mine = written[key]
        # The one difference that is meant: what the default route of the same peer holds anyway.
        more = {p for p in peer.allowed_ips if any(p.version == d.version for d in mine.allowed_ips if not d.prefixlen)}
        assert set(peer.allowed_ips) - more == mine.allowed_ips - more
        assert mine.allowed_ips <= set(peer.allowed_ips)
        assert peer.persistent_keepalive == mine.keepalive
        assert bool(peer.preshared_key) == mine.preshared
        assert (str(peer.endpoints[0]) if peer.endpoints else None) == mine.endpoint
    assert {one.address for one in plan.addresses} == set(entry.parsed.addresses)
    assert plan.mtu == entry.parsed.mtu


# --- the comparison --------------------------------------------------------------------------------------------------


@each_entry
@each_manager
def test_what_differs_is_meant(entry: Entry, manager: Manager) -> None:
    assert compare(entry, under_wg_quick(entry), under_manager(entry, manager), manager) == []


@each_manager
def test_no_row_is_dead(manager: Manager) -> None:
    used = Counter(
        name
        for entry in ENTRIES
        for name in judge(entry, under_wg_quick(entry), under_manager(entry, manager), manager).used
    )
    assert [row.name for row in MEANT if manager in row.managers and not used[row.name]] == []


def _entry(name: str) -> Entry:
    return next(entry for entry in ENTRIES if entry.name == name)


def _swap(state: LiveState, name: str, **changes: object) -> LiveState:
    interface = state.interfaces[name]
    return replace(state, interfaces={name: replace(interface, **changes)})  # type: ignore[arg-type]


def _broken(name: str) -> Iterator[tuple[str, LiveState]]:
    """Yield states that a mistake in wgnet could come to, with a word that the line about each has."""
    good = under_manager(_entry(name), Manager.NETWORKD)
    interface = good.interfaces[name]
    wireguard = interface.wireguard
    one, two = list(wireguard.peers.values())[:2]
    swapped = {
        one.public_key: replace(one, allowed_ips=two.allowed_ips),
        two.public_key: replace(two, allowed_ips=one.allowed_ips),
    }
    yield "AllowedIPs", _swap(good, name, wireguard=replace(wireguard, peers={**wireguard.peers, **swapped}))
    yield "peer", _swap(good, name, wireguard=replace(wireguard, peers={one.public_key: one}))
    quiet = {one.public_key: replace(one, persistent_keepalive=0)}
    yield "PersistentKeepalive", _swap(good, name, wireguard=replace(wireguard, peers={**wireguard.peers, **quiet}))
    keyless = {one.public_key: replace(one, preshared_key_sha256="0")}
    yield "PresharedKey", _swap(good, name, wireguard=replace(wireguard, peers={**wireguard.peers, **keyless}))
    moved = {one.public_key: replace(one, endpoint="192.0.2.9:1")}
    yield "Endpoint", _swap(good, name, wireguard=replace(wireguard, peers={**wireguard.peers, **moved}))
    yield "FwMark", _swap(good, name, wireguard=replace(wireguard, firewall_mark=0))
    yield "PrivateKey", _swap(good, name, wireguard=replace(wireguard, private_key_sha256="0"))
    yield "MTU", _swap(good, name, mtu=1400)
    yield "up", _swap(good, name, up=False)
    yield "address", _swap(good, name, addresses=frozenset(list(interface.addresses)[1:]))
    yield "route", replace(good, routes=frozenset(list(good.routes)[1:]))
    yield "route", replace(good, routes=good.routes | {_route(ipaddress.ip_network("10.77.0.0/16"), 254, 2000, name)})
    yield "metric", replace(good, routes=frozenset(replace(route, metric=7) for route in good.routes))
    yield "scope", replace(good, routes=frozenset(replace(route, scope="host") for route in good.routes))
    yield "rule", replace(good, rules=frozenset(list(good.rules)[1:]))
    yield "priority", replace(good, rules=frozenset(replace(rule, priority=100) for rule in good.rules))
    yield "rule", replace(good, rules=frozenset(replace(rule, invert=False) for rule in good.rules))
    yield "src_valid_mark", replace(good, source_valid_mark=False)
    yield "interface", replace(good, interfaces={})


@pytest.mark.parametrize(("word", "state"), list(_broken("exit-choice")))
def test_a_mistake_is_told(word: str, state: LiveState) -> None:
    entry = _entry("exit-choice")
    lines = compare(entry, under_wg_quick(entry), state, Manager.NETWORKD)
    assert any(word in line for line in lines), lines


@each_manager
def test_a_row_is_for_its_own_case_alone(manager: Manager) -> None:
    """No row lets pass in an ordinary entry what it explains in one with `Table`, or with a default route."""
    entry = _entry("warrior")
    quick, managed = under_wg_quick(entry), under_manager(entry, manager)
    name = entry.interface
    own = next(route for route in managed.routes if route.protocol == "kernel")
    for wrong in (
        replace(managed, routes=managed.routes - {own}),
        replace(managed, routes=managed.routes | {replace(own, table=77)}),
        replace(managed, rules=frozenset({PolicyRule(4, 32765, table=51820, firewall_mark=51820, invert=True)})),
        _swap(managed, name, wireguard=replace(managed.interfaces[name].wireguard, firewall_mark=51820)),
        _swap(managed, name, addresses=frozenset({HostAddress(ipaddress.ip_interface("10.8.0.2/32"))})),
        _swap(managed, name, mtu=1280),
        replace(managed, source_valid_mark=True),
    ):
        assert judge(entry, quick, wrong, manager).unexplained
    assert judge(entry, quick, managed, manager) == Verdict((), frozenset({"metric", "port of the kernel's choice"}))


def test_equal_states_do_not_differ() -> None:
    for entry in ENTRIES:
        quick = under_wg_quick(entry)
        assert list(differences(entry.interface, quick, quick)) == []


def test_two_routes_of_one_prefix_are_two() -> None:
    entry = _entry("warrior")
    quick, managed = under_wg_quick(entry), under_manager(entry, Manager.NETWORKD)
    twice = managed.routes | {replace(route, metric=9999) for route in managed.routes}
    assert compare(entry, quick, replace(managed, routes=frozenset(twice)), Manager.NETWORKD)


# --- the pages and the reader ----------------------------------------------------------------------------------------


def test_document_has_the_table() -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8")


def test_a_file_is_read_as_wg_reads_it() -> None:
    conf = parse_conf(
        "[interface]\nADDRESS = 10.0.0.1 , fd00::1/64\nFwMark=0x10 # sixteen\nTable=7\n"
        "[Peer]\npublickey=a=\nAllowedIPs=10.0.0.2/24\nallowedips = ::/0,fd00::/8\nPersistentKeepalive=off\n"
    )
    assert conf.addresses == (ipaddress.ip_interface("10.0.0.1/32"), ipaddress.ip_interface("fd00::1/64"))
    assert (conf.mark, conf.table_number, conf.listen_port, conf.mtu) == (16, 7, None, None)
    (peer,) = conf.peers
    assert peer.public_key == "a="
    assert sorted(map(str, peer.allowed_ips)) == ["10.0.0.0/24", "::/0", "fd00::/8"]
    assert (peer.keepalive, peer.preshared, peer.endpoint) == (0, False, None)
