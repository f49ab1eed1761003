"""The state folder of apply: what is armed, who may change the machine, and what systemd is told to do about it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from wgnet.cli.commands import confirm
from wgnet.cli.context import Context
from wgnet.cli.parser import build_parser
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.syntax.spec import Manager
from wgnet.system import guard as guard_module
from wgnet.system.dbus import DBusCallError
from wgnet.system.guard import Armed, Guard
from wgnet.system.install import recover
from wgnet.system.profiles import Profiles, read_record_file
from wgnet.system.programs import ProgramError
from wgnet.system.snapshot import BadSnapshotError, Owned, Snapshot
from wgnet.system.user_state import UserState

#: More than the parser of JSON takes.
DEEP = "[" * 200_000
SECRET = "cGluZyBwb25nIHBpbmcgcG9uZyBwaW5nIHBvbmcgcGk="


class Nobody:
    """A bus on which no NetworkManager is."""

    def get(self, *_: object) -> None:
        raise DBusCallError("org.freedesktop.DBus.Error.ServiceUnknown", "", "Get")


def snapshot() -> Snapshot:
    return Snapshot(
        artifacts=(Artifact(path="/etc/wgnet/a.key", network="a", content=SECRET.encode(), mode=0o600, secret=True),),
        dump="",
        mtus={"wg0": 1420},
        owned=(Owned(interface="wg0", network="a", manager=Manager.NETWORKD),),
        made=(Owned(interface="wg1", network="a", manager=Manager.NETWORKMANAGER, uuid="u"),),
        configured={"wg0": {"A=": None}},
        replaced={"wg0": {"A=": "192.0.2.1:1"}},
        parameters={"net/ipv4/ip_forward": "0"},
        profiles={"u": None},
    )


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What systemd-run and systemctl are called with, which are not run."""
    called: list[list[str]] = []

    def run(name: str, arguments: list[str], **_: object) -> str:
        called.append([name, *arguments])
        return ""

    monkeypatch.setattr(guard_module, "run_program", run)
    return called


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return tmp_path


def test_a_snapshot_comes_back_as_it_was() -> None:
    assert Snapshot.from_json(snapshot().to_json()) == snapshot()
    # Nothing that prints it prints what is in it.
    assert SECRET not in repr(snapshot())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2}', "null", DEEP], ids=range(7))
def test_a_damaged_snapshot_is_refused(text: str) -> None:
    with pytest.raises(BadSnapshotError):
        Snapshot.from_json(text)


def test_arming_keeps_the_state_for_root_alone_and_has_systemd_watch(root: Path, units: list[list[str]]) -> None:
    guard = Guard(root)
    with guard.locked() as alone:
        assert alone
        guard.arm(snapshot(), limit=300)
        armed = guard.armed()
        assert armed is not None
        # Given up in the middle, it is to be rolled back.
        assert armed.is_due
        assert guard.snapshot() == snapshot()
    folder = root / "var/lib/wgnet/apply"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == dict.fromkeys(
        ("armed", "lock", "snapshot.json"), 0o600
    )
    [started] = [call for call in units if call[0] == "systemd-run"]
    assert f"--unit=wgnet-guard-{os.getpid()}.service" in started
    assert f"--pid={os.getpid()}" in started
    assert any(word.startswith("--property=ExecStopPost=-/bin/sh -c ") and "--armed" in word for word in started)
    # systemd kills what takes longer than 90 s there, and then nobody would go back.
    assert "--property=TimeoutStopSec=infinity" in started
    boot = (root / "etc/systemd/system/wgnet-rollback.service").read_text()
    assert "rollback --boot" in boot
    assert "Before=systemd-sysctl.service systemd-networkd.service NetworkManager.service network-pre.target" in boot
    assert (root / "etc/systemd/system/sysinit.target.wants/wgnet-rollback.service").is_symlink()
    assert SECRET not in json.dumps(units)


