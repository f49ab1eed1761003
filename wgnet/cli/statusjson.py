"""The JSON shape of a host's live state (`wgnet status --format json`), version 1. An interface: only ever added to.

    {"version": 1, "host": NAME (or null), "time" (seconds since 1970), "drift": bool, "unconfirmed": bool,
     "interfaces": [{
        "network", "interface", "manager", "state": "up"|"down"|"absent", "autoconnect": bool,
        "public_key" (or null), "listen_port" (or null), "firewall_mark" (or null), "mtu" (or null), "addresses": [...],
        "live_until_boot": bool (systemd-networkd leaves the running device alone until the next boot),
        "peers": [{"name" (null: unknown to the topology), "public_key", "present": bool,
                   "endpoint": {"configured" (or null), "live" (or null)}, "allowed_ips": [...],
                   "latest_handshake" (seconds since 1970, null: never), "received", "sent" (bytes),
                   "persistent_keepalive" (seconds, 0: off)}],
        "drift": [{"aspect", "subject", "expected" (null: not meant to be), "found" (null: missing)}],
        "firewall": [{"need", "versions": [4, 6], "family", "table", "chain", "hook"}],
        "dns_unread": bool (systemd-networkd has DNS servers for systemd-resolved, which does not run)}],
     "leftovers": [{"network", "interface", "state"}]}

What is live is null, empty or 0 where the interface or the peer is absent. `aspect` is one of `ASPECTS` in
wgnet/live/drift.py. No secret is in it.
"""

from __future__ import annotations

from typing import Any

from wgnet.live.drift import Drift
from wgnet.live.firewall import Dropped
from wgnet.live.status import HostStatus, InterfaceStatus, PeerStatus

VERSION = 1


def status_to_json(status: HostStatus) -> dict[str, Any]:
    """Return a host's status as plain data."""
    return {
        "version": VERSION,
        "host": status.name,
        "time": int(status.time),
        "drift": status.drifted,
        "unconfirmed": status.unconfirmed,
        "interfaces": [_interface(one) for one in status.interfaces],
        "leftovers": [
            {"network": one.network, "interface": one.interface, "state": one.state} for one in status.leftovers
        ],
    }


def _interface(status: InterfaceStatus) -> dict[str, Any]:
    plan = status.plan
    device = status.live.devices.get(plan.interface)
    link = status.live.links.get(plan.interface)
    return {
        "network": plan.network,
        "interface": plan.interface,
        "manager": plan.manager.value,
        "state": status.state,
        "autoconnect": plan.autoconnect,
        "public_key": None if device is None else device.public_key,
        "listen_port": None if device is None else device.listen_port,
        "firewall_mark": None if device is None else device.firewall_mark,
        "mtu": None if link is None else link.mtu,
        "addresses": [] if link is None else sorted(map(str, link.addresses)),
        "live_until_boot": status.let_go,
        "peers": [_peer(one) for one in status.peers],
        "drift": [_drift(one) for one in status.drift],
        "firewall": [_dropped(one) for one in status.dropped],
        "dns_unread": status.dns_unread,
    }


def _peer(peer: PeerStatus) -> dict[str, Any]:
    live = peer.live
    return {
        "name": peer.name,
        "public_key": peer.public_key,
        "present": live is not None,
        "endpoint": {"configured": peer.endpoint, "live": None if live is None else live.endpoint},
        "allowed_ips": [] if live is None else sorted(map(str, live.allowed_ips)),
        "latest_handshake": (None if live is None else live.latest_handshake) or None,
        "received": 0 if live is None else live.received,
        "sent": 0 if live is None else live.sent,
        "persistent_keepalive": 0 if live is None else live.persistent_keepalive,
    }


def _drift(drift: Drift) -> dict[str, Any]:
    return {"aspect": drift.aspect, "subject": drift.subject, "expected": drift.expected, "found": drift.found}


def _dropped(dropped: Dropped) -> dict[str, Any]:
    chain = dropped.chain
    return {
        "need": dropped.need,
        "versions": list(dropped.versions),
        "family": chain.family,
        "table": chain.table,
        "chain": chain.name,
        "hook": chain.hook,
    }
