"""`wgnet plan`: what `apply` would change on this machine, or `render -o DIR` below a folder.

The JSON shape, version 1. An interface: only ever added to.

    {"version": 1, "host": NAME or null, "changes": [{
        "interface", "aspect": "peer"|"allowed-ips"|"endpoint"|"route"|..., "subject" (a host's name, a prefix),
        "from" (or null), "to" (or null)}],
     "profiles": [TEXT] (what becomes of NetworkManager's profiles),
     "costs": [{"interface", "peers": [NAME] (none: all), "reason"}],
     "files": [{"path", "change": "add"|"change"|"remove"}]}

No secret is in it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wgnet.cli.context import EXIT_CHANGES, EXIT_DONE, EXIT_USAGE, Context
from wgnet.cli.hosts import name_of_machine, report_unknown_host
from wgnet.cli.machine import MachinePlan, check_machine, not_planned, open_bus, plan_machine, report_dns_not_read
from wgnet.cli.masking import mask_secrets
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.live.configured import names_of_netdev
from wgnet.live.costs import Cost, Maker, device_costs, link_costs
from wgnet.live.drift import Drift, find_drift
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import Managers
from wgnet.plan.derive import Fleet
from wgnet.system.apply import rules_of_others
from wgnet.system.dbus import Bus, DBusError
from wgnet.system.install import compare_system, read_manifest
from wgnet.system.live import LiveError, read_state
from wgnet.system.networkd import netdev_path
from wgnet.system.nm import NmError
from wgnet.system.profiles import Profiles
from wgnet.system.rootpath import own_templates
from wgnet.system.secrets import SecretFinder
from wgnet.system.snapshot import Owned, owned_interfaces, standing_artifacts
from wgnet.system.taken import report_taken_interfaces
from wgnet.system.target import Target

#: The version of the JSON shape.
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file that would change; the texts are masked, None where there is no file."""

    path: str
    old: str | None
    new: str | None

    @property
    def kind(self) -> str:
        """What happens to it, in a word."""
        if self.old is None:
            return "add"
        return "remove" if self.new is None else "change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All that would change."""

    host: str | None
    live: tuple[Drift, ...] = ()
    costs: tuple[Cost, ...] = ()
    files: tuple[FileChange, ...] = ()
    profiles: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.live or self.files or self.profiles)


def run(context: Context) -> int:
    """Show what would change. Nothing is written."""
    options = context.options
    if options.output is None and str(context.root) != "/":
        context.output.error("wgnet plan: a running system has no --root; `plan -o DIR` compares a folder")
        return EXIT_USAGE
    here = options.output is None
    fleet = context.read_fleet(
        required=bool(context.files) or not here, host=name_of_machine(context) if here else None
    )
    if fleet is None or context.failed:
        return context.status()
    changes = _of_folder(context, fleet) if options.output is not None else _of_machine(context, fleet)
    if changes is None:
        return not_planned(context)
    if options.format == "json":
        import json

        context.output.line(json.dumps(to_json(changes), indent=2))
    else:
        for line in to_text(changes):
            context.output.line(line)
    return EXIT_CHANGES if changes and options.exit_code else EXIT_DONE


# --- this machine ----------------------------------------------------------------------------------------------------


def _of_machine(context: Context, fleet: Fleet) -> Changes | None:
    bus = open_bus(context)
    if bus is None:
        return None
    with bus:
        try:
            if os.geteuid() != 0:
                return _of_user(context, fleet, bus)
            plan = plan_machine(context, fleet, bus)
            if plan is None or not check_machine(context, [each.manager for each in plan.plans], bus):
                return None
            return _compare(context, plan, bus)
        except (LiveError, NmError, DBusError, OSError) as error:
            context.diagnostics.report(codes.CANNOT_START, str(error), help=getattr(error, "help", None) or ())
            return None


def _of_user(context: Context, fleet: Fleet, bus: Bus) -> Changes | None:
    """Compare what a user may change: profiles. Raises `LiveError`."""
    from wgnet.cli.user import compare_as_user, plan_as_user

    plan = plan_as_user(context, fleet, bus)
    found = None if plan is None else compare_as_user(context, plan, bus)
    if plan is None or found is None:
        return None
    live, costs, profiles = found
    return Changes(host=plan.name or None, live=tuple(live), costs=tuple(costs), profiles=tuple(profiles))


def _compare(context: Context, plan: MachinePlan, bus: Bus) -> Changes | None:
    target = plan.target
    manifest = read_manifest(context.root, runtime=False, diagnostics=context.diagnostics)
    if manifest is None:
        return None
    profiles = Profiles(bus, target, context.root)
    owned = (*owned_interfaces(manifest), *profiles.owned())
    if report_taken_interfaces(target, manifest, owned, context.diagnostics):
        return None
    report = compare_system(
        context.root,
        target.artifacts,
        networks=target.networks,
        diagnostics=context.diagnostics,
        disowned=target.disowned,
    )
    if report is None:
        return None
    report_dns_not_read(context, plan.plans)
    state = read_state([each.name for each in plan.wanted])
    others = rules_of_others(standing_artifacts(context.root, manifest), target, profiles)
    # A peer that goes is known by its key alone, but for the comment in the file that goes with it.
    names = {
        each.name: names_of_netdev(_read(context.root / netdev_path(each.name)) or "") for each in target.interfaces
    }
    costs = [cost for each in target.interfaces for cost in device_costs(state.devices.get(each.name), each.device)]
    written = {path.removeprefix("/"): path for path in report.written}
    files = [
        _file_change(context.root, artifact, written[artifact.path.removeprefix("/")])
        for artifact in target.artifacts
        if artifact.path.removeprefix("/") in written
    ]
    files += [FileChange(path=path, old=_read(Path(path)), new=None) for path in report.removed]
    return Changes(
        host=plan.name or None,
        live=tuple(_named(each, names) for each in find_drift(plan.wanted, state, others)),
        costs=(*_link_costs(target, owned, state.devices), *costs, *profiles.costs()),
        files=tuple(files),
        profiles=tuple(profiles.changes()),
    )


