"""Several files at once in folders that are shared with others: all new, or all as before.

Stage: disk. Input: files that wait beside their places, and what stands there now. Output: the places changed.
Must not decide what is changed, follow a symbolic link, or report a diagnostic.

The steps, each of which a killed run may be the last of:

1. `begin` writes a journal that names every file it is going to make, then the caller stages them;
2. `commit` makes a hard link to each file that will be replaced or removed, and a person's version its own name;
3. one rename makes the journal the record of the commit. Before it the old state holds, and the next run removes
   what the journal names; after it the new state holds, and the next run finishes it (`recover`);
4. the renames and removals, in the order of the changes, the manifest last; the links and the journal go.

An error after 3 puts everything back from the links, under a third name of the journal, so that a run killed in the
middle of that is finished in the same direction.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

from wgnet.system.files import (
    Root,
    WriteError,
    backup_name,
    check_relative,
    create_file,
    identity,
    naming,
    read_standing,
    same_file,
    sync_filesystem,
)

__all__ = ["Change", "MeddledError", "NotRestoredError", "Transaction"]

_VERSION = 1
#: What link(2) answers where a file system has no hard links, or has too many of one file.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV}


class MeddledError(Exception):
    """What stands at `path` changed since it was read; nothing was written."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class NotRestoredError(Exception):
    """An error (`first`) stopped the commit, and another (`second`) its undoing; the journal stays for `recover`."""

    def __init__(self, first: WriteError, second: WriteError) -> None:
        super().__init__(f"{first}; {second}")
        self.first = first
        self.second = second


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One place. All paths are relative to the root and resolved.

    `stage` is where the new file waits, None to remove; `backup` where a link to the old one goes, None when nothing
    stands there; `keep` the name under which a person's version stays; `seen` the old one's identity.
    """

    path: str
    stage: str | None = None
    backup: str | None = None
    keep: str | None = None
    seen: tuple[int, int, int] | None = None


@dataclass(slots=True, kw_only=True)
class Transaction:
    """Changes below one root, whose journal is `journal` with a suffix; the last change is the manifest's.

    `folders` are made, with their modes; `emptied` are removed at the end when nothing is in them. With `whole` the
    file system is written out as one where else each folder is.
    """

    root: Root
    journal: str
    whole: bool = False
    changes: list[Change] = field(default_factory=list)
    folders: list[tuple[str, int]] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    #: Where a person's versions are now.
    kept: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Write the journal. Raises `WriteError`, and leaves nothing then."""
        text = json.dumps(
            {
                "version": _VERSION,
                "changes": [asdict(change) for change in self.changes],
                "folders": self.folders,
                "emptied": self.emptied,
            }
        )
        new = f"{self.journal}.new"
        with naming(self.root.show(self.journal)):
            self._unlink(new)
            folder, name = self.root.place(new)
            create_file(folder, name, text.encode(), 0o600, None, sync=True)
            try:
                self._move(new, f"{self.journal}.begun")
                os.fsync(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    self._unlink(new)
                    self._unlink(f"{self.journal}.begun")
                raise

    def make_folders(self) -> None:
        """Make the folders that are missing. Raises `WriteError`."""
        for path, mode in self.folders:
            with naming(self.root.show(path)):
                self.root.make(path, mode)

    def commit(self) -> None:
        """Make the changes, or none of them.

        Raises `MeddledError` and `WriteError` with everything as before, and `NotRestoredError`.
        """
        try:
            for change in self.changes:
                self._secure(change)
            self._sync()
            with naming(self.root.show(self.journal)):
                self._move(f"{self.journal}.begun", f"{self.journal}.committed")
        except BaseException:
            self.abandon()
            raise
        self._forward_or_back()

    def abandon(self) -> None:
        """Remove what was staged before a commit, as far as that can be done; the rest is left to `recover`."""
        with contextlib.suppress(OSError, WriteError):
            with contextlib.suppress(FileNotFoundError):
                # First of all: a record of a commit whose files are gone in part must not be left.
                self._move(f"{self.journal}.committed", f"{self.journal}.begun")
            self._sweep()
            self._unlink(f"{self.journal}.begun")
            self._unlink(f"{self.journal}.new")

    @classmethod
    def recover(cls, root: Root, journal: str, *, whole: bool = False) -> Transaction | None:
        """Finish what a killed run began, if it began anything: forward from a commit, back from before one.

        Raises `WriteError` and `NotRestoredError`.
        """
        for suffix in ("undone", "committed", "begun"):
            path = f"{journal}.{suffix}"
            with naming(root.show(path)):
                folder, name = root.place(path)
                standing = read_standing(folder, name)
            if standing is None:
                continue
            transaction = cls(root=root, journal=journal, whole=whole)
            with naming(root.show(path)):
                transaction._load(standing.content or b"")
            if suffix == "undone":
                transaction._back()
            elif suffix == "committed" and transaction._is_done():
                transaction._finish()
            elif suffix == "committed":
                transaction._forward_or_back()
            else:
                transaction._sweep()
                with naming(root.show(path)):
                    transaction._unlink(path)
            return transaction
        with naming(root.show(journal)):
            cls(root=root, journal=journal)._unlink(f"{journal}.new")
        return None

    def _load(self, text: bytes) -> None:
        try:
            value = json.loads(text)
            if value["version"] != _VERSION:
                raise ValueError
            for item in value["changes"]:
                seen = item.pop("seen")
                change = Change(seen=None if seen is None else (int(seen[0]), int(seen[1]), int(seen[2])), **item)
                for path in (change.path, change.stage, change.backup, change.keep):
                    if path is not None:
                        check_relative(path)
                self.changes.append(change)
            self.folders = [(str(path), int(mode)) for path, mode in value["folders"]]
            self.emptied = [str(path) for path in value["emptied"]]
            for path in (*self.emptied, *(path for path, _ in self.folders)):
                check_relative(path)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OSError(errno.EBADMSG, "the journal is damaged") from error

    def _secure(self, change: Change) -> None:
        """Link what stands at a place to its backup, and a person's version to the name that it keeps."""
        with naming(self.root.show(change.path)):
            folder, name = self.root.split(change.path, missing=True)
            if (None if folder is None else identity(folder, name)) != change.seen:
                raise MeddledError(self.root.show(change.path))
            for path in (change.backup, change.keep):
                if path is not None and folder is not None:
                    self._link(folder, name, path)

    def _link(self, folder: int, name: str, path: str) -> None:
        target, target_name = self.root.place(path)
        try:
            os.link(name, target_name, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            standing = read_standing(folder, name)
            if standing is None or standing.content is None:
                raise
            owner = (standing.uid, standing.gid) if os.geteuid() == 0 else None
            create_file(target, target_name, standing.content, standing.mode, owner, sync=True)

    def _forward_or_back(self) -> None:
        try:
            self._forward()
        except BaseException as error:
            try:
                self._back()
            except WriteError as second:
                if isinstance(error, WriteError):
                    raise NotRestoredError(error, second) from error
            else:
                if isinstance(error, WriteError):
                    error.restored = True
            raise
        self._finish()

    def _is_done(self) -> bool:
        """Return whether the manifest, which is last, is in its place: the links may be gone, there is no way back."""
        stage = self.changes[-1].stage
        with naming(self.root.show(self.journal)):
            folder, name = self.root.split(stage or "", missing=True)
            return folder is None or identity(folder, name) is None

    def _forward(self) -> None:
        self._sync_journal()
        self.make_folders()
        *others, last = self.changes
        for change in others:
            self._step(change)
        self._sync()
        self._step(last)
        self._sync_journal()
        self.kept = [self.root.show(c.keep) for c in self.changes if c.keep is not None] + self.kept

    def _step(self, change: Change) -> None:
        with naming(self.root.show(change.path)):
            if change.stage is None:
                folder, name = self.root.split(change.path, missing=True)
                # Another file stands there if a person put it there meanwhile: then it is not ours to remove.
                if folder is not None and change.seen is not None and identity(folder, name) == change.seen:
                    os.unlink(name, dir_fd=folder)
                return
            stage, stage_name = self.root.place(change.stage)
            if identity(stage, stage_name) is None:
                return  # renamed before the run was killed
            folder, name = self.root.place(change.path)
            standing = identity(folder, name)
            if standing is not None and standing != change.seen and change is not self.changes[-1]:
                keep = backup_name(folder, name)
                os.link(name, keep, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                self.kept.append(self.root.show(_beside(change.path, keep)))
            os.rename(stage_name, name, src_dir_fd=stage, dst_dir_fd=folder)

    def _finish(self) -> None:
        """Remove links, emptied folders and the journal; what fails here is done by the next run."""
        with contextlib.suppress(OSError):
            for change in self.changes:
                if change.backup is not None:
                    self._unlink(change.backup)
            for path in self.emptied:
                self._remove_folder(path)
            self._unlink(f"{self.journal}.committed")

    def _back(self) -> None:
        """Put every place back. Raises `WriteError`, and then the journal stays."""
        undone = f"{self.journal}.undone"
        with naming(self.root.show(self.journal)), contextlib.suppress(FileNotFoundError):
            self._move(f"{self.journal}.committed", undone)
        self._sync_journal()
        self.kept = []
        for change in reversed(self.changes):
            with naming(self.root.show(change.path)), contextlib.suppress(FileNotFoundError):
                self._step_back(change)
        self._sync()
        self._sweep()
        with naming(self.root.show(self.journal)):
            self._unlink(undone)

    def _step_back(self, change: Change) -> None:
        folder, name = self.root.place(change.path)
        if change.backup is None:
            if change.stage is None:
                return
            stage, stage_name = self.root.place(change.stage)
            if identity(stage, stage_name) is None:
                os.unlink(name, dir_fd=folder)
            return
        backup, backup_base = self.root.place(change.backup)
        # rename(2) does nothing between two names of one inode, and `_sweep` takes the backup then.
        os.rename(backup_base, name, src_dir_fd=backup, dst_dir_fd=folder)

    def _sweep(self) -> None:
        """Remove every name that was made beside the places, and the folders that were made. Raises `WriteError`."""
        for change in self.changes:
            with naming(self.root.show(change.path)):
                for path in (change.stage, change.backup):
                    if path is not None:
                        self._unlink(path)
                if change.keep is not None and self._same(change.path, change.keep):
                    self._unlink(change.keep)
        for path, _ in reversed(self.folders):
            with naming(self.root.show(path)):
                self._remove_folder(path)

    def _same(self, path: str, other: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return same_file(*self.root.place(path), *self.root.place(other))
        return False

    def _unlink(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            folder, name = self.root.place(path)
            try:
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                # A read-only file system says so also of a name that was never made there.
                if error.errno != errno.EROFS or identity(folder, name) is not None:
                    raise

    def _remove_folder(self, path: str) -> None:
        self.root.forget(path)
        try:
            folder, name = self.root.place(path)
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.EROFS and identity(folder, name) is None:
                return
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR}:
                raise

    def _move(self, path: str, other: str) -> None:
        folder, name = self.root.place(path)
        other_folder, other_name = self.root.place(other)
        os.rename(name, other_name, src_dir_fd=folder, dst_dir_fd=other_folder)

    def _sync_journal(self) -> None:
        with naming(self.root.show(self.journal)):
            os.fsync(self.root.place(self.journal)[0])

    def _sync(self) -> None:
        """Make the names in all folders that are touched last over a loss of power."""
        if self.whole:
            with naming(self.root.show("")):
                sync_filesystem(self.root.descriptor)
            return
        for path in dict.fromkeys(_parents(self._touched())):
            with naming(self.root.show(path)), contextlib.suppress(FileNotFoundError):
                os.fsync(self.root.folder(path))

    def _touched(self) -> Iterator[str]:
        yield from (path for path, _ in self.folders)
        yield from (change.path for change in self.changes)


def _parents(paths: Iterable[str]) -> Iterator[str]:
    return (path.rpartition("/")[0] for path in paths)


def _beside(path: str, name: str) -> str:
    parent = path.rpartition("/")[0]
    return f"{parent}/{name}" if parent else name
