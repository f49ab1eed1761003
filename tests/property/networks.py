"""Networks drawn at random, as a person could have written them: sound, so that what follows can be asked of them.

A host is drawn as one number whose digits choose its features, 0 the plainest: a failing network shrinks to few hosts
that are as plain as the failure allows. The text of the file is the only thing that wgnet is given.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from wgnet.keys.types import PrivateKey

#: What hosts may advertise: nested in each other, some around the network's own subnets, each at one host only.
PREFIXES = (
    "192.168.10.0/24",
    "192.168.0.0/16",
    "192.168.10.64/26",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "172.16.5.1",
    "fd00:10::/48",
    "fd00:10:0:1::/64",
    "fd00::/8",
    "fd00:20::5",
)
#: Those of them that are around the network's own subnets.
AROUND = ("10.0.0.0/8", "fd00::/8")
SUBNETS = {4: ("10.80.0.0/24", "10.81.0.0/16"), 6: ("fd42:80::/64", "fd42:81::/48")}
#: Addresses of the subnets that no host is ever given.
UNASSIGNED = {4: ("10.80.0.250", "10.81.9.9"), 6: ("fd42:80::dead", "fd42:81:0:7::1")}
SITES = (None, "berlin", "rome")
MANAGERS = ("networkd", "networkmanager", "wg-quick", "external")


@functools.cache
def private_key(name: str) -> PrivateKey:
    """Return the private key of a host of this name."""
    return PrivateKey(hashlib.sha256(f"wgnet property {name}".encode()).digest())


@functools.cache
def public_key(name: str) -> str:
    """Return the public key of a host of this name."""
    return private_key(name).public()


@dataclass
class Draft:
    """A network as it will be written. `hosts` maps names to their keys, `rules` None is the default mesh."""

    versions: tuple[int, ...] = (4,)
    subnets: list[str] = field(default_factory=list)
    preshared_keys: bool = False
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: list[dict[str, Any]] | None = None

    def text(self) -> str:
        """Return the topology file."""
        lines = ["wgnet: 1", "network:", "  name: net", f"  subnets: {flow(self.subnets)}"]
        if self.preshared_keys:
            lines.append("  preshared-keys: true")
        if self.rules is not None:
            lines.append("peering:")
            lines += [f"  - {flow(rule)}" for rule in self.rules]
        lines.append("hosts:")
        for name, keys in self.hosts.items():
            lines.append(f"  {name}: {flow(keys)}")
        return "\n".join([*lines, ""])

    def enabled(self) -> list[str]:
        """Return the hosts that take part."""
        return [name for name, keys in self.hosts.items() if not keys.get("disabled")]

    def pairs(self) -> set[frozenset[str]]:
        """Return the pairs that are links, by the words of the format and apart from wgnet's own reckoning."""
        links: set[frozenset[str]] = set()
        enabled = self.enabled()
        rules = [{"mesh": enabled}] if self.rules is None else self.rules
        named = {name for rule in rules for key in ("mesh", "hub", "spokes") for name in rule.get(key, ())}
        for rule in rules:
            if "mesh" in rule:
                links |= {frozenset(pair) for pair in itertools.combinations(rule["mesh"], 2) if self.dialable(*pair)}
            elif "hub" in rule:
                spokes = rule.get("spokes", [name for name in self.hosts if name not in named])
                links |= {frozenset(pair) for pair in itertools.combinations(rule["hub"], 2)}
                links |= {frozenset((hub, spoke)) for hub in rule["hub"] for spoke in spokes if hub != spoke}
        links = {pair for pair in links if not all(self.hosts[name].get("manager") == "external" for name in pair)}
        links |= {frozenset(rule["link"]) for rule in rules if "link" in rule}
        return {pair for pair in links if all(name in enabled for name in pair)}

    def dialable(self, one: str, two: str) -> bool:
        """Whether one of two hosts knows where the other is."""
        first, second = self.hosts[one], self.hosts[two]
        if "endpoint" in first or "endpoint" in second:
            return True
        same = first.get("site") is not None and first.get("site") == second.get("site")
        return same and ("site-endpoint" in first or "site-endpoint" in second)


