"""Runs wgnet as people do: a process of its own, its streams apart."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from helpers import REPOSITORY

from wgnet.cli.main import main

PROGRAM = [sys.executable, "-m", "wgnet"]
#: Before a program that is to be interrupted: tests that run in the background have been told to ignore that.
INTERRUPTIBLE = ["env", "--default-signal=INT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended, and what it wrote to its two streams."""

    status: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """Return an environment in which nothing of the tester's own is left, but `variables`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_START") if name in os.environ}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8", **variables}


def wgnet(
    *arguments: str | Path,
    cwd: Path,
    stdin: str = "",
    stdout: IO[Any] | int = subprocess.PIPE,
    timeout: float = 60,
    **variables: str,
) -> Result:
    """Run one command line in a folder."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Result(status=done.returncode, out=done.stdout or "", err=done.stderr)


OFFICE = """\
wgnet: 1
network: {name: office, interface: wg0, subnets: [10.80.0.0/24], preshared-keys: true}
peering: {hub: fra}
hosts:
  fra:
    addresses: [10.80.0.1]
    public-key: "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
    endpoint: fra.example.net
    advertise: [192.168.10.0/24]
  nyc:
    addresses: [10.80.0.2]
    public-key: "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
"""

#: Two hosts without keys.
KEYLESS = "".join(line for line in OFFICE.splitlines(keepends=True) if "public-key" not in line)
BROKEN = OFFICE.replace("10.80.0.2", "10.80.0.300")
#: One warning, no error: nyc and sgp cannot reach each other.
WARNED = (
    OFFICE.replace("peering: {hub: fra}", "peering: mesh")
    + '  sgp: {addresses: [10.80.0.3], public-key: "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="}\n'
)


def wgnet_here(*arguments: str | Path) -> Result:
    """Run one command line in this process, which is quicker where only its result counts; paths are absolute."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Result(status=status, out=out.getvalue(), err=err.getvalue())
