"""What a host's kernel has of its WireGuard interfaces and of what goes with them, and the readers of what tools print.

Stage: live. Input: the text of `ip -N -j` (iproute2), `nft -j list tables` and resolvectl(1); output: frozen values,
which `drift.py` compares with what is wanted. Runs nothing and opens nothing. Who reads the texts may rely on it that
no error quotes one.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wgnet.live.device import LiveDevice
from wgnet.syntax.spec import Interface, Prefix

__all__ = [
    "LiveDns",
    "LiveLink",
    "LiveState",
    "NotUnderstoodError",
    "PolicyRule",
    "Route",
    "parse_dns",
    "parse_links",
    "parse_routes",
    "parse_rules",
    "parse_tables",
]

T = TypeVar("T")

#: Names that iproute2 has by itself, for versions that print names in spite of -N.
_TABLES = {"unspec": 0, "default": 253, "main": 254, "local": 255}
_PROTOCOLS = {"unspec": 0, "redirect": 1, "kernel": 2, "boot": 3, "static": 4, "ra": 9}
_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}
_TYPES |= {"blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}
_TYPE_NAMES = {number: name for name, number in _TYPES.items()}
#: FR_ACT_* of linux/fib_rules.h; those above 5 are numbered like route types.
_ACTION_NAMES = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
LOCAL = _TABLES["local"]
MAIN = _TABLES["main"]
#: The protocol of routes that a manager made.
STATIC = _PROTOCOLS["static"]
#: What a rule's JSON may have that is understood; `iif_detached` says that the interface is not there now.
_RULE_KEYS = frozenset(
    (
        *("priority", "src", "srclen", "dst", "dstlen", "iif", "iif_detached", "fwmark", "fwmask"),
        *("suppress_prefixlen", "suppress_prefixlength"),
        *("table", "action", "not", "protocol"),
    )
)
#: The rules that every kernel has: priority and table; fib_default_rules_init() and fib6_rules_net_init() of Linux.
_KERNEL_RULES = ((0, 255), (32766, 254), (32767, 253))


class NotUnderstoodError(ValueError):
    """A tool printed what cannot be read. The text names the tool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLink:
    """A network interface. `kind` is rtnetlink's, "" for none; `forwarding` the IP versions that it takes to forward.

    For IPv6 the kernel forwards by net.ipv6.conf.all.forwarding alone, whatever stands here.
    """

    name: str
    kind: str
    up: bool
    mtu: int
    addresses: frozenset[Interface]
    forwarding: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """A route, or one path of one that has several.

    `device` None: it leads nowhere, and `type` says how it refuses. `metric` 1024 is IPv6's for none. `protocol`, who
    made it (rtnetlink(7)), makes no route another one.
    """

    destination: Prefix
    table: int
    metric: int
    device: str | None
    type: str = "unicast"
    gateway: str | None = None
    protocol: int = field(default=4, compare=False)

    def __str__(self) -> str:
        words = [] if self.type == "unicast" else [self.type]
        words.append(str(self.destination))
        words += [] if self.gateway is None else [f"via {self.gateway}"]
        words += [] if self.device is None else [f"dev {self.device}"]
        words += [] if self.table == MAIN else [f"table {self.table}"]
        return " ".join([*words, f"metric {self.metric}"])


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of ip-rule(8) that is not one of the kernel's own. None in `source` and `destination` is `all`.

    `table` is None unless `action` is "lookup". `other` is whatever else iproute2 prints of it. `protocol` makes no
    rule another one.
    """

    version: int
    priority: int
    action: str = "lookup"
    table: int | None = None
    source: Prefix | None = None
    destination: Prefix | None = None
    incoming_interface: str | None = None
    firewall_mark: int | None = None
    firewall_mask: int | None = None
    invert: bool = False
    suppress_prefix_length: int | None = None
    other: tuple[str, ...] = ()
    protocol: int = field(default=4, compare=False)

    def __str__(self) -> str:
        words = [f"IPv{self.version} {self.priority}:", *(["not"] if self.invert else [])]
        words.append(f"from {self.source or 'all'}")
        words += [] if self.destination is None else [f"to {self.destination}"]
        if self.firewall_mark is not None:
            mask = "" if self.firewall_mask is None else f"/{self.firewall_mask:#x}"
            words.append(f"fwmark {self.firewall_mark:#x}{mask}")
        words += [] if self.incoming_interface is None else [f"iif {self.incoming_interface}"]
        words.append(self.action if self.table is None else f"lookup {_table_name(self.table)}")
        if self.suppress_prefix_length is not None:
            words.append(f"suppress_prefixlength {self.suppress_prefix_length}")
        return " ".join([*words, *self.other])


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDns:
    """What systemd-resolved has for an interface; `domains` as resolvectl(1) writes them, `~` before a routed one."""

    servers: tuple[str, ...] = ()
    domains: frozenset[str] = frozenset()
    default_route: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """What a host has, of the interfaces that were asked about.

    `devices` are its WireGuard devices, `links` and `routes` those of the interfaces, in all tables but `local`.
    `rules` are all of the host's. `forwarding` are the IP versions of the whole host, `source_valid_mark` is
    net.ipv4.conf.all.src_valid_mark. `tables` are the nftables whose names begin with `wgnet`, None where there is no
    nft(8) to ask. `dns` is None where systemd-resolved does not run. `devices_known` is false where wg(8) was not
    asked, which answers root alone.
    """

    devices: Mapping[str, LiveDevice]
    links: Mapping[str, LiveLink]
    routes: frozenset[Route]
    rules: frozenset[PolicyRule]
    forwarding: frozenset[int]
    source_valid_mark: bool
    tables: frozenset[str] | None
    dns: Mapping[str, LiveDns] | None
    devices_known: bool = True


def _table_name(table: int) -> str:
    return "main" if table == _TABLES["main"] else str(table)


def _read(tool: str, text: str, read: Callable[[dict[str, Any]], T]) -> list[T]:
    """Read a list in JSON, item by item. Raises `NotUnderstoodError`."""
    try:
        # iproute2 prints nothing at all for an empty dump, and `{}` for each link that a filter left out.
        return [read(item) for item in json.loads(text or "[]") if item]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotUnderstoodError(f"the output of `{tool}` was not understood") from None


# --- ip(8) -----------------------------------------------------------------------------------------------------------


def parse_links(text: str, forwarding: Callable[[str], frozenset[int]]) -> dict[str, LiveLink]:
    """Return the links by name of `ip -j -d address show`. `forwarding` knows the IP versions that each takes."""
    links = _read("ip address", text, lambda item: _link(item, forwarding))
    return {link.name: link for link in links}


def _link(item: Mapping[str, Any], forwarding: Callable[[str], frozenset[int]]) -> LiveLink:
    return LiveLink(
        name=item["ifname"],
        kind=item.get("linkinfo", {}).get("info_kind", ""),
        up="UP" in item["flags"],
        mtu=item["mtu"],
        addresses=frozenset(
            ipaddress.ip_interface(f"{each['local']}/{each['prefixlen']}")
            for each in item.get("addr_info", ())
            if "local" in each
        ),
        forwarding=forwarding(item["ifname"]),
    )


def parse_routes(text: str, version: int, device: str | None = None) -> list[Route]:
    """Return the routes of `ip -N -j route show table all`, but those of the table `local`.

    `version` is 4 or 6. `device` is the one that was asked for with `dev`, which no route then names.
    """
    found = _read("ip route", text, lambda item: list(_routes(item, version, device)))
    return [route for routes in found for route in routes if route.table != LOCAL]


def _routes(item: Mapping[str, Any], version: int, asked: str | None) -> Iterator[Route]:
    """Yield the paths of a route. `ip` leaves out what is usual: main, boot, unicast, metric 0 of IPv4."""
    number = _number(item.get("type", "unicast"), _TYPES)
    kind = _TYPE_NAMES.get(number, str(number))
    for path in item.get("nexthops") or (item,):
        device = path.get("dev", item.get("dev", asked))
        yield Route(
            destination=_prefix(item["dst"], version),
            table=_number(item.get("table", "main"), _TABLES),
            metric=item.get("metric", 0),
            # IPv6 puts what refuses on `lo`, IPv4 nowhere.
            device=None if kind in ("unreachable", "blackhole", "prohibit", "throw") else device,
            type=kind,
            gateway=path.get("gateway", item.get("gateway")) or path.get("via", {}).get("host"),
            protocol=_number(item.get("protocol", "boot"), _PROTOCOLS),
        )


def parse_rules(text: str, version: int) -> list[PolicyRule]:
    """Return the rules of `ip -N -j rule show` but the kernel's own. `version` is 4 or 6."""
    return [rule for rule in _read("ip rule", text, lambda item: _rule(item, version)) if not _is_kernels(rule)]


