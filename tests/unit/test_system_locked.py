"""Two at a time: the later one is told who is in its way, and touches nothing."""

from __future__ import annotations

import os
from pathlib import Path

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.system.install import write_system
from wgnet.system.lock import lock_folder


def write(root: Path, content: bytes) -> Diagnostics:
    """Write one file of a network into a system, and return what was reported."""
    diagnostics = Diagnostics()
    artifact = Artifact(path="/etc/wgnet/file", network="office", content=content)
    write_system(root, [artifact], networks=None, runtime=False, force=False, diagnostics=diagnostics)
    return diagnostics


def test_a_system_that_another_run_writes_is_left_alone(tmp_path: Path) -> None:
    assert not write(tmp_path, b"first\n").items
    other = lock_folder(None, str(tmp_path / "var/lib/wgnet"), wait=0)
    try:
        (told,) = write(tmp_path, b"second\n")
    finally:
        os.close(other)
    assert told.code is codes.LOCKED
    assert str(tmp_path / "var/lib/wgnet") in told.message
    assert (tmp_path / "etc/wgnet/file").read_bytes() == b"first\n"
    assert not write(tmp_path, b"second\n").items
    assert (tmp_path / "etc/wgnet/file").read_bytes() == b"second\n"
