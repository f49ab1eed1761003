"""A network whose hub changes again and again, and what its unchanged peers lose by it, packet by packet.

Input: a suite, a manager and a seed. Output: topologies, one after another, each with one thing changed; and packets,
counted. The hub is under the manager that is tried; its peers only answer, and are all networkd's.
"""

from __future__ import annotations

import copy
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from example_keys import private_key
from example_trees import read_fleet, store_of

from lab.machine import File, Machine
from lab.network import Network
from lab.pinging import until_answered
from lab.product import WGNET, install_product
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from wgnet.syntax.spec import Manager

HUB = "fra"
NETWORK = "corp"
#: Peers that no change concerns: one with an endpoint, one that has one and roamed since, one that never had any.
PEERS = {"nyc": "10.80.0.2", "sgp": "10.80.0.3", "laptop": "10.80.0.7"}
HUB_ADDRESS = "10.80.0.1"
#: Where `sgp` is after it roamed: the hub was configured with another port.
ROAMED_PORT = 51999
#: Seconds between two packets.
_FAST, _SLOW = 0.01, 0.05
_REPORT = "/run/pinging"
#: Packets that may be under way when the sender is stopped.
_UNDER_WAY = 20
#: Ends a ping and counts: the last that was answered says how many should have been. The numbers are of 16 bits.
_COUNT = rf"""pinging=$(cat {_REPORT}.pid); kill -INT $pinging
while [ -e /proc/$pinging ]; do sleep 0.2; done
awk '/icmp_seq=/ {{split($0, a, "icmp_seq="); seq = a[2] + 0; if (seq < last - 30000) turn += 65536; last = seq
                   if (turn + seq > most) most = turn + seq; if (!seen[turn + seq]++) got++}}
     /packets transmitted/ {{sent = $1}} END {{print most - got, most, sent}}' {_REPORT}
"""
KEYS = "/root/keys"
FILE = "/etc/wgnet/corp.yaml"
APPLY = f"{WGNET} apply {FILE} --keys {KEYS}"


def topology(manager: str) -> dict[str, Any]:
    """Return the network before any change, the hub under this manager."""
    hosts: dict[str, Any] = {
        HUB: {"addresses": [HUB_ADDRESS, "fd42:80::1"], "endpoint": "fra.example.net", "manager": manager},
        "nyc": {"addresses": ["10.80.0.2", "fd42:80::2"], "endpoint": "nyc.example.net"},
        "sgp": {"addresses": ["10.80.0.3", "fd42:80::3"], "endpoint": "sgp.example.net"},
        "laptop": {"addresses": ["10.80.0.7", "fd42:80::7"]},
    }
    return {
        "wgnet": "1",
        "network": {
            "name": NETWORK,
            "interface": "wg0",
            "subnets": ["10.80.0.0/24", "fd42:80::/64"],
            "preshared-keys": "true",
        },
        "peering": [{"hub": HUB}],
        "hosts": {name: _keyed(name, host) for name, host in hosts.items()},
    }


def _keyed(name: str, host: dict[str, Any]) -> dict[str, Any]:
    return {"public-key": private_key(NETWORK, name).public(), **host}


# --- the changes -----------------------------------------------------------------------------------------------------


def _guests(data: Mapping[str, Any]) -> list[str]:
    return [name for name in data["hosts"] if name.startswith("guest")]


def _add(data: dict[str, Any], chance: random.Random) -> None:
    number = next(n for n in range(20, 60) if f"guest{n}" not in data["hosts"])
    host = {"addresses": [f"10.80.0.{number}", f"fd42:80::{number}"]}
    if chance.random() < 0.7:
        host["advertise"] = [f"192.168.{number}.0/24", f"fd00:{number}::/64"]
    data["hosts"][f"guest{number}"] = _keyed(f"guest{number}", host)


