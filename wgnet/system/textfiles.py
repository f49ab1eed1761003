"""Files of a person's own, a topology above all: made where there is none, or replaced as one step.

Input: a path and content. Output: the file, or a diagnostic that says why not. Knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import system_reason


def create_file(path: Path, content: bytes, diagnostics: Diagnostics) -> bool:
    """Write a file that does not exist yet; return False after reporting why not."""
    try:
        with path.open("xb") as stream:
            stream.write(content)
    except OSError as error:
        ways = "name another file" if isinstance(error, FileExistsError) else ()
        diagnostics.report(codes.CANNOT_WRITE, f"cannot write '{path}': {system_reason(error)}", help=ways)
        return False
    return True


def replace_file(path: Path, content: bytes, diagnostics: Diagnostics) -> bool:
    """Replace a file atomically, its mode and owner kept; a symbolic link stays one. Return False after a report."""
    target = Path(os.path.realpath(path))
    staged = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        status = target.stat()
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):
                        os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o7777)
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            staged.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                staged.unlink()
            raise
    except OSError as error:
        diagnostics.report(codes.CANNOT_WRITE, f"cannot write '{path}': {system_reason(error)}; nothing was changed")
        return False
    return True
