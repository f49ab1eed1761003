"""What a live host should have: the JSON of `wgnet show --format json` -> ExpectedState; its differences to LiveState.

In: the plan (version 1), and what a plan cannot know: the preshared keys, what names resolve to, which peers moved.
Out: lines for people, none where the host is as planned. Nothing may be missing and nothing may be there beside it:
what a manager is meant to do otherwise stands in `MEANT`, with its reason, and nowhere else. Reads no file and runs
nothing.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from example_keys import given_preshared_key, master_secret

from lab.state import Address, LiveInterface, LiveState, PolicyRule, Prefix, Route, WireGuard, fingerprint
from wgnet.keys.derive import derive_preshared_key
from wgnet.managers.escape import nft_identifier
from wgnet.model.topology import TABLE_MAIN
from wgnet.plan.derive import PRIORITY_OWN_PACKETS

#: (network, own public key, the peer's public key, the plan's `preshared_key`) -> the key in base64.
Preshared: TypeAlias = Callable[[str, str, str, Any], str]

#: What WireGuard gives its interfaces: 1500 less 80; wg_setup() of Linux.
KERNEL_MTU = 1420
#: Metrics of IPv6 routes that name none: of prefixes of addresses, and of others; IP6_RT_PRIO_* of Linux.
_METRIC_ADDRCONF, _METRIC_USER = 256, 1024
_LINK_LOCAL = ipaddress.ip_network("fe80::/64")
_REVERSE = (".in-addr.arpa", ".ip6.arpa")


class Aspect(enum.Enum):
    """In what a manager makes something else of a plan than systemd-networkd does."""

    ADDRESS_ALONE = "an address without a route to its prefix has full length"
    ADDRESS_ALONE_OFF = "with `table: off`, addresses have full length"
    PREFIX_ROUTE = "the route to an address's prefix is the manager's own, in the table of the routes"
    ROUTE_TO_ITSELF = "an IPv6 address of full length has a route, to the host itself"
    LINK_LOCAL = "the interface has an IPv6 link-local address, and the route to its prefix"
    ROUTE_PROTOCOL = "routes say `proto boot`"
    RULE_PROTOCOL = "rules say no protocol"
    NO_METRIC = "routes have the kernel's metric: 0, or 256 and 1024 for IPv6"
    ALLOWED_IPS_INTO_TABLE = "with a table of its own, every prefix of AllowedIPs has a route there"
    OWN_TABLE = "replies get their mark back from a table of the manager's own"
    OWN_PACKETS = "no rule sends the packets of all tunnels to the table main first"
    RULE_ORDER = "rules of several exit nodes have the priorities that were free"
    DNS_OF_FAMILY = "DNS servers of an IP version that the interface has no address of are left out"
    DNS_WHOLE = "DNS takes every query, or is left out"
    DNS_REVERSE = "the zones of reverse names are asked of the network's servers too"


@dataclass(frozen=True)
class Meant:
    """A difference between managers that is meant, and why."""

    manager: str
    aspect: Aspect
    reason: str


#: All differences that are meant; what is not here is a mistake.
MEANT = (
    Meant("networkmanager", Aspect.ADDRESS_ALONE_OFF, "a keyfile cannot ask for an address without its prefix's route"),
    Meant("networkmanager", Aspect.PREFIX_ROUTE, "NetworkManager keeps the kernel from making it, and makes it itself"),
    Meant("networkmanager", Aspect.ROUTE_TO_ITSELF, "NetworkManager makes the route of every IPv6 address, any length"),
    Meant(
        "networkmanager", Aspect.LINK_LOCAL, "ipv6.method manual and link-local bring one; they cannot be told not to"
    ),
    Meant(
        "networkmanager", Aspect.DNS_OF_FAMILY, "a profile has DNS servers only beside addresses of their IP version"
    ),
    Meant("networkmanager", Aspect.DNS_REVERSE, "NetworkManager adds the zones of a VPN's addresses and routes itself"),
    Meant("wg-quick", Aspect.ADDRESS_ALONE, "ip-address(8) would make the route, in the table main"),
    Meant("wg-quick", Aspect.ROUTE_PROTOCOL, "wg-quick names none, and ip-route(8) writes `boot` then"),
    Meant("wg-quick", Aspect.RULE_PROTOCOL, "wg-quick names none"),
    Meant("wg-quick", Aspect.NO_METRIC, "wg-quick can set none"),
    Meant("wg-quick", Aspect.ALLOWED_IPS_INTO_TABLE, "with `Table = N` wg-quick routes AllowedIPs as they stand"),
    Meant("wg-quick", Aspect.OWN_TABLE, "wg-quick-INTERFACE comes and goes with the interface"),
    Meant("wg-quick", Aspect.OWN_PACKETS, "wg-quick knows of one exit node only"),
    Meant("wg-quick", Aspect.RULE_ORDER, "wg-quick leaves priorities to the kernel, so that the last one up is first"),
    Meant("wg-quick", Aspect.DNS_OF_FAMILY, "servers that cannot be reached through the interface are of no use"),
    Meant("wg-quick", Aspect.DNS_WHOLE, "wg-quick sends every query to the servers, so they are left out of a split"),
)
_MEANT = frozenset((one.manager, one.aspect) for one in MEANT)


@dataclass(frozen=True)
class ExpectedPeer:
    """A peer by its name. `endpoints` None: any, or none."""

    name: str
    public_key: str
    preshared_key_sha256: str | None
    endpoints: frozenset[str] | None
    allowed_ips: frozenset[Prefix]
    persistent_keepalive: int


@dataclass(frozen=True)
class ExpectedDns:
    """DNS of an interface. `default_route` None: any. `more_reverse` allows zones of reverse names beside `domains`."""

    servers: tuple[str, ...] = ()
    domains: frozenset[str] = frozenset()
    default_route: bool | None = None
    more_reverse: bool = False


@dataclass(frozen=True)
class ExpectedInterface:
    """An interface. `listen_port` 0: any. `link_local` allows an IPv6 link-local address beside `addresses`."""

    name: str
    public_key: str | None
    listen_port: int
    firewall_mark: int
    mtu: int
    addresses: frozenset[Address]
    link_local: bool
    peers: Mapping[str, ExpectedPeer]
    forwarding: frozenset[int]
    dns: ExpectedDns


@dataclass(frozen=True)
class ExpectedState:
    """A whole host. `any_priority`: the rules' order is not fixed.

    `inactive` interfaces are absent or down; `spare_rules` are theirs, which networkd makes before it needs them.
    """

    interfaces: Mapping[str, ExpectedInterface]
    inactive: frozenset[str]
    routes: frozenset[Route]
    rules: frozenset[PolicyRule]
    spare_rules: frozenset[PolicyRule]
    any_priority: bool
    forwarding: frozenset[int]
    source_valid_mark: bool
    tables: frozenset[str]


def example_preshared(network: str, own: str, peer: str, source: Any) -> str:
    """Return the preshared key of a link of the examples, in base64; `source` is the plan JSON's `preshared_key`."""
    if source == "derived":
        return derive_preshared_key(master_secret(network), own, peer).reveal()
    return given_preshared_key(source["name"])


