"""What wg-quick makes of a file, held against what a manager makes of wgnet's files for the same network.

In: an entry of the corpus, and what the kernel has of it under wg-quick and under the manager (state.py). Out: a line
for everything that differs and is not meant. What is meant stands in `MEANT`, each with its reason, and nowhere else;
docs/wg-quick.md has the same table for people. Runs nothing and opens nothing.

Compared is what both set up: keys, port, mark, peers, AllowedIPs, endpoints, keepalives, addresses, MTU, routes, rules,
src_valid_mark. Not forwarding, nftables and DNS: wg-quick leaves the first to hooks, makes a table of nftables that no
other manager has, and tells resolvconf(8) of DNS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeVar

from lab.corpus import Conf, Entry, contains
from lab.state import HostAddress, LiveInterface, LiveState, Peer, PolicyRule, Route
from wgnet.model.topology import DEFAULT_LISTEN_PORT, DEFAULT_METRIC, TABLE_MAIN
from wgnet.syntax.spec import Manager

_T = TypeVar("_T")

#: What WireGuard gives its interfaces: 1500 less 80; wg_setup() of Linux.
_KERNEL_MTU = 1420
#: Metrics that the kernel gives: IPv4, IPv6's prefixes of addresses, IPv6's other routes; IP6_RT_PRIO_* of Linux.
_KERNEL_METRICS = (0, 256, 1024)
_LINK_LOCAL = ipaddress.ip_network("fe80::/64")
#: What NetworkManager gives the route to that prefix, whatever the profile says.
_METRIC_LINK_LOCAL = 1024


@dataclass(frozen=True)
class Difference:
    """One thing that is otherwise. `quick` is wg-quick's, `managed` the manager's, None where it has no such thing.

    `what` names the thing ("route"), or a property of one that both have ("metric"); `of` is the thing itself.
    """

    what: str
    quick: object = None
    managed: object = None
    of: object = None

    def __str__(self) -> str:
        subject = self.what if self.of is None else f"{self.what} of {_word(self.of)}"
        return f"{subject}: wg-quick has {_word(self.quick)}, the manager {_word(self.managed)}"


def _word(value: object) -> str:
    if isinstance(value, HostAddress):
        return str(value.address)
    if isinstance(value, Peer):
        return f"peer {value.public_key}"
    return "none" if value is None else str(value)


@dataclass(frozen=True)
class Case:
    """A difference's surroundings."""

    entry: Entry
    manager: Manager
    quick: LiveState
    managed: LiveState

    @property
    def conf(self) -> Conf:
        """Return what the wg-quick file says."""
        return self.entry.parsed

    @property
    def mark(self) -> int:
        """Return the mark that the manager set."""
        return self.managed.interfaces[self.entry.interface].wireguard.firewall_mark


@dataclass(frozen=True)
class Meant:
    """A difference that is meant. `quick` and `wgnet` say what either does, for people; `explains` tells it."""

    name: str
    quick: str
    wgnet: str
    reason: str
    managers: tuple[Manager, ...]
    explains: Callable[[Case, Difference], bool]


# --- what is meant ---------------------------------------------------------------------------------------------------


def _metric(case: Case, found: Difference) -> bool:
    if found.what != "metric":
        return False
    return found.quick in _KERNEL_METRICS and found.managed == DEFAULT_METRIC


def _route_protocol(case: Case, found: Difference) -> bool:
    if found.what != "route protocol":
        return False
    own = isinstance(found.of, Route) and found.of.destination in case.conf.own_prefixes
    return (found.quick, found.managed) == ("boot", "static") or (own and found.managed == "kernel")


def _rule_protocol(case: Case, found: Difference) -> bool:
    return found.what == "rule protocol" and (found.quick, found.managed) == ("unspec", "static")


def _port_kernels(case: Case, found: Difference) -> bool:
    return found.what == "ListenPort" and case.conf.listen_port is None and "listen-port: auto" in case.entry.topology


def _port_default(case: Case, found: Difference) -> bool:
    if found.what != "ListenPort" or case.conf.listen_port is not None:
        return False
    return "listen-port" not in case.entry.topology and found.managed == DEFAULT_LISTEN_PORT


