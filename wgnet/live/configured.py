"""What files of systemd-networkd say that the kernel alone does not tell.

Stage: live. Input: the text of a .netdev or .network as wgnet writes it; output: endpoints by public key, since a live
one may be where a peer roamed to; names of peers; metrics of addresses; routes; policy rules. A section that somebody
changed into what wgnet does not write is left out. Opens nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from wgnet.live.state import MAIN, PolicyRule, Route

__all__ = ["endpoints_of_netdev", "metrics_of_network", "names_of_netdev", "routes_of_network", "rules_of_network"]

_T = TypeVar("_T")

#: A section: its name, its comments, its keys.
_Section = tuple[str, list[str], dict[str, str]]


def _sections(text: str) -> Iterator[_Section]:
    name = ""
    comments: list[str] = []
    keys: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("["):
            yield name, comments, keys
            name, comments, keys = line.strip("[]"), [], {}
        elif line.startswith("#"):
            comments.append(line.removeprefix("#").strip())
        elif "=" in line:
            key, _, value = line.partition("=")
            keys[key] = value
    yield name, comments, keys


def endpoints_of_netdev(text: str) -> dict[str, str | None]:
    """Return each peer's `Endpoint=`, None where it has none."""
    return {
        keys["PublicKey"]: keys.get("Endpoint")
        for name, _, keys in _sections(text)
        if name == "WireGuardPeer" and "PublicKey" in keys
    }


def names_of_netdev(text: str) -> dict[str, str]:
    """Return each peer's name, which stands as a comment in its section, by its public key."""
    return {
        keys["PublicKey"]: comments[0]
        for name, comments, keys in _sections(text)
        if name == "WireGuardPeer" and "PublicKey" in keys and comments
    }


def metrics_of_network(text: str) -> dict[str, int]:
    """Return the `RouteMetric=` of each `Address=` that has one."""
    return {
        keys["Address"]: int(keys["RouteMetric"])
        for name, _, keys in _sections(text)
        if name == "Address" and keys.get("RouteMetric", "").isdigit() and "Address" in keys
    }


def routes_of_network(text: str, device: str) -> frozenset[Route]:
    """Return the routes by a device that sections `[Route]` ask for, as the kernel has them."""

    def read(keys: Mapping[str, str]) -> Route:
        destination = ipaddress.ip_network(keys["Destination"])
        usual = 0 if destination.version == 4 else 1024
        return Route(destination, int(keys.get("Table", MAIN)), int(keys.get("Metric", usual)), device)

    return _read(text, "Route", read)


def rules_of_network(text: str) -> frozenset[PolicyRule]:
    """Return the policy rules that sections `[RoutingPolicyRule]` ask for, as the kernel has them."""
    return _read(text, "RoutingPolicyRule", _rule)


def _rule(keys: Mapping[str, str]) -> PolicyRule:
    source, destination = (ipaddress.ip_network(keys[key]) if key in keys else None for key in ("From", "To"))
    named = source or destination
    return PolicyRule(
        version=named.version if named else {"ipv4": 4, "ipv6": 6}[keys["Family"]],
        priority=int(keys["Priority"]),
        action=keys.get("Type", "lookup"),
        table=int(keys["Table"]) if "Table" in keys else None,
        source=source,
        destination=destination,
        incoming_interface=keys.get("IncomingInterface"),
        firewall_mark=int(keys["FirewallMark"]) if "FirewallMark" in keys else None,
        invert=keys.get("InvertRule") == "yes",
        suppress_prefix_length=int(keys["SuppressPrefixLength"]) if "SuppressPrefixLength" in keys else None,
    )


def _read(text: str, section: str, read: Callable[[Mapping[str, str]], _T]) -> frozenset[_T]:
    found = set()
    for name, _, keys in _sections(text):
        if name == section:
            try:
                found.add(read(keys))
            except (KeyError, ValueError):
                continue
    return frozenset(found)
