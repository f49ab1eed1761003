"""NetworkManager's profiles as it has them beside those that they are to be.

Stage: live. Input: settings as D-Bus has them, plain data; output: what differs, and the settings to send. The same
profile comes back in other words than it was sent in: without what is a default, with older forms of what it holds
beside the newer ones. Runs nothing. Results hold keys in plain where their input does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from collections.abc import Mapping
from typing import Any

from wgnet.keys.types import PrivateKey
from wgnet.live.state import PolicyRule
from wgnet.managers.nm_settings import SECRET_IN_PROFILE, DbusSettings, Variant
from wgnet.syntax.spec import Prefix

__all__ = [
    "as_told",
    "configured_endpoints",
    "differences",
    "exchanged",
    "has_preshared_keys",
    "ip_differs",
    "keeps_private_key",
    "policy_rules",
    "secrets_differ",
    "with_key_for_agent",
    "with_private_key_of",
    "without_secrets",
]

#: Values that mean the same as their absence; nm-settings-dbus(5), and the same from 1.36 to 1.58 where it matters.
_DEFAULTS: dict[tuple[str, str], object] = {
    ("connection", "autoconnect"): True,
    ("connection", "permissions"): [],
    ("wireguard", "private-key-flags"): 0,
    ("wireguard", "listen-port"): 0,
    ("wireguard", "fwmark"): 0,
    ("wireguard", "mtu"): 0,
    ("wireguard", "peer-routes"): True,
    ("wireguard", "ip4-auto-default-route"): -1,
    ("wireguard", "ip6-auto-default-route"): -1,
    # What a profile that came over D-Bus has.
    ("ipv6", "addr-gen-mode"): 1,
    ("ip", "route-metric"): -1,
    ("ip", "route-table"): 0,
    ("ip", "dns-priority"): 0,
}
#: When it was last up; the older forms of `address-data` and `route-data`.
_IGNORED = {
    ("connection", "timestamp"),
    ("ip", "addresses"),
    ("ip", "routes"),
}
_IP = ("ipv4", "ipv6")
#: Of linux/fib_rules.h and linux/socket.h.
_ACTION_PROHIBIT, _AF_INET, _ALL_BITS = 8, 2, 0xFFFFFFFF
#: Not required: what a peer without a preshared key has.
_NOT_REQUIRED = 4

Normal = dict[tuple[str, str], object]


def differences(wanted: DbusSettings, current: DbusSettings) -> list[tuple[str, str]]:
    """Return the settings and properties that differ, in order. Secrets count where both have their settings whole."""
    ours, theirs = _normal(wanted), _normal(current)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def ip_differs(wanted: DbusSettings, applied: DbusSettings) -> bool:
    """Tell whether addresses, routes, rules, DNS or zone differ from what a device was given."""
    return any(
        setting in _IP or (setting, name) == ("connection", "zone")
        for setting, name in differences(without_secrets(wanted), without_secrets(applied))
    )


def policy_rules(settings: DbusSettings) -> frozenset[PolicyRule]:
    """Return the policy rules that a profile asks for, as the kernel has them, but what wgnet does not write."""
    found = set()
    for setting in _IP:
        for item in _list(settings.get(setting, {}).get("routing-rules", ("aa{sv}", []))):
            with contextlib.suppress(KeyError, ValueError):
                found.add(_policy_rule(_plain(item)))
    return frozenset(found)


def _policy_rule(item: Mapping[str, Any]) -> PolicyRule:
    def prefix(name: str) -> Prefix | None:
        return ipaddress.ip_network(f"{item[name]}/{item[f'{name}-len']}") if name in item else None

    mask = item.get("fwmask")
    return PolicyRule(
        version=4 if item["family"] == _AF_INET else 6,
        priority=item["priority"],
        action="prohibit" if item.get("action") == _ACTION_PROHIBIT else "lookup",
        table=item.get("table"),
        source=prefix("from"),
        destination=prefix("to"),
        incoming_interface=item.get("iifname"),
        firewall_mark=item.get("fwmark"),
        firewall_mask=None if mask == _ALL_BITS else mask,
        invert=item.get("invert", False),
        suppress_prefix_length=item.get("suppress-prefixlength"),
    )


def _normal(settings: DbusSettings) -> Normal:
    """Return a profile in one form, whatever form it was in."""
    found: Normal = {}
    for setting, properties in settings.items():
        kind = "ip" if setting in _IP else setting
        for name, (_, value) in properties.items():
            default = _DEFAULTS.get((setting, name), _DEFAULTS.get((kind, name)))
            if (kind, name) not in _IGNORED and value not in ([], default):
                found[setting, name] = value
        dns = _servers(setting, properties)
        found.pop((setting, "dns-data"), None)
        found.pop((setting, "dns"), None)
        if dns:
            found[setting, "dns"] = dns
        for name in ("address-data", "route-data", "routing-rules"):
            if (setting, name) in found:
                # Their order means nothing; the first address is preferred, though.
                items = [_plain(item) for item in properties[name][1]]  # type: ignore[attr-defined]
                found[setting, name] = items if name == "address-data" else sorted(items, key=repr)
    if found.get(("ipv6", "method")) == "disabled":
        # A keyfile that does not speak of it means another than D-Bus does.
        found.pop(("ipv6", "addr-gen-mode"), None)
    if "peers" in settings.get("wireguard", {}):
        found["wireguard", "peers"] = {peer["public-key"][1]: _peer(peer) for peer in _peers(settings)}
    return found


def _plain(item: Mapping[str, Variant]) -> dict[str, object]:
    return {name: item[name][1] for name in sorted(item)}


def _servers(setting: str, properties: Mapping[str, Variant]) -> list[str]:
    """Return the DNS servers of an IP version; `dns-data`, since 1.42, may say more than the address."""
    if "dns-data" in properties:
        return [str(server) for server in _list(properties["dns-data"])]
    servers = _list(properties.get("dns", ("au", [])))
    if setting == "ipv4":
        return [str(ipaddress.IPv4Address(int(number).to_bytes(4, sys.byteorder))) for number in servers]
    return [str(ipaddress.IPv6Address(bytes(address))) for address in servers] if setting == "ipv6" else []


def _list(variant: Variant) -> list[Any]:
    value = variant[1]
    return value if isinstance(value, list) else []


def _peers(settings: DbusSettings) -> list[dict[str, Variant]]:
    return _list(settings.get("wireguard", {}).get("peers", ("aa{sv}", [])))


def _peer(peer: Mapping[str, Variant]) -> dict[str, object]:
    item = _plain(peer)
    if item.get("preshared-key-flags") == _NOT_REQUIRED and "preshared-key" not in item:
        del item["preshared-key-flags"]
    if not item.get("persistent-keepalive"):
        item.pop("persistent-keepalive", None)
    allowed = item.pop("allowed-ips", [])
    return {**item, "allowed-ips": sorted(allowed)}  # type: ignore[call-overload]


# --- secrets ---------------------------------------------------------------------------------------------------------


def keeps_private_key(settings: DbusSettings) -> bool:
    """Tell whether the private key is to be in the profile itself, not with a user's agent."""
    return settings.get("wireguard", {}).get("private-key-flags", ("u", SECRET_IN_PROFILE))[1] == SECRET_IN_PROFILE


