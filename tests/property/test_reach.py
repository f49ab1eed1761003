"""A packet from every host to every address arrives and comes back the same way, wherever the network has a way."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator

from hypothesis import given

from property.networks import AROUND, UNASSIGNED, Draft, drafts
from property.reference import MOST_PATHS, graph_of
from property.sound import checked, routing_of
from property.walk import Address
from property.worlds import shared_prefixes, world_of_plans
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.routing.trace import Tracer


def own_addresses(draft: Draft, name: str) -> list[Address]:
    return [ipaddress.ip_interface(text).ip for text in draft.hosts[name]["addresses"]]


def sample_addresses(draft: Draft) -> Iterator[tuple[str, Address]]:
    """Yield one address in each advertised subnet that is in no longer one and in none of the network's."""
    owners = {
        ipaddress.ip_network(text): name
        for name in draft.enabled()
        for text in draft.hosts[name].get("advertise", ())
        if not text.endswith("/0")
    }
    subnets = [ipaddress.ip_network(text) for text in draft.subnets]
    for prefix, owner in owners.items():
        inner = [
            other
            for other in (*owners, *subnets)
            if other.version == prefix.version and other != prefix and other.subnet_of(prefix)  # type: ignore[arg-type]
        ]
        size = min(prefix.num_addresses, 2**80)
        for offset in (size // 2 + 1, size // 3, size - 2, 0):
            address = prefix[min(max(offset, 0), size - 1)]
            if not any(address in other for other in inner):
                yield owner, address
                break


@given(drafts())
def test_allowed_ips_of_one_interface_are_disjoint(draft: Draft) -> None:
    for device in world_of_plans(routing_of(draft)).devices.values():
        assert shared_prefixes(device.peers) == []


@given(drafts(max_hosts=40))
def test_every_host_reaches_every_other_that_a_path_leads_to(draft: Draft) -> None:
    world = world_of_plans(routing_of(draft))
    graph = graph_of(draft)
    for one, two in itertools.permutations(draft.enabled(), 2):
        if len(graph.shortest(one, two)) > MOST_PATHS:
            continue
        best = graph.best(one, two)
        for sender, target in itertools.product(own_addresses(draft, one), own_addresses(draft, two)):
            if sender.version != target.version:
                continue
            there, back = world.walk(one, sender, target), world.walk(two, target, sender)
            if best is None or graph.dropped(best):
                # What is all around the network behind a host takes packets to it, which it forwards if it knows the
                # way, be it a relay or not; an isolating hub refuses them even then.
                isolating = {hub for hubs, _ in graph.isolations for hub in hubs}
                passed = [draft.hosts[middle].get("advertise", ()) for middle in {*there.hosts} - isolating]
                if not any(set(AROUND) & set(advertised) for advertised in passed):
                    assert there.end != "arrived", f"{one} -> {two} {target}: {there}"
            else:
                assert there.end == "arrived", f"{one} -> {two} {target}: {there}, expected {best}"
                assert there.hosts == best
                assert back.hosts == best[::-1]
                assert back.end == "arrived"


def said_unreachable(diagnostics: Diagnostics, name: str, owner: str) -> bool:
    """Whether a warning says that a host cannot reach what another advertises."""
    return any(
        item.code is codes.ADVERTISED_UNREACHABLE
        and f"behind '{owner}'" in item.message
        and (f"'{name}'" in item.message.split(" cannot ")[0] or " more cannot " in item.message)
        for item in diagnostics
    )


@given(drafts(max_hosts=30))
def test_advertised_subnets_are_reached_unless_the_check_says_no(draft: Draft) -> None:
    graph = graph_of(draft)
    routing, diagnostics = checked(draft)
    world = world_of_plans(routing)
    for owner, target in sample_addresses(draft):
        for name in draft.enabled():
            keys = draft.hosts[name]
            if name == owner or len(graph.shortest(name, owner)) > MOST_PATHS:
                continue
            best = graph.best(name, owner)
            near = keys.get("site") is not None and keys.get("site") == draft.hosts[owner].get("site")
            for sender in own_addresses(draft, name):
                if sender.version != target.version:
                    continue
                there = world.walk(name, sender, target)
                assert there.end != "loop"
                accept = [ipaddress.ip_network(text) for text in keys.get("accept", ["0.0.0.0/0", "::/0"])]
                takes = any(target in prefix for prefix in accept)
                if near:
                    assert there == type(there)((name,), "left")
                elif best is not None and not graph.dropped(best) and takes:
                    back = world.walk(owner, target, sender)
                    if not said_unreachable(diagnostics, name, owner):
                        assert there.hosts == best, f"{name} -> {target} behind {owner}: {there}, expected {best}"
                        assert there.delivered
                        assert back.hosts == best[::-1], f"{target} behind {owner} -> {name}: {back}"
                        assert back.end == "arrived"


@given(drafts(max_hosts=30))
def test_no_packet_goes_round_for_ever(draft: Draft) -> None:
    world = world_of_plans(routing_of(draft))
    targets = [ipaddress.ip_address(text) for version in draft.versions for text in UNASSIGNED[version]]
    targets += [target for _, target in sample_addresses(draft)]
    for name in draft.enabled():
        for sender in own_addresses(draft, name):
            for target in targets:
                if sender.version == target.version:
                    walk = world.walk(name, sender, target)
                    assert walk.end != "loop", f"{name} -> {target}: {walk}"


@given(drafts(max_hosts=25))
def test_trace_tells_what_the_walk_does(draft: Draft) -> None:
    routing = routing_of(draft)
    world, tracer = world_of_plans(routing), Tracer(routing)
    hosts = routing.topology.by_name
    targets = [(None, address) for _, address in sample_addresses(draft)]
    targets += [(None, ipaddress.ip_address(text)) for version in draft.versions for text in UNASSIGNED[version]]
    targets += [(name, address) for name in draft.enabled() for address in own_addresses(draft, name)]
    for name in draft.enabled():
        for sender in own_addresses(draft, name):
            for owner, target in targets:
                if sender.version != target.version or owner == name:
                    continue
                walk, trace = world.walk(name, sender, target), tracer.trace(hosts[name], sender, target)
                if walk.hosts == trace.hosts == (name,):
                    continue  # to its own internet, or nowhere: the tunnel has no part in it
                if not all(hosts[middle].forward for middle in walk.hosts[1:-1]):
                    continue  # see above: the trace goes by what is meant
                assert trace.delivered is walk.delivered, f"{name} {sender} -> {target}: {trace}, {walk}"
                if walk.delivered:
                    assert trace.hosts == walk.hosts
