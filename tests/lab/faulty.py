"""A host on which `wgnet apply` is broken on purpose: its networks before and after, and what is somebody else's there.

Input: a machine, a suite and a manager. Output: `Faulty`, a hub that has wgnet and two states to go between, which
differ in everything that wgnet changes; and the driver `guest/faults.py` on it. It asserts nothing of what comes of it.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from example_keys import private_key
from example_trees import read_fleet, store_of

from lab.machine import File, Machine, Result
from lab.pinging import until_answered
from lab.product import FOLDER, install_product
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from lab.settle import settle
from wgnet.syntax.spec import Manager

#: The host that is broken, and one that reaches it through the tunnel.
HUB, ADMIN = "fra", "nyc"
HUB_ADDRESS = "10.80.0.1"
STORE = "/root/faults/keys"
_DRIVER = "/root/faults/faults.py"
#: It is there when a fault has struck.
_STRUCK = "/root/faults/struck"
#: A run of the driver takes so many seconds at most.
_LIMIT = 3600


def _host(network: str, name: str, **more: Any) -> dict[str, Any]:
    return {"public-key": private_key(network, name).public(), **more}


def _spoke(network: str, name: str, number: int, **more: Any) -> dict[str, Any]:
    prefix = {"corp": "10.80.0", "gone": "10.81.0", "more": "10.82.0"}[network]
    return _host(network, name, addresses=[f"{prefix}.{number}"], manager="networkd", **more)


def _small(network: str, interface: str, manager: str, port: int) -> dict[str, Any]:
    prefix = {"gone": "10.81.0", "more": "10.82.0"}[network]
    hub = _host(network, HUB, addresses=[f"{prefix}.1"], endpoint=f"fra.example.net:{port}", manager=manager)
    return {
        "wgnet": "1",
        "network": {"name": network, "interface": interface, "subnets": [f"{prefix}.0/24"], "listen-port": str(port)},
        "peering": [{"hub": HUB}],
        "hosts": {HUB: hub, "paul": _spoke(network, "paul", 7, advertise=[f"172.{port % 100}.0.0/24"])},
    }


def networks_before(manager: str) -> dict[str, Any]:
    """Return the topologies of the old state, by file name."""
    hub = _host("corp", HUB, addresses=[HUB_ADDRESS, "fd42:80::1"], endpoint="fra.example.net", manager=manager)
    corp = {
        "wgnet": "1",
        "network": {
            "name": "corp",
            "interface": "wg0",
            "subnets": ["10.80.0.0/24", "fd42:80::/64"],
            "preshared-keys": "true",
        },
        "peering": [{"hub": HUB}, {"link": [HUB, "erin"], "preshared-key": "false"}],
        "hosts": {
            HUB: hub,
            ADMIN: _spoke("corp", ADMIN, 2, endpoint="nyc.example.net"),
            "bob": _spoke("corp", "bob", 11, advertise=["172.20.11.0/24"]),
            "carol": _spoke("corp", "carol", 12, advertise=["172.20.12.0/24"], endpoint="203.0.113.12:51820"),
            "erin": _spoke("corp", "erin", 13),
        },
    }
    return {"corp.yaml": corp, "gone.yaml": _small("gone", "wg2", manager, 51822)}


def networks_after(manager: str) -> dict[str, Any]:
    """Return the topologies of the new state: every kind of thing differs at once, but for the listen port."""
    corp = copy.deepcopy(networks_before(manager)["corp.yaml"])
    hosts = corp["hosts"]
    del hosts["bob"]
    hosts["dave"] = _spoke("corp", "dave", 14, advertise=["172.20.14.0/24"])
    hosts["carol"] |= {"advertise": ["172.20.112.0/24"], "endpoint": "203.0.113.112:51820"}
    hosts[HUB] |= {"mtu": "1400", "masquerade": "true", "addresses": [HUB_ADDRESS, "fd42:80::1", "10.80.0.101"]}
    corp["peering"] = [{"hub": HUB, "isolate": "true"}]
    return {"corp.yaml": corp, "more.yaml": _small("more", "wg1", manager, 51821)}


#: Somebody else's: files, and by commands a link with an address, a route and a rule, and a WireGuard interface.
_FOREIGN_FILES = {
    "/etc/systemd/network/60-office.network": ("[Match]\nName=office9\n\n[Network]\nAddress=192.0.2.77/32\n", 0o644),
    "/etc/systemd/network/51-wgnet.network": ("[Match]\nName=wgnet9\n", 0o600),
    "/etc/systemd/system/wgnet-of-somebody.conf": ("none of wgnet's\n", 0o640),
    "/etc/sysctl.d/60-office.conf": ("net.ipv4.tcp_syncookies = 1\n", 0o644),
    "/etc/NetworkManager/system-connections/office.nmconnection": (
        "# by hand\n[connection]\nid=office\nuuid=5f3b8a52-35c1-4d51-8d0e-77a4f9d5ad01\ntype=dummy\n"
        "interface-name=office9\nautoconnect=false\n\n[ipv4]\nmethod=manual\naddress1=192.0.2.77/32\n",
        0o600,
    ),
    # networkd takes away every rule that it did not make itself, unless it is told not to (networkd.conf(5)).
    "/etc/systemd/networkd.conf.d/foreign.conf": (
        "[Network]\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes=no\n",
        0o644,
    ),
    "/etc/NetworkManager/conf.d/foreign.conf": ("[keyfile]\nunmanaged-devices=interface-name:*-other\n", 0o644),
}
PLANT = """
ip link add dummy-other address 02:00:00:00:00:77 type dummy
ip address add 198.51.100.77/32 dev dummy-other
ip link set dummy-other up
ip route add 198.18.7.0/24 dev dummy-other metric 77 table 77
ip -6 rule add priority 7777 from fd77::/64 lookup 77
ip rule add priority 7777 from 198.18.7.0/24 lookup 77
ip link add wg-other type wireguard
umask 077
[ -e /root/other.key ] || wg genkey >/root/other.key
wg set wg-other private-key /root/other.key listen-port 40404 peer GoJ33mA1HrmeB/LXmbtguHI2Aiaf5ws4/IKxrCxUT0g= \\
    allowed-ips 198.18.9.0/24 endpoint 203.0.113.9:9 persistent-keepalive 0
