"""The lab's worlds: every example has a sound one, and the kernel makes of it what it says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from pathlib import Path

import pytest
from example_trees import examples, read_fleet
from lab.wiring import (
    bridge,
    build_script,
    destroy_script,
    move_script,
    outer,
    ports_script,
    return_script,
    underlay_files,
)
from lab.world import CAFE, GATEWAY_4, INTERNET, STRANGERS, Port, World, make_world, move, moved
from realparsers import install, lint_keyfile, lint_networkd_many, lint_nft, require_root

from wgnet.managers.artifact import Artifact
from wgnet.plan.derive import Fleet
from wgnet.routing.links import endpoint_towards
from wgnet.syntax.spec import Manager

Prefix = IPv4Network | IPv6Network


def fleet_of(name: str) -> Fleet:
    return read_fleet({path.name: path.read_text() for path in examples()[name]})[0]


def fleet_from(hosts: str, more: str = "") -> Fleet:
    keys = iter("ABCDEFGH")
    lines = [line.replace("KEY", f"{next(keys) * 42}E=") if "KEY" in line else line for line in hosts.split("\n")]
    head = "wgnet: 1\nnetwork: {name: n, subnets: [10.0.0.0/24]}\n"
    return read_fleet({"n.yaml": head + more + "hosts:\n" + "\n".join(f"  {line}" for line in lines) + "\n"})[0]


def every_port(world: World) -> Iterator[Port]:
    for node in world.nodes.values():
        yield from node.ports


def ip_of(text: str) -> IPv4Address | IPv6Address:
    return ip_interface(text).ip


def prefixes_of(port: Port) -> set[Prefix]:
    """Return the prefixes that are on a port's link."""
    found = {ip_interface(text).network for text in port.addresses}
    return {prefix for prefix in found if prefix.prefixlen < prefix.max_prefixlen and not prefix.is_link_local}


@pytest.mark.parametrize("name", examples())
def test_addresses_and_interface_names_are_unique(name: str) -> None:
    world = make_world(fleet_of(name))
    addresses = Counter(
        ip_interface(text).ip
        for port in every_port(world)
        for text in port.addresses
        if not ip_interface(text).ip.is_link_local and text != f"{GATEWAY_4}/32"
    )
    assert [address for address, count in addresses.items() if count > 1] == []
    names = [link for port in every_port(world) for link in (port.name, outer(port))]
    names += [bridge(world, wire) for wire in world.wires]
    assert len(names) == len(set(names))
    assert max(map(len, names)) <= 15
    assert {port.wire for port in every_port(world)} == set(world.wires)


@pytest.mark.parametrize("name", examples())
def test_every_endpoint_leads_to_its_host(name: str) -> None:
    fleet = fleet_of(name)
    world = make_world(fleet)
    checked = 0
    for routing in fleet.routings:
        links = routing.links
        for rank, rules in enumerate(links.rules):
            host = links.hosts[rank]
            for peer_rank, rule in rules.items():
                peer = links.hosts[peer_rank]
                for endpoint in endpoint_towards(host, peer, rule):
                    address = str(endpoint.address or world.names[endpoint.host][0])
                    owner = world.owner(address)
                    port = next(p for p in owner.ports if ip_address(address) in map(ip_of, p.addresses))
                    if owner.name == host.name:
                        on_link = any(port.wire == other.wire for other in world.nodes[peer.name].ports)
                        assert on_link or port == owner.uplink
                        behind_a_redirect = f"daddr {address} udp dport {endpoint.port} " in world.nodes[INTERNET].nft
                        assert endpoint.port == host.listen_port or behind_a_redirect
                    else:
                        assert owner == world.nat_of(host.name)
                        inner = world.uplink(host.name).address(ip_address(address).version)
                        assert f"daddr {address} udp dport {endpoint.port} dnat" in owner.nft
                        assert f" to {inner}:{host.listen_port}\n" in owner.nft
                    checked += 1
    assert checked


@pytest.mark.parametrize("name", examples())
def test_no_local_network_hides_what_the_tunnel_leads_to(name: str) -> None:
    fleet = fleet_of(name)
    world = make_world(fleet)
    for routing in fleet.routings:
        for port in every_port(world):
            for here in prefixes_of(port):
                for subnet in routing.topology.subnets:
                    assert subnet.is_link_local or not here.overlaps(subnet), (port, subnet)
                for host in routing.topology.hosts:
                    for prefix in (*host.advertise, *host.bypass):
                        if here.version == prefix.version and here.overlaps(prefix):
                            assert here == prefix
                            assert world.nodes[host.name] in world.on_wire(port.wire)


