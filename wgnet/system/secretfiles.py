"""Opening and creating the files that hold a secret.

Stage: system. Input: names and bytes; output: bytes, folders, or a `Trouble` that says in words what is in
the way. Files are opened below folders that are open already, never through a symbolic link, and what is
judged is what was opened, so nothing can be exchanged in between. A new file has its owner and mode before
its first byte, appears under its name whole or not at all, and never replaces another. No trouble holds a
content.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = [
    "Rules",
    "Trouble",
    "create_secret",
    "folder_at",
    "folder_beneath",
    "list_folder",
    "read_secret",
    "remove_leftovers",
    "shred_secret",
    "take_over_secret",
    "top_folder",
]

#: In bytes; more than the preshared keys of the largest network's hub take (90 bytes for each peer).
SIZE_LIMIT = 16 * 1024 * 1024

#: How a file is called that is not whole yet. No host and no network is called so.
_NEW = ".wgnet-new-"
#: After this many seconds such a file is what a killed run left behind; writing one takes milliseconds.
_LEFTOVER_AGE = 600

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a file or folder cannot be used: the message of a diagnostic, and its help."""

    message: str
    help: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is demanded of a file or folder: mode bits that must not be set, and who may own it.

    Without `own`, any owner will do; with it, only the user that runs this, and root, who can read
    everything anyway.
    """

    forbidden: int
    own: bool

    def judge(self, found: os.stat_result, shown: str) -> Trouble | None:
        """Return what is wrong with an open file or folder."""
        if self.own and found.st_uid not in {os.geteuid(), 0}:
            return Trouble(
                f"'{shown}' belongs to another user (uid {found.st_uid})",
                (f"run `chown {os.geteuid()} {shlex.quote(shown)}` if you trust its content",),
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & self.forbidden:
            wanted = mode & ~self.forbidden
            chmod = f"run `chmod {wanted:o} {shlex.quote(shown)}`"
            modes = f"expected mode {wanted:04o} or less, found {mode:04o}"
            if stat.S_ISDIR(found.st_mode):
                return Trouble(f"other users may exchange what is in '{shown}': {modes}", (chmod,))
            return Trouble(
                f"other users may read '{shown}': {modes}",
                (chmod, "make a new key if somebody else may have read this one"),
            )
        return None


@contextlib.contextmanager
def top_folder(path: Path, rules: Rules, *, make: int | None = None) -> Iterator[int | Trouble | None]:
    """Open a folder that the user named, through symbolic links too; None if it is not there.

    With `make` it is made, with that mode, if its parent exists.
    """
    made = None
    if make is not None:
        try:
            os.mkdir(path, make)
            made = make
        except FileExistsError:
            pass
        except OSError as error:
            yield _failed("make", str(path), error)
            return
    # What was made a moment ago is no link, unless somebody exchanged it.
    flags = _FOLDER_FLAGS if made is None else _FOLDER_FLAGS | os.O_NOFOLLOW
    with _opened(str(path), None, flags, str(path), rules, made=made) as folder:
        if made is not None and isinstance(folder, int):
            # The parent may be closed to reading; then the folder is on the disk a little later.
            with contextlib.suppress(OSError), _descriptor(os.open(path.parent, _FOLDER_FLAGS)) as parent:
                os.fsync(parent)
        yield folder


@contextlib.contextmanager
def folder_at(
    parent: int, name: str, shown: str, rules: Rules, *, make: int | None = None
) -> Iterator[int | Trouble | None]:
    """Open a folder in an open one, but no symbolic link; None if it is not there.

    With `make` it is made, with that mode.
    """
    made = None
    if make is not None:
        try:
            # Never wider than it is to be; what the umask takes away is given back once it is open.
            os.mkdir(name, make, dir_fd=parent)
            made = make
        except FileExistsError:
            pass
        except OSError as error:
            yield _failed("make", shown, error)
            return
    with _opened(name, parent, _FOLDER_FLAGS | os.O_NOFOLLOW, shown, rules, made=made) as folder:
        if made is not None and isinstance(folder, int):
            try:
                os.fsync(parent)
            except OSError as error:
                yield _failed("make", shown, error)
                return
        yield folder


@contextlib.contextmanager
def folder_beneath(
    root: Path, folder: PurePosixPath, rules: Rules, *, make: int | None = None
) -> Iterator[int | Trouble | None]:
    """Open an absolute folder of the system below `root`; None if it is not there.

    Below another root than '/' no symbolic link is followed: an absolute one would lead out of it. On the
    running system they are the system's own (/var/run, say). `make` is the mode to make the last part with.
    Only the last part is judged by `rules`.
    """
    if not folder.is_absolute() or ".." in folder.parts:
        raise ValueError("a folder of the system is absolute and normalised")
    if root == Path("/"):
        with top_folder(Path(folder), rules, make=make) as opened:
            yield opened
        return
    lax = Rules(forbidden=0, own=False)
    with contextlib.ExitStack() as stack:
        path, parts = root, folder.parts[1:]
        current = stack.enter_context(top_folder(path, lax))
        for depth, part in enumerate(parts, start=1):
            if not isinstance(current, int):
                break
            path = path / part
            last = depth == len(parts)
            current = stack.enter_context(
                folder_at(current, part, str(path), rules if last else lax, make=make if last else None)
            )
        yield current


def list_folder(folder: int, shown: str) -> list[str] | Trouble:
    """Return the names in an open folder, sorted."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        return _failed("read", shown, error)


