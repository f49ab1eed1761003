"""Parts of a world in the making: local networks that give out addresses, and nftables rule sets.

Input: prefixes and rules. Output: addresses with prefix lengths, and text for nft(8). It must not know topologies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
_T = TypeVar("_T")


@dataclass
class Lan:
    """A local network in the making. `gateway` is the NAT box's addresses, if it has one."""

    wire: str
    prefix: Prefix
    prefix_6: IPv6Network | None = None
    gateways: tuple[str, ...] = ()
    taken: set[Address] = field(default_factory=set)

    def take(self, reserved: Iterable[Address] = ()) -> str:
        """Return the first address that is free and nobody's reservation, with the prefix length."""
        kept = self.taken | set(reserved)
        for address in usable(self.prefix):
            if address not in kept:
                return self.give(address)
        raise ValueError(f"{self.prefix} has no room for another host")

    def give(self, address: Address) -> str:
        """Return an address of the network with the prefix length."""
        if address in self.taken:
            raise ValueError(f"{address} is given twice")
        self.taken.add(address)
        return f"{address}/{self.prefix.prefixlen}"

    def addresses_6(self) -> tuple[str, ...]:
        """Return an IPv6 address of its own, with the prefix length, for whoever asks."""
        if self.prefix_6 is None:
            return ()
        address = self.prefix_6[1 + len(self.taken)]
        return (f"{address}/{self.prefix_6.prefixlen}",)


def usable(prefix: Prefix) -> Iterator[Address]:
    """Yield the addresses that hosts of a prefix may have."""
    whole = prefix.prefixlen >= prefix.max_prefixlen - 1
    for number in range(0 if whole else 1, min(prefix.num_addresses - (0 if whole else 1), 1 << 16)):
        yield prefix[number]


def sort_key(address: Address) -> tuple[int, int]:
    """Return what addresses of both versions sort by."""
    return address.version, int(address)


def unique(items: Iterable[_T]) -> list[_T]:
    """Return each item once, in the order of the first."""
    return list(dict.fromkeys(items))


def dnat_rule(address: Address, port: int | None, target: str, target_port: int | None) -> str:
    """Return the rule by which a UDP port of a public address leads to another's."""
    family = "ip" if address.version == 4 else "ip6"
    goal = target if address.version == 4 else f"[{target}]"
    return f"{family} daddr {address} udp dport {port} dnat {family} to {goal}:{target_port}"


def rule_set(name: str, chains: dict[str, tuple[str, str, list[str]]]) -> str:
    """Return a rule set of one table: for each hook the chain's type, its priority and its rules."""
    lines = [f"table inet {name} {{"]
    for hook, (kind, priority, rules) in chains.items():
        lines += [f"  chain {hook} {{", f"    type {kind} hook {hook} priority {priority}; policy accept;"]
        lines += [f"    {rule}" for rule in rules]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])
