"""What desktops read: the media type, the entry, the metadata and the icons, each by the tool that judges it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from realparsers.needs import SYSTEM_PYTHON, needs, needs_module

import wgnet

CHECKOUT = Path(__file__).parent.parent.parent
FOLDER = CHECKOUT / "packaging" / "desktop"
ENTRY = FOLDER / "org.example.wgnet.desktop"
METADATA = FOLDER / "org.example.wgnet.metainfo.xml"
ICONS = sorted(FOLDER.rglob("*.svg"))
TYPE = "application/x-wgnet+yaml"


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def entry() -> dict[str, str]:
    return dict(line.split("=", 1) for line in ENTRY.read_text().splitlines() if "=" in line)


def test_the_entry_is_valid_and_starts_the_dialogue() -> None:
    needs("desktop-file-validate")
    assert run("desktop-file-validate", ENTRY) == ""
    found = entry()
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    program, argument = found["Exec"].split()
    assert program in scripts
    assert argument == "%f"
    assert found["MimeType"] == f"{TYPE};"


def test_the_metadata_are_valid_and_name_the_entry() -> None:
    needs("appstreamcli")
    run("appstreamcli", "validate", "--no-net", METADATA)
    tree = ElementTree.parse(METADATA).getroot()
    assert tree.findtext("launchable") == ENTRY.name
    assert tree.findtext("provides/mediatype") == TYPE
    assert tree.findtext("provides/binary") == entry()["TryExec"]


def test_a_topology_has_its_own_type(tmp_path: Path) -> None:
    needs("update-mime-database")
    source = Path("/usr/share/mime/packages/freedesktop.org.xml")
    folder = tmp_path / "mime" / "packages"
    folder.mkdir(parents=True)
    shutil.copy(source, folder)
    shutil.copy(FOLDER / "wgnet.xml", folder)
    run("update-mime-database", tmp_path / "mime")
    needs_module("gi")
    program = "from gi.repository import Gio\nfor name in ('office.wgnet.yaml', 'office.yaml', 'OFFICE.WGNET.YAML'):\n"
    program += "    print(Gio.content_type_guess(name, None)[0])"
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", program],
        env={"XDG_DATA_DIRS": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=True,
    )
    own, other, loud = done.stdout.split()
    assert own == loud == TYPE
    assert other.endswith("yaml")
    assert other != TYPE
    assert f"{TYPE} " in (tmp_path / "mime" / "subclasses").read_text()


@pytest.mark.parametrize("path", ICONS, ids=lambda path: path.stem)
def test_an_icon_can_be_drawn(path: Path, tmp_path: Path) -> None:
    needs("rsvg-convert")
    for size in (16, 64):
        run("rsvg-convert", "-w", str(size), "-h", str(size), "-o", tmp_path / "icon.png", path)
        assert (tmp_path / "icon.png").stat().st_size > 100


def test_the_icons_are_those_that_are_asked_for() -> None:
    names = {path.stem for path in ICONS}
    assert names == {"wgnet", "wgnet-symbolic", "application-x-wgnet"}
    assert entry()["Icon"] == "wgnet"
    for path in ICONS:
        text = path.read_text()
        # Nothing is fetched, and a symbolic icon takes the theme's colour.
        assert not re.search(r"href|<image|<script", text)
        assert path.parent.parent.name == ("symbolic" if path.stem.endswith("symbolic") else "scalable")


def test_the_window_is_known_by_the_entrys_name() -> None:
    source = Path(wgnet.__file__).parent.joinpath("desktop", "dialog.py").read_text()
    assert f'APPLICATION = "{ENTRY.stem}"' in source
    assert entry()["StartupWMClass"] == ENTRY.stem
