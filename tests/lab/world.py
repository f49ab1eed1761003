"""Where a topology lives: the internet, NAT boxes, local networks and plain hosts that its files speak of.

Input: the topologies of one fleet. Output: a `World` of nodes, wires, addresses and names, without any tunnel. It must
do no I/O and know no manager: what makes a world real is `wiring.py`.

Every public host stands in a subnet of its own (a /32 and a /128 behind an on-link gateway, as in many clouds), so that
an endpoint is a real address that is routed. A host without endpoint stands behind a NAT box of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from typing import Literal

from lab.parts import Address, Lan, Prefix, dnat_rule, rule_set, sort_key, unique, usable
from wgnet.model.topology import Host, RuleKind
from wgnet.plan.derive import Fleet
from wgnet.syntax.spec import Endpoint, Manager

Kind = Literal["host", "router", "nat", "plain", "external"]

INTERNET, OUTSIDE, CAFE = "internet", "outside", "cafe"
#: The gateways on every wire to the internet. The second is that of every NAT box too, as a home router announces
#: itself; it is none that an example's tunnel uses (fe80::1 and fe80::2).
GATEWAY_4, GATEWAY_6 = "100.64.0.1", "fe80::ff"
#: Strangers on the internet, beside those that `expect` names.
STRANGERS = ("198.51.100.80", "192.0.2.80", "2001:db8:80::1")
MTU, MTU_PPPOE = 1500, 1492
#: What fits into PPPoE with WireGuard over IPv6: whoever gives this MTU has such a line.
TUNNEL_MTU_PPPOE = 1412
_PUBLIC = IPv4Network("203.0.113.128/25")


@dataclass(frozen=True)
class Port:
    """A node's interface on a wire; `addresses` with prefix lengths, `gateways` the default gateways, on link."""

    name: str
    wire: str
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()

    def address(self, version: int) -> str | None:
        """Return the first address of an IP version that is not link-local, without its prefix length."""
        for text in self.addresses:
            address = ip_interface(text).ip
            if address.version == version and not address.is_link_local:
                return str(address)
        return None


@dataclass(frozen=True)
class Route:
    """A static route that is no default route; without gateway the destination is on the port's link."""

    destination: str
    gateway: str | None
    port: str


@dataclass(frozen=True)
class Node:
    """A system; `nft` is its rule set, if it has one, and `forward` whether it forwards packets from the beginning."""

    name: str
    kind: Kind
    ports: tuple[Port, ...]
    routes: tuple[Route, ...] = ()
    nft: str = ""
    forward: bool = False

    def owns(self, address: str) -> bool:
        """Whether the node has an address."""
        wanted = ip_address(address)
        return any(ip_interface(text).ip == wanted for port in self.ports for text in port.addresses)

    @property
    def uplink(self) -> Port | None:
        """The port that the default routes leave by."""
        return next((port for port in self.ports if port.gateways), None)


@dataclass(frozen=True)
class Wire:
    """A network of its own, with the MTU of all its ports."""

    name: str
    mtu: int = MTU


