"""systemd-networkd, as it runs: what it is told, and how a device is taken out of its hands.

Stage: system. networkd below 257 ignores an edited .netdev, later ones set the whole device anew when they reload, and
every one of them does when it restarts: each session is lost by that. A device that lives on is therefore let go: a
drop-in below /run makes its .netdev match no machine, until the next boot, while its .network goes on being managed.
Measured: no packet is lost, neither then nor at a later reload or restart of networkd (252, 257, 262). Must not touch
what the drop-in does not name.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from wgnet.live.configured import rules_of_network
from wgnet.live.state import PolicyRule
from wgnet.managers.artifact import Artifact
from wgnet.system.dbus import Bus, DBusCallError
from wgnet.system.wholefiles import make_folders, put_file

__all__ = ["Networkd", "interface_of_netdev", "live_drop_in", "netdev_path", "policy_rules"]

_NAME = "org.freedesktop.network1"
_PATH = "/org/freedesktop/network1"
_MANAGER = "org.freedesktop.network1.Manager"
#: Since 256 a second Reload is refused while one is under way.
_ALREADY = "org.freedesktop.network1.AlreadyReloading"
_PAUSE_S = 0.1

_FOLDER = "etc/systemd/network"
_LIVE = "run/systemd/network"
_PREFIX, _SUFFIX = "50-wgnet-", ".netdev"
_DROP_IN = "zz-wgnet-live.conf"
_DROP_IN_TEXT = """\
# Written by wgnet: the device '{name}' is running, and is changed without systemd-networkd until the next boot, for it
# would reset every session of it at a reload or a restart. `wgnet status` says whether it is as it should be.

[Match]
KernelCommandLine=wgnet.never
"""


def netdev_path(name: str) -> str:
    """Return where the .netdev of an interface lies, without the leading slash."""
    return f"{_FOLDER}/{_PREFIX}{name}{_SUFFIX}"


def interface_of_netdev(path: str) -> str | None:
    """Return the interface whose .netdev lies at a path without leading slash, or None for another path."""
    folder, _, file = path.rpartition("/")
    if folder != _FOLDER or not (file.startswith(_PREFIX) and file.endswith(_SUFFIX)):
        return None
    return file.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def live_drop_in(name: str) -> str:
    """Return where a drop-in takes a device out of networkd's hands until the next boot, without the leading slash."""
    return f"{_LIVE}/{_PREFIX}{name}{_SUFFIX}.d/{_DROP_IN}"


def policy_rules(artifacts: Iterable[Artifact]) -> frozenset[PolicyRule]:
    """Return the policy rules that those of some files ask for which are .network files."""
    files = (each for each in artifacts if f"/{_FOLDER}/" in each.path and each.path.endswith(".network"))
    return frozenset(rule for each in files for rule in rules_of_network(each.content.decode(errors="replace")))


class Networkd:
    """systemd-networkd on a bus. Its files below /run lie below `root`."""

    def __init__(self, bus: Bus, root: Path = Path("/")) -> None:
        self._bus = bus
        self._root = root

    def is_running(self) -> bool:
        """Return whether networkd is there. Raises `DBusError`."""
        return self._bus.name_has_owner(_NAME)

    def reload(self, *, patience: float = 30) -> None:
        """Have networkd read its files again. `patience` is in seconds. Raises `DBusError`."""
        until = time.monotonic() + patience
        while True:
            try:
                self._bus.call(_NAME, _PATH, _MANAGER, "Reload", timeout=patience)
                return
            except DBusCallError as error:
                if error.name != _ALREADY or time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE_S)

    def reconfigure(self, name: str) -> None:
        """Have networkd set a link anew: it takes the addresses and routes that it once made for there. Sessions stay.

        For a moment the link is without them. Raises `DBusError`.
        """
        index, _ = self._bus.call(_NAME, _PATH, _MANAGER, "GetLinkByName", "s", (name,))
        self._bus.call(_NAME, _PATH, _MANAGER, "ReconfigureLink", "i", (index,))

    # --- which devices are in whose hands ----------------------------------------------------------------------------

    def has_let_go(self, name: str) -> bool:
        """Return whether a device is out of networkd's hands."""
        return (self._root / live_drop_in(name)).exists()

    def let_go(self, name: str) -> None:
        """Take a live device out of networkd's hands, from the next reload on. Raises `OSError`."""
        path = self._root / live_drop_in(name)
        make_folders(path.parent)
        put_file(path, _DROP_IN_TEXT.format(name=name).encode(), 0o644)

    def take_back(self, name: str) -> bool:
        """Give the name of a device that is gone, or about to go, back to networkd. True: a reload is needed.

        Raises `OSError`.
        """
        path = self._root / live_drop_in(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        return True