def _link_costs(target: Target, owned: Sequence[Owned], live: Collection[str]) -> Iterator[Cost]:
    networks = target.networks
    return link_costs(
        {
            each.interface: Maker(network=each.network, manager=each.manager)
            for each in owned
            if each.interface in live and (networks is None or each.network in networks)
        },
        {each.name: Maker(network=each.network, manager=each.manager) for each in target.interfaces},
    )


def _named(drift: Drift, names: Mapping[str, Mapping[str, str]]) -> Drift:
    name = names.get(drift.interface, {}).get(drift.subject)
    return drift if name is None else replace(drift, subject=name)


def _file_change(root: Path, artifact: Artifact, path: str) -> FileChange:
    new = f"-> {artifact.target}\n" if artifact.target is not None else mask_secrets(artifact.content.decode())
    return FileChange(path=path, old=_read(root / artifact.path.removeprefix("/")), new=new)


def _read(path: Path) -> str | None:
    """Return a file's text, secrets masked, None where there is none."""
    try:
        if path.is_symlink():
            return f"-> {path.readlink()}\n"
        return mask_secrets(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


# --- a folder --------------------------------------------------------------------------------------------------------


def _of_folder(context: Context, fleet: Fleet) -> Changes | None:
    """Compare what `render -o DIR` would write with what is there."""
    folder = Path(context.options.output)
    hosts = fleet.host_names()
    chosen = list(dict.fromkeys(context.options.host))
    for name in chosen:
        if name not in hosts:
            report_unknown_host(context, name, hosts)
    if context.failed:
        return None
    store = open_store(context)
    managers = Managers(own_templates(context.root))
    finder = SecretFinder(store=store)
    files: list[FileChange] = []
    for name in chosen or hosts:
        places: set[Path] = set()
        for plan in fleet.plan_host(name).interfaces:
            managers.check(plan, context.diagnostics)
            secrets = finder.find(plan, context.diagnostics)
            for each in managers.render(plan, secrets, context.diagnostics, deliver_keys=store is not None):
                path = folder / name / each.path.removeprefix("/")
                if path in places:
                    continue
                places.add(path)
                change = _file_change(folder / name, each, str(path))
                if change.old != change.new:
                    files.append(change)
        for path in sorted((folder / name).rglob("*")):
            if path not in places and (path.is_symlink() or path.is_file()):
                files.append(FileChange(path=str(path), old=_read(path), new=None))
    if not chosen and folder.is_dir():
        for gone in sorted(each for each in folder.iterdir() if each.is_dir() and each.name not in hosts):
            for path in sorted(gone.rglob("*")):
                if not gone.name.startswith(".") and (path.is_symlink() or path.is_file()):
                    files.append(FileChange(path=str(path), old=_read(path), new=None))
    return None if context.failed else Changes(host=None, files=tuple(files))


# --- output ----------------------------------------------------------------------------------------------------------


def to_json(changes: Changes) -> dict[str, Any]:
    """Return the changes as plain data."""
    return {
        "version": VERSION,
        "host": changes.host,
        "changes": [
            {
                "interface": each.interface,
                "aspect": each.aspect,
                "subject": each.subject,
                "from": each.found,
                "to": each.expected,
            }
            for each in changes.live
        ],
        "profiles": list(changes.profiles),
        "costs": [
            {"interface": each.interface, "peers": list(each.peers), "reason": each.reason} for each in changes.costs
        ],
        "files": [{"path": each.path, "change": each.kind} for each in changes.files],
    }


def to_text(changes: Changes) -> Iterator[str]:
    """Yield the lines that a person reads."""
    if not changes:
        yield f"'{changes.host}': nothing to do" if changes.host else "nothing to do"
        return
    interface = None
    for each in changes.live:
        if each.interface != interface:
            interface = each.interface
            yield f"{interface or 'this machine'}:"
        yield f"  {_sign(each)} {each.aspect}{f' {each.subject}' if each.subject else ''}{_values(each)}"
    for text in changes.profiles:
        yield f"NetworkManager: {text}"
    if changes.live or changes.profiles or changes.costs:
        yield from _costs_text(changes)
        yield from [""] * bool(changes.files)
    for number, file in enumerate(changes.files):
        old, new = (file.old or "").splitlines(), (file.new or "").splitlines()
        before = file.path if file.old is not None else "/dev/null"
        after = file.path if file.new is not None else "/dev/null"
        yield from [""] * bool(number)
        yield from difflib.unified_diff(old, new, before, after, lineterm="")


def _sign(drift: Drift) -> str:
    if drift.found is None:
        return "+"
    return "-" if drift.expected is None else "~"


def _values(drift: Drift) -> str:
    if drift.found is not None and drift.expected is not None:
        return f": {drift.found} -> {drift.expected}"
    value = drift.expected if drift.found is None else drift.found
    return f": {value}" if value not in (None, "", drift.subject) else ""


def _costs_text(changes: Changes) -> Iterator[str]:
    for cost in changes.costs:
        who = f" of {', '.join(cost.peers)}" if cost.peers else ""
        yield f"  ! sessions{who} on {cost.interface}: {cost.reason}"
    if not changes.costs:
        yield "  sessions of peers that stay go on"
