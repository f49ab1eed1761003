"""Where a path below a root really lies: symbolic links lead where they do on the system that the root is to be.

Stage: system. A link in an image to `/etc/shadow` is the image's, and never the file of the machine that builds it.
For reading; whoever writes walks with descriptors (`files.Root`). Must not open anything.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from wgnet.managers.templates import Templates

__all__ = ["own_templates", "path_below"]

#: As many links as the kernel follows; MAXSYMLINKS of Linux.
_MAX_LINKS = 40


def path_below(root: str, path: str) -> str:
    """Return the path of a file, given from the root on, with links followed as if `root` were `/`.

    What does not exist is taken as it is written. Raises `OSError` where links lead round in a circle.
    """
    if os.path.abspath(root) == "/":
        return os.path.join("/", path)
    todo = [*reversed(path.split("/"))]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            del done[-1:]
            continue
        try:
            target = os.readlink(os.path.join(root, *done, part))
        except OSError:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            done = []
        todo += reversed(target.split("/"))
    return os.path.join(root, *done)


def own_templates(root: Path) -> Templates:
    """Return the templates with those in the place of the package's that the system below a root has."""

    def locate(path: Path) -> Path:
        return Path(path_below(str(root), os.path.relpath(path, root)))

    return Templates(root / "etc/wgnet/templates", locate)