def _remove(data: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(_guests(data))
    del data["hosts"][name]
    data["peering"] = [rule for rule in data["peering"] if name not in rule.get("link", ())]


def _subnet(data: dict[str, Any], chance: random.Random) -> None:
    """Give a guest another subnet behind it: other AllowedIPs, another route."""
    name = chance.choice(_guests(data))
    data["hosts"][name]["advertise"] = [f"172.{chance.randint(16, 31)}.{chance.randint(0, 255)}.0/24"]


def _move_subnet(data: dict[str, Any], chance: random.Random) -> None:
    """Let what was behind one guest be behind another: AllowedIPs that change owners."""
    del chance
    one, two = _guests(data)[:2]
    first, second = data["hosts"][one], data["hosts"][two]
    first["advertise"], second["advertise"] = (
        second.get("advertise", ["10.99.1.0/24"]),
        first.get("advertise", ["10.99.2.0/24"]),
    )


def _link(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the rule of the link from the hub to a host, made where there is none."""
    for rule in data["peering"]:
        if rule.get("link") == [HUB, name]:
            return dict(rule)
    return {"link": [HUB, name]}


def _with_link(data: dict[str, Any], rule: dict[str, Any]) -> None:
    rest = [each for each in data["peering"] if each.get("link") != rule["link"]]
    data["peering"] = [*rest, rule]


def _keepalive(data: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(_guests(data))
    _with_link(data, {**_link(data, name), "keepalive": str(chance.randint(10, 60))})


def _preshared_key(data: dict[str, Any], chance: random.Random) -> None:
    name = chance.choice(_guests(data))
    rule = _link(data, name)
    _with_link(data, {**rule, "preshared-key": "true" if rule.get("preshared-key") == "false" else "false"})


def _endpoint(data: dict[str, Any], chance: random.Random) -> None:
    data["hosts"][chance.choice(_guests(data))]["endpoint"] = f"203.0.113.{chance.randint(200, 250)}:51820"


def _address(data: dict[str, Any], chance: random.Random) -> None:
    """Give the hub another address, or take it away again."""
    del chance
    more = ["10.80.0.101", "fd42:80::101"]
    mine = [HUB_ADDRESS, "fd42:80::1"]
    data["hosts"][HUB]["addresses"] = mine if len(data["hosts"][HUB]["addresses"]) > len(mine) else [*mine, *more]


def _mtu(data: dict[str, Any], chance: random.Random) -> None:
    del chance
    hub = data["hosts"][HUB]
    if "mtu" in hub:
        del hub["mtu"]
    else:
        hub["mtu"] = "1400"


def _metric(data: dict[str, Any], chance: random.Random) -> None:
    data["hosts"][HUB]["metric"] = str(chance.randint(1000, 3000))


def _isolate(data: dict[str, Any], chance: random.Random) -> None:
    """Let the hub refuse what passes it from spoke to spoke, by ip rules, or pass it again."""
    del chance
    rule = data["peering"][0]
    if rule.pop("isolate", None) is None:
        rule["isolate"] = "true"


def _masquerade(data: dict[str, Any], chance: random.Random) -> None:
    del chance
    hub = data["hosts"][HUB]
    if hub.pop("masquerade", None) is None:
        hub["masquerade"] = "true"


def _dns(data: dict[str, Any], chance: random.Random) -> None:
    data["hosts"][HUB]["dns"] = {"servers": ["10.80.0.2"], "search": [f"corp{chance.randint(1, 99)}.example"]}


#: What is done first, so that every kind of change is among the first, and what the rest is drawn from.
_KINDS: dict[str, tuple[int, Callable[[dict[str, Any], random.Random], None]]] = {
    # The number is how many guests there must be.
    "a peer added": (0, _add),
    "another peer added": (1, _add),
    "AllowedIPs and routes": (1, _subnet),
    "AllowedIPs that change owners": (2, _move_subnet),
    "an endpoint": (1, _endpoint),
    "a keepalive": (1, _keepalive),
    "a preshared key": (1, _preshared_key),
    "addresses": (0, _address),
    "the MTU": (0, _mtu),
    "the metric of all routes": (0, _metric),
    "policy rules": (0, _isolate),
    "source NAT": (0, _masquerade),
    "DNS": (0, _dns),
    "a peer removed": (1, _remove),
}


def changes(start: Mapping[str, Any], count: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield topologies one after another: each kind of change once, then as chance has it, the same for a seed."""
    chance = random.Random(seed)
    data = copy.deepcopy(dict(start))
    for number in range(count):
        kinds = list(_KINDS)
        able = [kind for kind in kinds if len(_guests(data)) >= _KINDS[kind][0]]
        kind = kinds[number] if number < len(kinds) and kinds[number] in able else chance.choice(able)
        data = copy.deepcopy(data)
        _KINDS[kind][1](data, chance)
        yield kind, data


# --- the network -----------------------------------------------------------------------------------------------------


@dataclass
class Lost:
    """What one change cost: packets by peer, of so many."""

    kind: str
    lost: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}: " + ", ".join(f"{name} {self.lost[name]} of {self.sent[name]}" for name in self.lost)


class Changing:
    """The network in a machine, wgnet on its hub."""

    def __init__(self, machine: Machine, suite: str, manager: str, folder: Path) -> None:
        """Boot it, from the files that wgnet renders of its first topology."""
        self.data = topology(manager)
        self.manager = manager
        self.folder = folder
        self._written = 0
        self._turn = 0
        managers = dict.fromkeys(self.data["hosts"], Manager.NETWORKD) | {HUB: Manager(manager)}
        scenario = Scenario(suite, "changing", manager)
        prepared = prepare_texts({"corp.yaml": self.data}, scenario, folder, managers)
        self.running = Running(machine, scenario, folder, prepared)
        self.network: Network = self.running.network
        install_product(self.running, [HUB])
        # The hub's peers speak first, and one of them has moved since.
        self.network.run("sgp", f"wg set wg0 listen-port {ROAMED_PORT}")
        for name in PEERS:
            self.network.run(name, until_answered(HUB_ADDRESS, 40))

    def write(self, data: Mapping[str, Any]) -> None:
        """Put a topology and the keys that it needs onto the hub."""
        text = yaml.dump(data, sort_keys=False)
        fleet, diagnostics = read_fleet({"corp.yaml": text})
        assert not diagnostics.has_errors, [item.message for item in diagnostics.sorted()]
        store = store_of(fleet, self.folder / f"store-{self._written}")
        self._written += 1
        files = [
            File(f"{KEYS}/{path.relative_to(store)}", path.read_bytes(), 0o600)
            for path in sorted(store.rglob("*"))
            if path.is_file()
        ]
        self.running.machine.put([File(FILE, text.encode(), 0o644), *files], node=self.network.node(HUB))
        plan = fleet.plan_host(HUB)
        self.running.prepared.fleet = fleet
        self.running.prepared.plans[HUB] = plan

    def apply(self, options: str = "") -> str:
        """Apply what was written; return what wgnet printed."""
        result = self.network.run(HUB, f"{APPLY} {options} 2>&1", timeout=400, check=False)
        assert result.status == 0, f"status {result.status}\n" + result.stdout + result.stderr
        return result.stdout

    @contextmanager
    def counting(self, kind: str) -> Iterator[Lost]:
        """Send packets through the tunnel from every unchanged peer, and count those that get no answer.

        One peer, another each time, sends one every 10 ms, the others every 50 ms: emulated, more would leave nothing
        for what is measured.
        """
        found = Lost(kind)
        self._turn += 1
        fast = list(PEERS)[self._turn % len(PEERS)]
        start = [
            (
                name,
                f"ping -n -i {_FAST if name == fast else _SLOW} {HUB_ADDRESS} >{_REPORT} 2>&1 & echo $! >{_REPORT}.pid",
            )
            for name in PEERS
        ]
        self.network.run_many(start)
        time.sleep(1)
        try:
            yield found
            # A session that was reset is missed with the packets after it.
            time.sleep(2)
        finally:
            results = self.network.run_many([(name, _COUNT) for name in PEERS])
        for name, result in zip(PEERS, results, strict=True):
            lost, most, sent = map(int, result.stdout.split())
            # Silence to the very end would not show as a gap.
            found.lost[name] = lost + (sent - most if sent - most > _UNDER_WAY else 0)
            found.sent[name] = sent

    def close(self) -> None:
        """Take it away."""
        self.running.close()


def version(running: Running, manager: str) -> str:
    """Return the version of the hub's manager."""
    command = "networkctl --version" if manager == "networkd" else "nmcli --version"
    found = re.search(r"[\d.]+", running.network.run(HUB, command).stdout.replace("systemd", ""))
    return found[0] if found else "unknown"
