"""Single files, folders below a root, and the names of what is kept."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgnet.system.files import (
    InTheWayError,
    Owners,
    Root,
    backup_name,
    check_relative,
    create_file,
    exchange,
    read_standing,
    remove_tree,
    same_file,
)
from wgnet.system.lock import BusyError, lock_folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def root(tmp_path: Path, folder: int) -> Iterator[Root]:
    opened = Root(folder, str(tmp_path))
    yield opened
    opened.close()


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/", "./a", "a/../b", "..", "a\0b"])
def test_a_path_that_leaves_its_start_is_a_bug(path: str) -> None:
    with pytest.raises(ValueError, match="normalised"):
        check_relative(path)


def test_a_file_is_new_and_has_its_mode(folder: int, tmp_path: Path) -> None:
    create_file(folder, "a", b"x" * 100000, 0o640, None, sync=True)
    assert (tmp_path / "a").read_bytes() == b"x" * 100000
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    with pytest.raises(FileExistsError):
        create_file(folder, "a", b"", 0o600, None)
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        create_file(folder, "link", b"", 0o600, None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_short_write_is_continued_and_a_failed_one_leaves_nothing(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    create_file(folder, "a", bytes(range(100)), 0o600, None)
    assert (tmp_path / "a").read_bytes() == bytes(range(100))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="full"):
        create_file(folder, "b", b"x", 0o600, None)
    assert not (tmp_path / "b").exists()


def test_what_stands_at_a_name(folder: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    file = read_standing(folder, "file")
    assert file is not None
    assert (file.kind, file.content, file.size) == ("file", b"abc", 3)
    large = read_standing(folder, "file", 2)
    assert large is not None
    assert large.content is None
    link = read_standing(folder, "link")
    assert link is not None
    assert (link.kind, link.target, link.content) == ("link", "file", None)
    assert read_standing(folder, "none") is None
    # The pipe has no writer: opening it as a file would wait for ever.
    found = {name: read_standing(folder, name) for name in ("dir", "pipe")}
    assert {name: s and (s.kind, s.found) for name, s in found.items()} == {
        "dir": ("other", "a directory"),
        "pipe": ("other", "a named pipe"),
    }


def test_a_kept_version_has_a_free_name(folder: int, tmp_path: Path) -> None:
    assert backup_name(folder, "wg0.netdev") == "wg0.netdev.~1~"
    (tmp_path / "wg0.netdev.~1~").symlink_to("dangling")
    assert backup_name(folder, "wg0.netdev") == "wg0.netdev.~2~"


def test_systemd_does_not_read_the_names_that_writing_makes(tmp_path: Path) -> None:
    """The real systemd-analyze lists what a manager of its family would read."""
    place = tmp_path / "etc/systemd/network"
    place.mkdir(parents=True)
    names = ["50-a.network", "50-a.network.~1~", ".wgnet-0123abcd-0.new~", ".wgnet-0123abcd-0.old~"]
    for name in names:
        (place / name).write_text(f"# marker {name}\n[Match]\nName=x\n")
    result = subprocess.run(
        ["systemd-analyze", f"--root={tmp_path}", "cat-config", "systemd/network"],
        capture_output=True,
        text=True,
        check=False,
    )
    listed = subprocess.run(
        ["systemd-analyze", f"--root={tmp_path}", "cat-config", "systemd/network/50-a.network"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "# marker 50-a.network\n" in listed.stdout
    assert "wgnet-0123" not in result.stdout + listed.stdout
    assert "~1~" not in result.stdout + listed.stdout


def test_links_are_followed_below_the_root_only(root: Root, tmp_path: Path) -> None:
    (tmp_path / "run/net").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "up").symlink_to("../../../../run/net")
    (tmp_path / "chain").symlink_to("up/../net")
    (tmp_path / "last").symlink_to("/etc/passwd")
    assert root.resolve("var/run/net/x") == "run/net/x"
    assert root.resolve("up/x") == "run/net/x"
    assert root.resolve("chain/x") == "run/net/x"
    assert root.resolve("last") == "last"
    assert root.resolve("new/below/x") == "new/below/x"
    assert root.resolve("var/run/new/x") == "run/new/x"


def test_a_loop_and_a_file_for_a_folder_are_refused(root: Root, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        root.resolve("a/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InTheWayError, match="expected a directory, found a file"):
        root.resolve("file/x")


def test_a_folder_is_never_opened_through_a_link(root: Root, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    root.folder("real")
    with pytest.raises(NotADirectoryError):
        root.folder("link")


def test_many_folders_do_not_exhaust_descriptors(root: Root, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(500):
        (tmp_path / f"d{number}/e").mkdir(parents=True)
        assert os.listdir(root.folder(f"d{number}/e")) == []
    assert len(os.listdir("/proc/self/fd")) - before <= 201
    root.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_tree_is_removed_without_following(folder: int, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/stays").write_text("")
    (tmp_path / "t/a/b").mkdir(parents=True)
    (tmp_path / "t/a/f").write_text("")
    (tmp_path / "t/link").symlink_to("../outside")
    remove_tree(folder, "t")
    remove_tree(folder, "t")
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(tmp_path / "outside") == ["stays"]


def test_two_names_are_exchanged(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    exchange(folder, "a", "b")
    assert (tmp_path / "a").read_text() == "b"
    assert (tmp_path / "b").is_dir()
    with pytest.raises(OSError, match="No such file"):
        exchange(folder, "a", "none")


def test_one_file_under_two_names(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_text("")
    assert same_file(folder, "a", folder, "b")
    assert not same_file(folder, "a", folder, "c")
    assert not same_file(folder, "a", folder, "none")


def test_owners_are_those_of_the_image(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("broken\nsystemd-network:x:4711:\n")
    owners = Owners(root)
    assert owners.numbers("root", "systemd-network") == (0, 4711)
    assert owners.numbers("root", "root") == (0, 0)
    # Half an owner would be wider than what was asked for.
    assert owners.numbers("nobody-here", "systemd-network") == (0, 0)
    assert list(owners.missing) == ["nobody-here"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Owners(root).numbers("root", "nothing") is None


def test_a_lock_is_of_the_folder_that_stands_there(folder: int, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    held = lock_folder(folder, "a", wait=0)
    start = time.monotonic()
    with pytest.raises(BusyError):
        lock_folder(folder, "a", wait=0.1)
    assert 0.1 <= time.monotonic() - start < 2
    exchange(folder, "a", "b")
    other = lock_folder(folder, "a", wait=0)
    assert os.path.samestat(os.fstat(other), os.stat(tmp_path / "a"))
    os.close(held)
    os.close(lock_folder(folder, "b", wait=0))
    os.close(other)
    with pytest.raises(FileNotFoundError):
        lock_folder(folder, "none", wait=0)


def test_a_folder_that_is_exchanged_while_it_is_locked_is_locked_again(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    real = fcntl.flock
    asked: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not asked:
            exchange(folder, "a", "b")
        asked.append(operation)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    held = lock_folder(folder, "a", wait=0)
    assert len(asked) == 2
    assert os.path.samestat(os.fstat(held), os.stat(tmp_path / "a"))
    os.close(held)
