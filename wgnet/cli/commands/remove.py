"""`wgnet remove NETWORK`: take a network off this machine, by what was written, even when its topology is gone."""

from __future__ import annotations

import os

from wgnet.cli.commands.apply import apply_plan
from wgnet.cli.context import EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.machine import MachinePlan, check_machine, open_bus, refuse_root
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import quote_names
from wgnet.system.install import read_manifest
from wgnet.system.profiles import read_record
from wgnet.system.snapshot import owned_interfaces
from wgnet.system.target import Target


def run(context: Context) -> int:
    """Remove a network's links, files and connections."""
    network = context.options.network
    if refuse_root(context):
        return EXIT_USAGE
    if os.geteuid() != 0:
        from wgnet.cli.user import remove_as_user

        return remove_as_user(context)
    manifest = read_manifest(context.root, runtime=False, diagnostics=context.diagnostics)
    if manifest is None:
        return EXIT_NOT_STARTED
    owned = (*owned_interfaces(manifest), *read_record(context.root).values())
    known = {entry.network for entry in manifest.entries.values()} | {each.network for each in owned}
    if network not in known:
        there = f"there are {quote_names(sorted(known))}" if known else "there is none"
        context.diagnostics.report(
            codes.NOTHING_TO_REMOVE, f"wgnet wrote no network '{network}' here: {there}; nothing was changed"
        )
        return EXIT_NOT_STARTED
    bus = open_bus(context)
    if bus is None:
        return EXIT_NOT_STARTED
    with bus:
        mine = [each.manager for each in owned if each.network == network]
        if not check_machine(context, mine, bus):
            return EXIT_NOT_STARTED
        target = Target(artifacts=(), interfaces=(), networks=frozenset({network}))
        plan = MachinePlan(name="", plans=(), target=target, wanted=())
        return apply_plan(context, plan, bus, f"network '{network}'")
