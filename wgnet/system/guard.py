"""Who puts a machine back when `wgnet apply` does not live to do it: systemd, by units that wgnet starts.

Stage: system. While the file `armed` lies in the state folder a change is under way, or waits to be confirmed. Three
units watch over it, none of which is a thread or a child of wgnet:

- wgnet-guard-PID.service, transient, waits for the process that changes the machine. Whatever way it ends, SIGKILL
  among them, or when it takes too long, what is still armed is rolled back;
- wgnet-confirm.timer, transient, rolls back what nobody has confirmed in time;
- wgnet-rollback.service, in /etc for as long as it is armed, puts the files back at boot, before any network is made.

To disarm is to remove the one file; what else lies there is without effect then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import wgnet
from wgnet.system.programs import ProgramError, find_program, run_program
from wgnet.system.snapshot import BadSnapshotError, Snapshot
from wgnet.system.wholefiles import make_folders, place_of_new, put_file

__all__ = ["LIMIT_S", "Armed", "Guard"]

#: Seconds that a change may take before it is taken for dead. Managers answer within seconds.
LIMIT_S = 300

_FOLDER = "var/lib/wgnet/apply"
_BOOT_UNIT = "etc/systemd/system/wgnet-rollback.service"
_BOOT_LINK = "etc/systemd/system/sysinit.target.wants/wgnet-rollback.service"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GUARD = "wgnet-guard"
_CONFIRM = "wgnet-confirm"
_PAUSE_S = 0.1

_BOOT_TEXT = """\
# Written by wgnet while a change of its networks is under way or waits for `wgnet confirm`; removed at its end.

[Unit]
Description=Put back the networks that wgnet was changing
Documentation=man:wgnet(1)
ConditionPathExists=/{folder}/armed
DefaultDependencies=no
After=local-fs.target
Before=systemd-sysctl.service systemd-networkd.service NetworkManager.service network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
{environment}ExecStart={command}

[Install]
WantedBy=sysinit.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """A change that is not settled.

    `deadline` counts seconds of CLOCK_BOOTTIME, which nobody sets and which goes on while the machine sleeps; None
    while the change is being made.
    """

    deadline: float | None

    @property
    def is_due(self) -> bool:
        """Whether it is to be rolled back: it was given up in the middle, or nobody confirmed it in time."""
        return self.deadline is None or _now() >= self.deadline

    @property
    def left(self) -> float:
        """The seconds that are left to confirm it."""
        return 0.0 if self.deadline is None else max(0.0, self.deadline - _now())


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()


