"""One writer at a time.

Stage: disk. The lock is flock(2) on the very folder that is written, so that no file is left over and a killed run
holds nothing. Since a folder may be exchanged for another while one waits, the holder looks again whether the name
still means what it locked. Must not wait for ever, or report anything itself.
"""

from __future__ import annotations

import fcntl
import os
import time

from wgnet.system.files import FOLDER

__all__ = ["BusyError", "lock_folder"]

_PAUSE = 0.02


class BusyError(Exception):
    """Another process holds the lock."""


def lock_folder(parent: int | None, name: str, *, wait: float) -> int:
    """Return a descriptor of the folder `name` (in the folder `parent`, or a path), with its lock, until it is closed.

    `wait` is in seconds; 0 asks once. Raises `BusyError`, and `OSError` (`FileNotFoundError`) when it cannot be opened.
    """
    until = time.monotonic() + wait
    while True:
        descriptor = os.open(name, FOLDER, dir_fd=parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=parent, follow_symlinks=False)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() >= until:
                raise BusyError from None
            time.sleep(_PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            # Exchanged or removed in between: lock what stands there now.
            os.close(descriptor)
