"""`wgnet apply` while packets flow: twenty changes, and nothing is lost over the peers that they do not concern.

Input: the network of `changing.py`, its hub under each manager, on each suite. Output: after each change the kernel is
what the plan says, and no packet of one each 10 ms was lost, whether the peer has an endpoint, has none, or has roamed;
nor when somebody else reloads the manager, nor when it is restarted. A boot gives the same state from the files alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.changing import HUB, Changing, changes, version
from lab.checks import journal_complaints
from lab.expected import differences, expected_state
from lab.machine import Machine
from lab.settle import settle
from lab.state import READ, parse_state
from wgnet.cli.planjson import plan_to_json

COUNT = 20
_SEED = 4
#: What networkd and NetworkManager are told by people and packages, besides wgnet.
_RELOAD = {"networkd": "networkctl reload", "networkmanager": "nmcli general reload && nmcli connection reload"}
_RESTART = {"networkd": "systemctl restart systemd-networkd", "networkmanager": "systemctl restart NetworkManager"}


# Six to ten minutes each: one of them every day, where NetworkManager's way is taken by test_nm_dbus; all at night.
@pytest.mark.every_day("trixie-networkd")
def test_twenty_changes_lose_no_packet(
    machine: Machine, suite: str, hub_manager: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    manager = hub_manager
    changing = Changing(machine, suite, manager, tmp_path)
    try:
        record_property("version", version(changing.running, manager))
        # What was rendered elsewhere is taken over as it stands.
        changing.write(changing.data)
        assert "nothing to do" in changing.apply()
        lost = []
        for number, (kind, data) in enumerate(changes(changing.data, COUNT, _SEED)):
            changing.write(data)
            with changing.counting(kind) as found:
                said = changing.apply()
            assert "applied" in said, f"{kind}: {said}"
            assert _differences(changing) == [], kind
            lost.append(found)
            print(f"{suite} {manager} {number}: {found}", flush=True)
        for kind, command in (("a reload by somebody else", _RELOAD), ("a restart of the manager", _RESTART)):
            with changing.counting(kind) as found:
                changing.network.run(HUB, command[manager], timeout=90)
                settle(changing.network, changing.running.managers, [HUB])
            assert _differences(changing) == [], kind
            lost.append(found)
            print(f"{suite} {manager}: {found}", flush=True)
        for each in lost:
            record_property(each.kind, str(each))
        assert [str(each) for each in lost if any(each.lost.values())] == []
        # A networkd that restarts drops rules that it made before, and complains of those that it made twice.
        assert [line for line in journal_complaints(changing.running) if "wgnet" in line] == []
        # Files alone: what was set of the live device is in none of systemd's or NetworkManager's memories.
        changing.network.power_off(HUB)
        assert changing.network.boot([HUB]) == []
        settle(changing.network, changing.running.managers, [HUB])
        assert _differences(changing) == []
    finally:
        changing.close()


def _differences(changing: Changing) -> list[str]:
    """Return what the hub's kernel has otherwise than its plan, by the lab's own reckoning and not wgnet's."""
    running = changing.running
    plan = running.prepared.plans[HUB]
    expected = expected_state(plan_to_json(plan), resolver=running.world.names, roamed=["sgp"])
    state = parse_state(
        running.network.run(HUB, READ, timeout=120).stdout, [each.interface for each in plan.interfaces]
    )
    return differences(expected, state)