def expected_state(
    plan: Mapping[str, Any],
    *,
    manager: str | None = None,
    preshared: Preshared = example_preshared,
    resolver: Mapping[str, Collection[str]] | None = None,
    roamed: Collection[str] = (),
    mtu: Mapping[str, int] | None = None,
    inactive: Collection[str] = (),
) -> ExpectedState:
    """Return what the host of a plan (JSON, version 1) should have.

    `manager`: that of all its interfaces, if not the plan's. `resolver`: the addresses of host names in endpoints.
    `roamed`: the names of peers whose endpoint may be any by now. `mtu`, by interface: where the plan has none and the
    manager takes another than the kernel's. `inactive`: interfaces that nobody brought up.

    Raises ValueError for a plan of another version or a peer without key, KeyError for a name that `resolver` lacks.
    """
    if plan["version"] != 1:
        raise ValueError(f"expected a plan of version 1, found {plan['version']}")
    makers = {each["interface"]: _Maker(each, manager or each["manager"]) for each in plan["interfaces"]}
    spare = [makers.pop(name) for name in inactive]
    with_rules = [maker for maker in makers.values() if maker.plan["rules"]]
    return ExpectedState(
        interfaces={
            name: ExpectedInterface(
                name=name,
                public_key=maker.plan["public_key"],
                listen_port=maker.plan["listen_port"],
                firewall_mark=maker.plan["firewall_mark"],
                mtu=maker.plan["mtu"] or (mtu or {}).get(name, KERNEL_MTU),
                addresses=frozenset(maker.addresses),
                link_local=maker.has(Aspect.LINK_LOCAL),
                peers=dict(_peers(maker.plan, preshared, resolver or {}, roamed)),
                forwarding=frozenset(maker.plan["forwarding"]),
                dns=maker.dns(),
            )
            for name, maker in makers.items()
        },
        inactive=frozenset(inactive),
        routes=frozenset(route for maker in makers.values() for route in maker.routes()),
        rules=frozenset(rule for maker in makers.values() for rule in maker.rules()),
        spare_rules=frozenset(rule for maker in spare for rule in maker.rules()),
        any_priority=len(with_rules) > 1 and any(maker.has(Aspect.RULE_ORDER) for maker in with_rules),
        forwarding=frozenset[int]().union(*(each["forwarding"] for each in plan["interfaces"])),
        source_valid_mark=any(each["source_valid_mark"] for each in plan["interfaces"]),
        tables=frozenset(
            f"wgnet_{kind}_{nft_identifier(each['interface'])}"
            for each in plan["interfaces"]
            for kind, versions in _tables(each, manager or each["manager"])
            if versions
        ),
    )


