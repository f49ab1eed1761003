"""From a fleet to what this machine is to be: what `plan`, `apply` and `remove` share.

Input: checked topologies and the name of a host. Output: a target with its files and devices, and what is to be
verified. Nothing is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wgnet.cli.context import EXIT_NOT_STARTED, Context
from wgnet.cli.hosts import report_unknown_host, this_host
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import quote_names
from wgnet.live.status import gives_dns_to_resolved
from wgnet.live.wanted import WantedInterface, wanted_interface
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.dispatch import Managers, host_key_paths
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.record import replace
from wgnet.syntax.spec import Manager
from wgnet.system.dbus import Bus, DBusError
from wgnet.system.live import has_resolved
from wgnet.system.networkd import Networkd
from wgnet.system.nm import NetworkManagerDaemon, NmError
from wgnet.system.programs import ProgramError, find_program, run_program
from wgnet.system.rootpath import own_templates
from wgnet.system.secrets import SecretFinder
from wgnet.system.target import InterfaceTarget, Target, interface_target, keyfile_path

__all__ = [
    "MachinePlan",
    "check_machine",
    "host_plans",
    "networks_named",
    "not_planned",
    "open_bus",
    "plan_machine",
    "refuse_root",
    "report_dns_not_read",
    "report_not_running",
]

#: What the machine, not the topology, is to blame for.
_LACKING = (
    *(codes.CANNOT_START, codes.NM_NOT_RUNNING, codes.NM_DENIED, codes.NM_REFUSED, codes.NM_NO_ANSWER),
    *(codes.CANNOT_WRITE, codes.CHANGED_BY_HAND, codes.NOT_A_REGULAR_FILE, codes.LOCKED, codes.OTHER_NETWORK),
)
_SYSTEMD_VERSION = re.compile(r"systemd (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """What this machine is to be. `name` is the host's; `plans` its interfaces', those of wg-quick among them."""

    name: str
    plans: tuple[InterfacePlan, ...]
    target: Target
    wanted: tuple[WantedInterface, ...]


def refuse_root(context: Context) -> bool:
    """Say that a running system has no other root, where one is named; return whether one is."""
    if str(context.root) == "/":
        return False
    command = context.options.command
    context.output.error(f"wgnet {command}: a running system has no --root; `wgnet render --system` has")
    return True


def open_bus(context: Context) -> Bus | None:
    """Return the system's bus, or None after reporting that there is none."""
    try:
        return Bus.system()
    except DBusError as error:
        context.diagnostics.report(
            codes.CANNOT_START,
            f"{error}; nothing was changed",
            help="to write the files alone, without a running system, use `wgnet render --system`",
        )
        return None


def plan_machine(context: Context, fleet: Fleet, bus: Bus) -> MachinePlan | None:
    """Return what this machine is to be by its topologies; None after reporting why that cannot be said."""
    found = host_plans(context, fleet, bus)
    if found is None:
        return None
    name, plans = found
    if not fleet.routings:
        return MachinePlan(name="", plans=(), target=Target(artifacts=(), interfaces=(), networks=None), wanted=())
    finder = SecretFinder(store=open_store(context), root=context.root)
    managers = Managers(own_templates(context.root))
    artifacts: dict[str, Artifact] = {}
    interfaces: list[InterfaceTarget] = []
    wanted: list[WantedInterface] = []
    disowned: list[str] = []
    for plan in plans:
        managers.check(plan, context.diagnostics)
        secrets = finder.find(plan, context.diagnostics)
        _check_private_key(plan, secrets, context.diagnostics)
        for artifact in managers.render(plan, secrets, context.diagnostics, deliver_keys=finder.store is not None):
            if plan.manager is Manager.NETWORKMANAGER and artifact.path == f"/{keyfile_path(plan.interface)}":
                # NetworkManager writes it itself; one that `wgnet render --system` wrote becomes its own.
                disowned.append(keyfile_path(plan.interface))
                continue
            artifacts.setdefault(artifact.path, artifact)
        if plan.manager is not Manager.WG_QUICK:
            interfaces.append(interface_target(plan, secrets))
            wanted.append(wanted_interface(plan, secrets))
        disowned += [path for path in host_key_paths(plan) if f"/{path}" not in artifacts]
    if context.failed:
        return None
    target = Target(
        artifacts=tuple(artifacts.values()),
        interfaces=tuple(interfaces),
        networks=networks_named(context, fleet),
        disowned=tuple(disowned),
    )
    return MachinePlan(name=name, plans=plans, target=target, wanted=tuple(wanted))


