"""What tests of the stages share: a text taken to its diagnostics or plan, and places found by what stands there."""

from __future__ import annotations

import textwrap
from pathlib import Path

from wgnet.checks.run import check_fleet, check_topology
from wgnet.diagnostics.diagnostic import Diagnostic, Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.managers.dispatch import check_plans
from wgnet.model.resolve import resolve_topology
from wgnet.model.topology import Topology
from wgnet.plan.derive import Fleet
from wgnet.plan.types import HostPlan, InterfacePlan, PeerPlan
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification

REPOSITORY = Path(__file__).resolve().parent.parent
FILE = "t.yaml"


def text_of(text: str) -> str:
    """Return a topology that is indented as the test is, with the two lines that all begin with."""
    return "wgnet: 1\n" + textwrap.dedent(text).lstrip("\n")


def check_texts(*texts: str | bytes, missing_keys: Severity = Severity.NOTE) -> tuple[Diagnostics, Fleet | None]:
    """Take topologies through everything that `wgnet check` does, as files t.yaml, t2.yaml and so on."""
    diagnostics = Diagnostics()
    routings = []
    for number, text in enumerate(texts, 1):
        data = text.encode() if isinstance(text, str) else text
        own = Diagnostics(sources=diagnostics.sources)
        spec = parse_specification(data, FILE if number == 1 else f"t{number}.yaml", own)
        if spec is not None:
            routing = check_topology(resolve_topology(spec, own), own, missing_keys=missing_keys)
            if routing is not None:
                routings.append(routing)
        diagnostics.items.extend(own.items)
    if diagnostics.has_errors:
        return diagnostics, None
    fleet = Fleet(tuple(routings))
    check_fleet(fleet, diagnostics)
    if diagnostics.has_errors:
        return diagnostics, None
    check_plans(fleet, diagnostics)
    return diagnostics, fleet


def problems(*texts: str | bytes) -> list[Diagnostic]:
    """Return what `wgnet check` reports, in order, the notes of missing keys left out."""
    return [one for one in check_texts(*texts)[0].sorted() if one.severity is not Severity.NOTE]


def codes_of(*texts: str | bytes) -> list[str]:
    """Return the codes of what `wgnet check` reports, in order, notes left out."""
    return [one.code.name for one in problems(*texts)]


def resolve(text: str) -> tuple[Topology, Diagnostics]:
    """Resolve a topology whose shape is sound."""
    diagnostics = Diagnostics()
    spec = parse_specification(text.encode(), FILE, diagnostics)
    assert spec is not None
    assert not diagnostics.has_errors, [one.message for one in diagnostics]
    return resolve_topology(spec, diagnostics), diagnostics


def routing_of(text: str) -> Routing:
    """Return the routing of a sound topology."""
    topology, diagnostics = resolve(text)
    assert not diagnostics.has_errors, [one.message for one in diagnostics]
    return Routing.of(topology)


def plan_hosts(*texts: str) -> Fleet:
    """Return the fleet of topologies without errors."""
    diagnostics, fleet = check_texts(*texts)
    assert fleet is not None, [one.message for one in diagnostics]
    return fleet


def plan_of(text: str, host: str) -> InterfacePlan:
    """Return the plan of one host's only interface."""
    plan: HostPlan = plan_hosts(text).plan_host(host)
    (interface,) = plan.interfaces
    return interface


def peers_of(plan: InterfacePlan) -> dict[str, PeerPlan]:
    """Return the peers by name."""
    return {peer.name: peer for peer in plan.peers}


def allowed(plan: InterfacePlan) -> dict[str, str]:
    """Return the AllowedIPs of each peer as wg(8) prints them."""
    return {peer.name: ", ".join(map(str, peer.allowed_ips)) for peer in plan.peers}


def place_of(text: str, piece: str, occurrence: int = 1) -> str:
    """Return LINE:COLUMN-COLUMN of a piece of the text that stands on one line."""
    index = -1
    for _ in range(occurrence):
        index = text.index(piece, index + 1)
    line = text.count("\n", 0, index) + 1
    column = index - (text.rfind("\n", 0, index) + 1) + 1
    return f"{line}:{column}-{column + len(piece)}"


def places(diagnostic: Diagnostic) -> list[str]:
    """Return the places of a diagnostic, the primary one first, as `place_of` writes them."""
    labels = [diagnostic.primary, *diagnostic.secondary]
    return [
        f"{label.span.line}:{label.span.column}-{label.span.end_column}" if label is not None else ""
        for label in labels
    ]


def unmark(marked: str) -> tuple[str, list[str], list[str]]:
    """Return a text without its marks, the places between ⟦ and ⟧ (primary), and those between ⟪ and ⟫ (secondary)."""
    plain = ""
    opened: list[int] = []
    found: dict[str, list[str]] = {"⟧": [], "⟫": []}
    for character in marked:
        if character in "⟦⟪":
            opened.append(len(plain))
        elif character in found:
            start = opened.pop()
            line, column = plain.count("\n", 0, start) + 1, start - plain.rfind("\n", 0, start)
            end_column = len(plain) - plain.rfind("\n")
            found[character].append(f"{line}:{column}-{end_column}")
        else:
            plain += character
    return plain, found["⟧"], found["⟫"]
