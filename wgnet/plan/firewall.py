"""What a firewall on the host must let through, in words. Input: the plan of an interface. Nothing is read or set."""

from __future__ import annotations

from wgnet.plan.types import InterfacePlan


def firewall_needs(plan: InterfacePlan) -> list[str]:
    """Return what a firewall on the host must let through, in words."""
    needs = []
    if plan.listen_port and is_called(plan):
        needs.append(f"let in UDP port {plan.listen_port}")
    versions = " and ".join(f"IPv{version}" for version in sorted(plan.forwarding))
    if plan.forwarding and plan.host.forward and len(plan.peers) > 1:
        needs.append(f"forward {versions} from {plan.interface} to {plan.interface}")
    networks = [*map(str, plan.host.advertise), *(["everything"] if plan.host.offers else [])]
    if networks:
        needs.append(f"forward between {plan.interface} and {', '.join(networks)}")
    return needs


def is_called(plan: InterfacePlan) -> bool:
    """Return whether peers call this host: one that can call every peer itself needs nobody to."""
    host = plan.host
    return bool(host.endpoint or host.site_endpoint) or any(not peer.endpoints for peer in plan.peers)