# --- peers -----------------------------------------------------------------------------------------------------------


def _peers(
    plan: Mapping[str, Any], preshared: Preshared, resolver: Mapping[str, Collection[str]], roamed: Collection[str]
) -> Iterator[tuple[str, ExpectedPeer]]:
    for peer in plan["peers"]:
        if not peer["public_key"]:
            raise ValueError(f"the peer '{peer['name']}' has no public key")
        endpoint = None if peer["name"] in roamed else peer["endpoint"]
        # The key that a rotation goes to is there already, without prefixes.
        for key, in_use in ((peer["public_key"], True), (peer["next_public_key"], False)):
            if key is None:
                continue
            source = peer["preshared_key"]
            secret = None if source is None else preshared(plan["network"], plan["public_key"], key, source)
            yield (
                key,
                ExpectedPeer(
                    name=peer["name"] if in_use else f"{peer['name']} (next key)",
                    public_key=key,
                    preshared_key_sha256=None if secret is None else fingerprint(secret),
                    endpoints=None if endpoint is None else frozenset(_endpoints(endpoint, resolver)),
                    allowed_ips=frozenset(map(ipaddress.ip_network, peer["allowed_ips"])) if in_use else frozenset(),
                    persistent_keepalive=peer["persistent_keepalive"],
                ),
            )


def _endpoints(text: str, resolver: Mapping[str, Collection[str]]) -> Iterator[str]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    try:
        addresses: Collection[str] = (str(ipaddress.ip_address(host)),)
    except ValueError:
        addresses = resolver[host]
    for each in addresses:
        yield f"[{each}]:{port}" if ":" in each else f"{each}:{port}"


# --- what the managers make ------------------------------------------------------------------------------------------


def _tables(plan: Mapping[str, Any], manager: str) -> Iterator[tuple[str, list[int]]]:
    """Yield the kinds of nftables' tables, and the IP versions that each is for."""
    yield "masquerade", plan["masquerade"]
    yield "mark", [] if (manager, Aspect.OWN_TABLE) in _MEANT else plan["restore_mark"]


