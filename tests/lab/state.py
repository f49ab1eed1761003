"""What a live host's kernel has: the script that prints it, and its output -> LiveState.

In: the text that `READ` printed as root inside a host (wg(8), iproute2 6.1 and later, nft(8), resolvectl(1)).
Out: frozen values, which expected.py compares with a plan. Of secret keys only a SHA-256 stays, so that no failing test
prints one. Runs nothing and opens nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Address: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Prefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Prints a host's state in sections `@@ NAME`. What a command cannot say is said as `@@ failed COMMAND STATUS`, so that
#: silence is never taken for emptiness. Kernel parameters are read without a process, which are dear under emulation.
READ = r"""
export LC_ALL=C COLUMNS=60000 SYSTEMD_COLORS=0 SYSTEMD_PAGER= SYSTEMD_URLIFY=0
# The tools lie in sbin, which a console's PATH may lack.
PATH=$PATH:/usr/sbin:/sbin
section() { printf '\n@@ %s\n' "$1"; shift; "$@" || printf '\n@@ failed %s %s\n' "$1" "$?"; }
section dump wg show all dump
section addresses ip -j -d address show
section routes4 ip -4 -j route show table all
section routes6 ip -6 -j route show table all
section rules4 ip -4 -j rule show
section rules6 ip -6 -j rule show
command -v nft >/dev/null && section tables nft -j list tables
interfaces=$(wg show interfaces)
printf '\n@@ parameters\n'
parameter() {
  local value
  [ ! -e "/proc/sys/$1" ] || { read -r value <"/proc/sys/$1"; printf '%s %s\n' "$1" "$value"; }
}
parameter net/ipv4/ip_forward
parameter net/ipv4/conf/all/src_valid_mark
parameter net/ipv6/conf/all/forwarding
for interface in $interfaces; do
  parameter "net/ipv4/conf/$interface/forwarding"
  parameter "net/ipv6/conf/$interface/forwarding"
done
for interface in $interfaces; do section "showconf $interface" wg showconf "$interface"; done
if [ -S /run/systemd/resolve/io.systemd.Resolve ] && [ -n "$interfaces" ]; then
  section servers resolvectl dns
  section domains resolvectl domain
  section default-route resolvectl default-route
