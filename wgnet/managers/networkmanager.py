"""NetworkManager: an interface's plan -> the description of a profile -> its keyfile.

Stage: managers. Input: a plan and the secrets at hand; output: artifacts, or the description that `nm_settings.to_dbus`
turns into what the daemon takes over D-Bus. What is written means the same to all versions from 1.36 to 1.58. Opens
nothing.
"""

from __future__ import annotations

import ipaddress

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import quote_names
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets, public_keys
from wgnet.managers.inline import dns_servers, preshared_key, report_absent, report_credentials
from wgnet.managers.nm_keyfile import to_groups
from wgnet.managers.nm_settings import (
    SECRET_IN_PROFILE,
    SECRET_WITH_AGENT,
    Choice,
    IpAddress,
    Peer,
    Property,
    Route,
    Rule,
    Setting,
    Settings,
)
from wgnet.managers.templates import Templates
from wgnet.model.topology import TABLE_MAIN, TABLE_OFF
from wgnet.plan.types import InterfacePlan, PolicyRulePlan
from wgnet.syntax.spec import Prefix

#: The name space of the profiles' UUIDs; never change it: profiles are found again by them.
_NAMESPACE = "128eba68-fdd8-46f9-b2ff-ed84e4386d18"
#: NM_SETTING_IP6_CONFIG_ADDR_GEN_MODE_STABLE_PRIVACY. A profile that says nothing means eui64 in a keyfile and
#: stable-privacy on D-Bus, and WireGuard has no hardware address to make an eui64 of.
_STABLE_PRIVACY = Choice(1, "stable-privacy")
#: A negative priority shuts out the servers of every connection with a greater one.
_DNS_EXCLUSIVE = -50
#: Behind the 100 of ordinary connections. Where NetworkManager writes resolv.conf itself, which has no split, its own
#: 50 for WireGuard would send every query to the network's servers first. resolved and dnsmasq go by the domains.
_DNS_BEHIND = 150
#: NetworkManager from 1.44 on makes no route before the interface has an address, of whatever method (commit
#: dabfa26a41), until 1.46 excepts static ones (commit 0e7bda8ad8). For IPv6 there is the link-local address.
_NO_ROUTE_WITHOUT_ADDRESS = ((1, 43), (1, 46))


