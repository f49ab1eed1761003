"""What a user's `wgnet apply` remembers: $XDG_STATE_HOME/wgnet, the user's alone.

Stage: system. Two files lie there: which profiles wgnet made (`profiles.json`), and the change that is under way or
waits to be confirmed (`change.json`). The folder is its own lock. No secret is ever written here. All methods raise
`OSError`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wgnet.system.lock import BusyError, lock_folder
from wgnet.system.profiles import read_record_file, write_record_file
from wgnet.system.snapshot import Owned

__all__ = ["Pending", "UserState", "user_name"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def user_name() -> str | None:
    """Return the name of the user who runs this process, None where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A change of this boot that is not settled.

    `deadline` counts seconds of CLOCK_BOOTTIME, None while the change is being made; `checkpoints` are paths at
    NetworkManager, `profiles` the UUIDs that are changed.
    """

    deadline: float | None
    checkpoints: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()

    @property
    def left(self) -> float:
        """Seconds until NetworkManager goes back by itself, 0 where it does not wait for anybody."""
        return 0.0 if self.deadline is None else max(self.deadline - time.clock_gettime(time.CLOCK_BOOTTIME), 0.0)


class UserState:
    """The folder of one user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_environment(cls) -> UserState:
        """Return this user's, by the XDG Base Directory Specification: relative paths do not count."""
        base = Path(os.environ.get("XDG_STATE_HOME") or "")
        if not base.is_absolute():
            base = Path(os.environ.get("HOME") or "/").joinpath(".local/state")
        return cls(base / "wgnet")

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock; whether it is held is said, and else nothing is."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = lock_folder(None, str(self.folder), wait=0)
        except BusyError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)

    def profiles(self) -> dict[str, Owned]:
        """Return the profiles that wgnet made for this user, by UUID."""
        return read_record_file(self.folder / "profiles.json")

    def write_profiles(self, owned: Iterable[Owned]) -> None:
        """Remember them."""
        write_record_file(self.folder / "profiles.json", owned)

    def pending(self) -> Pending | None:
        """Return the change that is not settled; one of an earlier boot is over, for so are its checkpoints."""
        try:
            value = json.loads((self.folder / "change.json").read_text(encoding="utf-8"))
            profiles = tuple(map(str, value["profiles"]))
            if value["boot"] != _boot():
                return None
            return Pending(
                deadline=None if value["deadline"] is None else float(value["deadline"]),
                checkpoints=tuple(map(str, value["checkpoints"])),
                profiles=profiles,
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            # Damaged: what is there is looked at anyway.
            return None

    def begin(self, checkpoints: tuple[str, ...], profiles: tuple[str, ...], seconds: float | None = None) -> None:
        """Remember a change: under way, or, with `seconds`, waiting so long to be confirmed."""
        deadline = None if seconds is None else time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
        value = {
            "version": 1,
            "boot": _boot(),
            "deadline": deadline,
            "checkpoints": list(checkpoints),
            "profiles": list(profiles),
        }
        path = self.folder / "change.json"
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps(value), encoding="utf-8")
        os.replace(new, path)

    def end(self) -> None:
        """Forget the change."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "change.json").unlink()


def _boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip()
