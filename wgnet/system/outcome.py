"""What a write came to: the report of what was done, or diagnostics of what stood in the way.

Stage: disk. Input: an artifact beside what stands at its place, or an exception of the writing. Output: a verdict, or
diagnostics. Must not touch the disk.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable
from dataclasses import dataclass

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import system_reason
from wgnet.managers.artifact import Artifact
from wgnet.system.files import InTheWayError, Standing, WriteError
from wgnet.system.lock import BusyError
from wgnet.system.manifest import BadManifestError, Entry
from wgnet.system.transaction import MeddledError, NotRestoredError

__all__ = [
    "FAILURES",
    "Verdict",
    "WriteReport",
    "is_damaged",
    "judge",
    "report_changed",
    "report_failure",
    "report_missing_owners",
]

#: What the environment may do to a write; anything else is a bug.
FAILURES = (WriteError, InTheWayError, BusyError, MeddledError, NotRestoredError, BadManifestError)

#: A file system writes a file out in pages; after a loss of power a file may end at the end of one.
_PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """What a run did, by the paths as a person knows them; `kept` are new names of what was changed by hand."""

    written: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Verdict(enum.Enum):
    """What is to be done about a place."""

    SAME = "it is as it should be"
    WRITE = "nothing stands there, or what we wrote"
    BY_HAND = "a person's version stands there"
    BLOCKED = "something else than a file stands there"


def judge(
    artifact: Artifact,
    standing: Standing | None,
    old: Entry | None,
    owner: tuple[int, int] | None,
    *,
    synced: bool,
) -> Verdict:
    """Return what is to be done about an artifact's place, where `old` is what an earlier run wrote there.

    `synced` says that what was written has outlasted every loss of power since, so that damage is a person's.
    """
    if standing is None:
        return Verdict.WRITE
    if standing.kind != ("file" if artifact.target is None else "link"):
        return Verdict.WRITE if old is not None and old.describes(standing) else Verdict.BLOCKED
    if artifact.target is not None:
        if standing.target == artifact.target:
            return Verdict.SAME
    elif standing.content == artifact.content:
        right = standing.mode == artifact.mode and owner in {None, (standing.uid, standing.gid)}
        return Verdict.SAME if right else Verdict.WRITE
    if old is not None and (old.describes(standing) or (not synced and is_damaged(standing, artifact.content))):
        return Verdict.WRITE
    return Verdict.BY_HAND


def is_damaged(standing: Standing, content: bytes = b"") -> bool:
    """Return whether a file that was not synced looks as a loss of power leaves it: there is no person's work in it.

    Such a file is empty, holds zero bytes where its blocks were never written, or ends at a page's end.
    """
    found = standing.content
    return found is not None and (
        not found or b"\0" in found or (len(found) % _PAGE == 0 and content.startswith(found))
    )


def report_changed(paths: Iterable[str], diagnostics: Diagnostics) -> None:
    """Report each file that a person changed, and that would be replaced or removed."""
    for path in paths:
        diagnostics.report(
            codes.CHANGED_BY_HAND,
            f"'{path}' was changed by hand, nothing was written",
            help=(
                "move the changes into the topology",
                "use `--force` to write it anyway; the present version stays beside it as 'NAME.~N~'",
            ),
        )


def report_other_network(what: str, network: str, other: str, diagnostics: Diagnostics) -> None:
    """Report that a network would take an interface or files, said in `what`, of another one that was not named."""
    diagnostics.report(
        codes.OTHER_NETWORK,
        f"{what} of '{network}' is taken by the network '{other}', which is in no file that was named; "
        "nothing was changed",
        help=(
            f"if '{network}' was called '{other}' before: name no file, so that what no file describes any more is "
            f"removed, or run `wgnet remove {other}` first",
            f"else name the file of '{other}' as well, or give '{network}' another `interface`",
        ),
    )


def report_missing_owners(names: Iterable[str], diagnostics: Diagnostics) -> None:
    """Report each owner or group that does not exist here, once."""
    for name in names:
        diagnostics.report(
            codes.GROUP_MISSING,
            f"there is no user or group '{name}' here, its files belong to root",
            help=f"install the package that makes '{name}', then render again",
        )


def report_failure(error: Exception, diagnostics: Diagnostics) -> None:
    """Report what made a write impossible, and that everything is as before. Raises what is not one of `FAILURES`."""
    match error:
        case WriteError():
            after = "everything was put back" if error.restored else "nothing was changed"
            diagnostics.report(
                codes.CANNOT_WRITE,
                f"cannot write '{error.path}': {system_reason(error.error)}; {after}",
                help=_help(error.error),
            )
        case NotRestoredError():
            diagnostics.report(
                codes.CANNOT_WRITE,
                f"cannot write '{error.first.path}': {system_reason(error.first.error)}; and cannot put back "
                f"'{error.second.path}': {system_reason(error.second.error)}",
                help="mend the file system and run again: the journal that was left finishes it first",
            )
        case InTheWayError():
            diagnostics.report(
                codes.NOT_A_REGULAR_FILE,
                f"'{error.path}': expected {error.expected}, found {error.found}; nothing was changed",
                help=f"move {error.found} out of the way",
            )
        case BusyError():
            diagnostics.report(
                codes.LOCKED,
                f"another wgnet is writing to '{error}'; nothing was changed",
                help="wait until it is done, then run again",
            )
        case MeddledError():
            diagnostics.report(
                codes.CHANGED_BY_HAND,
                f"'{error}' was changed while it was to be replaced; nothing was changed",
                help="run again",
            )
        case BadManifestError():
            diagnostics.report(
                codes.CANNOT_WRITE,
                f"the list of files that wgnet wrote cannot be used: {error}; nothing was changed",
                help="use `--force` to do without it; nothing that it names is removed then",
            )
        case _:
            raise error


def _help(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space there, then run again"
        case errno.EACCES | errno.EPERM:
            return "run as a user who may write there, or choose another folder"
        case errno.EROFS:
            return "remount the file system for writing, or choose another folder"
        case errno.ENAMETOOLONG:
            return "choose a shorter name"
        case _:
            return "run again when the cause is gone"
