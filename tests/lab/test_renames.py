"""Names that change on a running host: of interfaces, of networks, of two interfaces at once, and the manager.

Input: two networks on one hub, under each manager, on each suite. Output: after each `wgnet apply` the kernel is what
the plan says and nothing else, nothing of the old name or manager is left (profiles by UUID, files, links, units,
tables), packets pass, and a second apply finds nothing to do; a boot from the files alone gives the same.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_keys import make_store, private_key

from lab.expected import differences, example_preshared
from lab.machine import File, Machine
from lab.pinging import until_answered
from lab.product import WGNET, install_product
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from lab.settle import settle
from lab.state import READ, parse_state
from lab.world import World
from wgnet.managers.networkmanager import profile_uuid
from wgnet.syntax.spec import Manager
from wgnet.system.networkd import live_drop_in

pytestmark = pytest.mark.every_day("bookworm-networkd")

HUB, PEER = "fra", "nyc"
KEYS = "/root/keys"
#: What `corp` is called later; its hosts keep their keys.
RENAMED = "head"
_SUBNETS = {"corp": (80, 51820), "firm": (81, 51821)}
_UNITS = {Manager.NETWORKD: "systemd-networkd", Manager.NETWORKMANAGER: "NetworkManager"}
#: All that wgnet and NetworkManager keep of networks, a line each. Profiles go by UUID: the name of a file is
#: NetworkManager's own business, which also has one in /run for each interface that is not its own. And systemd goes on
#: to know the unit that watches over a change until it reads its files again.
_LEFT = r"""
mkdir -p /run/systemd/network
find /etc /run/systemd/network /run/systemd/system -xdev \( -type f -o -type l \) \
    \( -path '*wgnet-*' -o -path '/etc/wgnet/*' \) \
    ! -path '*/system-connections/*' ! -path '/etc/wgnet/*.yaml' ! -path /etc/wgnet/host ! -name 'wgnet-lab-*' \
    -printf 'file %p\n'
