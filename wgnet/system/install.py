"""Files into a system, or into the image of one: shared folders, in which only what we wrote is ours.

Stage: disk. Input: one host's artifacts and the root. Output: the files in place, and the manifest in the state folder
(/var/lib/wgnet, or /run/wgnet for a runtime system), below the root. Must not talk to a daemon, follow a symbolic link
out of the root, or touch what the manifest does not name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import quote_names
from wgnet.managers.artifact import Artifact
from wgnet.system.files import (
    FOLDER,
    InTheWayError,
    Owners,
    Root,
    Standing,
    WriteError,
    backup_name,
    check_relative,
    create_file,
    create_link,
    folder_mode,
    naming,
    read_standing,
)
from wgnet.system.lock import BusyError, lock_folder
from wgnet.system.manifest import BadManifestError, Entry, Manifest
from wgnet.system.outcome import (
    FAILURES,
    Verdict,
    WriteReport,
    judge,
    report_changed,
    report_failure,
    report_missing_owners,
    report_other_network,
)
from wgnet.system.transaction import Change, Transaction

__all__ = ["compare_system", "read_manifest", "recover", "write_system"]


@dataclass(slots=True)
class _State:
    """The state folder below a root, locked."""

    root: Root
    path: str
    #: The folders that were made on the way to it.
    made: list[str] = field(default_factory=list)

    @property
    def journal(self) -> str:
        return f"{self.path}/journal"

    @property
    def manifest(self) -> str:
        return f"{self.path}/manifest.json"


def write_system(
    root: Path,
    artifacts: Sequence[Artifact],
    *,
    networks: Collection[str] | None,
    runtime: bool,
    force: bool,
    diagnostics: Diagnostics,
    disowned: Collection[str] = (),
    takes_over: bool = False,
) -> WriteReport | None:
    """Put one host's files in place below `root`, all or none, and remove what an earlier run wrote for `networks`.

    `networks` None stands for every network. Else what was written for another one is in the way where it would
    change, unless the run `takes_over`. With `force` a file that a person changed is replaced, and stays beside its
    place as `NAME.~N~`. `disowned` are files, without the leading slash, that somebody else writes from now on: they
    are left alone and forgotten. Returns None after reporting why nothing was written.
    """
    if networks is not None and any(artifact.network not in networks for artifact in artifacts):
        raise ValueError("an artifact of a network that is not written")
    try:
        with _locked(root, runtime=runtime) as state:
            _finish_last(state)
            return _Installation(state, artifacts, networks, force, diagnostics, disowned, takes_over).run()
    except FAILURES as error:
        report_failure(error, diagnostics)
        return None


def compare_system(
    root: Path,
    artifacts: Sequence[Artifact],
    *,
    networks: Collection[str] | None,
    diagnostics: Diagnostics,
    disowned: Collection[str] = (),
) -> WriteReport | None:
    """Return what `write_system` would do below /etc, and do nothing: no lock, no folder, no file."""
    try:
        with _opened(root) as opened:
            state = _State(opened, _state_path(opened, runtime=False))
            return _Installation(state, artifacts, networks, False, diagnostics, disowned).judge()
    except FAILURES as error:
        report_failure(error, diagnostics)
        return None


def recover(root: Path, *, runtime: bool, diagnostics: Diagnostics) -> bool:
    """Finish what a killed run left: the new state after its commit, the old one before; False after an error.

    Every command that writes the system calls it first; where nothing was left it changes nothing.
    """
    try:
        with _locked(root, runtime=runtime, make=False) as state:
            _finish_last(state)
    except FileNotFoundError:
        return True
    except FAILURES as error:
        report_failure(error, diagnostics)
        return False
    return True


def read_manifest(root: Path, *, runtime: bool, diagnostics: Diagnostics) -> Manifest | None:
    """Return what was written below a root, without the lock; an empty one where nothing was, None after an error."""
    try:
        with _opened(root) as opened:
            path = _state_path(opened, runtime=runtime)
            return _load_manifest(_State(opened, path))
    except FAILURES as error:
        report_failure(error, diagnostics)
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Root]:
    with naming(str(path)):
        descriptor = os.open(path, FOLDER & ~os.O_NOFOLLOW)
    try:
        root = Root(descriptor, str(path))
        try:
            yield root
        finally:
            root.close()
    finally:
        os.close(descriptor)


def _state_path(root: Root, *, runtime: bool) -> str:
    path = "run/wgnet" if runtime else "var/lib/wgnet"
    with naming(root.show(path)):
        return root.resolve(f"{path}/x").rpartition("/")[0]


@contextlib.contextmanager
def _locked(path: Path, *, runtime: bool, make: bool = True) -> Iterator[_State]:
    """Lock the state folder, made when it is missing, and removed again when nothing was put into it."""
    with _opened(path) as root:
        state = _State(root, _state_path(root, runtime=runtime))
        shown = root.show(state.path)
        try:
            while True:
                if make:
                    _make_state(state)
                try:
                    parent, name = root.place(state.path)
                    descriptor = lock_folder(parent, name, wait=0)
                except FileNotFoundError:
                    if not make:
                        raise
                    root.close()  # another run has just removed its empty folder
                    continue
                except BusyError:
                    raise BusyError(shown) from None
                except OSError as error:
                    raise WriteError(shown, error) from error
                break
            try:
                yield state
            finally:
                _unmake(state)
                os.close(descriptor)
        except BaseException:
            _unmake(state)
            raise


def _make_state(state: _State) -> None:
    parts = state.path.split("/")
    for end in range(1, len(parts) + 1):
        folder = "/".join(parts[:end])
        with naming(state.root.show(folder)):
            if state.root.make(folder, 0o755):
                state.made.append(folder)


def _unmake(state: _State) -> None:
    for path in reversed(state.made):
        state.root.forget(path)
        with contextlib.suppress(OSError):
            folder, name = state.root.place(path)
            os.rmdir(name, dir_fd=folder)


def _finish_last(state: _State) -> None:
    Transaction.recover(state.root, state.journal)
    state.root.close()  # folders may have gone


def _load_manifest(state: _State) -> Manifest:
    with naming(state.root.show(state.manifest)):
        folder, name = state.root.split(state.manifest, missing=True)
        standing = None if folder is None else read_standing(folder, name)
    if standing is None:
        return Manifest()
    if standing.content is None:
        raise BadManifestError(f"'{state.root.show(state.manifest)}' is {standing.found}")
    try:
        return Manifest.from_bytes(standing.content)
    except BadManifestError as error:
        raise BadManifestError(f"'{state.root.show(state.manifest)}': {error}") from error


class _Installation:
    """One run: what stands there is judged first, then all is staged, then all is renamed."""

    def __init__(
        self,
        state: _State,
        artifacts: Sequence[Artifact],
        networks: Collection[str] | None,
        force: bool,
        diagnostics: Diagnostics,
        disowned: Collection[str] = (),
        takes_over: bool = False,
    ) -> None:
        self.state = state
        self.root = state.root
        self.artifacts = artifacts
        #: Networks whose files may change; None: all.
        self.open = None if takes_over else networks
        self.force = force
        self.diagnostics = diagnostics
        try:
            self.old = _load_manifest(state)
        except BadManifestError:
            if not force:
                raise
            self.old = Manifest()
        self.forgotten = [self.old.entries.pop(path) for path in disowned if path in self.old.entries]
        self.new = Manifest(folders=dict(self.old.folders))
        for path, entry in self.old.entries.items():
            if networks is not None and entry.network not in networks:
                self.new.entries[path] = entry
        self.owners = Owners(None if self.root.show("") == "/" else self.root)
        self.transaction = Transaction(root=self.root, journal=state.journal)
        self.staged: list[tuple[str, Artifact, tuple[int, int] | None]] = []
        self.by_hand: list[str] = []
        self.blocked: list[InTheWayError] = []
        #: Paths by the network that they would be written for, and the one that has them.
        self.others: dict[tuple[str, str], list[str]] = {}
        self.places: set[str] = set()
        self.token = os.urandom(4).hex()
        self.written: list[str] = []
        self.unchanged: list[str] = []
        self.removed: list[str] = []

    def judge(self) -> WriteReport | None:
        """Judge every place and plan its change; None after reporting what stands in the way."""
        for artifact in self.artifacts:
            self.take(artifact)
        for path, entry in self.old.entries.items():
            if path not in self.new.entries:
                self.drop(path, entry)
        report_missing_owners(self.owners.missing, self.diagnostics)
        report_changed(self.by_hand, self.diagnostics)
        for error in self.blocked:
            report_failure(error, self.diagnostics)
        for (network, other), paths in self.others.items():
            report_other_network(quote_names(paths), network, other, self.diagnostics)
        if self.by_hand or self.blocked or self.others:
            return None
        return self.report()

    def report(self) -> WriteReport:
        return WriteReport(
            written=tuple(self.written),
            unchanged=tuple(self.unchanged),
            removed=tuple(self.removed),
            kept=tuple(self.transaction.kept),
        )

    def run(self) -> WriteReport | None:
        if self.judge() is None:
            return None
        self.plan_folders()
        if self.transaction.changes or self.new != self.old or self.forgotten:
            self.write()
        return self.report()

    def take(self, artifact: Artifact) -> None:
        """Judge one artifact's place, and plan its change."""
        path = artifact.path.removeprefix("/")
        check_relative(path)
        shown = self.root.show(path)
        entry = Entry.of(artifact)
        old = self.old.entries.get(path)
        owner = self.owners.numbers(artifact.owner, artifact.group)
        with naming(shown):
            place = self.root.resolve(path)
            if place in self.places:
                raise ValueError(f"two artifacts for one place: {path!r}")
            self.places.add(place)
            folder, name = self.root.split(place, missing=True)
            most = max(len(artifact.content), old.size if old is not None else 0)
            standing = None if folder is None else read_standing(folder, name, most)
        self.new.entries[path] = entry
        verdict = judge(artifact, standing, old, owner, synced=True)
        theirs = old is not None and self.open is not None and old.network not in self.open
        # A private key that two networks share, say, stays as it is.
        if old is not None and theirs and replace(old, network=entry.network) != entry:
            self.others.setdefault((artifact.network, old.network), []).append(shown)
            return
        if verdict is Verdict.SAME:
            self.unchanged.append(shown)
            return
        if verdict is Verdict.BLOCKED:
            assert standing is not None
            expected = "a file" if artifact.target is None else "a symbolic link"
            self.blocked.append(InTheWayError(shown, standing.found, expected))
            return
        if verdict is Verdict.BY_HAND and not self.force:
            self.by_hand.append(shown)
            return
        self.written.append(shown)
        stage = self.plan(place, standing, verdict is Verdict.BY_HAND)
        self.staged.append((stage, artifact, owner))

    def drop(self, path: str, entry: Entry) -> None:
        """Judge a file of an earlier run that this one does not write, and plan its removal."""
        shown = self.root.show(path)
        with naming(shown):
            place = self.root.resolve(path)
            if place in self.places:
                return  # written under another name of the same place
            folder, name = self.root.split(place, missing=True)
            standing = None if folder is None else read_standing(folder, name, entry.size)
        if standing is None or standing.kind != ("file" if entry.target is None else "link"):
            return  # ours is gone, and what a person put there instead is not ours
        by_hand = not entry.describes(standing)
        if by_hand and not self.force:
            self.by_hand.append(shown)
            return
        self.removed.append(shown)
        self.plan(place, standing, by_hand, stays=False)

    def plan(self, place: str, standing: Standing | None, by_hand: bool, *, stays: bool = True) -> str:
        """Add a change; return the path of its stage."""
        parent, _, name = place.rpartition("/")
        beside = f"{parent}/" if parent else ""
        number = len(self.transaction.changes)
        stage = f"{beside}.wgnet-{self.token}-{number}.new~"
        keep = None
        if by_hand:
            with naming(self.root.show(place)):
                keep = beside + backup_name(self.root.folder(parent), name)
        self.transaction.changes.append(
            Change(
                path=place,
                stage=stage if stays else None,
                backup=f"{beside}.wgnet-{self.token}-{number}.old~" if standing is not None else None,
                keep=keep,
                seen=None if standing is None else standing.identity,
            )
        )
        return stage

    def plan_folders(self) -> None:
        """Plan the folders to make, and those of ours in which nothing will be left."""
        for change in self.transaction.changes:
            parts = change.path.split("/")[:-1]
            for end in range(1, len(parts) + 1):
                path = "/".join(parts[:end])
                with naming(self.root.show(path)):
                    missing = self.root.split(f"{path}/x", missing=True)[0] is None
                if missing and (made := (path, folder_mode(path))) not in self.transaction.folders:
                    self.transaction.folders.append(made)
                    self.new.folders[path] = None
        gone = {change.path for change in self.transaction.changes if change.stage is None}
        for path in sorted(self.new.folders, reverse=True):
            with naming(self.root.show(path)):
                folder = self.root.split(f"{path}/x", missing=True)[0]
                names = None if folder is None else os.listdir(folder)
            if any(made == path for made, _ in self.transaction.folders):
                continue
            if names is None:
                del self.new.folders[path]
            elif gone and all(f"{path}/{name}" in gone for name in names) and not self.goes_below(path):
                # Deepest first, since a folder's own name is longer than its parent's.
                gone.add(path)
                self.transaction.emptied.append(path)
                del self.new.folders[path]

    def goes_below(self, path: str) -> bool:
        changes = self.transaction.changes
        return any(change.stage is not None and change.path.startswith(f"{path}/") for change in changes)

    def write(self) -> None:
        """Stage, commit. Raises what `Transaction` raises."""
        manifest = self.state.manifest
        with naming(self.root.show(manifest)):
            folder, name = self.root.place(manifest)
            standing = read_standing(folder, name)
        stage = self.plan(manifest, standing, False)
        transaction = self.transaction
        transaction.begin()
        try:
            transaction.make_folders()
            for path, artifact, owner in self.staged:
                with naming(self.root.show(artifact.path.removeprefix("/"))):
                    folder, name = self.root.place(path)
                    if artifact.target is not None:
                        create_link(folder, name, artifact.target)
                    else:
                        create_file(folder, name, artifact.content, artifact.mode, owner, sync=True)
            with naming(self.root.show(manifest)):
                folder, name = self.root.place(stage)
                create_file(folder, name, self.new.to_bytes(), 0o600, None, sync=True)
        except BaseException:
            transaction.abandon()
            raise
        transaction.commit()
