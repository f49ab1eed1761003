"""From a drafted network to what wgnet makes of it: the text is parsed, and must be without an error."""

from __future__ import annotations

from property.networks import Draft
from wgnet.checks.run import check_topology
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.model.resolve import resolve_topology
from wgnet.model.topology import Topology
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification


def topology_of(draft: Draft) -> Topology:
    """Return the topology of a drafted network."""
    diagnostics = Diagnostics()
    specification = parse_specification(draft.text().encode(), "net.yaml", diagnostics)
    assert specification is not None, draft.text()
    topology = resolve_topology(specification, diagnostics)
    assert [item.message for item in diagnostics] == [], draft.text()
    return topology


def routing_of(draft: Draft) -> Routing:
    """Return the links and paths of a drafted network."""
    return Routing.of(topology_of(draft))


def checked(draft: Draft) -> tuple[Routing, Diagnostics]:
    """Return the routing of a drafted network and what the check says of it, which is no error."""
    diagnostics = Diagnostics()
    routing = check_topology(topology_of(draft), diagnostics, missing_keys=Severity.ERROR)
    assert routing is not None
    assert not diagnostics.has_errors, [item.message for item in diagnostics] + [draft.text()]
    return routing, diagnostics
