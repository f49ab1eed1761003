"""Makes hosts' files of their plans, and says what came of writing them.

Input: a fleet and where its secrets are; output: artifacts by host, one for each place. Must not write.
"""

from __future__ import annotations

from collections.abc import Iterator

from wgnet.cli.context import EXIT_NOT_STARTED, Context
from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.words import quote_names
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import Managers
from wgnet.model.topology import Host
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.system.outcome import WriteReport
from wgnet.system.rootpath import own_templates
from wgnet.system.secrets import SecretFinder


class Rendering:
    """One run's renderers and secrets; gives each host's artifacts, and stops at the first error."""

    def __init__(self, context: Context, fleet: Fleet, secrets: SecretFinder, base: str = "/etc") -> None:
        self.context = context
        self.fleet = fleet
        self.secrets = secrets
        # A person's own templates are the system's, also when files are made for other hosts.
        self.managers = Managers(own_templates(context.root), base)

    def artifacts(self, name: str) -> list[Artifact]:
        """Return one host's files; what they lack of secrets is a warning each."""
        plans = self.plans(name)
        return once([each for plan in plans for each in self.interface(plan, self.context.diagnostics)])

    def plans(self, name: str) -> tuple[InterfacePlan, ...]:
        """Return the plans of one host's interfaces."""
        return self.fleet.plan_host(name).interfaces

    def interface(self, plan: InterfacePlan, diagnostics: Diagnostics) -> list[Artifact]:
        """Return one interface's files; problems go to `diagnostics`."""
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
                artifacts += self.interface(plan, own)
                for diagnostic in own:
                    if diagnostic.code in _ABSENT and len(names) > 1:
                        absent.setdefault(diagnostic.code, []).append(plan.host)
                    else:
                        self.context.diagnostics.items.append(diagnostic)
            yield name, once(artifacts)
        for code, hosts in absent.items():
            self.context.diagnostics.report(
                code,
                f"the files of {quote_names(host.name for host in hosts)} are written without {_ABSENT[code]}",
                hosts[0].span,
                help=("give the key store with `--keys DIR`", "run `wgnet render --system` on the host itself"),
            )


def once(artifacts: list[Artifact]) -> list[Artifact]:
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


def not_written(context: Context) -> int:
    """Return the status for a run that wrote nothing: 1 when the topology is at fault, 6 when the place is."""
    places = {
        *(codes.CANNOT_WRITE, codes.CHANGED_BY_HAND, codes.NOT_A_REGULAR_FILE, codes.LOCKED, codes.OTHER_NETWORK),
    }
    faults = [d for d in context.diagnostics if d.severity is Severity.ERROR]
    return EXIT_NOT_STARTED if all(d.code in places for d in faults) else context.status()


def summarize(context: Context, report: WriteReport, what: str, where: str) -> int:
    parts = [f"{len(report.written):,} written", f"{len(report.unchanged):,} unchanged"]
    if report.removed:
        parts.append(f"{len(report.removed):,} removed")
    context.output.line(f"{what} in {where}: {', '.join(parts)}")
    for path in report.kept:
        context.output.line(f"kept: {path}")
    return context.status()
