"""Checks of who peers with whom: handshakes, exit nodes, endpoints that would loop, reach. One pure function a rule.

Input: the routing of a network. Output: diagnostics alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.span import Span
from wgnet.diagnostics.words import quote_names
from wgnet.model.topology import TABLE_MAIN, Host, Rule, RuleKind, Topology
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.links import MAX_LINKS, bits, count_pairs, same_site
from wgnet.routing.prefixes import DEFAULT_ROUTES, PrefixMap
from wgnet.syntax.spec import Address, Endpoint, Manager, Prefix


def _names(hosts: Iterable[Host]) -> str:
    return quote_names(host.name for host in hosts)


def check_size(topology: Topology, diagnostics: Diagnostics) -> bool:
    """Return whether the rules name no more pairs than there can be links; report it otherwise."""
    pairs = count_pairs(topology)
    if pairs <= MAX_LINKS:
        return True
    largest = max(topology.rules, key=lambda rule: len(rule.members) + len(rule.hubs) * len(rule.spokes))
    diagnostics.report(
        codes.TOO_MANY_LINKS,
        f"the rules make {pairs:,} links, expected at most {MAX_LINKS:,}",
        largest.place or topology.spec.node.span,
        help="use `peering: {hub: HOST}`, or several networks",
    )
    return False


def check_handshakes(routing: Routing, diagnostics: Diagnostics) -> None:
    """A pair of a hub or link rule has an endpoint on one side at least; a hub's pairs are told together."""
    silent: dict[tuple[int, Rule], list[Host]] = {}
    for one, two, rule in routing.links.silent:
        stronger = routing.links.rules[one].get(two)
        if stronger is not None and (stronger.kind > rule.kind or stronger.kind is not RuleKind.MESH):
            continue  # another rule of the same or a greater strength links the pair
        silent.setdefault((one, rule), []).append(routing.links.hosts[two])
    for (one, rule), others in silent.items():
        first, second = routing.links.hosts[one], others[0]
        place = rule.place
        which = (
            "neither has an endpoint" if len(others) == 1 else f"'{first.name}' has no endpoint, nor has any of them"
        )
        diagnostics.report(
            codes.NO_HANDSHAKE,
            f"'{first.name}' and {_names(others)} cannot start a handshake: {which}",
            Label(first.span, "no endpoint"),
            Label(second.span, "no endpoint"),
            *([Label(place, "the rule that links them")] if place is not None else []),
            help="give one of them an `endpoint`, or both a `site` and one a `site-endpoint`"
            if len(others) == 1
            else f"give '{first.name}' an `endpoint`",
        )


def check_isolation(topology: Topology, diagnostics: Diagnostics) -> None:
    """Warn of an isolating rule with a single spoke: it keeps spokes of one rule apart, and nothing else."""
    for rule in topology.rules:
        place = rule.key_place("isolate")
        if rule.isolate and len(rule.spokes) == 1 and place is not None:
            diagnostics.report(
                codes.ISOLATES_NOTHING,
                f"the rule keeps '{rule.spokes[0].name}' apart from nothing: it has no other spoke",
                place,
                help=(
                    "name those that it is to be kept apart from among the `spokes` of the same rule",
                    "give it a network of its own",
                ),
            )


def check_any_allowed(routing: Routing, diagnostics: Diagnostics) -> None:
    """A link with `allowed-ips: any` is the only link of both hosts: it takes every packet of the interface."""
    for rule in routing.topology.rules:
        if not rule.any_allowed:
            continue
        for host in rule.members:
            peers = (routing.links.hosts[peer] for peer in routing.links.rules[routing.links.rank[host.name]])
            other = next((peer for peer in peers if peer not in rule.members), None)
            if other is not None:
                diagnostics.report(
                    codes.ANY_NOT_ALONE,
                    f"'{host.name}' has other links ('{other.name}') beside one with 'allowed-ips: any'",
                    Label(rule.key_place("allowed-ips") or host.span),
                    Label(host.span),
                    help="put each such link into a topology file, and so an interface, of its own",
                )