def flow(value: object) -> str:
    """Return a value in YAML's flow style, every text quoted but for plain words."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'


class Digits:
    """Takes a number apart, digit by digit; what is left of it at the end is 0 for ever."""

    def __init__(self, number: int) -> None:
        self.number = number

    def take(self, base: int) -> int:
        """Return the next digit, below `base`."""
        self.number, digit = divmod(self.number, base)
        return digit

    def one_in(self, base: int) -> bool:
        """Return true for one digit of `base`, and never for 0."""
        return self.take(base) == base - 1


_HOST = st.integers(0, 2**48 - 1)


@st.composite
def drafts(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    *,
    max_hosts: int = 60,
    managers: tuple[str, ...] = MANAGERS,
    hub_only: bool = False,
) -> Draft:
    """Draw a network with any mix of rules; with `hub_only` one hub that every other host is a spoke of."""
    count = draw(st.one_of(st.integers(2, 8), st.integers(2, max_hosts)))
    numbers = draw(st.lists(_HOST, min_size=count, max_size=count))
    shape = Digits(draw(st.integers(0, 2**32 - 1)))
    draft = Draft()
    draft.versions = ((4,), (4, 6), (6,))[shape.take(3)]
    wide = shape.one_in(3)
    draft.subnets = [SUBNETS[version][number] for version in draft.versions for number in range(2 if wide else 1)]
    draft.preshared_keys = shape.one_in(2)
    # Names in another order than the file's: ties are broken by name.
    step = (1, 7, 13)[shape.take(3)]
    names = [f"h{(number * step) % 61:02d}" for number in range(count)]
    free = list(PREFIXES)
    for number, (name, digits) in enumerate(zip(names, map(Digits, numbers), strict=True)):
        draft.hosts[name] = _host(draft, number, name, digits, free, managers)
    if hub_only:
        draft.rules = [{"hub": [names[0]]}]
        if shape.one_in(3):
            draft.rules[0]["isolate"] = True
        draft.hosts[names[0]].pop("disabled", None)
        draft.hosts[names[0]].pop("manager", None)  # two external hosts are no peers
    else:
        draft.rules = _rules(draw, draft, names)
    _make_sound(draft)
    for name, number in zip(names, numbers, strict=True):
        _policies(draft, name, Digits(number >> 30))
    return draft


def _host(
    draft: Draft, number: int, name: str, digits: Digits, free: list[str], managers: tuple[str, ...]
) -> dict[str, Any]:
    keys: dict[str, Any] = {"addresses": _addresses(draft, number, digits), "public-key": public_key(name)}
    if digits.one_in(2):
        keys["endpoint"] = f"{name}.example.net" if digits.one_in(2) else f"198.51.100.{number + 1}:51821"
    if digits.one_in(4):
        keys["forward"] = True
    manager = managers[min(digits.take(8), len(managers) - 1)] if digits.one_in(2) else managers[0]
    if manager != "networkd":
        keys["manager"] = manager
    site = SITES[digits.take(3)]
    if site is not None:
        keys["site"] = site
        if digits.one_in(2):
            keys["site-endpoint"] = f"192.0.2.{number + 1}"
    if digits.one_in(3):
        chosen = [free.pop(digits.take(len(free))) for _ in range(min(1 + digits.take(2), len(free)))]
        if chosen:
            keys["advertise"] = chosen
    if digits.one_in(10):
        keys["disabled"] = True
    return keys


def _addresses(draft: Draft, number: int, digits: Digits) -> list[str]:
    """Return addresses of one or all versions, sometimes of the second subnet, sometimes with a length of their own."""
    kind = digits.take(6)
    versions = draft.versions if kind < 4 or len(draft.versions) == 1 else (draft.versions[kind - 4],)
    second = digits.one_in(3) and len(draft.subnets) > len(draft.versions)
    length = digits.one_in(6)
    result = []
    for version in versions:
        if version == 4:
            result.append(f"10.{81 if second else 80}.0.{number + 1}" + ("/32" if length else ""))
        else:
            result.append(f"fd42:{81 if second else 80}::{number + 1:x}" + ("/128" if length else ""))
    return result


def _rules(
    draw: Callable[[st.SearchStrategy[Any]], Any], draft: Draft, names: list[str]
) -> list[dict[str, Any]] | None:
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return None
    some = st.lists(st.sampled_from(names), min_size=1, max_size=min(len(names), 5), unique=True)
    many = st.lists(st.sampled_from(names), min_size=2, max_size=len(names), unique=True)
    rules: list[dict[str, Any]] = []
    if kind == 1:
        rules.append({"hub": draw(some)})
    else:
        for _ in range(draw(st.integers(0, 3))):
            if draw(st.booleans()):
                rules.append({"hub": draw(some), "spokes": draw(many)})
            else:
                rules.append({"mesh": draw(many)})
    for rule in rules:
        if "hub" in rule and draw(st.booleans()):
            rule["isolate"] = True
    pairs: set[frozenset[str]] = set()
    for _ in range(draw(st.integers(0 if rules else 1, min(len(names) - 1, 6)))):
        one, two = draw(st.tuples(st.sampled_from(names), st.sampled_from(names)))
        if one == two or frozenset((one, two)) in pairs:
            continue
        pairs.add(frozenset((one, two)))
        rule = {"link": [one, two]}
        if draw(st.booleans()):
            rule["endpoint"] = {two: "203.0.113.9:4000"}
        if draw(st.booleans()):
            rule["keepalive"] = 15
        rules.append(rule)
    return rules or None


def _make_sound(draft: Draft) -> None:
    """Mend what would be an error: rules that match nothing or that no end could start, names of keys nobody shares."""
    named = {name for rule in draft.rules or () for key in ("mesh", "hub", "spokes") for name in rule.get(key, ())}
    kept: list[dict[str, Any]] = []
    for rule in draft.rules or ():
        if "hub" in rule:
            spokes = rule.get("spokes", [name for name in draft.hosts if name not in named])
            if not [name for name in spokes if name not in rule["hub"]] and len(rule["hub"]) < 2:
                continue
            for hub in rule["hub"]:
                draft.hosts[hub].setdefault("endpoint", f"{hub}.example.net")
        elif "link" in rule and "endpoint" not in rule and not draft.dialable(*rule["link"]):
            draft.hosts[rule["link"][0]]["endpoint"] = f"{rule['link'][0]}.example.net"
        kept.append(rule)
    if draft.rules is not None:
        draft.rules = kept or None
    if draft.rules is None:
        hosts = list(draft.hosts.values())
        if len(hosts) > 1:
            hosts[0].setdefault("endpoint", "first.example.net")
    if any(keys.get("manager") == "external" for keys in draft.hosts.values()):
        draft.preshared_keys = False  # a derived key is nothing that an external host could have


def _policies(draft: Draft, name: str, digits: Digits) -> None:
    """Give a host what depends on the links: an exit node that is a peer, and what it accepts."""
    keys = draft.hosts[name]
    if keys.get("disabled") or keys.get("manager") == "external":
        return
    # What serves others as exit node has none itself, nor has what has all around the network behind or beside it.
    near = [other for other in draft.hosts.values() if other is keys or other.get("site") == keys.get("site", "")]
    behind = {prefix for other in near for prefix in other.get("advertise", ())}
    serves = any(prefix.endswith("/0") for prefix in keys.get("advertise", ()))
    if digits.one_in(4) and not serves and not behind & set(AROUND):
        peers = sorted(other for pair in draft.pairs() if name in pair for other in pair if other != name)
        peers = [peer for peer in peers if "exit-node" not in draft.hosts[peer]]
        if peers:
            peer = peers[digits.take(len(peers))]
            keys["exit-node"] = peer
            offer = ["0.0.0.0/0", "::/0"][digits.take(2) :] if digits.one_in(2) else ["0.0.0.0/0", "::/0"]
            advertised = draft.hosts[peer].setdefault("advertise", [])
            advertised += [prefix for prefix in offer if prefix not in advertised]
    if digits.one_in(5):
        keys["accept"] = [
            ("192.168.0.0/16", "192.168.10.0/24", "192.168.10.128/25", "fd00::/8", "10.0.0.0/8")[digits.take(5)]
        ]
