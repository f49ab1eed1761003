"""`wgnet refresh`: try other endpoints of peers that do not answer, and follow hosts from one key to the next."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from wgnet.cli.context import EXIT_DONE, EXIT_IN_PART, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.hosts import name_of_machine, report_unknown_host, this_host
from wgnet.diagnostics import codes
from wgnet.keys.host import OwnPresharedKeys
from wgnet.live.refresh import Refreshment
from wgnet.plan.types import InterfacePlan
from wgnet.system.guard import Guard
from wgnet.system.programs import ProgramError
from wgnet.system.refresh import Refresher, Report
from wgnet.system.secrets import SecretFinder

#: The version of the JSON shape.
VERSION = 1
#: Seconds to wait for another wgnet that changes the machine.
_PATIENCE_S = 5.0
_PAUSE_S = 1.0


def run(context: Context) -> int:
    """Refresh this host's interfaces, once, or while keys are rotated for as long as the options say."""
    options = context.options
    if str(context.root) != "/":
        context.output.error("wgnet refresh: a running system has no --root")
        return EXIT_USAGE
    if len(options.host) > 1:
        context.output.error("wgnet refresh: --host names this machine, which has one name")
        return EXIT_USAGE
    if os.geteuid() != 0:
        context.diagnostics.report(
            codes.CANNOT_START,
            "only root may see and change WireGuard interfaces",
            help="run it as root, with sudo, say",
        )
        return EXIT_NOT_STARTED
    # A machine without any topology has nothing to refresh, and no timer's run is to fail for that.
    fleet = context.read_fleet(required=bool(context.files), host=name_of_machine(context))
    if fleet is None or context.failed:
        return context.status()
    name = this_host(context, options.host)
    if name is None:
        return EXIT_NOT_STARTED
    if not fleet.appearances(name):
        if fleet.routings:
            report_unknown_host(
                context, name, fleet.host_names(), "name this machine with --host, or in /etc/wgnet/host"
            )
        return context.status()
    plans = fleet.plan_host(name).interfaces
    guard = Guard(context.root)
    refresher = Refresher(
        plans=plans,
        derived=_derived_keys(context, plans),
        lock=lambda: guard.locked(patience=_PATIENCE_S),
    )
    if context.failed:
        return context.status()
    return _repeat(context, refresher)


def _derived_keys(context: Context, plans: tuple[InterfacePlan, ...]) -> dict[str, OwnPresharedKeys]:
    """Return the preshared keys of networks in which this host is between two keys, by interface."""
    finder = SecretFinder(root=context.root)
    return {
        plan.interface: finder.find(plan, context.diagnostics).derived_keys
        for plan in plans
        if plan.host.next_public_key is not None and plan.secured_peers
    }


def _repeat(context: Context, refresher: Refresher) -> int:
    options = context.options
    until = time.monotonic() + getattr(options, "for")
    total = Report()
    ended = True
    while True:
        try:
            report = refresher.run(dry=options.dry_run)
        except (ProgramError, OSError) as error:
            text = str(error) if isinstance(error, ProgramError) else error.strerror or "unknown error"
            context.diagnostics.report(codes.CANNOT_START, f"the interfaces cannot be refreshed: {text}")
            ended = False
            break
        if not report.alone:
            context.diagnostics.report(
                codes.LOCKED,
                f"another wgnet is changing this machine; nothing {'more ' if total.done else ''}was done",
                help="wait until it has ended",
            )
            ended = False
            break
        if options.format == "text":
            for line in _lines(report, options.dry_run, options.quiet):
                context.output.line(line)
            context.output.flush()
        total.done += report.done
        total.failed += report.failed
        total.waiting, total.unresolved = report.waiting, report.unresolved
        if options.dry_run or not report.rotating or time.monotonic() + _PAUSE_S > until:
            break
        time.sleep(_PAUSE_S)
    if options.format == "json" and (ended or total.done):
        context.output.line(json.dumps(_to_json(total, options.dry_run), indent=2))
    return _end(context, total, ended)


def _end(context: Context, total: Report, ended: bool) -> int:
    """Report what did not go as it should, each once; `ended` is false where the last round could not be."""
    for interface, each, words in total.failed:
        context.diagnostics.report(
            codes.REFRESH_FAILED, f"'{each.name}' on '{interface}' could not be changed: {words}"
        )
    if not context.options.quiet:
        for peer, name in dict.fromkeys(total.unresolved):
            context.diagnostics.report(
                codes.ENDPOINT_UNKNOWN, f"'{name}', where '{peer}' is reached, has no address now"
            )
    if ended and not total.failed:
        return EXIT_DONE
    # What was set stays set: it is right, whatever became of the rest.
    return EXIT_IN_PART if total.done else EXIT_NOT_STARTED


def _lines(report: Report, dry: bool, quiet: bool) -> Iterator[str]:
    for interface, each in report.done:
        yield f"{interface}: {each.name}: {'would set: ' if dry else ''}{_deed(each)}"
    if not quiet:
        for interface, name in report.waiting:
            yield f"{interface}: {name}: does not answer, and has no other endpoint"


def _deed(each: Refreshment) -> str:
    if each.what == "endpoint":
        return f"endpoint {each.after}, was {each.before or 'none'}"
    if each.what == "allowed-ips":
        return "AllowedIPs to the key that shook hands last"
    if each.what == "preshared-key":
        return "preshared key that goes with the own key in use"
    return f"handshake asked of {each.after}"


def _to_json(report: Report, dry: bool) -> dict[str, object]:
    return {
        "version": VERSION,
        "dry_run": dry,
        "changes": [_change(interface, each) for interface, each in report.done],
        "failed": [_change(interface, each) for interface, each, _ in report.failed],
        "waiting": [{"interface": interface, "host": name} for interface, name in report.waiting],
        "unresolved": [{"host": peer, "name": name} for peer, name in dict.fromkeys(report.unresolved)],
    }


def _change(interface: str, each: Refreshment) -> dict[str, object]:
    return {
        "interface": interface,
        "host": each.name,
        "public_key": each.change.public_key,
        "change": each.what,
        "before": each.before,
        "after": each.after,
    }
