"""Debian packages for the lab's hosts: wgnet's own, as `packaging/build` makes it, and others that bring a topology.

Input: a suite; `$WGNET_LAB_PACKAGES`, a folder with a folder of packages for each suite, else they are built here from
what is committed. Output: files for the guest, and the scripts that install them. It runs nothing in a machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from helpers import REPOSITORY

from lab.image import LabError
from lab.machine import File

VARIABLE = "WGNET_LAB_PACKAGES"
#: Debian's next suite has no packages of its own yet: they are those of the one before, as on a machine that upgrades.
_BUILT_FOR = {"forky": "trixie"}
_BUILD = REPOSITORY / "packaging/build"
#: Where packages lie in the guest.
FOLDER = "/var/tmp/packages"


@dataclass(frozen=True)
class OtherPackage:
    """A package of somebody else: its tree, the command that builds it, and where it lies then."""

    files: tuple[File, ...]
    build: str
    path: str


@dataclass(frozen=True)
class Packages:
    """wgnet's packages by suite; `folder` takes those that are built here, once a suite."""

    folder: Path
    _found: dict[str, Path] = field(default_factory=dict)

    def wgnet(self, suite: str) -> File:
        """Return the package `wgnet` of a suite, as a file for the guest. Raises LabError where there is none."""
        if suite not in self._found:
            self._found[suite] = self._find(_BUILT_FOR.get(suite, suite))
        return File(f"{FOLDER}/wgnet.deb", self._found[suite].read_bytes())

    def _find(self, suite: str) -> Path:
        named = os.environ.get(VARIABLE)
        folder = (Path(named) if named else self.folder) / suite
        if not named:
            command = [str(_BUILD), "deb", f"--suite={suite}", f"--output={folder}"]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode:
                said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
                raise LabError(f"{_BUILD} failed with status {done.returncode}:\n{said}")
        found = sorted(folder.glob("wgnet_*.deb"))
        if len(found) != 1:
            raise LabError(f"{folder} has {len(found)} packages wgnet_*.deb, not one" + f" (${VARIABLE})" * bool(named))
        return found[0]


def other_package(name: str, version: str, topologies: Mapping[str, bytes]) -> OtherPackage:
    """Return a package that ships topologies, by file name, and nothing else."""
    tree = f"{FOLDER}/{name}-{version}"
    control = (
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: ACME <root@localhost>\nDepends: wgnet\n"
        f"Description: the VPN of ACME\n"
    )
    files = [File(f"{tree}/DEBIAN/control", control.encode())]
    files += [File(f"{tree}/usr/lib/wgnet/{file}", content) for file, content in topologies.items()]
    build = f"dpkg-deb --root-owner-group --build {tree} {tree}.deb >/dev/null"
    return OtherPackage(tuple(files), build, f"{tree}.deb")
