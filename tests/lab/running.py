"""A scenario that runs: its world built, its hosts booted from wgnet's files, and what tests ask of it.

Input: a machine and a scenario. It is where plans, worlds and containers meet; the tests themselves are elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from example_keys import given_preshared_key, private_key

from lab.expected import ExpectedState, differences, expected_state
from lab.machine import File, Machine
from lab.network import Network
from lab.scenarios import Prepared, Scenario, prepare
from lab.settle import settle
from lab.state import READ, LiveState, StateError, parse_state
from lab.wiring import underlay_files
from lab.world import World, make_world
from wgnet.managers.artifact import Artifact
from wgnet.syntax.spec import Manager, SecretSource

#: An external peer that routes everything, and the address that it answers at inside its tunnel.
_PROVIDER_ADDRESSES = ("10.64.0.1/32", "fd64::1/128")


class Running:
    """A scenario in a machine. `problems` are the units that failed at boot, host by host; empty when all is well."""

    def __init__(self, machine: Machine, scenario: Scenario, folder: Path, prepared: Prepared | None = None) -> None:
        """Build and boot everything, each host from files alone."""
        self.machine = machine
        self.scenario = scenario
        self.prepared = prepared or prepare(scenario, folder)
        self.hosts = self.prepared.hosts
        self.managers = self.prepared.managers
        # Who is external has no files, and is there all the same.
        external = {name for name, manager in self.managers.items() if manager is Manager.EXTERNAL}
        self.world: World = make_world(self.prepared.fleet, frozenset({*self.hosts, *external}))
        self.network = Network(machine, self.world)
        for host in self.hosts:
            self._install(host)
        for node in self.world.nodes.values():
            if node.kind == "external":
                self._start_external(node.name)
        self.problems = self.network.boot(self.hosts, self.prepared.credentials)
        settle(self.network, self.managers, self.hosts)

    def _install(self, host: str) -> None:
        manager = self.managers[host]
        files = [File(path, text.encode(), mode) for path, text, mode in underlay_files(self.world, host, manager)]
        units = {}
        if manager is Manager.WG_QUICK:
            units = {
                f"wg-quick@{plan.interface}.service": "wg-quick@.service"
                for plan in self.prepared.plans[host].interfaces
                if plan.autoconnect
            }
        enabled = "networkmanager" if manager is Manager.NETWORKMANAGER else "networkd"
        self.network.install(host, enabled, [*files, *map(as_file, self.prepared.files[host])], units)

    def _start_external(self, name: str) -> None:
        """Be the provider: WireGuard by hand; the world lets the node forward and translate what comes out of it."""
        for routing in self.prepared.fleet.routings:
            topology = routing.topology
            host = next((each for each in topology.hosts if each.name == name), None)
            if host is None:
                continue
            lines = [f"[Interface]\nPrivateKey = {private_key(topology.name, name).reveal()}\nListenPort = 51820"]
            routes = []
            for peer_name in self.hosts:
                for plan in self.prepared.plans[peer_name].interfaces:
                    for peer in plan.peers:
                        if plan.network != topology.name or peer.name != name:
                            continue
                        addresses = [str(one.address.ip) for one in plan.addresses]
                        lines.append(f"[Peer]\nPublicKey = {plan.host.public_key}\nAllowedIPs = {', '.join(addresses)}")
                        if isinstance(peer.preshared_key, SecretSource):
                            lines.append(f"PresharedKey = {given_preshared_key(peer.preshared_key.name)}")
                        routes += addresses
            adding = "\n".join(f"ip route add {address} dev wg0" for address in routes)
            self.machine.run(
                "ip link add wg0 type wireguard; wg setconf wg0 /dev/stdin\n"
                + "\n".join(f"ip address add {address} dev wg0" for address in _PROVIDER_ADDRESSES)
                + f"\nip link set wg0 up\n{adding}",
                node=f"netns:{name}",
                given="\n".join(lines) + "\n",
            )

    def expected(self, host: str, **options: object) -> ExpectedState:
        """Return what the plan of a host says that its kernel should have."""
        return expected_state(self.prepared.json[host], resolver=self.world.names, **options)  # type: ignore[arg-type]

    def states(self, hosts: tuple[str, ...] | None = None) -> dict[str, LiveState]:
        """Read the kernels of some hosts, or of all."""
        wanted = self.hosts if hosts is None else hosts
        results = self.network.run_many([(host, READ) for host in wanted], timeout=180, check=False)
        for host, result in zip(wanted, results, strict=True):
            if result.status:
                # Without what was read: keys are in it.
                raise StateError(f"{host} cannot be read (status {result.status}): {result.stderr}")
        return {
            host: parse_state(result.stdout, [plan.interface for plan in self.prepared.plans[host].interfaces])
            for host, result in zip(wanted, results, strict=True)
        }

    def against_plan(self, **options: object) -> list[str]:
        """Return every difference between the hosts' kernels and their plans."""
        found = []
        for host, state in self.states().items():
            found += [f"{host}: {line}" for line in differences(self.expected(host, **options), state)]
        return found

    def close(self) -> None:
        """Take everything away."""
        self.network.close()


def as_file(artifact: Artifact) -> File:
    """Return an artifact of wgnet as a file for the guest."""
    return File(artifact.path, artifact.content, artifact.mode, artifact.owner, artifact.group, artifact.target)
