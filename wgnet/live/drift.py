"""What differs between what interfaces are to be and what a host has, in both directions.

Stage: live. Input: `WantedInterface`s and a `LiveState`; output: `Drift`s, in a fixed order, without a secret. Whoever
puts a change back over a drift must be able to rely on it: what a manager, the kernel or a peer makes by itself is
none, and neither is what an administrator may have made beside wgnet. Runs nothing.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from wgnet.keys.types import PresharedKey
from wgnet.live.changes import move_between_keys
from wgnet.live.device import DeviceSettings, LiveDevice, LivePeer, PeerSettings
from wgnet.live.state import STATIC, LiveLink, LiveState, PolicyRule, Route
from wgnet.live.wanted import LINK_LOCAL, WantedDns, WantedInterface, nft_tables
from wgnet.plan.derive import PRIORITY_LAST
from wgnet.syntax.spec import Prefix

__all__ = ["ASPECTS", "Drift", "find_drift"]

#: In what an interface can differ; an interface for the command line's JSON: only ever added to.
ASPECTS = (
    *("link", "mtu", "private-key", "listen-port", "firewall-mark"),
    *("peer", "allowed-ips", "preshared-key", "endpoint", "persistent-keepalive"),
    *("address", "route", "rule", "dns", "forwarding", "nftables"),
)
#: Who makes routes of the kind that wgnet answers for: the kernel, who says nothing, and a manager. Routing daemons
#: (bird, babel, FRR) name themselves, and are what `allowed-ips: any` is for.
_PROTOCOLS = (2, 3, 4)
#: Between these priorities stand the rules that wgnet makes. What is elsewhere is an administrator's.
_PRIORITY_FIRST = 32000
_REVERSE = (".in-addr.arpa", ".ip6.arpa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One difference. `aspect` is of `ASPECTS`; `subject` the peer, prefix or the like that it is about, "" for none.

    `expected` None: it is not meant to be there; `found` None: it is missing. `extra` is the route or rule that is not
    meant to be there.
    """

    interface: str
    aspect: str
    subject: str
    expected: str | None
    found: str | None
    extra: Route | PolicyRule | None = field(default=None, compare=False)

    def __str__(self) -> str:
        what = _WORDS.get(self.aspect, self.aspect)
        if self.aspect == "peer":
            return f"{self.interface}: {'missing' if self.found is None else 'unknown'} peer {self.subject}"
        if self.aspect == "allowed-ips":
            verb = "lacks" if self.found is None else "has too much:"
            return f"{self.interface}: AllowedIPs of peer {self.subject} {verb} {self.found or self.expected}"
        about = f" of peer {self.subject}" if self.aspect in _OF_PEER else f" {self.subject}" if self.subject else ""
        if self.found is None:
            value = "" if self.expected in (None, self.subject) else f" ({self.expected})"
            return f"{self.interface}: missing {what}{about}{value}"
        if self.expected is None:
            value = "" if self.found == self.subject else f" ({self.found})"
            return f"{self.interface}: extra {what}{about}{value}"
        return f"{self.interface}: {what}{about}: expected {self.expected}, found {self.found}"


_WORDS = {
    "link": "the interface",
    "mtu": "MTU",
    "private-key": "key",
    "listen-port": "listen port",
    "firewall-mark": "firewall mark",
    "preshared-key": "preshared key",
    "persistent-keepalive": "persistent keepalive",
    "dns": "DNS",
    "nftables": "nftables table",
}
_OF_PEER = frozenset(("preshared-key", "endpoint", "persistent-keepalive"))


def find_drift(
    wanted: Sequence[WantedInterface], live: LiveState, others: Collection[PolicyRule] = frozenset()
) -> list[Drift]:
    """Return every difference of these interfaces, and of what goes with them; other interfaces are nobody's business.

    `wanted` are all of the host's, or those that were changed; `others` are policy rules of those that were not. An
    endpoint that a peer roamed to is no difference.
    """
    settled = [_with_live_mark(each, live) for each in wanted]
    drift: list[Drift] = []
    for each in settled:
        drift += _interface(each, live)
    drift += _rules(settled, live, others)
    order = {aspect: number for number, aspect in enumerate(ASPECTS)}
    names = {each.name: number for number, each in enumerate(settled)}
    drift.sort(key=lambda one: (names[one.interface], order[one.aspect]))
    return drift


