"""The topology: one network with all names and defaults resolved, every value validated and frozen.

Output of `resolve.py`, input of everything after it. Nothing here computes.
"""

from __future__ import annotations

import enum

from wgnet.diagnostics.span import Span
from wgnet.record import field, record
from wgnet.syntax.nodes import List, Mapping, Node, Scalar
from wgnet.syntax.spec import (
    Address,
    Endpoint,
    ExpectSpec,
    HostSpec,
    Interface,
    Manager,
    Prefix,
    RuleSpec,
    SecretSource,
    Specification,
)

#: Routing tables with a name in the format.
TABLE_OFF = 0
TABLE_MAIN = 254
DEFAULT_LISTEN_PORT = 51820
DEFAULT_METRIC = 2000
DEFAULT_MARK = 51820
DEFAULT_KEEPALIVE = 25


@record()
class Dns:
    """DNS servers and the domains that they are asked for."""

    servers: tuple[Address, ...]
    search: tuple[str, ...]


@record(eq=False)
class Host:
    """One host of the network. `index` is its place in `Topology.hosts`.

    `advertise` holds subnets alone; `offers` the IP versions whose default route the host offers. `accept` None takes
    all. `firewall_mark` and `keepalive` are None where nothing was said. Endpoints bear their ports. `nodes` has the
    node of every key that was written for the host, in the file's `hosts` or `defaults`.
    """

    name: str
    index: int
    description: str | None
    manager: Manager
    manager_version: tuple[int, ...] | None
    addresses: tuple[Interface, ...]
    public_key: str | None
    next_public_key: str | None
    private_key: SecretSource
    endpoint: tuple[Endpoint, ...]
    site: str | None
    site_endpoint: tuple[Endpoint, ...]
    advertise: tuple[Prefix, ...]
    offers: frozenset[int]
    forward: bool
    masquerade: bool
    listen_port: int
    interface: str
    mtu: int | None
    table: int
    metric: int
    firewall_mark: int | None
    dns: Dns | None
    autoconnect: bool
    exit_node: str | None
    bypass: tuple[Prefix, ...]
    accept: tuple[Prefix, ...] | None
    keepalive: int | None
    permissions: tuple[str, ...]
    zone: str | None
    disabled: bool
    key: Scalar = field(repr=False)
    nodes: dict[str, Node] = field(repr=False)
    spec: HostSpec = field(repr=False)

    @property
    def span(self) -> Span:
        """The place of the host's name."""
        return self.key.span

    def place(self, name: str, item: int | None = None) -> Span:
        """Return the place of the value of the key `name` (or of its list's `item`), or the host's own."""
        return _item_span(self.nodes.get(name), item) or self.span

    def advertise_place(self, prefix: Prefix) -> Span:
        """Return the place of one of `advertise`: the item of the host's own list, else the whole of `defaults`' list.

        `advertise` has no default routes, the list may.
        """
        written = self.spec.advertise or ()
        return self.place("advertise", written.index(prefix) if prefix in written else None)

    def is_bad(self, name: str) -> bool:
        """Whether the key `name` was written for the host itself and could not be read."""
        return name in self.spec.nodes and getattr(self.spec, name.replace("-", "_")) is None

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that the host has an address of."""
        return frozenset(address.version for address in self.addresses)


class RuleKind(enum.IntEnum):
    """The kinds of peering rule; a greater one beats a smaller one on a pair that both name."""

    MESH = 1
    HUB = 2
    LINK = 3


@record(eq=False)
class Rule:
    """One rule of `peering` with its names resolved to hosts, disabled ones left out.

    A mesh has `members`, a hub rule `hubs` and `spokes`, a link two `members`. `preshared_key` is never None.
    """

    kind: RuleKind
    members: tuple[Host, ...] = ()
    hubs: tuple[Host, ...] = ()
    spokes: tuple[Host, ...] = ()
    isolate: bool = False
    endpoint: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    preshared_key: bool | SecretSource
    keepalive: int | None = None
    any_allowed: bool = False
    spec: RuleSpec | None = None

    @property
    def place(self) -> Span | None:
        """The place of the rule, or None for the mesh that nobody wrote."""
        return None if self.spec is None else self.spec.node.span

    def key_place(self, name: str) -> Span | None:
        """Return the place of the value of the key `name`, or of the rule."""
        if self.spec is None or name not in self.spec.nodes:
            return self.place
        return self.spec.nodes[name].span

    def endpoint_place(self, host: Host, item: int) -> Span:
        """Return the place of one of the endpoints that the rule gives for a host, or the host's own."""
        mapping = None if self.spec is None else self.spec.nodes.get("endpoint")
        node = mapping.get(host.name) if isinstance(mapping, Mapping) else None
        return _item_span(node, item) or host.span


@record(eq=False)
class Expectation:
    """One line of `expect` with its names resolved."""

    sources: tuple[Host, ...]
    to_hosts: tuple[Host, ...]
    to_address: Address | None
    via: tuple[str, ...] | None
    reachable: bool
    spec: ExpectSpec


@record(eq=False)
class Topology:
    """One network. `hosts` is in the file's order and has the disabled hosts too; `groups` has `all`."""

    file: str
    name: str
    subnets: tuple[Prefix, ...]
    preshared_keys: bool
    hosts: tuple[Host, ...]
    by_name: dict[str, Host]
    groups: dict[str, tuple[Host, ...]]
    rules: tuple[Rule, ...]
    expectations: tuple[Expectation, ...]
    #: False where the rules could not be read whole, so that links say nothing.
    rules_known: bool
    spec: Specification = field(repr=False)

    def network_place(self, name: str, item: int | None = None) -> Span:
        """Return the place of the value of a key of the section `network`."""
        return _item_span(self.spec.network.nodes.get(name), item) or self.spec.network.node.span


def _item_span(node: Node | None, item: int | None) -> Span | None:
    """Return the place of a value, or of an item where it is a list that has one of this number."""
    if item is not None and isinstance(node, List) and item < len(node.items):
        node = node.items[item]
    return None if node is None else node.span
