"""A hub that runs, and a host `edge` whose disk can be worked on while it is off: for tests of images and packages.

Input: an empty machine, a topology of the two, and whether the host is given its files. Output: both booted, the hub's
tunnel up, and the few things that such tests do with the host. It puts no wgnet anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from example_keys import private_key

from lab.machine import Machine
from lab.network import HOSTS
from lab.pinging import until_answered
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from lab.settle import settle
from wgnet.syntax.spec import Manager

HUB, EDGE = "fra", "edge"
HUB_ADDRESS, EDGE_ADDRESS = "10.80.0.1", "10.80.0.2"
#: The host's root in the machine, also while it is off.
DISK = f"{HOSTS}/{EDGE}/root"


def topology(
    name: str, manager: str, *, key: bool, hub: Mapping[str, Any] | None = None, edge: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the network of both; `key`: whether the host's public key is known; `hub`, `edge`: what else they have."""
    known = {"public-key": private_key(name, EDGE).public()} if key else {}
    central = {"addresses": [HUB_ADDRESS], "endpoint": "fra.example.net", "manager": "networkd"}
    return {
        "wgnet": "1",
        "network": {"name": name, "interface": "wg0", "subnets": ["10.80.0.0/24"]},
        "peering": [{"hub": HUB}],
        "hosts": {
            HUB: {"public-key": private_key(name, HUB).public(), **central, **(hub or {})},
            EDGE: {"addresses": [EDGE_ADDRESS], "manager": manager, "keepalive": "25", **known, **(edge or {})},
        },
    }


class HubAndEdge:
    """The hub under networkd, and the host under `manager`; `bare`: the host has no file and no key of the network."""

    def __init__(
        self, machine: Machine, suite: str, manager: str, folder: Path, data: Mapping[str, Any], *, bare: bool = False
    ) -> None:
        """Boot both; `folder` takes the key store."""
        self.machine, self.manager = machine, manager
        self.name = str(data["network"]["name"])
        scenario = Scenario(suite, self.name, manager)
        managers = {HUB: Manager.NETWORKD, EDGE: Manager(manager)}
        prepared = prepare_texts({f"{self.name}.yaml": data}, scenario, folder, managers)
        if bare:
            prepared.files[EDGE] = []
        self.running = Running(machine, scenario, folder, prepared)
        self.network = self.running.network
        self._known = private_key(self.name, EDGE).public()

    def boot(self, credentials: Mapping[str, str] | None = None) -> None:
        """Boot the host, which was off, with systemd's credentials; no unit fails."""
        assert self.network.boot([EDGE], {EDGE: credentials or {}}) == []
        settle(self.network, self.running.managers, [EDGE])

    def run(self, script: str) -> str:
        """Run a script on the host, and return what it prints."""
        return self.network.run(EDGE, script, timeout=180).stdout.strip()

    def tell_hub(self, public: str) -> None:
        """Give the hub another key of the host, as whoever has the hub does."""
        renewed = f"wg set wg0 peer {self._known} remove peer {public} allowed-ips {EDGE_ADDRESS}/32"
        self.network.run(HUB, renewed)
        self._known = public

    def pings(self) -> None:
        """Wait for an answer of the hub."""
        self.network.run(EDGE, until_answered(HUB_ADDRESS, 40), timeout=120)

    def pings_back(self) -> None:
        """Wait for an answer to the hub."""
        self.network.run(HUB, until_answered(EDGE_ADDRESS, 40), timeout=120)

    def close(self) -> None:
        """Take everything away."""
        self.running.close()
