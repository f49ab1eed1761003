"""`wgnet refresh` and `wgnet keys rotate` on real kernels: dead endpoints, names that move, a hub that changes its key.

Input: three hosts in a mesh, brought up for this: `fra`, which has two endpoints, and two that speak with it and with
each other. Output: what was dead is mended, by `wgnet-refresh.service` in its sandbox, and what was well lost nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli.command import wgnet_here
from example_keys import private_key
from helpers import REPOSITORY

from lab.machine import File, Machine
from lab.pinging import Pinging, until_answered
from lab.product import FOLDER, WGNET, install_product
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from lab.settle import settle
from wgnet.syntax.spec import Manager

NETWORK, FILE, KEYS = "corp", "/etc/wgnet/corp.yaml", "/root/keys"
HUB, SPOKES = "fra", ("nyc", "sgp")
ADDRESSES = {"fra": "10.80.0.1", "nyc": "10.80.0.2", "sgp": "10.80.0.3"}
NAMES = ("fra.example.net", "hub.example.net")
UNITS = REPOSITORY / "packaging/systemd"
_LIMIT = 400
#: A stranger's, where the name server is.
_OUTSIDE = "198.51.100.80"

#: A name server for the machine's plain host: it knows what its arguments say, NAME=ADDRESS.
_SERVER = """\
import ipaddress, socket, struct, sys
known = dict(word.split("=") for word in sys.argv[1:])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    message, sender = server.recvfrom(1500)
    labels, place = [], 12
    while message[place]:
        labels.append(message[place + 1:place + 1 + message[place]].decode())
        place += message[place] + 1
    end = place + 5
    (kind,) = struct.unpack_from("!H", message, place + 1)
    address = known.get(".".join(labels).lower())
    data = ipaddress.ip_address(address).packed if address and kind == 1 else b""
    head = message[:2] + struct.pack("!5H", 0x8180 if address else 0x8183, 1, bool(data), 0, 0)
    record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 5, len(data)) + data if data else b""
    server.sendto(head + message[12:end] + record, sender)