def has_preshared_keys(settings: DbusSettings) -> bool:
    """Tell whether any peer has a preshared key in the profile."""
    return any(
        peer.get("preshared-key-flags", ("u", _NOT_REQUIRED))[1] == SECRET_IN_PROFILE for peer in _peers(settings)
    )


def as_told(wanted: DbusSettings, told: DbusSettings) -> DbusSettings:
    """Return wanted settings as they can be compared with `told`: without secrets, where none may have been told.

    NetworkManager tells no secret of a profile at all while the user's agent runs and lacks the private key.
    """
    if keeps_private_key(wanted) or any("preshared-key" in peer for peer in _peers(told)):
        return wanted
    return without_secrets(wanted)


def with_private_key_of(wanted: DbusSettings, current: DbusSettings) -> DbusSettings:
    """Return wanted settings that lack their private key with the one that the profile has.

    Sent with preshared keys alone, they would take it away: any secret that is sent replaces all.
    """
    wireguard = wanted.get("wireguard", {})
    key = current.get("wireguard", {}).get("private-key")
    if "private-key" in wireguard or key is None or not keeps_private_key(wanted):
        return wanted
    return {**wanted, "wireguard": {**wireguard, "private-key": key}}


def with_key_for_agent(settings: DbusSettings, key: PrivateKey | None) -> DbusSettings:
    """Return settings that hand a private key to the user's agent; unchanged without one, or where the profile has it.

    NetworkManager has the agent keep what it is sent, and forget what it is not, with each change of the profile.
    """
    if key is None or keeps_private_key(settings):
        return settings
    return {**settings, "wireguard": {**settings["wireguard"], "private-key": ("s", key.reveal())}}


