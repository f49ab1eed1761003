"""What an interface and all that goes with it are to be on a running host, as its manager makes them.

Stage: live. Input: an interface's plan and the secrets at hand; output: a `WantedInterface`, which `drift.py` compares
with a `LiveState`. What a manager makes otherwise than the plan says it is here and nowhere else in the product, so
that no such difference is taken for drift. Runs nothing and opens nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wgnet.live.device import DeviceSettings, wanted_device
from wgnet.live.state import PolicyRule, Route
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.escape import nft_identifier
from wgnet.model.topology import TABLE_MAIN, TABLE_OFF
from wgnet.plan.derive import PRIORITY_OWN_PACKETS
from wgnet.plan.types import InterfacePlan, PolicyRulePlan
from wgnet.syntax.spec import Interface, Manager, Prefix

__all__ = ["KERNEL_MTU", "LINK_LOCAL", "WantedDns", "WantedInterface", "nft_tables", "wanted_interface"]

LINK_LOCAL = ipaddress.ip_network("fe80::/64")
#: What the kernel gives a WireGuard interface: 1500 less 80; wg_setup() of Linux.
KERNEL_MTU = 1420
#: Metrics of IPv6 routes that name none: of prefixes of addresses, and of others; IP6_RT_PRIO_* of Linux.
_METRIC_ADDRCONF, _METRIC_USER = 256, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedDns:
    """What systemd-resolved is to have for an interface. `default_route` None: any.

    With `more_reverse` there may be zones of reverse names beside `domains`; with `may_lack` nothing at all, where
    whoever the manager gives it to is not systemd-resolved.
    """

    servers: tuple[str, ...] = ()
    domains: frozenset[str] = frozenset()
    default_route: bool | None = None
    more_reverse: bool = False
    may_lack: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedInterface:
    """An interface as its manager is to have made it.

    `mtu` None: any. `active` is false where a person brings it up. `forwarding` are the IP versions that the host is to
    forward. `tables` are nftables'; `tables_if_any` are to be there only where the host has nft(8).

    `link_local` allows an IPv6 link-local address and its route beside what is wanted. With `any_priority` the kernel
    chose the rules' priorities. With `any_mark` the manager chose the firewall mark, which is a table's number too,
    and the plan's only stands for it. `extras_when_up`: kernel parameters come with the interface, not at boot.
    """

    network: str
    name: str
    manager: Manager
    device: DeviceSettings
    active: bool
    mtu: int | None
    addresses: frozenset[Interface]
    routes: frozenset[Route]
    rules: frozenset[PolicyRule]
    dns: WantedDns
    forwarding: frozenset[int]
    source_valid_mark: bool
    tables: frozenset[str]
    tables_if_any: frozenset[str]
    link_local: bool = False
    any_priority: bool = False
    any_mark: bool = False
    extras_when_up: bool = False


def wanted_interface(plan: InterfacePlan, secrets: InterfaceSecrets) -> WantedInterface:
    """Return what an interface is to be on its host."""
    wg_quick = plan.manager is Manager.WG_QUICK
    addresses = tuple(_addresses(plan))
    mark = frozenset(nft_tables(plan.interface, ["mark"])) if plan.restore_mark and not wg_quick else frozenset()
    return WantedInterface(
        network=plan.network,
        name=plan.interface,
        manager=plan.manager,
        device=wanted_device(plan, secrets),
        active=plan.autoconnect,
        # wg-quick reckons one from the routes to its endpoints.
        mtu=plan.mtu if plan.mtu is not None or wg_quick else KERNEL_MTU,
        addresses=frozenset(addresses),
        routes=frozenset(_routes(plan, addresses)),
        rules=frozenset(
            _rule(rule)
            for rule in plan.rules
            # wg-quick knows of one exit node only.
            if not (wg_quick and rule.priority == PRIORITY_OWN_PACKETS)
        ),
        dns=_dns(plan),
        forwarding=plan.forwarding,
        source_valid_mark=plan.source_valid_mark,
        tables=frozenset(nft_tables(plan.interface, ["masquerade"])) if plan.masquerade else frozenset(),
        tables_if_any=mark,
        # Its ipv6.method manual and link-local bring one; they cannot be told not to.
        link_local=plan.manager is Manager.NETWORKMANAGER,
        any_priority=wg_quick,
        any_mark=wg_quick and plan.host.firewall_mark is None and plan.firewall_mark != 0,
        extras_when_up=wg_quick and not plan.forwarding,
    )


def nft_tables(interface: str, kinds: Iterable[str] = ("masquerade", "mark")) -> list[str]:
    """Return the names of the tables that wgnet may make for an interface."""
    return [f"wgnet_{kind}_{nft_identifier(interface)}" for kind in kinds]


# --- addresses and routes --------------------------------------------------------------------------------------------


def _addresses(plan: InterfacePlan) -> Iterator[Interface]:
    for each in plan.addresses:
        if plan.manager is Manager.WG_QUICK:
            # ip-address(8) would make the route to the prefix, in the table main.
            alone = not each.prefix_route
        else:
            # No keyfile can ask for an address without the route to its prefix.
            alone = plan.manager is Manager.NETWORKMANAGER and plan.table == TABLE_OFF
        yield ipaddress.ip_interface(each.address.ip) if alone else each.address


def _routes(plan: InterfacePlan, addresses: tuple[Interface, ...]) -> Iterator[Route]:
    """Yield all routes of the interface but those to its link-local prefix."""
    prefix_routes = {each.address for each in plan.addresses if each.prefix_route}
    for address in addresses:
        yield from _prefix_route(plan, address, address in prefix_routes)
    connected = {address.network for address in addresses}
    for destination, table, metric in _planned(plan):
        if plan.manager is Manager.NETWORKMANAGER and table == plan.table and destination in connected:
            continue  # It makes that one itself.
        # wg-quick can set no metric.
        yield _route(plan, destination, table, 0 if plan.manager is Manager.WG_QUICK else metric)


def _planned(plan: InterfacePlan) -> Iterator[tuple[Prefix, int, int]]:
    if plan.manager is Manager.WG_QUICK and plan.table not in (TABLE_OFF, TABLE_MAIN):
        # With `Table = N` wg-quick routes AllowedIPs as they stand.
        for peer in plan.peers:
            for prefix in peer.allowed_ips:
                yield prefix, plan.table, 0
        return
    for route in plan.routes:
        yield route.destination, route.table, route.metric


def _prefix_route(plan: InterfacePlan, address: Interface, asked: bool) -> Iterator[Route]:
    """Yield the route to an address's prefix, which the kernel or the manager makes beside the plan's."""
    full = address.network.prefixlen == address.max_prefixlen
    if full and address.version == 4:
        return
    if plan.manager is Manager.NETWORKMANAGER:
        # It keeps the kernel from making the route and makes it itself, in the table of the routes, of any length.
        yield _route(plan, address.network, plan.table or TABLE_MAIN, plan.metric)
    elif plan.manager is Manager.WG_QUICK or asked:
        # networkd names a metric where there is a prefix to speak of.
        named = plan.metric and not full and plan.manager is Manager.NETWORKD
        unnamed = 0 if address.version == 4 else _METRIC_ADDRCONF
        yield _route(plan, address.network, TABLE_MAIN, plan.metric if named else unnamed)


def _route(plan: InterfacePlan, destination: Prefix, table: int, metric: int) -> Route:
    if destination.version == 6 and not metric:
        # To IPv6, 0 is no metric.
        metric = _METRIC_USER
    return Route(destination, table, metric, plan.interface)


# --- rules and DNS ---------------------------------------------------------------------------------------------------


def _rule(rule: PolicyRulePlan) -> PolicyRule:
    return PolicyRule(
        version=rule.version,
        priority=rule.priority,
        action=rule.action.value,
        table=rule.table,
        # Of no length it only says the IP version.
        source=rule.source if rule.source is not None and rule.source.prefixlen else None,
        destination=rule.destination if rule.destination is not None and rule.destination.prefixlen else None,
        incoming_interface=rule.incoming_interface,
        firewall_mark=rule.firewall_mark,
        invert=rule.invert,
        suppress_prefix_length=rule.suppress_prefix_length,
    )


def _dns(plan: InterfacePlan) -> WantedDns:
    dns = plan.dns
    wg_quick = plan.manager is Manager.WG_QUICK
    # NetworkManager adds the zones of a VPN's addresses and routes itself.
    more_reverse = plan.manager is Manager.NETWORKMANAGER
    # wg-quick sends every query to the servers, so they are left out of a split.
    if dns is None or (wg_quick and not dns.everything):
        return WantedDns(more_reverse=more_reverse)
    versions = {address.address.version for address in plan.addresses}
    servers = tuple(
        str(server)
        for server in dns.servers
        # The others write only servers that there is an address to ask from.
        if plan.manager is Manager.NETWORKD or server.version in versions
    )
    if not servers:
        return WantedDns(more_reverse=more_reverse)
    domains = [domain for domain in dns.search if not (wg_quick and domain.startswith("~"))]
    domains += ["~."] if dns.everything else []
    return WantedDns(
        servers=servers,
        domains=frozenset([*domains, *(f"~{zone}" for zone in dns.reverse)]),
        # resolvconf(8), which wg-quick calls, has no word for it; `~.` says the same.
        default_route=None if wg_quick else dns.everything,
        more_reverse=more_reverse,
        may_lack=wg_quick,
    )
