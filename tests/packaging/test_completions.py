"""Completions are those of the parser: bash is asked, and every command and option stands in zsh's and fish's scripts.

`.ci/completions` asks all three shells, where the packages are installed.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from wgnet.cli.parser import build_parser

CHECKOUT = Path(__file__).parent.parent.parent
PROGRAM = CHECKOUT / "packaging" / "completions.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("completions", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["completions"] = module
    spec.loader.exec_module(module)
    return module


completions = load()
COMMANDS = list(completions.read_commands(build_parser()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("completions")
    (made / "some folder").mkdir()
    for name in ("office.yaml", "two words.yaml", "other.txt"):
        (made / name).touch()
    (made / "wgnet.bash").write_text(completions.bash(COMMANDS))
    return made


ASK = r"""
. ./wgnet.bash
compopt() { :; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_wgnet
printf '%s\n' "${COMPREPLY[@]}"
"""


def ask(folder: Path, line: str) -> list[str]:
    """Return what bash completes the last word of a line with; `=` is a word of its own, as in COMP_WORDBREAKS."""
    words = [word for part in line.split(" ") for word in re.split(r"(=)", part) if word or not part]
    if line.endswith("="):
        words = words[:-1] if words[-1] == "" else words
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "ask", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [each for each in done.stdout.split("\n") if each]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("wgnet ch", ["check"]),
        ("wgnet --color=al", ["always"]),
        ("wgnet --color=", ["auto", "always", "never"]),
        ("wgnet --color always sho", ["show"]),
        ("wgnet check ", ["office.yaml", "two words.yaml", "some folder"]),
        ("wgnet check off", ["office.yaml"]),
        ("wgnet check --file=off", ["office.yaml"]),
        ("wgnet check -f off", ["office.yaml"]),
        ("wgnet check office.yaml tw", ["two words.yaml"]),
        ("wgnet check --str", ["--strict"]),
        ("wgnet check -- --str", []),
        ("wgnet render --keys o", []),
        ("wgnet render --keys s", ["some folder"]),
        ("wgnet render --diagnostics=js", ["json"]),
        ("wgnet render --stdout --host edge off", ["office.yaml"]),
        ("wgnet keys ", ["generate", "show", "export", "rotate"]),
        ("wgnet keys rotate s", ["switch"]),
        ("wgnet keys rotate switch o", ["office.yaml"]),
        ("wgnet keys rotate --host edge p", ["prepare"]),
        ("wgnet keys show --passphrase-file o", ["office.yaml", "other.txt"]),
        ("wgnet status --watch --e", ["--exit-code"]),
        ("wgnet explain WG300", [f"WG300{number}" for number in range(1, 10)]),
        ("wgnet remove ", []),
        ("wgnet remove check ", []),
    ],
)
def test_bash_answers(folder: Path, line: str, answer: list[str]) -> None:
    assert sorted(ask(folder, line)) == sorted(answer)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words) or "wgnet")
def test_every_shell_has_every_option(folder: Path, command: object) -> None:
    words = command.words  # type: ignore[attr-defined]
    zsh = re.search(rf"^{'_'.join(('_wgnet', *words))}\(\) {{\n(.*?)^}}$", ZSH, re.MULTILINE | re.DOTALL)
    assert zsh
    at = f"complete -c wgnet -n '{' '.join(('__fish_wgnet_at', *words))}' "
    fish = [line.removeprefix(at) for line in FISH.splitlines() if line.startswith(at)]
    flags = [flag for option in command.options for flag in option.flags]  # type: ignore[attr-defined]
    assert "--help" in flags
    assert sorted(ask(folder, " ".join(("wgnet", *words, "-")))) == sorted(flags)
    for flag in flags:
        assert re.search(rf"['*)]{flag}[=+]?-?\[", zsh[1]), flag
        word = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
        assert any(re.search(rf"(^| ){word} ", line) for line in fish), flag
    for name, _ in command.below:  # type: ignore[attr-defined]
        assert f"                {name}) " in zsh[1]
        assert any(line.startswith(f"-a {name} ") for line in fish)


ZSH = completions.zsh(COMMANDS)
FISH = completions.fish(COMMANDS)


def test_what_is_hidden_is_not_completed() -> None:
    script = completions.bash(COMMANDS)
    assert all(flag not in text for flag in ("--armed", "--boot") for text in (script, ZSH, FISH))


def test_program_prints_a_script() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "fish"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, FISH, "")
    done = subprocess.run([sys.executable, str(PROGRAM), "csh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
