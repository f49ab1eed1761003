"""The rules of ARCHITECTURE.md that a machine can hold: layers, who may import what, sizes, start-up."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wgnet

PACKAGE = Path(wgnet.__file__).parent
CHECKOUT = Path(__file__).parent.parent.parent
#: From the bottom up: a module imports from its own layer and from those before it.
LAYERS = (
    "record",
    "diagnostics",
    "keys",
    "syntax",
    "model",
    "routing",
    "plan",
    "checks",
    "managers",
    "importers",
    "live",
    "system",
    "cli",
    "desktop",
)
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 600


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Yield each module that a module imports, the line, and whether that is at its top, so paid by every start."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.module, node.lineno, id(node) in top
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, id(node) in top
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in top


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE or p.stem in LAYERS], ids=relative)
def test_imports_run_downwards(path: Path) -> None:
    own = LAYERS.index(layer_of(path))
    upwards = [
        f"line {line}: {name}"
        for name, line, _ in imports(path)
        if name.startswith("wgnet.") and name.split(".")[1] in LAYERS and LAYERS.index(name.split(".")[1]) > own
    ]
    assert upwards == []


def test_every_package_has_a_layer() -> None:
    names = {layer_of(path) for path in MODULES if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")}
    assert names <= set(LAYERS)


def importers_of(library: str) -> dict[str, bool]:
    """Return the modules that import a library, and whether any does so at its top."""
    found: dict[str, bool] = {}
    for path in MODULES:
        for name, _, at_top in imports(path):
            if name.split(".")[0] == library:
                found[relative(path)] = found.get(relative(path), False) or at_top
    return found


def test_one_module_knows_the_template_language_and_imports_it_when_used() -> None:
    assert importers_of("jinja2") == {"managers/templates.py": False}


def test_cryptography_is_imported_by_keys_alone_and_when_used() -> None:
    found = importers_of("cryptography")
    assert found
    assert all(name.startswith("keys/") and not at_top for name, at_top in found.items()), found


def test_one_module_of_the_system_knows_the_dbus_library() -> None:
    found = importers_of("dbus_next")
    assert len(found) <= 1
    assert all(name.startswith("system/") for name in found), found


def test_a_screen_is_the_import_dialogues_alone() -> None:
    found = importers_of("gi")
    assert found == {"desktop/dialog.py": True, "desktop/main.py": False}
    shown = {
        relative(path)
        for path in MODULES
        for name, _, at_top in imports(path)
        if at_top and name.startswith("wgnet.desktop.dialog")
    }
    assert shown == set()


def test_yaml_is_read_by_one_module() -> None:
    assert set(importers_of("yaml")) == {"syntax/events.py"}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < MOST_LINES
    assert not text or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("arguments", [["--help"], ["check", "TOPOLOGY"], ["explain", "WG3003"], ["schema"]], ids=str)
def test_start_up_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    topology = tmp_path / "office.yaml"
    topology.write_text(
        "wgnet: 1\nnetwork: {name: office, subnets: [10.80.0.0/24]}\npeering: {hub: a}\n"
        "hosts:\n  a: {addresses: [10.80.0.1], endpoint: a.example.net}\n"
        "  b: {addresses: [10.80.0.2], manager: networkmanager}\n  c: {addresses: [10.80.0.3], manager: wg-quick}\n"
    )
    program = (
        "import sys\nfrom wgnet.cli.main import main\n"
        "try:\n    status = main(sys.argv[1:])\nexcept SystemExit as end:\n    status = end.code\n"
        "assert not status, status\n"
        "print('imported:', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, *(str(topology) if word == "TOPOLOGY" else word for word in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("imported:")[2].split())
    assert "argparse" in loaded
    assert loaded & {"jinja2", "cryptography", "dbus_next", "asyncio"} == set()
    if arguments[0] in ("--help", "check"):
        # Each costs a large part of a bare start: `record` and TYPE_CHECKING stand in for them.
        assert loaded & {"dataclasses", "inspect", "typing"} == set()


def test_the_version_is_the_changelogs_latest() -> None:
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+)", text, re.MULTILINE)
    assert versions
    assert versions[0] == wgnet.__version__


def test_architecture_names_every_package_and_the_order_of_the_layers() -> None:
    text = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = sorted({layer_of(path) for path in MODULES if path.parent != PACKAGE})
    assert [name for name in packages if f"`{name}/`" not in text] == []
    order = re.search(r"^    (record < .*)$", text, re.MULTILINE)
    assert order is not None
    assert order.group(1).split(" < ") == [name for name in LAYERS if name in packages or name == "record"]
