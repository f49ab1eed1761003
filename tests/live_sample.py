"""Hosts of the examples as they are to be and as they are: the second by the lab's expectations, not by the product's.

`tests/lab/expected.py` says of each manager what a kernel has once it is done, and the lab holds it against kernels. So
what `wgnet.live.drift` finds between the two is a mistake of `wgnet.live.wanted`.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from example_keys import given_preshared_key, master_secret, private_key
from lab.expected import ExpectedInterface, ExpectedState, expected_state
from lab.state import Route as ExpectedRoute

from wgnet.cli.planjson import plan_to_json
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.types import PresharedKey
from wgnet.live.device import LiveDevice, LivePeer
from wgnet.live.drift import Drift, find_drift
from wgnet.live.state import LiveDns, LiveLink, LiveState, PolicyRule, Route
from wgnet.live.wanted import WantedInterface, wanted_interface
from wgnet.managers.base import InterfaceSecrets, public_keys
from wgnet.plan.types import HostPlan, InterfacePlan

_PROTOCOLS = {"unspec": 0, "kernel": 2, "boot": 3, "static": 4}


class _AnyName(dict[str, Collection[str]]):
    """Every name has the same address."""

    def __missing__(self, name: str) -> Collection[str]:
        return ("192.0.2.77",)


_NAMES = _AnyName({"any.example": ("192.0.2.77",)})


def secrets_of(plan: InterfacePlan) -> InterfaceSecrets:
    """Return what an example's host knows, whatever it keeps it in."""
    keys: dict[str, PresharedKey] = {}
    for peer in plan.secured_peers:
        for public, _ in public_keys(peer):
            key = _preshared(plan, public, peer.preshared_key)
            assert key is not None
            keys[public] = key
    return InterfaceSecrets(private_key=private_key(plan.network, plan.host.name), preshared_keys=keys)


def _preshared(plan: InterfacePlan, public: str, source: Any) -> PresharedKey | None:
    if source is None:
        return None
    if source == "derived":
        assert plan.host.public_key is not None
        return derive_preshared_key(master_secret(plan.network), plan.host.public_key, public)
    key = PresharedKey.parse(given_preshared_key(source.name))
    assert isinstance(key, PresharedKey)
    return key


def wanted_of(plan: HostPlan) -> list[WantedInterface]:
    """Return the product's word on a host."""
    return [wanted_interface(each, secrets_of(each)) for each in plan.interfaces]


def live_of(plan: HostPlan) -> LiveState:
    """Return the host as its managers make it, by the lab's word. What a person brings up is not up."""
    inactive = [each.interface for each in plan.interfaces if not each.autoconnect]
    expected = expected_state(plan_to_json(plan), resolver=_NAMES, inactive=inactive)
    plans = {each.interface: each for each in plan.interfaces}
    names = expected.interfaces.keys()
    return LiveState(
        devices={name: _device(plans[name], each) for name, each in expected.interfaces.items()},
        links={name: _link(each) for name, each in expected.interfaces.items()},
        routes=frozenset(_route(each) for each in expected.routes),
        rules=frozenset(_rules(plan, expected)),
        forwarding=expected.forwarding,
        source_valid_mark=expected.source_valid_mark,
        tables=expected.tables,
        dns={
            name: LiveDns(
                servers=expected.interfaces[name].dns.servers,
                domains=expected.interfaces[name].dns.domains,
                default_route=expected.interfaces[name].dns.default_route,
            )
            for name in names
        },
    )


def _device(plan: InterfacePlan, expected: ExpectedInterface) -> LiveDevice:
    key = private_key(plan.network, plan.host.name)
    peers = {}
    for peer in plan.peers:
        for public, _ in public_keys(peer):
            there = expected.peers[public]
            peers[public] = LivePeer(
                public_key=public,
                preshared_key=_preshared(plan, public, peer.preshared_key),
                endpoint=None if there.endpoints is None else min(there.endpoints),
                allowed_ips=there.allowed_ips,
                latest_handshake=0,
                received=0,
                sent=0,
                persistent_keepalive=there.persistent_keepalive,
            )
    return LiveDevice(
        name=expected.name,
        private_key=key,
        public_key=expected.public_key,
        listen_port=expected.listen_port or 40000,
        firewall_mark=expected.firewall_mark,
        peers=peers,
    )


def _link(expected: ExpectedInterface) -> LiveLink:
    addresses = set(expected.addresses)
    if expected.link_local:
        addresses.add(ipaddress.ip_interface("fe80::9d2c/64"))
    return LiveLink(
        name=expected.name,
        kind="wireguard",
        up=True,
        mtu=expected.mtu,
        addresses=frozenset(addresses),
        forwarding=expected.forwarding,
    )


