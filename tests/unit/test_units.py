"""The units that wgnet's packages install: systemd understands them, and they may do no more than they must."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers import REPOSITORY

UNITS = REPOSITORY / "packaging/systemd"
#: Of 100: what is left is the network that it is there for. systemd-analyze(1), "security".
MOST_EXPOSED = 20


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.iterdir()))
def test_systemd_understands_a_unit(unit: str, tmp_path: Path) -> None:
    # Where wgnet is not installed another program stands in for it.
    for path in UNITS.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace("=/usr/bin/wgnet", "=/bin/true"), encoding="utf-8")
    done = analyze("--man=no", "verify", tmp_path / unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_in_a_sandbox() -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", UNITS / "wgnet-refresh.service")
    assert done.returncode == 0, done.stdout


def test_the_service_runs_the_command_with_options_that_it_has() -> None:
    from wgnet.cli.parser import build_parser

    lines = (UNITS / "wgnet-refresh.service").read_text(encoding="utf-8").splitlines()
    (command,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    program, *arguments = command.split()
    assert program == "/usr/bin/wgnet"
    options = build_parser(arguments).parse_args(arguments)
    assert (options.command, options.quiet) == ("refresh", True)
    # It has ended before the timer starts it again.
    timer = (UNITS / "wgnet-refresh.timer").read_text(encoding="utf-8")
    assert getattr(options, "for") < 30
    assert "OnUnitActiveSec=30s" in timer
