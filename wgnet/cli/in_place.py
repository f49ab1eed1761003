"""Writes this host's files in place, for packages' hooks and image builds: no daemon, no network, works in a chroot.

Input: the system's topologies, or those that were named. Output: files below the root, and what was done in words.
Of the system's topologies each stands for itself: one that has errors is reported, and what was written for its network
before stays, while the others are written. A package that brings a broken one must not take another's network away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from wgnet.cli.context import EXIT_NOT_STARTED, Context
from wgnet.cli.hosts import report_unknown_host, this_host
from wgnet.cli.inputs import find_files, read_sound_fleet
from wgnet.cli.rendering import Rendering, not_written, once, summarize
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.words import quote_names, system_reason
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import host_key_paths
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager
from wgnet.system.install import read_manifest, write_system
from wgnet.system.outcome import WriteReport
from wgnet.system.secrets import SecretFinder

#: What is in one network's way alone, and not in that of the others.
_OF_ONE = {codes.CHANGED_BY_HAND, codes.NOT_A_REGULAR_FILE}


def render_in_place(context: Context) -> int:
    """Write the files of this host below the root; return the exit status."""
    return _render_named(context) if context.files else _render_all(context)


def _render_named(context: Context) -> int:
    """Write the networks of the files that were named: all or none, and no other network."""
    fleet = context.read_fleet()
    if fleet is None or context.failed:
        return context.status()
    name = this_host(context, context.options.host)
    if name is None:
        return EXIT_NOT_STARTED
    hosts = fleet.host_names()
    if name not in hosts:
        report_unknown_host(context, name, hosts)
        return context.status()
    rendering = _rendering(context, fleet)
    artifacts = rendering.artifacts(name)
    if context.failed:
        return context.status()
    plans = rendering.plans(name)
    networks = frozenset(routing.topology.name for routing in fleet.routings)
    if _is_taken(context, plans, networks):
        return not_written(context)
    theirs = _left_to_networkmanager(context, plans)
    artifacts = _without(artifacts, theirs)
    report = _write(context, artifacts, networks, _not_ours(plans, theirs), context.diagnostics)
    return _said(context, report, name, theirs)


def _render_all(context: Context) -> int:
    """Write every network of the system that can be, and remove those that no topology describes any more."""
    options = context.options
    files = find_files((), options.root, context.diagnostics, required=False)
    if context.failed:
        return context.status()
    if not files:
        return _remove_all(context)
    name = this_host(context, options.host)
    if name is None:
        return EXIT_NOT_STARTED
    manifest = read_manifest(context.root, runtime=options.runtime, diagnostics=Diagnostics())
    present = {entry.network for entry in manifest.entries.values()} if manifest is not None else set()
    sound = read_sound_fleet(
        files, context.diagnostics, host=name, present=present, strict=options.strict, root=options.root
    )
    rendering = _rendering(context, sound.fleet)
    artifacts: dict[str, list[Artifact]] = {routing.topology.name: [] for routing in sound.fleet.routings}
    aside = set(sound.aside.values())
    for plan in rendering.plans(name):
        own = Diagnostics(sources=context.diagnostics.sources)
        artifacts[plan.network] += rendering.interface(plan, own)
        context.diagnostics.items.extend(own.items)
        if own.has_errors or (options.strict and own.count(Severity.WARNING)):
            aside.add(plan.network)
    plans = rendering.plans(name)
    theirs = _left_to_networkmanager(context, plans)
    # Where a file does not even say what its network is called, any that nobody describes may be that one.
    settled = set(artifacts) if None in aside else set(artifacts) | present
    settled -= aside
    chosen = {network: _without(each, theirs) for network, each in artifacts.items() if network in settled}
    touched = settled if aside else None
    report = _write_each(context, chosen, touched, settled | present, _not_ours(plans, theirs))
    if report is not None and None not in aside:
        _forget_profiles(context, {*(plan.network for plan in plans), *(each for each in aside if each is not None)})
    status = _said(context, report, name, theirs)
    kept = sorted(present - settled)
    if kept and report is not None:
        context.output.line(f"left as it was: {quote_names(kept)}")
    return status


def _rendering(context: Context, fleet: Fleet) -> Rendering:
    secrets = SecretFinder(store=open_store(context), root=context.root)
    return Rendering(context, fleet, secrets, "/run" if context.options.runtime else "/etc")


def _write_each(
    context: Context,
    artifacts: dict[str, list[Artifact]],
    networks: Collection[str] | None,
    known: Collection[str],
    disowned: Collection[str],
) -> WriteReport | None:
    """Write all networks at once; if something stands in the way of one of them, each that it lets by itself."""
    own = Diagnostics(sources=context.diagnostics.sources)
    report = _write(context, once([one for each in artifacts.values() for one in each]), networks, disowned, own)
    errors = [each for each in own if each.severity is Severity.ERROR]
    alone = sorted(known if networks is None else networks)
    if report is not None or len(alone) < 2 or any(error.code not in _OF_ONE for error in errors):
        context.diagnostics.items.extend(own.items)
        return report
    reports = [
        _write(context, artifacts.get(network, ()), {network}, disowned, context.diagnostics) for network in alone
    ]
    written = [each for each in reports if each is not None]
    return None if not written else _sum(written)


def _without(artifacts: Iterable[Artifact], theirs: Collection[str]) -> list[Artifact]:
    """Leave out profiles that are NetworkManager's: two files with one UUID would be two states of one profile."""
    return [artifact for artifact in artifacts if artifact.path.removeprefix("/") not in theirs]