@pytest.mark.parametrize("name", examples())
def test_whoever_is_expected_is_there(name: str) -> None:
    fleet = fleet_of(name)
    world = make_world(fleet)
    for routing in fleet.routings:
        for expectation in routing.topology.expectations:
            if expectation.to_address is None:
                continue
            node = world.plain_at(str(expectation.to_address))
            advertisers = [
                host for host in routing.topology.hosts if any(expectation.to_address in p for p in host.advertise)
            ]
            for host in advertisers:
                assert node in [n for port in world.nodes[host.name].ports for n in world.on_wire(port.wire)]
            assert bool(advertisers) != (node == world.outside)
        for host in routing.topology.hosts:
            for prefix in host.bypass:
                assert any(ip_interface(text).ip in prefix for text in world.outside.ports[0].addresses)
    for text in STRANGERS:
        assert world.plain_at(text) == world.outside


@pytest.mark.parametrize("name", examples())
def test_hosts_are_seen_and_moved(name: str) -> None:
    world = make_world(fleet_of(name))
    assert {node.name for node in world.hosts} == set(fleet_of(name).host_names())
    places = Counter[str]()
    for node in world.hosts:
        own = world.uplink(node.name)
        for version in (4, 6):
            assert world.owner(world.seen_as(node.name, version)).uplink is not None
        nat = world.nat_of(node.name)
        near = world.near(node.name)
        if nat is None:
            assert world.seen_as(node.name, 4) == own.address(4)
            with pytest.raises(KeyError):
                move(world, node.name)
            continue
        assert world.owner(world.seen_as(node.name, 4)) == nat
        assert world.seen_as(node.name, 6) == own.address(6)
        assert near is not None
        assert near.kind == "plain"
        assert near in world.on_wire(own.wire)
        there = moved(world, node.name)
        places.update(there.uplink(node.name).addresses)
        assert there.nat_of(node.name) == world.nodes[CAFE]
        assert there.uplink(node.name).name == own.name
        assert there.seen_as(node.name, 4) != world.seen_as(node.name, 4)
        assert there.seen_as(node.name, 6) != world.seen_as(node.name, 6)
    assert all(count == 1 for count in places.values())


def test_a_part_of_a_large_network_is_a_small_world() -> None:
    world = make_world(fleet_of("two-hubs"), frozenset({"ams", "shop17"}))
    assert {node.name for node in world.hosts} == {"ams", "shop17"}
    assert "lon.example.net" not in world.names
    assert world.plain_at("10.128.3.4").kind == "plain"


def test_a_line_of_pppoe_is_narrow() -> None:
    world = make_world(fleet_of("inner-gateway"))
    nat = world.nat_of("pi")
    assert nat is not None and nat.uplink is not None
    assert {wire.name: wire.mtu for wire in world.wires.values() if wire.mtu != 1500} == {nat.uplink.wire: 1492}
    assert world.near("pi") == world.plain_at("192.168.1.50")


def test_one_subnet_that_two_files_advertise_is_one_wire() -> None:
    world = make_world(fleet_of("failover"))
    assert sorted(wire for wire in world.wires if wire.startswith("lan-")) == ["lan-branch-1", "lan-hq-1"]
    assert len(world.names) == 2
    assert world.names["hq-lte.example.net"] != world.names["hq-fibre.example.net"]


def test_a_member_of_a_site_behind_nat_has_its_port_forwarded() -> None:
    world = make_world(
        fleet_from(
            'one: {addresses: [10.0.0.1], public-key: "KEY", endpoint: "one.example.net:443", site: s}\n'
            'two: {addresses: [10.0.0.2], public-key: "KEY", site: s, site-endpoint: 192.168.7.5}\n'
            'three: {addresses: [10.0.0.3], public-key: "KEY"}'
        )
    )
    nat = world.nat_of("one")
    assert nat is not None and nat.name == "nat-s"
    assert world.owner(world.names["one.example.net"][0]) == nat
    assert f"udp dport 443 dnat ip to {world.uplink('one').address(4)}:51820" in nat.nft
    assert world.uplink("two").address(4) == "192.168.7.5"
    assert world.near("one") is not None