class _Maker:
    """What one manager makes of one interface's plan."""

    def __init__(self, plan: Mapping[str, Any], manager: str) -> None:
        self.plan = plan
        self._manager = manager
        self._name: str = plan["interface"]
        planned = [(ipaddress.ip_interface(each["address"]), each["prefix_route"]) for each in plan["addresses"]]
        self._table: int = plan["table"]
        self._metric: int = plan["metric"]
        off = not self._table
        self._prefix_routes = {address for address, prefix_route in planned if prefix_route}
        self.addresses = [
            self._alone(address)
            if (self.has(Aspect.ADDRESS_ALONE) and not prefix_route) or (self.has(Aspect.ADDRESS_ALONE_OFF) and off)
            else address
            for address, prefix_route in planned
        ]

    def has(self, aspect: Aspect) -> bool:
        """Whether the difference is meant of this manager."""
        return (self._manager, aspect) in _MEANT

    @staticmethod
    def _alone(address: Address) -> Address:
        return ipaddress.ip_interface(address.ip)

    def routes(self) -> Iterator[Route]:
        """Yield all routes of the interface but those to its link-local prefix."""
        for address in self.addresses:
            yield from self._prefix_route(address)
        connected = {address.network for address in self.addresses}
        for destination, table, metric in self._planned():
            if self.has(Aspect.PREFIX_ROUTE) and table == self._table and destination in connected:
                continue
            if self.has(Aspect.NO_METRIC):
                metric = 0
            protocol = "boot" if self.has(Aspect.ROUTE_PROTOCOL) else "static"
            yield self._route(destination, table, metric, protocol)

    def _planned(self) -> Iterator[tuple[Prefix, int, int]]:
        if self.has(Aspect.ALLOWED_IPS_INTO_TABLE) and self._table not in (0, TABLE_MAIN):
            for peer in self.plan["peers"]:
                for prefix in peer["allowed_ips"]:
                    yield ipaddress.ip_network(prefix), self._table, 0
            return
        for route in self.plan["routes"]:
            yield ipaddress.ip_network(route["destination"]), route["table"], route["metric"]

    def _prefix_route(self, address: Address) -> Iterator[Route]:
        """Yield the route to an address's prefix, which the kernel or the manager makes beside the plan's."""
        full = address.network.prefixlen == address.max_prefixlen
        if full and address.version == 4:
            return
        if self.has(Aspect.PREFIX_ROUTE):
            if full and not self.has(Aspect.ROUTE_TO_ITSELF):
                return
            yield self._route(address.network, self._table or TABLE_MAIN, self._metric, "kernel")
        elif self.has(Aspect.ADDRESS_ALONE) or address in self._prefix_routes:
            # networkd names a metric where there is a prefix to speak of.
            named = self._metric and not full and not self.has(Aspect.NO_METRIC)
            unnamed = 0 if address.version == 4 else _METRIC_ADDRCONF
            yield self._route(address.network, TABLE_MAIN, self._metric if named else unnamed, "kernel")

    def _route(self, destination: Prefix, table: int, metric: int, protocol: str) -> Route:
        # IPv6 has no scopes of routes.
        scope = "link" if destination.version == 4 else "global"
        if destination.version == 6 and not metric:
            # To IPv6, 0 is no metric.
            metric = _METRIC_USER
        return Route(destination, table, metric, self._name, protocol, scope)

    def rules(self) -> Iterator[PolicyRule]:
        """Yield the policy rules."""
        for rule in self.plan["rules"]:
            if self.has(Aspect.OWN_PACKETS) and rule["priority"] == PRIORITY_OWN_PACKETS:
                continue
            yield PolicyRule(
                version=rule["family"],
                priority=rule["priority"],
                action=rule["action"],
                table=rule["table"],
                source=_selector(rule["from"]),
                destination=_selector(rule["to"]),
                incoming_interface=rule["iif"],
                firewall_mark=rule["fwmark"],
                invert=rule["invert"],
                suppress_prefix_length=rule["suppress_prefixlength"],
                protocol="unspec" if self.has(Aspect.RULE_PROTOCOL) else "static",
            )

    def dns(self) -> ExpectedDns:
        """Return what systemd-resolved is to be told."""
        plan = self.plan["dns"]
        more = self.has(Aspect.DNS_REVERSE)
        whole = self.has(Aspect.DNS_WHOLE)
        if plan is None or (whole and not plan["everything"]):
            return ExpectedDns(more_reverse=more)
        versions = {address.version for address in self.addresses}
        servers = tuple(
            server
            for server in plan["servers"]
            if not self.has(Aspect.DNS_OF_FAMILY) or ipaddress.ip_address(server).version in versions
        )
        if not servers:
            return ExpectedDns(more_reverse=more)
        domains = [domain for domain in plan["search"] if not (whole and domain.startswith("~"))]
        domains += ["~."] if plan["everything"] else []
        return ExpectedDns(
            servers=servers,
            domains=frozenset(domains + [f"~{zone}" for zone in plan["reverse"]]),
            # resolvconf(8), which wg-quick calls, has no word for it; `~.` says the same.
            default_route=None if whole else plan["everything"],
            more_reverse=more,
        )


