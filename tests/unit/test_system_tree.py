"""The output folder: what is written, what stays, what goes, and what is refused."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pytest
from realparsers import require_root

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.system import tree as tree_module
from wgnet.system.outcome import WriteReport
from wgnet.system.tree import MANIFEST, write_tree

PATH = "/etc/systemd/network/50-wgnet-wg0.netdev"


def file(text: str, path: str = PATH, mode: int = 0o640, group: str = "root") -> Artifact:
    return Artifact(path=path, network="office", content=text.encode(), mode=mode, group=group)


def write(
    out: Path,
    hosts: dict[str, list[Artifact]],
    *,
    only: Collection[str] | None = None,
    force: bool = False,
    expect: Iterable[object] = (),
) -> WriteReport | None:
    diagnostics = Diagnostics()
    report = write_tree(out, hosts.items(), only=only, force=force, diagnostics=diagnostics, progress=None)
    assert [d.code for d in diagnostics] == list(expect), list(diagnostics)
    assert not list(out.parent.glob(".*staging"))
    return report


@pytest.fixture(params=["exchange", "journal"])
def out(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the output folder, which is written in each of the two ways."""
    if request.param == "journal":
        monkeypatch.setattr(tree_module._Place, "_may_exchange", lambda self, old: False)
    return tmp_path / "out"


def names(out: Path) -> list[str]:
    return sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_symlink() or not p.is_dir())


