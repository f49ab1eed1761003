"""`wgnet diff OLD NEW`: who gains and loses reach to what, and which hosts' files change."""

from __future__ import annotations

from typing import Any

from wgnet.cli.context import EXIT_CHANGES, EXIT_DONE, EXIT_USAGE, Context
from wgnet.cli.inputs import read_fleet
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.model.topology import Host
from wgnet.plan.derive import Fleet
from wgnet.record import field, record
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.links import bits

#: The version of the JSON shape.
VERSION = 1


@record(frozen=False, kw_only=False)
class Difference:
    """What changes: hosts by name; reach as lists of what each host gains and loses; files by host."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    gains: dict[str, list[str]] = field(default_factory=dict)
    loses: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.gains or self.loses or self.files)


def run(context: Context) -> int:
    """Compare two topologies. Nothing is written, and no key is needed."""
    options = context.options
    if context.files:
        context.output.error("wgnet diff: OLD and NEW are the files, there is no -f")
        return EXIT_USAGE
    old = read_fleet([options.old], context.diagnostics, missing_keys=Severity.NOTE)
    new = read_fleet([options.new], context.diagnostics, missing_keys=Severity.NOTE)
    if old is None or new is None or context.failed:
        return context.status() or 1
    # Notes and warnings of either file are `check`'s business.
    context.diagnostics.items.clear()
    difference = compare(old, new)
    if options.format == "json":
        import json

        context.output.line(json.dumps(to_json(difference), indent=2))
    else:
        for line in to_text(difference):
            context.output.line(line)
    return EXIT_CHANGES if difference and options.exit_code else EXIT_DONE


def compare(old: Fleet, new: Fleet) -> Difference:
    """Return what changes from one fleet to another."""
    difference = Difference()
    before, after = _enabled(old), _enabled(new)
    difference.added = [name for name in after if name not in before]
    difference.removed = [name for name in before if name not in after]
    _compare_reach(old, new, difference)
    _compare_files(old, new, difference)
    return difference


def _enabled(fleet: Fleet) -> dict[str, None]:
    return dict.fromkeys(host.name for routing in fleet.routings for host in routing.links.hosts)


def _compare_reach(old: Fleet, new: Fleet, difference: Difference) -> None:
    olds = {routing.topology.name: routing for routing in old.routings}
    news = {routing.topology.name: routing for routing in new.routings}
    if len(olds) == len(news) == 1:
        # A network that was renamed is still the one to compare with.
        pairs: list[tuple[Routing | None, Routing | None]] = [(old.routings[0], new.routings[0])]
    else:
        pairs = [(olds.get(name), news.get(name)) for name in dict.fromkeys([*olds, *news])]
    for one, two in pairs:
        before, after = _Reach(one), _Reach(two)
        for name in dict.fromkeys([*before.names(), *after.names()]):
            gained, lost = after.beyond(before, name), before.beyond(after, name)
            if gained:
                difference.gains.setdefault(name, []).extend(gained)
            if lost:
                difference.loses.setdefault(name, []).extend(lost)


class _Reach:
    """What the hosts of one network reach, or of none. Hosts that see the same share one set of names."""

    def __init__(self, routing: Routing | None) -> None:
        self.routing = routing
        self._sets: dict[int, frozenset[str]] = {}
        self._new: dict[tuple[frozenset[str], frozenset[str]], frozenset[str]] = {}

    def names(self) -> list[str]:
        return [] if self.routing is None else [host.name for host in self.routing.links.hosts]

    def beyond(self, other: _Reach, name: str) -> list[str]:
        """Return what the host reaches here and not in `other`: hosts in the file's order, then subnets."""
        mine, theirs = self._hosts(name), other._hosts(name)
        new = self._new.get((mine, theirs))
        if new is None:
            new = self._new[mine, theirs] = mine - theirs
        goals = [host.name for host in self.routing.topology.hosts if host.name in new] if new and self.routing else []
        return [goal for goal in goals if goal != name] + [
            goal for goal in self._subnets(name) if goal not in other._subnets(name)
        ]

    def _find(self, name: str) -> Host | None:
        host = None if self.routing is None else self.routing.topology.by_name.get(name)
        return None if host is None or host.disabled else host

    def _hosts(self, name: str) -> frozenset[str]:
        """Return the names of the hosts that a host reaches, its own among them."""
        host = self._find(name)
        if host is None or self.routing is None:
            return frozenset()
        view = self.routing.paths.view(host)
        mask = view.reached | 1 << view.rank
        known = self._sets.get(mask)
        if known is None:
            known = self._sets[mask] = frozenset(other.name for other in self.routing.paths.hosts(mask))
        return known

    def _subnets(self, name: str) -> dict[str, None]:
        """Return the subnets and default routes that a host sends into the tunnel."""
        host = self._find(name)
        if host is None or self.routing is None:
            return {}
        goals: dict[str, None] = {}
        links = self.routing.links
        for rank in bits(self.routing.paths.view(host).reached & self.routing.advertisers):
            taken = self.routing.advertised_to(host, links.hosts[rank])
            goals.update(dict.fromkeys(str(prefix) for prefix in taken))
        if host.exit_node is not None:
            offers = self.routing.topology.by_name[host.exit_node].offers & self.routing.versions(host)
            goals.update(dict.fromkeys(f"IPv{version} through {host.exit_node}" for version in sorted(offers)))
        return goals