def _selector(prefix: str | None) -> Prefix | None:
    found = None if prefix is None else ipaddress.ip_network(prefix)
    # Of no length it only says the IP version.
    return found if found is not None and found.prefixlen else None


# --- differences -----------------------------------------------------------------------------------------------------


def differences(expected: ExpectedState, live: LiveState) -> list[str]:
    """Return a line for everything that is missing, too much or otherwise on the live host; none where all is right."""
    lines: list[str] = []
    for name in sorted(expected.interfaces.keys() - live.interfaces.keys()):
        lines.append(f"{name}: the interface is missing")
    for name in sorted(live.interfaces.keys() - expected.interfaces.keys()):
        if name not in expected.inactive:
            lines.append(f"{name}: no such interface is meant to be")
        elif live.interfaces[name].up:
            lines.append(f"{name}: the interface is up, and nobody activated it")
    for name in sorted(expected.interfaces.keys() & live.interfaces.keys()):
        lines += [f"{name}: {line}" for line in _interface(expected.interfaces[name], live.interfaces[name])]
    lines += _both_ways("route", expected.routes, _without_link_local(expected, live))
    lines += _both_ways(
        "rule",
        _ordered(expected.rules, expected),
        _ordered(live.rules - (expected.spare_rules - expected.rules), expected),
    )
    for what, wanted, found in (
        ("forwarding of IP versions", sorted(expected.forwarding), sorted(live.forwarding)),
        ("net.ipv4.conf.all.src_valid_mark", expected.source_valid_mark, live.source_valid_mark),
        ("nftables' tables", sorted(expected.tables), sorted(live.tables)),
    ):
        if wanted != found:
            lines.append(f"{what}: expected {wanted}, found {found}")
    return lines


def _without_link_local(expected: ExpectedState, live: LiveState) -> Iterator[Route]:
    """Yield the live routes but those to the link-local prefix of an interface that may have such an address."""
    for route in live.routes:
        interface = expected.interfaces.get(route.device or "")
        may_have = interface is not None and interface.link_local and route.destination == _LINK_LOCAL
        if route in expected.routes or not may_have:
            yield route


def _ordered(rules: Iterable[PolicyRule], expected: ExpectedState) -> Iterator[PolicyRule]:
    return (replace(rule, priority=0) if expected.any_priority else rule for rule in rules)


def _both_ways(what: str, expected: Iterable[object], live: Iterable[object]) -> Iterator[str]:
    # Counted: where the order is free, two rules of different priorities may look alike.
    wanted, found = Counter(expected), Counter(live)
    yield from (f"missing {what}: {one}" for one in sorted(map(str, (wanted - found).elements())))
    yield from (f"extra {what}: {one}" for one in sorted(map(str, (found - wanted).elements())))


