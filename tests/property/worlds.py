"""The world that a network's plans make, for the walk."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from property.walk import Device, Peer, Prefix, Refusal, World
from wgnet.model.topology import Topology
from wgnet.plan.derive import Planner
from wgnet.plan.types import Action, InterfacePlan
from wgnet.routing.allowed_ips import Routing

EVERYTHING = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


def world_of_plans(routing: Routing) -> World:
    """Return the world of the plans; of an external host we say that its owner did as a plan would have it."""
    planner = Planner(routing)
    topology = routing.topology
    devices = {host.name: device_of_plan(planner.plan_interface(host)) for host in topology.hosts if not host.disabled}
    return World(devices, keys(topology), nearby(topology))


def keys(topology: Topology) -> dict[str, str]:
    """Return whose each public key is."""
    return {host.public_key: host.name for host in topology.hosts if host.public_key is not None}


def nearby(topology: Topology) -> dict[str, list[Prefix]]:
    """Return what each host reaches without the tunnel: its subnets, those of its site, all if it offers that."""
    return {
        host.name: [
            prefix
            for other in topology.hosts
            if not other.disabled and (other is host or (host.site is not None and host.site == other.site))
            for prefix in other.advertise
        ]
        + [EVERYTHING[version] for version in host.offers]
        for host in topology.hosts
    }


def device_of_plan(plan: InterfacePlan) -> Device:
    """Return what a plan tells the kernel."""
    device = Device(
        addresses=[address.address for address in plan.addresses],
        listen_port=plan.listen_port,
        peers=[
            Peer(
                public_key=peer.public_key,
                allowed_ips=list(peer.allowed_ips),
                endpoint=str(peer.endpoints[0]) if peer.endpoints else None,
                keepalive=peer.persistent_keepalive,
            )
            for peer in plan.peers
        ],
        routes=[route.destination for route in plan.routes],
        forwards=set(plan.forwarding),
    )
    for rule in plan.rules:
        if rule.incoming_interface is not None:
            device.refusals.append(
                Refusal(
                    priority=rule.priority,
                    refuses=rule.action is Action.PROHIBIT,
                    source=rule.source or EVERYTHING[rule.version],
                    destination=rule.destination or EVERYTHING[rule.version],
                )
            )
    return device


def shared_prefixes(peers: Iterable[Peer]) -> list[Prefix]:
    """Return the prefixes that stand at more than one peer."""
    seen: dict[Prefix, str] = {}
    return [
        prefix
        for peer in peers
        for prefix in peer.allowed_ips
        if seen.setdefault(prefix, peer.public_key) != peer.public_key
    ]
