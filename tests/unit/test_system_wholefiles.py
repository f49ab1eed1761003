"""What wgnet writes for itself and for managers has its mode from the first byte on, whatever the umask is."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgnet.syntax.spec import Manager
from wgnet.system import guard as guard_module
from wgnet.system.guard import Guard
from wgnet.system.networkd import Networkd, live_drop_in
from wgnet.system.profiles import write_record_file
from wgnet.system.snapshot import Owned, Snapshot
from wgnet.system.wholefiles import make_folders, put_file


@pytest.fixture(params=[0, 0o022, 0o077], ids=["umask 0", "umask 022", "umask 077"], autouse=True)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    try:
        yield
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode)
        for path in sorted(root.rglob("*"))
        if not path.is_symlink()
    }


def test_networkd_can_read_what_it_is_told(tmp_path: Path) -> None:
    """It is not root: a drop-in that it cannot read leaves the device in its hands, and every session is reset."""
    (tmp_path / "run").mkdir(mode=0o755)
    (tmp_path / "run").chmod(0o755)
    Networkd(None, tmp_path).let_go("wg0")  # type: ignore[arg-type]
    file = live_drop_in("wg0")
    assert modes(tmp_path) == {
        "run": 0o755,
        "run/systemd": 0o755,
        "run/systemd/network": 0o755,
        str(Path(file).parent): 0o755,
        file: 0o644,
    }


def test_nobody_else_writes_what_root_believes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "run_program", lambda *_, **__: "")
    for folder in ("etc/systemd/system", "var/lib"):
        make_folders(tmp_path / folder)
    owned = (Owned(interface="wg0", network="corp", manager=Manager.NETWORKMANAGER, uuid="u"),)
    guard = Guard(tmp_path)
    with guard.locked():
        guard.arm(
            Snapshot(
                artifacts=(),
                dump="",
                mtus={},
                owned=owned,
                made={},
                configured={},
                replaced={},
                parameters={},
            ),
            limit=1,
        )
        write_record_file(tmp_path / "var/lib/wgnet/profiles.json", owned)
    found = modes(tmp_path)
    assert found["etc/systemd/system/wgnet-rollback.service"] == 0o644
    assert found["etc/systemd/system/sysinit.target.wants"] == 0o755
    assert found["var/lib/wgnet"] == 0o755
    assert found["var/lib/wgnet/profiles.json"] == 0o644
    assert found["var/lib/wgnet/apply"] == 0o700
    assert {mode for path, mode in found.items() if path.startswith("var/lib/wgnet/apply/")} == {0o600}


def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    for name in ("file", ".file.new"):
        (tmp_path / name).symlink_to(other)
    put_file(tmp_path / "file", b"ours", 0o640)
    assert other.read_text() == "theirs"
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert modes(tmp_path)["file"] == 0o640
    assert not (tmp_path / ".file.new").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_cannot_be_written_leaves_what_was_there_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    place = tmp_path / "place"
    put_file(place, b"before", 0o600)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        put_file(place, b"after", 0o600)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"place": b"before"}