@dataclass(frozen=True)
class World:
    """All nodes and wires, by name, and the names that DNS would know, with their addresses."""

    nodes: dict[str, Node]
    wires: dict[str, Wire]
    names: dict[str, tuple[str, ...]]

    @property
    def outside(self) -> Node:
        """The plain host on the internet."""
        return self.nodes[OUTSIDE]

    @property
    def hosts(self) -> tuple[Node, ...]:
        """The topology's hosts that are systems of their own; external ones are not among them."""
        return tuple(node for node in self.nodes.values() if node.kind == "host")

    def uplink(self, host: str) -> Port:
        """Return the port that a node's default routes leave by; KeyError if there is no such node or port."""
        port = self.nodes[host].uplink
        if port is None:
            raise KeyError(f"{host} has no default route")
        return port

    def owner(self, address: str) -> Node:
        """Return the node that owns an address; KeyError if none does."""
        for node in self.nodes.values():
            if node.owns(address):
                return node
        raise KeyError(f"nobody owns {address}")

    def plain_at(self, address: str) -> Node:
        """Return the plain host that owns an address; KeyError if none does."""
        for node in self.nodes.values():
            if node.kind == "plain" and node.owns(address):
                return node
        raise KeyError(f"no plain host at {address}")

    def on_wire(self, wire: str) -> tuple[Node, ...]:
        """Return the nodes that have a port on a wire."""
        return tuple(node for node in self.nodes.values() if any(port.wire == wire for port in node.ports))

    def nat_of(self, host: str) -> Node | None:
        """Return the NAT box between a node and the internet, or None."""
        wire = self.uplink(host).wire
        for node in self.on_wire(wire):
            if node.kind == "nat" and node.uplink is not None and node.uplink.wire != wire:
                return node
        return None

    def near(self, host: str) -> Node | None:
        """Return a plain host on a wire of a host's own, that of its default route first; None where there is none."""
        for port in sorted(self.nodes[host].ports, key=lambda port: not port.gateways):
            for node in self.on_wire(port.wire):
                if node.kind == "plain":
                    return node
        return None

    def seen_as(self, host: str, version: int) -> str:
        """Return the source address that others on the internet see of a node; KeyError if it has none."""
        nat = self.nat_of(host) if version == 4 else None
        address = self.uplink(nat.name if nat else host).address(version)
        if address is None:
            raise KeyError(f"{host} has no public address of version {version}")
        return address


def move(world: World, host: str) -> Port:
    """Return the port that a host behind NAT has when it is in the café; KeyError if it is not behind NAT."""
    nat = world.nat_of(host)
    if nat is None:
        raise KeyError(f"{host} is not behind NAT")
    here = next(port for port in world.nodes[CAFE].ports if port.wire == CAFE)
    place = 10 + [node.name for node in world.nodes.values()].index(host)
    addresses = []
    for text in here.addresses:
        network = ip_interface(text).network
        if not network.is_link_local:
            addresses.append(f"{network[place]}/{network.prefixlen}")
    gateway = here.address(4)
    assert gateway is not None
    return replace(world.uplink(host), wire=CAFE, addresses=tuple(addresses), gateways=(gateway, GATEWAY_6))


def moved(world: World, host: str) -> World:
    """Return the world in which a host behind NAT is in the café."""
    old, new = world.uplink(host), move(world, host)
    node = world.nodes[host]
    ports = tuple(new if port == old else port for port in node.ports)
    return replace(world, nodes={**world.nodes, host: replace(node, ports=ports)})


def make_world(fleet: Fleet, only: frozenset[str] | None = None) -> World:
    """Return the world that topologies on the same hosts live in; `only` names the hosts that are real.

    ValueError where the files contradict each other, or an advertised subnet has no room for two hosts.
    """
    return _Builder(fleet, only).build()


