"""Paths: how a packet gets from host to host over the links.

Between two hosts traffic takes the shortest path on which only relays are in between. Of equally short paths the one
wins that holds the earliest relay of those in which they differ. A path's relays, as a number with one bit for each,
the earliest the highest, make that a comparison of numbers; since such a number is a sum over the path, every part of a
best path is best, and the way back is the way there reversed. Both are what cryptokey routing needs.

Sets of hosts are integers of bits by rank. Pure functions, no I/O.
"""

from __future__ import annotations

from wgnet.model.topology import Host, RuleKind, Topology
from wgnet.record import record
from wgnet.routing.links import Links, bits


@record(kw_only=False, eq=False)
class View:
    """What one host sees of the network. All sets are bits by rank.

    `direct` are its peers. `behind[r]` are the hosts beyond the peer `r` that it reaches through it; `reached` all
    that it reaches, peers included. `blocked` are those whose path an isolating hub forbids. `parents` gives for each
    relay that a path passes the relay before it (-1: the host itself), and the hosts next after it.
    """

    rank: int
    direct: int
    behind: dict[int, int]
    reached: int
    blocked: int
    parents: dict[int, tuple[int, int]]


@record(kw_only=False, eq=False)
class _Isolation:
    """An isolating hub rule as bits."""

    hubs: int
    spokes: int


class Paths:
    """The paths of a network; views are computed when they are asked for, and kept for the relays alone."""

    def __init__(self, topology: Topology, links: Links) -> None:
        self.topology = topology
        self.links = links
        self.everyone = (1 << len(links.hosts)) - 1
        self._relay_mask = (1 << links.relays) - 1
        self._kept: dict[int, View] = {}
        self._isolations = [
            _Isolation(self.mask(rule.hubs), self.mask(rule.spokes))
            for rule in topology.rules
            if rule.kind is RuleKind.HUB and rule.isolate
        ]

    def mask(self, hosts: tuple[Host, ...]) -> int:
        """Return a set of enabled hosts as bits."""
        mask = 0
        for host in hosts:
            mask |= 1 << self.links.rank[host.name]
        return mask

    def hosts(self, mask: int) -> list[Host]:
        """Return the hosts of a set, by rank."""
        return [self.links.hosts[rank] for rank in bits(mask)]

    def view(self, host: Host) -> View:
        """Return what an enabled host sees."""
        rank = self.links.rank[host.name]
        kept = self._kept.get(rank)
        if kept is None:
            kept = self._search(rank)
            if rank < self.links.relays:
                self._kept[rank] = kept
        return kept

    def isolated_at(self, hub: int, rank: int) -> bool:
        """Whether `rank` is a spoke of an isolating rule of which `hub` is a hub."""
        return any(rule.hubs >> hub & 1 and rule.spokes >> rank & 1 for rule in self._isolations)

    def _search(self, source: int) -> View:
        """Search breadth first; within a layer the best relay takes what it reaches before the others."""
        masks, relays = self.links.masks, self.links.relays
        direct = masks[source]
        remaining = self.everyone & ~direct & ~(1 << source)
        blocked = 0
        behind: dict[int, int] = {}
        parents: dict[int, tuple[int, int]] = {}
        # Each relay of the layer: the relays of its path as a number, itself included; its rank; the peer that the path
        # begins with; the relay before it; the isolating rules whose hubs the path entered from a spoke.
        layer: list[tuple[int, int, int, int, int]] = [
            (1 << (relays - 1 - relay), relay, relay, -1, self._entered(source, relay, 0))
            for relay in bits(direct & self._relay_mask)
        ]
        while layer and remaining:
            layer.sort(reverse=True)
            following: list[tuple[int, int, int, int, int]] = []
            for number, relay, first, parent, entered in layer:
                new = masks[relay] & remaining
                if not new:
                    continue
                remaining &= ~new
                parents[relay] = (parent, new)
                if blocked >> relay & 1:
                    refused = new
                else:
                    refused = new & self._refused(entered)
                blocked |= refused
                behind[first] = behind.get(first, 0) | (new & ~refused)
                for following_relay in bits(new & self._relay_mask):
                    following.append(
                        (
                            number | 1 << (relays - 1 - following_relay),
                            following_relay,
                            first,
                            relay,
                            self._entered(relay, following_relay, entered),
                        )
                    )
            layer = following
        reached = self.everyone & ~remaining & ~blocked & ~(1 << source)
        return View(source, direct, behind, reached, blocked, parents)

    def _entered(self, before: int, relay: int, entered: int) -> int:
        """Return, as bits, the isolating rules whose hubs the path has entered from a spoke and not left at `relay`."""
        result = 0
        for number, rule in enumerate(self._isolations):
            if rule.hubs >> relay & 1:
                inside = rule.hubs >> before & 1
                if (entered >> number & 1) if inside else (rule.spokes >> before & 1):
                    result |= 1 << number
        return result

    def _refused(self, entered: int) -> int:
        refused = 0
        if entered:
            for number in bits(entered):
                refused |= self._isolations[number].spokes
        return refused

    def path(self, source: Host, target: Host) -> tuple[Host, ...] | None:
        """Return the hosts of the path, both ends included, or None if there is none; isolation is not looked at."""
        if source is target:
            return (source,)
        view = self.view(source)
        rank = self.links.rank[target.name]
        if view.direct >> rank & 1:
            return (source, target)
        for relay, (_, following) in view.parents.items():
            if following >> rank & 1:
                hops = [target]
                while relay != -1:
                    hops.append(self.links.hosts[relay])
                    relay = view.parents[relay][0]
                return (source, *reversed(hops))
        return None

    def beyond(self, view: View, relay: int) -> int:
        """Return the hosts whose path from the view's host passes `relay`."""
        result = 0
        passed = {relay}
        for current, (parent, following) in view.parents.items():  # in the order of the search: parents come first
            if current == relay or parent in passed:
                passed.add(current)
                result |= following
        return result
