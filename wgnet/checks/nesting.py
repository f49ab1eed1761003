"""Checks of a tunnel inside another: what several networks on one host make of each other's packets.

Input: the fleet, whose networks have no errors of their own. Output: diagnostics. What the host's other links take is
not known here, nor what a name resolves to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.span import Span
from wgnet.model.topology import TABLE_MAIN, TABLE_OFF
from wgnet.plan.derive import Fleet, rank_rivals
from wgnet.plan.types import InterfacePlan, PeerPlan
from wgnet.record import record
from wgnet.routing.links import same_site
from wgnet.routing.prefixes import PrefixMap, covered, host_prefix
from wgnet.syntax.spec import Address


@record(kw_only=False, eq=False)
class _Carrier:
    """A peer of one of the host's interfaces, and the next whose packets carry the packets to it."""

    plan: InterfacePlan
    peer: PeerPlan


def check_nested_loops(fleet: Fleet, diagnostics: Diagnostics) -> None:
    """No packet of a tunnel enters another whose packets enter the first: none of both would ever leave the host."""
    if len(fleet.routings) < 2:
        return
    for name in fleet.host_names():
        if len(fleet.appearances(name)) < 2:
            continue
        plans = fleet.plan_host(name).interfaces
        table = _Table(plans)
        below: dict[tuple[str, str], list[tuple[Address, _Carrier]]] = {}
        for plan in plans:
            for peer in plan.peers:
                carriers = list(_carriers(fleet, table, plan, peer))
                if carriers:
                    below[plan.network, peer.name] = carriers
        told: set[frozenset[str]] = set()
        for start in below:
            ring = _find_ring(start, below)
            networks = frozenset(network for network, _ in ring)
            if ring and networks not in told:
                told.add(networks)
                _report(fleet, name, ring, below, diagnostics)


class _Table:
    """What the host's own rules and routes do with a packet, as far as its networks make them."""

    def __init__(self, plans: Sequence[InterfacePlan]) -> None:
        self._main: PrefixMap[InterfacePlan] = PrefixMap()
        self._peers: dict[str, PrefixMap[PeerPlan]] = {}
        self._own = {address.address.ip for plan in plans for address in plan.addresses}
        # Of equal prefixes the smaller metric wins, so it comes last.
        for plan in sorted(plans, key=lambda one: -one.metric):
            for address in plan.addresses:
                if address.prefix_route:
                    self._main.add(address.address.network, plan)
            for route in plan.routes:
                if route.table == TABLE_MAIN and route.destination.prefixlen:
                    self._main.add(route.destination, plan)
        by_host = {id(plan.host): plan for plan in plans}
        self._exits = [by_host[id(host)] for host in rank_rivals([plan.host for plan in plans])]
        self._exits = [plan for plan in self._exits if plan.default_versions and plan.table != TABLE_OFF]

    def find(self, origin: InterfacePlan, target: Address) -> _Carrier | None:
        """Return the interface and peer that an encrypted packet of `origin` enters, or None where it leaves."""
        if target in self._own:
            return None
        found = self._main.find(target)
        plan = found[1] if found is not None else self._exit(origin, target)
        if plan is None:
            return None
        peers = self._peers.get(plan.network)
        if peers is None:
            peers = PrefixMap((prefix, peer) for peer in plan.peers for prefix in peer.allowed_ips)
            self._peers[plan.network] = peers
        peer = peers.find(target)
        return None if peer is None else _Carrier(plan, peer[1])

    def _exit(self, origin: InterfacePlan, target: Address) -> InterfacePlan | None:
        marks = {plan.firewall_mark for plan in self._exits}
        if len(self._exits) > 1 and origin.firewall_mark in marks:
            return None  # looked up in main before the rules of any of them
        for plan in self._exits:
            if target.version not in plan.default_versions or origin.firewall_mark == plan.firewall_mark:
                continue
            return None if covered(host_prefix(target), plan.bypass) else plan
        return None


def _carriers(fleet: Fleet, table: _Table, plan: InterfacePlan, peer: PeerPlan) -> Iterator[tuple[Address, _Carrier]]:
    """Yield, for each endpoint of a peer that is an address, the peer of another network that carries its packets."""
    routing = next(one for one in fleet.routings if one.topology.name == plan.network)
    other = routing.topology.by_name[peer.name]
    if other.site_endpoint and same_site(other, plan.host) and peer.endpoints == other.site_endpoint:
        return  # it is on the local network, whatever else is routed
    for endpoint in peer.endpoints:
        if endpoint.address is not None:
            carrier = table.find(plan, endpoint.address)
            if carrier is not None and carrier.plan is not plan:
                yield endpoint.address, carrier


def _find_ring(
    start: tuple[str, str], below: dict[tuple[str, str], list[tuple[Address, _Carrier]]]
) -> list[tuple[str, str]]:
    """Return the peers of a way from `start` down to itself; empty where there is none."""
    before: dict[tuple[str, str], tuple[str, str]] = {}
    layer = [start]
    while layer and start not in before:
        following = []
        for current in layer:
            for _, carrier in below.get(current, ()):
                key = (carrier.plan.network, carrier.peer.name)
                if key not in before:
                    before[key] = current
                    following.append(key)
        layer = following
    if start not in before:
        return []
    ring = [before[start]]
    while ring[-1] != start:
        ring.append(before[ring[-1]])
    return ring[::-1]


def _report(
    fleet: Fleet,
    name: str,
    ring: list[tuple[str, str]],
    below: dict[tuple[str, str], list[tuple[Address, _Carrier]]],
    diagnostics: Diagnostics,
) -> None:
    labels = []
    for number, key in enumerate(ring):
        following = ring[(number + 1) % len(ring)]
        address = next(
            address for address, carrier in below[key] if (carrier.plan.network, carrier.peer.name) == following
        )
        labels.append(
            Label(_endpoint_place(fleet, *key, address), f"packets to this address enter the network '{following[0]}'")
        )
    networks = " and ".join(f"'{network}'" for network, _ in ring)
    diagnostics.report(
        codes.ENDPOINT_LOOP,
        f"on '{name}' the packets of the networks {networks} would carry each other in a ring",
        *labels,
        help="use an address that none of them routes, or keep it out of an exit node with `bypass`",
    )


def _endpoint_place(fleet: Fleet, network: str, peer: str, address: Address) -> Span:
    routing = next(one for one in fleet.routings if one.topology.name == network)
    host = routing.topology.by_name[peer]
    for number, endpoint in enumerate(host.endpoint):
        if endpoint.address == address:
            return host.place("endpoint", number)
    for rule in routing.topology.rules:
        for number, endpoint in enumerate(rule.endpoint.get(peer, ())):
            if endpoint.address == address:
                return rule.endpoint_place(host, number)
    return host.span
