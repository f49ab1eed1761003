"""What the tests on a message bus share: one real NetworkManager a version, and profiles to give it."""

from __future__ import annotations

import xml.etree.ElementTree  # noqa: F401 - dbus_next imports it, and a user without rights could not read it then
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dbus_next  # noqa: F401 - as above
import pytest
from realparsers import available
from realparsers.bus import USER_NUMBER, BusHost
from realparsers.needs import needs
from realparsers.sandbox import require_root
from realparsers.users import call_as_user

from wgnet.system.dbus import Bus
from wgnet.system.nm import NetworkManagerDaemon


@pytest.fixture(scope="session", params=available())
def daemon(request: pytest.FixtureRequest) -> Iterator[BusHost]:
    """A NetworkManager of one version, which the tests leave without profiles."""
    require_root("NetworkManager starts as root only")
    needs("NetworkManager")
    needs("dbus-daemon")
    with BusHost(request.param) as host:
        yield host


@pytest.fixture
def bus(daemon: BusHost) -> Iterator[Bus]:
    """A connection to the bus; the keyfiles are none before and after."""
    assert daemon.keyfiles() == {}
    with Bus.connect(daemon.address) as connection:
        yield connection
    with Bus.connect(daemon.address) as connection:
        nm = NetworkManagerDaemon(connection)
        for profile in nm.profiles():
            if profile.type == "wireguard" or profile.filename.startswith("/etc/"):
                nm.delete(profile.path)
    for name in daemon.keyfiles():
        (daemon.connections / name).unlink()


@pytest.fixture
def nm(bus: Bus) -> NetworkManagerDaemon:
    """NetworkManager at the other end of it."""
    return NetworkManagerDaemon(bus)


@pytest.fixture
def as_user() -> Callable[[Callable[[], Any]], Any]:
    """Call a function in another process, as a person who is not root; return what it returns, in JSON."""

    return partial(call_as_user, USER_NUMBER)