def _compare_files(old: Fleet, new: Fleet, difference: Difference) -> None:
    before, after = old.host_names(), new.host_names()
    managers = Managers(Templates())
    for name in dict.fromkeys([*before, *after]):
        one = _files(old, managers, name)
        two = _files(new, managers, name)
        changes = {
            "added": [path for path in two if path not in one],
            "changed": [path for path in two if path in one and one[path] != two[path]],
            "removed": [path for path in one if path not in two],
        }
        if any(changes.values()):
            difference.files[name] = {kind: paths for kind, paths in changes.items() if paths}


def _files(fleet: Fleet, managers: Managers, name: str) -> dict[str, Any]:
    """Return a host's files without secrets, by path; a key that changed shows in the public keys."""
    quiet = Diagnostics()
    return {
        artifact.path: (artifact.content, artifact.mode, artifact.owner, artifact.group, artifact.target)
        for plan in fleet.plan_host(name).interfaces
        for artifact in managers.render(plan, InterfaceSecrets(), quiet)
    }


def to_json(difference: Difference) -> dict[str, Any]:
    """Return the documented shape: hosts added and removed, reach gained and lost, files by host."""
    return {
        "version": VERSION,
        "hosts": {"added": difference.added, "removed": difference.removed},
        "reach": {"gained": difference.gains, "lost": difference.loses},
        "files": difference.files,
    }


def to_text(difference: Difference) -> list[str]:
    """Return the difference in lines for people."""
    if not difference:
        return ["nothing changes"]
    lines = [f"+ host {name}" for name in difference.added] + [f"- host {name}" for name in difference.removed]
    for name, goals in difference.gains.items():
        lines.append(f"+ {name} reaches {_goals(goals)}")
    for name, goals in difference.loses.items():
        lines.append(f"- {name} no longer reaches {_goals(goals)}")
    for name, changes in difference.files.items():
        for kind, paths in changes.items():
            lines.extend(f"{_SIGNS[kind]} {name}: {path}" for path in paths)
    return lines


_SIGNS = {"added": "+", "changed": "~", "removed": "-"}
_MOST_GOALS = 8


def _goals(goals: list[str]) -> str:
    if len(goals) > _MOST_GOALS:
        return f"{', '.join(goals[:_MOST_GOALS])} and {len(goals) - _MOST_GOALS:,} more"
    return ", ".join(goals)
