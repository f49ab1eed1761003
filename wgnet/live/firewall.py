"""What a host's firewall drops that wgnet needs to come through.

Stage: live. Input: an interface's plan and the host's nftables; output: what is dropped for certain, and where. Where
it cannot be told, nothing is said. Runs nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from wgnet.live.ruleset import BaseChain, Packet, Ruleset
from wgnet.plan.firewall import firewall_needs
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Prefix

__all__ = ["Dropped", "find_dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What a firewall drops, of which IP versions. `need` is in the words of `wgnet show`; `chain` is where."""

    interface: str
    need: str
    versions: tuple[int, ...]
    chain: BaseChain

    def __str__(self) -> str:
        chain = self.chain
        where = f"chain {chain.name} (hook {chain.hook}) of table {chain.family} {chain.table}"
        versions = " and ".join(f"IPv{version}" for version in self.versions)
        return f"{self.interface}: the firewall does not {self.need}: {where} drops it ({versions})"


def find_dropped(plan: InterfacePlan, ruleset: Ruleset) -> list[Dropped]:
    """Return what of an interface's needs is dropped for certain, in the order of `wgnet show`."""
    found: list[Dropped] = []
    for need, hook, packets, every in _needs(plan):
        chains = {packet.version: ruleset.dropping(hook, packet) for packet in packets}
        dropped = {version: chain for version, chain in chains.items() if chain is not None}
        if dropped and (every or len(dropped) == len(chains)):
            versions = tuple(sorted(dropped))
            found.append(Dropped(interface=plan.interface, need=need, versions=versions, chain=dropped[versions[0]]))
    return found


def _needs(plan: InterfacePlan) -> Iterator[tuple[str, str, list[Packet], bool]]:
    """Yield each need, the hook that sees it, a packet of each IP version, and whether every version is needed.

    Of a connection that is forwarded only the direction from the peers is looked at: that others may not begin one is
    nothing unusual for a firewall to want.
    """
    others = frozenset(("lo", plan.interface))
    behind = tuple(prefix for peer in plan.peers for prefix in peer.allowed_ips)
    for need in firewall_needs(plan):
        if need.startswith("let in"):
            versions = sorted(_called_by(plan))
            packets = [Packet(version=version, others=others, udp_port=plan.listen_port) for version in versions]
            yield need, "input", packets, False
            continue
        between = need.startswith("forward between")
        to: tuple[Prefix, ...] = () if between and plan.host.offers else plan.host.advertise if between else behind
        packets = [
            Packet(
                version=version,
                incoming=plan.interface,
                outgoing=None if between else plan.interface,
                others=others,
                sources=behind,
                destinations=to,
            )
            for version in sorted(plan.forwarding)
            if all(not prefixes or any(one.version == version for one in prefixes) for prefixes in (behind, to))
        ]
        yield need, "forward", packets, True


def _called_by(plan: InterfacePlan) -> set[int]:
    """Return the IP versions that peers may call the host by: those of its endpoints, where these are addresses."""
    endpoints = (*plan.host.endpoint, *plan.host.site_endpoint)
    if not endpoints or any(endpoint.address is None for endpoint in endpoints):
        return {4, 6}
    return {ipaddress.ip_address(endpoint.host).version for endpoint in endpoints}