def test_what_cannot_be_a_world_is_refused() -> None:
    twice = (
        'one: {addresses: [10.0.0.1], public-key: "KEY", endpoint: same.example.net}\n'
        'two: {addresses: [10.0.0.2], public-key: "KEY", endpoint: same.example.net}'
    )
    with pytest.raises(ValueError, match="both have"):
        make_world(fleet_from(twice))
    full = (
        'one: {addresses: [10.0.0.1], public-key: "KEY", endpoint: one.example.net, advertise: [192.168.9.9/32]}\n'
        'two: {addresses: [10.0.0.2], public-key: "KEY"}'
    )
    with pytest.raises(ValueError, match="no room"):
        make_world(fleet_from(full))


@pytest.mark.parametrize("manager", [Manager.NETWORKD, Manager.NETWORKMANAGER])
def test_managers_take_the_underlay(manager: Manager, tmp_path: Path) -> None:
    roots = []
    # A public host and its site; one behind NAT and a line; networks of either family behind a host.
    for name, chosen in (("cloud", {"web1", "db"}), ("site-to-site", {"berlin"})):
        world = make_world(fleet_of(name))
        for node in world.hosts:
            if node.name not in chosen:
                continue
            files = underlay_files(world, node.name, manager)
            artifacts = [Artifact(path=p, network="", content=text.encode(), mode=mode) for p, text, mode in files]
            roots.append(install(artifacts, tmp_path / name / node.name))
            (hosts,) = (text for path, text, _ in files if path == "/etc/hosts")
            assert all(f"\n{where[0]} {known}\n" in hosts for known, where in world.names.items())
    if manager is Manager.NETWORKD:
        assert [said for found in lint_networkd_many(roots).values() for said in found] == []
    else:
        keyfiles = [path for root in roots for path in root.glob("etc/NetworkManager/system-connections/*")]
        assert len(keyfiles) > len(roots)
        said = [text for path in keyfiles for text in lint_keyfile(path)]
        # Later versions read this form of a gateway too, and write another.
        assert [text for text in said if " address1=" not in text] == []


PROGRAM = """
import socket, struct, sys

def ping(address, size=0):
    six = ":" in address
    kind = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, kind) as wire:
        wire.settimeout(1)
        head = (128, 0, 0, 7, 7) if six else (8, 0, 0xffff - 0x800 - 14, 7, 7)
        wire.sendto(struct.pack("!BBHHH", *head) + bytes(size), (address, 0))
        while (got := wire.recv(2000)[0 if six else 20]) not in (1, 3):
            if got == (129 if six else 0):
                return
        raise SystemExit("unreachable")

def listen(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind((address, port))
        wire.settimeout(5)
        print("ready", flush=True)
        text, sender = wire.recvfrom(100)
        wire.sendto(sender[0].encode(), sender)

def ask(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.settimeout(5)
        wire.sendto(b"who am I?", (address, port))
        print(wire.recv(100).decode())

values = [int(word) if word.isdigit() else word for word in sys.argv[2:]]
{"ping": ping, "listen": listen, "ask": ask}[sys.argv[1]](*values)
"""


