"""The table of all keys of the format: decoding, the JSON Schema and the manual's drift test come from it.

One row a key. Nothing here decodes: the types do.
"""

from __future__ import annotations

from collections.abc import Callable

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.syntax import values
from wgnet.syntax.nodes import Mapping, Node, Scalar
from wgnet.syntax.spec import DnsSpec, ExpectSpec, HostSpec, Manager, NetworkSpec, RuleSpec, SecretSource
from wgnet.syntax.types import INVALID, ChoiceType, Key, ListType, MapType, ScalarType, SectionType, Type, UnionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STRING = {"type": "string"}


def _number(low: int, high: int, *words: str) -> dict[str, Any]:
    number = {"type": "integer", "minimum": low, "maximum": high}
    return {"anyOf": [number, {"enum": list(words)}]} if words else number


def _scalar(name: str, read: Callable[[str], Any], json: dict[str, Any] | None = None) -> ScalarType:
    return ScalarType(name, read, _STRING if json is None else json)


BOOLEAN = _scalar("true or false", values.read_boolean, {"type": "boolean"})
ADDRESS = _scalar("an IP address", values.read_address)
HOST_ADDRESS = _scalar("an IP address, with or without prefix length", values.read_host_address)
PREFIX = _scalar("an IP prefix", values.read_prefix)
SUBNET = _scalar("an IP prefix", values.read_subnet)
ENDPOINT = _scalar("an endpoint", values.read_endpoint)
PUBLIC_KEY = _scalar(
    "a WireGuard public key", values.read_public_key, {"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"}
)
LISTEN_PORT = _scalar("a port or 'auto'", values.read_listen_port, _number(1, 65535, "auto"))
MTU = _scalar("an MTU in bytes", values.read_mtu, _number(576, 65535))
MARK = _scalar(
    "a firewall mark",
    values.read_mark,
    {"anyOf": [_number(1, 2**32 - 1), {"type": "string", "pattern": "^0x[0-9A-Fa-f]{1,8}$"}]},
)
TABLE = _scalar("'main', 'off' or a table's number", values.read_table, _number(1, 2**32 - 1, "main", "off"))
METRIC = _scalar("a metric", values.read_metric, _number(1, 2**32 - 1))
KEEPALIVE = _scalar("seconds or 'off'", values.read_keepalive, _number(0, 65535, "off"))
MANAGER_VERSION = _scalar("a manager's version", values.read_manager_version, {"type": ["string", "number"]})
NETWORK_NAME = _scalar("a network's name", values.read_network_name)
NAME = _scalar("the name of a host or group", values.read_host_name)
HOST_NAME = _scalar("a host name", values.read_host_name)
INTERFACE = _scalar("an interface name", values.read_interface)
TEXT = _scalar("a line of text", values.read_text)
PATH = _scalar("an absolute path", values.read_path)
CREDENTIAL = _scalar("a credential's name", values.read_credential)
SEARCH_DOMAIN = _scalar("a DNS domain", values.read_search_domain)
USER = _scalar("a user's name", values.read_user)
ZONE = _scalar("a firewalld zone", values.read_zone)
SITE = _scalar("a site's name", values.read_site)
DESTINATION = _scalar("a host, a group or an address", values.read_destination)
FORMAT_VERSION = _scalar("the format's version", values.read_version, {"const": 1})
MANAGER = ChoiceType("a manager", {manager.value: manager for manager in Manager})

ENDPOINTS = ListType("an endpoint or a list of them", ENDPOINT, single=True)
PREFIXES = ListType("a list of IP prefixes", PREFIX, empty=True)
NAMES = ListType("a host, a group or a list of them", NAME, single=True)


