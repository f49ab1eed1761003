"""Stage four: topology and routing -> the plan of a host.

Everything that a topology's author did not write is decided here: peers, routes, policy rules, keepalive, DNS. Peers
that look alike from many hosts are made once. No manager, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from wgnet.model.topology import (
    DEFAULT_KEEPALIVE,
    DEFAULT_MARK,
    TABLE_MAIN,
    TABLE_OFF,
    Host,
    Rule,
    RuleKind,
    Topology,
)
from wgnet.plan.types import (
    Action,
    AddressPlan,
    DnsPlan,
    HostPlan,
    InterfacePlan,
    PeerPlan,
    PolicyRulePlan,
    RoutePlan,
)
from wgnet.record import field, record
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.isolation import order_refusals
from wgnet.routing.links import bits, endpoint_towards
from wgnet.routing.prefixes import covered, sort_key, sort_prefixes
from wgnet.syntax.spec import Manager, Prefix

# Just before the kernel's rule for the table main (32766), as wg-quick's rules come to lie; the bypass before them,
# isolation before all, since no other rule may let through what it refuses.
PRIORITY_LAST = 32765
PRIORITY_OWN_PACKETS = 32700
PRIORITY_ISOLATION = 32600


@record(frozen=False, kw_only=False, eq=False)
class _Row:
    """The peers as hosts of one kind see them, by rank, where nothing is special about the pair; None: not made yet.

    `uncovered` has, for each set of prefixes that a host's own addresses may cover, what AllowedIPs goes beyond it, by
    the peer's rank: the routes that are needed, few as a rule, without a look at every peer.
    """

    peers: list[PeerPlan | None]
    uncovered: dict[tuple[Prefix, ...], dict[int, tuple[Prefix, ...]]] = field(default_factory=dict)

    def put(self, rank: int, peer: PeerPlan) -> None:
        """Add a peer."""
        self.peers[rank] = peer
        for own, beyond in self.uncovered.items():
            prefixes = _beyond(peer, own)
            if prefixes:
                beyond[rank] = prefixes

    def beyond(self, own: tuple[Prefix, ...]) -> dict[int, tuple[Prefix, ...]]:
        """Return what goes beyond a host's own prefixes, by rank, of the peers that were made so far."""
        known = self.uncovered.get(own)
        if known is None:
            known = self.uncovered[own] = {}
            for rank, peer in enumerate(self.peers):
                if peer is not None and (prefixes := _beyond(peer, own)):
                    known[rank] = prefixes
        return known


