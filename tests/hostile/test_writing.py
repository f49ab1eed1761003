"""Writing under attack: killed, failing, crowded and forbidden; the old state or the new one, and nothing lost."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp  # noqa: F401 - here, so that no traced or unprivileged child has to import it
import os
import pwd  # noqa: F401
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hostile.tracing import in_child, start_child, trace
from realparsers import require_root

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.system import tree as tree_module
from wgnet.system.install import recover, write_system
from wgnet.system.tree import MANIFEST, write_tree

Hosts = dict[str, list[Artifact]]
Snapshot = dict[str, tuple[object, ...]]

NETDEV = "/etc/systemd/network/50-wgnet-wg0.netdev"
NETWORK = "/etc/systemd/network/50-wgnet-wg0.network"
UNIT = "/etc/systemd/system/wgnet-refresh.timer"
WANTED = "/etc/systemd/system/timers.target.wants/wgnet-refresh.timer"
SYSCTL = "/etc/sysctl.d/50-wgnet-wg0.conf"


def netdev(text: str, path: str = NETDEV) -> Artifact:
    return Artifact(path=path, network="office", content=f"[NetDev]\n{text}\n".encode(), mode=0o640, secret=True)


def network(text: str, path: str = NETWORK) -> Artifact:
    return Artifact(path=path, network="office", content=f"[Network]\n{text}\n".encode())


def enabled() -> list[Artifact]:
    unit = Artifact(path=UNIT, network="office", content=b"[Timer]\n")
    return [unit, Artifact(path=WANTED, network="office", target="../wgnet-refresh.timer")]


OLD: Hosts = {"ams": [netdev("a1"), *enabled()], "fra": [netdev("f1"), network("same")]}
NEW: Hosts = {"fra": [netdev("f2"), network("same"), *enabled()], "lon": [netdev("l1")]}

OLD_SYSTEM = [netdev("1"), network("same"), Artifact(path=SYSCTL, network="office", content=b"a=1\n")]
NEW_SYSTEM = [
    netdev("2"),
    network("same"),
    *enabled(),
    Artifact(path="/etc/NetworkManager/system-connections/wg1.nmconnection", network="office", mode=0o600),
]


def snapshot(root: Path, *, hidden: bool = True) -> Snapshot:
    """Return what is below a folder: kind, mode, owner and content by path; `hidden` names of ours may be left out."""
    found: Snapshot = {}
    if not root.exists():
        return found
    for path in [root, *sorted(root.rglob("*"))]:
        name = str(path.relative_to(root))
        if not hidden and any(part.startswith(".wgnet-") and part != MANIFEST for part in Path(name).parts):
            continue
        status = path.lstat()
        what: object = "folder"
        if stat.S_ISLNK(status.st_mode):
            what = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            what = path.read_bytes()
        mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
        found[name] = (stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid, what)
    return found


def render(directory: Path, hosts: Hosts, *, force: bool = False) -> int:
    """Write a tree; 0 when it was written, else the number of its first code."""
    diagnostics = Diagnostics()
    report = write_tree(directory, hosts.items(), only=None, force=force, diagnostics=diagnostics, progress=None)
    return status_of(report, diagnostics)


def status_of(report: object, diagnostics: Diagnostics) -> int:
    if report is not None:
        assert not diagnostics.has_errors
        return 0
    (first, *_) = diagnostics.sorted()
    return int(first.code.name.removeprefix("WG")) - 6000


def install(root: Path, artifacts: list[Artifact], *, force: bool = False) -> int:
    """Write a system; 0 when it was written, else the number of its first code."""
    diagnostics = Diagnostics()
    report = write_system(root, artifacts, networks=None, runtime=False, force=force, diagnostics=diagnostics)
    return status_of(report, diagnostics)


def settle_tree(directory: Path) -> None:
    """Let the next run find what is left, and write nothing itself."""
    diagnostics = Diagnostics()

    def failing() -> Iterator[tuple[str, Iterable[Artifact]]]:
        diagnostics.report(codes.TEMPLATE, "no host today")
        yield from ()

    assert write_tree(directory, failing(), only=None, force=False, diagnostics=diagnostics, progress=None) is None
    assert [d.code for d in diagnostics] == [codes.TEMPLATE]


def settle_system(root: Path) -> None:
    diagnostics = Diagnostics()
    assert recover(root, runtime=False, diagnostics=diagnostics), list(diagnostics)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: thousands of runs, each of which syncs."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    place = Path(tempfile.mkdtemp(dir=memory))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def restored(tmp_path: Path) -> Callable[[], None]:
    """Make the folder `work` again as it is at the first call."""
    work, copy = tmp_path / "work", tmp_path / "copy"

    def restore() -> None:
        if not copy.exists():
            shutil.copytree(work, copy, symlinks=True)
        shutil.rmtree(work)
        shutil.copytree(copy, work, symlinks=True)
        # Deterministic times, so that no run differs from another.
        for path in work.rglob("*"):
            os.utime(path, (1, 1), follow_symlinks=False)

    return restore


def with_foreign(out: Path) -> None:
    """Put a person's own files beside ours."""
    (out / "fra" / "notes").write_text("mine")
    (out / "own").mkdir(mode=0o750)
    (out / "own" / "deep").mkdir()
    (out / "own" / "deep" / "key").write_text("k")
    (out / "ams" / "etc" / "hosts").write_text("h")
    (out / "link").symlink_to("/nowhere")


