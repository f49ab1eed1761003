"""Runs all checks in their order. Input: specifications' topologies. Output: the routing of each, and diagnostics.

What only makes sense once the rules and names are sound (paths, expectations) is checked when they are.
"""

from __future__ import annotations

from wgnet.checks import dns, expect, fleet, identity, nesting, peering
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.model.topology import Topology
from wgnet.plan.derive import Fleet
from wgnet.routing.allowed_ips import Routing


def check_topology(
    topology: Topology, diagnostics: Diagnostics, *, missing_keys: Severity, keyless: str | None = None
) -> Routing | None:
    """Check one network; return its routing, or None where there can be none.

    `missing_keys` is how bad a host without a public key is; `keyless` is a host that needs none.
    """
    identity.check_subnets(topology, diagnostics)
    identity.check_addresses(topology, diagnostics)
    identity.check_public_keys(topology, diagnostics)
    identity.check_public_keys_present(topology, diagnostics, missing_keys, keyless)
    identity.check_mtus(topology, diagnostics)
    identity.check_ports(topology, diagnostics)
    identity.check_advertised(topology, diagnostics)
    identity.check_accept(topology, diagnostics)
    if not topology.rules_known or not peering.check_size(topology, diagnostics):
        return None
    routing = Routing.of(topology)
    peering.check_handshakes(routing, diagnostics)
    peering.check_isolation(topology, diagnostics)
    peering.check_any_allowed(routing, diagnostics)
    peering.check_external_isolation(routing, diagnostics)
    peering.check_exit_nodes(routing, diagnostics)
    peering.check_exit_node_rings(topology, diagnostics)
    peering.check_endpoint_loops(routing, diagnostics)
    if not diagnostics.has_errors:
        peering.check_reach(routing, diagnostics)
        peering.check_advertised_reach(routing, diagnostics)
        dns.check_dns(routing, diagnostics)
        dns.check_dns_endpoints(routing, diagnostics)
        expect.check_expectations(routing, diagnostics)
    return routing


def check_fleet(networks: Fleet, diagnostics: Diagnostics) -> None:
    """Check what several files say of one host; the files have no errors of their own."""
    fleet.check_network_names(networks, diagnostics)
    fleet.check_key_files(networks, diagnostics)
    fleet.check_collisions(networks, diagnostics)
    if not diagnostics.has_errors:
        nesting.check_nested_loops(networks, diagnostics)