def check_external_isolation(routing: Routing, diagnostics: Diagnostics) -> None:
    """Warn of an isolating hub that wgnet renders nothing for, where the spokes' AllowedIPs do not keep them apart.

    They let in all that comes from an exit node, or from inside an advertised subnet around the network's own.
    """
    for rule in routing.topology.rules:
        hubs = [hub for hub in rule.hubs if rule.isolate and hub.manager is Manager.EXTERNAL]
        for hub in hubs:
            wide = routing.around >> routing.links.rank[hub.name] & 1
            open_ = [spoke for spoke in rule.spokes if wide or (spoke.exit_node == hub.name and hub.offers)]
            if open_ and len(rule.spokes) > 1:
                diagnostics.report(
                    codes.MANAGER_CANNOT,
                    f"the external hub '{hub.name}' itself must keep its spokes apart: "
                    f"{quote_names(host.name for host in open_)} would take from it what comes from another",
                    Label(rule.key_place("isolate") or hub.span),
                    Label(hub.place("manager"), "wgnet writes nothing for it"),
                    help=f"see to it that '{hub.name}' refuses packets from spoke to spoke",
                    severity=Severity.WARNING,
                )


def check_exit_nodes(routing: Routing, diagnostics: Diagnostics) -> None:
    """An exit node is a direct peer and offers a default route; say what would not go through it."""
    topology = routing.topology
    for host in topology.hosts:
        if host.exit_node is None or host.disabled or host.is_bad("addresses"):
            continue
        node = topology.by_name.get(host.exit_node)
        if node is None:
            continue  # written, but could not be decoded
        if node.is_bad("advertise"):
            continue
        place = host.place("exit-node")
        rule = None if node is host else routing.links.rule(host, node)
        if rule is None:
            diagnostics.report(
                codes.EXIT_NODE_NOT_PEER,
                f"exit node '{node.name}' is no direct peer of '{host.name}'",
                Label(place),
                *([] if node is host else [Label(node.span, "disabled" if node.disabled else "")]),
                help="add a rule that links them: packets beyond the first hop are not encrypted for a far exit node",
            )
            continue
        if not node.offers:
            diagnostics.report(
                codes.EXIT_NODE_NO_DEFAULT,
                f"exit node '{node.name}' of '{host.name}' offers no default route",
                Label(place),
                Label(node.place("advertise")),
                help=f"set advertise: [0.0.0.0/0] or [\"::/0\"], or both, at '{node.name}'",
            )
            continue
        taken = node.offers & routing.versions(host)
        for version in (4, 6):
            if version not in taken and DEFAULT_ROUTES[version] not in host.bypass:
                why = (
                    f"'{node.name}' does not offer it"
                    if version not in node.offers
                    else f"'{host.name}' has no IPv{version} address"
                )
                diagnostics.report(
                    codes.EXIT_NODE_ONE_FAMILY,
                    f"IPv{version} of '{host.name}' leaves beside its exit node: {why}",
                    place,
                    help=f'if that is meant, say so: bypass: ["{DEFAULT_ROUTES[version]}"]',
                )
        if host.endpoint:
            diagnostics.report(
                codes.EXIT_NODE_PUBLIC_HOST,
                f"'{host.name}' has an endpoint and an exit node: replies to its public address enter the tunnel",
                Label(place),
                Label(host.place("endpoint"), "its public address"),
                help="route what answers at that address by policy rules of your own, or drop the exit node",
            )


def check_exit_node_rings(topology: Topology, diagnostics: Diagnostics) -> None:
    """No chain of exit nodes comes back to its beginning: a packet for the world would go round until it dies."""
    told: set[str] = set()
    for host in topology.hosts:
        chain: list[Host] = []
        current: Host | None = host
        while current is not None and current not in chain and current.name not in told:
            chain.append(current)
            current = None if current.exit_node is None or current.disabled else topology.by_name.get(current.exit_node)
        if current is None or current not in chain or len(ring := chain[chain.index(current) :]) < 2:
            continue
        told.update(one.name for one in ring)
        if not frozenset.intersection(*(one.offers for one in ring)):
            continue  # no IP version goes all the way round
        names = " -> ".join([one.name for one in (*ring, ring[0])])
        diagnostics.report(
            codes.EXIT_NODE_RING,
            f"these exit nodes send everything to each other: {names}",
            Label(ring[0].place("exit-node")),
            *(Label(one.place("exit-node")) for one in ring[1:]),
            help="remove `exit-node` at one of them, through which the others leave",
        )


