"""`wgnet apply`: make this machine so, verify it, or put everything back."""

from __future__ import annotations

import os
import select
import sys
import time

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.hosts import name_of_machine
from wgnet.cli.machine import (
    MachinePlan,
    check_machine,
    not_planned,
    open_bus,
    plan_machine,
    refuse_root,
    report_dns_not_read,
)
from wgnet.cli.terminal import is_terminal
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import quote_names
from wgnet.syntax.spec import Manager
from wgnet.system.apply import Application, Outcome
from wgnet.system.dbus import Bus
from wgnet.system.guard import LIMIT_S, Guard
from wgnet.system.outcome import WriteReport

_PAUSE_S = 0.3


def run(context: Context) -> int:
    """Apply as the options say."""
    if refuse_root(context):
        return EXIT_USAGE
    # When the last topology is gone, what it left is to go too.
    fleet = context.read_fleet(required=bool(context.files), host=name_of_machine(context))
    if fleet is None or context.failed:
        return context.status()
    bus = open_bus(context)
    if bus is None:
        return EXIT_NOT_STARTED
    with bus:
        if os.geteuid() != 0:
            from wgnet.cli.user import apply_as_user

            return apply_as_user(context, fleet, bus)
        plan = plan_machine(context, fleet, bus)
        if plan is None:
            return not_planned(context)
        if not check_machine(context, [each.manager for each in plan.plans], bus):
            return EXIT_NOT_STARTED
        return apply_plan(context, plan, bus)


def apply_plan(context: Context, plan: MachinePlan, bus: Bus, what: str = "") -> int:
    """Make the machine so; wait for the confirmation that was asked for. `what` names what is done, in the summary."""
    options = context.options
    application = Application(
        bus=bus,
        target=plan.target,
        wanted=plan.wanted,
        diagnostics=context.diagnostics,
        root=context.root,
        force=options.force,
    )
    outcome = application.run(options.confirm)
    name = what or (f"'{plan.name}'" if plan.name else "no network")
    if outcome is Outcome.PUT_BACK:
        context.print_diagnostics()
        context.output.error(f"{name}: not applied, everything was put back")
        return int(outcome.value)
    if outcome is not Outcome.DONE:
        return int(outcome.value)
    _note_wg_quick(context, plan)
    report_dns_not_read(context, plan.plans)
    if not application.changed:
        context.output.line(f"{name}: nothing to do, the live state is as planned")
        return EXIT_DONE
    report = application.report
    parts = [f"{len(report.written):,} written", f"{len(report.unchanged):,} unchanged"]
    if report.removed:
        parts.append(f"{len(report.removed):,} removed")
    context.output.line(f"{name}: applied, the live state is as planned ({', '.join(parts)})")
    for path in report.kept:
        context.output.line(f"kept: {path}")
    _note_networkd(context, report)
    return _confirmed(context) if application.seconds_left else EXIT_DONE


def _note_wg_quick(context: Context, plan: MachinePlan) -> None:
    names = [each.interface for each in plan.plans if each.manager is Manager.WG_QUICK]
    if names:
        context.diagnostics.report(
            codes.BROUGHT_UP_BY_HAND,
            f"the files of {quote_names(names)} are written, and wg-quick brings interfaces up",
            help=[f"run `wg-quick up {name}`" for name in names],
        )


def _note_networkd(context: Context, report: WriteReport) -> None:
    """Say that a networkd that runs beside NetworkManager has yet to hear of rules that are not its own."""
    settings = [path for path in report.written if "/systemd/networkd.conf.d/" in path]
    if settings and (context.root / "run/systemd/netif/state").exists():
        context.output.line(
            f"systemd-networkd reads {settings[0]} when it starts: `systemctl restart systemd-networkd`, or it removes"
            " the rules when it sets a link"
        )


def _confirmed(context: Context) -> int:
    """Wait for Enter, `wgnet confirm` or the end of the time; without a terminal, only say what is to be done."""
    guard = Guard(context.root)
    armed = guard.armed()
    if armed is None:
        return EXIT_DONE
    if not (is_terminal(sys.stdin) and is_terminal(context.output.stderr)):
        context.output.line(f"confirm it within {armed.left:.0f} s with `wgnet confirm`, or it is rolled back")
        return EXIT_DONE
    context.output.error(f"press Enter within {armed.left:.0f} s to keep it, or run `wgnet confirm`; else it goes back")
    given_up = time.monotonic() + armed.left + LIMIT_S
    while guard.armed() is not None:
        if time.monotonic() > given_up:
            context.output.error("not confirmed, and not rolled back: `journalctl -u wgnet-confirm` says why")
            return int(Outcome.BROKEN.value)
        ready, _, _ = select.select([sys.stdin], [], [], _PAUSE_S)
        if ready and sys.stdin.readline():
            from wgnet.cli.commands.confirm import settle

            return settle(context)
        if ready:
            time.sleep(_PAUSE_S)  # the terminal is closed, and stays ready
    # Whoever goes back disarms first, and forgets the snapshot at last; the lock is held until then.
    with guard.locked(patience=LIMIT_S):
        kept = guard.has_snapshot()
    if not kept:
        context.output.error("not confirmed: rolled back")
        return int(Outcome.PUT_BACK.value)
    context.output.line("confirmed")
    return EXIT_DONE