def _rule(item: Mapping[str, Any], version: int) -> PolicyRule:
    number = _number(item.get("action", 1), {"lookup": 1, "goto": 2, "nop": 3, **_TYPES})
    action = _ACTION_NAMES.get(number, str(number))
    suppress = item.get("suppress_prefixlength", item.get("suppress_prefixlen"))
    return PolicyRule(
        version=version,
        priority=item["priority"],
        action=action,
        # A rule that refuses may still be printed with a table, which nothing looks into.
        table=_number(item["table"], _TABLES) if action == "lookup" and "table" in item else None,
        source=_selector(item, "src", version),
        destination=_selector(item, "dst", version),
        incoming_interface=item.get("iif"),
        firewall_mark=_number(item["fwmark"], {}) if "fwmark" in item else None,
        firewall_mask=_number(item["fwmask"], {}) if "fwmask" in item else None,
        # Present without a value.
        invert="not" in item,
        suppress_prefix_length=suppress,
        other=tuple(f"{key} {value}" for key, value in sorted(item.items()) if key not in _RULE_KEYS),
        protocol=_number(item.get("protocol", 0), _PROTOCOLS),
    )


def _number(value: str | int, names: Mapping[str, int]) -> int:
    """Return a number that is printed as such or by a name that everybody knows; -1 for any other name."""
    if isinstance(value, int):
        return value
    if value in names:
        return names[value]
    try:
        return int(value, 0)
    except ValueError:
        return -1


