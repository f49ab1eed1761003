"""Single files and folders, by directory descriptors: the system calls under every write.

Stage: disk. Input: a folder's descriptor and a name in it. Output: bytes there, or what stands there. Nothing here
follows a symbolic link (but `Root.resolve`, and that one stays below its root), decides what is to be written, or
reports a diagnostic: the environment's errors leave as `WriteError`, which names the path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "InTheWayError",
    "Owners",
    "Root",
    "Standing",
    "WriteError",
    "backup_name",
    "check_relative",
    "copy_attributes",
    "create_file",
    "create_link",
    "exchange",
    "mount_id",
    "naming",
    "read_standing",
    "remove_tree",
    "same_file",
    "sync_filesystem",
]

#: Open a folder for reading its entries and for fsync(2), never through a symbolic link.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Symbolic links on one path; Linux' own limit (path_resolution(7)).
_MAX_LINKS = 40
#: Folders that one `Root` keeps open, well below the usual RLIMIT_NOFILE of 1024.
_MAX_OPEN = 200

#: Folders that are made with another mode than 0755, as their own packages or systemd's tmpfiles make them.
_PRIVATE_FOLDERS = {
    "etc/NetworkManager/system-connections": 0o700,
    "run/NetworkManager/system-connections": 0o700,
    "etc/wireguard": 0o700,
    "etc/credstore": 0o700,
    "etc/credstore.encrypted": 0o700,
    "run/credstore": 0o700,
    "run/credstore.encrypted": 0o700,
}


class WriteError(Exception):
    """The environment refused: `path` as a person knows it, and the system's error.

    `restored` says that something was changed before it, and was put back.
    """

    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(f"{path}: {error.strerror}")
        self.path = path
        self.error = error
        self.restored = False


class InTheWayError(Exception):
    """Something else stands at `path`: `found` and `expected` are words, such as 'a directory'."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}")
        self.path = path
        self.found = found
        self.expected = expected


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `WriteError` of this path."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, error) from error


def folder_mode(path: str) -> int:
    """Return the mode of a folder that is made below a root: closed where a distribution's own is."""
    return _PRIVATE_FOLDERS.get(path, 0o755)


def check_relative(path: str) -> None:
    """Raise `ValueError` unless the path is relative, normalised and stays below its start: another one is a bug."""
    if "\0" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"not a normalised relative path: {path!r}")


