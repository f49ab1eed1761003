"""WireGuard devices as the kernel has them, and as they are to be.

Stage: live. Input: what `wg show all dump` prints (wg(8)), or a plan with its secrets; output: frozen values. Runs
nothing and opens nothing. Secrets stay `Secret`s, and no error quotes a line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.managers.base import InterfaceSecrets, public_keys
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Prefix, SecretSource

__all__ = [
    "DeviceSettings",
    "LiveDevice",
    "LivePeer",
    "NotADumpError",
    "PeerSettings",
    "is_address",
    "parse_dump",
    "wanted_device",
]

_INTERFACE_FIELDS = 5
_PEER_FIELDS = 9


class NotADumpError(ValueError):
    """The text is not what `wg show all dump` prints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePeer:
    """A peer in the kernel.

    `endpoint` is `ADDRESS:PORT` or `[ADDRESS]:PORT`, None where none is known. `latest_handshake` counts seconds since
    1970, 0 is never. `received` and `sent` count bytes. `persistent_keepalive` counts seconds, 0 is off.
    """

    public_key: str
    preshared_key: PresharedKey | None
    endpoint: str | None
    allowed_ips: frozenset[Prefix]
    latest_handshake: int
    received: int
    sent: int
    persistent_keepalive: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDevice:
    """A WireGuard device in the kernel; `peers` by public key. Without a private key `public_key` is None."""

    name: str
    private_key: PrivateKey | None
    public_key: str | None
    listen_port: int
    firewall_mark: int
    peers: Mapping[str, LivePeer]

    @classmethod
    def empty(cls, name: str) -> LiveDevice:
        """Return a device as the kernel makes it."""
        return cls(name=name, private_key=None, public_key=None, listen_port=0, firewall_mark=0, peers={})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """A peer as it is to be.

    `name` is the host's, for texts. `endpoint` is what is configured, with a name or an address, or None;
    `other_endpoints` are those that `wgnet refresh` may have set instead. Where `preshared_key_known` is false the
    manager has the key from elsewhere (a credential), and what is live is right. `other_key` is the same host's other
    public key while its keys are rotated: its AllowedIPs stand at whichever of the two shook hands last.
    """

    name: str
    public_key: str
    preshared_key: PresharedKey | None
    endpoint: str | None
    allowed_ips: frozenset[Prefix]
    persistent_keepalive: int
    preshared_key_known: bool = True
    other_key: str | None = None
    other_endpoints: tuple[str, ...] = ()

    def is_astray(self, live: LivePeer) -> bool:
        """Return whether a peer has an endpoint that is neither configured nor where anything ever came from.

        NetworkManager leaves one, for example, that is restarted while its profile changes. A peer that was heard has
        roamed there; and what a name has stood for nobody knows.
        """
        if self.endpoint is None or live.endpoint is None or live.latest_handshake or live.received:
            return False
        configured = (self.endpoint, *self.other_endpoints)
        return live.endpoint not in configured and all(map(is_address, configured))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """A device as it is to be. `private_key` None: not at hand here (a credential, or an agent's).

    `public_keys` are those that the device may have: two during a rotation, none where the topology names none.
    `listen_port` 0 leaves it to the kernel.
    """

    name: str
    private_key: PrivateKey | None
    public_keys: tuple[str, ...]
    listen_port: int
    firewall_mark: int
    peers: Mapping[str, PeerSettings] = field(default_factory=dict)


def is_address(endpoint: str) -> bool:
    """Return whether an endpoint is an address with a port, and not a name."""
    try:
        ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def parse_dump(text: str) -> dict[str, LiveDevice]:
    """Return the devices by name that `wg show all dump` printed. Raises `NotADumpError`."""
    heads: dict[str, list[str]] = {}
    peers: dict[str, dict[str, LivePeer]] = {}
    try:
        for line in text.splitlines():
            fields = line.split("\t")
            if len(fields) == _INTERFACE_FIELDS:
                heads[fields[0]] = fields
                peers[fields[0]] = {}
            elif len(fields) == _PEER_FIELDS:
                peer = _peer(fields)
                peers[fields[0]][peer.public_key] = peer
            else:
                raise NotADumpError(f"expected {_INTERFACE_FIELDS} or {_PEER_FIELDS} fields, found {len(fields)}")
        return {name: _device(head, peers[name]) for name, head in heads.items()}
    except (ValueError, KeyError):
        # Of whatever kind: its text may quote a field, and a field may be a key.
        raise NotADumpError("the output of `wg show all dump` was not understood") from None


def _device(fields: list[str], peers: dict[str, LivePeer]) -> LiveDevice:
    name, private, public, port, mark = fields
    key = None if private == "(none)" else PrivateKey.parse(private)
    if key is not None and not isinstance(key, PrivateKey):
        raise NotADumpError
    return LiveDevice(
        name=name,
        private_key=key,
        public_key=None if public == "(none)" else public,
        listen_port=int(port),
        firewall_mark=0 if mark == "off" else int(mark, 16),
        peers=peers,
    )


def _peer(fields: list[str]) -> LivePeer:
    _, public, preshared, endpoint, allowed, handshake, received, sent, keepalive = fields
    key = None if preshared == "(none)" else PresharedKey.parse(preshared)
    if key is not None and not isinstance(key, PresharedKey):
        raise NotADumpError
    return LivePeer(
        public_key=public,
        preshared_key=key,
        endpoint=None if endpoint == "(none)" else endpoint,
        allowed_ips=frozenset(map(ipaddress.ip_network, () if allowed == "(none)" else allowed.split(","))),
        latest_handshake=int(handshake),
        received=int(received),
        sent=int(sent),
        persistent_keepalive=0 if keepalive == "off" else int(keepalive),
    )


def wanted_device(plan: InterfacePlan, secrets: InterfaceSecrets) -> DeviceSettings:
    """Return what an interface's device is to be. A derived preshared key that is not at hand counts as unknown."""
    peers: dict[str, PeerSettings] = {}
    for peer in plan.peers:
        for public_key, in_use in public_keys(peer):
            preshared = None if peer.preshared_key is None else secrets.preshared_keys.get(public_key)
            if preshared is None and isinstance(peer.preshared_key, SecretSource):
                # One that was agreed elsewhere is the link's, whichever of its keys the peer uses.
                preshared = secrets.preshared_keys.get(peer.public_key)
            peers[public_key] = PeerSettings(
                name=peer.name,
                public_key=public_key,
                preshared_key=preshared,
                preshared_key_known=peer.preshared_key is None or preshared is not None,
                endpoint=str(peer.endpoints[0]) if peer.endpoints else None,
                other_endpoints=tuple(map(str, peer.endpoints[1:])),
                allowed_ips=frozenset(peer.allowed_ips) if in_use else frozenset(),
                persistent_keepalive=peer.persistent_keepalive,
                other_key=peer.next_public_key if in_use else peer.public_key,
            )
    host = plan.host
    return DeviceSettings(
        name=plan.interface,
        private_key=secrets.private_key,
        public_keys=tuple(key for key in (host.public_key, host.next_public_key) if key is not None),
        listen_port=plan.listen_port,
        firewall_mark=plan.firewall_mark,
        peers=peers,
    )