def _prefix(text: str, version: int) -> Prefix:
    if text in ("default", "all"):
        text = "0.0.0.0/0" if version == 4 else "::/0"
    return ipaddress.ip_network(text)


def _selector(item: Mapping[str, Any], key: str, version: int) -> Prefix | None:
    text = item.get(key, "all")
    length = item.get(f"{key}len")
    prefix = _prefix(text if length is None else f"{text}/{length}", version)
    # Of no length it only says the IP version.
    return prefix if prefix.prefixlen else None


def _is_kernels(rule: PolicyRule) -> bool:
    own = (rule.priority, rule.table) in _KERNEL_RULES
    return own and rule == PolicyRule(rule.version, rule.priority, table=rule.table)


# --- nft(8) and resolvectl(1) ----------------------------------------------------------------------------------------


def parse_tables(text: str) -> frozenset[str]:
    """Return the names of the tables that are wgnet's, of `nft -j list tables`."""
    try:
        items = json.loads(text)["nftables"]
        names = {item["table"]["name"] for item in items if "table" in item}
    except (ValueError, KeyError, TypeError):
        raise NotUnderstoodError("the output of `nft list tables` was not understood") from None
    return frozenset(name for name in names if name.startswith("wgnet"))


def parse_dns(servers: str, domains: str, default_routes: str) -> dict[str, LiveDns]:
    """Return by link what `resolvectl dns`, `domain` and `default-route` print; they are alike from 249 to 262."""
    by_link = {name: tuple(_server(word) for word in text.split()) for name, text in _by_link(servers)}
    searched = {name: frozenset(text.split()) for name, text in _by_link(domains)}
    default = {name: text.strip() == "yes" for name, text in _by_link(default_routes)}
    return {
        name: LiveDns(servers=found, domains=searched.get(name, frozenset()), default_route=default.get(name))
        for name, found in by_link.items()
    }


def _server(word: str) -> str:
    """Return a server's address as Python writes it; one with a port, an interface or a name stays as it is."""
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        return word


def _by_link(text: str) -> Iterator[tuple[str, str]]:
    # A long list goes on in the next line, behind blanks.
    joined = re.sub(r"\n[ \t]+", " ", text)
    for match in re.finditer(r"^Link \d+ \((\S+)\):[ \t]*(.*)$", joined, re.MULTILINE):
        yield match[1], match[2]
