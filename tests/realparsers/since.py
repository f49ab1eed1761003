"""Which version of systemd-networkd and NetworkManager brought which key.

Input: a host's rendered tree, and the versions to serve. Output: the keys in it that are newer, or gone. This stands in
for versions that cannot be run here: Ubuntu 22.04's systemd 249 and NetworkManager 1.36 are in no Debian suite.
Sources: systemd.netdev(5), systemd.network(5) and networkd.conf(5) of systemd 262; `Since:` in NetworkManager 1.58's
settings. `test_harness.py` holds the networkd table against the daemons that are there.
"""

from __future__ import annotations

import re
from pathlib import Path

from realparsers.networkd import sections
from realparsers.networkmanager import parse_keyfile

#: Keys of .netdev files, by section, as `KEY:VERSION`.
_NETDEV = {
    "Match": "Host:211 Virtualization:211 KernelCommandLine:211 KernelVersion:237 Credential:252 Architecture:211 "
    "Firmware:249",
    "NetDev": "Description:215 Name:211 Kind:211 MTUBytes:215 MACAddress:215",
    "VRF": "Table:243",
    "WireGuard": "PrivateKey:237 PrivateKeyFile:242 ListenPort:237 FirewallMark:243 RouteTable:250 RouteMetric:250",
    "WireGuardPeer": "PublicKey:237 PublicKeyFile:257 PresharedKey:237 PresharedKeyFile:242 AllowedIPs:237 "
    "Endpoint:237 PersistentKeepalive:237 RouteTable:250 RouteMetric:250",
}
#: Keys of .network files, likewise.
_NETWORK = {
    "Match": "Name:211 Kind:251 Type:211 Driver:211 Path:211 Property:243 MACAddress:211 PermanentMACAddress:245 "
    "Host:211 Virtualization:211 KernelCommandLine:211 KernelVersion:237 Credential:252 Architecture:211 "
    "Firmware:249",
    "Link": "MACAddress:218 MTUBytes:218 ARP:232 Multicast:239 AllMulticast:239 Promiscuous:248 Unmanaged:233 "
    "Group:246 RequiredForOnline:236 RequiredFamilyForOnline:249 ActivationPolicy:248",
    "Network": "Description:211 DHCP:211 LinkLocalAddressing:219 LLMNR:216 MulticastDNS:229 DNSOverTLS:239 DNSSEC:229 "
    "DNSSECNegativeTrustAnchors:229 LLDP:219 EmitLLDP:230 BindCarrier:220 Address:211 Gateway:211 DNS:211 "
    "Domains:216 DNSDefaultRoute:240 NTP:216 IPForward:219 IPv4Forwarding:256 IPv6Forwarding:256 IPMasquerade:219 "
    "IPv6PrivacyExtensions:222 IPv6AcceptRA:231 IPv6DuplicateAddressDetection:228 IPv6HopLimit:228 "
    "IPv6RetransmissionTimeSec:256 IPv4ReversePathFilter:255 IPv4AcceptLocal:246 IPv4RouteLocalnet:248 "
    "IPv4SrcValidMark:261 IPv4ProxyARP:233 IPv4ProxyARPPrivateVLAN:256 IPv6ProxyNDP:234 IPv6ProxyNDPAddress:233 "
    "IPv6SendRA:247 IPv6MTUBytes:239 MulticastIGMPVersion:257 MPLSRouting:258 VRF:211 KeepMaster:250 "
    "ConfigureWithoutCarrier:235 IgnoreCarrierLoss:242 KeepConfiguration:243 DefaultRouteOnDevice:243",
    "Address": "Address:211 Peer:216 Broadcast:211 Label:211 PreferredLifetime:230 Scope:235 RouteMetric:246 "
    "HomeAddress:232 DuplicateAddressDetection:232 ManageTemporaryAddress:232 AddPrefixRoute:245 AutoJoin:232 "
    "NFTSet:255",
    "Route": "Gateway:211 GatewayOnLink:234 Destination:211 Source:218 Metric:216 IPv6Preference:234 Scope:219 "
    "PreferredSource:227 Table:230 HopLimit:255 Protocol:234 Type:235 InitialCongestionWindow:237 "
    "InitialAdvertisedReceiveWindow:237 QuickAck:237 FastOpenNoCookie:243 MTUBytes:239 "
    "TCPAdvertisedMaximumSegmentSize:248 TCPCongestionControlAlgorithm:252 TCPRetransmissionTimeoutSec:255 "
    "MultiPathRoute:245 NextHop:248",
    "RoutingPolicyRule": "TypeOfService:235 From:235 To:235 FirewallMark:235 Table:235 Priority:235 GoTo:257 "
    "IncomingInterface:236 OutgoingInterface:236 L3MasterDevice:256 SourcePort:240 DestinationPort:240 "
    "IPProtocol:240 InvertRule:240 Family:243 User:245 SuppressPrefixLength:245 SuppressInterfaceGroup:250 Type:248",
}
#: Keys of networkd.conf, likewise.
_CONF = {
    "Network": "SpeedMeter:244 SpeedMeterIntervalSec:244 ManageForeignRoutingPolicyRules:249 ManageForeignRoutes:246 "
    "ManageForeignNextHops:256 RouteTable:248 IPv4Forwarding:256 IPv6Forwarding:256 IPv6PrivacyExtensions:254 "
    "UseDomains:256",
}
#: Keys that a version stopped to honour.
GONE = {("network", "Network", "IPForward"): 256}


def _table(kind: str, text: dict[str, str]) -> dict[tuple[str, str, str], int]:
    pairs = ((section, *pair.split(":")) for section, keys in text.items() for pair in keys.split())
    return {(kind, section, key): int(version) for section, key, version in pairs}


