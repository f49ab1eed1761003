"""`plan`, `apply`, `remove`, `confirm` and `rollback` by somebody who is not root: NetworkManager's profiles alone.

Input: checked topologies; output: the same texts and exit statuses as root's. What a user cannot do is said before
anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, Context
from wgnet.cli.machine import MachinePlan, host_plans, networks_named, not_planned, open_bus, report_not_running
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import quote_names, system_reason
from wgnet.keys.match import check_key_pair
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.live.costs import Cost
from wgnet.live.drift import Drift
from wgnet.live.user_profile import belongs_to
from wgnet.live.wanted import WantedInterface, wanted_interface
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets, public_keys
from wgnet.managers.dispatch import Managers
from wgnet.managers.inline import preshared_key
from wgnet.managers.neighbours import neighbour_path
from wgnet.managers.networkmanager import profile_uuid
from wgnet.managers.nm_settings import DbusSettings
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager
from wgnet.system.apply import Outcome
from wgnet.system.dbus import Bus
from wgnet.system.nm import NetworkManagerDaemon, NmError
from wgnet.system.nm_apply import find_profile, report_problem
from wgnet.system.profiles import ReportedError
from wgnet.system.programs import find_program
from wgnet.system.rootpath import own_templates
from wgnet.system.secrets import SecretFinder
from wgnet.system.target import InterfaceTarget, Target, interface_target, keyfile_path
from wgnet.system.user_apply import UserApplication, public_drift
from wgnet.system.user_state import Pending, UserState, user_name

__all__ = ["apply_as_user", "compare_as_user", "plan_as_user", "remove_as_user", "settle_as_user"]


def plan_as_user(context: Context, fleet: Fleet, bus: Bus, given: PrivateKey | None = None) -> MachinePlan | None:
    """Return what this user's profiles are to be; None after reporting why that cannot be said, or done by a user.

    `given` is the host's private key, where the user has it at hand.
    """
    found = host_plans(context, fleet, bus)
    if found is None or not _is_possible(context, found[1], bus):
        return None
    name, plans = found
    finder = SecretFinder(store=open_store(context), for_agent=True)
    managers = Managers(own_templates(context.root))
    roots: dict[str, Artifact] = {}
    interfaces: list[InterfaceTarget] = []
    wanted: list[WantedInterface] = []
    for plan in plans:
        managers.check(plan, context.diagnostics)
        secrets = _with_given_key(plan, finder.find(plan, context.diagnostics), given, context.diagnostics)
        secrets = _with_keys_of_profile(plan, secrets, bus)
        _check_keys(plan, secrets, context.diagnostics)
        # What is absent has been said.
        own = Diagnostics(sources=context.diagnostics.sources)
        for artifact in managers.render(plan, secrets, own if context.failed else context.diagnostics):
            # What keeps another manager away is a precaution, and no part of the profile.
            spared = (f"/{keyfile_path(plan.interface)}", neighbour_path(plan))
            if artifact.path not in spared and not _stands(context.root, artifact):
                roots.setdefault(artifact.path, artifact)
        _check_permissions(plan, context.diagnostics)
        interfaces.append(interface_target(plan, secrets))
        wanted.append(wanted_interface(plan, secrets))
    if roots:
        context.diagnostics.report(
            codes.NEEDS_ROOT,
            f"only root can write {quote_names(roots)}, which the plan needs beside the profile",
            help="run `wgnet apply` as root once; what it writes there stays",
        )
    if context.failed:
        return None
    target = Target(artifacts=(), interfaces=tuple(interfaces), networks=networks_named(context, fleet))
    return MachinePlan(name=name, plans=plans, target=target, wanted=tuple(wanted))


def _is_possible(context: Context, plans: Sequence[InterfacePlan], bus: Bus) -> bool:
    """Report what stands in a user's way here, whatever the topology says of it."""
    diagnostics = context.diagnostics
    others = [each for each in plans if each.manager is not Manager.NETWORKMANAGER]
    if others:
        diagnostics.report(
            codes.CANNOT_START,
            f"only root may change {quote_names(each.interface for each in others)}: a user has NetworkManager's "
            "profiles alone; nothing was changed",
            others[0].host.span,
            help=("run it with sudo", "set the host's `manager: networkmanager`, if that runs here"),
        )
        return False
    if find_program("ip") is None:
        diagnostics.report(
            codes.CANNOT_START, "there is no program 'ip' here; nothing was changed", help="install iproute2"
        )
        return False
    try:
        if not NetworkManagerDaemon(bus).is_running():
            report_not_running(diagnostics, "NetworkManager", "NetworkManager.service")
            return False
    except NmError as error:
        diagnostics.report(codes.CANNOT_START, f"{error}; nothing was changed")
        return False
    return True