def state_after(restore: Callable[[], None], out: Path, run: Callable[[], int]) -> Snapshot:
    restore()
    assert run() == 0
    return snapshot(out)


@pytest.mark.parametrize("case", ["first", "changed", "forced"])
def test_a_render_killed_at_any_system_call_leaves_the_old_folder_or_the_new_one(
    case: str, tmp_path: Path, restored: Callable[[], None]
) -> None:
    out = tmp_path / "work" / "out"
    out.parent.mkdir()
    if case != "first":
        assert render(out, OLD) == 0
        with_foreign(out)
    if case == "forced":
        (out / f"fra{NETDEV}").write_text("edited")
        (out / f"ams{UNIT}").write_text("edited")

    def run() -> int:
        return render(out, NEW, force=case == "forced")

    restored()
    old = snapshot(out)
    new = state_after(restored, out, run)
    assert old != new
    seen = set()
    for number in range(1, 5000):
        restored()
        ending = trace(run, number)
        now = snapshot(out)
        assert now in (old, new), (number, ending, set(now.items()) ^ set(new.items()))
        seen.add(now == new)
        assert set(os.listdir(out.parent)) - {"out"} <= {".out.wgnet-staging"}
        if ending.status is not None:
            assert ending.status == 0
            break
        settle_tree(out)
        assert snapshot(out) == now
        assert set(os.listdir(out.parent)) <= {"out"}
        assert run() == 0
        if case != "forced" or now == old:
            assert snapshot(out) == new
    else:
        pytest.fail("the run never came to its end")
    assert seen == {False, True}
    assert number > 20


@pytest.mark.parametrize("forced", [False, True])
def test_a_render_without_an_exchange_is_finished_or_undone_by_the_next(
    forced: bool, tmp_path: Path, restored: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_module._Place, "_may_exchange", lambda self, old: False)
    out = tmp_path / "work" / "out"
    out.parent.mkdir()
    assert render(out, OLD) == 0
    with_foreign(out)
    if forced:
        (out / f"fra{NETDEV}").write_text("edited")
    check_journaled(
        out, lambda: render(out, NEW, force=forced), lambda: settle_tree(out), out / ".wgnet-journal", restored
    )


@pytest.mark.parametrize("case", ["first", "changed", "forced"])
def test_a_system_killed_at_any_system_call_is_old_before_the_commit_and_new_after(
    case: str, tmp_path: Path, restored: Callable[[], None]
) -> None:
    root = tmp_path / "work" / "root"
    (root / "etc" / "systemd" / "network").mkdir(parents=True)
    (root / "etc" / "systemd" / "network" / "10-own.network").write_text("own")
    # There, so that a first run killed before its commit leaves nothing new at all.
    (root / "var/lib/wgnet").mkdir(parents=True)
    if case != "first":
        assert install(root, OLD_SYSTEM) == 0
    if case == "forced":
        (root / NETDEV[1:]).write_text("edited")
        (root / SYSCTL[1:]).write_text("edited")
    check_journaled(
        root,
        lambda: install(root, NEW_SYSTEM, force=case == "forced"),
        lambda: settle_system(root),
        root / "var/lib/wgnet/journal",
        restored,
    )


