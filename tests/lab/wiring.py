"""How a world is made real: shell for the machine that it lives in, and the files that give hosts their underlay.

Input: a `World`. Output: scripts for bash, and files. It must run nothing itself, and write no tunnel's configuration.

Wires are bridges in the machine's first network namespace; every node but the topology's hosts is a namespace. A host
is a container with a namespace of its own, whose end is the end of its ports too. Both ends of a port, and its bridge,
have names that follow from the world alone. As few processes as possible: they are slow under emulation.
"""

from __future__ import annotations

import shlex
import uuid
from ipaddress import ip_interface

from lab.world import Node, Port, World, move
from wgnet.syntax.spec import Manager

#: A file: its path, its text, its mode.
File = tuple[str, str, int]


def bridge(world: World, wire: str) -> str:
    """Return the name of a wire's bridge."""
    return f"b{list(world.wires).index(wire)}"


def outer(port: Port) -> str:
    """Return the name of the end of a port that its wire's bridge holds."""
    return f"o{port.name.removeprefix('e')}"


def build_script(world: World) -> str:
    """Return the script that makes the wires, and all nodes that are no hosts of the topology, with all they need.

    It needs root and iproute2, nftables and util-linux, and fails whole where one step fails. Links that nobody else
    shall configure must be kept from a network manager of the machine itself.
    """
    nodes = _namespaces(world)
    lines = ["set -eu", "mkdir -p /run/netns"]
    root = [f"netns add {node.name}" for node in nodes]
    for wire in world.wires.values():
        name = bridge(world, wire.name)
        # Without an address of its own the machine takes no part in what passes.
        root += [
            f"link add {name} mtu {wire.mtu} type bridge stp_state 0 mcast_snooping 0",
            f"link set {name} addrgenmode none up",
        ]
    for node in nodes:
        for port in node.ports:
            root += _port_commands(world, port, node.name)
    lines += [_batch(root), "pids=()"]
    for node in nodes:
        lines += [
            f"nsenter --net=/run/netns/{node.name} bash -eu <<'NODE' &",
            *_node_lines(node),
            "NODE",
            'pids+=("$!")',
        ]
    return "\n".join(
        [*lines, "failed=0", 'for pid in "${pids[@]}"; do wait "$pid" || failed=1; done', 'exit "$failed"', ""]
    )


def destroy_script(world: World) -> str:
    """Return the script that undoes `build_script` and what was made for hosts, whatever there is of it."""
    nodes = _namespaces(world)
    # A port that is deleted here is gone at once; those of a namespace die some time after it.
    ports = [outer(port) for node in world.nodes.values() for port in node.ports]
    links = [f"link del {name}" for name in (*ports, *(bridge(world, wire) for wire in world.wires))]
    names = " ".join(shlex.quote(node.name) for node in nodes)
    return "\n".join(
        [
            f"for node in {names}; do",
            '  [ ! -e "/run/netns/$node" ] || ip netns pids "$node" | xargs -r kill -9',
            "done",
            "{",
            _batch([*links, *(f"netns del {node.name}" for node in nodes)], "-force"),
            "} 2>/dev/null || true",
            f"for node in {names}; do",
            '  [ ! -e "/run/netns/$node" ] || { echo "$node is still there" >&2; exit 1; }',
            "done",
            "",
        ]
    )


def ports_script(world: World, host: str) -> str:
    """Return the script that makes a host's ports: to be run before each boot of its container.

    Their inner ends are left in the machine's own namespace, to be moved into the container's.
    """
    node = world.nodes[host]
    # Those of a container that ended a moment ago may not be gone yet.
    lines = [f"ip link del {outer(port)} 2>/dev/null || true" for port in node.ports]
    commands = [command for port in node.ports for command in _port_commands(world, port)]
    return "\n".join(["set -eu", *lines, _batch(commands), ""])


def move_script(world: World, host: str) -> str:
    """Return the script that takes a host behind NAT to the café: the carrier is lost, and comes back elsewhere."""
    return _plug(world, move(world, host))


def return_script(world: World, host: str) -> str:
    """Return the script that takes a host back to where it stands in this world."""
    return _plug(world, world.uplink(host))


def underlay_files(world: World, host: str, manager: Manager) -> list[File]:
    """Return the files by which a host has its addresses and names without any tunnel, for who manages its links."""
    node = world.nodes[host]
    files = [("/etc/hostname", f"{host}\n", 0o644), ("/etc/hosts", _hosts(world, host), 0o644)]
    if manager is Manager.NETWORKMANAGER:
        folder = "/etc/NetworkManager"
        names = ";".join(f"interface-name:{port.name}" for port in node.ports)
        # udev's rules and NetworkManager's own caution leave a veth alone that somebody else made.
        claim = f"[device-underlay]\nmatch-device={names}\nmanaged=1\n"
        # NetworkManager has no key that switches duplicate address detection off.
        settings = "".join(f"net.ipv6.conf.{port.name}.accept_dad = 0\n" for port in node.ports)
        files += [
            (f"{folder}/conf.d/10-underlay.conf", claim, 0o644),
            ("/etc/sysctl.d/10-underlay.conf", settings, 0o644),
        ]
        files += [
            (f"{folder}/system-connections/{port.name}.nmconnection", _keyfile(node, port), 0o600)
            for port in node.ports
        ]
    else:
        files += [(f"/etc/systemd/network/10-{port.name}.network", _network(node, port), 0o644) for port in node.ports]
    return files