fi
printf '\n@@ end\n'
"""

#: Numbers of the tables that iproute2 names by itself; rt_tables of iproute2.
_TABLES = {"unspec": 0, "default": 253, "main": 254, "local": 255}
_LOCAL = _TABLES["local"]
#: The rules that every kernel has: priority and table; fib_default_rules_init() and fib6_rules_net_init() of Linux.
_KERNEL_RULES = ((0, 255), (32766, 254), (32767, 253))
# What a rule's JSON may have that this module understands.
_RULE_KEYS = frozenset(
    (
        *("priority", "src", "srclen", "dst", "dstlen", "iif", "iif_detached", "fwmark", "fwmask"),
        # 6.1 prints the first, what is newer may print the second.
        *("suppress_prefixlen", "suppress_prefixlength"),
        *("table", "action", "not", "protocol"),
    )
)


class StateError(ValueError):
    """The text is not the whole output of `READ`, or has what this module does not understand."""


@dataclass(frozen=True)
class Peer:
    """A peer as wg(8) has it. `endpoint` None is `(none)`; `persistent_keepalive` counts seconds, 0 is off."""

    public_key: str
    preshared_key_sha256: str | None
    endpoint: str | None
    allowed_ips: frozenset[Prefix]
    persistent_keepalive: int


@dataclass(frozen=True)
class WireGuard:
    """The WireGuard side of an interface. `public_key` is unknown to `wg showconf`; `firewall_mark` 0 is off."""

    public_key: str | None
    private_key_sha256: str | None
    listen_port: int
    firewall_mark: int
    peers: Mapping[str, Peer]


@dataclass(frozen=True, order=True)
class HostAddress:
    """An address of an interface. `by_kernel`: IFA_PROTO says so (Linux 5.18), as of a link-local that it made."""

    address: Address
    by_kernel: bool = False


@dataclass(frozen=True)
class Dns:
    """What systemd-resolved has for an interface; `domains` as resolvectl writes them."""

    servers: tuple[str, ...] = ()
    domains: frozenset[str] = frozenset()
    default_route: bool | None = None


@dataclass(frozen=True)
class LiveInterface:
    """A WireGuard interface. `wireguard` is of `wg show dump`, `configuration` of `wg showconf`.

    `forwarding` are the IP versions that the kernel forwards from it. `dns` None: the host has no systemd-resolved.
    """

    name: str
    up: bool
    mtu: int
    addresses: frozenset[HostAddress]
    wireguard: WireGuard
    configuration: WireGuard
    forwarding: frozenset[int]
    dns: Dns | None


@dataclass(frozen=True)
class Route:
    """A route, or one path of one that has several. `device` None: it leads nowhere (`type` says how it refuses).

    `protocol`, `scope` and `type` are iproute2's names. `gateway` is None for what a WireGuard interface should have.
    """

    destination: Prefix
    table: int
    metric: int
    device: str | None
    protocol: str = "boot"
    scope: str = "global"
    type: str = "unicast"
    gateway: str | None = None

    def __str__(self) -> str:
        words = [] if self.type == "unicast" else [self.type]
        words += [str(self.destination)]
        words += [] if self.gateway is None else [f"via {self.gateway}"]
        words += [] if self.device is None else [f"dev {self.device}"]
        words += [f"table {self.table} metric {self.metric} proto {self.protocol}"]
        return " ".join(words + ([] if self.scope == "global" else [f"scope {self.scope}"]))


@dataclass(frozen=True)
class PolicyRule:
    """A rule of ip-rule(8) that is not one of the kernel's own.

    `source` and `destination` None are `all`; `table` is None unless `action` is "lookup". `protocol` "unspec" is none.
    `other` is whatever else iproute2 prints of it.
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
    protocol: str = "unspec"
    other: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"IPv{self.version} {self.priority}:", *(["not"] if self.invert else [])]
        words += [f"from {'all' if self.source is None else self.source}"]
        words += [] if self.destination is None else [f"to {self.destination}"]
        if self.firewall_mark is not None:
            words += [f"fwmark {self.firewall_mark:#x}"]
            words += [] if self.firewall_mask is None else [f"mask {self.firewall_mask:#x}"]
        words += [] if self.incoming_interface is None else [f"iif {self.incoming_interface}"]
        words += [self.action if self.table is None else f"{self.action} {self.table}"]
        if self.suppress_prefix_length is not None:
            words += [f"suppress_prefixlength {self.suppress_prefix_length}"]
        return " ".join([*words, *self.other, f"proto {self.protocol}"])


@dataclass(frozen=True)
class LiveState:
    """A host's network, as far as wgnet answers for it.

    `routes` are those of the interfaces in all tables but `local`, and everything in tables that are neither the
    kernel's own nor `local`, whoever's it is. `forwarding`: the IP versions of the whole host. `tables` are
    nftables' whose names begin with `wgnet`. `source_valid_mark` is net.ipv4.conf.all.src_valid_mark.
    """

    interfaces: Mapping[str, LiveInterface]
    routes: frozenset[Route]
    rules: frozenset[PolicyRule]
    forwarding: frozenset[int]
    source_valid_mark: bool
    tables: frozenset[str]