class _Builder:
    """Makes one world."""

    def __init__(self, fleet: Fleet, only: frozenset[str] | None) -> None:
        self.topologies = [routing.topology for routing in fleet.routings]
        self.nodes: dict[str, Node] = {}
        self.wires: dict[str, Wire] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.ports: dict[str, list[Port]] = {}
        self.routes: dict[str, list[Route]] = {INTERNET: []}
        self.redirects: list[str] = []
        self.hosts: dict[str, list[Host]] = {}
        for topology in self.topologies:
            for host in topology.hosts:
                if not host.disabled and (only is None or host.name in only):
                    self.hosts.setdefault(host.name, []).append(host)
        self.expected = {
            expectation.to_address
            for topology in self.topologies
            for expectation in topology.expectations
            if expectation.to_address is not None
        }
        self.prefixes = {
            prefix
            for topology in self.topologies
            for prefix in (*topology.subnets, *(p for h in topology.hosts for p in (*h.advertise, *h.bypass)))
        }
        self.used = self._literals() | self.expected | {ip_address(text) for text in STRANGERS}
        self.advertised = {name: unique(p for h in self.hosts[name] for p in h.advertise) for name in self.hosts}
        self.placed: set[tuple[str, Prefix]] = set()
        self.lans: set[Prefix] = set()
        self.public_numbers = 0

    # --- what is common to all --------------------------------------------------------------------------------------

    def build(self) -> World:
        """Make everything."""
        self.ports[INTERNET] = []
        sites = unique(host.site for entries in self.hosts.values() for host in entries if host.site)
        for site in sites:
            self._make_site(site, [name for name, entries in self.hosts.items() if entries[0].site == site])
        for name in self.hosts:
            if name not in self.ports:
                self._make_alone(name)
        self._make_links()
        self._make_advertised()
        for name, entries in self.hosts.items():
            self._finish_host(name, external=entries[0].manager is Manager.EXTERNAL)
        if any(node.kind == "nat" for node in self.nodes.values()):
            self._open_nat(CAFE, CAFE, self._free_lan("172.30", 0), [])
            self._close_nat(CAFE, [])
        self._make_outside()
        self._add(
            Node(
                INTERNET,
                "router",
                tuple(self.ports[INTERNET]),
                tuple(self.routes[INTERNET]),
                rule_set("lab", {"prerouting": ("nat", "dstnat", self.redirects)}) if self.redirects else "",
                forward=True,
            )
        )
        return World(self.nodes, self.wires, self.names)

    def _add(self, node: Node) -> None:
        if node.name in self.nodes:
            raise ValueError(f"two nodes are named {node.name}")
        self.nodes[node.name] = node

    def _wire(self, name: str, mtu: int = MTU) -> str:
        if name in self.wires:
            raise ValueError(f"two wires are named {name}")
        self.wires[name] = Wire(name, mtu)
        return name

    def _port(self, node: str, wire: str, addresses: Iterable[str], gateways: tuple[str, ...] = ()) -> Port:
        port = Port(f"e{sum(map(len, self.ports.values()))}", wire, tuple(addresses), gateways)
        self.ports.setdefault(node, []).append(port)
        return port

    def _plain(self, name: str, wire: str, addresses: Iterable[str], gateways: tuple[str, ...]) -> None:
        self._port(name, wire, addresses, gateways)
        self._add(Node(name, "plain", tuple(self.ports[name])))

    def _finish_host(self, name: str, *, external: bool) -> None:
        """Add a topology's host with all ports that it got. An external one is an exit node, run by others."""
        ports, routes = tuple(self.ports[name]), tuple(self.routes.get(name, ()))
        nft = ""
        if external:
            uplink = next(port for port in ports if port.gateways)
            nft = rule_set("lab", {"postrouting": ("nat", "srcnat", [f'oifname "{uplink.name}" masquerade'])})
        self._add(Node(name, "external" if external else "host", ports, routes, nft, forward=external))

    # --- addresses and names -----------------------------------------------------------------------------------------

    def _literals(self) -> set[Address]:
        """Return every address that a file gives for an underlay, of hosts that are not real too."""
        endpoints = [
            endpoint
            for topology in self.topologies
            for given in (
                *(host.endpoint + host.site_endpoint for host in topology.hosts),
                *(given for rule in topology.rules for given in rule.endpoint.values()),
            )
            for endpoint in given
        ]
        return {endpoint.address for endpoint in endpoints if endpoint.address is not None}

    def _public_4(self) -> IPv4Address:
        for address in _PUBLIC.hosts():
            if address not in self.used:
                self.used.add(address)
                return address
        raise ValueError("no public address is left")

    def _public_6(self) -> int:
        """Return a number that no public host and no NAT box has."""
        self.public_numbers += 1
        return self.public_numbers

    def _free_lan(self, start: str, first: int) -> IPv4Network:
        """Return a /24 that collides with no prefix of the topologies and no other local network."""
        for number in range(first, 256):
            lan = IPv4Network(f"{start}.{number}.0/24")
            if not any(p.version == 4 and lan.overlaps(p) for p in self.prefixes | self.lans):
                self.lans.add(lan)
                return lan
        raise ValueError(f"no local network is left in {start}.0.0/16")

    def _resolve(self, endpoint: Endpoint, address: Address) -> None:
        """Let a name mean an address, the same each time."""
        if endpoint.address is None and self.names.setdefault(endpoint.host, (str(address),)) != (str(address),):
            raise ValueError(f"{endpoint.host} is in two places")

    def _own(self, endpoints: Iterable[Endpoint]) -> list[Address]:
        """Return the public addresses that endpoints are, names made addresses."""
        found: list[Address] = []
        for endpoint in endpoints:
            address = endpoint.address
            if address is None:
                known = self.names.get(endpoint.host)
                address = ip_address(known[0]) if known else self._public_4()
                self._resolve(endpoint, address)
            if address not in found:
                found.append(address)
        return found

    # --- the internet ------------------------------------------------------------------------------------------------

    def _connect(self, node: str, addresses: Iterable[Address], mtu: int = MTU) -> Port:
        """Give a node a wire to the internet, where its addresses are routed to it."""
        wire = self._wire(f"net-{node}", mtu)
        own = [f"{address}/{address.max_prefixlen}" for address in addresses]
        if routed := {route.destination for route in self.routes[INTERNET]} & set(own):
            raise ValueError(f"{node} and another both have {', '.join(sorted(routed))}")
        there = self._port(INTERNET, wire, (f"{GATEWAY_4}/32", f"{GATEWAY_6}/64"))
        self.routes[INTERNET] += [Route(address, None, there.name) for address in own]
        port = self._port(node, wire, own, (GATEWAY_4, GATEWAY_6))
        # So that the gateway stays on the link where policy rules leave the default route out.
        self.routes.setdefault(node, []).append(Route(f"{GATEWAY_4}/32", None, port.name))
        return port

    def _connect_host(self, name: str) -> None:
        """Give a public host its wire, with the addresses of its endpoints and one of each family at the least."""
        endpoints = [(host, endpoint) for host in self.hosts[name] for endpoint in host.endpoint]
        addresses = self._own(endpoint for _, endpoint in endpoints)
        if not any(address.version == 4 for address in addresses):
            addresses.append(self._public_4())
        if not any(address.version == 6 for address in addresses):
            addresses.append(IPv6Address(f"2001:db8:ff:{self._public_6():x}::1"))
        self._connect(name, addresses)
        for host, endpoint in endpoints:
            # A further port of a host that is public itself is let in on the way to it.
            if host.listen_port not in (0, endpoint.port):
                (address,) = self._own([endpoint])
                self.redirects.append(dnat_rule(address, endpoint.port, str(address), host.listen_port))

    def _make_outside(self) -> None:
        """Make the strangers: whoever `expect` names and nobody has, one in each `bypass` prefix, and some more."""
        subnets = [prefix for topology in self.topologies for prefix in topology.subnets]
        subnets += [prefix for topology in self.topologies for host in topology.hosts for prefix in host.advertise]
        bypasses = [p for topology in self.topologies for host in topology.hosts for p in host.bypass]
        wanted = sorted((a for a in self.expected if not any(a in prefix for prefix in subnets)), key=sort_key)
        wanted += [ip_address(text) for text in STRANGERS]
        owned = {ip_interface(text).ip for ports in self.ports.values() for port in ports for text in port.addresses}
        wanted = [address for address in unique(wanted) if address not in owned]
        for prefix in bypasses:
            if not any(address in prefix for address in wanted):
                wanted.append(next(address for address in usable(prefix) if address not in owned))
        self._connect(OUTSIDE, wanted)
        self._add(Node(OUTSIDE, "plain", tuple(self.ports[OUTSIDE]), tuple(self.routes[OUTSIDE])))

    # --- behind NAT --------------------------------------------------------------------------------------------------

    def _open_nat(self, name: str, wire: str, prefix: Prefix, hosts: list[str]) -> Lan:
        """Begin a NAT box, which has the public addresses of the hosts' endpoints, and the local network behind it."""
        number = self._public_6()
        entries = [
            (host, endpoint) for host_name in hosts for host in self.hosts[host_name] for endpoint in host.endpoint
        ]
        addresses = self._own(endpoint for _, endpoint in entries)
        if not any(address.version == 4 for address in addresses):
            addresses.append(self._public_4())
        addresses.append(IPv6Address(f"2001:db8:fe:{number:x}::1"))
        narrow = any(host.mtu == TUNNEL_MTU_PPPOE for host, _ in entries)
        self._connect(name, addresses, MTU_PPPOE if narrow else MTU)
        prefix_6 = IPv6Network(f"2001:db8:ff:{number:x}::/64")
        self.routes[INTERNET].append(Route(str(prefix_6), str(addresses[-1]), self.ports[INTERNET][-1].name))
        lan = Lan(self._wire(wire), prefix, prefix_6)
        own = lan.take(self.expected)
        lan.gateways = (own.partition("/")[0], GATEWAY_6)
        self._port(name, wire, (own, f"{prefix_6[1]}/64", f"{GATEWAY_6}/64"))
        return lan

    def _close_nat(self, name: str, hosts: list[str]) -> None:
        """End a NAT box, whose public ports lead to the hosts' own now that these have addresses."""
        uplink, inside = self.ports[name]
        forwards = []
        for host_name in hosts:
            there = next(port for port in self.ports[host_name] if port.wire == inside.wire)
            for host in self.hosts[host_name]:
                for endpoint in host.endpoint:
                    (address,) = self._own([endpoint])
                    target = there.address(address.version)
                    assert target is not None
                    forwards.append(dnat_rule(address, endpoint.port, target, host.listen_port or endpoint.port))
        passing = ["ct state established,related accept", "ct status dnat accept", f'iifname "{inside.name}" accept']
        rules = {
            "prerouting": ("nat", "dstnat", forwards),
            "forward": ("filter", "filter", [*passing, "drop"]),
            "postrouting": ("nat", "srcnat", [f'oifname "{uplink.name}" meta nfproto ipv4 masquerade']),
        }
        self._add(Node(name, "nat", (uplink, inside), tuple(self.routes[name]), rule_set("lab", rules), forward=True))

    def _make_neighbours(self, name: str, lan: Lan, gateways: tuple[str, ...]) -> None:
        """Make a plain host at each address of a local network that is expected there, or one."""
        wanted = sorted((address for address in self.expected if address in lan.prefix), key=sort_key)
        for number, own in enumerate([lan.give(address) for address in wanted] or [lan.take()], start=1):
            addresses = (own, *lan.addresses_6()) if GATEWAY_6 in gateways else (own,)
            self._plain(f"{name}-{number}" if number > 1 else name, lan.wire, addresses, gateways)

    def _is_public(self, name: str) -> bool:
        """Whether a host itself has a public address: none of its first endpoints is another's port."""
        first = [(host, host.endpoint[0]) for host in self.hosts[name] if host.endpoint]
        return bool(first) and all(host.listen_port in (0, endpoint.port) for host, endpoint in first)

    def _make_alone(self, name: str) -> None:
        """Give a host that is of no site its way to the internet."""
        if self._is_public(name):
            self._connect_host(name)
            return
        inner = [
            prefix
            for host in self.hosts[name]
            for prefix in host.advertise
            if host.endpoint and host.masquerade and prefix.version == 4
        ]
        if inner:
            self.placed.add((name, inner[0]))
        prefix = inner[0] if inner else self._free_lan("172.20", 1)
        lan = self._open_nat(f"nat-{name}", f"home-{name}", prefix, [name])
        self._port(name, lan.wire, (lan.take(self.expected), *lan.addresses_6()), lan.gateways)
        self._close_nat(f"nat-{name}", [name])
        self._make_neighbours(f"near-{name}", lan, lan.gateways)

    # --- sites, lines and what lies behind ---------------------------------------------------------------------------

    def _make_site(self, site: str, members: list[str]) -> None:
        """Make a site's local network, which has the addresses that its members' `site-endpoint` says."""
        advertised = [(name, p) for name in members for p in self.advertised[name] if p.version == 4]
        literals = {
            endpoint.address
            for name in members
            for host in self.hosts[name]
            for endpoint in host.site_endpoint
            if isinstance(endpoint.address, IPv4Address)
        }
        fitting = [(name, p) for name, p in advertised if all(address in p for address in literals)]
        prefix: Prefix
        if fitting:
            prefix = fitting[0][1]
            self.placed.add(fitting[0])
        elif literals:
            prefix = IPv4Network((min(literals), 24), strict=False)
        else:
            prefix = self._free_lan("172.21", 1)
        private = [name for name in members if not self._is_public(name)]
        wire = f"site-{site}"
        if private:
            lan = self._open_nat(f"nat-{site}", wire, prefix, private)
        else:
            lan = Lan(self._wire(wire), prefix)
        for name in members:
            if name not in private:
                self._connect_host(name)
            self._join_site(name, lan, literals, private=name in private)
        if private:
            self._close_nat(f"nat-{site}", private)
        gateways = lan.gateways
        if fitting:
            owner = next(port for port in self.ports[fitting[0][0]] if port.wire == wire)
            gateways = (owner.address(4) or "",)
        self._make_neighbours(f"near-{site}", lan, gateways)

    def _join_site(self, name: str, lan: Lan, literals: set[IPv4Address], *, private: bool) -> None:
        """Give a member of a site its port there."""
        endpoints = [endpoint for host in self.hosts[name] for endpoint in host.site_endpoint]
        own: list[str] = []
        for address in unique(endpoint.address for endpoint in endpoints if endpoint.address is not None):
            own.append(lan.give(address) if address.version == 4 else f"{address}/64")
        if not any("." in text for text in own):
            own.insert(0, lan.take(self.expected | literals))
        for endpoint in endpoints:
            self._resolve(endpoint, ip_interface(next(text for text in own if "." in text)).ip)
        if private:
            own += lan.addresses_6()
        self._port(name, lan.wire, own, lan.gateways if private else ())

    def _make_links(self) -> None:
        """Make a wire for every link rule that has endpoints of its own: a line between two hosts."""
        for topology in self.topologies:
            for rule in topology.rules:
                names = [host.name for host in rule.members]
                if rule.kind is not RuleKind.LINK or not rule.endpoint or not all(n in self.hosts for n in names):
                    continue
                literals = {e.address for given in rule.endpoint.values() for e in given if e.address is not None}
                prefix: Prefix
                if literals:
                    first = min(literals, key=sort_key)
                    prefix = (
                        IPv4Network((first, 24), strict=False)
                        if isinstance(first, IPv4Address)
                        else IPv6Network((first, 64), strict=False)
                    )
                else:
                    prefix = IPv4Network((self._free_lan("172.29", 0).network_address, 30))
                lan = Lan(self._wire(f"line-{'-'.join(names)}"), prefix)
                for name in names:
                    given = rule.endpoint.get(name, ())
                    own = [lan.give(e.address) for e in given if e.address is not None]
                    own = own or [lan.take(literals)]
                    for endpoint in given:
                        self._resolve(endpoint, ip_interface(own[0]).ip)
                    self._port(name, lan.wire, own)

    def _make_advertised(self) -> None:
        """Make a local network for each subnet that a host advertises and does not stand in already."""
        for name, prefixes in self.advertised.items():
            others = [prefix for prefix in prefixes if (name, prefix) not in self.placed]
            for number, prefix in enumerate(others, start=1):
                lan = Lan(self._wire(f"lan-{name}-{number}"), prefix)
                own = lan.take(self.expected)
                self._port(name, lan.wire, (own,))
                if not any(address in prefix for address in self.expected) and prefix.num_addresses > 16:
                    lan.taken.update(prefix[n] for n in range(10))
                self._make_neighbours(f"behind-{name}-{number}", lan, (own.partition("/")[0],))