def _with_live_mark(wanted: WantedInterface, live: LiveState) -> WantedInterface:
    """Return the interface with the firewall mark, and so the table, that its manager chose."""
    device = live.devices.get(wanted.name)
    mark = wanted.device.firewall_mark
    if not wanted.any_mark or device is None or device.firewall_mark in (0, mark):
        return wanted
    chosen = device.firewall_mark

    def moved(rule: PolicyRule) -> PolicyRule:
        return replace(
            rule,
            table=chosen if rule.table == mark else rule.table,
            firewall_mark=chosen if rule.firewall_mark == mark else rule.firewall_mark,
        )

    return replace(
        wanted,
        device=replace(wanted.device, firewall_mark=chosen),
        routes=frozenset(replace(each, table=chosen) if each.table == mark else each for each in wanted.routes),
        rules=frozenset(map(moved, wanted.rules)),
    )


def _is_up(wanted: WantedInterface, live: LiveState) -> bool:
    link = live.links.get(wanted.name)
    return link is not None and link.up


# --- one interface ---------------------------------------------------------------------------------------------------


def _interface(wanted: WantedInterface, live: LiveState) -> Iterator[Drift]:
    def different(aspect: str, subject: str, expected: object, found: object) -> Drift:
        return _drift(wanted, aspect, subject, expected, found)

    link = live.links.get(wanted.name)
    device = live.devices.get(wanted.name)
    if link is None:
        if wanted.active:
            yield different("link", "", "up", "absent")
    elif device is None and (live.devices_known or link.kind != "wireguard"):
        yield different("link", "", "a WireGuard interface", link.kind or "another kind of interface")
    else:
        if wanted.active and not link.up:
            yield different("link", "", "up", "down")
        if device is not None:
            yield from _device(wanted, device)
        if link.up:
            # What is down has no routes, and of IPv6 no addresses.
            if wanted.mtu not in (None, link.mtu):
                yield different("mtu", "", wanted.mtu, link.mtu)
            yield from _addresses(wanted, link)
            yield from _routes(wanted, live)
            yield from _dns(wanted, live)
    if _is_up(wanted, live) or not wanted.extras_when_up:
        for version in sorted(wanted.forwarding - live.forwarding):
            yield different("forwarding", f"IPv{version}", "on", "off")
        if link is not None and 4 in wanted.forwarding & live.forwarding and 4 not in link.forwarding:
            # Of IPv6 the kernel asks net.ipv6.conf.all alone (ip6_forward()).
            yield different("forwarding", f"IPv4 of {wanted.name}", "on", "off")
        if wanted.source_valid_mark and not live.source_valid_mark:
            yield different("forwarding", "net.ipv4.conf.all.src_valid_mark", "1", "0")
    yield from _tables(wanted, live)


def _drift(wanted: WantedInterface, aspect: str, subject: str, expected: object, found: object) -> Drift:
    return Drift(
        interface=wanted.name,
        aspect=aspect,
        subject=subject,
        expected=None if expected is None else str(expected),
        found=None if found is None else str(found),
        extra=found if expected is None and isinstance(found, Route | PolicyRule) else None,
    )


def _addresses(wanted: WantedInterface, link: LiveLink) -> Iterator[Drift]:
    found = {
        address
        for address in link.addresses
        if not (wanted.link_local and address.network == LINK_LOCAL and address not in wanted.addresses)
    }
    missing, extra = wanted.addresses - found, found - wanted.addresses
    # The same address with another prefix is one difference, not two.
    for address in sorted(missing, key=str):
        other = next((each for each in extra if each.ip == address.ip), None)
        if other is not None:
            extra = extra - {other}
        yield _drift(wanted, "address", str(address.ip), address, other)
    for address in sorted(extra, key=str):
        yield _drift(wanted, "address", str(address.ip), None, address)


def _routes(wanted: WantedInterface, live: LiveState) -> Iterator[Drift]:
    own = {route for route in live.routes if route.device == wanted.name}
    missing = wanted.routes - own
    extra = {route for route in own - wanted.routes if _is_accountable(wanted, route)}
    for route in sorted(missing, key=str):
        # The same destination in the same table with another metric is one difference, not two.
        other = next((each for each in sorted(extra, key=str) if _same_way(each, route)), None)
        extra.discard(other or route)
        yield _drift(wanted, "route", str(route.destination), route, other)
    for route in sorted(extra, key=str):
        yield _drift(wanted, "route", str(route.destination), None, route)