def _not_ours(plans: Iterable[InterfacePlan], theirs: Collection[str]) -> tuple[str, ...]:
    """Return the files that stay whoever wrote them: NetworkManager's profiles, and the host's own keys."""
    return (*theirs, *(path for plan in plans for path in host_key_paths(plan)))


def _sum(reports: list[WriteReport]) -> WriteReport:
    return WriteReport(
        written=tuple(path for each in reports for path in each.written),
        unchanged=tuple(path for each in reports for path in each.unchanged),
        removed=tuple(path for each in reports for path in each.removed),
        kept=tuple(path for each in reports for path in each.kept),
    )


def _write(
    context: Context,
    artifacts: Sequence[Artifact],
    networks: Collection[str] | None,
    disowned: Collection[str],
    diagnostics: Diagnostics,
) -> WriteReport | None:
    """Write artifacts; of `disowned` files those that are not among them belong to somebody else from now on."""
    options = context.options
    written = {artifact.path.removeprefix("/") for artifact in artifacts}
    return write_system(
        context.root,
        artifacts,
        networks=networks,
        runtime=options.runtime,
        force=options.force,
        diagnostics=diagnostics,
        disowned=tuple(path for path in disowned if path not in written),
        # Of the system's topologies all are known, and which of two that contradict each other stays is settled.
        takes_over=not context.files,
    )


def _said(context: Context, report: WriteReport | None, name: str, theirs: dict[str, str]) -> int:
    """Say what was done; return the exit status."""
    if report is None:
        return not_written(context)
    status = summarize(context, report, f"'{name}'", str(context.root))
    for network in theirs.values():
        context.output.line(f"left to NetworkManager, as `wgnet apply` made it: the profile '{network}'")
    return status


def _is_taken(context: Context, plans: tuple[InterfacePlan, ...], networks: frozenset[str]) -> bool:
    """Report interfaces of which `wgnet apply` made another network's profile; of the rest their files tell."""
    from wgnet.system.profiles import read_record
    from wgnet.system.taken import report_taken

    return report_taken(
        networks,
        [(plan.network, plan.interface) for plan in plans],
        [(owned.network, owned.interface) for owned in read_record(context.root).values()],
        context.diagnostics,
    )


def _left_to_networkmanager(context: Context, plans: tuple[InterfacePlan, ...]) -> dict[str, str]:
    """Return the keyfiles, without leading slash, of profiles that NetworkManager wrote for `wgnet apply`."""
    from wgnet.managers.networkmanager import profile_uuid
    from wgnet.system.profiles import read_record
    from wgnet.system.target import keyfile_path

    record = read_record(context.root)
    return {
        keyfile_path(plan.interface): plan.network
        for plan in plans
        if plan.manager is Manager.NETWORKMANAGER
        and not context.options.runtime
        and profile_uuid(plan.network, plan.host.name) in record
    }


def _remove_all(context: Context) -> int:
    """Remove what earlier runs wrote, for there is no topology any more; with nothing to remove that is an error."""
    from wgnet.system.profiles import read_record

    options = context.options
    manifest = read_manifest(context.root, runtime=options.runtime, diagnostics=context.diagnostics)
    if manifest is not None and not manifest.entries and (options.runtime or not read_record(context.root)):
        context.read_fleet()
        return context.status()
    report = write_system(
        context.root, [], networks=None, runtime=options.runtime, force=options.force, diagnostics=context.diagnostics
    )
    if report is None:
        return not_written(context)
    _forget_profiles(context, ())
    return summarize(context, report, "no network", str(context.root))


def _forget_profiles(context: Context, stay: Collection[str]) -> None:
    """Remove profiles that `wgnet apply` made of networks that no topology describes.

    A package that is removed takes its network along, whoever wrote its files.
    """
    from wgnet.system.profiles import forget_profiles

    if context.options.runtime:
        return
    try:
        networks = forget_profiles(context.root, stay)
    except OSError as error:
        context.diagnostics.report(
            codes.CANNOT_WRITE, f"cannot remove '{error.filename}': {system_reason(error)}; the rest is done"
        )
        return
    for network in networks:
        context.output.line(
            f"removed: the profile '{network}', which `wgnet apply` made; it is off after the next boot"
        )
