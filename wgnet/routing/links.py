"""Links: which pairs of hosts are peers, and the rule that governs each.

Input: a topology. Output: `Links`, in which a host is its *rank*: relays come first, in the order in which ties are
broken, so that sets of hosts are integers with few bits in a network of many leaves. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wgnet.model.topology import Host, Rule, RuleKind, Topology
from wgnet.record import record
from wgnet.syntax.spec import Endpoint, Manager

#: The most links of one network: a full mesh of 2,048 hosts. More is a slip of the pen, and would not fit in memory.
MAX_LINKS = 2048 * 2047 // 2


@record(kw_only=False, eq=False)
class Links:
    """The links of a network.

    `hosts` are the enabled hosts by rank; `relays` says how many of them, from the front, may relay. `rules[a]` maps
    the rank of each neighbour of `a` to the rule of the link; `masks[a]` is the same set as an integer of bits.
    `silent` are the pairs of a hub or link rule that cannot start a handshake, and so are no links.
    """

    hosts: tuple[Host, ...]
    rank: dict[str, int]
    relays: int
    rules: list[dict[int, Rule]]
    masks: list[int]
    silent: list[tuple[int, int, Rule]]

    def rule(self, one: Host, two: Host) -> Rule | None:
        """Return the rule of the link between two hosts, or None when they are no peers."""
        if one.disabled or two.disabled:
            return None
        return self.rules[self.rank[one.name]].get(self.rank[two.name])


def same_site(one: Host, two: Host) -> bool:
    """Whether two hosts stand in one local network."""
    return one.site is not None and one.site == two.site


def endpoint_towards(host: Host, peer: Host, rule: Rule) -> tuple[Endpoint, ...]:
    """Return where `peer` reaches `host` over the link of `rule`, the one to render first; empty if it cannot."""
    given = rule.endpoint.get(host.name)
    if given:
        return given
    if host.site_endpoint and same_site(host, peer):
        return host.site_endpoint
    return host.endpoint


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set, from the lowest."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def count_pairs(topology: Topology) -> int:
    """Return how many pairs the rules name at the most, without making any."""
    pairs = 0
    for rule in topology.rules:
        if rule.kind is RuleKind.MESH:
            pairs += len(rule.members) * (len(rule.members) - 1) // 2
        elif rule.kind is RuleKind.HUB:
            pairs += len(rule.hubs) * (len(rule.spokes) + len(rule.hubs))
        else:
            pairs += 1
    return pairs


def find_links(topology: Topology) -> Links:
    """Return the links that the rules give; a pair that several name follows link before hub before mesh.

    Among rules of one kind the earlier counts. A mesh leaves out pairs of which neither side has an endpoint; hub and
    link rules report them as `silent`. Two external hosts are linked by an explicit link rule alone.
    """
    enabled = [host for host in topology.hosts if not host.disabled]
    relays = _order_relays(topology, enabled)
    relay_names = {host.name for host in relays}
    hosts = (*relays, *(host for host in enabled if host.name not in relay_names))
    rank = {host.name: number for number, host in enumerate(hosts)}
    links = Links(hosts, rank, len(relays), [{} for _ in hosts], [0] * len(hosts), [])
    # The strongest comes last and overwrites; among equals the earlier is stronger.
    for kind in RuleKind:
        for rule in reversed([rule for rule in topology.rules if rule.kind is kind]):
            if kind is RuleKind.MESH:
                _add_mesh(links, rule)
            else:
                _add_pairs(links, rule)
    return links


def _order_relays(topology: Topology, enabled: list[Host]) -> list[Host]:
    """Order the hosts that relay: hubs as `peering` names them, then the others by name."""
    hubs = dict.fromkeys(host for rule in topology.rules for host in rule.hubs if host.forward)
    others = sorted((host for host in enabled if host.forward and host not in hubs), key=lambda host: host.name)
    return [*hubs, *others]


def _add_mesh(links: Links, rule: Rule) -> None:
    """Link every pair of the rule's members that can shake hands. Whole rows at a time: a mesh has n² / 2 pairs."""
    members = [links.rank[host.name] for host in rule.members]
    dialable = [rank for rank in members if links.hosts[rank].endpoint]
    everyone, reached = dict.fromkeys(members, rule), dict.fromkeys(dialable, rule)
    everyone_mask, reached_mask = _mask(members), _mask(dialable)
    external = [rank for rank in members if links.hosts[rank].manager is Manager.EXTERNAL]
    external_mask = _mask(external)
    for rank in members:
        host = links.hosts[rank]
        row = links.rules[rank]
        if host.endpoint:
            new, mask = everyone, everyone_mask
        else:
            new, mask = reached, reached_mask
        if host.manager is Manager.EXTERNAL:
            row.update((other, rule) for other in new if not external_mask >> other & 1)
            mask &= ~external_mask
        else:
            kept = row.get(rank)
            row.update(new)
            if kept is None:
                row.pop(rank, None)
        links.masks[rank] |= mask & ~(1 << rank)
    _add_site_pairs(links, rule, members)


def _add_site_pairs(links: Links, rule: Rule, members: list[int]) -> None:
    """Link the hosts without public endpoint that reach each other inside their site."""
    sites: dict[str, list[int]] = {}
    for rank in members:
        host = links.hosts[rank]
        if host.site is not None and not host.endpoint:
            sites.setdefault(host.site, []).append(rank)
    for ranks in sites.values():
        open_ = [rank for rank in ranks if links.hosts[rank].site_endpoint]
        for one in open_:
            for two in ranks:
                if one != two and not _both_external(links, one, two):
                    _connect(links, one, two, rule)


def _add_pairs(links: Links, rule: Rule) -> None:
    for one, two in _pairs(links, rule):
        if rule.kind is not RuleKind.LINK and _both_external(links, one, two):
            continue
        first, second = links.hosts[one], links.hosts[two]
        if endpoint_towards(first, second, rule) or endpoint_towards(second, first, rule):
            _connect(links, one, two, rule)
        else:
            links.silent.append((one, two, rule))


def _pairs(links: Links, rule: Rule) -> Iterable[tuple[int, int]]:
    rank = links.rank
    if rule.kind is RuleKind.LINK:
        yield rank[rule.members[0].name], rank[rule.members[1].name]
        return
    hubs = [rank[host.name] for host in rule.hubs]
    for number, hub in enumerate(hubs):
        for other in hubs[number + 1 :]:
            yield hub, other
        for spoke in rule.spokes:
            yield hub, rank[spoke.name]


def _connect(links: Links, one: int, two: int, rule: Rule) -> None:
    links.rules[one][two] = rule
    links.rules[two][one] = rule
    links.masks[one] |= 1 << two
    links.masks[two] |= 1 << one


def _both_external(links: Links, one: int, two: int) -> bool:
    hosts = links.hosts
    return hosts[one].manager is Manager.EXTERNAL and hosts[two].manager is Manager.EXTERNAL


def _mask(ranks: Iterable[int]) -> int:
    mask = 0
    for rank in ranks:
        mask |= 1 << rank
    return mask
