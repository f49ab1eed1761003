"""What every scenario is asked: does each packet arrive that should, and none that should not; is any manager unhappy.

Input: a scenario that runs. Output: lists of what is wrong, for a person to read, empty when all is well. What should
arrive is what `wgnet check` traces; these packets are real.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lab.running import Running
from wgnet.model.topology import TABLE_MAIN, Host
from wgnet.plan.types import InterfacePlan
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.trace import Tracer, common_version_addresses
from wgnet.syntax.spec import Address, Manager

#: What WireGuard gives its interfaces.
_KERNEL_MTU = 1420
#: Headers of IP and ICMP, by IP version: what a ping's size lacks to a packet's.
_HEADERS = {4: 28, 6: 48}
#: Seconds for a packet and its handshake, and for one that must not come.
_PATIENCE, _SILENCE = 12, 2
#: What managers say on any machine, with no file of ours: (unit, text, why it is none of our business).
_NOT_OURS = (
    ("NetworkManager", r"dns-mgr: update-pending changed: DNS plugin did not become ready", "resolved starts after it"),
    ("NetworkManager", r"failed to open /run/network/ifstate", "Debian's ifupdown is not installed"),
    (
        "NetworkManager",
        r"dispatcher\.d/01-ifupdown failed",
        "nor are the folders that Debian's script for it looks into",
    ),
    # Seen once in some hundred boots, on bookworm and a busy machine.
    (
        "NetworkManager",
        r"ipv6ll\[.*no IPv6 link local address to retry",
        "an address of its own making, by no key of ours",
    ),
    ("NetworkManager", r"audit: failed to open auditd socket", "the machine's kernel is booted without audit"),
)
_UNITS = ("systemd-networkd", "NetworkManager", "systemd-sysctl", "systemd-resolved", "wg-quick@*", "wgnet-*")


@dataclass(frozen=True)
class Packet:
    """A ping from a node's address to another, of the largest size that the way takes, and whether it should arrive.

    `interface` is the tunnel's where the node has one, else empty.
    """

    node: str
    interface: str
    source: str
    target: str
    size: int
    arrives: bool

    @property
    def version(self) -> int:
        """The IP version."""
        return 6 if ":" in self.target else 4

    def command(self) -> str:
        """Return the shell command that succeeds when the packet and its answer arrive."""
        source, target = self.source, self.target
        if target.startswith("fe80:"):
            # The same address may stand on several links: the interface is part of it.
            source, target = self.interface, f"{target}%{self.interface}"
        if not self.arrives:
            return f"ping -q -n -c 2 -i 0.5 -w {_SILENCE} -I {source} {target}"
        # Not -w, which ends at the first router that knows no way yet.
        ping = f"ping -q -n -c 1 -W 1 -I {source} {target}"
        whole = f"{ping} -M do -s {self.size - _HEADERS[self.version]}"
        until = f"do [ $SECONDS -lt {_PATIENCE} ] || exit 1; sleep 0.3; done"
        return f"until {ping}; {until}; until {whole}; {until}"


def bring_up(running: Running) -> None:
    """Bring up by hand what `autoconnect: false` leaves to a person."""
    for host in running.hosts:
        for plan in running.prepared.plans[host].interfaces:
            if not plan.autoconnect:
                switch(running, host, plan, up=True)


def switch(running: Running, host: str, plan: InterfacePlan, *, up: bool) -> None:
    """Bring an interface up, or take it down, as a person does it under its manager."""
    command = {
        Manager.NETWORKD: f"networkctl {'up' if up else 'down'} {plan.interface}",
        Manager.NETWORKMANAGER: f"nmcli --wait 30 connection {'up' if up else 'down'} {plan.network}",
        Manager.WG_QUICK: f"systemctl {'start' if up else 'stop'} wg-quick@{plan.interface}",
    }[running.managers[host]]
    running.network.run(host, command)


def packets(running: Running) -> list[Packet]:
    """Return the packets of every pair of hosts, and of every line of `expect`, each both ways where there is a way."""
    found: dict[Packet, None] = {}
    for routing in running.prepared.fleet.routings:
        tracer = Tracer(routing)
        for packet in (*_pairs(running, tracer, routing), *_expectations(running, tracer, routing)):
            found[packet] = None
    return list(found)


def unreachable(running: Running, some: list[Packet] | None = None) -> list[str]:
    """Send the packets, or those of every pair and expectation, and return what went otherwise than expected.

    What should arrive has a second chance when all others went: only one end of a link may be able to begin.
    """
    wanted = packets(running) if some is None else some
    failed = _send(running, [packet for packet in wanted if packet.arrives])
    failed = _send(running, failed)
    leaked = _send(running, [packet for packet in wanted if not packet.arrives])
    return [
        *(f"{one.node}: no answer of {one.target} to {one.source}, in whole packets of {one.size}" for one in failed),
        *(f"{one.node}: {one.target} answers {one.source}, and should not" for one in leaked),
    ]


def journal_complaints(running: Running) -> list[str]:
    """Return what managers, and the units that wgnet writes, said at the level of a warning or worse since boot."""
    script = "journalctl -b -q --no-pager -o short -p warning " + " ".join(f"-u '{unit}'" for unit in _UNITS)
    found = []
    results = running.network.run_many([(host, script) for host in running.hosts])
    for host, result in zip(running.hosts, results, strict=True):
        for line in result.stdout.splitlines():
            if not any(unit in line and re.search(text, line) for unit, text, _ in _NOT_OURS):
                found.append(f"{host} ({running.managers[host].value}): {line}")
    return found


def _send(running: Running, some: list[Packet]) -> list[Packet]:
    """Send packets, all nodes at once, and return those that went otherwise than expected."""
    by_node: dict[str, list[Packet]] = {}
    for packet in some:
        by_node.setdefault(packet.node, []).append(packet)
    scripts = [
        (
            node,
            "".join(
                f"( {packet.command()} ) >/dev/null 2>&1 && echo {number} &\n" for number, packet in enumerate(ones)
            )
            + "wait",
        )
        for node, ones in by_node.items()
    ]
    results = running.network.run_many(scripts, timeout=_PATIENCE * 10)
    wrong = []
    for ones, result in zip(by_node.values(), results, strict=True):
        answered = {int(line) for line in result.stdout.split()}
        wrong += [packet for number, packet in enumerate(ones) if (number in answered) is not packet.arrives]
    return wrong


def _pairs(running: Running, tracer: Tracer, routing: Routing) -> Iterator[Packet]:
    real = [host for host in routing.topology.hosts if _answers(running, routing, host)]
    for source in real:
        for target in real:
            if source is not target:
                for sender, address in common_version_addresses(source, target):
                    there = tracer.trace(source, sender, address)
                    arrives = there.delivered and tracer.trace(target, address, sender).delivered
                    size = _mtu(running, routing, there.hosts)
                    yield Packet(source.name, source.interface, str(sender), str(address), size, arrives)


def _expectations(running: Running, tracer: Tracer, routing: Routing) -> Iterator[Packet]:
    for expectation in routing.topology.expectations:
        address = expectation.to_address
        if address is None:
            continue
        for source in expectation.sources:
            if not _answers(running, routing, source) or not _carries(running, routing, source, address):
                continue
            sender = next(own.ip for own in source.addresses if own.version == address.version)
            there = tracer.trace(source, sender, address)
            size = _mtu(running, routing, there.hosts)
            yield Packet(source.name, source.interface, str(sender), str(address), size, expectation.reachable)
            # A plain host knows its router alone: it finds the way back where that is the tunnel's host.
            last = routing.topology.by_name[there.hosts[-1]]
            translates = last.masquerade or last.manager is Manager.EXTERNAL
            if expectation.reachable and last.name != source.name and not translates:
                plain = running.world.plain_at(str(address))
                yield Packet(plain.name, "", str(address), str(sender), size, arrives=True)


def _answers(running: Running, routing: Routing, host: Host) -> bool:
    """Whether a host is a system of its own here, and its routes to the network are where a ping looks."""
    if host.name not in running.hosts or host.disabled:
        return False
    return any(
        plan.table == TABLE_MAIN
        for plan in running.prepared.plans[host.name].interfaces
        if plan.network == routing.topology.name
    )


def _carries(running: Running, routing: Routing, host: Host, address: Address) -> bool:
    """Whether this network is a host's way to an address, and not another with the prefix and a smaller metric."""
    ways = [
        (-route.destination.prefixlen, route.metric, plan.network)
        for plan in running.prepared.plans[host.name].interfaces
        for route in plan.routes
        if route.table == TABLE_MAIN and route.destination.version == address.version and address in route.destination
    ]
    return not ways or min(ways)[2] == routing.topology.name


def _mtu(running: Running, routing: Routing, way: tuple[str, ...]) -> int:
    """Return the size of the largest packet that passes every host of a way."""
    sizes = [_KERNEL_MTU]
    for name in way:
        plan = running.prepared.plans.get(name)
        for interface in plan.interfaces if plan is not None else ():
            if interface.network == routing.topology.name and interface.mtu is not None:
                sizes.append(interface.mtu)
    return min(sizes)