for file in $(grep -l '^type=wireguard' /etc/NetworkManager/system-connections/* 2>/dev/null); do
    sed -n 's/^uuid=/keyfile /p' "$file"
done
systemctl list-units --all --plain --no-legend 'wgnet-*' | while read -r unit load active rest; do
    [ "$unit $active" = "wgnet-rollback.service inactive" ] || echo "unit $unit $load $active"
done
if systemctl --quiet is-active NetworkManager; then
    nmcli -t -f TYPE,UUID,DEVICE,FILENAME connection show | sed -n 's/^wireguard:\(.*\):\/etc\/.*/profile \1/p'
fi
"""


def _topology(network: str, manager: str, **hub: Any) -> dict[str, Any]:
    number, port = _SUBNETS[network]
    prefixes = (f"10.{number}.0", f"fd42:{number}:")
    return {
        "wgnet": "1",
        "network": {
            "name": network,
            "interface": {"corp": "wg0", "firm": "wg1"}[network],
            "subnets": [f"{prefixes[0]}.0/24", f"{prefixes[1]}:/64"],
            "listen-port": str(port),
            "preshared-keys": "true",
        },
        # Rules of its own, forwarding, source NAT: files and units of every kind have the interface in their names.
        "peering": [{"hub": HUB, "isolate": "true"}],
        "hosts": {
            name: {
                "public-key": private_key(network, name).public(),
                "addresses": [f"{prefixes[0]}.{host}", f"{prefixes[1]}:{host}"],
                "endpoint": f"{name}.example.net:{port}",
                "manager": manager if name == HUB else "networkd",
                **(hub if name == HUB else {}),
            }
            for host, name in enumerate((HUB, PEER), start=1)
        },
    }


class Renaming:
    """The hub and its peer in a machine, wgnet on the hub, and what the hub has by its topologies."""

    def __init__(self, machine: Machine, suite: str, manager: str, folder: Path) -> None:
        """Boot both from the files that wgnet renders."""
        self.machine = machine
        self.folder = folder
        self.scenario = Scenario(suite, "renames", manager)
        self.underlay = Manager(manager)
        self.data = {
            "corp.yaml": _topology("corp", manager, masquerade="true"),
            "firm.yaml": _topology("firm", manager),
        }
        store = folder / f"{self.scenario.id}.keys"
        for network in _SUBNETS:
            make_store(store, network, [HUB, PEER], [])
        shutil.copytree(store / "corp", store / RENAMED)
        managers = {HUB: Manager(manager), PEER: Manager.NETWORKD}
        prepared = prepare_texts(self.data, self.scenario, folder, managers)
        self.running = Running(machine, self.scenario, folder, prepared)
        self.network = self.running.network
        assert self.running.problems == []
        self.world: World = self.running.world
        self.prepared = prepared
        install_product(self.running, [HUB])
        keys = [
            File(f"{KEYS}/{path.relative_to(store)}", path.read_bytes(), 0o600)
            for path in sorted(store.rglob("*"))
            if path.is_file()
        ]
        machine.put(keys, node=self.network.node(HUB))
        self.network.run(HUB, f"chmod -R go-rwx {KEYS}")

    def write(self, *changes: Callable[[dict[str, Any]], None], manager: str | None = None) -> None:
        """Put topologies onto the hub, changed; what it has of them now is what the next plan is compared with."""
        self.data = copy.deepcopy(self.data)
        for change in changes:
            change(self.data)
        hub = Manager(manager or self.data["corp.yaml"]["hosts"][HUB]["manager"])
        for data in self.data.values():
            data["hosts"][HUB]["manager"] = hub.value
        managers = {HUB: hub, PEER: Manager.NETWORKD}
        self.prepared = prepare_texts(self.data, self.scenario, self.folder, managers)
        files = [
            File(f"/etc/wgnet/{name}", yaml.dump(data, sort_keys=False).encode(), 0o644)
            for name, data in self.data.items()
        ]
        self.network.run(HUB, "rm -f /etc/wgnet/*.yaml")
        self.machine.put(files, node=self.network.node(HUB))

    def wgnet(self, command: str, status: int = 0) -> str:
        """Run a command of wgnet on the hub; return what it said."""
        result = self.network.run(HUB, f"{WGNET} {command} 2>&1", timeout=400, check=False)
        assert result.status == status, f"{command}: status {result.status}\n{result.stdout}{result.stderr}"
        return result.stdout

    def apply(self, status: int = 0, files: str = "") -> str:
        """Apply what was written; return what wgnet said."""
        return self.wgnet(f"apply {files} --keys {KEYS}", status)

    def wrong(self) -> list[str]:
        """Return what the hub has otherwise than its plan, and what is left of another one."""
        plan = self.prepared.plans[HUB]
        self.running.prepared = self.prepared
        state = parse_state(self.network.run(HUB, READ, timeout=120).stdout)
        found = differences(self.running.expected(HUB, preshared=_preshared), state)
        expected = {f"file {each.path}" for each in self.prepared.files[HUB] if "nmconnection" not in each.path}
        expected |= {
            f"unit {each.path.rpartition('/')[2]} loaded active"
            for each in self.prepared.files[HUB]
            if each.path.startswith("/etc/systemd/system/wgnet-")
        }
        mine = [each for each in plan.interfaces if each.manager is Manager.NETWORKMANAGER]
        for each in mine:
            uuid = profile_uuid(each.network, HUB)
            expected |= {f"keyfile {uuid}", f"profile {uuid}:{each.interface}"}
        # Until the next boot a device that was changed is wgnet's own.
        allowed = {f"file /{live_drop_in(each.interface)}" for each in plan.interfaces if each not in mine}
        left = self.network.run(HUB, _LEFT).stdout.splitlines()
        found += [f"not there: {line}" for line in sorted(expected - {*left})]
        found += [f"left: {line}" for line in sorted({*left} - expected - allowed)]
        found += [f"twice: {line}" for line in sorted({line for line in left if left.count(line) > 1})]
        return found

    def assert_right(self) -> None:
        """Assert that the hub is as planned, that packets pass, and that there is nothing more to do."""
        assert not (found := self.wrong()), "\n".join(found)
        # From the hub: its peer may keep a session for a while with an interface that is gone.
        pings = "".join(
            f"{until_answered(str(address), 40)}\nping -n -q -c 1 -W 1 -I {each.interface} {address}\n"
            for each in self.prepared.plans[HUB].interfaces
            for address in [each.addresses[0].address.ip + 1]
        )
        self.network.run(HUB, pings, timeout=120)
        assert "nothing to do" in self.apply()

    def reboot(self) -> None:
        """Take the hub's power away, and boot it."""
        self.network.power_off(HUB)
        assert self.network.boot([HUB]) == []
        settle(self.network, {HUB: self.underlay}, [HUB])
        hub = self.prepared.managers[HUB]
        if hub is not self.underlay:
            settle(self.network, {HUB: hub}, [HUB])


def _preshared(network: str, own: str, peer: str, source: Any) -> str:
    return example_preshared("corp" if network == RENAMED else network, own, peer, source)


@pytest.fixture
def renaming(machine: Machine, suite: str, hub_manager: str, tmp_path: Path) -> Iterator[Renaming]:
    """The hub with both networks, as they were rendered."""
    found = Renaming(machine, suite, hub_manager, tmp_path)
    found.write()
    assert "nothing to do" in found.apply()
    found.assert_right()
    yield found
    found.running.close()


def _interfaces(**names: str) -> Callable[[dict[str, Any]], None]:
    """Return what gives the hub's interfaces other names, by file."""

    def change(data: dict[str, Any]) -> None:
        for file, name in names.items():
            data[f"{file}.yaml"]["hosts"][HUB]["interface"] = name

    return change


def _network(name: str) -> Callable[[dict[str, Any]], None]:
    """Return what gives `corp` another name."""

    def change(data: dict[str, Any]) -> None:
        data["corp.yaml"]["network"]["name"] = name

    return change


def test_interfaces_and_networks_take_other_names(renaming: Renaming) -> None:
    renaming.write(_interfaces(corp="wg7"))
    renaming.apply()
    renaming.assert_right()
    # With its file named, a network may take no other's interface, not even the one that it was before.
    renaming.write(_network(RENAMED))
    said = renaming.apply(6, "/etc/wgnet/corp.yaml")
    assert "'corp'" in said and "'head'" in said and "nothing was changed" in said, said
    renaming.apply()
    renaming.assert_right()
    renaming.write(_interfaces(corp="wg1", firm="wg7"))
    renaming.apply()
    renaming.assert_right()
    renaming.reboot()
    renaming.assert_right()
    # And all back at once.
    renaming.write(_network("corp"), _interfaces(corp="wg0", firm="wg1"))
    renaming.apply()
    renaming.assert_right()


def test_the_other_manager_takes_over_and_gives_back(renaming: Renaming) -> None:
    first = renaming.underlay
    second = next(each for each in _UNITS if each is not first)
    # The links below stay with who had them; whoever comes second is to leave them alone.
    ports = ";".join(f"interface-name:{port.name}" for port in renaming.world.nodes[HUB].ports)
    hands_off = File("/etc/NetworkManager/conf.d/20-hands-off.conf", f"[keyfile]\nunmanaged-devices={ports}\n".encode())
    if second is Manager.NETWORKMANAGER:
        renaming.machine.put([hands_off], node=renaming.network.node(HUB))
    unit = f"{_UNITS[second]}.service"
    renaming.network.run(HUB, f"systemctl add-wants multi-user.target {unit}; systemctl start {unit}", timeout=90)
    # One of the networks takes another name of its interface with it, and has its old one again in the end.
    for manager, name in ((second, "wg8"), (first, "wg0")):
        renaming.write(_interfaces(corp=name), manager=manager.value)
        renaming.apply()
        renaming.assert_right()
        renaming.reboot()
        renaming.assert_right()
