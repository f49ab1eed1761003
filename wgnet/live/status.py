"""A host's interfaces as they are, beside what they are to be.

Stage: live. Input: plans, what is wanted of them, and the live state; output: an `InterfaceStatus` each. No secret is
in one. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wgnet.live.device import LivePeer, PeerSettings
from wgnet.live.drift import Drift, find_drift
from wgnet.live.firewall import Dropped, find_dropped
from wgnet.live.ruleset import Ruleset
from wgnet.live.state import LiveState
from wgnet.live.wanted import WantedInterface
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager

__all__ = [
    "HostStatus",
    "InterfaceStatus",
    "Leftover",
    "PeerStatus",
    "gives_dns_to_resolved",
    "interface_statuses",
    "link_state",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """A peer. `name` None: no topology knows it. `live` None: the device does not have it.

    `endpoint` is what is configured. `rotating`: the host has another key beside this one.
    """

    name: str | None
    public_key: str
    endpoint: str | None
    live: LivePeer | None
    rotating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStatus:
    """An interface. `state` is "up", "down" or "absent"; `let_go`: networkd leaves it alone until the next boot.

    `dns_unread`: its DNS servers are for systemd-resolved, which does not run.
    """

    plan: InterfacePlan
    state: str
    live: LiveState
    peers: tuple[PeerStatus, ...]
    drift: tuple[Drift, ...]
    dropped: tuple[Dropped, ...]
    let_go: bool
    dns_unread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An interface that wgnet once wrote and that no topology describes any more. `state` as of an interface."""

    interface: str
    network: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """All that there is to say of a host. `name` None: no topology was read. `time` is in seconds since 1970.

    `unconfirmed`: a change that was applied waits to be confirmed.
    """

    name: str | None
    time: float
    interfaces: tuple[InterfaceStatus, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    unconfirmed: bool = False

    @property
    def drifted(self) -> bool:
        """Whether anything is otherwise than the topology says; a firewall is not the topology's."""
        return bool(self.leftovers) or any(each.drift for each in self.interfaces)


def link_state(name: str, live: LiveState) -> str:
    """Return "up", "down" or "absent"."""
    link = live.links.get(name)
    return "absent" if link is None else "up" if link.up else "down"


def interface_statuses(
    plans: Sequence[InterfacePlan],
    wanted: Sequence[WantedInterface],
    live: LiveState,
    ruleset: Ruleset,
    let_go: frozenset[str],
) -> tuple[InterfaceStatus, ...]:
    """Return the status of each interface of `plans`; `wanted` are the same ones, in the same order."""
    drift = find_drift(wanted, live)
    return tuple(
        InterfaceStatus(
            plan=plan,
            state=link_state(plan.interface, live),
            live=live,
            peers=tuple(_peers(each.device.peers, live, plan.interface)),
            drift=tuple(one for one in drift if one.interface == plan.interface),
            # What is down on purpose needs nothing.
            dropped=tuple(find_dropped(plan, ruleset)) if plan.autoconnect or _is_up(plan, live) else (),
            let_go=plan.interface in let_go,
            dns_unread=live.dns is None and _is_up(plan, live) and gives_dns_to_resolved(plan),
        )
        for plan, each in zip(plans, wanted, strict=True)
    )


def gives_dns_to_resolved(plan: InterfacePlan) -> bool:
    """Return whether an interface has DNS servers that systemd-resolved alone would read."""
    return plan.manager is Manager.NETWORKD and plan.dns is not None and bool(plan.dns.servers)


def _is_up(plan: InterfacePlan, live: LiveState) -> bool:
    return link_state(plan.interface, live) == "up"


def _peers(wanted: Mapping[str, PeerSettings], live: LiveState, interface: str) -> list[PeerStatus]:
    """Return the topology's peers in its order, then those that it does not know."""
    device = live.devices.get(interface)
    there = {} if device is None else device.peers
    found = [
        PeerStatus(
            name=peer.name,
            public_key=key,
            endpoint=peer.endpoint,
            live=there.get(key),
            rotating=peer.other_key is not None,
        )
        for key, peer in wanted.items()
    ]
    strangers = [
        PeerStatus(name=None, public_key=key, endpoint=None, live=there[key])
        for key in sorted(there.keys() - wanted.keys())
    ]
    return found + strangers