#: (`netdev`, `network` or `conf`; section; key) -> the systemd that brought it.
SINCE = _table("netdev", _NETDEV) | _table("network", _NETWORK) | _table("conf", _CONF)

#: (setting, key) -> the NetworkManager that brought it. `ip` is ipv4 and ipv6; numbers in names are `#`.
KEYFILE_SINCE = {
    **{
        (setting, key): version
        for setting, version, keys in (
            ("connection", "0.9", "id uuid type interface-name autoconnect autoconnect-priority zone permissions"),
            ("connection", "0.9", "timestamp secondaries master slave-type gateway-ping-timeout"),
            ("connection", "1.2", "metered lldp"),
            ("connection", "1.4", "stable-id"),
            ("connection", "1.6", "autoconnect-retries"),
            ("connection", "1.10", "auth-retries"),
            ("connection", "1.12", "mdns"),
            ("connection", "1.14", "llmnr multi-connect"),
            ("connection", "1.20", "wait-device-timeout"),
            ("connection", "1.26", "mud-url"),
            ("connection", "1.34", "dns-over-tls"),
            ("connection", "1.40", "mptcp-flags wait-activation-delay"),
            ("connection", "1.46", "controller port-type"),
            ("connection", "1.48", "down-on-poweroff"),
            ("connection", "1.52", "ip-ping-addresses ip-ping-addresses-require-all ip-ping-timeout"),
            ("connection", "1.56", "dnssec"),
            ("wireguard", "1.16", "private-key private-key-flags fwmark listen-port peer-routes mtu"),
            ("wireguard", "1.20", "ip4-auto-default-route ip6-auto-default-route"),
            ("wireguard-peer", "1.16", "endpoint preshared-key preshared-key-flags persistent-keepalive allowed-ips"),
            ("ip", "0.9", "method dns dns-search gateway route-metric ignore-auto-routes ignore-auto-dns"),
            ("ip", "0.9", "never-default may-fail address# route# ip6-privacy"),
            ("ip", "1.2", "dns-options addr-gen-mode route#_options"),
            ("ip", "1.4", "dns-priority token"),
            ("ip", "1.10", "route-table"),
            ("ip", "1.18", "routing-rule#"),
            ("ip", "1.34", "required-timeout"),
            ("ip", "1.40", "link-local mtu"),
            ("ip", "1.42", "auto-route-ext-gw"),
            ("ip", "1.44", "replace-local-rule"),
            ("ip", "1.52", "routed-dns"),
            ("ip", "1.54", "forwarding"),
        )
        for key in keys.split()
    },
}
#: Attributes of routeN_options, likewise; those not in 1.36 but in 1.42 count as 1.42.
ROUTE_OPTIONS_SINCE = {
    **dict.fromkeys(("table", "src", "tos", "onlink", "window", "cwnd", "initcwnd", "initrwnd", "mtu", "from"), "1.10"),
    **dict.fromkeys(("lock-window", "lock-cwnd", "lock-initcwnd", "lock-initrwnd", "lock-mtu"), "1.10"),
    **dict.fromkeys(("type", "scope"), "1.36"),
    **dict.fromkeys(("weight", "advmss", "lock-advmss", "quickack", "rto_min"), "1.42"),
}


def too_new(tree: Path, *, networkd: int = 249, nm: str = "1.36") -> list[str]:
    """Return the keys of a tree's networkd files and keyfiles that these versions do not know, or no longer honour.

    A key that the tables do not have is reported too, so that they grow with what is rendered.
    """
    found = []
    folder = tree / "etc/systemd"
    for pattern, kind in (
        ("network/*.netdev", "netdev"),
        ("network/*.netdev.d/*.conf", "netdev"),
        ("network/*.network", "network"),
        ("network/*.network.d/*.conf", "network"),
        ("networkd.conf.d/*.conf", "conf"),
    ):
        for path in sorted(folder.glob(pattern)):
            keys = {(section, key) for section, pairs in sections(path.read_text()) for key, _ in pairs}
            found += [f"{path.name}: {said}" for said in _networkd_keys(kind, sorted(keys), networkd)]
    for path in sorted((tree / "etc/NetworkManager/system-connections").glob("*.nmconnection")):
        found += [f"{path.name}: {said}" for said in _keyfile_keys(path.read_text(), nm)]
    return found


def _networkd_keys(kind: str, keys: list[tuple[str, str]], version: int) -> list[str]:
    found = []
    for section, key in keys:
        since = SINCE.get((kind, section, key))
        gone = GONE.get((kind, section, key))
        if since is None:
            found.append(f"[{section}] {key}= is not in the table of versions")
        elif since > version:
            found.append(f"[{section}] {key}= needs systemd {since}")
        elif gone is not None and gone <= version:
            found.append(f"[{section}] {key}= is ignored since systemd {gone}")
    return found


def _keyfile_keys(text: str, version: str) -> list[str]:
    found = []
    for group, keys in parse_keyfile(text).items():
        setting = "wireguard-peer" if group.startswith("wireguard-peer.") else group
        setting = "ip" if setting in ("ipv4", "ipv6") else setting
        for key, value in keys.items():
            name = re.sub(r"(?<=[a-z])\d+(?=_|$)", "#", key)
            needs = [(f"[{group}] {key}", KEYFILE_SINCE.get((setting, name), KEYFILE_SINCE.get((setting, key))))]
            if name == "route#_options":
                options = [option.partition("=")[0] for option in value.split(",")]
                needs += [(f"[{group}] {key}: {option}", ROUTE_OPTIONS_SINCE.get(option)) for option in options]
            for what, since in needs:
                if since is None:
                    found.append(f"{what} is not in the table of versions")
                elif _number(since) > _number(version):
                    found.append(f"{what} needs NetworkManager {since}")
    return found


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
