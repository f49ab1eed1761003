"""Files in a system: shared folders, the manifest of each network, links, owners, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest
from realparsers import require_root

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.system.files import Root
from wgnet.system.install import compare_system, read_manifest, recover, write_system
from wgnet.system.outcome import WriteReport
from wgnet.system.transaction import Change, Transaction

NETDEV = "/etc/systemd/network/50-wgnet-wg0.netdev"
UNIT = "/etc/systemd/system/wgnet-refresh.timer"
WANTED = "/etc/systemd/system/timers.target.wants/wgnet-refresh.timer"


def file(text: str, path: str = NETDEV, mode: int = 0o640, network: str = "office", group: str = "root") -> Artifact:
    return Artifact(path=path, network=network, content=text.encode(), mode=mode, group=group)


def link(target: str, path: str = WANTED, network: str = "office") -> Artifact:
    return Artifact(path=path, network=network, target=target)


def write(
    root: Path,
    artifacts: list[Artifact],
    *,
    networks: Collection[str] | None = None,
    runtime: bool = False,
    force: bool = False,
    expect: Iterable[object] = (),
) -> WriteReport | None:
    diagnostics = Diagnostics()
    report = write_system(root, artifacts, networks=networks, runtime=runtime, force=force, diagnostics=diagnostics)
    assert [d.code for d in diagnostics] == list(expect), list(diagnostics)
    assert not [p for p in root.rglob("*") if p.name.startswith((".wgnet", "journal"))]
    return report


def files(root: Path) -> list[str]:
    found = [p for p in root.rglob("*") if p.is_symlink() or not p.is_dir()]
    return sorted("/" + str(p.relative_to(root)) for p in found if p.name != "manifest.json")


def test_files_are_put_in_place(tmp_path: Path) -> None:
    artifacts = [file("n"), file("t", UNIT, 0o644), link("../wgnet-refresh.timer")]
    assert write(tmp_path, artifacts) == WriteReport(written=tuple(f"{tmp_path}{a.path}" for a in artifacts))
    assert (tmp_path / NETDEV[1:]).read_text() == "n"
    assert stat.S_IMODE((tmp_path / NETDEV[1:]).stat().st_mode) == 0o640
    assert os.readlink(tmp_path / WANTED[1:]) == "../wgnet-refresh.timer"
    assert stat.S_IMODE((tmp_path / "var/lib/wgnet/manifest.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "etc/systemd").stat().st_mode) == 0o755
    before = {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*")}
    assert write(tmp_path, artifacts) == WriteReport(unchanged=tuple(f"{tmp_path}{a.path}" for a in artifacts))
    assert {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in tmp_path.rglob("*")} == before


def test_private_folders_are_private(tmp_path: Path) -> None:
    paths = ["/etc/NetworkManager/system-connections/a.nmconnection", "/etc/wireguard/a.conf", "/etc/wgnet/host"]
    write(tmp_path, [file("x", path, 0o600) for path in paths])
    modes = {path: stat.S_IMODE((tmp_path / path[1:]).parent.stat().st_mode) for path in paths}
    assert list(modes.values()) == [0o700, 0o700, 0o755]


def test_what_is_not_written_any_more_goes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/network").mkdir(parents=True)
    (tmp_path / "etc/systemd/network/10-own.network").write_text("own")
    write(tmp_path, [file("n"), file("t", UNIT), link("../wgnet-refresh.timer"), file("s", "/etc/sysctl.d/50-w.conf")])
    (tmp_path / "etc/sysctl.d/99-own.conf").write_text("own")
    report = write(tmp_path, [])
    assert report is not None
    assert len(report.removed) == 4
    assert files(tmp_path) == ["/etc/sysctl.d/99-own.conf", "/etc/systemd/network/10-own.network"]
    # A folder goes when we made it and nothing is in it.
    assert not (tmp_path / "etc/systemd/system").exists()
    assert (tmp_path / "etc/sysctl.d").is_dir()
    (tmp_path / "etc/sysctl.d/99-own.conf").unlink()
    write(tmp_path, [file("n")])
    write(tmp_path, [])
    assert files(tmp_path) == ["/etc/systemd/network/10-own.network"]


def test_networks_are_written_apart(tmp_path: Path) -> None:
    other = file("o", "/etc/systemd/network/50-wgnet-wg1.netdev", network="other")
    write(tmp_path, [file("n"), other])
    (tmp_path / other.path[1:]).write_text("edited, but not asked for")
    report = write(tmp_path, [file("n2")], networks={"office"})
    assert report == WriteReport(written=(f"{tmp_path}{NETDEV}",))
    report = write(tmp_path, [], networks={"office"})
    assert report == WriteReport(removed=(f"{tmp_path}{NETDEV}",))
    manifest = read_manifest(tmp_path, runtime=False, diagnostics=Diagnostics())
    assert manifest is not None
    assert {path: entry.network for path, entry in manifest.entries.items()} == {other.path[1:]: "other"}
    write(tmp_path, [], networks={"other"}, expect=[codes.CHANGED_BY_HAND])
    with pytest.raises(ValueError, match="network"):
        write(tmp_path, [other], networks={"office"})


@pytest.mark.parametrize("force", [True, False])
def test_a_file_of_a_network_that_is_not_written_is_in_the_way(tmp_path: Path, force: bool) -> None:
    """With its files named, a network takes nothing from another one; what is the same in both stays."""
    write(tmp_path, [file("n"), file("key", "/etc/wgnet/shared.key")])
    before = files(tmp_path)
    diagnostics = Diagnostics()
    new = [file("o", network="other"), file("o", "/etc/wgnet/other.key", network="other")]
    written = write_system(tmp_path, new, networks={"other"}, runtime=False, force=force, diagnostics=diagnostics)
    assert (written, files(tmp_path), (tmp_path / NETDEV[1:]).read_text()) == (None, before, "n")
    [told] = diagnostics
    assert told.code is codes.OTHER_NETWORK
    assert f"'{tmp_path}{NETDEV}' of 'other' is taken by the network 'office'" in told.message
    assert "`wgnet remove office`" in told.help[0]
    assert compare_system(tmp_path, new, networks={"other"}, diagnostics=Diagnostics()) is None
    write(tmp_path, [file("key", "/etc/wgnet/shared.key", network="other")], networks={"other"})
    # Where all are known, one that is renamed takes its own place; so it does where both are written.
    write(tmp_path, new, networks={"other", "office"})
    assert (tmp_path / NETDEV[1:]).read_text() == "o"


def test_a_runtime_system_has_a_manifest_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, [file("n")])
    write(tmp_path, [file("r", "/run/systemd/network/50-wgnet-wg0.netdev")], runtime=True)
    assert (tmp_path / NETDEV[1:]).exists()
    write(tmp_path, [], runtime=True)
    assert files(tmp_path) == [NETDEV]
    assert (tmp_path / "run/wgnet/manifest.json").exists()


def test_changes_by_hand_are_all_listed_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path, [file("n"), link("../a"), file("gone", "/etc/gone")])
    (tmp_path / NETDEV[1:]).write_text("")  # an empty file masks: in a system it is a person's
    (tmp_path / WANTED[1:]).unlink()
    (tmp_path / WANTED[1:]).symlink_to("../mine")
    (tmp_path / "etc/gone").write_text("mine")
    (tmp_path / "etc/foreign").write_text("mine")
    wanted = [file("n2"), link("../b"), file("f", "/etc/foreign"), file("new", "/etc/new/x")]
    before = {p: p.lstat().st_ino for p in tmp_path.rglob("*")}
    diagnostics = Diagnostics()
    assert write_system(tmp_path, wanted, networks=None, runtime=False, force=False, diagnostics=diagnostics) is None
    assert {p: p.lstat().st_ino for p in tmp_path.rglob("*")} == before
    assert [d.message for d in diagnostics] == [
        f"'{tmp_path}{path}' was changed by hand, nothing was written"
        for path in (NETDEV, WANTED, "/etc/foreign", "/etc/gone")
    ]
    assert all(d.code is codes.CHANGED_BY_HAND and "--force" in " ".join(d.help) for d in diagnostics)
    report = write(tmp_path, wanted, force=True)
    assert report is not None
    assert report.kept == tuple(f"{tmp_path}{p}.~1~" for p in (NETDEV, WANTED, "/etc/foreign", "/etc/gone"))
    assert os.readlink(tmp_path / f"{WANTED[1:]}.~1~") == "../mine"
    assert (tmp_path / "etc/gone.~1~").read_text() == "mine"
    assert (tmp_path / "etc/foreign").read_text() == "f"
    assert not (tmp_path / "etc/gone").exists()


def test_what_stands_there_already_as_wanted_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / NETDEV[1:]).parent.mkdir(parents=True)
    (tmp_path / NETDEV[1:]).write_text("n")
    (tmp_path / NETDEV[1:]).chmod(0o644)
    report = write(tmp_path, [file("n")])
    assert report is not None
    assert report.written  # its mode was too wide
    assert stat.S_IMODE((tmp_path / NETDEV[1:]).stat().st_mode) == 0o640
    (tmp_path / NETDEV[1:]).unlink()
    write(tmp_path, [file("n")])
    assert (tmp_path / NETDEV[1:]).read_text() == "n"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "file-for-link", "file-for-folder"])
def test_something_else_in_a_files_place(tmp_path: Path, kind: str, force: bool) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "victim").write_text("v")
    place = tmp_path / "etc/x"
    wanted = [file("n", "/etc/x"), file("y", "/etc/y")]
    match kind:
        case "link":
            place.symlink_to("../victim")
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case "file-for-link":
            place.write_text("")
            wanted = [link("y", "/etc/x"), file("y", "/etc/y")]
        case "file-for-folder":
            place.write_text("")
            wanted = [file("n", "/etc/x/below")]
    before = place.lstat().st_ino
    write(tmp_path, wanted, force=force, expect=[codes.NOT_A_REGULAR_FILE])
    assert place.lstat().st_ino == before
    assert (tmp_path / "victim").read_text() == "v"
    assert not (tmp_path / "etc/y").exists()


def test_a_link_of_ours_becomes_a_file_and_back(tmp_path: Path) -> None:
    write(tmp_path, [link("a", "/etc/x")])
    write(tmp_path, [file("n", "/etc/x")])
    assert (tmp_path / "etc/x").read_text() == "n"
    write(tmp_path, [link("a", "/etc/x")])
    assert os.readlink(tmp_path / "etc/x") == "a"


def test_links_of_an_image_are_resolved_inside_it(tmp_path: Path) -> None:
    root = tmp_path / "image"
    outside = tmp_path / "outside"
    (root / "usr/etc/systemd/network").mkdir(parents=True)
    outside.mkdir()
    (root / "etc").symlink_to("/usr/etc")
    (root / "usr/etc/sysctl.d").symlink_to("../../../../outside")
    (root / "outside").mkdir()
    (root / "var").symlink_to("usr/etc/../var")
    (root / "usr/var").mkdir()
    write(root, [file("n"), file("s", "/etc/sysctl.d/50-w.conf")])
    assert (root / "usr" / NETDEV[1:]).read_text() == "n"
    assert (root / "outside/50-w.conf").read_text() == "s"
    assert (root / "usr/var/lib/wgnet/manifest.json").exists()
    assert os.listdir(outside) == []
    write(root, [])
    assert os.listdir(root / "outside") == []


def test_two_artifacts_for_one_place_are_a_bug(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    with pytest.raises(ValueError, match="one place"):
        write(tmp_path, [file("a", "/run/x"), file("b", "/var/run/x")])
    with pytest.raises(ValueError, match="normalised"):
        write(tmp_path, [file("a", "/run/../x")])
    assert files(tmp_path) == ["/var/run"]


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    diagnostics = Diagnostics()
    root = tmp_path / "none"
    assert write_system(root, [], networks=None, runtime=False, force=False, diagnostics=diagnostics) is None
    (diagnostic,) = diagnostics
    assert diagnostic.message == f"cannot write '{root}': no such file or directory; nothing was changed"
    assert recover(tmp_path, runtime=False, diagnostics=diagnostics)
    assert os.listdir(tmp_path) == []


def test_a_refused_run_makes_no_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/x").write_text("mine")
    write(tmp_path, [file("n", "/etc/x")], expect=[codes.CHANGED_BY_HAND])
    assert os.listdir(tmp_path) == ["etc"]


def test_a_damaged_manifest(tmp_path: Path) -> None:
    write(tmp_path, [file("n")])
    manifest = tmp_path / "var/lib/wgnet/manifest.json"
    manifest.write_text(manifest.read_text().replace(NETDEV[1:], "../victim"))
    write(tmp_path, [], expect=[codes.CANNOT_WRITE])
    write(tmp_path, [file("n2")], force=True)
    assert (tmp_path / f"{NETDEV[1:]}.~1~").read_text() == "n"


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1, "changes": [{"path": "../x"}]}'])
def test_a_damaged_journal_stops_everything(tmp_path: Path, text: str) -> None:
    write(tmp_path, [file("n")])
    journal = tmp_path / "var/lib/wgnet/journal.committed"
    journal.write_text(text)
    diagnostics = Diagnostics()
    assert not recover(tmp_path, runtime=False, diagnostics=diagnostics)
    assert "the journal is damaged" in diagnostics.items[0].message
    assert journal.exists()


def test_what_a_person_did_after_a_kill_is_kept(tmp_path: Path) -> None:
    """A file written between the kill and the next run stays beside the one that the journal brings."""
    (tmp_path / "state").mkdir()
    (tmp_path / "a").write_text("old")
    (tmp_path / "gone").write_text("old")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    root = Root(descriptor, str(tmp_path))
    seen = {n: (s.st_ino, s.st_size, s.st_mtime_ns) for n in ("a", "gone") if (s := (tmp_path / n).stat())}
    transaction = Transaction(root=root, journal="state/journal")
    transaction.changes = [
        Change(path="a", stage=".a", backup=".old-a", seen=seen["a"]),
        Change(path="gone", backup=".old-gone", seen=seen["gone"]),
        Change(path="state/manifest", stage="state/.manifest"),
    ]
    transaction.begin()
    (tmp_path / ".a").write_text("new")
    (tmp_path / "state/.manifest").write_text("new")
    os.link(tmp_path / "a", tmp_path / ".old-a")
    os.link(tmp_path / "gone", tmp_path / ".old-gone")
    os.rename(tmp_path / "state/journal.begun", tmp_path / "state/journal.committed")
    for name in ("a", "gone"):
        (tmp_path / name).unlink()
        (tmp_path / name).write_text("a person's")
    done = Transaction.recover(root, "state/journal")
    assert done is not None
    assert done.kept == [f"{tmp_path}/a.~1~"]
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "a.~1~").read_text() == "a person's"
    assert (tmp_path / "gone").read_text() == "a person's"
    assert sorted(os.listdir(tmp_path)) == ["a", "a.~1~", "gone", "state"]
    assert os.listdir(tmp_path / "state") == ["manifest"]
    root.close()
    os.close(descriptor)


def test_a_file_that_changes_while_it_is_staged_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [file("n")])
    real = Transaction.commit

    def commit(self: Transaction) -> None:
        (tmp_path / NETDEV[1:]).write_text("edited meanwhile")
        real(self)

    monkeypatch.setattr(Transaction, "commit", commit)
    write(tmp_path, [file("n2"), file("x", "/etc/new/x")], expect=[codes.CHANGED_BY_HAND])
    assert (tmp_path / NETDEV[1:]).read_text() == "edited meanwhile"
    assert not (tmp_path / "etc/new").exists()


def test_a_file_system_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [file("n")])
    (tmp_path / NETDEV[1:]).write_text("mine")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path, [file("n2")], force=True)
    assert (tmp_path / NETDEV[1:]).read_text() == "n2"
    assert (tmp_path / f"{NETDEV[1:]}.~1~").read_text() == "mine"
    assert stat.S_IMODE((tmp_path / f"{NETDEV[1:]}.~1~").stat().st_mode) == 0o640


def test_an_error_that_cannot_be_undone_leaves_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [file("n"), file("m", "/etc/z/m")])
    real = os.rename
    with monkeypatch.context() as patch:

        def broken(source: str, target: str, **options: int) -> None:
            if "journal" not in target and target != "50-wgnet-wg0.netdev":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if source.endswith(".old~"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            real(source, target, **options)

        patch.setattr(os, "rename", broken)
        diagnostics = Diagnostics()
        wanted = [file("n2"), file("m2", "/etc/z/m")]
        assert (
            write_system(tmp_path, wanted, networks=None, runtime=False, force=False, diagnostics=diagnostics) is None
        )
    (diagnostic,) = diagnostics
    assert "read-only file system; and cannot put back" in diagnostic.message
    assert (tmp_path / "var/lib/wgnet/journal.undone").exists()
    assert recover(tmp_path, runtime=False, diagnostics=Diagnostics())
    assert (tmp_path / NETDEV[1:]).read_text() == "n"
    assert (tmp_path / "etc/z/m").read_text() == "m"
    assert write(tmp_path, [file("n"), file("m", "/etc/z/m")]) is not None


def test_owners_come_from_the_image(tmp_path: Path) -> None:
    require_root("needs root, whose files alone have another owner")
    report = write(tmp_path, [file("n", group="systemd-network")], expect=[codes.GROUP_MISSING])
    assert report is not None
    assert (tmp_path / NETDEV[1:]).stat().st_gid == 0
    (tmp_path / "etc/group").write_text("systemd-network:x:4711:\n")
    report = write(tmp_path, [file("n", group="systemd-network")])
    assert report is not None
    assert report.written
    assert (tmp_path / NETDEV[1:]).stat().st_gid == 4711
    manifest = json.loads((tmp_path / "var/lib/wgnet/manifest.json").read_text())
    assert manifest["files"][0]["group"] == "systemd-network"


def test_the_manifest_is_the_same_for_the_same_input(tmp_path: Path) -> None:
    wanted = [file("n"), file("t", UNIT), link("../wgnet-refresh.timer")]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "a", wanted)
    write(tmp_path / "b", [file("old"), file("x", "/etc/x")])
    write(tmp_path / "b", [*reversed(wanted)])
    texts = [(tmp_path / name / "var/lib/wgnet/manifest.json").read_bytes() for name in ("a", "b")]
    assert texts[0] == texts[1]


def broken(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_there_is_no_way_back_once_the_links_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed while it cleans up has its way, though the disk fails at the next one."""
    write(tmp_path, [file("n")])
    real = os.unlink

    def unlink(name: str, **options: int) -> None:
        if name == "journal.committed":
            raise broken(errno.EIO)
        real(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        diagnostics = Diagnostics()
        wanted = [file("n2"), file("new", "/etc/new")]
        assert write_system(tmp_path, wanted, networks=None, runtime=False, force=False, diagnostics=diagnostics)
    assert (tmp_path / "var/lib/wgnet/journal.committed").exists()

    def fsync(descriptor: int) -> None:
        raise broken(errno.EIO)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        recover(tmp_path, runtime=False, diagnostics=Diagnostics())
    assert (tmp_path / NETDEV[1:]).read_text() == "n2"
    assert (tmp_path / "etc/new").read_text() == "new"
    assert recover(tmp_path, runtime=False, diagnostics=Diagnostics())
    assert write(tmp_path, wanted) == WriteReport(unchanged=(f"{tmp_path}{NETDEV}", f"{tmp_path}/etc/new"))


def test_a_commit_that_is_taken_back_is_not_rolled_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename of the record happens, is answered with an error, and the cleaning fails half-way."""
    write(tmp_path, [file("n"), file("m", "/etc/z/m")])
    rename, unlink = os.rename, os.unlink
    unlinked: list[str] = []

    def late(source: str, target: str, **options: int) -> None:
        rename(source, target, **options)
        if target == "journal.committed":
            raise broken(errno.EIO)

    def once(name: str, **options: int) -> None:
        if name.endswith(".new~"):
            if unlinked:
                raise broken(errno.EIO)
            unlinked.append(name)
        unlink(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", late)
        patch.setattr(os, "unlink", once)
        diagnostics = Diagnostics()
        wanted = [file("n2"), file("m2", "/etc/z/m")]
        assert (
            write_system(tmp_path, wanted, networks=None, runtime=False, force=False, diagnostics=diagnostics) is None
        )
    assert unlinked
    assert recover(tmp_path, runtime=False, diagnostics=Diagnostics())
    assert [(tmp_path / p).read_text() for p in (NETDEV[1:], "etc/z/m")] == ["n", "m"]
    assert not list(tmp_path.rglob(".wgnet*"))


def test_every_file_is_on_the_disk_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    before_commit: list[set[int]] = []
    fsync, rename = os.fsync, os.rename

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def mark(source: str, target: str, **options: int) -> None:
        if target == "journal.committed":
            before_commit.append(set(synced))
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", mark)
    write(tmp_path, [file("n"), file("x", "/etc/new/x")])
    (before,) = before_commit
    for path in (NETDEV[1:], "etc/new/x", "etc/new", "etc", "var/lib/wgnet/manifest.json", "var/lib/wgnet"):
        assert (tmp_path / path).stat().st_ino in before, path