def test_a_first_render(out: Path) -> None:
    link = Artifact(path="/etc/systemd/system/a.wants/x", network="office", target="../x")
    report = write(out, {"fra": [file("f"), link], "ams": [file("a", mode=0o600)]})
    assert report == WriteReport(
        written=(f"{out}/fra{PATH}", f"{out}/fra{link.path}", f"{out}/ams{PATH}"),
    )
    assert names(out) == [".gitignore", MANIFEST, f"ams{PATH}", f"fra{PATH}", f"fra{link.path}"]
    assert (out / f"fra{PATH}").read_text() == "f"
    assert os.readlink(out / f"fra{link.path}") == "../x"
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert stat.S_IMODE((out / f"ams{PATH}").stat().st_mode) == 0o600
    assert (out / ".gitignore").read_text() == "*\n"
    status = subprocess.run(["git", "init", "-q", out.parent], check=True)
    status = subprocess.run(
        ["git", "-C", out.parent, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert status.stdout == ""


def test_the_same_again_writes_nothing_at_all(out: Path) -> None:
    hosts = {"fra": [file("f"), file("n", "/etc/n")]}
    write(out, hosts)
    before = {p: p.lstat() for p in [out, out.parent, *out.rglob("*")]}
    report = write(out, hosts)
    assert report == WriteReport(unchanged=(f"{out}/fra{PATH}", f"{out}/fra/etc/n"))
    assert {p: p.lstat().st_mtime_ns for p in before} == {p: s.st_mtime_ns for p, s in before.items()}
    assert {p: p.lstat().st_ino for p in before} == {p: s.st_ino for p, s in before.items()}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    hosts = {"fra": [file("f"), file("n", "/etc/n")], "ams": [file("a")]}
    write(tmp_path / "one", hosts)
    write(tmp_path / "two", {"ams": [file("old")], "x": [file("x")]})
    write(tmp_path / "two", dict(reversed(hosts.items())))
    assert names(tmp_path / "one") == names(tmp_path / "two")
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_only_what_differs_is_written(out: Path) -> None:
    write(out, {"fra": [file("f"), file("n", "/etc/n")], "gone": [file("g")]})
    inode = (out / "fra/etc/n").stat().st_ino
    mtime = (out / "fra/etc/n").stat().st_mtime_ns
    report = write(out, {"fra": [file("f2"), file("n", "/etc/n")]})
    assert report == WriteReport(
        written=(f"{out}/fra{PATH}",), unchanged=(f"{out}/fra/etc/n",), removed=(f"{out}/gone{PATH}",)
    )
    assert (out / "fra/etc/n").stat().st_ino == inode
    assert (out / "fra/etc/n").stat().st_mtime_ns == mtime
    assert names(out) == [".gitignore", MANIFEST, "fra/etc/n", f"fra{PATH}"]
    assert not (out / "gone").exists()


def test_a_persons_own_files_are_carried_and_never_removed(out: Path) -> None:
    write(out, {"fra": [file("f")], "gone": [file("g")]})
    out.chmod(0o750)
    own = ["fra/own", "gone/etc/own", "own/deep/own", "top"]
    for name in own:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    os.mkfifo(out / "fra/pipe")
    (out / "link").symlink_to("fra")
    (out / "empty").mkdir(mode=0o711)
    (out / "own").chmod(0o705)
    (out / "fra").chmod(0o710)
    os.setxattr(out / "own", "user.note", b"n")
    os.utime(out / "own", (5, 5))
    inodes = {name: (out / name).lstat().st_ino for name in [*own, "fra/pipe", "link"]}
    write(out, {"fra": [file("f2")], "new": [file("n")]})
    write(out, {"new": [file("n")]})
    assert {name: (out / name).lstat().st_ino for name in inodes} == inodes
    assert not (out / f"gone{PATH}").exists()
    assert (out / "empty").is_dir()
    assert [stat.S_IMODE((out / n).stat().st_mode) for n in (".", "own", "fra", "empty")] == [
        0o750,
        0o705,
        0o710,
        0o711,
    ]
    assert os.getxattr(out / "own", "user.note") == b"n"
    assert (out / "own").stat().st_mtime == 5
    assert not (out / "gone/etc/systemd").exists()


def test_a_change_by_hand_is_not_overwritten(out: Path) -> None:
    write(out, {"fra": [file("f"), file("n", "/etc/n")], "gone": [file("g")]})
    (out / f"fra{PATH}").write_text("mine")
    (out / f"gone{PATH}").write_text("mine too")
    before = {name: (out / name).read_bytes() for name in names(out)}
    diagnostics = Diagnostics()
    new = {"fra": [file("f2"), file("n2", "/etc/n")], "more": [file("m")]}
    assert write_tree(out, new.items(), only=None, force=False, diagnostics=diagnostics, progress=None) is None
    assert [d.code for d in diagnostics] == [codes.CHANGED_BY_HAND] * 2
    assert [d.message for d in diagnostics] == [
        f"'{out}/fra{PATH}' was changed by hand, nothing was written",
        f"'{out}/gone{PATH}' was changed by hand, nothing was written",
    ]
    assert all("--force" in " ".join(d.help) for d in diagnostics)
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    report = write(out, new, force=True)
    assert report is not None
    assert sorted(report.kept) == [f"{out}/fra{PATH}.~1~", f"{out}/gone{PATH}.~1~"]
    assert (out / f"fra{PATH}").read_text() == "f2"
    assert (out / f"fra{PATH}.~1~").read_text() == "mine"
    assert (out / f"gone{PATH}.~1~").read_text() == "mine too"
    assert not (out / f"gone{PATH}").exists()
    write(out, new)
    assert (out / f"fra{PATH}.~1~").read_text() == "mine"


def test_a_change_by_hand_to_what_is_wanted_is_none(out: Path) -> None:
    write(out, {"fra": [file("f")]})
    (out / f"fra{PATH}").write_text("f2")
    write(out, {"fra": [file("f2")]})
    write(out, {"fra": [file("f3")]})
    assert (out / f"fra{PATH}").read_text() == "f3"


def test_what_a_person_deleted_or_made_wider_is_mended(out: Path) -> None:
    write(out, {"fra": [file("f"), file("n", "/etc/n")]})
    (out / f"fra{PATH}").unlink()
    (out / "fra/etc/n").chmod(0o666)
    (out / ".gitignore").unlink()
    report = write(out, {"fra": [file("f"), file("n", "/etc/n")]})
    assert report is not None
    assert report.written == (f"{out}/fra{PATH}", f"{out}/fra/etc/n")
    assert stat.S_IMODE((out / "fra/etc/n").stat().st_mode) == 0o640
    assert (out / ".gitignore").exists()


def test_a_persons_gitignore_stays(out: Path) -> None:
    write(out, {"fra": [file("f")]})
    (out / ".gitignore").write_text("*.netdev\n")
    write(out, {"fra": [file("f2")]})
    assert (out / ".gitignore").read_text() == "*.netdev\n"


def test_a_folder_that_was_there_before(out: Path) -> None:
    (out / "fra/etc/systemd/network").mkdir(parents=True)
    (out / "notes").write_text("n")
    (out / f"fra{PATH}").write_text("mine")
    write(out, {"fra": [file("f")]}, expect=[codes.CHANGED_BY_HAND])
    assert names(out) == [f"fra{PATH}", "notes"]
    (out / f"fra{PATH}").write_text("f")
    write(out, {"fra": [file("f")]})
    assert (out / "notes").read_text() == "n"


@pytest.mark.parametrize("found", ["link", "folder", "pipe", "host-link", "host-file"])
def test_something_else_in_a_files_place(out: Path, found: str) -> None:
    outside = out.parent / "outside"
    outside.mkdir()
    (outside / "victim").write_text("v")
    write(out, {"fra": [file("f")], "ams": [file("a")]})
    place = out / f"fra{PATH}" if "host" not in found else out / "fra"
    os.rename(place, out.parent / "moved")
    match found:
        case "link":
            place.symlink_to(outside / "victim")
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case "host-link":
            place.symlink_to(outside)
        case "host-file":
            place.write_text("")
    before = (place.lstat(), names(outside))
    for force in (False, True):
        write(out, {"fra": [file("f2")], "ams": [file("a2")]}, force=force, expect=[codes.NOT_A_REGULAR_FILE])
        assert (out / f"ams{PATH}").read_text() == "a"
        assert (place.lstat(), names(outside)) == before
    assert (outside / "victim").read_text() == "v"
    # When it is not written any more, what stands there is the person's.
    write(out, {"ams": [file("a2")]})
    assert place.lstat().st_mode == before[0].st_mode


def test_a_link_to_a_folder_may_be_the_output_folder(out: Path) -> None:
    real = out.parent / "real"
    real.mkdir(mode=0o755)
    out.symlink_to("real")
    write(out, {"fra": [file("f")]})
    write(out, {"fra": [file("f2")]})
    assert out.is_symlink()
    assert (real / f"fra{PATH}").read_text() == "f2"
    assert stat.S_IMODE(real.stat().st_mode) == 0o755


def test_only_the_named_hosts_are_written(out: Path) -> None:
    write(out, {"fra": [file("f")], "ams": [file("a")], "lon": [file("l")]})
    (out / f"ams{PATH}").write_text("mine")
    report = write(out, {"fra": [file("f2")]}, only={"fra", "lon"})
    assert report == WriteReport(written=(f"{out}/fra{PATH}",), removed=(f"{out}/lon{PATH}",))
    assert (out / f"ams{PATH}").read_text() == "mine"
    write(out, {"fra": [file("f2")], "ams": [file("a2")]}, expect=[codes.CHANGED_BY_HAND])


@pytest.mark.parametrize(
    "hosts",
    [
        {"..": [file("x")]},
        {"": [file("x")]},
        {"a/b": [file("x")]},
        {".git": [file("x")]},
        {"fra": [file("x", "/etc/../../x")]},
        {"fra": [file("x", "etc/x")]},
        {"fra": [file("x", "/etc//x")]},
        {"fra": [file("x"), file("y")]},
    ],
)
def test_a_name_that_leads_out_is_a_bug(out: Path, hosts: dict[str, list[Artifact]]) -> None:
    write(out, {"fra": [file("f")]})
    before = names(out)
    with pytest.raises(ValueError, match=r"host|path|place"):
        write(out, hosts)
    assert names(out) == before
    assert os.listdir(out.parent) == ["out"]


def test_a_host_that_was_not_asked_for_is_a_bug(out: Path) -> None:
    with pytest.raises(ValueError, match="not a host to write"):
        write(out, {"fra": [file("f")]}, only={"ams"})


def test_an_error_of_the_rendering_stops_the_writing(out: Path) -> None:
    write(out, {"fra": [file("f")], "ams": [file("a")]})
    diagnostics = Diagnostics()

    def hosts() -> Iterator[tuple[str, list[Artifact]]]:
        yield "fra", [file("f2")]
        diagnostics.report(codes.TEMPLATE, "broken")

    assert write_tree(out, hosts(), only=None, force=False, diagnostics=diagnostics, progress=None) is None
    assert len(diagnostics) == 1
    assert (out / f"fra{PATH}").read_text() == "f"
    assert (out / f"ams{PATH}").exists()


def test_hosts_are_taken_one_by_one(out: Path) -> None:
    heard: list[int] = []
    alive: list[int] = []

    def hosts() -> Iterator[tuple[str, Iterator[Artifact]]]:
        for number in range(3):
            alive.append(len(heard))
            yield f"h{number}", iter([file(str(number))])

    diagnostics = Diagnostics()
    assert write_tree(out, hosts(), only=None, force=False, diagnostics=diagnostics, progress=heard.append)
    assert heard == [1, 2, 3]
    assert alive == [0, 1, 2]


@pytest.mark.parametrize("left", [b"", b"[NetDev]\0\0\0\0", b"x" * 4096])
def test_what_a_loss_of_power_left_is_not_a_persons_change(out: Path, left: bytes) -> None:
    text = "x" * 5000
    write(out, {"fra": [file(text)], "gone": [file("g")]})
    (out / f"fra{PATH}").write_bytes(left)
    (out / f"gone{PATH}").write_bytes(b"")
    write(out, {"fra": [file(text + "more")]})
    assert (out / f"fra{PATH}").read_text() == text + "more"
    assert not (out / "gone").exists()


def test_a_tail_that_a_person_cut_off_is_a_change(out: Path) -> None:
    write(out, {"fra": [file("x" * 5000)]})
    (out / f"fra{PATH}").write_bytes(b"x" * 4000)
    write(out, {"fra": [file("x" * 5001)]}, expect=[codes.CHANGED_BY_HAND])


@pytest.mark.parametrize("text", [b"", b"{}", b'{"version": 9}'])
def test_a_damaged_manifest(out: Path, text: bytes) -> None:
    write(out, {"fra": [file("f")], "gone": [file("g")]})
    (out / MANIFEST).write_bytes(text)
    write(out, {"fra": [file("f2")]}, expect=[codes.CANNOT_WRITE])
    assert (out / f"fra{PATH}").read_text() == "f"
    write(out, {"fra": [file("f2")]}, force=True)
    assert (out / f"fra{PATH}").read_text() == "f2"
    assert (out / f"fra{PATH}.~1~").read_text() == "f"
    assert (out / f"gone{PATH}").exists()


def test_a_group_that_does_not_exist_is_said_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_root("needs root, whose files alone have another owner")
    hosts = {h: [file("f", group="wgnet-no-such-group")] for h in ("fra", "ams")}
    report = write(out, hosts, expect=[codes.GROUP_MISSING])
    assert report is not None
    assert (out / f"fra{PATH}").stat().st_gid == 0
    report = write(out, hosts, expect=[codes.GROUP_MISSING])
    assert report is not None
    assert len(report.unchanged) == 2
    write(out, {"fra": [file("f", group="daemon")]})
    import grp

    assert (out / f"fra{PATH}").stat().st_gid == grp.getgrnam("daemon").gr_gid


def test_a_working_directory_inside_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, {"fra": [file("f")]})
    inode = out.stat().st_ino
    monkeypatch.chdir(out / "fra")
    write(out, {"fra": [file("f2")]})
    assert out.stat().st_ino == inode
    assert os.listdir(".") == ["etc"]
    monkeypatch.chdir(tmp_path)
    write(out, {"fra": [file("f3")]})
    assert out.stat().st_ino != inode


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EBUSY, errno.ENOSYS, errno.EXDEV])
def test_where_folders_cannot_be_exchanged_the_journal_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(folder: int, name: str, other: str) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(tree_module, "exchange", refuse)
    out = tmp_path / "out"
    write(out, {"fra": [file("f"), file("n", "/etc/n")], "gone": [file("g")]})
    (out / "own").write_text("o")
    write(out, {"fra": [file("f2"), file("n", "/etc/n")]})
    assert names(out) == [".gitignore", MANIFEST, "fra/etc/n", f"fra{PATH}", "own"]
    assert (out / f"fra{PATH}").read_text() == "f2"
    assert sorted(p.name for p in out.iterdir()) == [".gitignore", MANIFEST, "fra", "own"]


