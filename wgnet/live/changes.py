"""From a device as it is to one as it is to be: the least that has to be set.

Stage: live. Input: a live device and its settings; output: changes, in the order in which to make them. WireGuard keeps
the sessions of peers that are not named, so nothing is named that is right already. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.live.device import DeviceSettings, LiveDevice, LivePeer, PeerSettings
from wgnet.syntax.spec import Prefix

__all__ = [
    "DeviceChange",
    "PeerChange",
    "device_change",
    "follow_rotation",
    "move_between_keys",
    "restored_device",
]

#: Seconds; so that a packet leaves from a new port at once, and peers that know this side by its port alone follow.
_KICK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """What to set of one peer; None leaves it as it is. `remove` takes the peer away, `new` adds it.

    `clear_preshared_key` takes the preshared key away. `endpoint` may hold a name, which is to be resolved first.
    """

    name: str
    public_key: str
    remove: bool = False
    new: bool = False
    preshared_key: PresharedKey | None = None
    clear_preshared_key: bool = False
    endpoint: str | None = None
    allowed_ips: frozenset[Prefix] | None = None
    persistent_keepalive: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChange:
    """What to set of a device; None leaves it as it is. `kicked` are keepalives for the moment after.

    They are switched on, or on again, where a new port or a new private key is to be known to the peers at once.
    """

    name: str
    private_key: PrivateKey | None = None
    listen_port: int | None = None
    firewall_mark: int | None = None
    peers: tuple[PeerChange, ...] = ()
    kicked: tuple[PeerChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.peers) or any(
            value is not None for value in (self.private_key, self.listen_port, self.firewall_mark)
        )


def device_change(
    live: LiveDevice, wanted: DeviceSettings, configured: Mapping[str, str | None] | None = None
) -> DeviceChange:
    """Return what turns a live device into the wanted one.

    `configured` are the endpoints, by public key, that the device was configured with: where one stays as it is, the
    live one is left alone, for the peer may have roamed since. None: they are not known, and only a peer without any
    endpoint is given its own. An endpoint that is astray is set right in any case.
    """
    wanted = follow_rotation(wanted, live)
    peers = [
        change
        for key, peer in wanted.peers.items()
        if (change := _peer_change(live.peers.get(key), peer, configured)) is not None
    ]
    # A prefix that moves goes to its new peer first: taken from the old one first, it would for a moment be nowhere.
    peers.sort(key=lambda change: _loses_only(live.peers.get(change.public_key), change))
    gone = [
        PeerChange(name=key, public_key=key, remove=True) for key in sorted(live.peers.keys() - wanted.peers.keys())
    ]
    new_key = wanted.private_key is not None and wanted.private_key != live.private_key
    new_port = wanted.listen_port not in (0, live.listen_port)
    kicked: tuple[PeerChange, ...] = ()
    if new_port or new_key:
        # Sessions end with the key that they were made with, and the other side learns of it by a handshake from here.
        changed = {change.public_key: change for change in peers}
        kicked = tuple(
            PeerChange(
                name=wanted.peers[key].name, public_key=key, persistent_keepalive=wanted.peers[key].persistent_keepalive
            )
            for key, peer in live.peers.items()
            if peer.endpoint is not None and key in wanted.peers
        )
        for change in kicked:
            base = changed.get(change.public_key) or replace(change, persistent_keepalive=None)
            # What makes a packet leave at once is that a keepalive is switched on, which it cannot be where it is.
            on = live.peers[change.public_key].persistent_keepalive > 0
            changed[change.public_key] = replace(base, persistent_keepalive=0 if on else _KICK)
        peers = sorted(changed.values(), key=lambda change: _loses_only(live.peers.get(change.public_key), change))
    return DeviceChange(
        name=live.name,
        private_key=wanted.private_key if new_key else None,
        listen_port=wanted.listen_port if new_port else None,
        firewall_mark=wanted.firewall_mark if wanted.firewall_mark != live.firewall_mark else None,
        peers=(*peers, *gone),
        kicked=kicked,
    )


def _peer_change(
    live: LivePeer | None, wanted: PeerSettings, configured: Mapping[str, str | None] | None
) -> PeerChange | None:
    if live is None:
        return PeerChange(
            name=wanted.name,
            public_key=wanted.public_key,
            new=True,
            preshared_key=wanted.preshared_key,
            endpoint=wanted.endpoint,
            allowed_ips=wanted.allowed_ips,
            persistent_keepalive=wanted.persistent_keepalive or None,
        )
    change = PeerChange(
        name=wanted.name,
        public_key=wanted.public_key,
        preshared_key=None if wanted.preshared_key == live.preshared_key else wanted.preshared_key,
        clear_preshared_key=(
            wanted.preshared_key_known and wanted.preshared_key is None and live.preshared_key is not None
        ),
        endpoint=wanted.endpoint if _is_new_endpoint(live, wanted, configured) else None,
        allowed_ips=wanted.allowed_ips if wanted.allowed_ips != live.allowed_ips else None,
        persistent_keepalive=(
            wanted.persistent_keepalive if wanted.persistent_keepalive != live.persistent_keepalive else None
        ),
    )
    return change if change != PeerChange(name=wanted.name, public_key=wanted.public_key) else None


def _is_new_endpoint(live: LivePeer, wanted: PeerSettings, configured: Mapping[str, str | None] | None) -> bool:
    if wanted.endpoint is None or wanted.endpoint == live.endpoint:
        return False
    if live.endpoint is None or wanted.is_astray(live):
        return True
    if configured is None or wanted.public_key not in configured:
        return False
    return configured[wanted.public_key] != wanted.endpoint


def _loses_only(live: LivePeer | None, change: PeerChange) -> bool:
    return live is not None and change.allowed_ips is not None and change.allowed_ips < live.allowed_ips


def follow_rotation(wanted: DeviceSettings, live: LiveDevice) -> DeviceSettings:
    """Return the settings with each rotating peer's AllowedIPs at whichever of its keys shook hands last."""

    def is_later(here: LivePeer | None, there: LivePeer) -> bool:
        return there.latest_handshake > (0 if here is None else here.latest_handshake)

    return move_between_keys(wanted, live, is_later)


