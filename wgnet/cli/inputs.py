"""Reads topology files: the arguments, `-f`, or the system's folders. Output: the fleet of networks, diagnostics."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Collection, Mapping, Sequence

from wgnet.checks.run import check_fleet, check_topology
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.span import Span
from wgnet.diagnostics.words import system_reason
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.record import record
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.events import MAX_BYTES
from wgnet.system.rootpath import path_below

#: Where the system's topologies are; the same file name in an earlier folder replaces (as systemd's do).
SYSTEM_FOLDERS = ("etc/wgnet", "run/wgnet", "usr/local/lib/wgnet", "usr/lib/wgnet")


def find_files(arguments: Sequence[str], root: str, diagnostics: Diagnostics, *, required: bool = True) -> list[str]:
    """Return the topology files to read: the arguments, else the system's below `root`.

    Finding none at all is reported as an error, if one is `required`.
    """
    if arguments:
        return list(dict.fromkeys(arguments))
    chosen: dict[str, str] = {}
    folders = [os.path.join(root, folder) for folder in SYSTEM_FOLDERS]
    for folder in folders:
        try:
            names = sorted(os.listdir(really(folder, root)))
        except FileNotFoundError:
            continue
        except OSError as error:
            # What is hidden there would replace what is found later.
            diagnostics.report(codes.UNREADABLE, f"folder '{folder}' cannot be read: {system_reason(error)}")
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".yml"):
                diagnostics.report(
                    codes.FILE_SUFFIX,
                    f"'{path}' is not read: a topology's file name ends in '.yaml'",
                    help="rename the file",
                )
            elif name.endswith(".yaml") and not name.startswith("."):
                chosen.setdefault(name, path)
    files = [path for _, path in sorted(chosen.items()) if not _is_masked(path, root)]
    if not files and required and not diagnostics.has_errors:
        diagnostics.report(
            codes.NO_TOPOLOGY,
            f"there is no topology file (*.yaml) in {', '.join(repr(folder) for folder in folders)}",
            help="name a file, or write a first one with `wgnet init`",
        )
    return files


def really(file: str, root: str) -> str:
    """Return where a file or folder, whose path begins with the root, lies. Raises `OSError` as `path_below` does."""
    return path_below(root, os.path.relpath(file, root))


def _is_masked(path: str, root: str) -> bool:
    """Whether the file is empty or a link to /dev/null, which hides the file of that name in later folders.

    Any way to write the link will do; and the link as such, where a root to be has no /dev yet.
    """
    try:
        place = really(path, root)
        if os.path.islink(path) and place == os.path.join(root, "dev/null"):
            return True
        status = os.stat(place)
    except OSError:
        return False
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == os.makedev(1, 3)
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def read_bytes(file: str, diagnostics: Diagnostics, root: str = "/") -> bytes | None:
    """Read one file (`-` is standard input), at most a little more than a topology may have.

    With another `root` it is one of the system's below that.
    """
    try:
        if file == "-":
            if sys.stdin is None:
                raise OSError(errno.EBADF, "standard input is closed")
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        # Opening a pipe that nobody writes to would wait for ever; reading one is the end of the file at once.
        path = file if root == "/" else really(file, root)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as stream:
            if stat.S_ISDIR(os.fstat(stream.fileno()).st_mode):
                raise IsADirectoryError(errno.EISDIR, "Is a directory")
            os.set_blocking(stream.fileno(), True)
            return stream.read(MAX_BYTES + 1)
    except ValueError:  # a NUL in the name
        diagnostics.report(codes.UNREADABLE, "the file cannot be read: no file has such a name", Span(file, 1, 1, 1, 1))
        return None
    except OSError as error:
        place = Span(file, 1, 1, 1, 1)
        diagnostics.report(codes.UNREADABLE, f"'{file}' cannot be read: {system_reason(error)}", place)
        return None


def read_fleet(
    files: Sequence[str],
    diagnostics: Diagnostics,
    *,
    missing_keys: Severity,
    host: str | None = None,
    root: str = "/",
) -> Fleet | None:
    """Read, resolve and check topology files; None when any of them, or all together, have errors.

    `missing_keys` is how bad a host without a public key is; `host` needs none. With another `root` they are the
    system's below that.
    """
    routings = []
    for file in files:
        own = Diagnostics(sources=diagnostics.sources)
        _, routing = _read_routing(file, own, missing_keys, host, root)
        if routing is not None:
            routings.append(routing)
        diagnostics.items.extend(own.items)
    if diagnostics.has_errors:
        return None
    fleet = Fleet(tuple(routings))
    check_fleet(fleet, diagnostics)
    return None if diagnostics.has_errors else fleet


def _read_routing(
    file: str, diagnostics: Diagnostics, missing_keys: Severity, host: str | None, root: str
) -> tuple[str | None, Routing | None]:
    """Return the name of a file's network as far as it can be told, and its routing, which may have errors."""
    data = read_bytes(file, diagnostics, root)
    return (None, None) if data is None else _parse_routing(data, file, diagnostics, missing_keys, host)


