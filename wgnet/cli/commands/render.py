"""`wgnet render`: write every host's files below a folder, this host's in place, or print one host's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.hosts import report_unknown_host, this_host
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.words import quote_names
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.model.topology import Host
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager
from wgnet.system.outcome import WriteReport
from wgnet.system.secrets import SecretFinder

DEFAULT_OUTPUT = "rendered"


def run(context: Context) -> int:
    """Render as the options say."""
    options = context.options
    if options.runtime and not options.system:
        return _usage(context, "--runtime goes with --system")
    if options.show_secrets and not options.stdout:
        return _usage(context, "--show-secrets goes with --stdout")
    if options.stdout and not options.host:
        return _usage(context, "--stdout prints one host's files: name it with --host")
    if options.system and len(options.host) > 1:
        return _usage(context, "--system writes the files of one host")
    # When the last topology is gone, what it left is to go too.
    fleet = context.read_fleet(required=not options.system)
    if fleet is None or context.failed:
        return context.status()
    if options.system:
        return _render_system(context, fleet)
    hosts = fleet.host_names()
    chosen = list(dict.fromkeys(options.host))
    for name in chosen:
        if name not in hosts:
            report_unknown_host(context, name, hosts)
    if context.failed:
        return context.status()
    rendering = _Rendering(context, fleet, SecretFinder(store=open_store(context)))
    if options.stdout:
        return _print(context, rendering, chosen)
    return _render_tree(context, rendering, hosts, chosen)


def _usage(context: Context, message: str) -> int:
    context.output.error(f"wgnet render: {message}")
    return EXIT_USAGE


class _Rendering:
    """One run's renderers and secrets; gives each host's artifacts, and stops at the first error."""

    def __init__(self, context: Context, fleet: Fleet, secrets: SecretFinder, base: str = "/etc") -> None:
        self.context = context
        self.fleet = fleet
        self.secrets = secrets
        # A person's own templates are the system's, also when files are made for other hosts.
        self.managers = Managers(Templates(context.root / "etc/wgnet/templates"), base)

    def artifacts(self, name: str) -> list[Artifact]:
        """Return one host's files; what they lack of secrets is a warning each."""
        plans = self.plans(name)
        return _once([each for plan in plans for each in self._interface(plan, self.context.diagnostics)])

    def plans(self, name: str) -> tuple[InterfacePlan, ...]:
        return self.fleet.plan_host(name).interfaces

    def _interface(self, plan: InterfacePlan, diagnostics: Diagnostics) -> list[Artifact]:
        self.managers.check(plan, diagnostics)
        secrets = self.secrets.find(plan, diagnostics)
        return self.managers.render(plan, secrets, diagnostics, deliver_keys=self.secrets.store is not None)

    def all(self, names: list[str]) -> Iterator[tuple[str, list[Artifact]]]:
        """Yield the files of many hosts; what they lack of secrets is told once for all of them, at the end."""
        absent: dict[Code, list[Host]] = {}
        for name in names:
            artifacts: list[Artifact] = []
            for plan in self.plans(name):
                own = Diagnostics(sources=self.context.diagnostics.sources)
                artifacts += self._interface(plan, own)
                for diagnostic in own:
                    if diagnostic.code in _ABSENT and len(names) > 1:
                        absent.setdefault(diagnostic.code, []).append(plan.host)
                    else:
                        self.context.diagnostics.items.append(diagnostic)
            yield name, _once(artifacts)
        for code, hosts in absent.items():
            self.context.diagnostics.report(
                code,
                f"the files of {quote_names(host.name for host in hosts)} are written without {_ABSENT[code]}",
                hosts[0].span,
                help=("give the key store with `--keys DIR`", "run `wgnet render --system` on the host itself"),
            )


def _once(artifacts: list[Artifact]) -> list[Artifact]:
    """Leave out a file that two networks of a host share, which a private key may be."""
    first: dict[str, Artifact] = {}
    return [
        each
        for each in artifacts
        if first.setdefault(each.path, each) is each or each.content != first[each.path].content
    ]


#: The warnings that nearly every host draws where no key store is given.
_ABSENT = {
    codes.PRIVATE_KEY_ABSENT: "their private keys: their tunnels cannot start",
    codes.PRESHARED_KEY_ABSENT: "the preshared keys of their links",
}