def move_between_keys(
    wanted: DeviceSettings, live: LiveDevice, belongs_there: Callable[[LivePeer | None, LivePeer], bool]
) -> DeviceSettings:
    """Return the settings with rotating peers' AllowedIPs at the other key, where they belong there.

    That is asked of the live peer of the key that has them by the plan, None where it is missing, and of the other's.
    """
    moved: dict[str, PeerSettings] = {}
    for key, peer in wanted.peers.items():
        other = None if peer.other_key is None else wanted.peers.get(peer.other_key)
        if other is None or not peer.allowed_ips:
            continue
        there = live.peers.get(other.public_key)
        if there is not None and belongs_there(live.peers.get(key), there):
            moved[key] = replace(peer, allowed_ips=frozenset())
            moved[other.public_key] = replace(other, allowed_ips=peer.allowed_ips)
    return replace(wanted, peers={**wanted.peers, **moved}) if moved else wanted


def restored_device(before: LiveDevice) -> DeviceSettings:
    """Return a former state as settings, to put a device back to."""
    return DeviceSettings(
        name=before.name,
        private_key=before.private_key,
        public_keys=() if before.public_key is None else (before.public_key,),
        listen_port=before.listen_port,
        firewall_mark=before.firewall_mark,
        peers={
            key: PeerSettings(
                name=key,
                public_key=key,
                preshared_key=peer.preshared_key,
                endpoint=peer.endpoint,
                allowed_ips=peer.allowed_ips,
                persistent_keepalive=peer.persistent_keepalive,
            )
            for key, peer in before.peers.items()
        },
    )