def _beyond(peer: PeerPlan, own: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    """Return the AllowedIPs of a peer that a host's own address prefixes do not cover, and so need a route."""
    if not peer.route_allowed_ips:
        return ()
    return tuple(prefix for prefix in peer.allowed_ips if not covered(prefix, own))


@record(frozen=False, kw_only=False, eq=False)
class Planner:
    """Derives the plans of the hosts of one network, and keeps what many of them share."""

    routing: Routing
    _rows: dict[tuple[object, ...], _Row] = field(default_factory=dict)
    _indexes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._indexes = [host.index for host in self.routing.links.hosts]

    def plan_interface(self, host: Host, rivals: Sequence[Host] = ()) -> InterfacePlan:
        """Derive the interface of an enabled host.

        `rivals` are the same host's appearances in other networks that need policy routing too, itself included, in
        the order of precedence.
        """
        routing = self.routing
        rank = routing.links.rank[host.name]
        # An address prefix of full length covers no peer.
        own = tuple(address.network for address in host.addresses if address.network.prefixlen < address.max_prefixlen)
        peers, beyond = self._peers(host, rank, own)
        default_versions = self._default_versions(host)
        uses_mark = bool(default_versions) and host.table != TABLE_OFF
        mark = host.firewall_mark or (DEFAULT_MARK if uses_mark else 0)
        rules = self._isolation_rules(host)
        if uses_mark:
            rules += _exit_rules(host, mark, default_versions, rivals)
        return InterfacePlan(
            network=routing.topology.name,
            host=host,
            interface=host.interface,
            manager=host.manager,
            manager_version=host.manager_version,
            private_key=host.private_key,
            listen_port=host.listen_port,
            mtu=host.mtu,
            firewall_mark=mark,
            table=host.table,
            metric=host.metric,
            addresses=tuple(
                AddressPlan(address=address, prefix_route=host.table == TABLE_MAIN) for address in host.addresses
            ),
            peers=peers,
            secured_peers=self._secured(rank, peers),
            routes=_routes(host, own, beyond, mark),
            rules=tuple(rules),
            default_versions=default_versions,
            bypass=tuple(p for p in host.bypass if p.version in default_versions),
            dns=plan_dns(routing.topology, host, bool(default_versions)),
            forwarding=self._forwarding(host, rank),
            source_valid_mark=uses_mark and 4 in default_versions,
            restore_mark=default_versions if uses_mark else frozenset(),
            masquerade=frozenset(routing.versions(host)) & _network_versions(routing.topology)
            if host.masquerade
            else frozenset(),
            autoconnect=host.autoconnect,
        )

    # --- peers -------------------------------------------------------------------------------------------------------

    def _peers(self, host: Host, rank: int, own: tuple[Prefix, ...]) -> tuple[tuple[PeerPlan, ...], set[Prefix]]:
        """Return the peers in the order of the file, and the AllowedIPs that need routes.

        Most peers look the same from most hosts (a full mesh has n² of them). So there is a row of peers for each kind
        of host, and only what is special about a pair is made for it: a preshared key, a link rule, hosts behind.
        """
        routing = self.routing
        rules = routing.links.rules[rank]
        view = routing.paths.view(host)
        whole = routing.whole_relay(view)
        row = self._row(host)
        special = {peer for peer in view.behind if peer in rules}
        special.update(peer for peer in (whole, routing.links.rank.get(host.exit_node or "")) if peer in rules)
        if any(not _is_shared(rule) for rule in set(rules.values())):
            special.update(peer for peer, rule in rules.items() if not _is_shared(rule))

        def make(peer: int) -> PeerPlan:
            rule = rules[peer]
            allowed_ips = routing.allowed_ips(host, view, peer, rule, whole)
            return self._peer(host, routing.links.hosts[peer], rule, allowed_ips)

        ranks = sorted(rules, key=self._indexes.__getitem__)
        shared = row.peers
        plans = [shared[peer] for peer in ranks]
        if None in plans:
            for peer, plan in zip(ranks, plans, strict=True):
                if plan is None and peer not in special:
                    row.put(peer, make(peer))
            plans = [shared[peer] for peer in ranks]
        beyond = row.beyond(own)
        wanted = {prefix for peer in beyond.keys() & rules.keys() if peer not in special for prefix in beyond[peer]}
        if special:
            own_plans = {peer: make(peer) for peer in special}
            plans = [own_plans.get(peer) or shared[peer] for peer in ranks]
            wanted.update(prefix for plan in own_plans.values() for prefix in _beyond(plan, own))
        return tuple(plans), wanted  # type: ignore[arg-type]

    def _secured(self, rank: int, peers: tuple[PeerPlan, ...]) -> tuple[PeerPlan, ...]:
        """Return the peers whose link has a preshared key, without a look at each where no rule gives one."""
        if not any(rule.preshared_key for rule in set(self.routing.links.rules[rank].values())):
            return ()
        return tuple(peer for peer in peers if peer.preshared_key is not None)

    def _row(self, host: Host) -> _Row:
        """Return the row of the hosts that see their peers as this one does."""
        kind = (
            host.manager is Manager.WG_QUICK,
            host.site,
            bool(host.endpoint),
            bool(host.site_endpoint),
            host.keepalive,
            host.accept,
            self.routing.versions(host),
        )
        row = self._rows.get(kind)
        if row is None:
            row = self._rows[kind] = _Row([None] * len(self._indexes))
        return row

    def _peer(self, host: Host, peer: Host, rule: Rule, allowed_ips: tuple[Prefix, ...]) -> PeerPlan:
        endpoints = endpoint_towards(peer, host, rule)
        if rule.keepalive is not None:
            keepalive = rule.keepalive
        elif host.keepalive is not None:
            keepalive = host.keepalive
        elif host.manager is Manager.WG_QUICK or not endpoints or endpoint_towards(host, peer, rule):
            keepalive = 0
        else:
            keepalive = DEFAULT_KEEPALIVE
        return PeerPlan(
            name=peer.name,
            public_key=peer.public_key or "",
            next_public_key=peer.next_public_key,
            endpoints=endpoints,
            allowed_ips=allowed_ips,
            persistent_keepalive=keepalive,
            preshared_key="derived" if rule.preshared_key is True else rule.preshared_key or None,
            route_allowed_ips=not rule.any_allowed,
        )

    # --- routes and rules --------------------------------------------------------------------------------------------

    def _default_versions(self, host: Host) -> frozenset[int]:
        if host.exit_node is None:
            return frozenset()
        node = self.routing.topology.by_name[host.exit_node]
        return node.offers & self.routing.versions(host)

    def _isolation_rules(self, host: Host) -> list[PolicyRulePlan]:
        """Return the rules by which an isolating hub refuses packets from spoke to spoke, and lets others through."""
        routing = self.routing
        if not host.forward:
            return []
        owners = routing.isolation(host, routing.paths.view(host))
        if not owners:
            return []
        table = TABLE_MAIN if host.table == TABLE_OFF else host.table
        refusals = order_refusals(owners, routing.nearby(host))
        # Prefixes that lie inside each other many times need many priorities; none may come after another rule's.
        first = min(PRIORITY_ISOLATION, PRIORITY_OWN_PACKETS - 1 - max((rule.order for rule in refusals), default=0))
        return [
            PolicyRulePlan(
                version=rule.destination.version,
                priority=first + rule.order,
                action=Action.PROHIBIT if rule.refuses else Action.LOOKUP,
                table=None if rule.refuses else table,
                source=rule.source,
                destination=rule.destination,
                incoming_interface=host.interface,
            )
            for rule in refusals
        ]

    def _forwarding(self, host: Host, rank: int) -> frozenset[int]:
        """Return the IP versions that the kernel must forward: between peers, and between tunnel and what is behind."""
        routing = self.routing
        versions: set[int] = set()
        if host.forward and len(routing.links.rules[rank]) > 1:
            versions |= _network_versions(routing.topology)
            versions |= {
                p.version
                for peer in bits(routing.links.masks[rank] & routing.advertisers)
                for p in routing.links.hosts[peer].advertise
            }
        versions |= {prefix.version for prefix in host.advertise} | host.offers
        if host.masquerade:
            versions |= routing.versions(host) & _network_versions(routing.topology)
        return frozenset(versions)


def _is_shared(rule: Rule) -> bool:
    """Whether a rule says nothing by which its links would differ from others."""
    return rule.kind is not RuleKind.LINK and not rule.preshared_key and rule.keepalive is None


def _routes(host: Host, own: tuple[Prefix, ...], beyond: set[Prefix], mark: int) -> tuple[RoutePlan, ...]:
    """Return a route for each prefix of AllowedIPs that is `beyond` what the host's own addresses cover.

    With a table of its own the network's own prefix goes there too. A default route goes to the table of the mark.
    """
    if host.table == TABLE_OFF:
        return ()
    defaults = {prefix for prefix in beyond if not prefix.prefixlen}
    others = beyond - defaults
    if host.table != TABLE_MAIN:
        others.update(own)
    return tuple(
        RoutePlan(destination=prefix, table=table, metric=host.metric)
        for prefixes, table in ((others, host.table), (defaults, mark))
        for prefix in sorted(prefixes, key=sort_key)
    )


def _network_versions(topology: Topology) -> frozenset[int]:
    return frozenset(subnet.version for subnet in topology.subnets)


def _exit_rules(host: Host, mark: int, versions: frozenset[int], rivals: Sequence[Host]) -> list[PolicyRulePlan]:
    """Return wg-quick's two rules for each IP version, the bypass before them.

    First the table main without its default routes (the local networks stay outside), then everything that is not the
    tunnel's own into the tunnel's table. Where several networks of the host do so, each has rules of its own, and the
    packets of every tunnel are looked up in main before any of them.
    """
    place = rivals.index(host) if host in rivals else 0
    last = PRIORITY_LAST - 3 * (len(rivals) - 1 - place if rivals else 0)
    rules: list[PolicyRulePlan] = []
    for version in sorted(versions):
        if len(rivals) > 1:
            rules.append(
                PolicyRulePlan(version=version, priority=PRIORITY_OWN_PACKETS, table=TABLE_MAIN, firewall_mark=mark)
            )
        rules += [
            PolicyRulePlan(version=version, priority=last - 2, table=TABLE_MAIN, destination=prefix)
            for prefix in sort_prefixes(host.bypass)
            if prefix.version == version
        ]
        rules.append(PolicyRulePlan(version=version, priority=last - 1, table=TABLE_MAIN, suppress_prefix_length=0))
        rules.append(PolicyRulePlan(version=version, priority=last, table=mark, firewall_mark=mark, invert=True))
    return rules


def plan_dns(topology: Topology, host: Host, everything: bool) -> DnsPlan | None:
    """Derive a host's DNS: all queries with an exit node, else those for the search domains alone.

    Without search domains the servers answer for the reverse names of the subnets. The owner of a server's address
    gets none.
    """
    dns = host.dns
    if dns is None or not dns.servers:
        return None
    own = {address.ip for address in host.addresses}
    if any(server in own for server in dns.servers):
        return None
    everything = everything or "~." in dns.search
    search = tuple(domain for domain in dns.search if domain != "~.")
    reverse: tuple[str, ...] = ()
    if not search and not everything:
        reverse = tuple(dict.fromkeys(zone for subnet in topology.subnets for zone in reverse_zones(subnet)))
    return DnsPlan(servers=dns.servers, search=search, reverse=reverse, everything=everything)


def reverse_zones(subnet: Prefix) -> list[str]:
    """Return the zones of in-addr.arpa or ip6.arpa that hold the reverse names of a subnet.

    A zone is cut at whole labels (8 bits, or 4): a prefix between two needs several zones, one longer than the longest
    IPv4 zone (/24) gets that.
    """
    step = 8 if subnet.version == 4 else 4
    longest = 24 if subnet.version == 4 else 124
    length = min(-(-subnet.prefixlen // step) * step, longest)
    base = subnet.supernet(new_prefix=length) if length < subnet.prefixlen else subnet
    zones = []
    for part in base.subnets(new_prefix=length):
        labels = part.network_address.reverse_pointer.split(".")
        zones.append(".".join(labels[(part.max_prefixlen - length) // step :]))
    return zones


@record(frozen=False, kw_only=False, eq=False)
class Fleet:
    """Several networks over one set of hosts: what `wgnet` was given files of."""

    routings: tuple[Routing, ...]
    _planners: list[Planner] = field(init=False)

    def __post_init__(self) -> None:
        self._planners = [Planner(routing) for routing in self.routings]

    def host_names(self, *, external: bool = False) -> list[str]:
        """Return the names of all hosts that files are made for, in the order of the files; external ones if asked."""
        names: dict[str, None] = {}
        for routing in self.routings:
            for host in routing.topology.hosts:
                if not host.disabled and (external or host.manager is not Manager.EXTERNAL):
                    names[host.name] = None
        return list(names)

    def appearances(self, name: str, *, external: bool = False) -> list[tuple[Planner, Host]]:
        """Return the networks that the host has an interface in, with its entry in each."""
        found = []
        for planner in self._planners:
            host = planner.routing.topology.by_name.get(name)
            if host is None or host.disabled:
                continue
            if external or host.manager is not Manager.EXTERNAL:
                found.append((planner, host))
        return found

    def plan_host(self, name: str, *, external: bool = False) -> HostPlan:
        """Derive the plan of one host over all networks; one that is in none has no interface."""
        appearances = self.appearances(name, external=external)
        rivals = rank_rivals([host for _, host in appearances])
        return HostPlan(
            name=name,
            interfaces=tuple(planner.plan_interface(host, rivals) for planner, host in appearances),
        )


def rank_rivals(hosts: Sequence[Host]) -> list[Host]:
    """Order the networks of one host that need policy routing, the one that comes first wins the packet first.

    A smaller metric is preferred, as with routes; then the interface's name decides.
    """
    rivals = [host for host in hosts if host.exit_node is not None and host.table != TABLE_OFF]
    return sorted(rivals, key=lambda host: (host.metric, host.interface))