def secrets_differ(wanted: DbusSettings, former: DbusSettings) -> bool:
    """Tell whether a key in one profile is not in the other, or not the same."""
    return _secrets(wanted) != _secrets(former)


def _secrets(settings: DbusSettings) -> dict[str, object]:
    found = {
        str(peer["public-key"][1]): peer["preshared-key"][1] for peer in _peers(settings) if "preshared-key" in peer
    }
    wireguard = settings.get("wireguard", {})
    return {**found, "": wireguard["private-key"][1]} if "private-key" in wireguard else found


def without_secrets(settings: DbusSettings) -> DbusSettings:
    """Return settings without their keys, as what a device was given has them."""
    wireguard = {name: value for name, value in settings.get("wireguard", {}).items() if name != "private-key"}
    if "peers" in wireguard:
        peers = [{name: each for name, each in peer.items() if name != "preshared-key"} for peer in _peers(settings)]
        wireguard["peers"] = ("aa{sv}", peers)
    return {**settings, "wireguard": wireguard}


# --- what a device is given ------------------------------------------------------------------------------------------


def exchanged(applied: DbusSettings, wanted: DbusSettings) -> DbusSettings:
    """Return what to reapply to a device: what it has, with the IP settings and the zone of the profile wanted.

    NetworkManager sets all of the device again whenever it reapplies anything. So the listen port, the mark and the
    peers are the wanted ones too, not those of long ago, which may have changed with wg(8) since. A peer of those that
    is gone stays, with nothing: were it left out, all peers would be replaced, and their sessions lost.
    """
    wanted = without_secrets(wanted)
    connection = {name: value for name, value in applied.get("connection", {}).items() if name != "zone"}
    if "zone" in wanted.get("connection", {}):
        connection["zone"] = wanted["connection"]["zone"]
    wireguard = dict(without_secrets(applied).get("wireguard", {}))
    for name in ("listen-port", "fwmark"):
        wireguard.pop(name, None)
        if name in wanted.get("wireguard", {}):
            wireguard[name] = wanted["wireguard"][name]
    peers = {peer["public-key"][1]: peer for peer in _peers(wanted)}
    gone = [{"public-key": peer["public-key"]} for peer in _peers(applied) if peer["public-key"][1] not in peers]
    # The last of two peers with one prefix has it.
    wireguard["peers"] = ("aa{sv}", [*gone, *peers.values()])
    return {
        **applied,
        "connection": connection,
        "wireguard": wireguard,
        **{name: wanted[name] for name in _IP if name in wanted},
    }


def configured_endpoints(settings: DbusSettings) -> dict[str, str | None]:
    """Return the endpoints that a profile configures, by public key."""
    found: dict[str, str | None] = {}
    for peer in _peers(settings):
        endpoint = peer.get("endpoint")
        found[str(peer["public-key"][1])] = None if endpoint is None else str(endpoint[1])
    return found
