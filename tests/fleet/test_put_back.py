"""The script that puts a host's part back where nobody confirmed it: what it does after each end of a run."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from helpers import REPOSITORY

MODULE = REPOSITORY / "packaging/ansible/ansible_collections/wgnet/fleet/plugins/modules/host.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fleet_host", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOST = load()


class Machine:
    """The folders of a host below another root: a run has changed one file, made another, and removed a third."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("etc/wgnet", "var/lib/wgnet/fleet/files", "var/lib/wgnet/apply", "etc/systemd/system"):
            (root / folder).mkdir(parents=True)
        self.state = root / "var/lib/wgnet/fleet"
        self.armed, self.snapshot = (root / f"var/lib/wgnet/apply/{name}" for name in ("armed", "snapshot.json"))
        self.changed, self.made, self.removed = (root / f"etc/wgnet/{name}" for name in ("a.key", "b.yaml", "c d.psk"))
        self.unit = root / HOST.BOOT_UNIT.lstrip("/")
        self.unit.touch()
        self.snapshot.write_text("before an earlier change")
        saved = self.state / "files/0"
        saved.write_text("old key")
        saved.chmod(0o640)
        (self.state / "files/2").write_text("old psk")
        self.changed.write_text("new key")
        self.made.write_text("new topology")
        (self.state / "index").write_text(f"0 {self.changed}\n1 {self.made}\n2 {self.removed}\n")
        (self.state / "pending").write_text(hashlib.sha256(self.snapshot.read_bytes()).hexdigest())

    def script(self) -> str:
        text: str = HOST.PUT_BACK
        for path in (HOST.STATE, "/var/lib/wgnet/apply", HOST.BOOT_UNIT, HOST.BOOT_LINK):
            text = text.replace(path, f"{self.root}{path}")
        return text

    def put_back(self, *arguments: str) -> None:
        subprocess.run(["sh", "-c", self.script(), "put-back", *arguments], check=True, timeout=60)

    @property
    def is_as_before(self) -> bool:
        return (
            self.changed.read_text() == "old key"
            and self.changed.stat().st_mode & 0o777 == 0o640
            and not self.made.exists()
            and self.removed.read_text() == "old psk"
            # Nothing is left that could do it again, or has a key in it.
            and not {"files", "index", "pending"} & {path.name for path in self.state.iterdir()}
            and not self.unit.exists()
        )

    @property
    def is_as_changed(self) -> bool:
        return (
            self.changed.read_text() == "new key"
            and self.made.read_text() == "new topology"
            and not self.removed.exists()
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("boot",)])
def test_wgnet_has_gone_back(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.snapshot.unlink()  # it forgets what it has gone back to
    machine.put_back(*arguments)
    assert machine.is_as_before


def test_wgnet_was_never_asked(machine: Machine) -> None:
    """The run was killed before it began to apply: the state before the last change is an earlier one's."""
    machine.put_back()
    assert machine.is_as_before


@pytest.mark.parametrize("arguments", [(), ("boot",)])
def test_somebody_confirmed_by_hand(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.snapshot.write_text("before this change")
    machine.put_back(*arguments)
    assert machine.is_as_changed
    assert not (machine.state / "pending").exists()
    assert not machine.unit.exists()
    # What was there stays in reserve.
    machine.put_back("now")
    assert machine.is_as_before


def test_a_change_that_was_settled_stays(machine: Machine) -> None:
    (machine.state / "pending").unlink()
    machine.put_back()
    assert machine.is_as_changed


def test_it_waits_for_wgnet_to_be_done(machine: Machine) -> None:
    """At the end of the time both begin at once: while wgnet goes back there is nothing to be said yet."""
    machine.snapshot.write_text("before this change")
    machine.armed.touch()
    done = subprocess.Popen(["sh", "-c", f"sleep 2; rm {machine.snapshot} {machine.armed}"])
    machine.put_back()
    assert done.wait() == 0
    assert machine.is_as_before


def test_at_boot_it_waits_for_nobody(machine: Machine) -> None:
    """wgnet has had its turn before: what is armed still could not be put back, and belongs to the files of before."""
    machine.armed.touch()
    machine.put_back("boot")
    assert machine.is_as_before


def test_two_at_once_are_one(machine: Machine) -> None:
    """The second must not take a file for one that the run has made, because the first has put it back already."""
    more = [machine.root / f"etc/wgnet/{number}.psk" for number in range(100)]
    with (machine.state / "index").open("a") as index:
        for number, path in enumerate(more, 3):
            (machine.state / f"files/{number}").write_text("old psk")
            index.write(f"{number} {path}\n")
    machine.snapshot.unlink()
    text = machine.script()
    both = [subprocess.Popen(["sh", "-c", f"sleep {pause}\n{text}"]) for pause in (0, 0.05)]
    assert [each.wait(60) for each in both] == [0, 0]
    assert machine.is_as_before
    assert [path for path in more if not path.exists()] == []


def test_twice_is_once(machine: Machine) -> None:
    machine.put_back("now")
    machine.changed.write_text("newer key")
    machine.put_back("now")
    assert machine.changed.read_text() == "newer key"