def _is_accountable(wanted: WantedInterface, route: Route) -> bool:
    """Whether a route that is not wanted is drift."""
    return route.protocol in _PROTOCOLS and not (wanted.link_local and route.destination == LINK_LOCAL)


def _same_way(one: Route, other: Route) -> bool:
    return (one.destination, one.table) == (other.destination, other.table)


def _dns(wanted: WantedInterface, live: LiveState) -> Iterator[Drift]:
    if live.dns is None or wanted.name not in live.dns:
        # Without systemd-resolved, or without the link, which has come since.
        return
    dns, found = wanted.dns, live.dns[wanted.name]
    if dns.may_lack and not found.servers:
        return
    # Managers put one IP version before the other; within one, the order is the plan's.
    for version in (4, 6):
        texts = [
            " ".join(one for one in servers if _version(one) == version) or None
            for servers in (dns.servers, found.servers)
        ]
        if texts[0] != texts[1]:
            yield _drift(wanted, "dns", f"servers of IPv{version}", texts[0], texts[1])
    for domain in sorted(dns.domains - found.domains):
        yield _drift(wanted, "dns", f"domain {domain}", domain, None)
    for domain in sorted(found.domains - dns.domains):
        if not _may_be(domain, dns):
            yield _drift(wanted, "dns", f"domain {domain}", None, domain)
    # Without servers the value is of no effect, and resolved's own.
    known = dns.servers and found.servers and None not in (dns.default_route, found.default_route)
    if known and dns.default_route != found.default_route:
        yield _drift(wanted, "dns", "default route", _yes_no(dns.default_route), _yes_no(found.default_route))


def _version(server: str) -> int:
    """Return the IP version of a server that may be written with a port, an interface or a name."""
    try:
        return ipaddress.ip_address(server).version
    except ValueError:
        return 6 if server.startswith("[") or server.count(":") > 1 else 4


def _may_be(domain: str, dns: WantedDns) -> bool:
    return dns.more_reverse and domain.endswith(_REVERSE)


def _yes_no(value: bool | None) -> str:
    return "yes" if value else "no"


def _tables(wanted: WantedInterface, live: LiveState) -> Iterator[Drift]:
    found = live.tables or frozenset()
    needed = wanted.tables | (wanted.tables_if_any if live.tables is not None else frozenset())
    for name in sorted(needed - found):
        yield _drift(wanted, "nftables", name, name, None)
    # Other interfaces' tables are theirs to judge.
    for name in sorted((found & set(nft_tables(wanted.name))) - wanted.tables - wanted.tables_if_any):
        yield _drift(wanted, "nftables", name, None, name)


# --- the device ------------------------------------------------------------------------------------------------------


def _device(wanted: WantedInterface, live: LiveDevice) -> Iterator[Drift]:
    settings = wanted.device

    def different(aspect: str, subject: str, expected: object, found: object) -> Drift:
        return _drift(wanted, aspect, subject, expected, found)

    publics = settings.public_keys
    if not publics and settings.private_key is not None:
        publics = (settings.private_key.public(),)
    if live.private_key is None:
        yield different("private-key", "", "a key", "none")
    elif publics and live.public_key not in publics:
        yield different("private-key", "", " or ".join(publics), live.public_key)
    if settings.listen_port not in (0, live.listen_port):
        yield different("listen-port", "", settings.listen_port, live.listen_port)
    if settings.firewall_mark != live.firewall_mark:
        yield different("firewall-mark", "", settings.firewall_mark, live.firewall_mark)
    settings = _with_live_key(settings, live)
    for key, peer in settings.peers.items():
        found = live.peers.get(key)
        if found is None:
            yield different("peer", _peer_name(peer), key, None)
        elif not _is_right(peer, found):
            yield from _peer(wanted, peer, found)
    for key in sorted(live.peers.keys() - settings.peers.keys()):
        yield different("peer", key, None, key)


def _with_live_key(settings: DeviceSettings, live: LiveDevice) -> DeviceSettings:
    """Return the settings with each rotating peer's AllowedIPs at the key where they stand: either may have them."""

    def stand_there(here: LivePeer | None, there: LivePeer) -> bool:
        return here is not None and not here.allowed_ips and bool(there.allowed_ips)

    return move_between_keys(settings, live, stand_there)


def _peer_name(peer: PeerSettings) -> str:
    return f"{peer.name} ({peer.public_key[:8]}...)" if peer.other_key is not None else peer.name


