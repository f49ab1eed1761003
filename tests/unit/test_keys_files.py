"""How files that hold a secret come to be: whole or not at all, and never wider than they are to be."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import wgnet
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PrivateKey
from wgnet.system import secretfiles
from wgnet.system.keystore import KeyStore
from wgnet.system.secretfiles import Rules, Trouble

LAX = Rules(forbidden=0, own=False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def killed_at(folder: Path, call: str, which: int = 1) -> None:
    """Create a key in a process that is killed as it enters the given system call for the n-th time."""
    script = f"""
import os, signal
from pathlib import Path
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.system.keystore import KeyStore
real, calls = os.{call}, []
def kill(*words, **more):
    calls.append(1)
    if len(calls) == {which}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*words, **more)
os.{call} = kill
os.umask(0)
KeyStore(Path({str(folder)!r})).create_private_key("office", "fra", Diagnostics())
"""
    env = {**os.environ, "PYTHONPATH": str(Path(wgnet.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", script], check=False, env=env)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("call", ["fchmod", "write", "link", "unlink"])
def test_a_killed_run_leaves_a_whole_key_or_none(tmp_path: Path, call: str) -> None:
    store, key = tmp_path / "keys", tmp_path / "keys/office/fra.key"
    # The first two calls are those of the folders.
    killed_at(store, call, which=3 if call == "fchmod" else 1)
    assert key.exists() == (call == "unlink")
    left = [path for path in (tmp_path / "keys/office").iterdir() if path != key]
    assert len(left) == 1
    for path in (store, store / "office"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(left[0].stat().st_mode) == 0o600

    diagnostics = Diagnostics()
    again = KeyStore(store)
    assert again.hosts("office", diagnostics) == (("fra",) if key.exists() else ())
    found = again.private_key("office", "fra", diagnostics)
    assert (found is not None) == key.exists()
    if found is None:
        assert again.create_private_key("office", "fra", diagnostics) is not None
    assert len(diagnostics) == 0

    # What is young may be another run's; what is old is swept by the next run that creates a key.
    assert left[0].exists()
    os.utime(left[0], (time.time() - 3600,) * 2)
    assert KeyStore(store).create_private_key("office", "nyc", diagnostics) is not None
    assert sorted(path.name for path in (store / "office").iterdir()) == ["fra.key", "nyc.key"]


def test_the_mode_is_right_before_the_first_byte(folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a file that is written in pieces, and whatever the umask is."""
    seen = []
    real = os.write

    def watch(file: int, data: bytes) -> int:
        seen.append((stat.S_IMODE(os.fstat(file).st_mode), os.fstat(file).st_size, (tmp_path / "x").exists()))
        return real(file, data[:7])

    monkeypatch.setattr(os, "write", watch)
    before = os.umask(0)
    try:
        assert secretfiles.create_secret(folder, "x", "x", b"0123456789abcdef") is None
    finally:
        os.umask(before)
    assert seen == [(0o600, 0, False), (0o600, 7, False), (0o600, 14, False)]
    assert (tmp_path / "x").read_bytes() == b"0123456789abcdef"


def test_content_and_folder_are_on_the_disk_before_it_returns(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    real_sync, real_link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append(file == folder), real_sync(file))[1])
    monkeypatch.setattr(os, "link", lambda *a, **k: (steps.append("link"), real_link(*a, **k))[1])
    assert secretfiles.create_secret(folder, "x", "x", b"content") is None
    assert steps == [False, "link", True]


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("write", errno.ENOSPC),
        ("fsync", errno.EIO),
        ("link", errno.EPERM),
        ("fchmod", errno.EPERM),
        ("fchown", errno.EPERM),
    ],
)
def test_an_error_on_the_way_leaves_nothing(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    secret = PrivateKey.generate().reveal()

    def fail(*words: object, **more: object) -> None:
        raise OSError(number, f"text with {secret}")

    monkeypatch.setattr(os, call, fail)
    trouble = secretfiles.create_secret(folder, "x", "/shown/x", secret.encode(), uid=os.getuid())
    assert isinstance(trouble, Trouble)
    assert trouble.message == f"cannot create '/shown/x': {os.strerror(number)[0].lower()}{os.strerror(number)[1:]}"
    assert secret not in repr(trouble)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder"])
def test_what_is_there_stays(folder: int, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        (tmp_path / "x").write_text("old")
    elif kind == "folder":
        (tmp_path / "x").mkdir()
    else:
        (tmp_path / "x").symlink_to(target)
        if kind == "link":
            target.write_text("old")
    before = sorted(path.name for path in tmp_path.iterdir())
    trouble = secretfiles.create_secret(folder, "x", "x", b"new")
    assert trouble == Trouble("'x' is there already, and no key is ever overwritten")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "x").is_dir() == (kind == "folder")
    if kind in {"file", "link"}:
        assert (tmp_path / "x").read_text() == "old"


def test_of_many_at_once_one_wins(folder: int, tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    results: dict[int, Trouble | None] = {}

    def create(number: int) -> None:
        barrier.wait()
        results[number] = secretfiles.create_secret(folder, "x", "x", b"%d" % number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, trouble in results.items() if trouble is None]
    assert len(results) == 8
    assert len(winners) == 1
    assert (tmp_path / "x").read_bytes() == b"%d" % winners[0]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    diagnostics = Diagnostics()
    store = KeyStore(tmp_path / "keys")
    store.create_private_key("office", "fra", diagnostics)
    before = len(os.listdir("/proc/self/fd"))
    store.create_private_key("office", "fra", diagnostics)
    store.create_next_private_key("office", "nyc", diagnostics)
    store.private_key("office", "fra", diagnostics)
    store.private_key("office", "none", diagnostics)
    store.private_key("none", "fra", diagnostics)
    store.is_encrypted(diagnostics)
    (tmp_path / "keys").chmod(0o777)
    store.private_key("office", "fra", diagnostics)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_was_exchanged_for_a_link_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    real = os.mkdir

    def mkdir(path: Path, mode: int) -> None:
        real(path, mode)
        path.rmdir()
        path.symlink_to(victim)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with secretfiles.top_folder(tmp_path / "keys", LAX, make=0o700) as opened:
        assert isinstance(opened, Trouble)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755