def _table(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


DNS = SectionType(
    "a DNS section",
    _table(
        Key(name="servers", type=ListType("a list of IP addresses", ADDRESS, empty=True), doc="the DNS servers"),
        Key(
            name="search",
            type=ListType("a list of DNS domains", SEARCH_DOMAIN, empty=True),
            doc="the domains that the servers are asked for; ~ in front routes a domain without searching it",
        ),
    ),
    DnsSpec,
    {},
)

NETWORK = SectionType(
    "the section 'network'",
    _table(
        Key(name="name", type=NETWORK_NAME, doc="the network's name", required=True),
        Key(name="interface", type=INTERFACE, doc="the interface's name on every host", default="the name"),
        Key(
            name="subnets",
            type=ListType("a list of subnets", SUBNET),
            doc="the prefixes that the hosts' addresses lie in",
            required=True,
        ),
        Key(name="listen-port", type=LISTEN_PORT, doc="the UDP port of every host", default="51820"),
        Key(name="mtu", type=MTU, doc="the interface's MTU in bytes", default="the kernel's 1420"),
        Key(name="preshared-keys", type=BOOLEAN, doc="one preshared key for every link", default="false"),
        Key(name="dns", type=DNS, doc="DNS servers inside the network, and what they are asked for"),
    ),
    NetworkSpec,
    {},
    lenient=True,
)


def _build_secret(node: Node, nodes: dict[str, Node], **form: Any) -> SecretSource:  # noqa: ARG001
    ((kind, value),) = form.items()
    return SecretSource("agent", "") if kind == "agent" else SecretSource(kind, value)  # type: ignore[arg-type]


def _read_only_true(text: str) -> bool:
    if text != "true":
        raise values.Bad(codes.BAD_BOOLEAN, f"expected true, found '{text}'")
    return True


_AGENT = _scalar("true", _read_only_true, {"const": True})
_FILE_KEY = Key(name="file", type=PATH, doc="a file on the host")
_CREDENTIAL_KEY = Key(name="credential", type=CREDENTIAL, doc="a systemd credential (systemd 256)")


class _PrivateKeyType(SectionType):
    """Where a private key is; the key itself, which people write here, draws a code of its own."""

    __slots__ = ()

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Refuse a key in the topology without quoting it."""
        if isinstance(node, Scalar) and not node.is_null:
            diagnostics.report(
                codes.PRIVATE_KEY_IN_TOPOLOGY,
                "a private key may not stand in a topology file",
                node.span,
                help=(
                    "make a new key with `wgnet keys generate`: this one is known to whoever read the file",
                    "name the file that holds it on the host: private-key: {file: PATH}",
                ),
            )
            return INVALID
        return super().decode(node, diagnostics)


PRIVATE_KEY = _PrivateKeyType(
    "where the private key is",
    _table(_FILE_KEY, _CREDENTIAL_KEY, Key(name="agent", type=_AGENT, doc="the user's secret agent (NetworkManager)")),
    _build_secret,
    {},
    exclusive=("file", "credential", "agent"),
)
_PRESHARED_KEY_SECTION = SectionType(
    "where the preshared key is",
    _table(_FILE_KEY, _CREDENTIAL_KEY),
    _build_secret,
    {},
    exclusive=("file", "credential"),
)
PRESHARED_KEY = UnionType(
    "true, false, {file: PATH} or {credential: NAME}",
    (BOOLEAN, _PRESHARED_KEY_SECTION),
    lambda node: _PRESHARED_KEY_SECTION if isinstance(node, Mapping) else BOOLEAN if isinstance(node, Scalar) else None,
)

#: The keys of a host that `defaults` may give too.
_SHARED = (
    Key(name="description", type=TEXT, doc="a line for people"),
    Key(name="manager", type=MANAGER, doc="who runs the interface", default="networkd"),
    Key(
        name="manager-version",
        type=MANAGER_VERSION,
        doc="the host's systemd (252) or NetworkManager (1.42) version",
        default="any supported",
    ),
    Key(
        name="private-key",
        type=PRIVATE_KEY,
        doc="where the private key is on the host",
        default="{file: /etc/wgnet/NETWORK.key}",
    ),
    Key(
        name="endpoint",
        type=ENDPOINTS,
        doc="where peers reach the host: host[:port], [v6][:port], or a list of them",
    ),
    Key(name="site", type=SITE, doc="the place whose local network the host stands in"),
    Key(name="site-endpoint", type=ENDPOINTS, doc="used instead of endpoint by peers of the same site"),
    Key(name="advertise", type=PREFIXES, doc="subnets behind the host that the network may reach through it"),
    Key(name="forward", type=BOOLEAN, doc="may relay between peers", default="true for hubs alone"),
    Key(
        name="masquerade",
        type=BOOLEAN,
        doc="source-NAT what comes from the tunnel and leaves by another link",
        default="false",
    ),
    Key(name="listen-port", type=LISTEN_PORT, doc="the host's UDP port", default="the network's"),
    Key(name="interface", type=INTERFACE, doc="the interface's name on this host", default="the network's"),
    Key(name="mtu", type=MTU, doc="the interface's MTU in bytes", default="the network's"),
    Key(
        name="table",
        type=TABLE,
        doc="where the host's routes go, the network's own prefix included",
        default="main",
    ),
    Key(name="metric", type=METRIC, doc="the metric of the host's routes", default="2000"),
    Key(
        name="firewall-mark",
        type=MARK,
        doc="the firewall mark of the tunnel's own packets, and the number of its table",
        default="51820 where policy routing needs one",
    ),
    Key(name="dns", type=DNS, doc="replaces the network's"),
    Key(name="autoconnect", type=BOOLEAN, doc="bring the interface up by itself", default="true"),
    Key(name="exit-node", type=HOST_NAME, doc="send everything through this peer"),
    Key(name="bypass", type=PREFIXES, doc="what does not go through the exit node"),
    Key(name="accept", type=PREFIXES, doc="of what others advertise, take only this", default="all"),
    Key(
        name="keepalive",
        type=KEEPALIVE,
        doc="seconds between keepalives to every peer, or off",
        default="25 from a host without endpoint to one that has one",
    ),
    Key(
        name="permissions",
        type=ListType("a list of users", USER, empty=True),
        doc="NetworkManager: the users who may see and use the connection",
        default="all",
    ),
    Key(name="zone", type=ZONE, doc="NetworkManager: the firewalld zone"),
    Key(name="disabled", type=BOOLEAN, doc="keeps its address and key reserved; nobody peers with it", default="false"),
)
_OWN = (
    Key(
        name="addresses",
        type=ListType("a list of IP addresses", HOST_ADDRESS),
        doc="the host's addresses inside the subnets",
    ),
    Key(name="public-key", type=PUBLIC_KEY, doc="the host's public key, written by `wgnet keys generate`"),
    Key(name="next-public-key", type=PUBLIC_KEY, doc="the key that a rotation goes to"),
)

HOST = SectionType("a host", _table(*_SHARED[:3], *_OWN, *_SHARED[3:]), HostSpec, {}, lenient=True)
DEFAULTS = SectionType(
    "defaults",
    _table(*_SHARED),
    HostSpec,
    {key.name: (codes.UNKNOWN_KEY, "it is each host's own: set it at the host") for key in _OWN},
    lenient=True,
)

RULE = SectionType(
    "a peering rule",
    _table(
        Key(name="mesh", type=NAMES, doc="every pair of these hosts and groups"),
        Key(name="hub", type=NAMES, doc="the hubs: every spoke peers with each, and they with each other"),
        Key(
            name="spokes",
            type=NAMES,
            doc="the spokes of the hubs",
            default="every host that no mesh or hub rule names",
        ),
        Key(name="isolate", type=BOOLEAN, doc="nothing passes the hub from spoke to spoke", default="false"),
        Key(name="link", type=ListType("a list of two hosts", NAME, unique=False), doc="one pair"),
        Key(
            name="endpoint",
            type=MapType("a mapping from host to endpoint", HOST_NAME, ENDPOINTS),
            doc="how the other end reaches a host on this link alone",
        ),
        Key(
            name="preshared-key",
            type=PRESHARED_KEY,
            doc="whether the link has a preshared key, or where one is that was agreed elsewhere",
            default="the network's preshared-keys",
        ),
        Key(name="keepalive", type=KEEPALIVE, doc="seconds between keepalives of both ends, or off"),
        Key(
            name="allowed-ips",
            type=ChoiceType("'any'", {"any": "any"}),
            doc="0.0.0.0/0 and ::/0 at both ends and no routes, for routing protocols",
        ),
    ),
    RuleSpec,
    {},
    exclusive=("mesh", "hub", "link"),
    requires={
        "spokes": "hub",
        "isolate": "hub",
        "endpoint": "link",
        "preshared-key": "link",
        "allowed-ips": "link",
    },
)


_MESH_WORD = ChoiceType("'mesh'", {"mesh": None})
_RULES = ListType("a list of peering rules", RULE, unique=False)


def _pick_peering(node: Node) -> Type:
    return _MESH_WORD if isinstance(node, Scalar) else RULE if isinstance(node, Mapping) else _RULES


#: A single rule stands for a list of one; the decoder of the whole file wraps it.
PEERING = UnionType("'mesh', a rule or a list of rules", (_MESH_WORD, RULE, _RULES), _pick_peering)

EXPECT = SectionType(
    "an expectation",
    _table(
        Key(name="from", type=NAME, doc="the host or group that sends", required=True),
        Key(name="to", type=DESTINATION, doc="the host, group or address that it sends to", required=True),
        Key(
            name="via",
            type=ListType("a list of hosts", HOST_NAME, empty=True, unique=False),
            doc="the hosts that the packet passes, in order",
        ),
        Key(name="reachable", type=BOOLEAN, doc="false: it must not get there", default="true"),
    ),
    ExpectSpec,
    {},
)

GROUPS = MapType("a mapping from group to members", NAME, ListType("a list of hosts and groups", NAME, empty=True))
DEFAULTS_MAP = MapType("a mapping from group to host keys", NAME, DEFAULTS)
HOSTS = MapType("a mapping from host name to host", HOST_NAME, HOST, empty=False)

#: The top of the file.
TOP = _table(
    Key(name="wgnet", type=FORMAT_VERSION, doc="the version of the format", required=True),
    Key(name="network", type=NETWORK, doc="the network", required=True),
    Key(name="groups", type=GROUPS, doc="names for sets of hosts; `all` is every host"),
    Key(name="defaults", type=DEFAULTS_MAP, doc="host keys by group; a later group wins, the host over all"),
    Key(name="peering", type=PEERING, doc="who peers with whom", default="mesh"),
    Key(name="hosts", type=HOSTS, doc="the hosts", required=True),
    Key(
        name="expect",
        type=ListType("a list of expectations", EXPECT, empty=True, unique=False),
        doc="what must hold; checked by `wgnet check`, never rendered",
    ),
)
