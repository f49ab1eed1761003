"""Every host's files into one output folder, as one step: the old folder or the new one, never a mixture.

Stage: disk. Input: hosts and their artifacts, one after another. Output: the folder. Must not hold the contents (a mesh
of a thousand hosts is 133 MB), follow a symbolic link, or touch a person's own files in there.

What differs is written into a folder beside it while the hosts come in. If anything differs at all, what does not is
added as hard links, a person's files too, and renameat2(2) exchanges the two folders; what is then the old one goes.
Where that cannot be (a mount point, a working directory inside, a parent that is not ours), the same staged files go
through the journal of `transaction`.

The files are not synced one by one: they can be made again, and it would cost seconds. The manifest is, in a
millisecond, and a file that a loss of power left empty or torn is not taken for a person's change (`is_damaged`).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.managers.artifact import Artifact
from wgnet.system.exchange import carry, clear_old
from wgnet.system.files import (
    InTheWayError,
    Owners,
    Root,
    Standing,
    WriteError,
    backup_name,
    check_relative,
    copy_attributes,
    create_file,
    create_link,
    current_umask,
    exchange,
    folder_mode,
    identity,
    make_folder,
    mount_id,
    naming,
    read_standing,
    remove_tree,
)
from wgnet.system.lock import BusyError, lock_folder
from wgnet.system.manifest import BadManifestError, Entry, Manifest
from wgnet.system.outcome import (
    FAILURES,
    Verdict,
    WriteReport,
    is_damaged,
    judge,
    report_changed,
    report_failure,
    report_missing_owners,
)
from wgnet.system.transaction import Change, Transaction

__all__ = ["MANIFEST", "write_tree"]

MANIFEST = ".wgnet-manifest.json"
_JOURNAL = ".wgnet-journal"
_STAGING = ".wgnet-staging"
_IGNORE = ".gitignore"
#: Seconds to wait for another run; the largest one takes less.
_WAIT = 5.0

#: What the exchange of two folders answers where it cannot be had, though writing can.
_NO_EXCHANGE = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EBUSY,
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
}


def write_tree(
    directory: Path,
    hosts: Iterable[tuple[str, Iterable[Artifact]]],
    *,
    only: Collection[str] | None,
    force: bool,
    diagnostics: Diagnostics,
    progress: Callable[[int], None] | None,
) -> WriteReport | None:
    """Write each host's files below `directory`/HOST, and remove what an earlier run wrote and this one does not.

    With `only`, just these hosts are written and the others stay as they are. With `force` a file that a person
    changed is replaced, and stays beside its place as `NAME.~N~`. `progress` hears the number of hosts that were
    taken. Returns None after reporting why nothing was written, also when `hosts` reported an error itself.
    """
    shown = str(directory)
    try:
        with _Place(directory) as place:
            tree = _Tree(place, shown, only, force, diagnostics)
            try:
                return tree.run(hosts, progress)
            finally:
                tree.close()
    except FAILURES as error:
        report_failure(error, diagnostics)
        return None


class _Place:
    """The output folder and the folder to stage in, locked: what a killed run left is finished and gone."""

    def __init__(self, directory: Path) -> None:
        self.shown = str(directory)
        with naming(self.shown):  # the working directory may be gone
            self.path = os.path.realpath(directory)
        parent, self.name = os.path.split(self.path)
        self.parent_path = parent
        self.parent = -1
        #: The output folder as it stands; None when there is none.
        self.old: int | None = None
        self.stage: int | None = None
        #: Whether the folder to stage in is beside the output folder, or else inside it.
        self.beside = True
        self._made: list[str] = []

    @property
    def staging(self) -> str:
        return f".{self.name}{_STAGING}" if self.beside else _STAGING

    def __enter__(self) -> _Place:
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.discard()
        for descriptor in (self.old, self.stage):
            if descriptor is not None:
                os.close(descriptor)
        if self.parent >= 0:
            os.close(self.parent)
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # only one that nothing was put into

    def _open(self) -> None:
        with naming(self.shown):
            self._make_parents()
            self.parent = os.open(self.parent_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                while not self._lock():
                    pass
            except BusyError:
                raise BusyError(self.shown) from None
            except NotADirectoryError:
                raise InTheWayError(self.shown, "a file", "a directory") from None

    def _make_parents(self) -> None:
        missing = []
        path = self.parent_path
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
                self._made.append(path)
                if (umask := current_umask()) & 0o700:
                    os.chmod(path, 0o777 & ~umask | 0o700)

    def _lock(self) -> bool:
        """Lock what there is; return False if that changed meanwhile.

        The lock is on the output folder, or on the one to stage in when there is none yet. Who exchanges the two holds
        both.
        """
        try:
            self.old = lock_folder(self.parent, self.name or ".", wait=_WAIT)
        except FileNotFoundError:
            make_folder(self.parent, self.staging, 0o700, current_umask())
            try:
                self.stage = lock_folder(self.parent, self.staging, wait=_WAIT)
            except FileNotFoundError:
                return False
            if os.access(self.name, os.F_OK, dir_fd=self.parent, follow_symlinks=False):
                os.close(self.stage)
                self.stage = None
                return False
            self._empty(self.stage)
            return True
        root = Root(self.old, self.shown)
        try:
            Transaction.recover(root, _JOURNAL, whole=True)
        finally:
            root.close()
        remove_tree(self.old, _STAGING)
        self.beside = self._may_exchange(self.old)
        try:
            self._remove_leftover()
        except OSError:
            if self.beside:
                raise
            # What is staged inside does not need its name.
        return True

    def _remove_leftover(self) -> None:
        name = f".{self.name}{_STAGING}"
        try:
            left = lock_folder(self.parent, name, wait=_WAIT)
        except (FileNotFoundError, NotADirectoryError):
            return  # a file of this name makes `need_stage` fail
        try:
            remove_tree(self.parent, name)
        finally:
            os.close(left)

    def _empty(self, folder: int) -> None:
        for name in os.listdir(folder):
            remove_tree(folder, name)

    def _may_exchange(self, old: int) -> bool:
        if not self.name or not os.access(self.parent_path, os.W_OK | os.X_OK, effective_ids=True):
            return False
        if mount_id(old) != mount_id(self.parent) or os.fstat(old).st_dev != os.fstat(self.parent).st_dev:
            return False
        if os.geteuid() not in {0, os.fstat(old).st_uid}:
            return False  # the new folder would be another user's
        try:
            inside = os.getcwd()
        except OSError:
            return True
        return os.path.commonpath([inside, self.path]) != self.path

    def need_stage(self) -> int:
        """Return the folder to stage in, made at the first call. Raises `WriteError`."""
        if self.stage is None:
            with naming(self.shown):
                try:
                    make_folder(self._stage_parent(), self.staging, 0o700, current_umask())
                except OSError as error:
                    if not self.beside or self.old is None or error.errno not in _NO_EXCHANGE | {errno.EROFS}:
                        raise
                    self.beside = False
                    make_folder(self._stage_parent(), self.staging, 0o700, current_umask())
                self.stage = lock_folder(self._stage_parent(), self.staging, wait=0)
        return self.stage

    def _stage_parent(self) -> int:
        parent = self.parent if self.beside else self.old
        assert parent is not None
        return parent

    def move_inside(self) -> None:
        """Take the folder to stage in into the output folder. Raises `OSError`."""
        assert self.old is not None
        os.rename(self.staging, _STAGING, src_dir_fd=self.parent, dst_dir_fd=self.old)
        self.beside = False

    def discard(self) -> None:
        """Remove the folder to stage in, unless a journal needs it. Raises `OSError`."""
        if self.stage is None:
            return
        parent = self._stage_parent()
        if not self.beside and any(identity(parent, f"{_JOURNAL}.{suffix}") for suffix in ("committed", "undone")):
            return
        remove_tree(parent, self.staging)

    def put(self) -> None:
        """Make the folder to stage in the output folder, where there is none. Raises `OSError`."""
        assert self.stage is not None
        os.rename(self.staging, self.name, src_dir_fd=self.parent, dst_dir_fd=self.parent)
        os.close(self.stage)
        self.stage = None


class _Tree:
    """One run over an output folder."""

    def __init__(
        self, place: _Place, shown: str, only: Collection[str] | None, force: bool, diagnostics: Diagnostics
    ) -> None:
        self.place = place
        self.only = only
        self.force = force
        self.diagnostics = diagnostics
        self.shown = shown.rstrip("/")
        self.old_root = None if place.old is None else Root(place.old, shown)
        self.stage_root: Root | None = None
        self.owners = Owners()
        self.old = self.read_manifest()
        self.new = Manifest()
        #: The identity of what is replaced or removed, by path; what stands at any other path is kept.
        self.replaced: dict[str, tuple[int, int, int]] = {}
        #: The names beside which a person's versions stay, by path.
        self.keep: dict[str, str] = {}
        self.folders: set[str] = set()
        self.by_hand: list[str] = []
        self.blocked: list[InTheWayError] = []
        self.written: list[str] = []
        self.unchanged: list[str] = []
        self.removed: list[str] = []
        self.kept: list[str] = []

    def close(self) -> None:
        for root in (self.old_root, self.stage_root):
            if root is not None:
                root.close()

    def read_manifest(self) -> Manifest:
        if self.old_root is None:
            return Manifest()
        shown = self.old_root.show(MANIFEST)
        with naming(shown):
            standing = read_standing(self.old_root.descriptor, MANIFEST)
        if standing is None:
            return Manifest()
        try:
            if standing.content is None:
                raise BadManifestError(f"it is {standing.found}")
            return Manifest.from_bytes(standing.content)
        except BadManifestError as error:
            if self.force and standing.kind == "file":
                return Manifest()
            raise BadManifestError(f"'{shown}': {error}") from error

    def run(
        self, hosts: Iterable[tuple[str, Iterable[Artifact]]], progress: Callable[[int], None] | None
    ) -> WriteReport | None:
        errors = self.diagnostics.count(Severity.ERROR)
        seen: set[str] = set()
        for number, (host, artifacts) in enumerate(hosts, 1):
            check_relative(host)
            if "/" in host or host.startswith(".") or host in seen or (self.only is not None and host not in self.only):
                raise ValueError(f"not a host to write: {host!r}")
            seen.add(host)
            for artifact in artifacts:
                self.take(host, artifact)
            if progress is not None:
                progress(number)
        if self.diagnostics.count(Severity.ERROR) > errors:
            return None  # what could not be rendered is not gone
        for path, entry in self.old.entries.items():
            if path not in self.new.entries:
                if self.only is not None and path.partition("/")[0] not in self.only:
                    self.new.entries[path] = entry
                else:
                    self.drop(path, entry)
        report_missing_owners(self.owners.missing, self.diagnostics)
        report_changed(self.by_hand, self.diagnostics)
        for error in dict.fromkeys(self.blocked):
            report_failure(error, self.diagnostics)
        if self.by_hand or self.blocked:
            return None
        self.finish()
        return WriteReport(
            written=tuple(self.written),
            unchanged=tuple(self.unchanged),
            removed=tuple(self.removed),
            kept=tuple(self.kept),
        )

    def take(self, host: str, artifact: Artifact) -> None:
        """Judge one artifact's place, and stage it if anything else stands there."""
        path = host + artifact.path
        if not artifact.path.startswith("/"):
            raise ValueError(f"not an absolute path: {artifact.path!r}")
        check_relative(path)
        if path in self.new.entries:
            raise ValueError(f"two artifacts for one place: {path!r}")
        entry = self.new.entries[path] = Entry.of(artifact)
        owner = self.owners.numbers(artifact.owner, artifact.group)
        shown = f"{self.shown}/{path}"
        if self.old_root is not None:
            old = self.old.entries.get(path)
            try:
                standing = self.look(path, max(entry.size, old.size if old is not None else 0))
            except InTheWayError as error:
                self.blocked.append(error)
                return
            verdict = judge(artifact, standing, old, owner, synced=False)
            if verdict is Verdict.SAME:
                self.unchanged.append(shown)
                return
            if standing is not None and not self.may_replace(path, standing, verdict, artifact):
                return
        self.written.append(shown)
        if not self.by_hand and not self.blocked:  # else nothing is going to be written
            self.stage(path, artifact, owner)

    def may_replace(self, path: str, standing: Standing, verdict: Verdict, artifact: Artifact | None) -> bool:
        """Note that what stands at a path goes; return False when a person's version forbids it."""
        assert self.old_root is not None
        shown = f"{self.shown}/{path}"
        if verdict is Verdict.BLOCKED:
            expected = "a file" if artifact is None or artifact.target is None else "a symbolic link"
            self.blocked.append(InTheWayError(shown, standing.found, expected))
            return False
        if verdict is Verdict.BY_HAND:
            if not self.force:
                self.by_hand.append(shown)
                return False
            with naming(shown):
                parent = path.rpartition("/")[0]
                self.keep[path] = f"{parent}/{backup_name(*self.old_root.place(path))}"
        self.replaced[path] = standing.identity
        return True

    def look(self, path: str, most: int) -> Standing | None:
        """Return what stands at a path of the old folder. Raises `InTheWayError` where a folder should be."""
        assert self.old_root is not None
        try:
            folder, name = self.old_root.place(path)
            return read_standing(folder, name, most)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.find_obstacle(path)
            raise WriteError(f"{self.shown}/{path}", error) from error

    def find_obstacle(self, path: str) -> None:
        """Raise `InTheWayError` for the first part of a path that should be a folder and is not."""
        assert self.old_root is not None
        parts = path.split("/")[:-1]
        for end in range(1, len(parts) + 1):
            part = "/".join(parts[:end])
            with naming(f"{self.shown}/{part}"):
                standing = read_standing(*self.old_root.place(part), 0)
            if standing is not None and standing.found != "a directory":
                raise InTheWayError(f"{self.shown}/{part}", standing.found, "a directory")

    def drop(self, path: str, entry: Entry) -> None:
        """Judge a file of an earlier run that this one does not write."""
        try:
            standing = self.look(path, entry.size)
        except InTheWayError:
            return  # a person put something else in a folder's place: ours is gone already
        if standing is None or standing.kind != ("file" if entry.target is None else "link"):
            return
        ours = entry.describes(standing) or is_damaged(standing)
        if self.may_replace(path, standing, Verdict.WRITE if ours else Verdict.BY_HAND, None):
            self.removed.append(f"{self.shown}/{path}")

    def stage(self, path: str, artifact: Artifact, owner: tuple[int, int] | None) -> None:
        """Write an artifact into the folder to stage in. Raises `WriteError`."""
        root = self.stage_root
        if root is None:
            root = self.stage_root = Root(self.place.need_stage(), self.shown)
        try:
            parent, _, name = path.rpartition("/")
            if parent not in self.folders:
                self.make_folders(root, parent)
            if artifact.target is not None:
                create_link(root.folder(parent), name, artifact.target)
            else:
                create_file(root.folder(parent), name, artifact.content, artifact.mode, owner)
        except OSError as error:
            raise WriteError(f"{self.shown}/{path}", error) from error

    def make_folders(self, root: Root, path: str) -> None:
        """Make a folder to stage in, and those above it."""
        parent = path.rpartition("/")[0]
        if parent and parent not in self.folders:
            self.make_folders(root, parent)
        root.make(path, _mode(path))
        self.folders.add(path)

    def finish(self) -> None:
        """Bring what was staged to its place, if there is anything."""
        text = self.new.to_bytes()
        if self.old_root is not None:
            with naming(self.shown):
                manifest = read_standing(self.old_root.descriptor, MANIFEST)
                ignore = read_standing(self.old_root.descriptor, _IGNORE, 0)
            same = manifest is not None and manifest.content == text
            if same and ignore is not None and not self.written and not self.removed:
                return
        else:
            manifest = ignore = None
        with naming(self.shown):
            stage = self.place.need_stage()
            create_file(stage, MANIFEST, text, 0o600, None, sync=True)
            if ignore is None:
                create_file(stage, _IGNORE, b"*\n", 0o644, None)
        if self.place.old is None:
            with naming(self.shown):
                self.place.put()
        elif not self.place.beside or not self.exchange(self.place.old, stage):
            self.commit(manifest, make_ignore=ignore is None)

    def exchange(self, old: int, stage: int) -> bool:
        """Exchange the folders; return False where that cannot be had, with the staged files as they were."""
        place = self.place
        ours = {parent for path in self.old.entries for parent in _parents(path)}
        skip = {MANIFEST: None, **dict.fromkeys(self.replaced)}
        with naming(self.shown):
            try:
                carried = carry(old, stage, skip, ours)
                for path, name in self.keep.items():
                    self.link_kept(path, name, stage)
                copy_attributes(old, stage, times=False)
                exchange(place.parent, place.staging, place.name)
            except OSError as error:
                if error.errno not in _NO_EXCHANGE:
                    raise
                os.fchmod(stage, 0o700)
                place.move_inside()
                return False
        self.kept = [f"{self.shown}/{name}" for name in self.keep.values()]
        # From here on the new folder stands; what cannot be removed of the old one, the next run removes.
        with contextlib.suppress(OSError):
            rescued = clear_old(old, stage, carried, self.replaced, {MANIFEST})
            self.kept += [f"{self.shown}/{path}" for path in rescued]
        return True

    def link_kept(self, path: str, name: str, stage: int) -> None:
        assert self.old_root is not None
        root = self.stage_root
        if root is None:
            root = self.stage_root = Root(stage, self.shown)
        parent = name.rpartition("/")[0]
        if parent not in self.folders:
            self.make_folders(root, parent)
        folder, base = self.old_root.place(path)
        os.link(base, name.rpartition("/")[2], src_dir_fd=folder, dst_dir_fd=root.folder(parent), follow_symlinks=False)

    def commit(self, manifest: Standing | None, *, make_ignore: bool) -> None:
        """Bring the staged files to their places by the journal."""
        root, old = self.old_root, self.place.old
        assert root is not None and old is not None
        transaction = Transaction(root=root, journal=_JOURNAL, whole=True)
        backups = f"{_STAGING}/{_STAGING}"
        with naming(self.shown):
            make_folder(root.folder(_STAGING), _STAGING, 0o700, root.umask)
        prefix = len(self.shown) + 1
        written = [path[prefix:] for path in self.written]
        for path in [*written, *(path for path in self.replaced if path not in self.new.entries)]:
            seen = self.replaced.get(path)
            transaction.changes.append(
                Change(
                    path=path,
                    stage=f"{_STAGING}/{path}" if path in self.new.entries else None,
                    backup=None if seen is None else f"{backups}/{len(transaction.changes)}",
                    keep=self.keep.get(path),
                    seen=seen,
                )
            )
        if make_ignore:
            transaction.changes.append(Change(path=_IGNORE, stage=f"{_STAGING}/{_IGNORE}"))
        transaction.changes.append(
            Change(
                path=MANIFEST,
                stage=f"{_STAGING}/{MANIFEST}",
                backup=None if manifest is None else f"{backups}/manifest",
                seen=None if manifest is None else manifest.identity,
            )
        )
        needed = {parent for path in written for parent in _parents(path)}
        for path in sorted(needed):
            with naming(f"{self.shown}/{path}"):
                if root.split(f"{path}/x", missing=True)[0] is None:
                    transaction.folders.append((path, _mode(path)))
        in_use = {parent for path in self.new.entries for parent in _parents(path)}
        ours = {parent for path in self.old.entries for parent in _parents(path)}
        transaction.emptied = sorted(ours - in_use, reverse=True)
        transaction.begin()
        transaction.commit()
        self.kept = transaction.kept


def _mode(path: str) -> int:
    """Return the mode of a folder below a host's."""
    return folder_mode(path.partition("/")[2])


def _parents(path: str) -> Iterator[str]:
    """Yield the folders above a path, the topmost last."""
    while path := path.rpartition("/")[0]:
        yield path
