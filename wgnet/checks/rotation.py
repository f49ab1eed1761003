"""Hosts whose keys are being changed, as far as the topology shows it. Input: the fleet. Output: notes.

That a host has a `next-public-key` is no mistake, so this is told by `wgnet check` alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.words import quote_names
from wgnet.model.topology import Host
from wgnet.plan.derive import Fleet
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.spec import Manager


def note_rotations(fleet: Fleet, diagnostics: Diagnostics) -> None:
    """Tell which hosts are between two keys, who must know both before they switch, and whom that costs the link."""
    for routing in fleet.routings:
        for host in routing.topology.hosts:
            if host.next_public_key is None or host.disabled:
                continue
            peers = peers_of(routing, host)
            ways = [
                "run `wgnet keys rotate` where its private key is: it knows what the file does not show",
                f"wait with `wgnet keys rotate finish` until '{host.name}' runs with its next key",
            ]
            if peers:
                ways.insert(1, f"apply this file on {_names(peers)} before '{host.name}' is switched, and not after")
            losers = [peer for peer in peers if not has_refresh(peer)]
            if losers:
                ways.append(
                    f"expect {_names(losers)} to lose '{host.name}' from its switch to the end: no refresh runs there"
                )
            diagnostics.report(
                codes.ROTATION,
                f"'{host.name}' is between two keys: prepared, or switched already",
                Label(host.place("next-public-key"), "the key that it changes to"),
                help=ways,
            )


def _names(hosts: list[Host]) -> str:
    return quote_names(host.name for host in hosts)


def peers_of(routing: Routing, host: Host) -> list[Host]:
    """Return a host's direct peers, in the order of the file; none of a disabled host."""
    rank = routing.links.rank.get(host.name)
    if rank is None:
        return []
    peers = {routing.links.hosts[peer].name for peer in routing.links.rules[rank]}
    return [other for other in routing.topology.hosts if other.name in peers]


def has_refresh(host: Host) -> bool:
    """Return whether `wgnet refresh` can run on a host, which takes it from a peer's one key to the other."""
    return host.manager not in (Manager.WG_QUICK, Manager.EXTERNAL)


def names_without_refresh(routing: Routing, host: Host) -> Iterator[tuple[str, str]]:
    """Yield the names and managers of a host's peers on which no refresh runs."""
    for peer in peers_of(routing, host):
        if not has_refresh(peer):
            yield peer.name, peer.manager.value
