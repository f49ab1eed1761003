"""The files of every example, byte for byte, under its own managers and under each other.

`tests/golden/EXAMPLE/HOST/...` are the files' bytes and `tests/golden/EXAMPLE.txt` what git does not keep: mode, owner,
group and the targets of links, and what was said of a host. EXAMPLE@MANAGER has the hosts that have another manager in
the example itself. What a manager cannot express stands there as the error that says so.
After a change that is meant: `pytest tests/test_golden.py --update-golden`, and read the difference.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from example_trees import Tree, examples, read_fleet, render, store_of, under

from wgnet.cli.main import main
from wgnet.syntax.spec import Manager

GOLDEN = Path(__file__).resolve().parent / "golden"
#: Sixty shops that differ in their numbers: under another manager the hubs and two of them will do.
FEW = {"two-hubs": frozenset(("ams", "lon", "shop01", "shop60"))}


def manifest(tree: Tree) -> str:
    """Return what git does not keep, a line for each file."""
    lines: list[str] = []
    for host in sorted(tree.files):
        lines += [f"{host}: {message}" for message in tree.said[host]]
        for artifact in sorted(tree.files[host], key=lambda artifact: artifact.path):
            kind = "link" if artifact.target is not None else f"{artifact.mode:04o}"
            secret = " secret" if artifact.secret else ""
            target = f" -> {artifact.target}" if artifact.target is not None else ""
            lines.append(f"{host}{artifact.path} {kind} {artifact.owner}:{artifact.group}{secret}{target}")
    return "\n".join([*lines, ""])


def contents(tree: Tree) -> dict[str, bytes]:
    """Return the bytes of all files, by host and path."""
    found = {
        f"{host}{artifact.path}": artifact.content
        for host, artifacts in tree.files.items()
        for artifact in artifacts
        if artifact.target is None
    }
    assert len(found) == sum(item.target is None for artifacts in tree.files.values() for item in artifacts)
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def compare(name: str, tree: Tree, update: bool) -> None:
    """Compare both ways: what is missing fails, and so does what is too much."""
    folder, listing = GOLDEN / name, GOLDEN / f"{name}.txt"
    if update:
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in contents(tree).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        GOLDEN.mkdir(exist_ok=True)
        listing.write_text(manifest(tree))
    expected, found = files_below(folder), contents(tree)
    assert sorted(found) == sorted(expected)
    for path, content in found.items():
        assert content.decode() == expected[path].decode(), path
    assert manifest(tree) == listing.read_text()


def variants() -> list[tuple[str, Manager]]:
    return [(name, manager) for name in examples() for manager in Manager if manager is not Manager.EXTERNAL]


def variant(name: str, manager: Manager, folder: Path) -> Tree | None:
    """Return the hosts of an example that another manager would be new to, under that; None if there are none."""
    texts, changed = {}, frozenset[str]()
    for path in examples()[name]:
        texts[path.name], hosts = under(manager, path.read_text())
        changed |= hosts
    changed &= FEW.get(name, changed)
    return render(texts, folder, changed) if changed else None


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.mark.parametrize("name", examples())
def test_files_of_the_example(name: str, update: bool, tmp_path: Path) -> None:
    tree = render({path.name: path.read_text() for path in examples()[name]}, tmp_path)
    assert all(tree.files.values())
    assert not any(tree.said.values())
    compare(name, tree, update)


@pytest.mark.parametrize(("name", "manager"), variants(), ids=lambda value: getattr(value, "value", value))
def test_files_of_the_example_under_another_manager(name: str, manager: Manager, update: bool, tmp_path: Path) -> None:
    tree = variant(name, manager, tmp_path)
    if tree is None:
        assert not (GOLDEN / f"{name}@{manager.value}.txt").exists()
        return
    for host, artifacts in tree.files.items():
        assert bool(artifacts) is not any(said.startswith("error") for said in tree.said[host])
    compare(f"{name}@{manager.value}", tree, update)


def test_there_is_no_golden_tree_of_nothing() -> None:
    wanted = set(examples()) | {
        f"{name}@{manager.value}"
        for name, manager in variants()
        if any(under(manager, path.read_text())[1] for path in examples()[name])
    }
    assert {path.stem for path in GOLDEN.glob("*.txt")} == wanted
    assert {path.name for path in GOLDEN.iterdir() if path.is_dir()} <= wanted


@pytest.mark.parametrize("name", examples())
def test_command_writes_these_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = examples()[name]
    fleet, _ = read_fleet({path.name: path.read_text() for path in paths})
    store, output = store_of(fleet, tmp_path / "store"), tmp_path / "out"
    assert main(["render", *map(str, paths), "--keys", str(store), "-o", str(output), "--color", "never"]) == 0
    # A machine without systemd's group says so.
    said = [line for line in capsys.readouterr().err.split("\n") if line.startswith(("error", "warning"))]
    assert all(line.startswith("warning[WG6007]") for line in said)
    own = {".gitignore", ".wgnet-manifest.json"}
    found = {path: content for path, content in files_below(output).items() if path not in own}
    # A link leads to a place on the host, so that nothing here is at its other end.
    assert found == files_below(GOLDEN / name)
    for line in (GOLDEN / f"{name}.txt").read_text().splitlines():
        path, mode, _owner, *rest = line.split(" ")
        on_disk = output / path
        if mode == "link":
            assert str(on_disk.readlink()) == rest[-1]
        else:
            assert f"{on_disk.stat().st_mode & 0o7777:04o}" == mode


def test_comparison_finds_what_is_missing_too_much_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = render({"two-peers.yaml": examples()["two-peers"][0].read_text()}, tmp_path)
    monkeypatch.setattr(f"{__name__}.GOLDEN", tmp_path / "golden")
    compare("pair", tree, update=True)
    golden = tmp_path / "golden"
    listing, file = golden / "pair.txt", next(path for path in (golden / "pair").rglob("*") if path.is_file())
    good, text = file.read_bytes(), listing.read_text()

    def fails() -> None:
        with pytest.raises(AssertionError):
            compare("pair", tree, update=False)

    file.unlink()
    fails()
    file.write_bytes(good + b"\n")
    fails()
    file.write_bytes(good)
    extra = file.with_name("extra")
    extra.write_bytes(b"")
    fails()
    extra.unlink()
    listing.write_text(text.replace("0640", "0644", 1))
    fails()
    listing.write_text(text.replace(" root:", " nobody:", 1))
    fails()
    listing.write_text(text)
    compare("pair", tree, update=False)
