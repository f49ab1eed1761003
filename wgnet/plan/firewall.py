"""What a firewall on the host must let through, in words. Input: the plan of an interface. Nothing is read or set."""

from __future__ import annotations

from wgnet.plan.types import InterfacePlan


def firewall_needs(plan: InterfacePlan) -> list[str]:
    """Return what a firewall on the host must let through, in words."""
    needs = []
    host = plan.host
    # A host that every peer of it can be called at needs nobody to call it.
    called = host.endpoint or host.site_endpoint or any(not peer.endpoints for peer in plan.peers)
    if plan.listen_port and called:
        needs.append(f"let in UDP port {plan.listen_port}")
    versions = " and ".join(f"IPv{version}" for version in sorted(plan.forwarding))
    if plan.forwarding and plan.host.forward and len(plan.peers) > 1:
        needs.append(f"forward {versions} from {plan.interface} to {plan.interface}")
    networks = [*map(str, plan.host.advertise), *(["everything"] if plan.host.offers else [])]
    if networks:
        needs.append(f"forward between {plan.interface} and {', '.join(networks)}")
    return needs