def describe(mode: int) -> str:
    """Return in words what a `st_mode` is."""
    words = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a directory",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return words.get(stat.S_IFMT(mode), "a device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands at a place. `content` is None for a file of which no byte was wanted; `found` is in words."""

    kind: Literal["file", "link", "other"]
    found: str
    mode: int
    uid: int
    gid: int
    size: int
    #: Inode, size and time of change of the content: another triple is another file, or another content.
    identity: tuple[int, int, int]
    content: bytes | None = None
    target: str | None = None


def read_standing(folder: int, name: str, most: int | None = None) -> Standing | None:
    """Return what stands at a name, None for nothing; a file's bytes too, unless it is larger than `most`."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    kind: Literal["file", "link", "other"] = "other"
    content = target = None
    if stat.S_ISLNK(status.st_mode):
        kind, target = "link", os.readlink(name, dir_fd=folder)
    elif stat.S_ISREG(status.st_mode):
        kind = "file"
        if most is None or status.st_size <= most:
            descriptor = os.open(name, _READ, dir_fd=folder)
            try:
                status = os.fstat(descriptor)
                content = _read_all(descriptor, status.st_size)
            finally:
                os.close(descriptor)
    return Standing(
        kind=kind,
        found=describe(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        identity=_identity(status),
        content=content,
        target=target,
    )


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def identity(folder: int, name: str) -> tuple[int, int, int] | None:
    """Return the identity (see `Standing`) of what stands at a name, None for nothing."""
    try:
        return _identity(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while data:
        data = os.read(descriptor, 1 << 20)
        parts.append(data)
    return b"".join(parts)


def same_file(folder: int, name: str, other_folder: int, other: str) -> bool:
    """Return whether two names are one inode; False when either is absent."""
    try:
        one = os.stat(name, dir_fd=folder, follow_symlinks=False)
        two = os.stat(other, dir_fd=other_folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(one, two)


def create_file(
    folder: int, name: str, content: bytes, mode: int, owner: tuple[int, int] | None, *, sync: bool = False
) -> None:
    """Write a new file: exclusive and 0600, then owner, mode and content; on an error nothing of it stays.

    `owner` is uid and gid, None to leave them. The mode is right before the first byte is in the file, which may be a
    secret. Raises `OSError`.
    """
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=folder)
    try:
        try:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            written = os.write(descriptor, content)
            if written != len(content):
                rest = memoryview(content)[written:]
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise


def create_link(folder: int, name: str, target: str) -> None:
    """Make a symbolic link. Raises `OSError`."""
    os.symlink(target, name, dir_fd=folder)


def backup_name(folder: int, name: str) -> str:
    """Return a free name beside `name` for a person's version of it.

    It is GNU's `NAME.~N~` (cp --backup=numbered). systemd (hidden_or_backup_file), NetworkManager
    (nms_keyfile_utils_should_ignore_file) and sysctl.d, which reads *.conf alone, do not read a name that ends so.
    """
    number = 1
    while identity(folder, candidate := f"{name}.~{number}~") is not None:
        number += 1
    return candidate


def remove_tree(folder: int, name: str) -> None:
    """Remove a name and all below it, following nothing; an absent one is fine. Raises `OSError`."""
    try:
        descriptor = os.open(name, FOLDER, dir_fd=folder)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
        return
    except PermissionError:
        # A folder of ours without our own right to read: a mode that was carried over from a person's folder.
        os.chmod(name, 0o700, dir_fd=folder)
        descriptor = os.open(name, FOLDER, dir_fd=folder)
    try:
        with os.scandir(descriptor) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry_name, is_folder in found:
            if is_folder:
                remove_tree(descriptor, entry_name)
                continue
            try:
                os.unlink(entry_name, dir_fd=descriptor)
            except PermissionError:
                os.fchmod(descriptor, 0o700)
                os.unlink(entry_name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=folder)


def make_folder(folder: int, name: str, mode: int, umask: int) -> bool:
    """Make a folder with just this mode and return True; False when a name stands there already. Raises `OSError`."""
    try:
        os.mkdir(name, mode, dir_fd=folder)
    except FileExistsError:
        return False
    if mode & umask:
        os.chmod(name, mode, dir_fd=folder)
    return True


def copy_attributes(source: int, copy: int, *, times: bool) -> None:
    """Give a new folder an old one's owner, mode and extended attributes, and with `times` its times too.

    Raises `OSError`: the new one could not stand in for the old one.
    """
    old, new = os.fstat(source), os.fstat(copy)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(copy, old.st_uid, old.st_gid)
    try:
        names = [name for name in os.listxattr(source) if not name.startswith("security.")]
    except OSError as error:
        if error.errno not in {errno.ENOTSUP, errno.ENOSYS}:
            raise
        names = []
    for name in names:
        os.setxattr(copy, name, os.getxattr(source, name))
    # After the attributes: an access list among them changes the mode.
    if stat.S_IMODE(old.st_mode) != stat.S_IMODE(os.fstat(copy).st_mode if names else new.st_mode):
        os.fchmod(copy, stat.S_IMODE(old.st_mode))
    if times:
        os.utime(copy, ns=(old.st_atime_ns, old.st_mtime_ns))


def current_umask() -> int:
    """Return the process's umask."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def mount_id(descriptor: int) -> str:
    """Return the identity of the mount that a descriptor lies on (proc(5), fdinfo); empty where it is not known."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
            return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
    except OSError:
        return ""


def exchange(folder: int, name: str, other: str) -> None:
    """Exchange two names of one folder in one step: renameat2(2) with RENAME_EXCHANGE.

    Raises `OSError`, with ENOSYS where the C library or the kernel has no such call.
    """
    import ctypes  # here, since it costs milliseconds that most runs need not spend

    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(folder, os.fsencode(name), folder, os.fsencode(other), ctypes.c_uint(2)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_filesystem(descriptor: int) -> None:
    """Write out the file system that a descriptor lies on: syncfs(2). Raises `OSError`."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Owners:
    """Numbers for the names of owners: this system's, or those of the image below a root.

    As another user than root nothing is given away, and every answer is None. `missing` holds the names that do not
    exist, for which root stands in.
    """

    def __init__(self, root: Root | None = None) -> None:
        self._root = root
        self._known: dict[tuple[str, str], tuple[int, int] | None] = {}
        self._privileged = os.geteuid() == 0
        self.missing: dict[str, None] = {}

    def numbers(self, owner: str, group: str) -> tuple[int, int] | None:
        """Return uid and gid for these names, or None when files stay the caller's. Raises `WriteError`."""
        if not self._privileged:
            return None
        key = (owner, group)
        if key not in self._known:
            uid = 0 if owner == "root" else self._look_up("passwd", owner)
            gid = 0 if group == "root" else self._look_up("group", group)
            if uid is None:
                self.missing[owner] = None
            if gid is None:
                self.missing[group] = None
            # With either unknown, both are root's: half an owner could be wider than what was asked for.
            self._known[key] = (0, 0) if uid is None or gid is None else (uid, gid)
        return self._known[key]

    def _look_up(self, table: Literal["passwd", "group"], name: str) -> int | None:
        if self._root is None:
            import grp
            import pwd

            try:
                return pwd.getpwnam(name).pw_uid if table == "passwd" else grp.getgrnam(name).gr_gid
            except KeyError:
                return None
        with naming(self._root.show(f"etc/{table}")):
            folder, base = self._root.split(self._root.resolve(f"etc/{table}"), missing=True)
            standing = None if folder is None else read_standing(folder, base)
        for line in ((standing and standing.content) or b"").splitlines():
            fields = line.split(b":")
            if len(fields) > 2 and fields[0] == os.fsencode(name) and fields[2].isdigit():
                return int(fields[2])
        return None


class Root:
    """A folder below which everything happens, with the folders below it kept open.

    Paths are relative to it. None but `resolve` follows a symbolic link, and that one as if this root were `/`
    (openat2(2), RESOLVE_IN_ROOT, walked by hand since containers often forbid that call).
    """

    def __init__(self, descriptor: int, shown: str) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self.descriptor = descriptor
        self._shown = shown.rstrip("/")
        self.umask = current_umask()

    def show(self, path: str) -> str:
        """Return a path as a person knows it."""
        return f"{self._shown}/{path}"

    def close(self) -> None:
        """Close what `folder` opened, but not the root's own descriptor."""
        while self._open:
            os.close(self._open.popitem()[1])

    def folder(self, path: str) -> int:
        """Return a descriptor of the folder at a path ('' for the root), valid until a good many others were asked for.

        Raises `OSError`, `NotADirectoryError` where a symbolic link or a file stands.
        """
        if not path:
            return self.descriptor
        known = self._open.get(path)
        if known is not None:
            self._open.move_to_end(path)
            return known
        parent, _, name = path.rpartition("/")
        descriptor = os.open(name, FOLDER, dir_fd=self.folder(parent))
        self._open[path] = descriptor
        if len(self._open) > _MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def forget(self, path: str) -> None:
        """Close the folder at a path, since another may stand there from now on."""
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def place(self, path: str) -> tuple[int, str]:
        """Return the descriptor of a path's folder and its name there. Raises `OSError`."""
        parent, _, name = path.rpartition("/")
        return self.folder(parent), name

    def split(self, path: str, *, missing: bool = False) -> tuple[int | None, str]:
        """Return what `place` does, with None for a folder that does not exist if `missing`. Raises `OSError`."""
        try:
            return self.place(path)
        except FileNotFoundError:
            if not missing:
                raise
            return None, path.rpartition("/")[2]

    def make(self, path: str, mode: int) -> bool:
        """Make a folder, whose parent exists; return whether it is new. Raises `OSError`."""
        folder, name = self.place(path)
        return make_folder(folder, name, mode, self.umask)

    def resolve(self, path: str) -> str:
        """Return where a path really lies below the root: its folders' links followed, its last name not.

        What does not exist is taken as it is written. Raises `OSError`, and `InTheWayError` where a folder should be.
        """
        *todo, last = path.split("/")
        todo.reverse()
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                del done[-1:]
                continue
            try:
                mode = os.stat(part, dir_fd=self.folder("/".join(done)), follow_symlinks=False).st_mode
            except FileNotFoundError:
                rest = [part, *reversed(todo)]
                if ".." in rest:
                    raise
                done += [name for name in rest if name not in {"", "."}]
                break
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(part, dir_fd=self.folder("/".join(done)))
                if target.startswith("/"):
                    done = []
                todo += reversed(target.split("/"))
            elif stat.S_ISDIR(mode):
                done.append(part)
            else:
                raise InTheWayError(self.show("/".join([*done, part])), describe(mode), "a directory")
        return "/".join([*done, last])