def check_journaled(
    out: Path, run: Callable[[], int], settle: Callable[[], None], journal: Path, restore: Callable[[], None]
) -> None:
    """Kill a run at each call: any file is old or new then, and all are one of the two after the next run."""
    restore()
    old = snapshot(out)
    new = state_after(restore, out, run)
    assert old != new
    seen = set()
    for number in range(1, 5000):
        restore()
        ending = trace(run, number)
        committed = journal.with_name(journal.name + ".committed").exists()
        now = snapshot(out, hidden=False)
        for path, what in now.items():
            if path.startswith("var/lib/wgnet/") and path != "var/lib/wgnet/manifest.json":
                continue
            if what[0] == stat.S_IFREG:
                assert what in (old.get(path), new.get(path)), (number, ending, path)
        if ending.status is not None:
            assert ending.status == 0
            assert snapshot(out) == new
            break
        settle()
        settled = snapshot(out)
        if committed:
            assert settled == new, (number, ending, set(settled.items()) ^ set(new.items()))
        else:
            assert settled in (old, new), (number, ending, set(settled.items()) ^ set(old.items()))
        seen.add((committed, settled == new))
        if settled == old:
            assert run() == 0
            assert snapshot(out) == new
    else:
        pytest.fail("the run never came to its end")
    assert {(False, False), (True, True)} <= seen


@pytest.mark.parametrize("direction", ["forward", "back"])
def test_a_recovery_that_is_killed_itself_is_finished_by_the_next(
    direction: str, tmp_path: Path, restored: Callable[[], None]
) -> None:
    root = tmp_path / "work" / "root"
    root.mkdir(parents=True)
    assert install(root, OLD_SYSTEM) == 0
    old = snapshot(root)
    real = os.rename
    renamed: list[str] = []

    def stop(source: str, target: str, **options: int) -> None:
        """Let the first files through; then either die, or fail until the way back fails too."""
        if "journal" not in target:
            if len(renamed) == 2:
                if direction == "forward":
                    os._exit(3)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            renamed.append(target)
        real(source, target, **options)

    def run() -> int:
        os.rename = stop  # type: ignore[assignment]
        return install(root, NEW_SYSTEM)

    def settle() -> int:
        settle_system(root)
        return 0

    def break_off() -> None:
        """Leave a journal; anew each time, since it knows the inodes of what it found."""
        restored()
        assert in_child(run) == (3 if direction == "forward" else 1)
        assert snapshot(root) != old

    expected = old if direction == "back" else state_after(restored, root, lambda: install(root, NEW_SYSTEM))
    for number in range(1, 1000):
        break_off()
        ending = trace(settle, number)
        settle()
        assert snapshot(root) == expected, (number, ending)
        if ending.status is not None:
            break
    assert number > 10


