"""README's commands run as they stand, and come to what it shows; its picture and links are the checkout's.

Blocks of `console` are run here. Those of `bash` change a running system, or the reader's own folders: of them it is
known that a shell understands them, and that their units are those that are rendered, in the order of their effect.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import check_texts

import wgnet
from wgnet.cli.commands.init import FIRST_TOPOLOGY
from wgnet.managers.extras import Extras
from wgnet.managers.templates import Templates
from wgnet.record import replace

CHECKOUT = Path(__file__).parent.parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")

#: Of the blocks in order: each command, and what is shown of its output.
CONSOLE: list[tuple[str, str]] = [
    (command, output)
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]

#: The blocks that are for a live system.
LIVE = re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def generalise(text: str) -> str:
    """Return a text without what differs from run to run: keys, and the profile's number that comes of names."""
    return re.sub(r"[A-Za-z0-9+/]{43}=", "KEY", text)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Make `wgnet` a command, in an environment that says nothing else about the output."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "wgnet"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wgnet "$@"\n')
    program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(Path(wgnet.__file__).parent.parent), "LC_ALL": "C.UTF-8"}


def test_there_are_commands_with_what_they_print() -> None:
    assert len([output for _, output in CONSOLE if output]) >= 8


def test_commands_run_and_print_what_is_shown(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    for command, shown in CONSOLE:
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == (1 if "error[" in shown else 0), f"{command}: {done.stdout}{done.stderr}"
        assert done.stderr == "" or os.geteuid(), command
        expected, found = generalise(shown), generalise(done.stdout)
        if expected.endswith("\n...\n"):
            expected = expected.removesuffix("...\n")
            assert found.startswith(expected), command
        else:
            assert found == expected, command
    assert sorted(path.name for path in (folder / "rendered").iterdir() if path.is_dir()) == [
        "gateway",
        "laptop",
        "phone",
    ]
    assert (folder / "host/etc/systemd/network/50-wgnet-wg0.netdev").is_file()
    assert (folder / "host/etc/wireguard/wg0.conf").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("block", LIVE)
def test_commands_for_a_live_system_are_understood_by_a_shell(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("document", ["README.md", "man/wgnet.1"])
def test_units_are_started_in_the_order_of_their_effect(document: str) -> None:
    topology = (
        FIRST_TOPOLOGY.replace("subnets: [10.80.0.0/24]", 'subnets: [10.80.0.0/24, "fd42:80::/64"]')
        .replace("[10.80.0.1]", '[10.80.0.1, "fd42:80::1"]')
        .replace("    advertise:", "    masquerade: true\n    advertise:")
    )
    _, fleet = check_texts(topology)
    assert fleet is not None
    # What no single host of it has all of: it uses an exit node as well.
    plan = replace(fleet.plan_host("gateway").interfaces[0], restore_mark=frozenset({4, 6}))
    files = [file.path for file in Extras(Templates()).render(plan)]
    parts = [
        "systemctl restart systemd-sysctl.service" if "/sysctl.d/" in path else f" {Path(path).name}\n"
        for path in files
        if "/sysctl.d/" in path or path.startswith("/etc/systemd/system/wgnet-")
    ]
    assert len(parts) == 4
    text = re.sub(r" +#.*", "", (CHECKOUT / document).read_text(encoding="utf-8"))
    text = text[text.index("systemctl daemon-reload\n") :]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert max(places) < text.index("networkctl reload\n")


def test_the_two_blocks_that_a_fresh_machine_runs() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert blocks == [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/wgnet render examples/office.yaml\n",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest\n",
    ]


def test_the_first_block_renders(tmp_path: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["wgnet", "render", str(CHECKOUT / "examples/office.yaml"), "--diagnostics", "concise"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rendered/fra/etc/systemd/network/50-wgnet-wg0.netdev").is_file()


def test_the_picture_is_the_one_that_the_example_makes() -> None:
    made = subprocess.run(
        [sys.executable, "docs/picture.py", "examples/office.yaml"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(Path(wgnet.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        check=True,
    )
    assert made.stdout == (CHECKOUT / "docs/office.svg").read_bytes(), (
        "run: python docs/picture.py examples/office.yaml > docs/office.svg"
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_what_is_there(name: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", (CHECKOUT / name).read_text(encoding="utf-8"))
    assert [target for target in targets if not (CHECKOUT / target).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_are_named_are_there(name: str) -> None:
    from wgnet.cli.parser import build_parser

    commands = next(action.choices for action in build_parser()._actions if action.dest == "command")
    assert commands is not None
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`wgnet ([a-z]+)", text)) | set(re.findall(r"^\$ wgnet ([a-z]+)", text, re.MULTILINE))
    assert named <= set(commands)


def test_versions_that_are_supported_are_the_programs() -> None:
    from wgnet.managers import networkd

    assert f"| systemd-networkd | {networkd.OLDEST} to " in README