def check_endpoint_loops(routing: Routing, diagnostics: Diagnostics) -> None:
    """No endpoint lies inside what the tunnel routes on a host that uses it: its packets would carry themselves.

    A default route does not count, the firewall mark keeps the tunnel's own packets out of it; nor does a site's own
    endpoint, nor a host whose routes are not in the table main.
    """
    topology = routing.topology
    routed: PrefixMap[Host | None] = PrefixMap([(subnet, None) for subnet in topology.subnets])
    for own in {address.network for host in routing.links.hosts for address in host.addresses}:
        routed.add(own, None)  # a host may give its address a shorter prefix than the subnet's
    for host in routing.links.hosts:
        for prefix in host.advertise:
            routed.add(prefix, host)
    for rank, peer in enumerate(routing.links.hosts):
        for number, endpoint in enumerate(peer.endpoint):
            if endpoint.address is not None and routed.find(endpoint.address) is not None:
                users = [
                    routing.links.hosts[user]
                    for user, rule in routing.links.rules[rank].items()
                    if not rule.endpoint.get(peer.name) and not _uses_site(peer, routing.links.hosts[user])
                ]
                _check_loop(routing, peer, endpoint, peer.place("endpoint", number), users, diagnostics)
    for rule in topology.rules:
        for name, endpoints in rule.endpoint.items():
            peer = topology.by_name[name]
            users = [host for host in rule.members if host is not peer]
            for number, endpoint in enumerate(endpoints):
                if endpoint.address is not None and routed.find(endpoint.address) is not None:
                    place = rule.endpoint_place(peer, number)
                    _check_loop(routing, peer, endpoint, place, users, diagnostics)


def _uses_site(peer: Host, user: Host) -> bool:
    return bool(peer.site_endpoint) and same_site(peer, user)


def _check_loop(
    routing: Routing, peer: Host, endpoint: Endpoint, place: Span, users: list[Host], diagnostics: Diagnostics
) -> None:
    address = endpoint.address
    assert address is not None
    for user in users:
        if user.manager is Manager.EXTERNAL or user.table != TABLE_MAIN:
            continue
        prefix = routed_on(routing, user, address)
        if prefix is None:
            continue
        topology = routing.topology
        advertiser = next((host for host in routing.links.hosts if prefix in host.advertise), None)
        if advertiser is not None:
            label = Label(advertiser.advertise_place(prefix), f"because {advertiser.name} advertises this")
        else:
            label = Label(topology.network_place("subnets"), "because the network routes this")
            prefix = next((subnet for subnet in topology.subnets if address in subnet), prefix)
        diagnostics.report(
            codes.ENDPOINT_LOOP,
            f"endpoint of '{peer.name}' lies inside what the tunnel routes",
            Label(place, "packets to this address would enter the tunnel they carry"),
            label,
            help=f"use an address outside {prefix}, or set `site-endpoint`",
        )
        return


def routed_on(routing: Routing, user: Host, address: Address) -> Prefix | None:
    """Return the prefix by which `user` would send packets to `address` into the tunnel, or None."""
    best: Prefix | None = None
    tables: list[tuple[Prefix, ...]] = [tuple(interface.network for interface in user.addresses)]
    for peer, prefixes in routing.table(user).items():
        if not routing.links.rules[routing.links.rank[user.name]][peer].any_allowed:
            tables.append(prefixes)
    for prefixes in tables:
        for prefix in prefixes:
            if (
                prefix.prefixlen
                and prefix.version == address.version
                and address in prefix
                and (best is None or prefix.prefixlen > best.prefixlen)
            ):
                best = prefix
    return best


def check_reach(routing: Routing, diagnostics: Diagnostics) -> None:
    """Warn of hosts that have no path to each other, once for each set of hosts that are cut off alike.

    A pair that isolation keeps apart is meant to be apart.
    """
    paths, links = routing.paths, routing.links
    lonely = _check_lonely(routing, diagnostics)
    cut_off: dict[int, int] = {}
    for rank, host in enumerate(links.hosts):
        if lonely >> rank & 1:
            continue
        view = paths.view(host)
        missing = paths.everyone & ~view.reached & ~view.blocked & ~(1 << rank)
        missing &= ~_without_common_version(routing, host) & ~lonely
        if missing:
            cut_off[missing | 1 << rank] = cut_off.get(missing | 1 << rank, 0) | 1 << rank
    told = 0
    for group, members in cut_off.items():
        if group & ~told == 0 and members & told == members:
            continue
        told |= members
        hosts, others = paths.hosts(members), paths.hosts(group & ~members)
        if others and all(told >> links.rank[host.name] & 1 for host in others):
            continue  # told from the other side
        first = hosts[0]
        who = _names([*hosts, *others]) if not others else f"{_names(hosts)} and {_names(others)}"
        second = (others or hosts[1:] or hosts)[0]
        diagnostics.report(
            codes.UNREACHABLE_PAIR,
            f"{who} cannot reach each other",
            Label(first.span),
            *([Label(second.span)] if second is not first else []),
            help=_reach_help(routing, first, second),
        )


