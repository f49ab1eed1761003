"""Checks of DNS: whether a server is reached, and whether reaching it needs what it is asked for.

Input: the routing of a network. Output: diagnostics alone.
"""

from __future__ import annotations

from wgnet.checks.peering import routed_on
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.words import quote_names
from wgnet.model.topology import Host
from wgnet.plan.derive import plan_dns
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.links import endpoint_towards
from wgnet.routing.trace import Tracer
from wgnet.syntax.spec import Address, Manager


def check_dns(routing: Routing, diagnostics: Diagnostics) -> None:
    """Warn of a DNS server inside the network that a host which asks it has no path to."""
    topology, links = routing.topology, routing.links
    owners = {address.ip: host for host in links.hosts for address in host.addresses}
    unreachable: dict[Address, list[Host]] = {}
    for host in links.hosts:
        if host.manager is Manager.EXTERNAL:
            continue
        dns = plan_dns(topology, host, host.exit_node is not None)
        for server in dns.servers if dns is not None else ():
            if not any(server in subnet for subnet in topology.subnets if subnet.version == server.version):
                continue
            owner = owners.get(server)
            if owner is None and _leaves(routing, host, server):
                continue  # beyond the exit node
            if owner is None or not routing.paths.view(host).reached >> links.rank[owner.name] & 1:
                unreachable.setdefault(server, []).append(host)
    for server, hosts in unreachable.items():
        first = hosts[0]
        place = first.place("dns") if "dns" in first.nodes else topology.network_place("dns")
        why = (
            "no host has the address"
            if server not in owners
            else f"{quote_names(host.name for host in hosts)} cannot reach it"
        )
        diagnostics.report(codes.DNS_UNREACHABLE, f"DNS server {server} is not reachable: {why}", place)


def _leaves(routing: Routing, host: Host, address: Address) -> bool:
    """Whether packets from a host to an address that is nobody's leave through its exit node."""
    if host.exit_node is None:
        return False
    sender = next((own.ip for own in host.addresses if own.version == address.version), None)
    return sender is not None and Tracer(routing).trace(host, sender, address).delivered


def check_dns_endpoints(routing: Routing, diagnostics: Diagnostics) -> None:
    """Warn of an endpoint whose name is asked of a DNS server behind the very tunnel that it opens.

    networkd looks a name up once the interface, and so its DNS, is there, and again until it has an answer; with the
    first try before the uplink is up there would never be one. NetworkManager looks it up before.
    """
    topology, links = routing.topology, routing.links
    found: dict[Host, list[Host]] = {}
    for rank, host in enumerate(links.hosts):
        if host.manager is not Manager.NETWORKD:
            continue
        dns = plan_dns(topology, host, host.exit_node is not None)
        if dns is None or not any(_inside(routing, host, server) for server in dns.servers):
            continue
        domains = tuple(domain.lstrip("~").lower() for domain in dns.search)
        for peer, rule in links.rules[rank].items():
            endpoint = next(iter(endpoint_towards(links.hosts[peer], host, rule)), None)
            if endpoint is not None and endpoint.address is None:
                name = endpoint.host.rstrip(".").lower()
                if dns.everything or any(name == domain or name.endswith(f".{domain}") for domain in domains):
                    found.setdefault(links.hosts[peer], []).append(host)
    for called, hosts in found.items():
        place = hosts[0].place("dns") if "dns" in hosts[0].nodes else topology.network_place("dns")
        diagnostics.report(
            codes.DNS_ENDPOINT,
            f"{quote_names(host.name for host in hosts)} would ask for the endpoint of '{called.name}' "
            "through the tunnel that it opens",
            Label(called.place("endpoint")),
            Label(place, "these servers are asked for the name"),
            help="use an address as `endpoint`, or a name that the network's DNS servers are not asked for",
        )


def _inside(routing: Routing, host: Host, server: Address) -> bool:
    """Whether a host sends packets to a DNS server into the tunnel."""
    if routed_on(routing, host, server) is not None:
        return True
    return host.exit_node is not None and not any(
        server in prefix for prefix in host.bypass if prefix.version == server.version
    )