def _quoted(word: str) -> str:
    """Return a word of a unit: a space divides words there, and `%` begins a specifier (systemd.unit(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != word or " " in word else word


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Guard:
    """The state folder of `apply` below a root, and the units that watch over it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._folder = root / _FOLDER
        #: The unit that waits for this process, where it has armed.
        self._unit = ""

    # --- one at a time -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, *, patience: float = 0) -> Iterator[bool]:
        """Yield whether this process is the only one that changes the machine. Raises `OSError`.

        `patience` counts the seconds to wait for another.
        """
        make_folders(self._folder.parent)
        make_folders(self._folder, 0o700)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        until = time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= until:
                        yield False
                        return
                    time.sleep(_PAUSE_S)
                else:
                    yield True
                    return
        finally:
            os.close(descriptor)

    # --- what is armed -----------------------------------------------------------------------------------------------

    def armed(self) -> Armed | None:
        """Return the change that is not settled, or None. Raises `OSError`."""
        try:
            text = (self._folder / "armed").read_bytes()
        except FileNotFoundError:
            return None
        try:
            value = json.loads(text)
            # Nobody waits any more for what an earlier boot waited for, and its clock said something else.
            deadline = value["deadline"] if value.get("boot") in (None, _boot_id()) else None
            return Armed(deadline=None if deadline is None else float(deadline))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Whatever it holds: that it is there is what counts.
            return Armed(deadline=None)

    def snapshot(self) -> Snapshot | None:
        """Return the state before the last change, None where there is none. Raises `OSError`, `BadSnapshotError`."""
        try:
            text = (self._folder / "snapshot.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise BadSnapshotError("the text is damaged") from None
        return Snapshot.from_json(text)

    def has_snapshot(self) -> bool:
        """Return whether there is a state before the last change. Raises `OSError`."""
        return (self._folder / "snapshot.json").exists()

    def arm(self, snapshot: Snapshot, *, limit: float) -> None:
        """Keep a state to go back to, from now on. `limit` is how many seconds the change may take.

        Raises `OSError` and `ProgramError`, and nothing is armed then.
        """
        self._write("snapshot.json", snapshot.to_json())
        self._remove("back")
        # Of this process alone: the guard of one that was killed may still be at its work.
        self._unit = f"{_GUARD}-{os.getpid()}.service"
        try:
            # First of all: who is killed once it is armed has somebody to put it back. tail(1) of coreutils ends when
            # the process does.
            self._run_unit(
                self._unit,
                [find_program("tail") or "/usr/bin/tail", f"--pid={os.getpid()}", "-f", "/dev/null"],
                [
                    f"--property=RuntimeMaxSec={limit:g}",
                    f"--property=ExecStopPost=-{self._unless_settled()}",
                    # Else it is killed after 90 s, in the middle or while it waits for a run that is slow to end.
                    "--property=TimeoutStopSec=infinity",
                ],
            )
            self._write("armed", json.dumps({"deadline": None}))
            self._install_boot_unit()
        except BaseException:
            self.disarm()
            raise

    def wait(self, seconds: float) -> None:
        """Roll back in so many seconds unless `disarm` comes first. Raises `OSError` and `ProgramError`."""
        deadline = _now() + seconds
        # One that a killed run left has to be gone before another can have its name.
        self._stop(f"{_CONFIRM}.timer", f"{_CONFIRM}.service", wait=True)
        command = [*self._words(), "rollback", "--armed"]
        timer = [f"--on-active={seconds:g}s", "--timer-property=AccuracySec=100ms"]
        self._run_unit(_CONFIRM, command, timer)
        self._write("armed", json.dumps({"deadline": deadline, "boot": _boot_id()}))

    def disarm(self) -> None:
        """Settle the change: from the first step of this on nothing is rolled back any more. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "armed").unlink()
            self._sync()
        self.tidy()
        self._stop(f"{_CONFIRM}.timer", *([self._unit] if self._unit else []))

    def tidy(self) -> None:
        """Remove what a run left that was killed: once it had settled its change, or while it armed. Raises `OSError`.

        Nothing may be armed.
        """
        unit = self._root / _BOOT_UNIT
        for path in (self._root / _BOOT_LINK, unit, place_of_new(unit)):
            # Where /etc is read-only, to remove what is not there is an error too.
            if os.path.lexists(path):
                path.unlink()

    def begin_way_back(self) -> bool:
        """Note that the way back begins; return whether one began before, and came to no end. Raises `OSError`."""
        if (self._folder / "back").exists():
            return True
        self._write("back", "")
        return False

    def forget(self) -> None:
        """Forget the state before the last change: there is nothing to go back to any more. Raises `OSError`."""
        self._remove("snapshot.json")
        self._remove("back")

    # --- files and units ---------------------------------------------------------------------------------------------

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / name).unlink()

    def _write(self, name: str, text: str) -> None:
        put_file(self._folder / name, text.encode(), 0o600)
        self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _install_boot_unit(self) -> None:
        unit, link = self._root / _BOOT_UNIT, self._root / _BOOT_LINK
        environment = "".join(f"Environment={_quoted(each)}\n" for each in self._environment())
        command = " ".join(_quoted(each) for each in (*self._words(), "rollback", "--boot"))
        text = _BOOT_TEXT.format(folder=_FOLDER, environment=environment, command=command)
        put_file(unit, text.encode(), 0o644)
        make_folders(link.parent)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(f"/{_BOOT_UNIT}")
        for path in (unit.parent, link.parent):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @staticmethod
    def _words() -> list[str]:
        return [sys.executable, "-m", "wgnet"]

    def _command(self, option: str) -> str:
        return shlex.join([*self._words(), "rollback", option])

    def _unless_settled(self) -> str:
        """Return the command that rolls back what is armed, and starts no interpreter where nothing is."""
        test = f"[ ! -e {shlex.quote(str(self._folder / 'armed'))} ] || exec {self._command('--armed')}"
        return shlex.join(["/bin/sh", "-c", test])

    @staticmethod
    def _environment() -> list[str]:
        # Where wgnet runs from a folder that this interpreter does not look into by itself.
        return [f"PYTHONPATH={Path(wgnet.__file__).parent.parent}", "PYTHONDONTWRITEBYTECODE=1"]

    def _run_unit(self, name: str, command: list[str], options: list[str]) -> None:
        run_program(
            "systemd-run",
            [
                *("--quiet", "--collect", f"--unit={name}", "--property=DefaultDependencies=no"),
                *(f"--setenv={each}" for each in self._environment()),
                *options,
                "--",
                *command,
            ],
            missing="systemd",
        )

    @staticmethod
    def _stop(*units: str, wait: bool = False) -> None:
        """Stop units that may not be there; the one that this process runs in is left alone."""
        own = Path("/proc/self/cgroup").read_text(encoding="ascii", errors="replace")
        wanted = [unit for unit in units if f"/{unit}" not in own]
        with contextlib.suppress(ProgramError):
            run_program("systemctl", [*(() if wait else ("--no-block",)), "stop", *wanted])