def _check_lonely(routing: Routing, diagnostics: Diagnostics) -> int:
    """Warn of each host that has no peer at all, and return them as bits: nothing else need be said of them."""
    links, topology = routing.links, routing.topology
    if len(links.hosts) < 2:
        return 0
    named = {host for rule in topology.rules for host in (*rule.members, *rule.hubs, *rule.spokes)}
    lonely = 0
    for rank, host in enumerate(links.hosts):
        if links.masks[rank]:
            continue
        lonely |= 1 << rank
        rules = topology.spec.nodes.get("peering")
        if host in named:
            diagnostics.report(
                codes.UNREACHABLE_PAIR,
                f"'{host.name}' has no peer: neither it nor a host that a rule links it with has an endpoint",
                host.span,
                help="give it an `endpoint`, or link it with a host that has one",
            )
        else:
            diagnostics.report(
                codes.UNREACHABLE_PAIR,
                f"'{host.name}' has no peer: no rule of 'peering' names it",
                Label(host.span),
                *([] if rules is None else [Label(rules.span, "the rules")]),
                help="add it to a rule: to the `spokes` of a hub, say",
            )
    return lonely


def _reach_help(routing: Routing, one: Host, two: Host) -> str:
    shared = routing.links.masks[routing.links.rank[one.name]] & routing.links.masks[routing.links.rank[two.name]]
    for rank in bits(shared):
        host = routing.links.hosts[rank]
        if not host.forward and host.manager is not Manager.EXTERNAL:
            return f"set `forward: true` at '{host.name}', a peer of both, which then relays"
    return "give one of them an `endpoint`, or both a path over hosts with `forward: true`"


def _without_common_version(routing: Routing, host: Host) -> int:
    """Return, as bits, the hosts with which `host` shares no IP version, and so could not talk at all."""
    common = 0
    for version in host.versions:
        common |= routing.having[version]
    return routing.paths.everyone & ~common


def check_advertised_reach(routing: Routing, diagnostics: Diagnostics) -> None:
    """Warn where nobody has an address to reach an advertised subnet from, or a relay on the way does not take it."""
    links, paths = routing.links, routing.paths
    for rank in bits(routing.advertisers):
        advertiser = links.hosts[rank]
        _check_version_reach(routing, rank, diagnostics)
        view = paths.view(advertiser)
        for relay in links.hosts[: links.relays]:
            if relay is advertiser:
                continue
            lost = set(advertiser.advertise) - set(routing.advertised_to(relay, advertiser))
            if not lost:
                continue
            beyond = paths.beyond(view, links.rank[relay.name]) & ~view.blocked
            hurt = [host for host in paths.hosts(beyond) if lost & set(routing.advertised_to(host, advertiser))]
            if hurt:
                prefix = min(lost, key=str)
                diagnostics.report(
                    codes.ADVERTISED_UNREACHABLE,
                    f"{_names(hurt)} cannot reach {prefix} behind '{advertiser.name}': "
                    f"'{relay.name}', which relays, does not take it",
                    Label(relay.place("accept") if relay.accept is not None else relay.place("site")),
                    Label(advertiser.place("advertise")),
                    help=f"let '{relay.name}' take it, or link the hosts with '{advertiser.name}'",
                )


def _check_version_reach(routing: Routing, rank: int, diagnostics: Diagnostics) -> None:
    advertiser = routing.links.hosts[rank]
    for version in sorted({prefix.version for prefix in advertiser.advertise}):
        others = (routing.links.hosts[other] for other in bits(routing.advertisers & ~(1 << rank)))
        if not routing.having[version] & ~(1 << rank) and not any(
            prefix.version == version for other in others for prefix in other.advertise
        ):
            prefix = min((prefix for prefix in advertiser.advertise if prefix.version == version), key=str)
            diagnostics.report(
                codes.ADVERTISED_UNREACHABLE,
                f"nobody can reach {prefix} behind '{advertiser.name}': no other host has an IPv{version} address",
                Label(advertiser.place("advertise")),
                Label(routing.topology.network_place("subnets")),
                help=f"give the network a subnet of IPv{version}, and the hosts addresses in it",
            )