ERRORS = [errno.EIO, errno.ENOSPC]


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("journaled", [False, True])
def test_a_render_whose_system_call_fails_changes_nothing(
    number: int, journaled: bool, tmp_path: Path, restored: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if journaled:
        monkeypatch.setattr(tree_module._Place, "_may_exchange", lambda self, old: False)
    out = tmp_path / "work" / "out"
    out.parent.mkdir()
    assert render(out, OLD) == 0
    with_foreign(out)
    check_failing(out, lambda: render(out, NEW), lambda: settle_tree(out), number, restored)


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_system_whose_system_call_fails_is_put_back(
    number: int, tmp_path: Path, restored: Callable[[], None]
) -> None:
    root = tmp_path / "work" / "root"
    root.mkdir(parents=True)
    assert install(root, OLD_SYSTEM) == 0
    check_failing(root, lambda: install(root, NEW_SYSTEM), lambda: settle_system(root), number, restored)


def check_failing(
    out: Path, run: Callable[[], int], settle: Callable[[], None], error: int, restore: Callable[[], None]
) -> None:
    """Fail each call in turn: the run either says so and all is old, or has its way and all is new."""
    restore()
    old = snapshot(out)
    new = state_after(restore, out, run)
    failed = set()
    for number in range(1, 5000):
        restore()
        ending = trace(run, number, fail=error)
        if not ending.call:
            break
        assert ending.status in (0, 1), (number, ending)
        expected = old if ending.status else new
        if snapshot(out) != expected:
            # The failing call was one that cleans up; what it left is not seen by any manager, and goes now.
            assert comparable(snapshot(out, hidden=False), out) == comparable(expected, out), (number, ending)
            settle()
        assert snapshot(out) == expected, (number, ending, set(snapshot(out).items()) ^ set(expected.items()))
        if ending.status:
            failed.add(ending.call)
    else:
        pytest.fail("the run never came to its end")
    assert {"openat", "write", "mkdirat", "linkat"} <= failed
    assert failed & {"renameat", "renameat2"}


def comparable(found: Snapshot, out: Path) -> Snapshot:
    """Return the files alone: a folder that was ours and is empty may still be there."""
    return {
        path: what
        for path, what in found.items()
        if what[0] != stat.S_IFDIR and not path.startswith("var/lib/wgnet/journal")
    }


def test_an_error_after_the_commit_is_put_back_and_said_so(tmp_path: Path) -> None:
    root = tmp_path
    assert install(root, [netdev("1")]) == 0
    before = snapshot(root)
    # A folder at the stage's target is only met by the rename itself.
    diagnostics = Diagnostics()
    wanted = [netdev("2"), Artifact(path="/etc/sysctl.d/x.conf", network="office")]
    real = os.rename

    def rename(source: str, target: str, **options: int) -> None:
        if target == "x.conf":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(source, target, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        assert write_system(root, wanted, networks=None, runtime=False, force=False, diagnostics=diagnostics) is None
    (diagnostic,) = diagnostics
    assert diagnostic.code is codes.CANNOT_WRITE
    assert diagnostic.message == (
        f"cannot write '{root}/etc/sysctl.d/x.conf': read-only file system; everything was put back"
    )
    assert snapshot(root) == before


def on_small_disk(size: str, action: Callable[[Path], int]) -> int:
    """Run an action in a child that has a tmpfs of its own of this size; return its status."""

    def inside() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        uid, gid = os.getuid(), os.getgid()
        new_namespace, new_user = 0x00020000, 0x10000000
        flags = new_namespace if uid == 0 else new_namespace | new_user
        assert libc.unshare(flags) == 0, os.strerror(ctypes.get_errno())
        if uid != 0:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        private, recursive = 1 << 18, 1 << 14
        assert libc.mount(b"none", b"/", None, private | recursive, None) == 0
        place = tempfile.mkdtemp()
        assert libc.mount(b"tmpfs", place.encode(), b"tmpfs", 0, f"size={size}".encode()) == 0
        try:
            return action(Path(place))
        finally:
            libc.umount2(place.encode(), 2)
            os.rmdir(place)

    return in_child(inside)


def test_a_full_disk_loses_nothing() -> None:
    big: Hosts = {f"h{i}": [netdev("x" * 20000)] for i in range(40)}

    def action(place: Path) -> int:
        out = place / "out"
        assert render(out, OLD) == 0
        with_foreign(out)
        before = snapshot(out)
        diagnostics = Diagnostics()
        assert write_tree(out, big.items(), only=None, force=False, diagnostics=diagnostics, progress=None) is None
        (diagnostic,) = diagnostics
        assert diagnostic.code is codes.CANNOT_WRITE
        assert diagnostic.message.endswith("no space left on device; nothing was changed")
        assert snapshot(out) == before
        assert os.listdir(place) == ["out"]
        root = place / "root"
        root.mkdir()
        assert install(root, OLD_SYSTEM) == 0
        before = snapshot(root)
        wanted = [netdev("x" * 20000, f"/etc/systemd/network/{i}.netdev") for i in range(40)]
        assert install(root, wanted) == 1
        assert snapshot(root) == before
        return 0

    assert on_small_disk("400k", action) == 0


def test_a_folder_that_is_mounted_read_only_is_refused_and_left_without_a_trace() -> None:
    """And what needs no change there goes on: the way back of a change that failed writes nothing."""
    wanted = [netdev("new"), netdev("more", "/etc/systemd/network/60-new.netdev")]

    def action(place: Path) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        root = place / "root"
        root.mkdir()
        assert install(root, OLD_SYSTEM) == 0
        before = snapshot(root)
        closed = f"{root}/etc/systemd/network".encode()
        bind, remount, read_only = 4096, 32, 1
        assert libc.mount(closed, closed, None, bind, None) == 0
        assert libc.mount(None, closed, None, bind | remount | read_only, None) == 0
        try:
            assert install(root, wanted) == 1
            assert snapshot(root) == before
            assert install(root, OLD_SYSTEM, force=True) == 0
        finally:
            libc.umount2(closed, 2)
        assert snapshot(root) == before
        return install(root, wanted)

    assert on_small_disk("4m", action) == 0


def unprivileged(action: Callable[[Path], int], prepare: Callable[[Path], None] = lambda _: None) -> int:
    """Run an action in a child as a user without rights, in a folder that it owns; return its status."""
    place = Path(tempfile.mkdtemp())
    try:
        if os.geteuid() == 0:
            place.chmod(0o755)
            (place / "mine").mkdir()
            os.chown(place / "mine", 65534, 65534)
        else:
            (place / "mine").mkdir()
        prepare(place)

        def inside() -> int:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.chdir("/")
            return action(place / "mine")

        return in_child(inside)
    finally:
        for path in place.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(place)


def test_a_folder_without_permission_is_an_error_that_names_it() -> None:
    def action(place: Path) -> int:
        out = place / "out"
        assert render(out, OLD) == 0
        locked = out / "fra" / "etc" / "systemd"
        locked.chmod(0)
        diagnostics = Diagnostics()
        assert write_tree(out, NEW.items(), only=None, force=False, diagnostics=diagnostics, progress=None) is None
        locked.chmod(0o755)
        (diagnostic,) = diagnostics
        assert diagnostic.code is codes.CANNOT_WRITE
        assert f"'{out}/fra/etc" in diagnostic.message
        assert "permission denied" in diagnostic.message
        assert os.listdir(place) == ["out"]
        closed = place / "closed"
        closed.mkdir(mode=0o500)
        assert render(closed / "out", OLD) == 1
        assert install(closed, OLD_SYSTEM) == 1
        assert os.listdir(closed) == []
        return 0

    assert unprivileged(action) == 0


def test_a_render_into_a_folder_whose_parent_is_not_ours_goes_through_the_journal() -> None:
    def action(place: Path) -> int:
        out = place / "parent" / "out"
        out.mkdir(parents=True)
        out.parent.chmod(0o555)
        inode = out.stat().st_ino
        assert render(out, OLD) == 0
        with_foreign(out)
        assert render(out, NEW) == 0
        assert out.stat().st_ino == inode
        assert (out / f"fra{NETDEV}").read_bytes() == NEW["fra"][0].content
        assert (out / "own/deep/key").read_text() == "k"
        assert not (out / f"ams{NETDEV}").exists()
        assert (out / "ams/etc/hosts").read_text() == "h"
        assert sorted(os.listdir(out)) == [".gitignore", MANIFEST, "ams", "fra", "link", "lon", "own"]
        assert os.listdir(out / "ams") == ["etc"]
        assert os.listdir(out / "ams/etc") == ["hosts"]
        return 0

    assert unprivileged(action) == 0


def test_files_of_another_user_stay_in_a_folder_of_ours() -> None:
    require_root("needs root, to own a file beside another user's")

    def prepare(place: Path) -> None:
        (place / "mine" / "out").mkdir()
        os.chown(place / "mine" / "out", 65534, 65534)
        (place / "mine" / "out" / "roots").write_text("r")
        (place / "mine" / "out" / "roots").chmod(0o600)

    def action(place: Path) -> int:
        out = place / "out"
        inode = (out / "roots").lstat().st_ino
        assert render(out, OLD) == 0
        assert render(out, NEW) == 0
        assert (out / "roots").lstat().st_ino == inode
        assert (out / f"lon{NETDEV}").exists()
        return 0

    assert unprivileged(action, prepare) == 0


def test_two_renders_at_once_leave_the_one_or_the_other_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    one: Hosts = {f"h{i}": [netdev(f"one{i}"), network("same")] for i in range(30)}
    two: Hosts = {f"h{i}": [netdev(f"two{i}"), network("same")] for i in range(10, 40)}

    def writer(hosts: Hosts) -> int:
        for _ in range(12):
            if status := render(out, hosts):
                return status
        return 0

    children = [start_child(lambda: writer(one)), start_child(lambda: writer(two)), start_child(lambda: writer(one))]
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = snapshot(out)
    for name, hosts in (("a", one), ("b", two)):
        assert render(tmp_path / name, hosts) == 0
    assert found in (snapshot(tmp_path / "a"), snapshot(tmp_path / "b"))
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "out"]


def test_two_systems_at_once_never_mix(tmp_path: Path) -> None:
    def writer(artifacts: list[Artifact]) -> int:
        for _ in range(15):
            if (status := install(tmp_path, artifacts)) not in (0, 4):
                return status
        return 0

    children = [start_child(lambda: writer(OLD_SYSTEM)), start_child(lambda: writer(NEW_SYSTEM))]
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / SYSCTL[1:]).exists() != (tmp_path / UNIT[1:]).exists()
    assert not list(tmp_path.rglob("*~"))
    assert install(tmp_path, OLD_SYSTEM) == 0
    assert not (tmp_path / UNIT[1:]).exists()


