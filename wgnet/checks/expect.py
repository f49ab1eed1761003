"""Checks of `expect`: every line holds for every member of its groups and every IP version that both ends have.

Each packet is traced through the AllowedIPs of the hosts that it passes, so that what is proved is what is rendered.
"""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.model.topology import Expectation, Host
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.trace import Trace, Tracer, common_version_addresses
from wgnet.syntax.spec import Address

#: How many failures of one line are told one by one.
MAX_TOLD = 5


def check_expectations(routing: Routing, diagnostics: Diagnostics) -> None:
    """Trace what each expectation is about, there and back, and report what does not hold."""
    tracer = Tracer(routing)
    for expectation in routing.topology.expectations:
        failures = 0
        for source in expectation.sources:
            for problem in _check_source(tracer, expectation, source):
                failures += 1
                if failures <= MAX_TOLD:
                    _report(expectation, problem, diagnostics)
        if failures > MAX_TOLD:
            _report(expectation, f"{failures - MAX_TOLD} more packets do not go as expected", diagnostics)


def _report(expectation: Expectation, problem: str, diagnostics: Diagnostics) -> None:
    diagnostics.report(codes.EXPECT_FAILED, problem, Label(expectation.spec.node.span))


def _check_source(tracer: Tracer, expectation: Expectation, source: Host) -> list[str]:
    """Return what does not hold of an expectation for one sender."""
    if source.disabled:
        return _disabled(expectation, source)
    if expectation.to_address is not None:
        address = expectation.to_address
        sender = next((own.ip for own in source.addresses if own.version == address.version), None)
        if sender is None:
            return [] if not expectation.reachable else [f"'{source.name}' has no IPv{address.version} address"]
        return _check_packet(tracer, expectation, source, str(address), sender, address, None)
    problems: list[str] = []
    for target in expectation.to_hosts:
        if target is source:
            continue
        if target.disabled:
            problems += _disabled(expectation, target)
            continue
        pairs = common_version_addresses(source, target)
        if not pairs and expectation.reachable:
            problems.append(f"'{source.name}' and '{target.name}' have no IP version in common")
        for sender, address in pairs:
            problems += _check_packet(tracer, expectation, source, f"'{target.name}'", sender, address, target)
    return problems


def _disabled(expectation: Expectation, host: Host) -> list[str]:
    return [f"'{host.name}' is disabled"] if expectation.reachable else []


def _check_packet(
    tracer: Tracer,
    expectation: Expectation,
    source: Host,
    goal: str,
    sender: Address,
    address: Address,
    target: Host | None,
) -> list[str]:
    there = tracer.trace(source, sender, address)
    back = None
    if there.delivered:
        back = tracer.trace(tracer.routing.topology.by_name[there.hosts[-1]], address, sender)
    reached = there.delivered and back is not None and back.delivered
    who = f"IPv{address.version} from '{source.name}' to {goal}"
    if not expectation.reachable:
        return [f"{who} arrives, expected it not to: {_way(there)}"] if reached else []
    if not there.delivered:
        return [f"{who} does not arrive: {_way(there)}: {there.reason}"]
    if not reached:
        assert back is not None
        return [f"the way back of {who} does not arrive: {_way(back)}: {back.reason}"]
    if expectation.via is not None:
        between = there.hosts[1:-1] if target is not None else there.hosts[1:]
        if between != expectation.via:
            expected = " -> ".join(expectation.via) or "no host between"
            return [f"{who} takes another path: {_way(there)}, expected via {expected}"]
    return []


def _way(trace: Trace) -> str:
    return " -> ".join(trace.hosts)
