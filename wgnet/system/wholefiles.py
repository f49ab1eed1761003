"""Files of wgnet's own state, and those that tell a manager something: whole or not at all, with just their modes.

Stage: system. Input: a path below folders of root's, or of the user's own, and what goes there; output: the file.
The umask counts for nothing: with 077 systemd-networkd, which is not root, could not read what it is told; with 0
anybody could write what root believes. Must not follow a symbolic link at the file's own name. All functions raise
`OSError`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["make_folders", "place_of_new", "put_file"]


def put_file(path: Path, content: bytes, mode: int) -> None:
    """Write or replace a file, whole or not at all; its mode is right before the first byte, which may be secret.

    Only who is killed leaves anything beside it: see `place_of_new`.
    """
    new = place_of_new(path)
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def place_of_new(path: Path) -> Path:
    """Return where a file's new content is until it is whole."""
    return path.with_name(f".{path.name}.new")


def make_folders(path: Path, mode: int = 0o755) -> None:
    """Make a folder, and those above it that are missing; one that is there stays as it is."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(mode=0o700)
            each.chmod(mode)