ip address add 198.18.8.1/32 dev wg-other
ip link set wg-other mtu 1300 up
ip route add 198.18.9.0/24 dev wg-other
nft add table inet other
nft add chain inet other forward '{ type filter hook forward priority 7; }'
"""
#: What is not wgnet's on the host, as text. Everything of /etc but for what wgnet writes, the files that NetworkManager
#: names after wgnet's profiles, and what is about clocks.
_LOOK = """
theirs="! -path *wgnet-* ! -path /etc/wgnet/* ! -path */system-connections/corp* ! -path */system-connections/gone*
    ! -path */system-connections/more*"
set -f
find /etc -xdev \\( -type f -o -type l \\) $theirs -printf '%p %m %u %g %l\\n' | sort
find /etc -xdev -type f $theirs -exec sha256sum {} + | sort -k 2
set +f
for name in dummy-other wg-other; do
    ip -d address show dev $name | sed 's/^[0-9]*: //'; ip route show table all dev $name
done
wg show wg-other dump
ip rule show priority 7777; ip -6 rule show priority 7777
nft list table inet other
"""


@dataclass(frozen=True)
class Point:
    """What came of one fault, as the driver says it."""

    said: dict[str, Any]

    @property
    def bad(self) -> bool:
        """Whether the machine was between two states, or did not arrive."""
        return bool(self.said["problem"])

    def __str__(self) -> str:
        words = [
            f"{name} {self.said[name]!r}"
            for name in ("kind", "point", "goal", "at", "status", "state", "put_back", "seconds")
        ]
        if self.bad:
            words += [f"\n  {name}: {self.said[name]}" for name in ("problem", "differing", "said")]
        return " ".join(words)


class Faulty:
    """The hub and its administrator, booted in the old state."""

    def __init__(self, machine: Machine, suite: str, manager: str, folder: Path) -> None:
        """Boot both, plant what is somebody else's, and put the driver there."""
        self.manager = manager
        self.machine = machine
        before, after = networks_before(manager), networks_after(manager)
        managers = {name: Manager.NETWORKD for text in before.values() for name in text["hosts"]}
        managers[HUB] = Manager(manager)
        prepared = prepare_texts(before, Scenario(suite, "faulty", manager), folder, managers)
        self.running = Running(
            machine, Scenario(suite, "faulty", manager), folder, replace(prepared, hosts=(HUB, ADMIN))
        )
        self.network = self.running.network
        install_product(self.running, [HUB])
        self._put(before, after, folder)
        self._plant()
        self.network.run(ADMIN, until_answered(HUB_ADDRESS, 40), timeout=90)

    def _put(self, before: dict[str, Any], after: dict[str, Any], folder: Path) -> None:
        files = {}
        for state, texts in (("old", before), ("new", after)):
            fleet, diagnostics = read_fleet({name: yaml.dump(data, sort_keys=False) for name, data in texts.items()})
            assert not diagnostics.has_errors, [item.message for item in diagnostics.sorted()]
            for name, data in texts.items():
                path = f"/root/faults/{state}/{name}"
                files[path] = File(path, yaml.dump(data, sort_keys=False).encode(), 0o644)
            store = store_of(fleet, folder / f"store-{state}")
            for key in sorted(store.rglob("*")):
                if key.is_file():
                    path = f"{STORE}/{key.relative_to(store)}"
                    files[path] = File(path, key.read_bytes(), 0o600)
        driver = Path(__file__).parent / "guest" / "faults.py"
        files[_DRIVER] = File(_DRIVER, driver.read_bytes(), 0o644)
        self.machine.put(files.values(), node=self.network.node(HUB))
        self.network.run(HUB, f"chmod -R go-rwx {STORE}")

    def _plant(self) -> None:
        files = [File(path, text.encode(), mode) for path, (text, mode) in _FOREIGN_FILES.items()]
        self.machine.put(files, node=self.network.node(HUB))
        unit = "NetworkManager" if self.manager == "networkmanager" else "systemd-networkd"
        self.network.run(HUB, f"systemctl restart {unit}\n{PLANT}")
        settle(self.network, self.running.managers, [HUB])

    def look(self) -> list[str]:
        """Return what is somebody else's on the hub, line by line."""
        return self.network.run(HUB, _LOOK, timeout=120).stdout.splitlines()

    # --- what the driver does ----------------------------------------------------------------------------------------

    def strike(
        self, kind: str, *, origin: str = "old", first: int = 1, last: int | None = None, points: int = 0
    ) -> list[Point]:
        """Do a kind of fault at points from `first` to `last`, or at some `points` that are spread over all.

        They strike by turns on the way from the `origin` and on the way back.
        """
        text = self._drive("strike", kind=kind, origin=origin, first=first, last=last, points=points)
        return [Point(json.loads(line)) for line in text.splitlines()]

    def go(self, goal: str) -> int:
        """Bring the hub to the `old` or the `new` state; return how many points at which it can be killed that had."""
        return int(json.loads(self._drive("go", goal=goal, kind="kill"))["points"])

    def state(self, *, settled: bool = False) -> str:
        """Return `old` or `new`, or what differs from both; with `settled` once nothing is armed any more."""
        found = json.loads(self._drive("state", settled=settled))
        return str(found["state"]) if not found["differing"] else "\n".join(found["differing"])

    def cut_power(self, point: int) -> None:
        """Stop a run to the new state at a point, take the hub's power away, and boot it."""
        path = self._give(kind="power", goal="new", first=point)
        unit = f"systemd-run --quiet --unit=held --setenv=PYTHONPATH={FOLDER} python3 {_DRIVER} hold {path}"
        self.network.run(HUB, f"rm -f {_STRUCK}; {unit}; until [ -e {_STRUCK} ]; do sleep 0.1; done", timeout=120)
        self.reboot()

    def on_terminal(self, action: str, command: str) -> tuple[int, str]:
        """Run a command of wgnet on a terminal; return its status and what it said.

        `action`: press `enter` or `kill` it when it asks, or `hang up` in the middle of the change.
        """
        words = ["python3", "-m", "wgnet", *command.split()]
        found = json.loads(self._drive("terminal", action=action, words=words))
        assert found["done"], found["said"]
        return int(found["status"]), str(found["said"])

    def _drive(self, command: str, **given: object) -> str:
        path = self._give(**given)
        script = f"PYTHONPATH={FOLDER} python3 {_DRIVER} {command} {path}"
        result = self.network.run(HUB, script, timeout=_LIMIT, check=False)
        assert result.status == 0, result.stdout + result.stderr
        return result.stdout

    def _give(self, **given: object) -> str:
        path = "/root/faults/given.json"
        learnt = [str(private_key("corp", ADMIN).public())]
        text = json.dumps({"manager": self.manager, "learnt": learnt, **given})
        self.machine.put([File(path, text.encode(), 0o600)], node=self.network.node(HUB))
        return path

    # --- what a person does ------------------------------------------------------------------------------------------

    def choose(self, state: str) -> None:
        """Put the topologies of a state where `wgnet apply` finds them."""
        self.network.run(HUB, f"rm -f /etc/wgnet/*.yaml; cp /root/faults/{state}/*.yaml /etc/wgnet/")

    def wgnet(self, command: str, *, before: str = "", timeout: float = 300) -> Result:
        """Run a command of wgnet on the hub, whatever its status."""
        return self.run(f"{before}PYTHONPATH={FOLDER} python3 -m wgnet {command}", timeout=timeout)

    def reboot(self) -> None:
        """Take the hub's power away, and boot it; what somebody else had in its kernel comes back with it."""
        self.network.power_off(HUB)
        problems = self.network.boot([HUB])
        assert problems == []
        self.network.run(HUB, PLANT)
        settle(self.network, self.running.managers, [HUB])

    def run(self, script: str, *, timeout: float = 120) -> Result:
        """Run a script on the hub, whatever its status."""
        return self.network.run(HUB, script, timeout=timeout, check=False)

    def close(self) -> None:
        """Take it away."""
        self.running.close()