def _stands(root: Path, artifact: Artifact) -> bool:
    """Whether a file is there already; one that nobody but root may read counts as it is."""
    path = root / artifact.path.removeprefix("/")
    try:
        if artifact.target is not None:
            return str(path.readlink()) == str(artifact.target)
        return path.read_bytes() == artifact.content
    except PermissionError:
        return True
    except OSError:
        return False


def _check_permissions(plan: InterfacePlan, diagnostics: Diagnostics) -> None:
    user = user_name()
    permissions = plan.host.permissions
    settings: DbusSettings = {"connection": {"permissions": ("as", [f"user:{each}:" for each in permissions])}}
    if belongs_to(settings, user):
        return
    name = user or "USER"
    whose = f"belongs to {quote_names(permissions)}" if permissions else "is everybody's"
    diagnostics.report(
        codes.NM_NOT_OWN,
        f"the profile of '{plan.network}' {whose}: polkit may ask for an administrator's password, or say no",
        plan.host.place("permissions") if permissions else plan.host.span,
        help=(f"give '{plan.host.name}' `permissions: [{name}]`: what is theirs alone users may change", "use sudo"),
    )


# --- keys ------------------------------------------------------------------------------------------------------------


def _with_given_key(
    plan: InterfacePlan, secrets: InterfaceSecrets, given: PrivateKey | None, diagnostics: Diagnostics
) -> InterfaceSecrets:
    """Return secrets with the private key that the user gave; one that is another host's is reported."""
    publics = [public for public in (plan.host.public_key, plan.host.next_public_key) if public is not None]
    if given is None or not check_key_pair(
        given, publics, "what was given", diagnostics, plan.host.place("public-key")
    ):
        return secrets
    return InterfaceSecrets(private_key=given, preshared_keys=secrets.preshared_keys, derived_keys=secrets.derived_keys)


def _with_keys_of_profile(plan: InterfacePlan, secrets: InterfaceSecrets, bus: Bus) -> InterfaceSecrets:
    """Return secrets with those that are at hand in the present profile alone. Nobody is asked for a password."""
    if _has_private_key(plan, secrets) and not _absent_keys(plan, secrets):
        return secrets
    try:
        nm = NetworkManagerDaemon(bus)
        found = find_profile(nm, profile_uuid(plan.network, plan.host.name), secrets=False)
        if found is None or not belongs_to(found.settings, user_name()):
            return secrets
        wireguard = nm.settings_with_secrets(found.profile.path).get("wireguard", {})
    except NmError:
        return secrets
    private_key = secrets.private_key
    if private_key is None and plan.private_key.kind != "agent":
        private_key = _fitting(plan, wireguard)
    return InterfaceSecrets(
        private_key=private_key,
        preshared_keys={**_preshared_keys(wireguard), **secrets.preshared_keys},
        derived_keys=secrets.derived_keys,
    )


def _fitting(plan: InterfacePlan, wireguard: Mapping[str, tuple[str, object]]) -> PrivateKey | None:
    """Return the profile's private key, if it is the one that the topology knows the host by."""
    key = PrivateKey.parse(str(wireguard.get("private-key", ("s", ""))[1]))
    if not isinstance(key, PrivateKey):
        return None
    return key if key.public() in (plan.host.public_key, plan.host.next_public_key) else None


def _preshared_keys(wireguard: Mapping[str, tuple[str, object]]) -> dict[str, PresharedKey]:
    found: dict[str, PresharedKey] = {}
    peers = wireguard.get("peers", ("aa{sv}", []))[1]
    for peer in peers if isinstance(peers, list) else ():
        key = PresharedKey.parse(str(peer.get("preshared-key", ("s", ""))[1]))
        if isinstance(key, PresharedKey):
            found[str(peer["public-key"][1])] = key
    return found


def _has_private_key(plan: InterfacePlan, secrets: InterfaceSecrets) -> bool:
    return plan.private_key.kind == "agent" or secrets.private_key is not None


def _absent_keys(plan: InterfacePlan, secrets: InterfaceSecrets) -> list[str]:
    """Return the names of peers whose preshared key is not at hand."""
    absent = [
        peer.name
        for peer in plan.secured_peers
        if any(preshared_key(peer, public, secrets) is None for public, _ in public_keys(peer))
    ]
    return list(dict.fromkeys(absent))


