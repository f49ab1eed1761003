"""Namespaces to run real managers in, and the versions of them that are there.

Input: a host's rendered tree, and a version. Output: what the daemon or command said. Nothing outside of the
namespaces is changed. As root, daemons drop to their own users as they do on a host; without root, a user
namespace serves, and what hangs on owners and users is then not tested by the daemon.
"""

from __future__ import annotations

import functools
import grp
import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pytest
from fetch_managers import SUITES, suite_root

#: Names of versions that the lint functions take: this machine's own, and what `fetch_managers.py` fetched.
VERSIONS = ("installed", *SUITES)

_ACCOUNTS = ("root", "systemd-network", "messagebus", "nobody")


class File(Protocol):
    """What is to be put into a tree: the fields of `wgnet.managers.artifact.Artifact` that matter here."""

    @property
    def path(self) -> str: ...
    @property
    def content(self) -> bytes: ...
    @property
    def mode(self) -> int: ...
    @property
    def owner(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def target(self) -> str | None: ...


class SandboxError(Exception):
    """The namespaces could not be made, or a daemon did not start in them."""


def available() -> list[str]:
    """Return the versions that can be run here.

    Raises SandboxError in continuous integration (`CI` set) when one is missing, so that none is left out silently.
    """
    found = [version for version in VERSIONS if version == "installed" or suite_root(version) is not None]
    if os.environ.get("CI") and len(found) < len(VERSIONS):
        raise SandboxError(f"run tests/fetch_managers.py: found only {', '.join(found)}")
    return found


def root_of(version: str) -> Path:
    """Return the root of the file system that holds a version's programs.

    `bookworm` is this machine where that is its release, else what was fetched under the name.
    """
    if version == "installed" or version == _codename():
        return Path("/")
    root = suite_root(version)
    if root is None:
        raise SandboxError(f"'{version}' is not there; run: python3 tests/fetch_managers.py {version}")
    return root


@functools.cache
def _codename() -> str:
    match = re.search(r"^VERSION_CODENAME=\"?(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return match[1] if match else ""


def is_root() -> bool:
    """Tell whether owners can be set and daemons drop to their own users."""
    return os.geteuid() == 0


def require_root(why: str) -> None:
    """Let only root go on with a test: others skip it, but in continuous integration (`CI` set) they fail it."""
    if is_root():
        return
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def accounts() -> dict[str, str]:
    """Return the files of /etc that daemons need on the inside; users have this machine's numbers."""
    users, groups = [], []
    for name in _ACCOUNTS:
        try:
            user = pwd.getpwnam(name)
            users.append(f"{name}:x:{user.pw_uid}:{user.pw_gid}::/:/usr/sbin/nologin\n")
            groups.append(f"{grp.getgrgid(user.pw_gid).gr_name}:x:{user.pw_gid}:\n")
        except KeyError:
            continue
    return {
        "passwd": "".join(users),
        "group": "".join(groups),
        # networkd derives hardware addresses from it.
        "machine-id": "0123456789abcdef0123456789abcdef\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    }


def install(files: Iterable[File], tree: Path) -> Path:
    """Write files below `tree` as they are to stand on a host, owners too where this is root; return `tree`.

    Raises KeyError for an owner or a group that this machine does not have.
    """
    for file in files:
        path = tree / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.target is not None:
            path.symlink_to(file.target)
            continue
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            if is_root():
                os.fchown(out.fileno(), pwd.getpwnam(file.owner).pw_uid, grp.getgrnam(file.group).gr_gid)
            os.fchmod(out.fileno(), file.mode)
            out.write(file.content)
    return tree


def enter(request: dict[str, Any]) -> dict[str, Any]:
    """Have `inside.py` serve a request in new namespaces; return its answer.

    Raises SandboxError with what it said where it fails.
    """
    user = [] if is_root() else ["--user", "--map-current-user", "--keep-caps"]
    command = ["unshare", *user, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inside = Path(__file__).with_name("inside.py")
    done = subprocess.run(
        [*command, "--", sys.executable, "-I", "-S", str(inside)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0 or not done.stdout:
        raise SandboxError(f"exit status {done.returncode}: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run_command(
    command: list[str],
    *,
    version: str = "installed",
    tree: Path | None = None,
    text: str = "",
    environment: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run a version's program without network, over a tree's files if given; return status, output and errors."""
    answer = enter(
        {
            "what": "command",
            "root": str(root_of(version)),
            "tree": None if tree is None else str(tree.resolve()),
            "accounts": accounts(),
            "command": command,
            "input": text,
            "environment": environment or {},
        }
    )
    return answer["status"], answer["stdout"], answer["stderr"]
