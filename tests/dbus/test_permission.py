"""What a person who is not root may do, with polkit's own daemon, without it, and where only root is allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dbus_sample import UUID, small
from realparsers import available
from realparsers.bus import USER, BusHost
from realparsers.sandbox import require_root

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.system.dbus import Bus
from wgnet.system.nm import NetworkManagerDaemon, NmError
from wgnet.system.nm_apply import report_problem, save_profile

from .conftest import needs

AsUser = Callable[[Callable[[], Any]], Any]
#: What polkit lets a user do who sits at the machine; there is no seat here.
RULE = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.NetworkManager.settings.modify.own") return polkit.Result.YES;
});
"""


@contextmanager
def asking(address: str) -> Iterator[NetworkManagerDaemon]:
    with Bus.connect(address) as bus:
        yield NetworkManagerDaemon(bus)


def outcome(address: str, act: Callable[[NetworkManagerDaemon], object]) -> list[str]:
    """Return the code, message and help of what an act comes to, [] where it is done."""
    diagnostics = Diagnostics()
    try:
        with asking(address) as nm:
            act(nm)
    except NmError as error:
        assert error.__context__ is None
        report_problem(error, "office", diagnostics)
    return [text for each in diagnostics for text in (each.code.name, each.message, *each.help)]


def add_own(nm: NetworkManagerDaemon) -> None:
    path = nm.add(small(user=USER))
    assert save_profile(nm, UUID) is not None
    nm.update(path, small(user=USER, interface="wg1"))
    nm.delete(path)


def add_everybodys(nm: NetworkManagerDaemon) -> None:
    nm.delete(nm.add(small()))


@pytest.fixture(params=available())
def version(request: pytest.FixtureRequest) -> str:
    require_root("NetworkManager starts as root only")
    needs("NetworkManager")
    needs("dbus-daemon")
    return str(request.param)


@pytest.mark.parametrize("authorization", ["true", "root-only"])
def test_without_polkit_only_root_may(version: str, authorization: str, as_user: AsUser) -> None:
    with BusHost(version, authorization=authorization) as host:
        with asking(host.address) as nm:
            path = nm.add(small())
            before = host.keyfiles()
        for act in (add_own, add_everybodys, lambda nm: nm.update(path, small(interface="wg1"))):
            code, message, *way_out = as_user(lambda act=act: outcome(host.address, act))
            assert code == codes.NM_DENIED.name
            assert "this user may not" in message
            assert any("permissions" in text for text in way_out)
        assert as_user(lambda: outcome(host.address, lambda nm: nm.activate(path)))[0] == codes.NM_DENIED.name
        assert as_user(lambda: outcome(host.address, lambda nm: nm.delete(path)))[0] == codes.NM_DENIED.name
        assert host.keyfiles() == before
        with asking(host.address) as nm:
            nm.delete(path)


def test_a_user_may_change_what_is_theirs_alone(as_user: AsUser) -> None:
    """With polkit's own daemon, and the rule that stands for sitting at the machine."""
    require_root("NetworkManager starts as root only")
    needs("NetworkManager")
    needs("polkitd")
    with BusHost("installed", files={"/etc/polkit-1/rules.d/10-wgnet.rules": RULE}) as host:
        host.start("polkit")
        with Bus.connect(host.address) as bus:
            until = time.monotonic() + 20
            while not bus.name_has_owner("org.freedesktop.PolicyKit1"):
                assert time.monotonic() < until, host.log("polkit")
                time.sleep(0.05)
        assert as_user(lambda: outcome(host.address, add_own)) == []
        assert as_user(lambda: outcome(host.address, add_everybodys))[0] == codes.NM_DENIED.name
        with asking(host.address) as nm:
            nm.add(small())
        # Somebody else's is neither read with its secrets nor changed.
        assert as_user(lambda: outcome(host.address, lambda nm: save_profile(nm, UUID)))[0] == codes.NM_DENIED.name
        assert len(host.keyfiles()) == 1
