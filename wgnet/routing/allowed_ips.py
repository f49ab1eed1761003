"""AllowedIPs: which prefixes a host sends to, and takes from, each of its peers.

AllowedIPs is the routing key on sending and the access list on receiving, so it follows the paths both ways. Input:
topology, links, paths. Output: prefixes by peer, disjoint in the sense of the kernel: none stands at two peers of one
host. No manager, no I/O.
"""

from __future__ import annotations

from wgnet.model.topology import Host, Rule, Topology
from wgnet.record import record
from wgnet.routing.links import Links, bits, find_links, same_site
from wgnet.routing.paths import Paths, View
from wgnet.routing.prefixes import (
    DEFAULT_ROUTES,
    PrefixMap,
    contains,
    covered,
    host_prefix,
    sort_prefixes,
)
from wgnet.syntax.spec import Prefix

ANY: tuple[Prefix, ...] = (DEFAULT_ROUTES[4], DEFAULT_ROUTES[6])

_NO_PREFIXES: tuple[Prefix, ...] = ()


@record(kw_only=False, eq=False)
class Routing:
    """The mathematics of one network: its links and paths, and what hosts take from each other."""

    topology: Topology
    links: Links
    paths: Paths
    #: Each host's own addresses as prefixes, by rank.
    own: list[tuple[Prefix, ...]]
    #: The hosts that advertise subnets, as bits.
    advertisers: int
    _advertised: PrefixMap[Host]
    #: The hosts with an address of an IP version, as bits.
    having: dict[int, int]
    #: The hosts that advertise a subnet around one of the network's own, as bits.
    around: int

    @classmethod
    def of(cls, topology: Topology) -> Routing:
        """Derive the links and paths of a topology."""
        links = find_links(topology)
        own = [tuple(host_prefix(address) for address in host.addresses) for host in links.hosts]
        advertisers = 0
        around = 0
        advertised: PrefixMap[Host] = PrefixMap()
        for rank, host in enumerate(links.hosts):
            if host.advertise:
                advertisers |= 1 << rank
                for prefix in host.advertise:
                    advertised.add(prefix, host)
                    if any(contains(prefix, subnet) for subnet in topology.subnets):
                        around |= 1 << rank
        having = dict.fromkeys((4, 6), 0)
        for rank, host in enumerate(links.hosts):
            for version in host.versions:
                having[version] |= 1 << rank
        return cls(topology, links, Paths(topology, links), own, advertisers, advertised, having, around)

    def versions(self, host: Host) -> frozenset[int]:
        """Return the IP versions that a host takes prefixes of.

        Those of its addresses, advertised subnets and offered default routes; a relay takes all, since it carries what
        is not its own.
        """
        if host.forward:
            return frozenset((4, 6))
        return host.versions | host.offers | frozenset(prefix.version for prefix in host.advertise)

    def advertised_to(self, host: Host, advertiser: Host) -> tuple[Prefix, ...]:
        """Return what `host` takes of the subnets that `advertiser` advertises.

        Nothing of a host of its own site: it is there already. With `accept`, an advertised subnet inside an accepted
        one whole, and of a wider one the accepted part, from the host whose subnet is the longest around it.
        """
        if same_site(host, advertiser):
            return _NO_PREFIXES
        if host.accept is None:
            return advertiser.advertise
        taken = [prefix for prefix in advertiser.advertise if covered(prefix, host.accept)]
        for accepted in host.accept:
            longest = self._advertised.find(accepted)
            if longest is not None and longest[1] is advertiser and longest[0] != accepted:
                taken.append(accepted)
        return tuple(taken)

    def whole_relay(self, view: View) -> int | None:
        """Return the relay that gets the network's subnets whole on the host, or None.

        That is where the host reaches every other, and all that are no peers of it through one relay. A host that has
        no more than peers, one of them a relay, is treated as if more stood behind it, so that the next spoke changes
        nothing on it; unless the relay isolates it, or it is a relay itself with other peers.

        A packet to an address of the subnets that nobody has may not come back by it, to go to and fro for ever. So of
        two relays only the later one gets them; and no host does to which the relay sends such packets: one that
        advertises a subnet around them, or has a peer that does, or is the relay's exit node.
        """
        rank, relays = view.rank, self.links.relays
        if view.reached | 1 << rank != self.paths.everyone:
            return None
        through = [relay for relay, behind in view.behind.items() if behind]
        if not through and (rank >= relays or view.direct.bit_count() == 1):
            through = list(bits(view.direct & ((1 << relays) - 1)))
        if len(through) != 1 or (rank < through[0]) or self.paths.isolated_at(through[0], rank):
            return None
        relay = through[0]
        if self.around & (view.direct & ~(1 << relay) | 1 << rank):
            return None
        if self.links.hosts[relay].exit_node == self.links.hosts[rank].name:
            return None
        return relay

    def allowed_ips(self, host: Host, view: View, peer: int, rule: Rule, whole: int | None) -> tuple[Prefix, ...]:
        """Return the AllowedIPs of the peer with rank `peer` on `host`, sorted.

        `whole` is what `whole_relay` returned. Beside the addresses and advertised subnets of every host behind the
        peer it holds the default routes of an exit node.
        """
        if rule.any_allowed:
            return ANY
        other = self.links.hosts[peer]
        versions = self.versions(host)
        behind = view.behind.get(peer, 0)
        members = behind | 1 << peer
        prefixes: list[Prefix] = []
        if whole == peer:
            prefixes.extend(self.topology.subnets)
        else:
            for rank in bits(members):
                prefixes.extend(self.own[rank])
        for rank in bits(members & self.advertisers):
            prefixes.extend(self.advertised_to(host, self.links.hosts[rank]))
        if host.exit_node == other.name:
            prefixes.extend(DEFAULT_ROUTES[version] for version in other.offers)
        return sort_prefixes(prefix for prefix in prefixes if prefix.version in versions)

    def table(self, host: Host) -> dict[int, tuple[Prefix, ...]]:
        """Return the AllowedIPs of every peer of an enabled host, by the peer's rank."""
        view = self.paths.view(host)
        whole = self.whole_relay(view)
        return {
            peer: self.allowed_ips(host, view, peer, rule, whole) for peer, rule in self.links.rules[view.rank].items()
        }

    def isolation(self, host: Host, view: View) -> dict[Prefix, int]:
        """Return whose spokes an isolating hub keeps apart: for each prefix of its peers the isolating rules, as bits.

        Empty where the host is no isolating hub. A packet is refused where the longest prefixes around source and
        destination have a rule in common.
        """
        rules = [rule for rule in self.topology.rules if rule.isolate and host in rule.hubs]
        spokes = [self.paths.mask(rule.spokes) & view.direct for rule in rules]
        owners: dict[Prefix, int] = {}
        for peer in bits(view.direct) if any(spokes) else ():
            mask = sum(1 << number for number, members in enumerate(spokes) if members >> peer & 1)
            rule = self.links.rules[view.rank][peer]
            owners.update(dict.fromkeys(self.allowed_ips(host, view, peer, rule, None), mask))
        return owners

    def nearby(self, host: Host) -> tuple[Prefix, ...]:
        """Return the subnets that a host reaches without the tunnel: what it advertises, and others of its site."""
        hosts = self.links.hosts if host.site is not None else (host,)
        return tuple(prefix for one in hosts if one is host or same_site(one, host) for prefix in one.advertise)
