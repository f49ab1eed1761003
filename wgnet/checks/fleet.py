"""Checks across files: what several networks on one host may not share. Input: the fleet. Output: diagnostics."""

from __future__ import annotations

import re

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.span import Span
from wgnet.model.topology import DEFAULT_MARK, TABLE_MAIN, TABLE_OFF, Host
from wgnet.plan.derive import Fleet, rank_rivals

# Where wgnet writes files of its own, below /etc or /run, and what lies below those that are files.
_OWN_FILES = (
    r"/(?:etc|run)/(?:systemd/network/(?:50|05)-wgnet-[^/]+\.(?:netdev|network)|systemd/system/(?:wgnet-[^/]+|[^/]+\.wants)"
    r"|systemd/networkd\.conf\.d/50-wgnet-[^/]+"
    r"|NetworkManager/(?:system-connections/wgnet-|conf\.d/50-wgnet-)[^/]+|sysctl\.d/50-wgnet-[^/]+|wireguard/[^/]+\.conf"
    r"|wgnet/(?:nftables|[^/]+\.psk))(?:/.*)?|/(?:run|var/lib)/wgnet(?:/.*)?"
)
# The folders on the way there.
_FOLDERS = (
    r"/(?:etc|run)(?:/systemd(?:/network|/system|/networkd\.conf\.d)?|/NetworkManager(?:/system-connections|/conf\.d)?"
    r"|/sysctl\.d|/wireguard|/wgnet)?"
    r"|/var(?:/lib)?"
)


def check_key_files(fleet: Fleet, diagnostics: Diagnostics) -> None:
    """No host keeps its private key where wgnet writes another file, nor two keys in one file."""
    for routing in fleet.routings:
        for host in routing.topology.hosts:
            if host.private_key.kind != "file" or "private-key" not in host.nodes:
                continue  # compiling the patterns takes as long as checking a small file
            path = host.private_key.name
            if re.fullmatch(_OWN_FILES, path) or re.fullmatch(_FOLDERS, path):
                diagnostics.report(
                    codes.BAD_PATH,
                    f"'{path}' of '{host.name}' is no place for a key: wgnet has files of its own there",
                    host.place("private-key"),
                    help="keep the key in /etc/wgnet, in a file whose name ends in '.key'",
                )
    for name in fleet.host_names() if len(fleet.routings) > 1 else ():
        first: dict[str, tuple[str, Host]] = {}
        for planner, host in fleet.appearances(name):
            if host.private_key.kind != "file":
                continue
            network = planner.routing.topology.name
            other_network, other = first.setdefault(host.private_key.name, (network, host))
            if network == other_network:
                continue  # itself, or two networks of one name, which is reported as that
            if host.public_key and other.public_key and host.public_key != other.public_key:
                diagnostics.report(
                    codes.BAD_PATH,
                    f"two networks keep different keys of '{name}' in '{host.private_key.name}'",
                    Label(host.place("private-key"), "again here"),
                    Label(other.place("private-key"), "first here"),
                    help="give each key a file of its own, or both networks the same public key",
                )


def check_network_names(fleet: Fleet, diagnostics: Diagnostics) -> None:
    """Two files describe two networks: keys, profiles and units are named after them."""
    first: dict[str, Span] = {}
    for routing in fleet.routings:
        name, place = routing.topology.name, routing.topology.network_place("name")
        other = first.setdefault(name, place)
        if other is not place:
            diagnostics.report(
                codes.NETWORK_NAME_COLLISION,
                f"two files describe a network '{name}'",
                Label(place, "again here"),
                Label(other, "first here"),
                help="give each network a name of its own",
            )


def check_collisions(fleet: Fleet, diagnostics: Diagnostics) -> None:
    """On no host do two networks share an interface, a listen port, a mark or a route of one table and metric."""
    if len(fleet.routings) < 2:
        return
    for name in fleet.host_names():
        hosts = [host for _, host in fleet.appearances(name)]
        if len(hosts) < 2:
            continue
        _check_value(
            hosts, "interface", codes.INTERFACE_COLLISION, "interface", diagnostics, help="set `interface` at one"
        )
        _check_value(
            hosts,
            "listen_port",
            codes.LISTEN_PORT_COLLISION,
            "listen port",
            diagnostics,
            help="set `listen-port` at one",
        )
        _check_marks(hosts, diagnostics)
        _check_routes(fleet, name, diagnostics)


def _check_value(
    hosts: list[Host],
    field: str,
    code: Code,
    what: str,
    diagnostics: Diagnostics,
    help: str,  # noqa: A002
) -> None:
    first: dict[object, Host] = {}
    for host in hosts:
        value = getattr(host, field)
        if not value:
            continue
        other = first.setdefault(value, host)
        if other is not host:
            key = field.replace("_", "-")
            diagnostics.report(
                code,
                f"two networks use the {what} '{value}' on '{host.name}'",
                Label(host.place(key), "again here"),
                Label(other.place(key), "first here"),
                help=help,
            )


def _check_marks(hosts: list[Host], diagnostics: Diagnostics) -> None:
    """Report a mark that two networks use, or that is the number of another network's table."""
    needing = rank_rivals(hosts)
    first: dict[int, Host] = {}
    for host in hosts:
        mark = host.firewall_mark or (DEFAULT_MARK if host in needing else 0)
        if not mark:
            continue
        other = first.setdefault(mark, host)
        if other is not host:
            diagnostics.report(
                codes.MARK_COLLISION,
                f"two networks use the firewall mark {mark} on '{host.name}'",
                Label(_mark_place(host), "again here"),
                Label(_mark_place(other), "first here"),
                help="set `firewall-mark` at one",
            )
        for neighbour in hosts if host in needing else ():
            if neighbour is not host and neighbour.table == mark:
                diagnostics.report(
                    codes.MARK_COLLISION,
                    f"two networks use the table {mark} on '{host.name}': one by its number, one by its firewall mark",
                    Label(neighbour.place("table")),
                    Label(_mark_place(host), "this network's default route goes there"),
                    help="set `table` or `firewall-mark` to another number at one",
                )


def _mark_place(host: Host) -> Span:
    return host.place("firewall-mark" if "firewall-mark" in host.nodes else "exit-node")


def _check_routes(fleet: Fleet, name: str, diagnostics: Diagnostics) -> None:
    first: dict[tuple[object, int, int], Host] = {}
    for plan in fleet.plan_host(name).interfaces:
        routes = {(route.destination, route.table, route.metric) for route in plan.routes}
        if plan.table != TABLE_OFF:
            routes |= {
                (address.address.network, TABLE_MAIN, plan.metric)
                for address in plan.addresses
                if address.prefix_route
                and address.address.network.prefixlen < address.address.max_prefixlen
                # Each link has link-local routes of its own; a destination there is never without its link.
                and not address.address.network.is_link_local
            }
        for route in sorted(routes, key=str):
            other = first.setdefault(route, plan.host)
            if other is not plan.host:
                destination, table, metric = route
                table_name = "main" if table == TABLE_MAIN else str(table)
                diagnostics.report(
                    codes.ROUTE_COLLISION,
                    f"two networks route {destination} on '{name}' with the metric {metric} in the table {table_name}",
                    Label(plan.host.span, "again here"),
                    Label(other.span, "first here"),
                    help="set another `metric` at one: the smaller wins, the other takes over when it is gone",
                )
