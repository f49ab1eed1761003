"""Rules of nftables, evaluated for a packet of which only a part is known: what surely drops it?

Stage: live. Input: what `nft -j list ruleset` prints (libnftables-json(5)) and a `Packet`; output: the base chains that
drop it, whatever is not known. Every match that cannot be decided may be true or false, and every statement that is not
understood may accept: so silence proves nothing, and an answer can be relied on. iptables-nft(8) and firewalld stand in
the same rules. Runs nothing.
"""

from __future__ import annotations

import enum
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wgnet.syntax.spec import Prefix

__all__ = ["BaseChain", "NotARulesetError", "Packet", "Ruleset", "parse_ruleset"]

_FAMILIES = {4: ("inet", "ip"), 6: ("inet", "ip6")}
#: Statements after which a packet goes on as it was, as far as these rules are concerned.
_HARMLESS = frozenset(
    ("counter", "log", "comment", "mangle", "notrack", "set", "map", "flow", "ct helper", "ct timeout", "secmark")
)
_XT_HARMLESS = frozenset(("LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "CLASSIFY", "DSCP", "TRACE", "AUDIT"))
_XT_DROPS = frozenset(("REJECT", "DROP"))
_ACCEPTS = frozenset(("accept", "queue", "snat", "dnat", "masquerade", "redirect", "tproxy", "fwd", "synproxy"))
_VERDICTS = _ACCEPTS | {"drop", "reject", "return", "continue", "jump", "goto", "vmap"}
_PROTOCOLS = {"udp": 17, "tcp": 6, "icmp": 1, "ipv6-icmp": 58, "icmpv6": 58, "sctp": 132, "dccp": 33}
_PORTS = frozenset(("udp", "th"))


class NotARulesetError(ValueError):
    """The text is not what `nft -j list ruleset` prints."""


class _Truth(enum.Enum):
    NO = 0
    MAYBE = 1
    YES = 2


class _End(enum.Enum):
    """How a packet may leave a rule or a chain."""

    ACCEPT = 1
    DROP = 2
    RETURN = 3
    NEXT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection, as far as it is known; None and an empty tuple: it is not.

    `incoming` and `outgoing` are interfaces; `others` are those that an unknown one surely is not. `sources` and
    `destinations` are where it may come from and go to.
    """

    version: int
    incoming: str | None = None
    outgoing: str | None = None
    others: frozenset[str] = frozenset(("lo",))
    udp_port: int | None = None
    sources: tuple[Prefix, ...] = ()
    destinations: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseChain:
    """A chain that a hook leads to. `policy` is "accept" or "drop"."""

    family: str
    table: str
    name: str
    hook: str
    policy: str


_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Chains with their rules, and sets, by family, table and name."""

    base: tuple[BaseChain, ...] = ()
    rules: Mapping[_Key, Sequence[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)
    sets: Mapping[_Key, Sequence[Any] | None] = field(default_factory=dict)
    redirects: bool = False

    def dropping(self, hook: str, packet: Packet) -> BaseChain | None:
        """Return the first chain of a hook ("input" or "forward") that drops a packet for certain, or None."""
        for chain in self.base:
            if chain.hook == hook and chain.family in _FAMILIES[packet.version]:
                walk = _Walk(self, chain.family, chain.table, packet)
                ends = walk.chain(chain.name)
                if _End.RETURN in ends:
                    ends = ends - {_End.RETURN} | {_End.DROP if chain.policy == "drop" else _End.ACCEPT}
                if ends == {_End.DROP}:
                    return chain
        return None


def parse_ruleset(text: str) -> Ruleset:
    """Read `nft -j list ruleset`. Raises `NotARulesetError`."""
    base: list[tuple[int, BaseChain]] = []
    rules: dict[_Key, list[Sequence[Mapping[str, Any]]]] = {}
    sets: dict[_Key, Sequence[Any] | None] = {}
    redirects = False
    try:
        for item in json.loads(text)["nftables"]:
            if chain := item.get("chain"):
                rules.setdefault((chain["family"], chain["table"], chain["name"]), [])
                if chain.get("type") == "filter":
                    found = BaseChain(
                        family=chain["family"],
                        table=chain["table"],
                        name=chain["name"],
                        hook=chain["hook"],
                        policy=chain.get("policy", "accept"),
                    )
                    base.append((chain.get("prio", 0), found))
            elif rule := item.get("rule"):
                key = rule["family"], rule["table"], rule["chain"]
                rules.setdefault(key, []).append(rule.get("expr", ()))
                redirects = redirects or any("dnat" in each or "redirect" in each for each in rule.get("expr", ()))
            elif found_set := item.get("set") or item.get("map"):
                # What packets add to is only known for now.
                changing = "dynamic" in found_set.get("flags", ()) or "timeout" in found_set
                elements = None if changing else found_set.get("elem", [])
                sets[found_set["family"], found_set["table"], found_set["name"]] = elements
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NotARulesetError("the output of `nft list ruleset` was not understood") from None
    base.sort(key=lambda each: each[0])
    return Ruleset(tuple(chain for _, chain in base), rules, sets, redirects)


class _Walk:
    """One packet's ways through the chains of a table."""

    def __init__(self, ruleset: Ruleset, family: str, table: str, packet: Packet) -> None:
        self._ruleset = ruleset
        self._place = family, table
        self._packet = packet
        self._known: dict[str, frozenset[_End]] = {}

    def chain(self, name: str) -> frozenset[_End]:
        """Return how the packet may leave a chain; RETURN is its end too."""
        if name not in self._known:
            # nft(8) takes no loops; should there be one, nothing is known of it.
            self._known[name] = frozenset(_End) - {_End.NEXT}
            self._known[name] = self._rules(self._ruleset.rules.get((*self._place, name), ()))
        return self._known[name]

    def _rules(self, rules: Iterable[Sequence[Mapping[str, Any]]]) -> frozenset[_End]:
        ends: set[_End] = set()
        for rule in rules:
            found = self._rule(rule)
            ends |= found - {_End.NEXT}
            if _End.NEXT not in found:
                return frozenset(ends)
        return frozenset(ends | {_End.RETURN})

    def _rule(self, statements: Iterable[Mapping[str, Any]]) -> set[_End]:
        ends: set[_End] = set()
        for statement in statements:
            for kind, value in statement.items():
                truth = self._condition(kind, value)
                if truth is _Truth.NO:
                    return ends | {_End.NEXT}
                if truth is _Truth.MAYBE:
                    ends.add(_End.NEXT)
                found = self._verdict(kind, value)
                ends |= found - {_End.NEXT}
                if _End.NEXT not in found:
                    return ends
        return ends | {_End.NEXT}

    def _condition(self, kind: str, value: Any) -> _Truth:
        """Return whether the rule goes on to this statement's end."""
        if kind == "match":
            return self._match(value)
        if kind in _HARMLESS or kind in _VERDICTS:
            return _Truth.YES
        if kind == "xt" and isinstance(value, dict) and value.get("type") == "target":
            return _Truth.YES
        return _Truth.MAYBE

    def _verdict(self, kind: str, value: Any) -> set[_End]:
        """Return how the packet may leave a statement that it comes to; NEXT is on to the one after it."""
        if kind in _HARMLESS or kind in ("match", "limit", "quota", "ct count", "continue"):
            return {_End.NEXT}
        if kind in _ACCEPTS:
            return {_End.ACCEPT}
        if kind in ("drop", "reject"):
            return {_End.DROP}
        if kind == "return":
            return {_End.RETURN}
        if kind in ("jump", "goto"):
            return self._jump(kind, value["target"])
        if kind == "vmap":
            return self._verdicts(value)
        if kind == "xt" and isinstance(value, dict):
            # An extension of iptables, of which only the name is known.
            name, of = value.get("name"), value.get("type")
            if of == "match" or name in _XT_HARMLESS:
                return {_End.NEXT}
            if name in _XT_DROPS:
                return {_End.DROP}
        # Whatever it is, it may accept.
        return {_End.ACCEPT, _End.NEXT}

    def _jump(self, kind: str, target: str) -> set[_End]:
        ends = set(self.chain(target))
        if kind == "jump" and _End.RETURN in ends:
            return ends - {_End.RETURN} | {_End.NEXT}
        return ends

    def _verdicts(self, value: Mapping[str, Any]) -> set[_End]:
        elements = self._elements(value["data"])
        if elements is None:
            return {_End.ACCEPT, _End.NEXT}
        ends: set[_End] = {_End.NEXT}
        for element in elements:
            key, verdict = element[0], element[1]
            truth = self._is(value["key"], _plain(key))
            if truth is _Truth.NO:
                continue
            found: set[_End] = set()
            for kind, target in verdict.items():
                found |= self._verdict(kind, target)
            if truth is _Truth.YES:
                return ends - {_End.NEXT} | found
            ends |= found
        return ends

    # --- matches -----------------------------------------------------------------------------------------------------

    def _match(self, match: Mapping[str, Any]) -> _Truth:
        operator, left, right = match["op"], match["left"], match["right"]
        if operator in ("==", "in", "!="):
            truth = self._is_any(left, right)
            if operator == "!=":
                return {_Truth.NO: _Truth.YES, _Truth.YES: _Truth.NO}.get(truth, _Truth.MAYBE)
            return truth
        port = self._packet.udp_port
        if operator in ("<", ">", "<=", ">=") and _is_port(left) and port is not None and isinstance(right, int):
            truths = {"<": port < right, ">": port > right, "<=": port <= right, ">=": port >= right}
            return _Truth.YES if truths[operator] else _Truth.NO
        return _Truth.MAYBE

    def _is_any(self, left: Any, right: Any) -> _Truth:
        if isinstance(right, list):
            values: Sequence[Any] | None = right
        elif isinstance(right, (dict, str)) and (isinstance(right, str) or "set" in right):
            values = self._elements(right) if not isinstance(right, str) or right.startswith("@") else [right]
        else:
            values = [right]
        if values is None:
            return _Truth.MAYBE
        truths = [self._is(left, _plain(value)) for value in values]
        return max(truths, key=lambda truth: truth.value, default=_Truth.NO)

    def _elements(self, data: Any) -> Sequence[Any] | None:
        if isinstance(data, dict) and "set" in data:
            elements = data["set"]
            return elements if isinstance(elements, list) else [elements]
        if isinstance(data, str) and data.startswith("@"):
            return self._ruleset.sets.get((*self._place, data[1:]))
        return None

    def _is(self, left: Any, value: Any) -> _Truth:
        """Return whether one thing of the packet is a value, a range or a prefix."""
        if not isinstance(left, dict) or len(left) != 1:
            return _Truth.MAYBE
        kind, what = next(iter(left.items()))
        if kind == "concat":
            return self._is_all(what, value)
        packet = self._packet
        if kind == "meta":
            return self._is_meta(what.get("key"), value)
        if kind == "ct" and isinstance(what, dict) and "dir" not in what:
            if what.get("key") == "state":
                return _yes(value == "new")
            if what.get("key") == "status" and value == "dnat" and not self._ruleset.redirects:
                return _Truth.NO
        if kind == "payload":
            protocol, item = what.get("protocol"), what.get("field")
            if protocol in ("tcp", "sctp", "dccp", "icmp", "icmpv6") and packet.udp_port is not None:
                return _Truth.NO
            if protocol in _PORTS and item == "dport" and packet.udp_port is not None:
                return _number(packet.udp_port, value)
            if protocol in ("ip", "ip6"):
                return self._is_network(protocol, item, value)
        return _Truth.MAYBE

    def _is_all(self, parts: Sequence[Any], value: Any) -> _Truth:
        values = value.get("concat") if isinstance(value, dict) else None
        if not isinstance(values, list) or len(values) != len(parts):
            return _Truth.MAYBE
        return min((self._is(*each) for each in zip(parts, values, strict=True)), key=lambda truth: truth.value)

    def _is_meta(self, key: Any, value: Any) -> _Truth:
        packet = self._packet
        if key in ("iifname", "iif"):
            return _interface(packet.incoming, packet.others, value)
        if key in ("oifname", "oif"):
            return _interface(packet.outgoing, packet.others, value)
        if key == "nfproto":
            return _yes(value == f"ipv{packet.version}")
        if key == "protocol":
            return _yes(value == ("ip" if packet.version == 4 else "ip6")) if value in ("ip", "ip6") else _Truth.MAYBE
        if key == "l4proto":
            return self._is_protocol(value)
        return _Truth.MAYBE

    def _is_protocol(self, value: Any) -> _Truth:
        if self._packet.udp_port is None:
            return _Truth.MAYBE
        number = _PROTOCOLS.get(value, value) if isinstance(value, str) else value
        return _yes(number == _PROTOCOLS["udp"]) if isinstance(number, int) else _Truth.MAYBE

    def _is_network(self, protocol: str, item: Any, value: Any) -> _Truth:
        packet = self._packet
        if protocol != ("ip" if packet.version == 4 else "ip6"):
            return _Truth.NO
        if item in ("protocol", "nexthdr"):
            return self._is_protocol(value)
        prefixes = {"saddr": packet.sources, "daddr": packet.destinations}.get(str(item), ())
        own = [prefix for prefix in prefixes if prefix.version == packet.version]
        asked = _prefix(value)
        if not own or asked is None or asked.version != packet.version:
            return _Truth.MAYBE
        if all(_inside(prefix, asked) for prefix in own):
            return _Truth.YES
        return _Truth.MAYBE if any(prefix.overlaps(asked) for prefix in own) else _Truth.NO


def _yes(truth: bool) -> _Truth:
    return _Truth.YES if truth else _Truth.NO


def _plain(value: Any) -> Any:
    """Return an element without its counter, comment or time."""
    return value["elem"]["val"] if isinstance(value, dict) and "elem" in value else value


def _interface(known: str | None, others: Iterable[str], value: Any) -> _Truth:
    if not isinstance(value, str):
        return _Truth.MAYBE

    def names(name: str) -> bool:
        return name.startswith(value[:-1]) if value.endswith("*") else name == value

    if known is not None:
        return _yes(names(known))
    if value == "*":
        return _Truth.YES
    return _Truth.NO if value in others else _Truth.MAYBE


def _number(number: int, value: Any) -> _Truth:
    if isinstance(value, int):
        return _yes(number == value)
    if isinstance(value, dict) and isinstance(value.get("range"), list):
        first, last = value["range"]
        if isinstance(first, int) and isinstance(last, int):
            return _yes(first <= number <= last)
    return _Truth.MAYBE


def _prefix(value: Any) -> Prefix | None:
    try:
        if isinstance(value, str):
            return ipaddress.ip_network(value)
        if isinstance(value, dict) and "prefix" in value:
            return ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _inside(inner: Prefix, outer: Prefix) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _is_port(left: Any) -> bool:
    payload = left.get("payload") if isinstance(left, dict) else None
    return isinstance(payload, dict) and payload.get("protocol") in _PORTS and payload.get("field") == "dport"
