"""`wgnet confirm`: keep a change that `wgnet apply --confirm` has made."""

from __future__ import annotations

import contextlib
import os

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.machine import refuse_root
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import system_reason
from wgnet.system.dbus import Bus, DBusError
from wgnet.system.guard import Armed, Guard
from wgnet.system.profiles import Profiles


def run(context: Context) -> int:
    """Keep what waits."""
    if refuse_root(context):
        return EXIT_USAGE
    if os.geteuid() != 0:
        from wgnet.cli.user import settle_as_user

        return settle_as_user(context, keep=True)
    return settle(context)


def settle(context: Context) -> int:
    """Settle the change that waits for it, or report that there is none."""
    guard = Guard(context.root)
    try:
        with guard.locked(patience=5) as alone:
            armed = guard.armed()
            reason = _reason_against(armed) if alone else "another wgnet is changing this machine"
            if reason is not None:
                context.diagnostics.report(codes.NOTHING_TO_SETTLE, f"{reason}; nothing was changed")
                return EXIT_NOT_STARTED
            # Before nobody watches any more: NetworkManager would go back by itself, later.
            # Without a bus there is no NetworkManager that could.
            with contextlib.suppress(DBusError), Bus.system() as bus:
                Profiles.keep(bus, context.root)
            guard.disarm()
    except OSError as error:
        context.diagnostics.report(codes.CANNOT_START, f"'{error.filename}': {system_reason(error)}")
        return EXIT_NOT_STARTED
    context.output.line("confirmed")
    return EXIT_DONE


def _reason_against(armed: Armed | None) -> str | None:
    """Return why nothing can be confirmed, None where it can."""
    if armed is None:
        return "there is no change that waits to be confirmed"
    if armed.deadline is None:
        return "the change was broken off: it is being rolled back"
    return "the time is over: the change is being rolled back" if armed.is_due else None