"""


def topology(manager: str) -> dict[str, Any]:
    hosts: dict[str, Any] = {
        "fra": {"addresses": [ADDRESSES["fra"]], "endpoint": list(NAMES)},
        "nyc": {"addresses": [ADDRESSES["nyc"]], "keepalive": "25"},
        "sgp": {"addresses": [ADDRESSES["sgp"]], "endpoint": "sgp.example.net"},
    }
    return {
        "wgnet": "1",
        "network": {"name": NETWORK, "interface": "wg0", "subnets": ["10.80.0.0/24"], "preshared-keys": "true"},
        "hosts": {
            name: {"public-key": private_key(NETWORK, name).public(), "manager": manager, **host}
            for name, host in hosts.items()
        },
    }


class Mesh:
    """The three hosts, wgnet on each of them, and the administrator's own folder with the topology and its keys."""

    def __init__(self, machine: Machine, suite: str, manager: str, folder: Path) -> None:
        data = topology(manager)
        managers = dict.fromkeys(data["hosts"], Manager(manager))
        scenario = Scenario(suite, "refreshing", manager)
        prepared = prepare_texts({"corp.yaml": data}, scenario, folder, managers)
        self.running = Running(machine, scenario, folder, prepared)
        self.network = self.running.network
        #: How many lines a host's service has said.
        self._told: dict[str, int] = {}
        self.topology = folder / "corp.yaml"
        self.topology.write_text(prepared.texts["corp.yaml"])
        self.store = folder / "store"
        shutil.copytree(folder / f"{scenario.id}.keys", self.store)
        install_product(self.running, ADDRESSES)
        program = f'#!/bin/sh\nexport PYTHONPATH={FOLDER}\nexec python3 -m wgnet "$@"\n'
        units = [File(f"/etc/systemd/system/{path.name}", path.read_bytes(), 0o644) for path in UNITS.iterdir()]
        for host in ADDRESSES:
            machine.put([File("/usr/bin/wgnet", program.encode(), 0o755), *units], node=self.network.node(host))
        self.network.run_many([(host, "systemctl daemon-reload") for host in ADDRESSES])
        self.hand_out()

    def hand_out(self) -> None:
        """Put the topology and the keys onto every host."""
        files = [File(FILE, self.topology.read_bytes(), 0o644)]
        files += [
            File(f"{KEYS}/{path.relative_to(self.store)}", path.read_bytes(), 0o600)
            for path in sorted(self.store.rglob("*"))
            if path.is_file()
        ]
        for host in ADDRESSES:
            self.network.run(host, f"rm -rf {KEYS}")
            self.running.machine.put(files, node=self.network.node(host))
            self.network.run(host, f"find {KEYS} -type d -exec chmod 700 {{}} +")

    def apply(self, *hosts: str) -> None:
        """Apply what was handed out, on hosts side by side."""
        command = f"{WGNET} apply {FILE} --keys {KEYS} 2>&1"
        for host, result in zip(
            hosts, self.network.run_many([(host, command) for host in hosts], timeout=_LIMIT, check=False), strict=True
        ):
            assert result.status == 0, f"{host}: {result.stdout}{result.stderr}"

    def rotate(self, step: str) -> None:
        """Take a step for the hub, where the administrator is, and hand out what comes of it."""
        done = wgnet_here("keys", "rotate", step, "--host", HUB, "--keys", self.store, self.topology)
        assert (done.status, done.err) == (0, "")
        self.hand_out()

    def public_keys(self) -> list[str]:
        """Return the hub's public keys: the one in use first, then the next one."""
        told = json.loads(wgnet_here("keys", "show", "-f", self.topology, "--host", HUB, "--format", "json").out)
        (keys,) = told["keys"]
        return [key for key in (keys["public_key"], keys["next_public_key"]) if key]

    def refresh(self, host: str) -> list[str]:
        """Run the service once; return what it said."""
        self.network.run(host, "systemctl start wgnet-refresh.service", timeout=180)
        # What a service prints may come to the journal a moment after its end.
        said = "journalctl --sync; journalctl -b -q -o cat -u wgnet-refresh.service -t wgnet"
        lines = self.network.run(host, said).stdout.splitlines()
        new = lines[self._told.get(host, 0) :]
        self._told[host] = len(lines)
        return new

    def pings(self, host: str, other: str, *, seconds: int = 30) -> None:
        """Wait until a host is answered by another."""
        self.network.run(
            host,
            until_answered(ADDRESSES[other], seconds),
            timeout=seconds * 2 + 60,
        )

    def forget(self, endpoint: str) -> None:
        """Make nyc's peer anew, with an endpoint, as after a boot; return when it has spoken to it in vain for long."""
        (key,) = self.public_keys()
        self.network.run(
            "nyc",
            f"shared=$(mktemp); wg show wg0 preshared-keys | awk '$1 == \"{key}\" {{print $2}}' >$shared\n"
            f"wg set wg0 peer {key} remove\n"
            f"wg set wg0 peer {key} preshared-key $shared endpoint {endpoint} persistent-keepalive 25 "
            f"allowed-ips {ADDRESSES[HUB]}/32\nrm $shared\n"
            f"ping -n -q -c 1 -W 1 {ADDRESSES[HUB]} || true\n"
            f"until [ $(wg show wg0 transfer | awk '$1 == \"{key}\" {{print $3}}') -ge 444 ]; do sleep 0.5; done",
            timeout=120,
        )

    def drop(self, endpoint: str) -> None:
        """Make one of the hub's addresses dead, and the other one live again."""
        address = endpoint.partition(":")[0]
        # Nor does it begin a handshake (messages of type 1): a hub that misses an answer finds the spoke by itself.
        rules = (
            "table ip dead\ndelete table ip dead\ntable ip dead {\n"
            f"chain in {{ type filter hook input priority 0; ip daddr {address} udp dport 51820 drop; }}\n"
            f"chain out {{ type filter hook output priority 0; ip saddr {address} udp sport 51820 drop;\n"
            "udp sport 51820 @th,64,8 1 drop; }\n}"
        )
        self.network.run(HUB, f"nft -f - <<'E'\n{rules}\nE")

    def endpoint(self) -> str:
        """Return what nyc has as the hub's endpoint."""
        (key,) = self.public_keys()
        text = self.network.run("nyc", f"wg show wg0 endpoints | awk '$1 == \"{key}\" {{print $2}}'").stdout
        return text.strip()


