"""Groups of groups -> the names of their hosts.

Input: the members of each group as they are written. Output: the hosts of each, and the groups that contain
themselves. Each group is expanded once, however many others contain it, and without recursion. Reports nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence


def expand_groups(
    groups: Mapping[str, Sequence[str]], hosts: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, ...]]]:
    """Return the hosts of every group, in the order of the file, and a cycle for each knot of groups.

    `hosts` and `groups` tell names apart; of a name that is neither nothing is said, and `all` is every host. Groups
    that contain each other have the same hosts: those of all of them. A cycle begins with the group that comes first
    in the file, and each of its groups contains the next, the last one the first.
    """
    everyone = tuple(hosts)
    expanded: dict[str, tuple[str, ...]] = {}
    cycles: list[tuple[str, ...]] = []
    order = {name: number for number, name in enumerate(groups)}
    for knot in _knots(groups, hosts):
        inside = {name for name in knot if name not in hosts and name != "all"}
        names = sorted(knot, key=order.__getitem__)
        parts = [
            (member,) if member in hosts else everyone if member == "all" else expanded.get(member, ())
            for name in names
            for member in groups[name]
            if member not in inside
        ]
        # One part is shared as it is: a long chain of groups would else hold its hosts once for each link.
        members = parts[0] if len(parts) == 1 else tuple(dict.fromkeys(name for part in parts for name in part))
        expanded.update(dict.fromkeys(names, members))
        if len(names) > 1 or (names[0] in inside and names[0] in groups[names[0]]):
            cycles.append(_shortest_cycle(names[0], groups, inside))
    return expanded, cycles


def _inner(name: str, groups: Mapping[str, Sequence[str]], hosts: Collection[str]) -> Iterator[str]:
    return (member for member in groups[name] if member in groups and member not in hosts and member != "all")


def _knots(groups: Mapping[str, Sequence[str]], hosts: Collection[str]) -> Iterator[list[str]]:
    """Yield the groups that contain each other, a group alone as a rule, each after what it contains.

    Source: R. Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of its own.
    """
    met: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: dict[str, None] = {}
    for start in groups:
        if start in met:
            continue
        met[start] = lowest[start] = len(met)
        open_[start] = None
        stack = [(start, _inner(start, groups, hosts))]
        while stack:
            name, members = stack[-1]
            for member in members:
                if member not in met:
                    met[member] = lowest[member] = len(met)
                    open_[member] = None
                    stack.append((member, _inner(member, groups, hosts)))
                    break
                if member in open_:
                    lowest[name] = min(lowest[name], met[member])
            else:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    lowest[above] = min(lowest[above], lowest[name])
                if lowest[name] == met[name]:
                    knot: list[str] = []
                    while not knot or knot[-1] != name:
                        knot.append(open_.popitem()[0])
                    yield knot


def _shortest_cycle(start: str, groups: Mapping[str, Sequence[str]], inside: Collection[str]) -> tuple[str, ...]:
    """Return the groups of a shortest way from a group of a knot to itself."""
    before: dict[str, str] = {}
    layer = [start]
    while start not in before:
        following = []
        for name in layer:
            for member in groups[name]:
                if member in inside and member not in before:
                    before[member] = name
                    following.append(member)
        layer = following
    cycle = [before[start]]
    while cycle[-1] != start:
        cycle.append(before[cycle[-1]])
    return tuple(reversed(cycle))
