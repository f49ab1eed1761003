"""What the examples come to: every host's files, as they are written and with every host under another manager.

The way is the command's own: parse, check, plan, render with a key store. Files that belong together (several networks
on the same hosts) are rendered together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from example_keys import EXAMPLES, make_store

from wgnet.checks.run import check_fleet, check_topology
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.spec import Manager
from wgnet.system.keystore import KeyStore
from wgnet.system.secrets import SecretFinder

#: Files that one administrator gives to wgnet together, by the beginning of their names.
_FAMILIES = ("babel", "failover")


def examples() -> dict[str, list[Path]]:
    """Return the files of each example."""
    found: dict[str, list[Path]] = {}
    for path in sorted(EXAMPLES.glob("*.yaml")):
        family = path.stem.partition("-")[0]
        found.setdefault(family if family in _FAMILIES else path.stem, []).append(path)
    return found


@dataclass
class Tree:
    """The files of some hosts, or what is in the way of them, by host."""

    files: dict[str, list[Artifact]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)


def read_fleet(texts: Mapping[str, str]) -> tuple[Fleet, Diagnostics]:
    """Read topologies, by name, as every command does."""
    diagnostics = Diagnostics()
    routings = []
    for name, text in texts.items():
        specification = parse_specification(text.encode(), name, diagnostics)
        assert specification is not None
        routing = check_topology(resolve_topology(specification, diagnostics), diagnostics, missing_keys=Severity.ERROR)
        assert routing is not None
        routings.append(routing)
    fleet = Fleet(tuple(routings))
    check_fleet(fleet, diagnostics)
    return fleet, diagnostics


def store_of(fleet: Fleet, folder: Path) -> Path:
    """Write the key store of the networks."""
    for routing in fleet.routings:
        hosts = [host for host in routing.topology.hosts if host.manager is not Manager.EXTERNAL]
        rotating = [host.name for host in hosts if host.next_public_key is not None]
        make_store(folder, routing.topology.name, [host.name for host in hosts], rotating)
    return folder


def render(texts: Mapping[str, str], folder: Path, only: frozenset[str] | None = None) -> Tree:
    """Render the hosts of some topologies with a key store made below `folder`."""
    fleet, diagnostics = read_fleet(texts)
    assert not diagnostics.has_errors  # of an example as it is written, test_examples.py wants no word at all
    secrets = SecretFinder(store=KeyStore(store_of(fleet, folder / "store")))
    managers = Managers(Templates())
    tree = Tree()
    for name in fleet.host_names():
        if only is not None and name not in only:
            continue
        said = Diagnostics()
        artifacts: list[Artifact] = []
        for plan in fleet.plan_host(name).interfaces:
            managers.check(plan, said)
            if not said.has_errors:
                artifacts += managers.render(plan, secrets.find(plan, said), said, deliver_keys=True)
        tree.said[name] = [f"{item.severity.value}[{item.code}]: {item.message}" for item in said.sorted()]
        tree.files[name] = [] if said.has_errors else artifacts
    return tree


def under(manager: Manager, text: str) -> tuple[str, frozenset[str]]:
    """Return the text with every host under `manager` that has files, and the hosts that this is new to."""
    fleet, _ = read_fleet({"example.yaml": text})
    changed = frozenset(
        host.name
        for host in fleet.routings[0].topology.hosts
        if host.manager not in (manager, Manager.EXTERNAL) and not host.disabled
    )
    lines: list[str] = []
    section = host = ""
    for line in text.split("\n"):
        if re.match(r"[a-z]", line):
            section = line.partition(":")[0]
        name = re.match(r"  ([a-z0-9-]+):(?: \{(.*))?", line)
        if section == "hosts" and name:
            host = name[1]
            if host in changed and name[2]:
                line = f"  {host}: {{manager: {manager.value}, {name[2]}"
            lines.append(line)
            if host in changed and not name[2]:
                lines.append(f"    manager: {manager.value}")
            continue
        # A version is one of the manager that the host had.
        if section == "hosts" and host in changed and re.match(r"    manager(-version)?:", line):
            continue
        lines.append(line)
    return "\n".join(lines), changed