def _render_tree(context: Context, rendering: _Rendering, hosts: list[str], chosen: list[str]) -> int:
    from wgnet.system.tree import write_tree

    options = context.options
    directory = Path(options.output or DEFAULT_OUTPUT)
    names = chosen or hosts
    with context.output.progress("rendering") as progress:
        report = write_tree(
            directory,
            rendering.all(names),
            only=frozenset(chosen) if chosen else None,
            force=options.force,
            diagnostics=context.diagnostics,
            progress=lambda done: progress.update(done, len(names)),
        )
    if report is None:
        return _not_written(context)
    return _summary(context, report, f"{len(names):,} {'host' if len(names) == 1 else 'hosts'}", str(directory))


def _render_system(context: Context, fleet: Fleet) -> int:
    from wgnet.system.install import write_system

    options = context.options
    if not fleet.routings:
        return _remove_all(context)
    name = this_host(context, options.host)
    if name is None:
        return EXIT_NOT_STARTED
    hosts = fleet.host_names()
    if name not in hosts and context.files:
        report_unknown_host(context, name, hosts)
        return context.status()
    base = "/run" if options.runtime else "/etc"
    rendering = _Rendering(context, fleet, SecretFinder(store=open_store(context), root=context.root), base)
    artifacts = rendering.artifacts(name)
    if context.failed:
        return context.status()
    # Two files with one UUID would be two states of one profile.
    theirs = _left_to_networkmanager(context, rendering.plans(name))
    report = write_system(
        context.root,
        [artifact for artifact in artifacts if artifact.path.removeprefix("/") not in theirs],
        networks={routing.topology.name for routing in fleet.routings} if context.files else None,
        runtime=options.runtime,
        force=options.force,
        diagnostics=context.diagnostics,
        disowned=tuple(theirs),
    )
    if report is None:
        return _not_written(context)
    status = _summary(context, report, f"'{name}'", str(context.root))
    for network in theirs.values():
        context.output.line(f"left to NetworkManager, as `wgnet apply` made it: the profile '{network}'")
    return status


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
        and (owned := record.get(plan.interface)) is not None
        and owned.uuid == profile_uuid(plan.network, plan.host.name)
    }


def _remove_all(context: Context) -> int:
    """Remove what earlier runs wrote, for there is no topology any more; with nothing to remove that is an error."""
    from wgnet.system.install import read_manifest, write_system

    options = context.options
    manifest = read_manifest(context.root, runtime=options.runtime, diagnostics=context.diagnostics)
    if manifest is not None and not manifest.entries:
        context.read_fleet()
        return context.status()
    report = write_system(
        context.root, [], networks=None, runtime=options.runtime, force=options.force, diagnostics=context.diagnostics
    )
    if report is None:
        return _not_written(context)
    return _summary(context, report, "no network", str(context.root))


def _not_written(context: Context) -> int:
    """Return the status for a run that wrote nothing: 1 when the topology is at fault, 6 when the place is."""
    places = {codes.CANNOT_WRITE, codes.CHANGED_BY_HAND, codes.NOT_A_REGULAR_FILE, codes.LOCKED}
    faults = [d for d in context.diagnostics if d.severity is Severity.ERROR]
    return EXIT_NOT_STARTED if all(d.code in places for d in faults) else context.status()


def _summary(context: Context, report: WriteReport, what: str, where: str) -> int:
    parts = [f"{len(report.written):,} written", f"{len(report.unchanged):,} unchanged"]
    if report.removed:
        parts.append(f"{len(report.removed):,} removed")
    context.output.line(f"{what} in {where}: {', '.join(parts)}")
    for path in report.kept:
        context.output.line(f"kept: {path}")
    return context.status()


def _print(context: Context, rendering: _Rendering, names: list[str]) -> int:
    """Print the files one after another, each under a line with its path, mode and owner; secrets masked."""
    from wgnet.cli.masking import mask_secrets

    for name, artifacts in rendering.all(names):
        if context.failed:
            return context.status()
        for artifact in artifacts:
            title = artifact.path if len(names) == 1 else f"{name}:{artifact.path}"
            context.output.line(f"# {title} {artifact.mode:04o} {artifact.owner}:{artifact.group}")
            if artifact.target is not None:
                context.output.line(f"-> {artifact.target}")
                continue
            text = artifact.content.decode()
            if artifact.secret and not context.options.show_secrets:
                text = mask_secrets(text)
            context.output.write(text if text.endswith("\n") else f"{text}\n")
    return EXIT_DONE if not context.failed else context.status()
