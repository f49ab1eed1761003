"""What is written for the manager that an interface is not for; tests/lab/test_neighbours.py sees what it does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from unit.test_extras import plan

from wgnet.diagnostics import codes
from wgnet.live.status import gives_dns_to_resolved
from wgnet.managers.neighbours import Neighbours, neighbour_path
from wgnet.managers.templates import Templates
from wgnet.plan.types import DnsPlan
from wgnet.record import replace
from wgnet.syntax.spec import Manager
from wgnet.system import live

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


def test_who_gives_dns_to_resolved() -> None:
    """NetworkManager has a resolver of its own, and wg-quick resolvconf(8)."""
    own = replace(plan("sgp"), dns=None)
    dns = DnsPlan(servers=(), search=(), reverse=(), everything=False)
    asked = replace(dns, servers=(plan("fra").addresses[0].address.ip,))
    assert codes.DNS_NOT_READ.name == "WG6023"
    assert not gives_dns_to_resolved(own)
    assert not gives_dns_to_resolved(replace(own, dns=dns))
    assert gives_dns_to_resolved(replace(own, dns=asked))
    assert not gives_dns_to_resolved(replace(own, dns=asked, manager=Manager.NETWORKMANAGER))
    assert not gives_dns_to_resolved(replace(own, dns=asked, manager=Manager.WG_QUICK))


def test_a_socket_that_nobody_listens_on_is_no_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left behind; resolvectl(1) would start the service, and a look is to change nothing."""
    path = tmp_path / "io.systemd.Resolve"
    monkeypatch.setattr(live, "_RESOLVED", path)
    assert not live.has_resolved()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert live.has_resolved()
    assert path.is_socket()
    assert not live.has_resolved()
    assert live._dns(True) is None
