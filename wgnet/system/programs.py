"""The programs of the system that wgnet runs: wg(8), ip(8), systemctl(1) and their like.

Stage: system. A program is found where an administrator's are, whatever PATH says besides; it runs without a shell, in
the C locale, for a limited time. No secret is ever an argument: a secret goes through an open file in memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

__all__ = ["ProgramError", "find_program", "memory_file", "run_program"]

_MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
#: How much of what a program says of its failure is passed on, in characters.
_SAID = 500


class ProgramError(Exception):
    """A program is missing, failed or took too long. The text says which and why, and holds no secret."""


def find_program(name: str) -> str | None:
    """Return where a program lies, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_MORE_PATH}")


def run_program(
    name: str, arguments: Sequence[str], *, timeout: float = 30, inherited: Sequence[int] = (), missing: str = ""
) -> str:
    """Run a program and return what it printed. `timeout` is in seconds; `inherited` are descriptors that it gets.

    `missing` names the package to install where the program is missing. Raises `ProgramError`.
    """
    path = find_program(name)
    if path is None:
        more = f"; install {missing}" if missing else ""
        raise ProgramError(f"there is no program '{name}' here{more}")
    environment = {"PATH": _MORE_PATH, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    for passed in ("DBUS_SYSTEM_BUS_ADDRESS", "WG_ENDPOINT_RESOLUTION_RETRIES"):
        if passed in os.environ:
            environment[passed] = os.environ[passed]
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            pass_fds=tuple(inherited),
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"'{name}' did not end within {timeout:g} seconds") from None
    except OSError as error:
        raise ProgramError(f"'{name}' cannot be run: {error.strerror}") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:_SAID] or f"status {done.returncode}"
        raise ProgramError(f"'{name}' failed: {said}")
    return done.stdout


def memory_file(text: str) -> int:
    """Return a descriptor of a file that lies in memory alone, for a program to read as /dev/fd/N."""
    descriptor = os.memfd_create("wgnet", os.MFD_CLOEXEC)
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
