"""`wgnet show HOST`: one host's derived plan as a table, as JSON, or the network's names for /etc/hosts."""

from __future__ import annotations

from wgnet.cli.context import EXIT_DONE, Context
from wgnet.cli.hosts import report_unknown_host
from wgnet.cli.planjson import plan_to_json
from wgnet.diagnostics.severity import Severity
from wgnet.model.topology import TABLE_MAIN
from wgnet.plan.derive import Fleet
from wgnet.plan.firewall import firewall_needs
from wgnet.plan.types import Action, InterfacePlan, PeerPlan, PolicyRulePlan, RoutePlan


def run(context: Context) -> int:
    """Show one host."""
    fleet = context.read_fleet(missing_keys=Severity.NOTE)
    if fleet is None:
        return context.status()
    name = context.options.host
    if name not in fleet.host_names():
        report_unknown_host(context, name, fleet.host_names())
        return context.status()
    plan = fleet.plan_host(name)
    if context.options.format == "json":
        import json

        context.output.line(json.dumps(plan_to_json(plan), indent=2))
    elif context.options.format == "hosts":
        for line in hosts_lines(fleet, name):
            context.output.write(f"{line}\n")  # as it is: hosts(5) has tabs, and no name has anything else
    else:
        for number, interface in enumerate(plan.interfaces):
            if number:
                context.output.line()
            for line in describe(interface):
                context.output.line(line)
    return EXIT_DONE if not context.failed else context.status()


def hosts_lines(fleet: Fleet, name: str) -> list[str]:
    """Return lines for /etc/hosts: every host of the networks that the host is in, by each of its addresses."""
    lines = []
    for planner, _ in fleet.appearances(name):
        topology = planner.routing.topology
        lines.append(f"# network {topology.name}")
        for host in topology.hosts:
            if not host.disabled:
                lines.extend(f"{address.ip}\t{host.name}" for address in host.addresses)
    return lines


def describe(plan: InterfacePlan) -> list[str]:
    """Return the lines of an interface's table."""
    manager = plan.manager.value
    if plan.manager_version:
        manager += " " + ".".join(map(str, plan.manager_version))
    rows = [
        ("network", plan.network),
        ("interface", plan.interface),
        ("manager", manager),
        ("public key", plan.host.public_key or "(none yet)"),
        ("private key", f"{plan.private_key.kind} {plan.private_key.name}".strip()),
        ("addresses", ", ".join(str(address.address) for address in plan.addresses) or "(none)"),
        ("listen port", str(plan.listen_port) if plan.listen_port else "auto"),
        ("MTU", str(plan.mtu) if plan.mtu else "the kernel's"),
    ]
    if plan.firewall_mark:
        rows.append(("firewall mark", str(plan.firewall_mark)))
    if plan.dns is not None:
        domains = [*plan.dns.search, *(f"~{zone}" for zone in plan.dns.reverse)]
        asked = "everything" if plan.dns.everything else ", ".join(domains)
        rows.append(("DNS", f"{', '.join(map(str, plan.dns.servers))} for {asked}"))
    if not plan.autoconnect:
        rows.append(("autoconnect", "no"))
    width = max(len(name) for name, _ in rows)
    if any(peer.preshared_key is not None for peer in plan.peers):
        width = max(width, len(_PRESHARED_KEY))
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    for peer in plan.peers:
        lines += ["", *_peer_lines(peer, width)]
    lines += _section("routes", [_route(plan, route) for route in plan.routes])
    lines += _section("rules", [_rule(rule) for rule in plan.rules])
    lines += _section("firewall", firewall_needs(plan))
    return lines


_PRESHARED_KEY = "preshared key"


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _peer_lines(peer: PeerPlan, width: int) -> list[str]:
    rows = [("public key", peer.public_key or "(none yet)")]
    if peer.next_public_key:
        rows.append(("next key", peer.next_public_key))
    rows.append(("endpoint", ", ".join(map(str, peer.endpoints)) or "(learned from its traffic)"))
    rows.append(("allowed ips", ", ".join(map(str, peer.allowed_ips)) or "(none)"))
    if peer.persistent_keepalive:
        rows.append(("keepalive", f"every {peer.persistent_keepalive} s"))
    if peer.preshared_key is not None:
        source = peer.preshared_key
        rows.append((_PRESHARED_KEY, source if isinstance(source, str) else f"{source.kind} {source.name}"))
    return [f"peer {peer.name}", *(f"  {name:<{width}}  {value}" for name, value in rows)]


def _route(plan: InterfacePlan, route: RoutePlan) -> str:
    table = "" if route.table == TABLE_MAIN else f" table {route.table}"
    return f"{route.destination} dev {plan.interface}{table} metric {route.metric}"


def _rule(rule: PolicyRulePlan) -> str:
    """Return a rule as ip-rule(8) prints it."""
    parts = [f"{rule.priority}:"]
    if rule.invert:
        parts.append("not")
    parts.append(f"from {rule.source or 'all'}")
    if rule.destination is not None:
        parts.append(f"to {rule.destination}")
    if rule.firewall_mark is not None:
        parts.append(f"fwmark {rule.firewall_mark:#x}")
    if rule.incoming_interface is not None:
        parts.append(f"iif {rule.incoming_interface}")
    if rule.action is Action.PROHIBIT:
        parts.append("prohibit")
    else:
        parts.append(f"lookup {'main' if rule.table == TABLE_MAIN else rule.table}")
    if rule.suppress_prefix_length is not None:
        parts.append(f"suppress_prefixlength {rule.suppress_prefix_length}")
    return " ".join(parts) + (f" ({'IPv6' if rule.version == 6 else 'IPv4'})")