def test_what_runs_at_boot_is_found_wherever_it_lies(
    root: Path, units: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder with a space in its name systemd took the half, and nothing went back at boot."""
    home = "/opt/my tools 5%t"
    monkeypatch.setattr("sys.executable", f"{home}/python")
    monkeypatch.setattr("wgnet.__file__", f"{home}/wgnet/__init__.py")
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
    unit = root / "etc/systemd/system/wgnet-rollback.service"
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and "PYTHOND" not in line)
    assert lines["Environment"] == '"PYTHONPATH=/opt/my tools 5%%t"'
    assert lines["ExecStart"] == '"/opt/my tools 5%%t/python" -m wgnet rollback --boot'


def test_disarming_leaves_nothing_but_what_to_go_back_to(root: Path, units: list[list[str]]) -> None:
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        guard.disarm()
        assert guard.armed() is None
        assert guard.has_snapshot()
        guard.forget()
        assert guard.snapshot() is None
    assert not list(root.glob("etc/systemd/system/**/wgnet-*"))
    # Without waiting, for this may run in the unit that it stops.
    assert ["systemctl", "--no-block", "stop", "wgnet-confirm.timer", f"wgnet-guard-{os.getpid()}.service"] in units


def test_a_way_back_is_the_first_again_after_another_change(root: Path, units: list[list[str]]) -> None:
    """What one that came to no end left is nothing to the next change; nor what a way back that arrived did."""
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        assert [guard.begin_way_back(), guard.begin_way_back()] == [False, True]
        guard.arm(snapshot(), limit=300)
        assert not guard.begin_way_back()
        guard.forget()
        assert not guard.begin_way_back()
    assert units


def test_somebody_watches_before_anything_is_armed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, an armed change would have nobody to put it back."""
    seen: list[bool] = []

    def run(name: str, arguments: list[str], **_: object) -> str:
        seen.append((root / "var/lib/wgnet/apply/armed").exists())
        return ""

    monkeypatch.setattr(guard_module, "run_program", run)
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
    assert seen == [False]


def test_what_a_killed_run_left_beside_is_tidied_up(root: Path, units: list[list[str]]) -> None:
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        (root / "var/lib/wgnet/apply/armed").unlink()
        # Killed while it armed, as by a terminal that goes: the unit is not whole yet.
        (root / "etc/systemd/system/.wgnet-rollback.service.new").write_text("[Unit]\n")
        guard.tidy()
        guard.tidy()
    assert not list(root.glob("etc/systemd/system/**/*wgnet*"))


def test_what_waits_is_due_when_its_time_is_over(root: Path, units: list[list[str]]) -> None:
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        guard.wait(0.3)
        armed = guard.armed()
        assert armed is not None
        assert not armed.is_due
        assert 0 < armed.left <= 0.3
        time.sleep(0.35)
        assert armed.is_due
        assert armed.left == 0
    assert any("--on-active=0.3s" in call for call in units)


def test_other_damage_is_told_or_counts_for_nothing(root: Path) -> None:
    folder = root / "var/lib/wgnet"
    (folder / "apply").mkdir(parents=True)
    for name in ("profiles.json", "change.json", "journal.begun", "apply/checkpoints.json"):
        (folder / name).write_text(DEEP)
    assert read_record_file(folder / "profiles.json") == {}
    assert UserState(folder).pending() is None
    Profiles.keep(Nobody(), root, [])  # type: ignore[arg-type]
    assert not (folder / "apply/checkpoints.json").exists()
    diagnostics = Diagnostics()
    assert not recover(root, runtime=False, diagnostics=diagnostics)
    assert [each.code for each in diagnostics] == [codes.CANNOT_WRITE]


def test_nobody_waits_for_what_an_earlier_boot_waited_for(
    root: Path, units: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timer is gone, and its clock began anew: what could not be put back at boot would wait for days."""
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        guard.wait(1e6)
        armed = guard.armed()
        assert armed is not None
        assert not armed.is_due
        boot = root / "boot_id"
        boot.write_text("another\n")
        monkeypatch.setattr(guard_module, "_BOOT_ID", boot)
        assert guard.armed() == Armed(deadline=None)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"\xfe{}", b"[]", b"3", b'{"deadline": []}', b"\0" * 9, DEEP.encode()], ids=range(8)
)
def test_a_damaged_mark_is_one_still(root: Path, units: list[list[str]], content: bytes) -> None:
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        (root / "var/lib/wgnet/apply/armed").write_bytes(content)
        assert guard.armed() == Armed(deadline=None)


def test_where_etc_is_read_only_there_is_nothing_to_tidy_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever applies what is so already, on an image that cannot be written, is told no error."""

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    Guard(root).tidy()


def test_arming_that_fails_leaves_nothing_armed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, arguments: list[str], **_: object) -> str:
        raise ProgramError(f"'{name}' failed")

    monkeypatch.setattr(guard_module, "run_program", refuse)
    guard = Guard(root)
    with guard.locked(), pytest.raises(ProgramError):
        guard.arm(snapshot(), limit=300)
    assert guard.armed() is None
    assert not list(root.glob("etc/systemd/system/**/wgnet-*"))


def _hold(root: Path, held: object, go_on: object) -> None:
    with Guard(root).locked() as alone:
        assert alone
        held.set()  # type: ignore[attr-defined]
        go_on.wait(10)  # type: ignore[attr-defined]


def test_there_is_one_at_a_time(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, go_on = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(root, held, go_on))
    other.start()
    assert held.wait(10)
    with Guard(root).locked() as alone:
        assert not alone
    go_on.set()
    other.join()
    assert other.exitcode == 0
    with Guard(root).locked() as alone:
        assert alone


# --- confirm ---------------------------------------------------------------------------------------------------------


def context_of(root: Path) -> Context:
    arguments = ["confirm", "--root", str(root)]
    return Context.of(build_parser(arguments).parse_args(arguments))


def test_confirming_keeps_what_waits(
    root: Path, units: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={root}/no-bus")
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        guard.wait(60)
    context = context_of(root)
    assert confirm.settle(context) == 0
    assert guard.armed() is None
    assert capsys.readouterr().out == "confirmed\n"
    again = context_of(root)
    assert confirm.settle(again) == 6
    [told] = again.diagnostics.items
    assert told.code is codes.NOTHING_TO_SETTLE


@pytest.mark.parametrize(("waited", "reason"), [(False, "was broken off"), (True, "the time is over")])
def test_what_is_being_rolled_back_cannot_be_confirmed(
    root: Path, units: list[list[str]], waited: bool, reason: str
) -> None:
    guard = Guard(root)
    with guard.locked():
        guard.arm(snapshot(), limit=300)
        if waited:
            guard.wait(0.0)
    context = context_of(root)
    assert confirm.settle(context) == 6
    assert guard.armed() is not None
    [told] = context.diagnostics.items
    assert told.code is codes.NOTHING_TO_SETTLE
    assert reason in told.message
