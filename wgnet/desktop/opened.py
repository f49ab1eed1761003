"""A topology's file as the import dialogue opens it: its bytes, its faults, where it comes from, who this computer is.

Stage: desktop. Input: a path; output: an `Opened`, which keeps the bytes, so that what is added is what was shown.
Changes nothing, knows no toolkit.
"""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import dataclass, field
from pathlib import Path

from wgnet.cli.context import Context
from wgnet.cli.hosts import this_host
from wgnet.cli.inputs import parse_fleet, read_bytes
from wgnet.cli.parser import build_parser
from wgnet.cli.terminal import Output
from wgnet.desktop.summary import (
    Choice,
    Problem,
    Provenance,
    Summary,
    choose_host,
    describe_broken,
    describe_plan,
    problems_of,
)
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.plan.derive import Fleet
from wgnet.system.user_state import user_name

__all__ = ["Opened", "context_of", "open_topology"]

#: Where a browser or a download tool says what it downloaded; freedesktop.org, "CommonExtendedAttributes".
_ORIGIN = "user.xdg.origin.url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A file that was read. `fleet` None: it has errors, which are among the `problems`."""

    path: str
    data: bytes = field(repr=False)
    fleet: Fleet | None
    problems: tuple[Problem, ...]
    provenance: Provenance
    choice: Choice

    @property
    def network(self) -> str:
        """The network's name, empty where the file has errors."""
        return "" if self.fleet is None else self.fleet.routings[0].topology.name

    def summary(self, host: str | None) -> Summary:
        """Return what is shown of the network for one host; without one there is nothing that could be added."""
        if self.fleet is None:
            return describe_broken(self.provenance, self.problems)
        if host is None:
            return Summary(title=f"Add the network '{self.network}'?", rows=(), possible=False)
        [plan] = self.fleet.plan_host(host).interfaces
        total = sum(not each.disabled for each in self.fleet.routings[0].topology.hosts)
        return describe_plan(plan, self.provenance, user_name(), total=total)


def open_topology(path: str, host: str | None = None) -> Opened:
    """Read a file and check it. With `host` this computer is that one, if the network has it."""
    diagnostics = Diagnostics()
    data = read_bytes(path, diagnostics)
    fleet = None
    if data is not None:
        fleet = parse_fleet(data, path, diagnostics, missing_keys=Severity.ERROR)
    choice = Choice(hosts=(), chosen=None)
    if fleet is not None:
        names = fleet.host_names()
        hosts = [each for each in fleet.routings[0].topology.hosts if each.name in names]
        machine = host or this_host(context_of(path, None, None), ())
        choice = choose_host(hosts, machine, user_name())
    return Opened(
        path=path,
        data=data or b"",
        fleet=fleet,
        problems=problems_of(diagnostics),
        provenance=_provenance(path),
        choice=choice,
    )


def context_of(path: str, host: str | None, keys: str | None, passphrase_file: str | None = None) -> Context:
    """Return what `wgnet apply` would be given for a file, without streams."""
    arguments = ["apply"]
    for name, value in (("--host", host), ("--keys", keys), ("--passphrase-file", passphrase_file)):
        if value is not None:
            arguments += [f"{name}={value}"]
    options = build_parser(["apply"]).parse_args([*arguments, "--", path])
    return Context(options=options, output=Output(stdout=None, stderr=None, color="never"))


def _provenance(path: str) -> Provenance:
    try:
        status = Path(path).stat()
        modified = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.st_mtime))
    except (OSError, ValueError):
        return Provenance(path=path, owner=None, own=False, modified="an unknown day")
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = None
    try:
        origin = os.getxattr(path, _ORIGIN).decode("utf-8", "replace")
    except OSError:
        origin = None
    return Provenance(path=path, owner=owner, own=status.st_uid == os.geteuid(), modified=modified, origin=origin)