def _check_keys(plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> None:
    """Report keys that the profile must have and that are not at hand."""
    if diagnostics.has_errors:
        return
    if not _has_private_key(plan, secrets):
        diagnostics.report(
            codes.CANNOT_START,
            f"the private key of '{plan.host.name}' is not at hand: '{plan.private_key.name}' is root's; nothing was "
            "changed",
            plan.host.span,
            help=(
                "give the key store with `--keys DIR`",
                "set `private-key: {agent: true}`: the desktop asks for the key, and keeps it",
            ),
        )
    absent = _absent_keys(plan, secrets)
    if absent:
        diagnostics.report(
            codes.CANNOT_START,
            f"the preshared keys of the links of '{plan.host.name}' with {quote_names(absent)} are not at hand; "
            "nothing was changed",
            plan.host.span,
            help="give the key store with `--keys DIR`",
        )


# --- the commands ----------------------------------------------------------------------------------------------------


def compare_as_user(context: Context, plan: MachinePlan, bus: Bus) -> tuple[list[Drift], list[Cost], list[str]] | None:
    """Return what differs live, what a change would cost, and what would become of profiles.

    None after reporting why that cannot be said. Raises `LiveError`.
    """
    application = _application(context, plan, bus)
    drift = public_drift(plan.wanted)
    try:
        steps = [each for each in application.steps(drift, ask=False) if each.changes]
    except ReportedError:
        return None
    return drift, application.costs(steps), [str(each) for each in steps]


def _application(context: Context, plan: MachinePlan, bus: Bus) -> UserApplication:
    return UserApplication(bus=bus, target=plan.target, wanted=plan.wanted, diagnostics=context.diagnostics)


def apply_as_user(context: Context, fleet: Fleet, bus: Bus, given: PrivateKey | None = None) -> int:
    """Make the user's profiles so; return the exit status. `given` is as `plan_as_user` takes it."""
    plan = plan_as_user(context, fleet, bus, given)
    if plan is None:
        return not_planned(context)
    return _apply(context, plan, bus, f"'{plan.name}'" if plan.name else "no network")


def _apply(context: Context, plan: MachinePlan, bus: Bus, name: str) -> int:
    application = _application(context, plan, bus)
    outcome = application.run(context.options.confirm)
    if outcome is Outcome.PUT_BACK:
        context.print_diagnostics()
        context.output.error(f"{name}: not applied, everything was put back")
    elif outcome is Outcome.DONE:
        what = "applied" if application.changed else "nothing to do"
        context.output.line(f"{name}: {what}, the profiles are as planned, and so is what a user may see of interfaces")
        if plan.wanted:
            context.output.line("peers and keys of interfaces are shown to root alone: they were not compared")
        if application.seconds_left:
            context.output.line(
                f"confirm it within {application.seconds_left:.0f} s with `wgnet confirm`, or it is rolled back"
            )
    return int(outcome.value)


def remove_as_user(context: Context) -> int:
    """Remove the profiles of a network that wgnet made for this user; return the exit status."""
    network = context.options.network
    known = sorted({each.network for each in UserState.of_environment().profiles().values()})
    if network not in known:
        there = f"there are {quote_names(known)}" if known else "there is none"
        context.diagnostics.report(
            codes.NOTHING_TO_REMOVE,
            f"wgnet made no profile of a network '{network}' for this user: {there}; nothing was changed",
            help="what root applied, root removes: run it with sudo",
        )
        return EXIT_NOT_STARTED
    bus = open_bus(context)
    if bus is None:
        return EXIT_NOT_STARTED
    with bus:
        if not _is_possible(context, (), bus):
            return EXIT_NOT_STARTED
        target = Target(artifacts=(), interfaces=(), networks=frozenset({network}))
        plan = MachinePlan(name="", plans=(), target=target, wanted=())
        return _apply(context, plan, bus, f"network '{network}'")


def settle_as_user(context: Context, *, keep: bool) -> int:
    """Keep the change that waits for it, or go back; return the exit status."""
    state = UserState.of_environment()
    try:
        with state.locked() as alone:
            pending = state.pending()
            if not alone or pending is None or not (pending.left or (pending.deadline is None and not keep)):
                reason = "there is no change of this user that waits to be confirmed"
                if not alone:
                    reason = "another wgnet is changing this user's profiles"
                elif pending is not None and pending.deadline is not None:
                    reason = "the time is over: NetworkManager has gone back"
                context.diagnostics.report(
                    codes.NOTHING_TO_SETTLE,
                    f"{reason}; nothing was changed",
                    help="run it with sudo for a change of root's",
                )
                return EXIT_NOT_STARTED
            return _settle(context, state, pending, keep)
    except OSError as error:
        context.diagnostics.report(codes.CANNOT_START, f"'{error.filename}': {system_reason(error)}")
        return EXIT_NOT_STARTED


def _settle(context: Context, state: UserState, pending: Pending, keep: bool) -> int:
    bus = open_bus(context)
    if bus is None:
        return EXIT_NOT_STARTED
    with bus:
        nm = NetworkManagerDaemon(bus)
        wholly = True
        try:
            for path in pending.checkpoints:
                if keep:
                    nm.keep(path)
                else:
                    wholly = nm.roll_back(path) and wholly
        except NmError as error:
            report_problem(error, "the last change", context.diagnostics)
            return EXIT_NOT_STARTED
    state.end()
    if not wholly:
        context.diagnostics.report(codes.NOT_PUT_BACK, "NetworkManager could not put every connection back")
        return int(Outcome.BROKEN.value)
    context.output.line("confirmed" if keep else "rolled back")
    return EXIT_DONE