def test_a_system_that_another_run_writes_is_locked_at_once(tmp_path: Path) -> None:
    assert install(tmp_path, OLD_SYSTEM) == 0
    before = snapshot(tmp_path)
    holder = os.open(tmp_path / "var/lib/wgnet", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    start = time.monotonic()
    assert install(tmp_path, NEW_SYSTEM) == 4
    assert time.monotonic() - start < 1
    os.close(holder)
    assert snapshot(tmp_path) == before


def test_a_render_waits_for_another_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert render(out, OLD) == 0
    holder = os.open(out, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    monkeypatch.setattr(tree_module, "_WAIT", 0.1)
    assert render(out, NEW) == 4
    monkeypatch.setattr(tree_module, "_WAIT", 30)

    def release_later() -> int:
        time.sleep(0.3)
        fcntl.flock(holder, fcntl.LOCK_UN)
        return 0

    child = start_child(release_later)
    assert render(out, NEW) == 0
    os.waitpid(child, 0)
    os.close(holder)


@pytest.mark.parametrize("umask", [0, 0o777])
def test_no_umask_changes_a_mode(umask: int, tmp_path: Path) -> None:
    assert render(tmp_path / "expected", NEW) == 0
    (tmp_path / "root").mkdir()
    (tmp_path / "root2").mkdir()
    assert install(tmp_path / "root", NEW_SYSTEM) == 0

    def action() -> int:
        os.umask(umask)
        assert render(tmp_path / "out", OLD) == 0
        assert render(tmp_path / "out", NEW) == 0
        assert install(tmp_path / "root2", NEW_SYSTEM) == 0
        assert os.umask(0) == umask
        return 0

    assert in_child(action) == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "expected")
    assert snapshot(tmp_path / "root2") == snapshot(tmp_path / "root")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / f"out/fra{NETDEV}").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "root/etc/NetworkManager/system-connections").stat().st_mode) == 0o700


def test_a_secret_is_never_wider_than_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each write of a content, its file already has the mode that it ends with."""
    modes = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and b"PrivateKey" in bytes(data):
            modes.append((status.st_size, stat.S_IMODE(status.st_mode)))
        return real(descriptor, data)

    os.umask(os.umask(0))
    monkeypatch.setattr(os, "write", write)
    assert render(tmp_path / "out", {"fra": [netdev("PrivateKey=x")]}) == 0
    assert install(tmp_path, [netdev("PrivateKey=x")]) == 0
    assert modes == [(0, 0o640), (0, 0o640)]


def test_an_interrupt_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert render(out, OLD) == 0
    before = snapshot(out)

    def interrupted() -> Iterator[tuple[str, Iterable[Artifact]]]:
        yield "fra", NEW["fra"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(out, interrupted(), only=None, force=False, diagnostics=Diagnostics(), progress=None)
    assert snapshot(out) == before
    assert os.listdir(tmp_path) == ["out"]