@contextmanager
def brought_up(machine: Machine, suite: str, manager: str, tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(machine, suite, manager, tmp_path)
    try:
        yield made
    finally:
        made.running.close()


@pytest.mark.every_day("bookworm-networkd")
def test_a_peer_whose_endpoint_is_dead_is_found_elsewhere(
    machine: Machine, suite: str, hub_manager: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with brought_up(machine, suite, hub_manager, tmp_path) as mesh:
        _lose_endpoints(mesh, record_property)


def _lose_endpoints(mesh: Mesh, record_property: Callable[[str, object], None]) -> None:
    network, world = mesh.network, mesh.running.world
    first, second = (f"{world.names[name][0]}:51820" for name in NAMES)
    counted: list[Pinging] = []

    def mend(dead: str, live: str) -> None:
        """Refresh once; count what nyc loses meanwhile over its other peer."""
        mesh.forget(dead)
        with Pinging(network, {"nyc": ADDRESSES["sgp"]}) as pinging:
            said = mesh.refresh("nyc")
            # NetworkManager, when it hears of other name servers, resolves names by itself, and may have been faster.
            if said or mesh.running.managers["nyc"] is not Manager.NETWORKMANAGER:
                assert said == [f"wg0: fra: endpoint {live}, was {dead}"]
            mesh.pings("nyc", HUB)
        counted.append(pinging)
        assert mesh.endpoint() == live
        assert mesh.refresh("nyc") == []

    for host in SPOKES:
        mesh.pings(host, HUB)
    mesh.pings("nyc", "sgp")
    # The first of the list is dead.
    mesh.drop(first)
    mend(first, second)

    # The names mean another address, as only a name server outside knows; the tunnel's does not answer.
    mesh.drop(second)
    mesh.running.machine.put([File("/run/names.py", _SERVER.encode(), 0o644)])
    names = " ".join(f"{name}={first.split(':')[0]}" for name in NAMES)
    port = world.uplink("nyc").name
    served = "systemd-run --quiet --unit=lab-names --property=NetworkNamespacePath=/run/netns/outside"
    mesh.running.machine.run(f"{served} python3 /run/names.py {names}")
    forgotten = " ".join(f"-e /{name}/d" for name in NAMES)
    network.run(
        "nyc",
        f"sed -i {forgotten} /etc/hosts\n"
        f"resolvectl dns {port} {_OUTSIDE}; resolvectl domain {port} ''\n"
        f"resolvectl dns wg0 {ADDRESSES[HUB]}; resolvectl domain wg0 '~.'; resolvectl flush-caches",
    )
    assert network.run("nyc", f"timeout 5 getent ahosts {NAMES[0]}", check=False).status != 0
    mend(second, first)

    # The same without resolved, where the tunnel's server stands first in resolv.conf.
    network.run(
        "nyc",
        "systemctl stop systemd-resolved.service; rm -f /etc/resolv.conf /run/wgnet/refresh.json\n"
        f"printf 'nameserver %s\\n' {ADDRESSES[HUB]} {_OUTSIDE} >/etc/resolv.conf",
    )
    mend(second, first)
    mesh.running.machine.run("systemctl stop lab-names.service")
    for number, pinging in enumerate(counted, 1):
        record_property(f"refresh {number}", str(pinging))
    assert [pinging.lost for pinging in counted] == [{"nyc": 0}] * 3


# Six minutes.
@pytest.mark.every_day()
def test_a_hub_changes_its_key_while_packets_flow(
    machine: Machine, suite: str, hub_manager: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with brought_up(machine, suite, hub_manager, tmp_path) as mesh:
        _rotate(mesh, record_property)


def _rotate(mesh: Mesh, record_property: Callable[[str, object], None]) -> None:
    network = mesh.network
    mesh.apply(*ADDRESSES)
    for host in SPOKES:
        mesh.pings(host, HUB)
    (old,) = mesh.public_keys()

    mesh.rotate("prepare")
    _, new = mesh.public_keys()
    with Pinging(network, dict.fromkeys(SPOKES, ADDRESSES[HUB])) as prepared:
        for host in SPOKES:  # one after the other: a fleet that is half done
            mesh.apply(host)
            mesh.pings("nyc", HUB)
            mesh.pings("sgp", HUB)
        mesh.apply(HUB)
    record_property("prepare", str(prepared))
    assert set(prepared.lost.values()) == {0}

    mesh.rotate("switch")
    with Pinging(network, {"sgp": ADDRESSES["nyc"]}) as others, Pinging(network, {"nyc": ADDRESSES[HUB]}) as switched:
        # As the timer has it: look every second while keys are rotated.
        looking = f"systemd-run --quiet --unit=looking {WGNET.partition(' ')[2]} refresh {FILE} --quiet --for 200s"
        network.run_many(
            [
                (host, looking.replace("--quiet --unit", f"--quiet --setenv=PYTHONPATH={FOLDER} --unit"))
                for host in SPOKES
            ]
        )
        network.run_many([(host, "until [ -e /run/wgnet/refresh.json ]; do sleep 0.2; done") for host in SPOKES])
        mesh.apply(HUB)
        assert network.run(HUB, "wg show wg0 public-key").stdout.strip() == new
        for host in SPOKES:
            mesh.pings(host, HUB, seconds=90)
            allowed = network.run(host, "wg show wg0 allowed-ips").stdout
            assert f"{new}\t{ADDRESSES[HUB]}/32" in allowed
            assert f"{old}\t(none)" in allowed
    record_property("switch", str(switched))
    record_property("switch, peers that are not the hub's", str(others))
    assert others.lost == {"sgp": 0}
    # A second or two until the next look, a handshake, and what emulation adds to them.
    assert switched.lost["nyc"] < 6000
    network.run_many([(host, "systemctl stop looking.service || true") for host in SPOKES])

    mesh.rotate("finish")
    assert mesh.public_keys() == [new]
    with Pinging(network, dict.fromkeys(SPOKES, ADDRESSES[HUB])) as finished:
        for host in (*SPOKES, HUB):
            mesh.apply(host)
            mesh.pings("nyc", HUB)
            mesh.pings("sgp", HUB)
    record_property("finish", str(finished))
    assert set(finished.lost.values()) == {0}
    for host in SPOKES:
        assert old not in network.run(host, "wg show wg0 peers").stdout
    # A boot gives the same: the files have the new key alone.
    network.power_off(HUB)
    assert network.boot([HUB]) == []
    settle(network, mesh.running.managers, [HUB])
    mesh.pings("nyc", HUB, seconds=60)
