"""The JSON shape of a host's plan (`wgnet show HOST --format json`), version 1. An interface: only ever added to.

    {"version": 1, "host": NAME, "interfaces": [{
        "network", "interface", "manager", "manager_version" (text or null), "public_key" (or null),
        "private_key": {"kind": "file"|"credential"|"agent", "name"},
        "addresses": [{"address": "10.0.0.1/24", "prefix_route": bool}],
        "listen_port" (0: the kernel's choice), "mtu" (null: the kernel's), "firewall_mark" (0: none),
        "table" (254: main, 0: off), "metric", "autoconnect",
        "peers": [{"name", "public_key", "next_public_key", "endpoint" (or null), "endpoints", "allowed_ips",
                   "persistent_keepalive" (seconds, 0: off), "preshared_key": null|"derived"|{"kind", "name"}}],
        "routes": [{"destination", "table", "metric"}],
        "rules": [{"family": 4|6, "priority", "action": "lookup"|"prohibit", "table", "from", "to", "iif", "fwmark",
                   "invert", "suppress_prefixlength"}],
        "dns": null|{"servers", "search", "reverse", "everything"},
        "forwarding": [4, 6], "source_valid_mark": bool, "restore_mark": [4, 6], "masquerade": [4, 6],
        "firewall": ["let in UDP port 51820", ...]
    }]}

No secret is in it.
"""

from __future__ import annotations

from typing import Any

from wgnet.plan.firewall import firewall_needs
from wgnet.plan.types import HostPlan, InterfacePlan, PeerPlan, PolicyRulePlan

VERSION = 1


def plan_to_json(plan: HostPlan) -> dict[str, Any]:
    """Return a host's plan as plain data."""
    return {"version": VERSION, "host": plan.name, "interfaces": [_interface(one) for one in plan.interfaces]}


def _interface(plan: InterfacePlan) -> dict[str, Any]:
    return {
        "network": plan.network,
        "interface": plan.interface,
        "manager": plan.manager.value,
        "manager_version": ".".join(map(str, plan.manager_version)) if plan.manager_version else None,
        "public_key": plan.host.public_key,
        "private_key": {"kind": plan.private_key.kind, "name": plan.private_key.name},
        "addresses": [{"address": str(one.address), "prefix_route": one.prefix_route} for one in plan.addresses],
        "listen_port": plan.listen_port,
        "mtu": plan.mtu,
        "firewall_mark": plan.firewall_mark,
        "table": plan.table,
        "metric": plan.metric,
        "autoconnect": plan.autoconnect,
        "peers": [_peer(peer) for peer in plan.peers],
        "routes": [
            {"destination": str(route.destination), "table": route.table, "metric": route.metric}
            for route in plan.routes
        ],
        "rules": [_rule(rule) for rule in plan.rules],
        "dns": None
        if plan.dns is None
        else {
            "servers": [str(server) for server in plan.dns.servers],
            "search": list(plan.dns.search),
            "reverse": list(plan.dns.reverse),
            "everything": plan.dns.everything,
        },
        "forwarding": sorted(plan.forwarding),
        "source_valid_mark": plan.source_valid_mark,
        "restore_mark": sorted(plan.restore_mark),
        "masquerade": sorted(plan.masquerade),
        "firewall": firewall_needs(plan),
    }


def _peer(peer: PeerPlan) -> dict[str, Any]:
    source = peer.preshared_key
    return {
        "name": peer.name,
        "public_key": peer.public_key or None,
        "next_public_key": peer.next_public_key,
        "endpoint": str(peer.endpoints[0]) if peer.endpoints else None,
        "endpoints": [str(endpoint) for endpoint in peer.endpoints],
        "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
        "persistent_keepalive": peer.persistent_keepalive,
        "preshared_key": source
        if source is None or isinstance(source, str)
        else {"kind": source.kind, "name": source.name},
    }


def _rule(rule: PolicyRulePlan) -> dict[str, Any]:
    return {
        "family": rule.version,
        "priority": rule.priority,
        "action": rule.action.value,
        "table": rule.table,
        "from": None if rule.source is None else str(rule.source),
        "to": None if rule.destination is None else str(rule.destination),
        "iif": rule.incoming_interface,
        "fwmark": rule.firewall_mark,
        "invert": rule.invert,
        "suppress_prefixlength": rule.suppress_prefix_length,
    }
