"""WireGuard as far as keys go: devices that shake hands, learn endpoints and check AllowedIPs, without a kernel.

A handshake succeeds where each end has the other's key as a peer, the preshared keys are equal, and the one that starts
knows an endpoint. A packet is sent to the peer whose AllowedIPs have its destination, and taken where the AllowedIPs of
the peer that it came from have its source. Time only matters as the age of handshakes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.live.changes import PeerChange, device_change
from wgnet.live.device import DeviceSettings, LiveDevice, LivePeer
from wgnet.syntax.spec import Prefix

#: A session ends after so many seconds, and one that is not answered is made anew after so many.
_REJECT_AFTER_S, _UNANSWERED_S = 180, 15
_INITIATION = 148


@dataclass(slots=True)
class Peer:
    """A peer of a device; `session` is when a session with it was made and the keys that it goes with still held."""

    preshared_key: PresharedKey | None
    endpoint: str | None
    allowed_ips: frozenset[Prefix]
    keepalive: int
    latest_handshake: int = 0
    sent: int = 0
    received: int = 0
    #: The public keys of both ends that the session is between, None for no session.
    session: tuple[str, str] | None = None


@dataclass(slots=True)
class Device:
    """A device that answers at one address, and its peers by public key."""

    at: str
    private_key: PrivateKey
    public_key: str
    peers: dict[str, Peer] = field(default_factory=dict)

    def live(self) -> LiveDevice:
        """Return what wg(8) would show of it."""
        return LiveDevice(
            name="wg0",
            private_key=self.private_key,
            public_key=self.public_key,
            listen_port=51820,
            firewall_mark=0,
            peers={
                key: LivePeer(
                    public_key=key,
                    preshared_key=peer.preshared_key,
                    endpoint=peer.endpoint,
                    allowed_ips=peer.allowed_ips,
                    latest_handshake=peer.latest_handshake,
                    received=peer.received,
                    sent=peer.sent,
                    persistent_keepalive=peer.keepalive,
                )
                for key, peer in self.peers.items()
            },
        )

    def set(self, changes: tuple[PeerChange, ...]) -> None:
        """Change peers as `wg set` does: a prefix that one gets, all others lose."""
        for change in changes:
            if change.remove:
                self.peers.pop(change.public_key, None)
                continue
            peer = self.peers.setdefault(change.public_key, Peer(None, None, frozenset(), 0))
            if change.preshared_key is not None:
                peer.preshared_key = change.preshared_key
            if change.endpoint is not None:
                peer.endpoint = change.endpoint
            if change.allowed_ips is not None:
                for other in self.peers.values():
                    other.allowed_ips -= change.allowed_ips
                peer.allowed_ips = change.allowed_ips
            if change.persistent_keepalive is not None:
                peer.keepalive = change.persistent_keepalive

    def reboot(self, wanted: DeviceSettings) -> None:
        """Make the device anew from its configuration alone."""
        assert wanted.private_key is not None
        self.private_key, self.public_key = wanted.private_key, wanted.private_key.public()
        self.peers = {
            key: Peer(peer.preshared_key, peer.endpoint, peer.allowed_ips, peer.persistent_keepalive)
            for key, peer in wanted.peers.items()
        }


@dataclass(slots=True)
class World:
    """Devices by the address that they answer at, and the time."""

    devices: dict[str, Device]
    now: int = 1_000_000_000

    def apply(self, device: Device, wanted: DeviceSettings) -> None:
        """Make a device so, as `wgnet apply` does; a new key ends every session."""
        change = device_change(device.live(), wanted)
        if change.private_key is not None:
            device.private_key, device.public_key = change.private_key, change.private_key.public()
            for peer in device.peers.values():
                peer.session = None
        self.set(device, change.peers)
        self.set(device, change.kicked)

    def set(self, device: Device, changes: Sequence[PeerChange]) -> None:
        """Change peers of a device; one whose keepalive is switched on speaks at once."""
        for change in changes:
            known = device.peers.get(change.public_key)
            was_off = known is None or not known.keepalive
            device.set((change,))
            if was_off and change.persistent_keepalive:
                self.handshake(device, change.public_key)

    def handshake(self, sender: Device, key: str) -> bool:
        """Let a device start a handshake with a peer."""
        peer = sender.peers[key]
        if peer.endpoint is None:
            return False
        peer.sent += 3 * _INITIATION
        other = self.devices.get(peer.endpoint)
        if other is None or other.public_key != key:
            return False
        answering = other.peers.get(sender.public_key)
        if answering is None or answering.preshared_key != peer.preshared_key:
            return False
        for one in (peer, answering):
            one.session = (sender.public_key, key)
            one.latest_handshake = self.now
            one.received += 1
            one.sent += 1
        answering.endpoint = sender.at
        return True

    def send(self, sender: Device, source: str, destination: str) -> bool:
        """Send a packet; return whether it arrives. That none comes back leads to a handshake in the end."""
        found = next((k for k, p in sender.peers.items() if _has(p.allowed_ips, destination)), None)
        if found is None:
            return False
        for _ in range(2):
            if self._carry(sender, found, source):
                return True
            sender.peers[found].session = None
            if not self.handshake(sender, found):
                return False
        return False

    def _carry(self, sender: Device, key: str, source: str) -> bool:
        peer = sender.peers[key]
        other = self.devices.get(peer.endpoint or "")
        if peer.session is None or self.now - peer.latest_handshake > _REJECT_AFTER_S or other is None:
            return False
        peer.sent += 100
        taking = other.peers.get(sender.public_key)
        if other.public_key != key or taking is None or taking.session != peer.session:
            return False
        taking.received += 100
        taking.endpoint = sender.at
        return _has(taking.allowed_ips, source)

    def keep_alive(self) -> None:
        """Let every peer with a keepalive speak once."""
        for device in self.devices.values():
            for key, peer in device.peers.items():
                answered = not peer.keepalive or self._carry(device, key, "0.0.0.0")
                old = peer.session is None or self.now - peer.latest_handshake > _UNANSWERED_S
                if not answered and old:
                    self.handshake(device, key)


def _has(prefixes: frozenset[Prefix], address: str) -> bool:
    return any(ipaddress.ip_address(address) in prefix for prefix in prefixes)