def _route(each: ExpectedRoute) -> Route:
    assert each.gateway is None
    return Route(
        each.destination,
        each.table,
        each.metric,
        each.device,
        type=each.type,
        protocol=_PROTOCOLS[each.protocol],
    )


def _rules(plan: HostPlan, expected: ExpectedState) -> Iterator[PolicyRule]:
    # wg-quick leaves priorities to the kernel, which gives them downwards.
    free = 32000
    for each in sorted(expected.rules | expected.spare_rules, key=str):
        priority = each.priority
        if each.protocol == "unspec":
            free -= 1
            priority = free
        yield PolicyRule(
            version=each.version,
            priority=priority,
            action=each.action,
            table=each.table,
            source=each.source,
            destination=each.destination,
            incoming_interface=each.incoming_interface,
            firewall_mark=each.firewall_mark,
            invert=each.invert,
            suppress_prefix_length=each.suppress_prefix_length,
            protocol=_PROTOCOLS[each.protocol],
        )


def drift_of(plan: HostPlan, live: LiveState | None = None) -> list[Drift]:
    """Return what the product says of a host."""
    return find_drift(wanted_of(plan), live_of(plan) if live is None else live)


# --- as the tools print it -------------------------------------------------------------------------------------------


def write_tools(folder: Path, live: LiveState, ruleset: str = '{"nftables": []}') -> None:
    """Write wg(8), ip(8) and nft(8) that print a state, to be found before the real ones."""
    folder.mkdir(exist_ok=True)
    texts = {
        "dump": "".join(_dump(live)),
        "links": json.dumps([_as_json(link) for link in live.links.values()]),
        "tables": json.dumps({"nftables": [{"table": {"name": name}} for name in live.tables or ()]}),
        "ruleset": ruleset,
    }
    for version in (4, 6):
        routes = [_route_json(each) for each in live.routes if each.destination.version == version]
        texts[f"routes{version}"] = json.dumps(routes)
        texts[f"rules{version}"] = json.dumps([_rule_json(each) for each in live.rules if each.version == version])
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    for name, script in (
        ("wg", f"exec cat {folder}/dump.txt"),
        (
            "ip",
            f'case "$*" in *address*) exec cat {folder}/links.txt;; '
            f"*rule*) exec cat {folder}/rules${{1#-}}.txt;; *) exec cat {folder}/routes${{1#-}}.txt;; esac",
        ),
        ("nft", f'case "$*" in *tables*) exec cat {folder}/tables.txt;; *) exec cat {folder}/ruleset.txt;; esac'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def _dump(live: LiveState) -> Iterator[str]:
    for name, device in live.devices.items():
        private = "(none)" if device.private_key is None else device.private_key.reveal()
        mark = f"{device.firewall_mark:#x}" if device.firewall_mark else "off"
        yield f"{name}\t{private}\t{device.public_key or '(none)'}\t{device.listen_port}\t{mark}\n"
        for peer in device.peers.values():
            words = (
                peer.public_key,
                "(none)" if peer.preshared_key is None else peer.preshared_key.reveal(),
                peer.endpoint or "(none)",
                ",".join(map(str, peer.allowed_ips)) or "(none)",
                *map(str, (peer.latest_handshake, peer.received, peer.sent)),
                str(peer.persistent_keepalive or "off"),
            )
            yield "\t".join((name, *words)) + "\n"


def _as_json(link: LiveLink) -> dict[str, Any]:
    return {
        "ifname": link.name,
        "flags": ["UP"] if link.up else [],
        "mtu": link.mtu,
        "linkinfo": {"info_kind": link.kind},
        "addr_info": [{"local": str(address.ip), "prefixlen": address.network.prefixlen} for address in link.addresses],
    }


def _route_json(route: Route) -> dict[str, Any]:
    words = {"dst": str(route.destination), "table": str(route.table), "metric": route.metric}
    return words | {"dev": route.device, "protocol": str(route.protocol)}


def _rule_json(rule: PolicyRule) -> dict[str, Any]:
    found: dict[str, Any] = {"priority": rule.priority, "protocol": str(rule.protocol)}
    found["src"] = "all" if rule.source is None else str(rule.source)
    if rule.action != "lookup":
        found["action"] = rule.action
    for key, value in (
        ("dst", rule.destination),
        ("table", rule.table),
        ("iif", rule.incoming_interface),
        ("fwmark", None if rule.firewall_mark is None else hex(rule.firewall_mark)),
    ):
        if value is not None:
            found[key] = str(value)
    if rule.suppress_prefix_length is not None:
        found["suppress_prefixlen"] = rule.suppress_prefix_length
    return found | ({"not": None} if rule.invert else {})