def _interface(expected: ExpectedInterface, live: LiveInterface) -> Iterator[str]:
    if not live.up:
        yield "the interface is down"
    if live.mtu != expected.mtu:
        yield f"MTU: expected {expected.mtu}, found {live.mtu}"
    found = {
        each.address
        for each in live.addresses
        if not (expected.link_local and each.address.network == _LINK_LOCAL and each.address not in expected.addresses)
    }
    yield from _both_ways("address", expected.addresses, found)
    # Of IPv6 the kernel asks net.ipv6.conf.all alone (ip6_forward()); NetworkManager leaves the interface's own at 0.
    if 4 in expected.forwarding and 4 not in live.forwarding:
        yield "does not forward IPv4"
    lines = list(_wireguard(expected, live.wireguard))
    yield from lines
    # The same twice would be noise.
    yield from (f"{line} (wg showconf)" for line in _wireguard(expected, live.configuration) if line not in lines)
    if live.dns is not None:
        yield from _dns(expected.dns, live)


def _wireguard(expected: ExpectedInterface, live: WireGuard) -> Iterator[str]:
    if live.public_key is not None and expected.public_key not in (None, live.public_key):
        yield f"public key: expected {expected.public_key}, found {live.public_key}"
    if live.private_key_sha256 is None:
        yield "has no private key"
    if expected.listen_port not in (0, live.listen_port):
        yield f"ListenPort: expected {expected.listen_port}, found {live.listen_port}"
    if live.firewall_mark != expected.firewall_mark:
        yield f"FwMark: expected {expected.firewall_mark}, found {live.firewall_mark}"
    for key, peer in sorted(expected.peers.items(), key=lambda item: item[1].name):
        if key not in live.peers:
            yield f"missing peer: {peer.name} ({key})"
    for key in sorted(live.peers.keys() - expected.peers.keys()):
        yield f"extra peer: {key}"
    for key, peer in sorted(expected.peers.items(), key=lambda item: item[1].name):
        found = live.peers.get(key)
        if found is None:
            continue
        yield from _both_ways(f"AllowedIPs of peer {peer.name}", peer.allowed_ips, found.allowed_ips)
        if found.preshared_key_sha256 != peer.preshared_key_sha256:
            wanted = "none" if peer.preshared_key_sha256 is None else "the link's"
            there = "none" if found.preshared_key_sha256 is None else "another"
            yield f"PresharedKey of peer {peer.name}: expected {wanted}, found {there}"
        if found.persistent_keepalive != peer.persistent_keepalive:
            seconds = f"expected {peer.persistent_keepalive} s, found {found.persistent_keepalive} s"
            yield f"PersistentKeepalive of peer {peer.name}: {seconds}"
        if peer.endpoints is not None and found.endpoint not in peer.endpoints:
            wanted = " or ".join(sorted(peer.endpoints))
            yield f"Endpoint of peer {peer.name}: expected {wanted}, found {found.endpoint or 'none'}"


def _dns(expected: ExpectedDns, live: LiveInterface) -> Iterator[str]:
    dns = live.dns
    assert dns is not None
    # Managers put one IP version before the other; within one, the order is the plan's.
    for version in (4, 6):
        wanted = [one for one in expected.servers if ipaddress.ip_address(one).version == version]
        found = [one for one in dns.servers if ipaddress.ip_address(one).version == version]
        if wanted != found:
            texts = [" ".join(servers) or "none" for servers in (wanted, found)]
            yield f"DNS servers of IPv{version}: expected {texts[0]}, found {texts[1]}"
    domains = {
        one for one in dns.domains if one in expected.domains or not (expected.more_reverse and one.endswith(_REVERSE))
    }
    yield from _both_ways("DNS domain", expected.domains, domains)
    # Without servers the value is of no effect, and resolved's own.
    if expected.servers and expected.default_route not in (None, dns.default_route):
        yield f"DNS default route: expected {expected.default_route}, found {dns.default_route}"
