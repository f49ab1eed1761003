"""A packet's walk over hosts as they are configured, apart from wgnet's own trace.

A host is a `Device`: what the kernel is told of its interface. The walk does what the kernel does: look up the policy
rules and the route, choose the peer by the longest AllowedIPs, take a packet only from the peer that has its source.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass
class Peer:
    """One peer of a device, as the file of a manager has it."""

    public_key: str
    allowed_ips: list[Prefix] = field(default_factory=list)
    endpoint: str | None = None
    preshared_key: str | None = None
    keepalive: int = 0


@dataclass
class Refusal:
    """An ip rule for packets that come in from the interface: refuse, or look up the routes before any later rule."""

    priority: int
    refuses: bool
    source: Prefix
    destination: Prefix


@dataclass
class Device:
    """One WireGuard interface: its own keys and addresses, its peers, its routes and what the host forwards."""

    addresses: list[Interface] = field(default_factory=list)
    private_key: str | None = None
    listen_port: int = 0
    peers: list[Peer] = field(default_factory=list)
    routes: list[Prefix] = field(default_factory=list)
    forwards: set[int] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)

    def peer_for(self, address: Address) -> Peer | None:
        """Return the peer whose AllowedIPs have the longest prefix around the address, as the kernel's trie does."""
        best: tuple[int, Peer] | None = None
        for peer in self.peers:
            for prefix in peer.allowed_ips:
                if address in prefix and (best is None or prefix.prefixlen > best[0]):
                    best = (prefix.prefixlen, peer)
        return None if best is None else best[1]

    def route_length(self, address: Address) -> int:
        """Return the length of the longest route into the tunnel for the address, -1 if there is none."""
        prefixes = [*self.routes, *(own.network for own in self.addresses)]
        return max((prefix.prefixlen for prefix in prefixes if address in prefix), default=-1)

    def refuses(self, sender: Address, target: Address, near: int = -1) -> bool:
        """Whether an ip rule refuses what came in from the interface; `near` is the route beside the tunnel."""
        for rule in sorted(self.refusals, key=lambda rule: rule.priority):
            if sender in rule.source and target in rule.destination:
                if rule.refuses:
                    return True
                if max(self.route_length(target), near) > 0:
                    return False
        return False


@dataclass(frozen=True)
class Walk:
    """Where a packet was, in order, and how its way ended: arrived, left, dropped or loop."""

    hosts: tuple[str, ...]
    end: str
    why: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the packet got to where it was going."""
        return self.end in ("arrived", "left")


@dataclass
class World:
    """The devices by host, whose key is whose, and the subnets that lie behind each host or around it."""

    devices: Mapping[str, Device]
    host_of_key: Mapping[str, str]
    nearby: Mapping[str, Iterable[Prefix]]

    def walk(self, start: str, sender: Address, target: Address) -> Walk:
        """Follow a packet from a host."""
        path = [start]
        while True:
            here = self.devices[path[-1]]
            if any(own.ip == target for own in here.addresses):
                return Walk(tuple(path), "arrived")
            came_in = len(path) > 1
            near = max((p.prefixlen for p in self.nearby.get(path[-1], ()) if target in p), default=-1)
            if came_in and here.refuses(sender, target, near):
                return Walk(tuple(path), "dropped", f"{path[-1]} refuses")
            into = here.route_length(target)
            if near >= 0 and near >= into:
                return Walk(tuple(path), "left")
            if into < 0:
                return Walk(tuple(path), "dropped", f"{path[-1]} has no route")
            if came_in and target.version not in here.forwards:
                return Walk(tuple(path), "dropped", f"{path[-1]} does not forward")
            peer = here.peer_for(target)
            if peer is None:
                return Walk(tuple(path), "dropped", f"{path[-1]} has no peer for {target}")
            following = self.host_of_key[peer.public_key]
            back = self.devices[following].peer_for(sender)
            if back is None or self.host_of_key[back.public_key] != path[-1]:
                return Walk((*path, following), "dropped", f"{following} does not take {sender} from {path[-1]}")
            if following in path:
                return Walk((*path, following), "loop")
            path.append(following)
