"""`wgnet check`: validate, derive everything, prove `expect`. The diagnostics are the result, on stdout."""

from __future__ import annotations

from wgnet.cli.context import Context
from wgnet.diagnostics.severity import Severity


def run(context: Context) -> int:
    """Check the topologies and what their managers can express."""
    fleet = context.read_fleet(missing_keys=Severity.NOTE)
    if fleet is not None:
        from wgnet.checks.rotation import note_rotations
        from wgnet.managers.dispatch import check_plans

        check_plans(fleet, context.diagnostics)
        note_rotations(fleet, context.diagnostics)
    chosen = context.options.format or context.options.diagnostics
    context.print_diagnostics(chosen, result=True)
    if fleet is not None and chosen == "full" and not context.diagnostics.items:
        hosts = len(fleet.host_names())
        networks = len(fleet.routings)
        context.output.line(
            f"no problems: {networks} {'network' if networks == 1 else 'networks'}, "
            f"{hosts:,} {'host' if hosts == 1 else 'hosts'}"
        )
    return context.status()