def _is_right(wanted: PeerSettings, live: LivePeer) -> bool:
    """Whether a peer differs in nothing: nearly all do not, and there may be thousands."""
    return (
        wanted.allowed_ips == live.allowed_ips
        and wanted.persistent_keepalive == live.persistent_keepalive
        and (not wanted.preshared_key_known or wanted.preshared_key == live.preshared_key)
        and (wanted.endpoint is None or (live.endpoint is not None and not wanted.is_astray(live)))
    )


def _peer(wanted: WantedInterface, peer: PeerSettings, live: LivePeer) -> Iterator[Drift]:
    name = _peer_name(peer)
    for prefix in _sorted(peer.allowed_ips - live.allowed_ips):
        yield _drift(wanted, "allowed-ips", name, prefix, None)
    for prefix in _sorted(live.allowed_ips - peer.allowed_ips):
        yield _drift(wanted, "allowed-ips", name, None, prefix)
    if peer.preshared_key_known and peer.preshared_key != live.preshared_key:
        found = None if live.preshared_key is None else "another"
        yield _drift(wanted, "preshared-key", name, _presence(peer.preshared_key), found)
    if peer.endpoint is not None and (live.endpoint is None or peer.is_astray(live)):
        yield _drift(wanted, "endpoint", name, peer.endpoint, live.endpoint)
    if peer.persistent_keepalive != live.persistent_keepalive:
        seconds = (f"{value} s" if value else "off" for value in (peer.persistent_keepalive, live.persistent_keepalive))
        yield _drift(wanted, "persistent-keepalive", name, *seconds)


def _presence(key: PresharedKey | None) -> str | None:
    return None if key is None else "the link's"


def _sorted(prefixes: Iterable[Prefix]) -> list[Prefix]:
    return sorted(prefixes, key=lambda prefix: (prefix.version, int(prefix.network_address), prefix.prefixlen))


# --- policy rules ----------------------------------------------------------------------------------------------------


def _rules(wanted: Sequence[WantedInterface], live: LiveState, others: Collection[PolicyRule]) -> Iterator[Drift]:
    """Yield the differences in rules, which are the host's: two interfaces may ask for the same one."""
    left = Counter(live.rules)
    missing: list[tuple[WantedInterface, PolicyRule]] = []
    asking: dict[PolicyRule, list[WantedInterface]] = {}
    for each in wanted:
        for rule in each.rules if not each.any_priority else ():
            asking.setdefault(rule, []).append(each)
    # First those of a known priority, so that a free one takes none of theirs.
    for rule, interfaces in asking.items():
        if left[rule]:
            left[rule] -= 1
        else:
            # networkd makes the rules of an interface before it is up; others do not.
            missing += [(each, rule) for each in interfaces if _is_up(each, live)][:1]
    for each in wanted:
        if each.any_priority:
            for rule in sorted(each.rules, key=str):
                found = next((one for one in +left if replace(one, priority=rule.priority) == rule), None)
                if found is not None:
                    left[found] -= 1
                elif _is_up(each, live):
                    missing.append((each, rule))
    for each, rule in sorted(missing, key=lambda item: str(item[1])):
        yield _drift(each, "rule", str(rule), rule, None)
    for rule in sorted((+left).keys() - others, key=str):
        owner = next((each for each in wanted if _is_left_over(rule, each)), None)
        if owner is not None:
            yield _drift(owner, "rule", str(rule), None, rule)


def _is_left_over(rule: PolicyRule, wanted: WantedInterface) -> bool:
    """Whether a rule that nobody wants is one that wgnet once wanted for an interface, as far as can be told.

    Others may send packets of the interface, or into its table, wherever they like.
    """
    if rule.other or not _PRIORITY_FIRST <= rule.priority <= PRIORITY_LAST:
        return False
    if rule.invert:
        tables = {route.table for route in wanted.routes} | {wanted.device.firewall_mark}
        return rule.firewall_mark == rule.table and rule.table in tables
    if rule.protocol != STATIC:
        # ip-rule(8) names none, and gives such priorities to whoever names none.
        return False
    if rule.incoming_interface is not None:
        return rule.incoming_interface == wanted.name and rule.firewall_mark is None
    # A prefix that was to bypass the exit node.
    return any(
        rule == replace(own, destination=rule.destination) for own in wanted.rules if own.destination is not None
    )
