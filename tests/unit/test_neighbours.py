"""What is written for the manager that an interface is not for; tests/lab/test_neighbours.py sees what it does."""

from __future__ import annotations

import pytest
from unit.test_extras import plan

from wgnet.managers.neighbours import Neighbours, neighbour_path
from wgnet.managers.templates import Templates
from wgnet.record import replace
from wgnet.syntax.spec import Manager

PATHS = {
    Manager.NETWORKD: "NetworkManager/conf.d/50-wgnet-wg0.conf",
    Manager.NETWORKMANAGER: "systemd/network/05-wgnet-wg0.network",
}


def settings(manager: Manager, base: str = "/etc") -> list[str]:
    [file] = Neighbours(Templates(), base).render(replace(plan("sgp"), manager=manager))
    assert file.path == f"{base}/{PATHS[manager]}"
    assert (file.mode, file.owner, file.group, file.secret, file.network) == (0o644, "root", "root", False, "office")
    text = file.content.decode()
    assert text.startswith("# Written by wgnet from the network 'office' for the host 'sgp'. Changes ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("base", ["/etc", "/run"])
def test_networkmanager_is_to_leave_networkds_interface_alone(base: str) -> None:
    """Added to what an administrator says: `=` would replace the list of an earlier file."""
    assert settings(Manager.NETWORKD, base) == ["[keyfile]", "unmanaged-devices+=interface-name:=wg0"]


@pytest.mark.parametrize("base", ["/etc", "/run"])
def test_networkd_is_to_leave_networkmanagers_interface_alone(base: str) -> None:
    assert settings(Manager.NETWORKMANAGER, base) == ["[Match]", "Name=wg0", "[Link]", "Unmanaged=yes"]


def test_it_comes_before_what_others_write() -> None:
    """The first file that matches counts, by name: netplan's and an administrator's begin with 10 as a rule."""
    path = neighbour_path(replace(plan("sgp"), manager=Manager.NETWORKMANAGER))
    assert path is not None
    assert path.rpartition("/")[2] < "10-netplan-all.network"


def test_wg_quicks_interface_is_a_persons() -> None:
    own = replace(plan("sgp"), manager=Manager.WG_QUICK)
    assert Neighbours(Templates()).render(own) == []
    assert neighbour_path(own) is None