def test_what_a_person_writes_meanwhile_is_rescued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, {"fra": [file("f")], "gone": [file("g")]})
    real = tree_module.exchange

    def meddle(folder: int, name: str, other: str) -> None:
        (out / "late").mkdir()
        (out / "late/file").write_text("late")
        (out / f"fra{PATH}").write_text("edited late")
        (out / f"gone{PATH}").write_text("edited too")
        real(folder, name, other)

    monkeypatch.setattr(tree_module, "exchange", meddle)
    report = write(out, {"fra": [file("f2")]})
    assert report is not None
    assert sorted(report.kept) == [f"{out}/fra{PATH}.~1~", f"{out}/gone{PATH}", f"{out}/late/file"]
    assert (out / f"fra{PATH}").read_text() == "f2"
    assert (out / f"fra{PATH}.~1~").read_text() == "edited late"
    assert (out / f"gone{PATH}").read_text() == "edited too"
    assert (out / "late/file").read_text() == "late"


def test_missing_parents_are_made_and_removed_again_after_an_error(tmp_path: Path) -> None:
    out = tmp_path / "a/b/out"
    diagnostics = Diagnostics()

    def failing() -> Iterator[tuple[str, list[Artifact]]]:
        yield "fra", [file("f")]
        diagnostics.report(codes.TEMPLATE, "broken")

    assert write_tree(out, failing(), only=None, force=False, diagnostics=diagnostics, progress=None) is None
    assert os.listdir(tmp_path) == []
    write(out, {"fra": [file("f")]})
    assert (out / f"fra{PATH}").exists()