def _mtu_of_route(case: Case, found: Difference) -> bool:
    return found.what == "MTU" and case.conf.mtu is None and found.managed == _KERNEL_MTU


def _inside_default(case: Case, found: Difference) -> bool:
    """Tell a prefix that AllowedIPs of the exit node hold beside the default route, and its route."""
    prefix = found.managed
    if found.what == "route" and isinstance(prefix, Route):
        prefix = prefix.destination if prefix.table == TABLE_MAIN else None
    elif found.what != "AllowedIPs":
        return False
    if found.quick is not None or not isinstance(prefix, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return False
    return any(
        prefix in peer.allowed_ips and contains(default, prefix)
        for peer in case.managed.interfaces[case.entry.interface].wireguard.peers.values()
        for default in case.conf.defaults & peer.allowed_ips
    )


def _table_off(case: Case, found: Difference) -> bool:
    """Tell the route to an address's prefix."""
    if "table: off" not in case.entry.topology or found.what != "route" or found.managed is not None:
        return False
    return isinstance(found.quick, Route) and found.quick.destination in case.conf.own_prefixes


def _table_off_length(case: Case, found: Difference) -> bool:
    """Tell an address of full length, and the route to itself that NetworkManager makes of every one of IPv6."""
    if "table: off" not in case.entry.topology:
        return False
    mine = {address.ip for address in case.conf.addresses}
    if found.what == "route" and isinstance(found.managed, Route):
        to = found.managed.destination
        return found.quick is None and to.version == 6 and to.prefixlen == 128 and to.network_address in mine
    either = found.managed if found.quick is None else found.quick
    return found.what == "address" and isinstance(either, HostAddress) and either.address.ip in mine


def _table_number(case: Case, found: Difference) -> bool:
    """Tell the route to an address's prefix that is in the one table or the other."""
    number = case.conf.table_number
    if number is None or found.what != "route":
        return False
    if isinstance(found.quick, Route):
        return found.quick.destination in case.conf.own_prefixes and found.quick.table == TABLE_MAIN
    return (
        isinstance(found.managed, Route)
        and found.managed.destination in case.conf.own_prefixes
        and found.managed.table == number
    )


def _table_covered(case: Case, found: Difference) -> bool:
    """Tell a route that the one to the own prefix covers, in a table of their own."""
    number = case.conf.table_number
    if number is None or found.what != "route" or not isinstance(found.quick, Route) or found.managed is not None:
        return False
    to = found.quick.destination
    return found.quick.table == number and any(contains(own, to) and own != to for own in case.conf.own_prefixes)


def _table_default(case: Case, found: Difference) -> bool:
    """Tell what policy routing is made of."""
    if case.conf.table_number is None or not case.conf.defaults:
        return False
    if found.what == "route":
        either = found.quick or found.managed
        return isinstance(either, Route) and not either.destination.prefixlen
    if found.what == "rule":
        return found.quick is None and isinstance(found.managed, PolicyRule) and found.managed.action == "lookup"
    if found.what == "FwMark":
        return found.quick == 0 and found.managed == case.mark != 0
    return found.what == "src_valid_mark" and found.managed is True


def _link_local(case: Case, found: Difference) -> bool:
    one = found.managed
    if found.what == "metric":
        return isinstance(found.of, Route) and found.of.destination == _LINK_LOCAL and one == _METRIC_LINK_LOCAL
    if found.quick is not None:
        return False
    if found.what == "address" and isinstance(one, HostAddress):
        return one.address.network == _LINK_LOCAL and one.address not in case.conf.addresses
    return found.what == "route" and isinstance(one, Route) and one.destination == _LINK_LOCAL


_BOTH = (Manager.NETWORKD, Manager.NETWORKMANAGER)

#: All differences that are meant; what is not here is a mistake. A row that explains nothing is one, too.
MEANT = (
    Meant(
        "metric",
        "Routes have the kernel's metric: 0, or with IPv6 256 and 1024.",
        "Routes have metric 2000, or the host's `metric`.",
        "A laptop that comes into the very network that it reaches by the tunnel is to go there directly.",
        _BOTH,
        _metric,
    ),
    Meant(
        "route protocol",
        "Routes of AllowedIPs say `proto boot`.",
        "They say `proto static`; in a table of its own, NetworkManager's route to the own prefix says `proto kernel`.",
        "It is how the managers know their own routes; nothing else looks at it.",
        _BOTH,
        _route_protocol,
    ),
    Meant(
        "rule protocol",
        "Rules name no protocol.",
        "Rules say `proto static`.",
        "It is how the managers know their own rules; nothing else looks at it.",
        _BOTH,
        _rule_protocol,
    ),
    Meant(
        "port of the kernel's choice",
        "Without `ListenPort` the kernel chooses a port, each time another.",
        "`listen-port: auto` says the same, and so the port is another one, too.",
        "There is nothing to be equal.",
        _BOTH,
        _port_kernels,
    ),
    Meant(
        "port that is not given",
        "Without `ListenPort` the kernel chooses a port.",
        "Without `listen-port` it is 51820.",
        "In a topology each host may be called by others, whose files have to name its port.",
        _BOTH,
        _port_default,
    ),
    Meant(
        "MTU of the way",
        "Without `MTU` it asks the kernel for the routes to the endpoints and subtracts 80 from their MTU.",
        "Without `mtu` the interface keeps WireGuard's 1420.",
        "Files are rendered elsewhere, and the way may change while the tunnel is up. Where it is narrower, say `mtu`.",
        _BOTH,
        _mtu_of_route,
    ),
    Meant(
        "prefixes beside a default route",
        "AllowedIPs are what the file says, as a rule `0.0.0.0/0` alone.",
        "The exit node's other prefixes stay beside it, with their routes.",
        "Traffic goes the same way. Another exit node, or none, then changes nothing but the default routes.",
        _BOTH,
        _inside_default,
    ),
    Meant(
        "own prefix, `Table = off`",
        "The kernel still makes the route to the prefix of each address.",
        "`table: off` makes no route at all.",
        "Off is off: who routes by other means wants no route into the tunnel beside them.",
        _BOTH,
        _table_off,
    ),
    Meant(
        "length of addresses, `Table = off`",
        "Addresses keep their length.",
        "Under NetworkManager they have full length, and those of IPv6 a route to themselves.",
        "A profile cannot ask for an address without the route to its prefix.",
        (Manager.NETWORKMANAGER,),
        _table_off_length,
    ),
    Meant(
        "own prefix, `Table = N`",
        "The route to the prefix of each address stays in the table main.",
        "It is in table N, with the others.",
        "`table` says where the network is found; half of it in another table would be found by everybody.",
        _BOTH,
        _table_number,
    ),
    Meant(
        "prefixes inside the own one, `Table = N`",
        "Each prefix of AllowedIPs has a route in table N.",
        "Those inside the own prefix have none.",
        "The route to the own prefix is in table N, and covers them.",
        _BOTH,
        _table_covered,
    ),
    Meant(
        "default route, `Table = N`",
        "A default route is in table N, and neither a mark nor rules are made: they are the administrator's.",
        "`exit-node` always brings policy routing; the default route is in the table that has the mark's number.",
        "An exit node is for everything the host sends. Who has rules of his own sets `table: off` and a route.",
        _BOTH,
        _table_default,
    ),
    Meant(
        "link-local address",
        "A WireGuard interface has no link-local address unless the file names one.",
        "Under NetworkManager it has one where it has IPv6, and the route to `fe80::/64`, always with metric 1024.",
        "No profile with IPv6 can ask for an interface without one. No peer's AllowedIPs hold it.",
        (Manager.NETWORKMANAGER,),
        _link_local,
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison: lines for what nothing explains, and the names of the rows that explain the rest."""

    unexplained: tuple[str, ...]
    used: frozenset[str]


def compare(entry: Entry, quick: LiveState, managed: LiveState, manager: Manager) -> list[str]:
    """Return a line for each difference that is not meant."""
    return list(judge(entry, quick, managed, manager).unexplained)


def judge(entry: Entry, quick: LiveState, managed: LiveState, manager: Manager) -> Verdict:
    """Compare the two states of an entry, and say which rows of `MEANT` were needed for it."""
    case = Case(entry, manager, quick, managed)
    lines: list[str] = []
    used: set[str] = set()
    for found in differences(entry.interface, quick, managed):
        rows = [row.name for row in MEANT if manager in row.managers and row.explains(case, found)]
        used.update(rows[:1])
        if not rows:
            lines.append(str(found))
    return Verdict(tuple(lines), frozenset(used))


def table() -> str:
    """Return `MEANT` as the table that docs/wg-quick.md holds."""
    names = {Manager.NETWORKD: "networkd", Manager.NETWORKMANAGER: "NetworkManager"}
    lines = ["| Where | wg-quick | wgnet | Why |", "| --- | --- | --- | --- |"]
    for row in MEANT:
        where = row.name if row.managers == _BOTH else f"{row.name} ({', '.join(names[one] for one in row.managers)})"
        lines.append(f"| {where} | {row.quick} | {row.wgnet} | {row.reason} |")
    return "\n".join([*lines, ""])


# --- finding differences ---------------------------------------------------------------------------------------------


def differences(name: str, quick: LiveState, managed: LiveState) -> Iterator[Difference]:
    """Yield everything in which two states of an interface differ."""
    one, two = quick.interfaces.get(name), managed.interfaces.get(name)
    if one is None or two is None:
        yield Difference("interface", None if one is None else "it", None if two is None else "it")
        return
    yield from _interface(one, two)
    yield from _matched(
        "route",
        (quick.routes, managed.routes),
        lambda route: replace(route, metric=0, protocol=""),
        {"metric": lambda route: route.metric, "route protocol": lambda route: route.protocol},
    )
    yield from _matched(
        "rule",
        (quick.rules, managed.rules),
        lambda rule: replace(rule, priority=0, protocol=""),
        {"priority": lambda rule: rule.priority, "rule protocol": lambda rule: rule.protocol},
    )
    yield from _values({"src_valid_mark": (quick.source_valid_mark, managed.source_valid_mark)})


def _interface(one: LiveInterface, two: LiveInterface) -> Iterator[Difference]:
    first, second = one.wireguard, two.wireguard
    yield from _values(
        {
            "up": (one.up, two.up),
            "MTU": (one.mtu, two.mtu),
            "PublicKey": (first.public_key, second.public_key),
            "PrivateKey's hash": (first.private_key_sha256, second.private_key_sha256),
            "ListenPort": (first.listen_port, second.listen_port),
            "FwMark": (first.firewall_mark, second.firewall_mark),
        }
    )
    yield from _matched("address", (one.addresses, two.addresses), lambda each: each.address, {})
    yield from _matched(
        "peer",
        (first.peers.values(), second.peers.values()),
        lambda peer: peer.public_key,
        {
            "PresharedKey's hash": lambda peer: peer.preshared_key_sha256,
            "Endpoint": lambda peer: peer.endpoint,
            "PersistentKeepalive": lambda peer: peer.persistent_keepalive,
        },
    )
    for key in sorted(first.peers.keys() & second.peers.keys()):
        peer, other = first.peers[key], second.peers[key]
        for prefix in sorted(peer.allowed_ips ^ other.allowed_ips, key=str):
            mine = prefix in peer.allowed_ips
            yield Difference("AllowedIPs", prefix if mine else None, None if mine else prefix, peer)


def _values(pairs: Mapping[str, tuple[object, object]]) -> Iterator[Difference]:
    for what, (one, two) in pairs.items():
        if one != two:
            yield Difference(what, one, two)


def _matched(
    what: str,
    sides: tuple[Iterable[_T], Iterable[_T]],
    key: Callable[[_T], Hashable],
    properties: Mapping[str, Callable[[_T], object]],
) -> Iterator[Difference]:
    """Yield what one side has alone, and the properties in which what both have differs."""
    quick, managed = (_grouped(side, key) for side in sides)
    for name in sorted(quick.keys() | managed.keys(), key=str):
        # Several of one key are the same thing with another metric or priority.
        for one, two in zip_longest(quick.get(name, ()), managed.get(name, ())):
            if one is None or two is None:
                yield Difference(what, one, two)
                continue
            for name_of, get in properties.items():
                if get(one) != get(two):
                    yield Difference(name_of, get(one), get(two), one)


def _grouped(items: Iterable[_T], key: Callable[[_T], Hashable]) -> dict[Hashable, list[_T]]:
    groups: dict[Hashable, list[_T]] = {}
    for item in sorted(items, key=str):
        groups.setdefault(key(item), []).append(item)
    return groups