def networks_named(context: Context, fleet: Fleet) -> frozenset[str] | None:
    """Return the networks that may be touched: those of the files that the command line names, None for every one."""
    return frozenset(routing.topology.name for routing in fleet.routings) if context.files else None


def not_planned(context: Context) -> int:
    """Return the status of a run that has no plan: 6 where the machine lacks something, 1 where the topology does."""
    lacks = any(each.code in _LACKING for each in context.diagnostics)
    return EXIT_NOT_STARTED if lacks else context.status()


def host_plans(context: Context, fleet: Fleet, bus: Bus) -> tuple[str, tuple[InterfacePlan, ...]] | None:
    """Return this machine's name in its topologies, and its interfaces' plans; None after reporting that it has none.

    Without a topology the name is empty.
    """
    if not fleet.routings:
        return "", ()
    name = this_host(context, context.options.host)
    if name is None:
        return None
    hosts = fleet.host_names()
    if name not in hosts and context.files:
        report_unknown_host(context, name, hosts)
        return None
    return name, tuple(_at_running_version(plan, bus) for plan in fleet.plan_host(name).interfaces)


def _check_private_key(plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> None:
    """Report a private key that is to lie here and does not: no manager would make the interface."""
    if plan.private_key.kind == "file" and secrets.private_key is None and not diagnostics.has_errors:
        diagnostics.report(
            codes.CANNOT_START,
            f"the private key of '{plan.host.name}' is not in '{plan.private_key.name}'; nothing was changed",
            plan.host.span,
            help=("give the key store with `--keys DIR`", "make the key here with `wgnet keys generate`"),
        )


def _at_running_version(plan: InterfacePlan, bus: Bus) -> InterfacePlan:
    """Return the plan for the version that runs here, where the topology names none."""
    if plan.manager_version is not None:
        return plan
    version: tuple[int, ...] | None = None
    try:
        if plan.manager is Manager.NETWORKD:
            match = _SYSTEMD_VERSION.match(run_program("networkctl", ["--version"]))
            version = (int(match[1]),) if match else None
        elif plan.manager is Manager.NETWORKMANAGER:
            version = NetworkManagerDaemon(bus).version()
    except (ProgramError, NmError):
        return plan  # `check_machine` says what is missing
    return plan if version is None else replace(plan, manager_version=version)


def check_machine(context: Context, managers: Sequence[Manager], bus: Bus) -> bool:
    """Report what is missing here for root to change the machine; return whether nothing is."""
    diagnostics = context.diagnostics
    for program, package in (("wg", "wireguard-tools"), ("ip", "iproute2")):
        if find_program(program) is None:
            diagnostics.report(
                codes.CANNOT_START,
                f"there is no program '{program}' here; nothing was changed",
                help=f"install {package}",
            )
    try:
        if Manager.NETWORKD in managers and not Networkd(bus).is_running():
            report_not_running(diagnostics, "systemd-networkd", "systemd-networkd.service")
        if Manager.NETWORKMANAGER in managers and not NetworkManagerDaemon(bus).is_running():
            report_not_running(diagnostics, "NetworkManager", "NetworkManager.service")
    except (DBusError, NmError) as error:
        diagnostics.report(codes.CANNOT_START, f"{error}; nothing was changed")
    return not diagnostics.has_errors


def report_dns_not_read(context: Context, plans: Sequence[InterfacePlan]) -> None:
    """Warn of DNS servers that networkd would hand to systemd-resolved, where that does not run."""
    names = [each.interface for each in plans if gives_dns_to_resolved(each)]
    if names and not has_resolved():
        context.diagnostics.report(
            codes.DNS_NOT_READ,
            f"nobody here reads the DNS servers of {quote_names(names)}: systemd-resolved does not run",
            help=(
                "start it: `systemctl enable --now systemd-resolved.service`",
                "or name the servers in the resolver that runs here",
            ),
        )


def report_not_running(diagnostics: Diagnostics, name: str, unit: str) -> None:
    """Report a manager that does not run here."""
    diagnostics.report(
        codes.CANNOT_START,
        f"{name} does not run here; nothing was changed",
        help=(
            f"start it: `systemctl enable --now {unit}`",
            "set the host's `manager` to the one that runs here",
        ),
    )