def test_a_file_in_the_output_folders_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    write(tmp_path / "out", {"fra": [file("f")]}, expect=[codes.NOT_A_REGULAR_FILE])
    assert (tmp_path / "out").read_text() == "mine"


def test_a_manifest_that_names_a_place_outside_removes_nothing(out: Path) -> None:
    write(out, {"fra": [file("f")]})
    victim = out.parent / "victim"
    victim.write_text("f")
    text = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(text.replace(f"fra{PATH}", "../victim"))
    write(out, {"fra": [file("f2")]}, expect=[codes.CANNOT_WRITE])
    write(out, {"fra": [file("f2")]}, force=True)
    assert victim.read_text() == "f"


def test_what_a_journal_needs_is_not_cleaned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module._Place, "_may_exchange", lambda self, old: False)
    out = tmp_path / "out"
    write(out, {"fra": [file("f"), file("n", "/etc/n")]})
    real = os.rename

    def failing(source: str, target: str, **options: int) -> None:
        if target == "n" or source.isdigit():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        write(out, {"fra": [file("f2"), file("n2", "/etc/n")]}, expect=[codes.CANNOT_WRITE])
    assert (out / f"fra{PATH}").read_text() == "f2"
    write(out, {"fra": [file("f"), file("n", "/etc/n")]})
    assert (out / f"fra{PATH}").read_text() == "f"
    assert names(out) == [".gitignore", MANIFEST, "fra/etc/n", f"fra{PATH}"]
