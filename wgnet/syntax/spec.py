"""The specification: what one topology file says, decoded and validated value by value, names not yet resolved.

Every field that a person may leave out is None when it was. `nodes` holds the node of each value that was written, by
the key's name, for the places of later diagnostics; it is no part of equality.
"""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from wgnet.record import field, record
from wgnet.syntax.nodes import Mapping, Node, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network
Interface = IPv4Interface | IPv6Interface


class Manager(enum.Enum):
    """Who runs a host's interface."""

    NETWORKD = "networkd"
    NETWORKMANAGER = "networkmanager"
    WG_QUICK = "wg-quick"
    EXTERNAL = "external"


@record(kw_only=False)
class Endpoint:
    """Where a peer is reached: a host name or an address, and a UDP port (None: the host's listen port)."""

    host: str
    port: int | None
    address: Address | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port is None else f"{host}:{self.port}"


@record(kw_only=False)
class HostAddress:
    """A host's address in the tunnel; `length` is None where the subnet's prefix length holds."""

    address: Address
    length: int | None


@record(kw_only=False)
class SecretSource:
    """Where a manager finds a secret: a file on the host, a systemd credential, or NetworkManager's agent."""

    kind: Literal["file", "credential", "agent"]
    name: str


@record()
class Spec:
    """What all parts of a specification share: the mapping that they come from."""

    node: Mapping = field(compare=False, repr=False)
    nodes: dict[str, Node] = field(compare=False, repr=False)


@record()
class DnsSpec(Spec):
    """DNS servers, and the domains that they are asked for (`~` routes a domain without searching it)."""

    servers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()


@record()
class NetworkSpec(Spec):
    """The section `network`. Where `name` or `subnets` were bad they are empty."""

    name: str = ""
    subnets: tuple[Prefix, ...] = ()
    interface: str | None = None
    listen_port: int | None = None
    mtu: int | None = None
    preshared_keys: bool = False
    dns: DnsSpec | None = None


@record()
class HostSpec(Spec):
    """One host, or the defaults of one group. `listen_port` 0 is `auto`; `table` 0 is `off`, None `main`."""

    description: str | None = None
    manager: Manager | None = None
    manager_version: tuple[int, ...] | None = None
    addresses: tuple[HostAddress, ...] | None = None
    public_key: str | None = None
    next_public_key: str | None = None
    private_key: SecretSource | None = None
    endpoint: tuple[Endpoint, ...] | None = None
    site: str | None = None
    site_endpoint: tuple[Endpoint, ...] | None = None
    advertise: tuple[Prefix, ...] | None = None
    forward: bool | None = None
    masquerade: bool | None = None
    listen_port: int | None = None
    interface: str | None = None
    mtu: int | None = None
    table: int | None = None
    metric: int | None = None
    firewall_mark: int | None = None
    dns: DnsSpec | None = None
    autoconnect: bool | None = None
    exit_node: str | None = None
    bypass: tuple[Prefix, ...] | None = None
    accept: tuple[Prefix, ...] | None = None
    keepalive: int | None = None
    permissions: tuple[str, ...] | None = None
    zone: str | None = None
    disabled: bool | None = None


@record()
class RuleSpec(Spec):
    """One rule of `peering`: exactly one of `mesh`, `hub` and `link` is given.

    `preshared_key` is None where nothing was said. `keepalive` counts seconds, 0 is none.
    """

    mesh: tuple[str, ...] | None = None
    hub: tuple[str, ...] | None = None
    spokes: tuple[str, ...] | None = None
    isolate: bool = False
    link: tuple[str, ...] | None = None
    endpoint: dict[str, tuple[Endpoint, ...]] | None = None
    preshared_key: bool | SecretSource | None = None
    keepalive: int | None = None
    allowed_ips: Literal["any"] | None = None


@record()
class ExpectSpec(Spec):
    """One expectation. `to` is a name or an address; `via` the hosts between, None where anything will do."""

    from_: str
    to: str | Address
    via: tuple[str, ...] | None = None
    reachable: bool = True


@record()
class Specification(Spec):
    """A whole topology file. `peering` None is the default, a mesh of all hosts.

    `host_keys` has the name of every host that was written, also of one that could not be decoded.
    """

    file: str = field(compare=False)
    network: NetworkSpec
    groups: dict[str, tuple[str, ...]]
    group_keys: dict[str, Scalar] = field(compare=False, repr=False)
    defaults: dict[str, HostSpec]
    default_keys: dict[str, Scalar] = field(compare=False, repr=False)
    peering: tuple[RuleSpec, ...] | None
    peering_is_bad: bool = False
    hosts: dict[str, HostSpec]
    host_keys: dict[str, Scalar] = field(compare=False, repr=False)
    expect: tuple[ExpectSpec, ...]