class NetworkManager:
    """Renders the keyfile of a connection profile. `base` is /etc, or /run for what is to be gone after a reboot."""

    def __init__(self, templates: Templates, base: str = "/etc") -> None:
        self._templates = templates
        self._folder = f"{base}/NetworkManager/system-connections"

    def check(self, plan: InterfacePlan, diagnostics: Diagnostics) -> None:
        """Report, at its place, everything in the plan that NetworkManager or its version cannot express."""
        report_credentials(plan, "NetworkManager", diagnostics)
        host = plan.host
        routed = any(route.destination.version == 4 for route in plan.routes)
        if routed and not _has_address(plan, 4) and not _routes_without_address(plan.manager_version):
            diagnostics.report(
                codes.VERSION_CANNOT,
                f"NetworkManager 1.44 makes no IPv4 routes on an interface without IPv4 address, as on '{host.name}'",
                host.place("addresses"),
                help=(
                    f"give '{host.name}' an IPv4 address",
                    "set `manager-version` if it runs NetworkManager 1.42 or older, or 1.46 or newer",
                ),
            )
        secured = list(dict.fromkeys(peer.name for peer in plan.secured_peers))
        if plan.private_key.kind == "agent" and secured:
            diagnostics.report(
                codes.PRESHARED_WITH_AGENT,
                f"NetworkManager leaves {quote_names(secured)} out when '{host.name}' is switched on: it takes the "
                "private key that the agent tells for all of the profile's secrets, and misses the preshared keys",
                host.place("private-key"),
                help=(
                    "do without preshared keys on these links",
                    f"leave out `private-key` of '{host.name}': both keys are in the profile then, root's alone",
                ),
            )

    def render(self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> list[Artifact]:
        """Return the keyfile, which is root's alone, or NetworkManager refuses it. Absent secrets are reported.

        Without its private key a keyfile still loads; who activates it is asked for the key. Raises TemplateProblem.
        """
        path = f"{self._folder}/wgnet-{plan.interface}.nmconnection"
        report_absent(
            plan, secrets, path, diagnostics, ("set `private-key: {agent: true}` to have the desktop ask for it",)
        )
        settings = describe(plan, secrets)
        text = self._templates.render(
            "networkmanager/keyfile.j2", network=plan.network, host=plan.host.name, groups=to_groups(settings)
        )
        return [
            Artifact(path=path, network=plan.network, content=text.encode(), mode=0o600, secret=settings.has_secrets)
        ]


def profile_uuid(network: str, host: str) -> str:
    """Return the UUID of a host's profile of a network; it outlives another interface name, manager or key."""
    # It brings hashlib, which `wgnet check` needs not.
    import uuid

    return str(uuid.uuid5(uuid.UUID(_NAMESPACE), f"{network}/{host}"))


def describe(plan: InterfacePlan, secrets: InterfaceSecrets) -> Settings:
    """Describe the connection profile of an interface. Secrets that are not at hand are left out."""
    return Settings((_connection(plan), _wireguard(plan, secrets), _ip(plan, 4), _ip(plan, 6)))


def _connection(plan: InterfacePlan) -> Setting:
    host = plan.host
    properties = [
        # What stands in the desktop's menu.
        Property("id", "s", plan.network),
        Property("uuid", "s", profile_uuid(plan.network, host.name)),
        Property("type", "s", "wireguard"),
        Property("interface-name", "s", plan.interface),
        Property("autoconnect", "b", plan.autoconnect),
    ]
    if host.permissions:
        properties.append(Property("permissions", "as", tuple(f"user:{user}:" for user in host.permissions)))
    if host.zone is not None:
        properties.append(Property("zone", "s", host.zone))
    return Setting("connection", tuple(properties))


def _wireguard(plan: InterfacePlan, secrets: InterfaceSecrets) -> Setting:
    properties: list[Property] = []
    if plan.private_key.kind == "agent":
        properties.append(Property("private-key-flags", "u", SECRET_WITH_AGENT))
    else:
        if secrets.private_key is not None:
            properties.append(Property("private-key", "s", secrets.private_key))
        properties.append(Property("private-key-flags", "u", SECRET_IN_PROFILE))
    if plan.listen_port:
        properties.append(Property("listen-port", "u", plan.listen_port))
    if plan.firewall_mark:
        properties.append(Property("fwmark", "u", plan.firewall_mark))
    if plan.mtu is not None:
        properties.append(Property("mtu", "u", plan.mtu))
    properties += [
        # Routes and rules stand in [ipv4] and [ipv6], so that every version, and systemd-networkd, makes the same.
        # NetworkManager's own differ: before 1.56 it routes prefixes that the interface's address covers already; its
        # rules have priorities that hang on the UUID, so that no rule of `bypass` can be put before them.
        Property("peer-routes", "b", False),
        Property("ip4-auto-default-route", "i", 0),
        Property("ip6-auto-default-route", "i", 0),
    ]
    peers = tuple(
        Peer(
            comment=peer.name,
            public_key=public_key,
            endpoint=str(peer.endpoints[0]) if peer.endpoints else None,
            preshared_key=preshared_key(peer, public_key, secrets),
            persistent_keepalive=peer.persistent_keepalive,
            allowed_ips=tuple(map(str, peer.allowed_ips)) if in_use else (),
        )
        for peer in plan.peers
        for public_key, in_use in public_keys(peer)
    )
    if peers:
        properties.append(Property("peers", "aa{sv}", peers))
    return Setting("wireguard", tuple(properties))


# --- [ipv4] and [ipv6] -----------------------------------------------------------------------------------------------


def _ip(plan: InterfacePlan, version: int) -> Setting:
    properties = [Property("method", "s", _method(plan, version))]
    if version == 6 and properties[0].value != "disabled":
        properties.append(Property("addr-gen-mode", "i", _STABLE_PRIVACY))
    addresses = tuple(
        IpAddress(_interface(plan, each.address)) for each in plan.addresses if each.address.version == version
    )
    if addresses:
        properties.append(Property("address-data", "aa{sv}", addresses))
        # For the route to the address's own prefix, which NetworkManager makes itself, and in the table below.
        properties.append(Property("route-metric", "x", plan.metric))
    if plan.table not in (TABLE_MAIN, TABLE_OFF):
        properties.append(Property("route-table", "u", plan.table))
    connected = {each.interface.network for each in addresses}
    routes = tuple(
        Route(
            destination=route.destination,
            metric=route.metric,
            table=None if route.table == plan.table else route.table,
        )
        for route in plan.routes
        if route.destination.version == version and not (route.table == plan.table and route.destination in connected)
    )
    if routes:
        properties.append(Property("route-data", "aa{sv}", routes))
    properties += _dns(plan, version)
    rules = tuple(_rule(rule) for rule in plan.rules if rule.version == version)
    if rules:
        properties.append(Property("routing-rules", "aa{sv}", rules))
    return Setting(f"ipv{version}", tuple(properties))


def _method(plan: InterfacePlan, version: int) -> str:
    """Return the method that lets addresses, routes and rules of an IP version through in every version.

    `manual` wants an address before 1.46. `disabled` still makes routes and rules of IPv4, but turns IPv6 off on the
    interface, so that a relay without an address of its own needs `link-local` for what it passes on.
    """
    if _has_address(plan, version):
        return "manual"
    carries = any(prefix.version == version for peer in plan.peers for prefix in peer.allowed_ips)
    return "link-local" if version == 6 and carries else "disabled"


def _interface(
    plan: InterfacePlan, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    """Return an address with the length to write.

    No keyfile can ask for an address without the route to its prefix. So where no routes are wanted at all the prefix
    is the address alone, whose route leads nowhere but to the host itself.
    """
    return ipaddress.ip_interface(address.ip) if plan.table == TABLE_OFF else address


def _dns(plan: InterfacePlan, version: int) -> list[Property]:
    """Return the servers of one IP version and the domains that they are asked for."""
    servers = dns_servers(plan, version)
    if plan.dns is None or not servers:
        return []
    search = (
        *(("~.",) if plan.dns.everything else ()),
        *plan.dns.search,
        *(f"~{zone}" for zone in plan.dns.reverse),
    )
    return [
        Property("dns", "au" if version == 4 else "aay", servers),
        Property("dns-search", "as", search),
        Property("dns-priority", "i", _DNS_EXCLUSIVE if plan.dns.everything else _DNS_BEHIND),
    ]


def _rule(rule: PolicyRulePlan) -> Rule:
    return Rule(
        version=rule.version,
        priority=rule.priority,
        table=rule.table,
        source=_none_if_all(rule.source),
        destination=_none_if_all(rule.destination),
        incoming_interface=rule.incoming_interface,
        firewall_mark=rule.firewall_mark,
        invert=rule.invert,
        suppress_prefix_length=rule.suppress_prefix_length,
    )


def _none_if_all(prefix: Prefix | None) -> Prefix | None:
    """Return the prefix, or None for one of length 0, which NetworkManager refuses on D-Bus."""
    return prefix if prefix is not None and prefix.prefixlen else None


def _has_address(plan: InterfacePlan, version: int) -> bool:
    return any(each.address.version == version for each in plan.addresses)


def _routes_without_address(version: tuple[int, ...] | None) -> bool:
    if version is None or len(version) < 2:
        return False
    first, last = _NO_ROUTE_WITHOUT_ADDRESS
    return not first <= version[:2] < last