# --- scripts -----------------------------------------------------------------------------------------------------


def _namespaces(world: World) -> list[Node]:
    return [node for node in world.nodes.values() if node.kind != "host"]


def _batch(commands: list[str], option: str = "") -> str:
    return "\n".join([f"ip {option} -batch - <<'BATCH'".replace("  ", " "), *commands, "BATCH"])


def _port_commands(world: World, port: Port, namespace: str | None = None) -> list[str]:
    """Return the commands for `ip` that make a port, its outer end plugged in."""
    number = int(port.name.removeprefix("e"))
    mtu = world.wires[port.wire].mtu
    # Addresses that somebody set are left alone by udev, which else makes its own while the link is moved away.
    place = f"{number >> 8:02x}:{number & 255:02x}"
    inside = f" netns {namespace}" if namespace else ""
    return [
        f"link add {outer(port)} address 02:00:00:01:{place} mtu {mtu} type veth"
        f" peer name {port.name} address 02:00:00:00:{place} mtu {mtu}{inside}",
        f"link set {outer(port)} master {bridge(world, port.wire)} addrgenmode none up",
    ]


def _plug(world: World, port: Port) -> str:
    end = outer(port)
    commands = [f"link set {end} down", f"link set {end} master {bridge(world, port.wire)}", f"link set {end} up"]
    return f"set -eu\n{_batch(commands)}\n"


def _node_lines(node: Node) -> list[str]:
    """Return the script that runs in the namespace of a node."""
    forward = int(node.forward)
    lines = [
        "cd /proc/sys/net",
        f"echo {forward} >ipv4/ip_forward",
        f"echo {forward} >ipv6/conf/all/forwarding",
        # All ways are known here, and what comes by an unexpected one is a test's to find.
        "for file in ipv4/conf/*/rp_filter ipv6/conf/*/accept_ra ipv6/conf/*/accept_dad; do echo 0 >$file; done",
    ]
    commands = ["link set lo up"]
    for port in node.ports:
        for address in port.addresses:
            flag = " nodad" if ":" in address else ""
            commands.append(f"address add {address} dev {port.name}{flag}")
        commands.append(f"link set {port.name} up")
    commands += [
        f"route add {route.destination} dev {route.port}" + (f" via {route.gateway} onlink" if route.gateway else "")
        for route in node.routes
    ]
    commands += [
        f"route add {'::/0' if ':' in gateway else '0.0.0.0/0'} via {gateway} dev {port.name} onlink"
        for port in node.ports
        for gateway in port.gateways
    ]
    lines.append(_batch(commands))
    if node.nft:
        lines += ["nft -f - <<'RULES'", node.nft.rstrip(), "RULES"]
    return lines


# --- files -------------------------------------------------------------------------------------------------------


def _hosts(world: World, host: str) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", f"127.0.1.1 {host}"]
    lines += [f"{address} {name}" for name, addresses in world.names.items() for address in addresses]
    return "\n".join([*lines, ""])


def _network(node: Node, port: Port) -> str:
    """Return a .network file, see systemd.network(5)."""
    lines = [
        "[Match]",
        f"Name={port.name}",
        "",
        "[Network]",
        "IPv6AcceptRA=no",
        "LinkLocalAddressing=ipv6",
        "IPv6DuplicateAddressDetection=0",
    ]
    for address in port.addresses:
        lines += ["", "[Address]", f"Address={address}"]
        if ":" in address:
            lines.append("DuplicateAddressDetection=none")
    for route in node.routes:
        if route.port == port.name:
            lines += ["", "[Route]", f"Destination={route.destination}"]
            lines.append(f"Gateway={route.gateway}" if route.gateway else "Scope=link")
    for gateway in port.gateways:
        lines += ["", "[Route]", f"Gateway={gateway}", "GatewayOnLink=yes"]
    return "\n".join([*lines, ""])


def _keyfile(node: Node, port: Port) -> str:
    """Return a connection in NetworkManager's keyfile format, see nm-settings-keyfile(5)."""
    lines = [
        "[connection]",
        f"id={port.name}",
        f"uuid={uuid.uuid5(uuid.NAMESPACE_OID, f'{node.name} {port.name}')}",
        "type=ethernet",
        f"interface-name={port.name}",
    ]
    for version, nothing in ((4, "disabled"), (6, "link-local")):
        addresses = [text for text in port.addresses if ip_interface(text).version == version]
        gateways = [text for text in port.gateways if ip_interface(text).version == version]
        routes = [r for r in node.routes if r.port == port.name and ip_interface(r.destination).version == version]
        lines += ["", f"[ipv{version}]", f"method={'manual' if addresses else nothing}"]
        if version == 6:
            lines += ["addr-gen-mode=eui64", "ip6-privacy=0"]
        for number, text in enumerate(addresses, start=1):
            # The gateway stands with the first address, which every version reads.
            lines.append(f"address{number}={','.join([text, *gateways[:1]]) if number == 1 else text}")
        if not gateways:
            lines.append("never-default=true")
        for number, route in enumerate(routes, start=1):
            lines.append(f"route{number}={route.destination}" + (f",{route.gateway}" if route.gateway else ""))
    return "\n".join([*lines, ""])
