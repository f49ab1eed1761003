"""The plan: what one host is to be, independent of any manager.

Output of `derive.py`, input of the managers and of `wgnet show`. Everything is derived and frozen; nothing here knows
how a manager writes it down.
"""

from __future__ import annotations

import enum

from wgnet.model.topology import Host
from wgnet.record import field, record
from wgnet.syntax.spec import Address, Endpoint, Interface, Manager, Prefix, SecretSource


@record(eq=False)
class PeerPlan:
    """One peer of an interface. Peers that are alike on many hosts are one object: compare and cache them by identity.

    `endpoints`: the first is the one to configure, the others are only shown; empty for a peer that is learned from its
    traffic. `persistent_keepalive` counts seconds, 0 is off. `preshared_key`: None, "derived" for one of the
    key store, or where one is that was agreed elsewhere. `route_allowed_ips` is false where AllowedIPs make no routes
    (`allowed-ips: any`).
    """

    name: str
    public_key: str
    next_public_key: str | None
    endpoints: tuple[Endpoint, ...]
    allowed_ips: tuple[Prefix, ...]
    persistent_keepalive: int
    preshared_key: str | SecretSource | None
    route_allowed_ips: bool


@record()
class AddressPlan:
    """An address of the interface. Without `prefix_route` the kernel makes no route to its prefix."""

    address: Interface
    prefix_route: bool


@record()
class RoutePlan:
    """A route to the interface, without gateway."""

    destination: Prefix
    table: int
    metric: int


class Action(enum.Enum):
    """What a policy rule does: look up a table, or refuse with "administratively prohibited"."""

    LOOKUP = "lookup"
    PROHIBIT = "prohibit"


@record()
class PolicyRulePlan:
    """A routing policy rule (ip-rule(8)) of one address family.

    `version` is 4 or 6. `source` and `destination` None are `all`. `firewall_mark` with `invert` is "not fwmark".
    `suppress_prefix_length` None suppresses nothing.
    """

    version: int
    priority: int
    action: Action = Action.LOOKUP
    table: int | None = None
    source: Prefix | None = None
    destination: Prefix | None = None
    incoming_interface: str | None = None
    firewall_mark: int | None = None
    invert: bool = False
    suppress_prefix_length: int | None = None


@record()
class DnsPlan:
    """DNS of the interface. With `everything` all queries go to `servers`, else only those for `search` and `reverse`.

    `search` has no `~.`; a domain with `~` is routed and not searched. `reverse` are the zones of reverse names that
    stand in where nothing else is asked for, without `~`.
    """

    servers: tuple[Address, ...]
    search: tuple[str, ...]
    reverse: tuple[str, ...]
    everything: bool


@record()
class InterfacePlan:
    """One WireGuard interface of one host.

    `listen_port` 0 leaves it to the kernel. `mtu` None leaves the kernel's 1420. `firewall_mark` 0 is none. `table` is
    the number of the routing table of `routes` (254 main, 0 off). `default_versions` are the IP versions whose default
    route goes through an exit node; `bypass` stays outside. `forwarding` are the IP versions that the host forwards.
    `source_valid_mark` asks for net.ipv4.conf.all.src_valid_mark; `restore_mark` are the IP versions in which replies
    to the tunnel's own packets get their mark back. `masquerade` are the IP versions to source-NAT.
    `secured_peers` are those of `peers` whose link has a preshared key, few or none as a rule.
    `host` is the model's, for places and for what managers alone understand (`permissions`, `zone`).
    """

    network: str
    host: Host = field(repr=False)
    interface: str
    manager: Manager
    manager_version: tuple[int, ...] | None
    private_key: SecretSource
    listen_port: int
    mtu: int | None
    firewall_mark: int
    table: int
    metric: int
    addresses: tuple[AddressPlan, ...]
    peers: tuple[PeerPlan, ...] = field(repr=False)
    secured_peers: tuple[PeerPlan, ...] = field(repr=False)
    routes: tuple[RoutePlan, ...]
    rules: tuple[PolicyRulePlan, ...]
    default_versions: frozenset[int]
    bypass: tuple[Prefix, ...]
    dns: DnsPlan | None
    forwarding: frozenset[int]
    source_valid_mark: bool
    restore_mark: frozenset[int]
    masquerade: frozenset[int]
    autoconnect: bool


@record()
class HostPlan:
    """All WireGuard interfaces of one host, one for each network that it is in, in the order of the networks."""

    name: str
    interfaces: tuple[InterfacePlan, ...]