def fingerprint(secret: str) -> str:
    """Return the SHA-256 of a key in base64, in hexadecimal: what stands for a secret wherever it might be printed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_state(text: str, interfaces: Collection[str] | None = None) -> LiveState:
    """Read what `READ` printed. `interfaces`: only these, each of which must be there; None: every WireGuard one.

    Raises StateError, which never quotes a section with keys.
    """
    sections = _sections(text)
    dumps = _dump(sections["dump"])
    links = {link["ifname"]: link for link in _json(sections["addresses"])}
    parameters = dict(line.rsplit(" ", 1) for line in sections["parameters"].splitlines() if line)
    dns = _dns(sections)
    names = sorted(dumps if interfaces is None else interfaces)
    absent = [name for name in names if name not in dumps or name not in links]
    if absent:
        raise StateError(f"no WireGuard interface {', '.join(absent)}")
    found = {
        name: LiveInterface(
            name=name,
            up="UP" in links[name]["flags"],
            mtu=links[name]["mtu"],
            addresses=frozenset(map(_address, filter(None, links[name].get("addr_info", ())))),
            wireguard=dumps[name],
            configuration=_configuration(sections[f"showconf {name}"]),
            forwarding=_versions(parameters, f"net/ipv4/conf/{name}/forwarding", f"net/ipv6/conf/{name}/forwarding"),
            dns=None if dns is None else dns.get(name, Dns()),
        )
        for name in names
    }
    routes = [
        route for version in (4, 6) for item in _json(sections[f"routes{version}"]) for route in _route(item, version)
    ]
    rules = [_rule(item, version) for version in (4, 6) for item in _json(sections[f"rules{version}"])]
    return LiveState(
        interfaces=found,
        routes=frozenset(
            route
            for route in routes
            if route.table != _LOCAL and (route.device in found or route.table not in _TABLES.values())
        ),
        rules=frozenset(rule for rule in rules if not _is_kernels(rule)),
        forwarding=_versions(parameters, "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"),
        source_valid_mark=parameters["net/ipv4/conf/all/src_valid_mark"] == "1",
        tables=frozenset(
            item["table"]["name"]
            for item in json.loads(sections.get("tables") or '{"nftables": []}')["nftables"]
            if item.get("table", {}).get("name", "").startswith("wgnet")
        ),
    )


def _sections(text: str) -> dict[str, str]:
    sections: dict[str, str] = {}
    name = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("@@ failed "):
            raise StateError(f"`{line.split()[2]}` ended with status {line.split()[3]} in section '{name}'")
        if line.startswith("@@ "):
            name = line[3:]
            sections[name] = ""
        elif name:
            sections[name] += line + "\n"
    for wanted in ("dump", "addresses", "routes4", "routes6", "rules4", "rules6", "parameters", "end"):
        if wanted not in sections:
            raise StateError(f"the output has no section '{wanted}'")
    return {name: body.strip("\n") for name, body in sections.items()}


def _json(text: str) -> list[dict[str, Any]]:
    # iproute2 prints nothing at all for an empty dump, and `{}` for each link that a filter left out.
    return [item for item in json.loads(text or "[]") if item]


def _versions(parameters: Mapping[str, str], four: str, six: str) -> frozenset[int]:
    return frozenset(version for version, name in ((4, four), (6, six)) if parameters.get(name, "0") != "0")


# --- wg(8) -----------------------------------------------------------------------------------------------------------


def _dump(text: str) -> dict[str, WireGuard]:
    found: dict[str, tuple[list[str], dict[str, Peer]]] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) == 5:
            found[fields[0]] = (fields, {})
        elif len(fields) == 9:
            name, public, preshared, endpoint, allowed, _, _, _, keepalive = fields
            found[name][1][public] = Peer(
                public_key=public,
                preshared_key_sha256=_hidden(preshared),
                endpoint=_unless_none(endpoint),
                allowed_ips=_prefixes(_unless_none(allowed)),
                persistent_keepalive=0 if keepalive == "off" else int(keepalive),
            )
        else:
            raise StateError(f"a line of `wg show all dump` has {len(fields)} fields")
    return {
        name: WireGuard(
            public_key=_unless_none(public),
            private_key_sha256=_hidden(private),
            listen_port=int(port),
            firewall_mark=_mark(mark),
            peers=peers,
        )
        for name, ((_, private, public, port, mark), peers) in found.items()
    }


def _configuration(text: str) -> WireGuard:
    """Read `wg showconf`, which leaves out what is 0 or none."""
    interface: dict[str, str] = {}
    peers: list[dict[str, str]] = []
    current = interface
    for line in filter(None, map(str.strip, text.splitlines())):
        if line == "[Interface]":
            current = interface
        elif line == "[Peer]":
            current = {}
            peers.append(current)
        else:
            key, equals, value = line.partition(" = ")
            if not equals or key in current:
                raise StateError("`wg showconf` has a line that is no new key with a value")
            current[key] = value
    return WireGuard(
        public_key=None,
        private_key_sha256=_hidden(interface.get("PrivateKey", "(none)")),
        listen_port=int(interface.get("ListenPort", "0")),
        firewall_mark=_mark(interface.get("FwMark", "off")),
        peers={
            peer["PublicKey"]: Peer(
                public_key=peer["PublicKey"],
                preshared_key_sha256=_hidden(peer.get("PresharedKey", "(none)")),
                endpoint=peer.get("Endpoint"),
                allowed_ips=_prefixes(peer.get("AllowedIPs")),
                persistent_keepalive=int(peer.get("PersistentKeepalive", "0")),
            )
            for peer in peers
        },
    )


def _unless_none(text: str) -> str | None:
    return None if text == "(none)" else text


def _hidden(secret: str) -> str | None:
    return None if secret == "(none)" else fingerprint(secret)


def _mark(text: str) -> int:
    return 0 if text == "off" else int(text, 16)


def _prefixes(text: str | None) -> frozenset[Prefix]:
    return frozenset(ipaddress.ip_network(word.strip()) for word in (text or "").split(",") if word.strip())


# --- ip(8) -----------------------------------------------------------------------------------------------------------


def _address(item: Mapping[str, Any]) -> HostAddress:
    return HostAddress(
        address=ipaddress.ip_interface(f"{item['local']}/{item['prefixlen']}"),
        by_kernel=str(item.get("protocol", "")).startswith("kernel"),
    )


def _table(name: str | int) -> int:
    if name in _TABLES:
        return _TABLES[str(name)]
    try:
        return int(name)
    except ValueError:
        raise StateError(f"a table has the name '{name}', which iproute2 does not know by itself") from None


def _route(item: Mapping[str, Any], version: int) -> Iterator[Route]:
    """Yield the paths of a route. `ip` leaves out what is usual: main, boot, global, unicast, metric 0 of IPv4."""
    destination = item["dst"]
    kind = item.get("type", "unicast")
    refuses = kind in ("unreachable", "blackhole", "prohibit", "throw")
    for path in item.get("nexthops") or (item,):
        gateway = path.get("gateway", item.get("gateway")) or path.get("via", {}).get("host")
        if destination == "default":
            prefix: Prefix = ipaddress.ip_network("0.0.0.0/0" if version == 4 else "::/0")
        else:
            prefix = ipaddress.ip_network(destination)
        yield Route(
            destination=prefix,
            table=_table(item.get("table", "main")),
            metric=item.get("metric", 0),
            # IPv6 puts what refuses on `lo`, IPv4 nowhere.
            device=None if refuses else path.get("dev", item.get("dev")),
            protocol=item.get("protocol", "boot"),
            scope=item.get("scope", "global"),
            type=kind,
            gateway=gateway,
        )


def _rule(item: Mapping[str, Any], version: int) -> PolicyRule:
    action = item.get("action", "lookup")
    suppress = item.get("suppress_prefixlength", item.get("suppress_prefixlen"))
    return PolicyRule(
        version=version,
        priority=item["priority"],
        action=action,
        # A rule that refuses may still be printed with a table, which nothing looks into.
        table=_table(item["table"]) if action == "lookup" and "table" in item else None,
        source=_selector(item, "src", "srclen"),
        destination=_selector(item, "dst", "dstlen"),
        incoming_interface=item.get("iif"),
        firewall_mark=_number(item["fwmark"]) if "fwmark" in item else None,
        firewall_mask=_number(item["fwmask"]) if "fwmask" in item else None,
        # Present without a value.
        invert="not" in item,
        suppress_prefix_length=suppress,
        protocol=item.get("protocol", "unspec"),
        other=tuple(f"{key} {value}" for key, value in sorted(item.items()) if key not in _RULE_KEYS),
    )


def _number(value: str | int) -> int:
    return value if isinstance(value, int) else int(value, 0)


def _selector(item: Mapping[str, Any], address: str, length: str) -> Prefix | None:
    text = item.get(address, "all")
    if text == "all":
        return None
    return ipaddress.ip_network(f"{text}/{item[length]}" if length in item else text)


def _is_kernels(rule: PolicyRule) -> bool:
    own = (rule.priority, rule.table) in _KERNEL_RULES
    return own and rule == PolicyRule(rule.version, rule.priority, table=rule.table, protocol=rule.protocol)


# --- resolvectl(1) ---------------------------------------------------------------------------------------------------


def _dns(sections: Mapping[str, str]) -> dict[str, Dns] | None:
    """Read what resolvectl says of links; None where the host does not run systemd-resolved."""
    if "servers" not in sections:
        return None

    def by_link(name: str, read: Callable[[str], Any]) -> dict[str, Any]:
        # A long list goes on in the next line, behind blanks.
        text = re.sub(r"\n[ \t]+", " ", sections[name])
        return {
            match[1]: read(match[2]) for match in re.finditer(r"^Link \d+ \((\S+)\):[ \t]*(.*)$", text, re.MULTILINE)
        }

    servers = by_link("servers", lambda text: tuple(text.split()))
    domains = by_link("domains", lambda text: frozenset(text.split()))
    default_routes = by_link("default-route", lambda text: text.strip() == "yes")
    return {name: Dns(servers[name], domains.get(name, frozenset()), default_routes.get(name)) for name in servers}
