"""Trace: where a packet goes, hop by hop, by the AllowedIPs of each host that it passes.

The trace walks what is rendered (longest prefix on sending, access list on receiving, forwarding, isolation), not the
paths that it was derived from, and so proves them. No I/O.
"""

from __future__ import annotations

import enum

from wgnet.model.topology import TABLE_OFF, Host
from wgnet.record import record
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.prefixes import PrefixMap, contains, host_prefix
from wgnet.syntax.spec import Address, Prefix


class Outcome(enum.Enum):
    """How a packet's way ends."""

    ARRIVED = "arrived"
    LEFT = "left"
    DROPPED = "dropped"


@record()
class Hop:
    """A step from one host to the next, with the AllowedIPs entry that sends the packet and the one that lets it in."""

    sender: str
    receiver: str
    sent_by: Prefix
    taken_by: Prefix | None


@record()
class Trace:
    """A packet's way: the hosts that it was on, in order, and why it ended.

    `ARRIVED`: at a host that has the address. `LEFT`: into a network behind the last host. `DROPPED`: see `reason`.
    """

    hosts: tuple[str, ...]
    hops: tuple[Hop, ...]
    outcome: Outcome
    reason: str

    @property
    def delivered(self) -> bool:
        """Whether the packet got to where it was going."""
        return self.outcome is not Outcome.DROPPED


class Tracer:
    """Traces packets through one network; the tables of the hosts that are passed are kept."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self._tables: dict[int, PrefixMap[int]] = {}
        self._owners: dict[int, PrefixMap[int]] = {}

    def table(self, host: Host) -> PrefixMap[int]:
        """Return the host's AllowedIPs as a map from prefix to the rank of the peer."""
        rank = self.routing.links.rank[host.name]
        table = self._tables.get(rank)
        if table is None:
            table = PrefixMap(
                (prefix, peer) for peer, prefixes in self.routing.table(host).items() for prefix in prefixes
            )
            self._tables[rank] = table
        return table

    def trace(self, source: Host, sender: Address, target: Address) -> Trace:
        """Follow a packet with the addresses `sender` and `target` that leaves from the enabled host `source`."""
        here, hosts = source, [source.name]
        hops: list[Hop] = []
        came_from: Host | None = None

        def end(outcome: Outcome, reason: str) -> Trace:
            return Trace(hosts=tuple(hosts), hops=tuple(hops), outcome=outcome, reason=reason)

        while True:
            if any(address.ip == target for address in here.addresses):
                return end(Outcome.ARRIVED, f"'{here.name}' has the address")
            found = self.table(here).find(target)
            outside = self._outside(here, target)
            routed = max(_own_length(here, target), -1 if found is None else found[0].prefixlen)
            if outside is not None and routed < outside.prefixlen:
                return end(Outcome.LEFT, f"'{target}' is in {outside} behind '{here.name}'")
            if came_from is not None and not here.forward and found is not None and not found[0].prefixlen:
                found = None  # the host's own exit node is not for others
            if found is None:
                if came_from is not None and routed <= 0 and target.version in here.offers:
                    return end(Outcome.LEFT, f"'{here.name}' is an exit node")
                return end(Outcome.DROPPED, f"no peer of '{here.name}' has '{target}' in its AllowedIPs")
            prefix, rank = found
            peer = self.routing.links.hosts[rank]
            if came_from is not None:
                if not here.forward:
                    return end(Outcome.DROPPED, f"'{here.name}' does not forward between peers")
                if self._isolates(here, sender, target):
                    return end(Outcome.DROPPED, f"'{here.name}' isolates its spokes from each other")
            if peer.name in hosts:
                return end(Outcome.DROPPED, f"'{here.name}' sends the packet back to '{peer.name}'")
            taken = self.table(peer).find(sender)
            good = taken is not None and self.routing.links.hosts[taken[1]] is here
            hops.append(
                Hop(
                    sender=here.name,
                    receiver=peer.name,
                    sent_by=prefix,
                    taken_by=taken[0] if taken is not None and good else None,
                )
            )
            if not good:
                return end(
                    Outcome.DROPPED, f"'{peer.name}' does not take packets from '{sender}' from its peer '{here.name}'"
                )
            hosts.append(peer.name)
            came_from, here = here, peer

    def _outside(self, host: Host, target: Address) -> Prefix | None:
        """Return the longest subnet around the target that lies behind the host itself, or in its site."""
        whole = host_prefix(target)
        around = [prefix for prefix in self.routing.nearby(host) if contains(prefix, whole)]
        return max(around, key=lambda prefix: prefix.prefixlen, default=None)

    def _isolates(self, hub: Host, sender: Address, target: Address) -> bool:
        rank = self.routing.links.rank[hub.name]
        owners = self._owners.get(rank)
        if owners is None:
            owners = PrefixMap(self.routing.isolation(hub, self.routing.paths.view(hub)).items())
            self._owners[rank] = owners
        source, destination = owners.find(sender), owners.find(target)
        return source is not None and destination is not None and bool(source[1] & destination[1])


def _own_length(host: Host, target: Address) -> int:
    """Return the length of the host's own address prefix around the target, which routes it into the tunnel, or -1."""
    if host.table == TABLE_OFF:
        return -1
    lengths = (
        own.network.prefixlen for own in host.addresses if own.version == target.version and target in own.network
    )
    return max(lengths, default=-1)


def common_version_addresses(one: Host, two: Host) -> list[tuple[Address, Address]]:
    """Return one pair of addresses of two hosts for each IP version that both have."""
    pairs: list[tuple[Address, Address]] = []
    for version in (4, 6):
        mine = next((address.ip for address in one.addresses if address.version == version), None)
        theirs = next((address.ip for address in two.addresses if address.version == version), None)
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
    return pairs