def read_secret(folder: int, name: str, shown: str, rules: Rules) -> bytes | Trouble | None:
    """Return the content of a regular file in an open folder; None if it is not there."""
    # O_NONBLOCK: a FIFO would wait for a writer before it could be refused.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with _opened(name, folder, flags, shown, rules, made=None) as file:
        if not isinstance(file, int):
            return file
        try:
            chunks, size = [], 0
            while chunk := os.read(file, 65536):
                chunks.append(chunk)
                size += len(chunk)
                if size > SIZE_LIMIT:
                    return Trouble(f"'{shown}' is too large to hold keys")
            return b"".join(chunks)
        except OSError as error:
            return _failed("read", shown, error)


def create_secret(
    folder: int, name: str, shown: str, content: bytes, *, mode: int = 0o600, uid: int = -1, gid: int = -1
) -> Trouble | None:
    """Create a file in an open folder with this content, mode and owner (-1: whoever runs this).

    It is on the disk when this returns. A file of that name that is there already stays, and is the trouble.
    """
    temporary = _NEW + secrets.token_hex(8)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _descriptor(os.open(temporary, flags, 0o600, dir_fd=folder)) as file:
            try:
                # The owner first: the mode may open the file to the group, and it is to be the new one.
                if (uid, gid) != (-1, -1):
                    os.fchown(file, uid, gid)
                os.fchmod(file, mode)
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
                # A link, not a rename: it fails where a file of the name is, even a new one.
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)
    except FileExistsError:
        return Trouble(f"'{shown}' is there already, and no key is ever overwritten")
    except OSError as error:
        trouble = _failed("create", shown, error)
        if error.errno in {errno.EPERM, errno.EOPNOTSUPP}:
            # FAT says so to a link, for instance on a USB stick.
            return Trouble(trouble.message, ("use a file system that has owners and hard links",))
        return trouble
    return None


def take_over_secret(
    folder: int, name: str, shown: str, *, following: tuple[int, str], previous: tuple[int, str]
) -> Trouble | None:
    """Put the file `following` (a folder and a name) in the place of one, which from then on is called `previous`.

    At every moment each of the two has a name, and `name` is one of them. What a killed run has begun is gone on with;
    another file that is called `previous` stays, and is the trouble.
    """
    next_folder, next_name = following
    old_folder, old_name = previous
    try:
        os.stat(next_name, dir_fd=next_folder, follow_symlinks=False)
        try:
            os.link(name, old_name, src_dir_fd=folder, dst_dir_fd=old_folder, follow_symlinks=False)
        except FileExistsError:
            kept = os.stat(old_name, dir_fd=old_folder, follow_symlinks=False)
            if not os.path.samestat(kept, os.stat(name, dir_fd=folder, follow_symlinks=False)):
                return Trouble(f"the key from before the one in '{shown}' is still there, and no key is overwritten")
        os.fsync(old_folder)
        os.rename(next_name, name, src_dir_fd=next_folder, dst_dir_fd=folder)
        os.fsync(folder)
        os.fsync(next_folder)
    except OSError as error:
        return _failed("change", shown, error)
    return None


def shred_secret(folder: int, name: str, shown: str) -> Trouble | None:
    """Overwrite a file in an open folder with zeros and remove it; one that is not there is no trouble.

    A disk that writes elsewhere (an SSD), a snapshot or a backup may have the content still. A file that has another
    name too only loses this one.
    """
    try:
        file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
        with _descriptor(file):
            found = os.fstat(file)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                rest = found.st_size
                while rest > 0:
                    rest -= os.write(file, bytes(min(rest, 65536)))
                os.fsync(file)
        os.unlink(name, dir_fd=folder)
        os.fsync(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _failed("remove", shown, error)
    return None


def remove_leftovers(folder: int) -> None:
    """Remove the unfinished files that a killed run left in an open folder ten minutes ago or earlier."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_NEW):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if found.st_mtime < time.time() - _LEFTOVER_AGE:
                    os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _descriptor(file: int) -> Iterator[int]:
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _opened(
    path: str, parent: int | None, flags: int, shown: str, rules: Rules, *, made: int | None
) -> Iterator[int | Trouble | None]:
    """Open a file or folder and judge it. `made` is the mode of a folder that was made a moment ago."""
    try:
        file = os.open(path, flags, dir_fd=parent)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        yield _not_openable(path, parent, flags, shown, error)
        return
    with _descriptor(file):
        try:
            if made is not None:
                os.fchmod(file, made)
            found = os.fstat(file)
        except OSError as error:
            yield _failed("open", shown, error)
            return
        if not flags & os.O_DIRECTORY and not stat.S_ISREG(found.st_mode):
            yield Trouble(f"expected a regular file at '{shown}', found {_kind(found)}")
            return
        yield rules.judge(found, shown) or file


def _not_openable(path: str, parent: int | None, flags: int, shown: str, error: OSError) -> Trouble:
    # ELOOP is a link where a file should be, ENOTDIR anything where a folder should be, ENXIO a socket.
    if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
        expected = "a folder" if flags & os.O_DIRECTORY else "a regular file"
        with contextlib.suppress(OSError):
            found = os.stat(path, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                return Trouble(
                    f"expected {expected} at '{shown}', found a symbolic link",
                    (f"put {expected} there, or name the place that the link leads to",),
                )
            return Trouble(f"expected {expected} at '{shown}', found {_kind(found)}")
    return _failed("open", shown, error)


def _kind(found: os.stat_result) -> str:
    if stat.S_ISREG(found.st_mode):
        return "a regular file"
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    if stat.S_ISFIFO(found.st_mode):
        return "a FIFO"
    if stat.S_ISSOCK(found.st_mode):
        return "a socket"
    return "a device"


def _failed(verb: str, shown: str, error: OSError) -> Trouble:
    """Return the trouble that a system call met. Its own text is not used: it may hold more than a path."""
    reason = os.strerror(error.errno or errno.EIO)
    return Trouble(f"cannot {verb} '{shown}': {reason[:1].lower()}{reason[1:]}")
