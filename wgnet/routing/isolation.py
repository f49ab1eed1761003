"""Isolation: how ip rules tell packets from spoke to spoke from all others.

An isolating hub refuses a packet if the longest prefixes around its source and its destination belong to spokes of one
isolating rule. ip rules know no longest prefix, they have an order; here it becomes one. Pure functions, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wgnet.record import record
from wgnet.routing.prefixes import collapse, contains, sort_key
from wgnet.syntax.spec import Prefix


@record()
class Refusal:
    """An ip rule for packets from the interface: refuse, or let through. A smaller `order` comes first.

    `source` None is any. Rules of one order never both match a packet.
    """

    order: int
    refuses: bool
    source: Prefix | None
    destination: Prefix


def order_refusals(owners: Mapping[Prefix, int], nearby: Iterable[Prefix]) -> list[Refusal]:
    """Return the rules of an isolating hub.

    `owners` gives for every prefix of the hub's peers the isolating rules whose spoke the peer is, as bits; `nearby`
    are the subnets that the hub reaches without the tunnel. Where no prefix lies inside another this is what one would
    write: what comes from elsewhere to the spokes passes, then everything to the spokes is refused.
    """
    targets = _layers({**dict.fromkeys(nearby, 0), **owners}, 0)
    sources = {
        mask: _layers({prefix: int(bool(owner & mask)) for prefix, owner in owners.items()}, 1)
        for mask in sorted({mask for _, mask, _ in targets if mask})
    }
    depth = max((layer for layer, _, _ in targets), default=0)
    width = max((layer + 1 for found in sources.values() for layer, _, _ in found), default=1)
    rules: list[Refusal] = []
    for layer, mask, destinations in targets:
        first = (depth - layer) * (width + 1)
        if mask:
            for inner, refuses, prefixes in sources[mask]:
                rules += [
                    _refusal(first + width - 1 - inner, refuses, source, destination)
                    for source in prefixes
                    for destination in destinations
                    if source.version == destination.version
                ]
        rules += [_refusal(first + width, mask, None, destination) for destination in destinations]
    rules.sort(key=lambda rule: rule.order)
    return rules


def _layers(kinds: Mapping[Prefix, int], outside: int) -> list[tuple[int, int, tuple[Prefix, ...]]]:
    """Return the prefixes that decide a kind: (how many others they lie inside of, kind, prefixes), joined to fewest.

    A prefix of the kind of what it lies in decides nothing; `outside` is the kind of what lies in none.
    """
    found: dict[tuple[int, int], list[Prefix]] = {}
    stack: list[tuple[Prefix, int]] = []
    for prefix in sorted(kinds, key=sort_key):
        while stack and not contains(stack[-1][0], prefix):
            stack.pop()
        kind = kinds[prefix]
        if kind != (stack[-1][1] if stack else outside):
            found.setdefault((len(stack), kind), []).append(prefix)
            stack.append((prefix, kind))
    return [(layer, kind, collapse(prefixes)) for (layer, kind), prefixes in sorted(found.items())]


def _refusal(order: int, refuses: int, source: Prefix | None, destination: Prefix) -> Refusal:
    return Refusal(order=order, refuses=bool(refuses), source=source, destination=destination)