def _parse_routing(
    data: bytes, file: str, diagnostics: Diagnostics, missing_keys: Severity, host: str | None = None
) -> tuple[str | None, Routing | None]:
    spec = parse_specification(data, "<stdin>" if file == "-" else file, diagnostics)
    if spec is None:
        return None, None
    topology = resolve_topology(spec, diagnostics)
    routing = check_topology(topology, diagnostics, missing_keys=missing_keys, keyless=host)
    return topology.name or None, routing


def parse_fleet(data: bytes, file: str, diagnostics: Diagnostics, *, missing_keys: Severity) -> Fleet | None:
    """Return the fleet of one topology that was read already, as `read_fleet` does; `file` is what it is called."""
    _, routing = _parse_routing(data, file, diagnostics, missing_keys)
    if routing is None or diagnostics.has_errors:
        return None
    fleet = Fleet((routing,))
    check_fleet(fleet, diagnostics)
    return None if diagnostics.has_errors else fleet


@record()
class SoundFleet:
    """The topologies that have no errors, and those that were set aside, by file, with their network if it is known."""

    fleet: Fleet
    aside: Mapping[str, str | None]


def read_sound_fleet(
    files: Sequence[str],
    diagnostics: Diagnostics,
    *,
    present: Collection[str],
    host: str | None = None,
    missing_keys: Severity = Severity.ERROR,
    strict: bool = False,
    root: str = "/",
) -> SoundFleet:
    """Read the system's topologies; one that has errors, or does not go with the others, is set aside alone.

    Of files that contradict each other the administrator's stays, then those whose networks are `present`. The `host`
    itself needs no public key to be in one; `missing_keys` is how bad that is of others. With `strict` warnings are
    errors.
    """
    aside: dict[str, str | None] = {}
    found: list[tuple[str, Routing]] = []
    for file in files:
        own = Diagnostics(sources=diagnostics.sources)
        network, routing = _read_routing(file, own, missing_keys, host, root)
        if routing is None or not _is_sound(own, strict):
            aside[file] = network
        else:
            found.append((file, routing))
        diagnostics.items.extend(own.items)
    fleet, own = _checked([routing for _, routing in found], diagnostics)
    if not _is_sound(own, strict):
        found.sort(key=lambda each: _rank(each[0], each[1], present))
        sound: list[Routing] = []
        for file, routing in found:
            fleet, own = _checked([*sound, routing], diagnostics)
            if _is_sound(own, strict):
                sound.append(routing)
            else:
                aside[file] = routing.topology.name
                diagnostics.items.extend(own.items)
        fleet, own = _checked(sound, diagnostics)
    diagnostics.items.extend(own.items)
    return SoundFleet(fleet=fleet, aside=aside)


def _checked(routings: Sequence[Routing], diagnostics: Diagnostics) -> tuple[Fleet, Diagnostics]:
    fleet, own = Fleet(tuple(routings)), Diagnostics(sources=diagnostics.sources)
    check_fleet(fleet, own)
    return fleet, own


def _is_sound(diagnostics: Diagnostics, strict: bool) -> bool:
    return not diagnostics.has_errors and not (strict and diagnostics.count(Severity.WARNING))


def _rank(file: str, routing: Routing, present: Collection[str]) -> tuple[bool, bool, int, str]:
    folder = next(n for n, folder in enumerate(SYSTEM_FOLDERS) if os.path.dirname(file).endswith(folder))
    return folder > 0, routing.topology.name not in present, folder, os.path.basename(file)
