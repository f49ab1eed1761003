"""The paths of a network by the letter of the format: every shortest path is listed, and the one that wins is picked.

Slow and plain on purpose, and apart from wgnet's own code: what it is compared with is fast and clever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from property.networks import Draft

#: More shortest paths than this between two hosts are not compared one by one.
MOST_PATHS = 3000


@dataclass
class Graph:
    """Who is linked with whom, and the relays in the order in which ties are broken."""

    neighbours: Mapping[str, Set[str]]
    relays: Sequence[str]
    isolations: list[tuple[set[str], set[str]]] = field(default_factory=list)

    def shortest(self, source: str, target: str) -> list[tuple[str, ...]]:
        """Return every shortest path on which only relays are in between."""
        distance = {source: 0}
        layer = [source]
        while layer and target not in distance:
            following = []
            for host in layer:
                if host != source and host not in self.relays:
                    continue
                for other in self.neighbours[host]:
                    if other not in distance:
                        distance[other] = distance[host] + 1
                        following.append(other)
            layer = following
        if target not in distance:
            return []
        return list(self._back(source, target, distance))

    def _back(self, source: str, target: str, distance: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
        if target == source:
            yield (source,)
            return
        for before in self.neighbours[target]:
            if distance.get(before) == distance[target] - 1 and (before == source or before in self.relays):
                for path in self._back(source, before, distance):
                    yield (*path, target)

    def best(self, source: str, target: str) -> tuple[str, ...] | None:
        """Return the path that wins: the one with the earliest relay of those in which it differs from another."""
        paths = self.shortest(source, target)
        if not paths:
            return None
        assert len(paths) <= MOST_PATHS
        winners = [path for path in paths if all(other == path or self._beats(path, other) for other in paths)]
        assert len(winners) == 1, f"no one path wins: {paths}"
        return winners[0]

    def _beats(self, one: tuple[str, ...], two: tuple[str, ...]) -> bool:
        mine, theirs = set(one[1:-1]), set(two[1:-1])
        for relay in self.relays:
            if (relay in mine) != (relay in theirs):
                return relay in mine
        raise AssertionError(f"two shortest paths over the same relays: {one} and {two}")

    def dropped(self, path: Sequence[str]) -> bool:
        """Whether the path enters an isolating rule's hub from one of its spokes and leaves to another of them."""
        for hubs, spokes in self.isolations:
            inside = False
            for before, here, after in zip(path, path[1:], path[2:], strict=False):
                if here not in hubs:
                    inside = False
                    continue
                if before not in hubs:
                    inside = before in spokes
                if inside and after in spokes and after not in hubs:
                    return True
        return False


def graph_of(draft: Draft) -> Graph:
    """Return the graph of a network."""
    enabled = draft.enabled()
    neighbours: dict[str, set[str]] = {name: set() for name in enabled}
    for one, two in map(tuple, draft.pairs()):
        neighbours[one].add(two)
        neighbours[two].add(one)
    hubs: dict[str, None] = {}
    isolations = []
    named = {name for rule in draft.rules or () for key in ("mesh", "hub", "spokes") for name in rule.get(key, ())}
    for rule in draft.rules or ():
        if "hub" in rule:
            hubs |= dict.fromkeys(name for name in rule["hub"] if name in enabled)
            if rule.get("isolate"):
                spokes = set(rule.get("spokes", [name for name in draft.hosts if name not in named]))
                isolations.append((set(rule["hub"]), spokes - set(rule["hub"])))
    relays = [name for name in hubs if draft.hosts[name].get("forward", True)]
    relays += sorted(name for name in enabled if draft.hosts[name].get("forward") and name not in hubs)
    return Graph(neighbours, relays, isolations)
