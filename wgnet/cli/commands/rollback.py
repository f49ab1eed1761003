"""`wgnet rollback`: back to the state before the last apply."""

from __future__ import annotations

import os

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.machine import open_bus, refuse_root
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import system_reason
from wgnet.system.apply import Outcome, put_back, put_back_files
from wgnet.system.guard import LIMIT_S, Guard

#: Seconds to wait for another wgnet, which is about to end.
_PATIENCE_S = 10.0


def run(context: Context) -> int:
    """Go back. systemd runs it with `--armed` where an apply did not end well, and with `--boot` before the network."""
    options = context.options
    if refuse_root(context):
        return EXIT_USAGE
    if os.geteuid() != 0:
        from wgnet.cli.user import settle_as_user

        return settle_as_user(context, keep=False)
    guard = Guard(context.root)
    patience = LIMIT_S if options.armed else _PATIENCE_S
    try:
        with guard.locked(patience=patience) as alone:
            if not alone:
                context.diagnostics.report(codes.LOCKED, "another wgnet is changing this machine; nothing was changed")
                return EXIT_NOT_STARTED
            armed = guard.armed()
            if (options.armed or options.boot) and (armed is None or not (options.boot or armed.is_due)):
                return EXIT_DONE
            if options.boot:
                return int(put_back_files(guard, context.diagnostics, context.root).value)
            if armed is None and not guard.has_snapshot():
                context.diagnostics.report(
                    codes.NOTHING_TO_SETTLE, "there is no earlier state to go back to; nothing was changed"
                )
                return EXIT_NOT_STARTED
            bus = open_bus(context)
            if bus is None:
                return EXIT_NOT_STARTED
            with bus:
                outcome = put_back(guard, bus, context.diagnostics, context.root)
    except OSError as error:
        context.diagnostics.report(codes.CANNOT_START, f"'{error.filename}': {system_reason(error)}")
        return EXIT_NOT_STARTED
    if outcome is Outcome.DONE:
        context.output.line("rolled back")
    return int(outcome.value)
