"""Reads what was rendered back into devices, as the managers' own parsers would, apart from what rendered it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from property.walk import Device, Peer, Prefix, Refusal
from property.worlds import EVERYTHING

Section = tuple[str, list[tuple[str, str]]]


def device_of_files(files: Mapping[str, bytes]) -> Device:
    """Return the one device that a host's files make, whatever manager they are for."""
    device = Device()
    for path, content in files.items():
        text = content.decode()
        if path.endswith(".netdev"):
            _netdev(text, device, files)
        elif path.endswith(".network"):
            _network(text, device)
        elif path.endswith(".nmconnection"):
            _keyfile(text, device)
        elif path.startswith("/etc/wireguard/"):
            _conf(text, device)
        elif "/sysctl.d/" in path:
            _sysctl(text, device)
    return device


def _sections(text: str) -> Iterator[Section]:
    """Yield the sections of an INI-like file, in order; keys may repeat, and so may sections."""
    name, entries = "", list[tuple[str, str]]()
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            if name:
                yield name, entries
            name, entries = line[1:-1], []
        elif line and not line.startswith(("#", ";")):
            key, equals, value = line.partition("=")
            assert equals, line
            entries.append((key.strip(), value.strip()))
    if name:
        yield name, entries


def _prefixes(text: str) -> list[Prefix]:
    return [ipaddress.ip_network(word) for word in re.split(r"[,;\s]+", text) if word]


def _peer(entries: list[tuple[str, str]]) -> Peer:
    """Read a peer of networkd or wg(8), which use the same words."""
    values = dict(entries)
    assert len(values) == len(entries) or [key for key, _ in entries].count("AllowedIPs") > 1
    return Peer(
        public_key=values["PublicKey"],
        allowed_ips=[prefix for key, value in entries if key == "AllowedIPs" for prefix in _prefixes(value)],
        endpoint=values.get("Endpoint"),
        preshared_key=values.get("PresharedKey"),
        keepalive=int(values.get("PersistentKeepalive", "0")),
    )


def _netdev(text: str, device: Device, files: Mapping[str, bytes]) -> None:
    for section, entries in _sections(text):
        values = dict(entries)
        if section == "WireGuard":
            device.listen_port = int(values.get("ListenPort", "0"))
            device.private_key = values.get("PrivateKey")
            if "PrivateKeyFile" in values:
                device.private_key = files[values["PrivateKeyFile"]].decode().strip()
        elif section == "WireGuardPeer":
            device.peers.append(_peer(entries))


def _network(text: str, device: Device) -> None:
    for section, entries in _sections(text):
        values = dict(entries)
        if section == "Address":
            device.addresses.append(ipaddress.ip_interface(values["Address"]))
        elif section == "Route":
            device.routes.append(ipaddress.ip_network(values["Destination"]))
        elif section == "RoutingPolicyRule" and "IncomingInterface" in values:
            near = values.get("To") or values.get("From")
            version = ipaddress.ip_network(near).version if near else int(values["Family"].removeprefix("ipv"))
            device.refusals.append(
                Refusal(
                    priority=int(values["Priority"]),
                    refuses=values.get("Type") == "prohibit",
                    source=ipaddress.ip_network(values["From"]) if "From" in values else EVERYTHING[version],
                    destination=ipaddress.ip_network(values["To"]) if "To" in values else EVERYTHING[version],
                )
            )
        elif section == "Network":
            device.forwards |= {v for v in (4, 6) if values.get(f"IPv{v}Forwarding") == "yes"}


def _keyfile(text: str, device: Device) -> None:
    for section, entries in _sections(text):
        values = dict(entries)
        if section == "wireguard":
            device.private_key = values.get("private-key")
            device.listen_port = int(values.get("listen-port", "0"))
        elif section.startswith("wireguard-peer."):
            assert ("preshared-key" in values) is (values.get("preshared-key-flags") == "0")
            device.peers.append(
                Peer(
                    public_key=section.removeprefix("wireguard-peer."),
                    allowed_ips=_prefixes(values.get("allowed-ips", "")),
                    endpoint=values.get("endpoint"),
                    preshared_key=values.get("preshared-key"),
                    keepalive=int(values.get("persistent-keepalive", "0")),
                )
            )
        elif section in ("ipv4", "ipv6"):
            for key, value in entries:
                if re.fullmatch(r"address\d+", key):
                    device.addresses.append(ipaddress.ip_interface(value.split(",")[0]))
                elif re.fullmatch(r"route\d+", key):
                    device.routes.append(ipaddress.ip_network(value.split(",")[0]))
                elif re.fullmatch(r"routing-rule\d+", key) and " iif " in value:
                    device.refusals.append(_nm_rule(value, int(section[-1])))


def _nm_rule(text: str, version: int) -> Refusal:
    words = text.split()
    values = dict(zip(words[::2], words[1::2], strict=True))
    return Refusal(
        priority=int(values["priority"]),
        refuses=values.get("type") == "prohibit",
        source=ipaddress.ip_network(values["from"]) if "from" in values else EVERYTHING[version],
        destination=ipaddress.ip_network(values["to"]) if "to" in values else EVERYTHING[version],
    )


def _conf(text: str, device: Device) -> None:
    routed = True
    for section, entries in _sections(text):
        values = dict(entries)
        if section == "Interface":
            device.private_key = values.get("PrivateKey")
            device.listen_port = int(values.get("ListenPort", "0"))
            device.addresses = [ipaddress.ip_interface(word.strip()) for word in values["Address"].split(",")]
            routed = values.get("Table") != "off"
        elif section == "Peer":
            device.peers.append(_peer(entries))
    if routed:  # wg-quick makes a route for every prefix
        device.routes = [prefix for peer in device.peers for prefix in peer.allowed_ips]


def _sysctl(text: str, device: Device) -> None:
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#") and value.strip() == "1":
            if name.strip() in ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"):
                device.forwards.add(4)
            elif name.strip() == "net.ipv6.conf.all.forwarding":
                device.forwards.add(6)
