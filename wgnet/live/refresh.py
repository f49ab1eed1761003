"""What `wgnet refresh` does for peers that do not answer, and for those that are between two keys.

Stage: live. Input: an interface's plan, its live device, what former runs remember, the time, resolved names; output:
changes of single peers, and what the next run is to remember. Touches nothing, asks nobody, and never names a peer
that is well.

A peer is tried elsewhere only where this side speaks in vain. That its last handshake is old says little: without
traffic WireGuard makes none. So it has to be old (sessions end after 180 s), and besides one of these must hold: a
keepalive is configured, so that a session would never end; packets have been sent since it got old, and none came; no
endpoint is known at all, or there is no route to it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wgnet.keys.host import OwnPresharedKeys
from wgnet.live.changes import PeerChange
from wgnet.live.device import LiveDevice, LivePeer
from wgnet.plan.types import InterfacePlan, PeerPlan

__all__ = [
    "Condition",
    "DeviceMemory",
    "PeerMemory",
    "Refreshment",
    "condition_of",
    "find_candidates",
    "observe",
    "refresh_endpoints",
    "refresh_keys",
    "refresh_preshared_keys",
    "wanting_peers",
]

#: Seconds. REJECT_AFTER_TIME of the protocol, and the time that a handshake may take.
STALE_S = 180 + 15
#: Seconds that an endpoint or a key is given: three handshakes, each REKEY_TIMEOUT after the other.
PATIENCE_S = 15
#: Bytes of a handshake's first message.
_INITIATION = 148
#: So that a packet leaves at once; for the moment between two calls.
_KICK_S = 1


class Condition(enum.Enum):
    """How a peer does."""

    #: It has answered lately.
    FRESH = "fresh"
    #: Its session is over, and nobody has tried to speak with it.
    IDLE = "idle"
    #: This side speaks to it, and it does not answer.
    VAIN = "vain"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerMemory:
    """What is remembered of a peer: its counters in bytes, times in seconds since 1970.

    `heard_at` is when more had been received, or the peer was first seen, and `heard_sent` what had been sent then;
    `stale_sent` what had been sent when it was first found without a session, None while it has one. `tried` are the
    endpoints that were tried since, `tried_at` when the last was set.
    """

    sent: int
    received: int
    heard_at: int
    heard_sent: int
    stale_sent: int | None = None
    tried: tuple[str, ...] = ()
    tried_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What is remembered of a device: its own public key, and its peers by theirs."""

    public_key: str | None = None
    peers: Mapping[str, PeerMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshment:
    """One thing to do for one peer.

    `what` is `endpoint` (go elsewhere), `allowed-ips` (move to the key that shook hands last), `preshared-key` (take
    the one that goes with the own key) or `handshake` (speak once). `before` and `after` are endpoints. `restored` is
    to be set right after `change`.
    """

    what: str
    name: str
    change: PeerChange
    before: str | None = None
    after: str | None = None
    restored: PeerChange | None = None


def condition_of(live: LivePeer, memory: PeerMemory | None, now: int, unroutable: Collection[str] = ()) -> Condition:
    """Return how a peer does. `unroutable` are endpoints that this host has no route to."""
    never = live.latest_handshake == 0
    if not never and now - live.latest_handshake <= STALE_S + live.persistent_keepalive:
        return Condition.FRESH
    if memory is not None and live.received > memory.received:
        return Condition.FRESH  # whatever the clock says
    if live.endpoint is None or live.endpoint in unroutable:
        return Condition.VAIN
    if not never and live.persistent_keepalive:
        return Condition.VAIN
    if never and not live.received and live.sent >= 3 * _INITIATION:
        return Condition.VAIN
    if memory is not None and memory.stale_sent is not None and live.sent > memory.stale_sent:
        return Condition.VAIN
    return Condition.IDLE


def observe(
    device: LiveDevice, memory: DeviceMemory, now: int, unroutable: Collection[str] = ()
) -> tuple[dict[str, Condition], DeviceMemory]:
    """Return how each peer does, and the memory with what is seen now."""
    conditions: dict[str, Condition] = {}
    peers: dict[str, PeerMemory] = {}
    for key, live in device.peers.items():
        known = memory.peers.get(key)
        if known is not None and (live.sent < known.sent or live.received < known.received):
            known = None  # another device, or another peer of that key
        condition = conditions[key] = condition_of(live, known, now, unroutable)
        if known is None:
            known = PeerMemory(sent=live.sent, received=live.received, heard_at=now, heard_sent=live.sent)
        elif live.received > known.received:
            known = replace(known, heard_at=now, heard_sent=live.sent)
        known = replace(known, sent=live.sent, received=live.received)
        if condition is Condition.FRESH:
            known = replace(known, stale_sent=None, tried=())
        elif known.stale_sent is None:
            known = replace(known, stale_sent=live.sent)
        peers[key] = known
    return conditions, DeviceMemory(public_key=device.public_key, peers=peers)


# --- endpoints -------------------------------------------------------------------------------------------------------


def wanting_peers(
    plan: InterfacePlan, conditions: Mapping[str, Condition], memory: DeviceMemory, now: int
) -> list[tuple[PeerPlan, str]]:
    """Return the peers, each with one of its keys, that are to be tried at another endpoint now.

    Of a peer that is between two keys neither is tried while the other is fresh.
    """
    found: list[tuple[PeerPlan, str]] = []
    for peer in plan.peers:
        keys = [key for key in (peer.public_key, peer.next_public_key) if key is not None and key in conditions]
        if not peer.endpoints or any(conditions[key] is Condition.FRESH for key in keys):
            continue
        for key in keys:
            if conditions[key] is Condition.VAIN and now - memory.peers[key].tried_at >= PATIENCE_S:
                found.append((peer, key))
    return found


def find_candidates(peer: PeerPlan, addresses: Mapping[str, Sequence[str]]) -> list[str]:
    """Return all addresses of all endpoints of a peer in order, as wg(8) writes them, each once.

    `addresses` has those of every name that has any.
    """
    found: list[str] = []
    for endpoint in peer.endpoints:
        own = [str(endpoint.address)] if endpoint.address is not None else addresses.get(endpoint.host, ())
        for address in own:
            found.append(f"[{address}]:{endpoint.port}" if ":" in address else f"{address}:{endpoint.port}")
    return list(dict.fromkeys(found))


def refresh_endpoints(
    device: LiveDevice,
    wanting: Sequence[tuple[PeerPlan, str]],
    memory: DeviceMemory,
    addresses: Mapping[str, Sequence[str]],
    now: int,
    unroutable: Collection[str] = (),
) -> tuple[list[Refreshment], DeviceMemory]:
    """Return where peers are to be tried next, and the memory of it. Endpoints without a route come last."""
    done: list[Refreshment] = []
    peers = dict(memory.peers)
    for peer, key in wanting:
        candidates = find_candidates(peer, addresses)
        routable = [each for each in candidates if each not in unroutable]
        live, known = device.peers[key], peers[key]
        chosen = _next_of(routable or candidates, live.endpoint, known.tried)
        if chosen is None:
            continue
        endpoint, tried = chosen
        peers[key] = replace(known, tried=tried, tried_at=now)
        done.append(
            Refreshment(
                what="endpoint",
                name=peer.name,
                change=PeerChange(name=peer.name, public_key=key, endpoint=endpoint),
                before=live.endpoint,
                after=endpoint,
            )
        )
    return done, replace(memory, peers=peers)


def _next_of(
    candidates: Sequence[str], current: str | None, tried: tuple[str, ...]
) -> tuple[str, tuple[str, ...]] | None:
    """Return the next endpoint behind the current one that was not tried yet, and what is tried then."""
    start = candidates.index(current) + 1 if current in candidates else 0
    others = [each for each in (*candidates[start:], *candidates[:start]) if each != current]
    if not others:
        return None
    left = [each for each in others if each not in tried]
    # All have had their turn: once more from the next one on.
    round_ = () if not left else tried
    chosen = (left or others)[0]
    return chosen, tuple(dict.fromkeys((*round_, *([current] if current is not None else []), chosen)))


# --- keys ------------------------------------------------------------------------------------------------------------


def refresh_keys(
    plan: InterfacePlan,
    device: LiveDevice,
    conditions: Mapping[str, Condition],
    memory: DeviceMemory,
    now: int,
    former_key: str | None,
) -> tuple[list[Refreshment], DeviceMemory]:
    """Return what peers with two keys need, and all peers where the device's own key has changed since `former_key`.

    A peer's AllowedIPs go to the key that shook hands last. Where the key that has them is spoken to in vain, the other
    is asked for a handshake, at the endpoint that the first one has if it knows none itself.
    """
    done: list[Refreshment] = []
    peers = dict(memory.peers)
    kicked: dict[str, Refreshment] = {}
    for peer in plan.peers:
        here = device.peers.get(peer.public_key)
        there = device.peers.get(peer.next_public_key or "")
        if here is None or there is None:
            continue  # not applied yet
        in_use, spare = (there, here) if there.latest_handshake > here.latest_handshake else (here, there)
        if spare.allowed_ips and in_use.latest_handshake > spare.latest_handshake:
            # Only the key that gets them is named: the kernel moves each prefix at once, and none is ever nowhere.
            moved = PeerChange(
                name=peer.name, public_key=in_use.public_key, allowed_ips=in_use.allowed_ips | spare.allowed_ips
            )
            done.append(Refreshment(what="allowed-ips", name=peer.name, change=moved))
        unanswered = conditions[in_use.public_key] is Condition.VAIN or _is_unanswered(peers[in_use.public_key], now)
        if unanswered and now - peers[spare.public_key].tried_at >= PATIENCE_S:
            endpoint = spare.endpoint or in_use.endpoint
            if endpoint is not None:
                kicked[spare.public_key] = _kick(peer.name, spare, None if spare.endpoint else endpoint)
    if former_key is not None and device.public_key != former_key:
        names = {key: peer.name for peer in plan.peers for key in (peer.public_key, peer.next_public_key) if key}
        for key, live in device.peers.items():
            if live.endpoint is not None and key in names:
                kicked.setdefault(key, _kick(names[key], live, None))
    for key in kicked:
        peers[key] = replace(peers[key], tried_at=now)
    return [*done, *kicked.values()], replace(memory, peers=peers)


def _is_unanswered(memory: PeerMemory, now: int) -> bool:
    """Whether a handshake or more was sent since the peer was last heard, long enough ago."""
    return now - memory.heard_at >= PATIENCE_S and memory.sent >= memory.heard_sent + _INITIATION


def _kick(name: str, live: LivePeer, endpoint: str | None) -> Refreshment:
    """Return what makes a packet leave at once: that is when a keepalive is switched on."""
    key, keepalive = live.public_key, live.persistent_keepalive
    first, second = (_KICK_S, 0) if keepalive == 0 else (0, keepalive)
    return Refreshment(
        what="handshake",
        name=name,
        change=PeerChange(name=name, public_key=key, endpoint=endpoint, persistent_keepalive=first),
        restored=PeerChange(name=name, public_key=key, persistent_keepalive=second),
        before=live.endpoint,
        after=endpoint or live.endpoint,
    )


def refresh_preshared_keys(plan: InterfacePlan, device: LiveDevice, derived: OwnPresharedKeys) -> Iterator[Refreshment]:
    """Yield the preshared keys that do not go with the key that the device uses, of a host that is between two.

    `derived` are the preshared keys by the own public key, then by the peer's.
    """
    own = derived.get(device.public_key or "", {})
    for peer in plan.secured_peers:
        if peer.preshared_key != "derived":
            continue
        for key in (peer.public_key, peer.next_public_key):
            live, right = device.peers.get(key or ""), own.get(key or "")
            if live is not None and right is not None and live.preshared_key != right:
                change = PeerChange(name=peer.name, public_key=live.public_key, preshared_key=right)
                yield Refreshment(what="preshared-key", name=peer.name, change=change)
