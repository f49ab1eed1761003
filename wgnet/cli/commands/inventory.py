"""`wgnet inventory`: the topologies as Ansible's dynamic inventory. Its shape is told in `wgnet.cli.inventory`."""

from __future__ import annotations

import json

from wgnet.cli.context import EXIT_DONE, Context
from wgnet.cli.hosts import report_unknown_host
from wgnet.cli.inventory import Inventory
from wgnet.diagnostics import codes
from wgnet.diagnostics.severity import Severity


def run(context: Context) -> int:
    """Print the whole inventory, or one host's variables. Hosts without a key are in it: they may get one by it."""
    options = context.options
    fleet = context.read_fleet(missing_keys=Severity.NOTE)
    if fleet is None:
        return context.status()
    context.diagnostics.items = [each for each in context.diagnostics if each.code is not codes.NO_PUBLIC_KEY]
    names = fleet.host_names()
    if options.host is not None and options.host not in names:
        report_unknown_host(context, options.host, names)
        return context.status()
    inventory = Inventory(fleet, context.diagnostics)
    shape = inventory.whole() if options.host is None else inventory.of_host(options.host)
    if context.failed:
        return context.status()
    context.output.line(json.dumps(shape, indent=2))
    return EXIT_DONE