class Kernel:
    """A world on this kernel, with namespaces in the place of containers, in a shell of its own namespaces."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        (folder / "program.py").write_text(PROGRAM)
        self.lines = [
            "set -eu",
            "mkdir -p /run/netns",
            "mount -t tmpfs tmpfs /run/netns",
            f'at() {{ nsenter --net=/run/netns/$1 {sys.executable} {folder}/program.py "${{@:2}}"; }}',
            *self._run(build_script(world)),
        ]
        for node in world.hosts:
            self.lines += [*self._run(ports_script(world, node.name)), f"ip netns add {node.name}"]
            for port in node.ports:
                self.lines.append(f"ip link set {port.name} netns {node.name}")
            self.lines.append(f"ip -n {node.name} link set lo up")
            for port in node.ports:
                self.put(node.name, port)

    @staticmethod
    def _run(script: str) -> list[str]:
        return ["bash <<'SCRIPT'", script, "SCRIPT"]

    def run(self, script: str) -> None:
        """Run one of the scripts of the module."""
        self.lines += self._run(script)

    def put(self, host: str, port: Port) -> None:
        """Do what a manager does with a port."""
        ip = f"ip -n {host}"
        self.lines += [f"{ip} link set {port.name} up", f"{ip} address flush dev {port.name} scope global"]
        self.lines += [f"{ip} address add {text} dev {port.name}{' nodad' * (':' in text)}" for text in port.addresses]
        self.lines += [
            f"{ip} route replace {'::/0' if ':' in text else '0.0.0.0/0'} via {text} dev {port.name} onlink"
            for text in port.gateways
        ]

    def reaches(self, node: str, address: str | None, size: int = 0) -> None:
        """Demand that a ping comes back."""
        assert address is not None
        self.lines.append(f"at {node} ping {address} {size} || {{ echo {node} does not reach {address} >&2; exit 1; }}")

    def misses(self, node: str, address: str | None) -> None:
        """Demand that no ping comes back."""
        assert address is not None
        self.lines.append(
            f"if at {node} ping {address} 2>/dev/null; then echo {node} reaches {address} >&2; exit 1; fi"
        )

    def try_all(self) -> str:
        """Do all of it, and return what was printed."""
        command = ["unshare", "--net", "--mount", "bash", "-s"]
        done = subprocess.run(
            command, input="\n".join(self.lines), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_the_kernel_has_sites_lines_and_a_cafe(tmp_path: Path) -> None:
    require_root("network namespaces with names need root")
    world = make_world(fleet_of("cloud"))
    kernel = Kernel(world, tmp_path)
    public = world.uplink("web1")
    for version in (4, 6):
        kernel.reaches("admin", public.address(version), 1400)
        kernel.reaches("db", world.outside.ports[0].address(version))
        kernel.reaches("web1", world.uplink("replica").address(version))
        kernel.misses("web1", world.uplink("admin").address(version))
        kernel.misses("outside", world.uplink("db").address(version))
        kernel.reaches("admin", world.outside.ports[0].address(version))
    kernel.reaches("db", world.names["replica.line.example.net"][0])
    kernel.reaches("db", "10.132.0.77")
    kernel.reaches("web2", world.names["db.west.example.net"][0])
    kernel.misses("outside", "10.132.0.77")
    there = moved(world, "admin")
    kernel.run(move_script(world, "admin"))
    kernel.misses("admin", public.address(4))
    kernel.put("admin", there.uplink("admin"))
    kernel.reaches("admin", public.address(4))
    kernel.reaches("admin", public.address(6))
    kernel.run(return_script(world, "admin"))
    kernel.put("admin", world.uplink("admin"))
    kernel.reaches("admin", public.address(4))
    kernel.run(destroy_script(world))
    kernel.lines += ["ip -o link | grep -v ' lo:' || true", "ls /run/netns"]
    # The namespaces that stood for containers are the test's own.
    assert kernel.try_all().split() == sorted(node.name for node in world.hosts)


def test_the_kernel_forwards_a_port_and_shows_the_public_address(tmp_path: Path) -> None:
    require_root("network namespaces with names need root")
    for name, host, client in (("inner-gateway", "pi", "tablet"), ("road-warriors", "router", "alice")):
        world = make_world(fleet_of(name))
        folder = tmp_path / name
        folder.mkdir()
        kernel = Kernel(world, folder)
        called = {"inner-gateway": "203.0.113.129 51900", "road-warriors": "203.0.113.20 443"}[name]
        own = world.uplink(host).address(4) if world.nat_of(host) else called.split()[0]
        kernel.lines += [f"exec 3< <(at {host} listen {own} 51820)", "read -r ready <&3", f"at {client} ask {called}"]
        assert kernel.try_all().strip() == world.seen_as(client, 4)


@pytest.mark.parametrize("name", examples())
def test_nft_takes_every_rule_set(name: str, tmp_path: Path) -> None:
    require_root("nft asks the kernel")
    nodes = [node for node in make_world(fleet_of(name)).nodes.values() if node.nft]
    # Of boxes that forward no port one is like the other.
    alike = [node.nft for node in nodes if node.kind == "nat" and "udp dport" not in node.nft][1:]
    for number, text in enumerate(node.nft for node in nodes if node.nft not in alike):
        path = tmp_path / f"{number}.nft"
        path.write_text(text)
        assert lint_nft(path) == []
