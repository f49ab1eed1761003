"""What a test needs of the machine. Where it is missing the test is skipped, and in continuous integration it fails."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

#: The distribution's interpreter, which sees its libraries; the one that runs the tests may not.
SYSTEM_PYTHON = "/usr/bin/python3"


def needs(program: str) -> None:
    """Skip a test where a program is missing; fail it in continuous integration (`CI` set)."""
    if shutil.which(program, path="/usr/sbin:/usr/bin:/usr/lib/polkit-1") is None:
        _missing(f"{program} is not installed")


def needs_module(name: str, version: str = "") -> None:
    """Do the same about a module of the distribution's interpreter, or a `version` of a library of gi's."""
    program = f"import gi; gi.require_version({name!r}, {version!r})" if version else f"import {name}"
    done = subprocess.run([SYSTEM_PYTHON, "-c", program], capture_output=True, check=False)
    if done.returncode:
        _missing(f"{SYSTEM_PYTHON} has no {name} {version}")


def _missing(why: str) -> None:
    pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
