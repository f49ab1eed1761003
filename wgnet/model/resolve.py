"""Stage three: specification -> topology. Names become hosts, defaults fill what hosts leave out.

Reports names that nobody has, groups that contain themselves and rules that say nothing; derives no path and no peer.
"""

from __future__ import annotations

from collections.abc import Iterable

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.span import Span
from wgnet.keys.host import private_key_path
from wgnet.model.groups import expand_groups
from wgnet.model.topology import (
    DEFAULT_LISTEN_PORT,
    DEFAULT_METRIC,
    TABLE_MAIN,
    Dns,
    Expectation,
    Host,
    Rule,
    RuleKind,
    Topology,
)
from wgnet.syntax.nodes import List, Mapping, Node
from wgnet.syntax.spec import (
    Address,
    DnsSpec,
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
from wgnet.syntax.types import suggest
from wgnet.syntax.values import interface_problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: How many names of a cycle of groups are told.
MAX_NAMES_OF_CYCLE = 10


def resolve_topology(spec: Specification, diagnostics: Diagnostics) -> Topology:
    """Resolve one specification; what cannot be resolved is reported and left out."""
    return _Resolver(spec, diagnostics).resolve()


class _Resolver:
    def __init__(self, spec: Specification, diagnostics: Diagnostics) -> None:
        self.spec = spec
        self.diagnostics = diagnostics
        self.hosts: dict[str, Host] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.rules_known = not spec.peering_is_bad

    def resolve(self) -> Topology:
        self._check_names()
        self._expand_groups()
        hub_names = self._hub_names()
        self._make_hosts(hub_names)
        rules = self._rules()
        return Topology(
            file=self.spec.file,
            name=self.spec.network.name,
            subnets=self.spec.network.subnets,
            preshared_keys=self.spec.network.preshared_keys,
            hosts=tuple(self.hosts.values()),
            by_name=self.hosts,
            groups={name: self._to_hosts(members) for name, members in self.groups.items()},
            rules=tuple(rules),
            expectations=tuple(self._expectations()),
            rules_known=self.rules_known,
            spec=self.spec,
        )

    # --- names -------------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        for name, key in self.spec.group_keys.items():
            if name == "all":
                self.diagnostics.report(codes.NAME_CLASH, "group 'all' is every host and cannot be defined", key.span)
            elif name in self.spec.host_keys:
                self.diagnostics.report(
                    codes.NAME_CLASH,
                    f"'{name}' names a group and a host",
                    Label(key.span, "the group"),
                    Label(self.spec.host_keys[name].span, "the host"),
                    help="rename one of them",
                )
        if "all" in self.spec.host_keys:
            self.diagnostics.report(
                codes.NAME_CLASH,
                "'all' is the group of every host and cannot name one",
                self.spec.host_keys["all"].span,
                help="rename the host",
            )

    def _unknown(self, name: str, place: Span, *, group: bool = True, host: bool = True) -> None:
        known = [*(self.spec.host_keys if host else ()), *(self.spec.group_keys if group else ()), *(["all"] * group)]
        what = "host or group" if group and host else "group" if group else "host"
        if host and not group and (name in self.spec.group_keys or name == "all"):
            self.diagnostics.report(codes.UNKNOWN_NAME, f"'{name}' is a group, expected a host", place)
            return
        if group and not host and name in self.spec.host_keys:
            self.diagnostics.report(
                codes.UNKNOWN_NAME,
                f"'{name}' is a host, expected a group",
                place,
                help=f"set the keys at the host '{name}' itself",
            )
            return
        ways = [suggest(name, known) or ""]
        if name.startswith("x-"):
            ways = ["choose another name: keys that begin with 'x-' are your own, and not read"]
        self.diagnostics.report(
            codes.UNKNOWN_NAME, f"there is no {what} '{name}'", place, help=[way for way in ways if way]
        )

    def _expand_groups(self) -> None:
        """Expand nested groups into `groups`; report members that nobody has, and groups that contain themselves."""
        node = self.spec.nodes.get("groups")
        written = {name: self.spec.groups.get(name, ()) for name in self.spec.group_keys}
        values: dict[str, Node] = {key.text: value for key, value in node.entries} if isinstance(node, Mapping) else {}
        for group, members in written.items():
            for member, place in _with_places(members, values[group]):
                if member not in self.spec.host_keys and member not in written and member != "all":
                    self._unknown(member, place)
        self.groups, cycles = expand_groups(written, self.spec.host_keys)
        for cycle in cycles:
            places = dict(_with_places(written[cycle[-1]], values[cycle[-1]]))
            shown = [*cycle, cycle[0]]
            if len(shown) > MAX_NAMES_OF_CYCLE:
                shown[MAX_NAMES_OF_CYCLE - 2 : -1] = ["..."]
            self.diagnostics.report(
                codes.GROUP_CYCLE, f"group '{cycle[0]}' contains itself: {' -> '.join(shown)}", places[cycle[0]]
            )
        self.groups["all"] = tuple(self.spec.host_keys)

    def _names(self, names: tuple[str, ...] | None, node: Node | None) -> list[str]:
        """Return the host names that a list of hosts and groups stands for, each once."""
        found: dict[str, None] = {}
        for name, place in _with_places(names or (), node):
            if name in self.spec.host_keys:
                found[name] = None
            elif name in self.groups:
                found.update(dict.fromkeys(self.groups[name]))
            else:
                self._unknown(name, place)
        return list(found)

    def _quiet_names(self, names: tuple[str, ...] | None) -> list[str]:
        found: dict[str, None] = {}
        for name in names or ():
            if name in self.groups:
                found.update(dict.fromkeys(self.groups[name]))
            else:
                found[name] = None
        return list(found)

    def _to_hosts(self, names: Iterable[str], *, disabled: bool = True) -> tuple[Host, ...]:
        return tuple(
            host for name in names if (host := self.hosts.get(name)) is not None and (disabled or not host.disabled)
        )

    # --- hosts -------------------------------------------------------------------------------------------------------

    def _hub_names(self) -> set[str]:
        return {name for rule in self.spec.peering or () for name in self._quiet_names(rule.hub)}

    def _make_hosts(self, hub_names: set[str]) -> None:
        layers: dict[str, list[HostSpec]] = {}
        for group, defaults in self.spec.defaults.items():
            if group not in self.groups:
                self._unknown(group, self.spec.default_keys[group].span, host=False)
                continue
            for name in self.groups[group]:
                layers.setdefault(name, []).append(defaults)
        for name, key in self.spec.default_keys.items():
            if name not in self.spec.defaults and name not in self.groups:
                self._unknown(name, key.span, host=False)
        network_interface = self._network_interface()
        for name, spec in self.spec.hosts.items():
            self.hosts[name] = self._host(name, spec, layers.get(name, []), name in hub_names, network_interface)

    def _network_interface(self) -> str:
        network = self.spec.network
        if network.interface is not None or "interface" in network.nodes or not network.name:
            return network.interface or ""
        problem = interface_problem(network.name)
        if problem and not all("interface" in host.nodes for host in self.spec.hosts.values()):
            self.diagnostics.report(
                codes.BAD_INTERFACE,
                f"'{network.name}' cannot be the interface's name too: {problem}",
                network.nodes["name"].span,
                help="set network.interface",
            )
        return network.name

    def _host(self, name: str, spec: HostSpec, layers: list[HostSpec], is_hub: bool, network_interface: str) -> Host:
        network = self.spec.network
        nodes = spec.nodes
        if layers:
            nodes = {}
            for layer in layers:
                nodes |= layer.nodes
            nodes |= spec.nodes

        def pick(field: str, default: Any = None) -> Any:
            value = getattr(spec, field)
            if value is not None:
                return value
            for layer in reversed(layers):
                value = getattr(layer, field)
                if value is not None:
                    return value
            return default

        manager: Manager = pick("manager", Manager.NETWORKD)
        listen_port = pick("listen_port", DEFAULT_LISTEN_PORT if network.listen_port is None else network.listen_port)
        advertise: tuple[Prefix, ...] = pick("advertise", ())
        dns: DnsSpec | None = pick("dns", network.dns)
        private_key = pick("private_key") or SecretSource("file", private_key_path(network.name))
        return Host(
            name=name,
            index=len(self.hosts),
            description=pick("description"),
            manager=manager,
            manager_version=self._manager_version(spec, layers, manager),
            addresses=self._addresses(spec),
            public_key=spec.public_key,
            next_public_key=spec.next_public_key,
            private_key=private_key,
            endpoint=_with_port(pick("endpoint", ()), listen_port),
            site=pick("site"),
            site_endpoint=_with_port(pick("site_endpoint", ()), listen_port),
            advertise=tuple(prefix for prefix in advertise if prefix.prefixlen),
            offers=frozenset(prefix.version for prefix in advertise if not prefix.prefixlen),
            forward=pick("forward", is_hub),
            masquerade=pick("masquerade", False),
            listen_port=listen_port,
            interface=pick("interface", network_interface),
            mtu=pick("mtu", network.mtu),
            table=pick("table", TABLE_MAIN),
            metric=pick("metric", DEFAULT_METRIC),
            firewall_mark=pick("firewall_mark"),
            dns=None if dns is None else Dns(servers=dns.servers, search=dns.search),
            autoconnect=pick("autoconnect", True),
            exit_node=self._exit_node(pick("exit_node"), nodes),
            bypass=pick("bypass", ()),
            accept=pick("accept"),
            keepalive=pick("keepalive"),
            permissions=pick("permissions", ()),
            zone=pick("zone"),
            disabled=pick("disabled", False),
            key=self.spec.host_keys[name],
            nodes=nodes,
            spec=spec,
        )

    def _exit_node(self, name: str | None, nodes: dict[str, Node]) -> str | None:
        if name is None or name in self.spec.host_keys:
            return name
        self._unknown(name, nodes["exit-node"].span, group=False)
        return None

    def _manager_version(self, spec: HostSpec, layers: list[HostSpec], manager: Manager) -> tuple[int, ...] | None:
        """Return the version, of a form that fits the manager.

        `defaults` may give systemd's version to a group of which another group then makes NetworkManager hosts: a
        version of the other form is not meant for them. At the host itself it is a mistake.
        """
        if spec.manager_version is not None:
            if not _fits(spec.manager_version, manager):
                self.diagnostics.report(
                    codes.BAD_MANAGER_VERSION,
                    f"'{'.'.join(map(str, spec.manager_version))}' is no version of {_PRODUCT[manager]}",
                    spec.nodes["manager-version"].span,
                )
                return None
            return spec.manager_version
        for layer in reversed(layers):
            if layer.manager_version is not None and _fits(layer.manager_version, manager):
                return layer.manager_version
        return None

    def _addresses(self, spec: HostSpec) -> tuple[Interface, ...]:
        """Return the addresses with their prefix lengths: the subnet's unless written otherwise."""
        import ipaddress

        result: list[Interface] = []
        for address in spec.addresses or ():
            length = address.length
            if length is None:
                subnet = find_subnet(address.address, self.spec.network.subnets)
                length = address.address.max_prefixlen if subnet is None else subnet.prefixlen
            # From the number: `ip_interface` would print the address and read it again, twice.
            kind = ipaddress.IPv4Interface if address.address.version == 4 else ipaddress.IPv6Interface
            result.append(kind((int(address.address), length)))
        return tuple(result)

    # --- rules -------------------------------------------------------------------------------------------------------

    def _rules(self) -> list[Rule]:
        default_psk = self.spec.network.preshared_keys
        if self.spec.peering_is_bad:
            return []
        if self.spec.peering is None:
            return [
                Rule(
                    kind=RuleKind.MESH,
                    members=self._to_hosts(self.spec.host_keys, disabled=False),
                    preshared_key=default_psk,
                )
            ]
        named: set[str] = set()
        for rule in self.spec.peering:
            for names in (rule.mesh, rule.hub, rule.spokes):
                named.update(self._quiet_names(names))
        unnamed = [name for name in self.spec.host_keys if name not in named]
        before = len(self.diagnostics)
        rules = [self._rule(rule, unnamed, default_psk) for rule in self.spec.peering]
        # With a rule less, every word about links and paths would be a guess.
        self.rules_known = len(self.diagnostics) == before
        self._check_twice([rule for rule in rules if rule is not None and rule.kind is RuleKind.LINK])
        return [rule for rule in rules if rule is not None]

    def _rule(self, spec: RuleSpec, unnamed: list[str], default_psk: bool) -> Rule | None:
        if spec.mesh is not None:
            names = self._names(spec.mesh, spec.nodes["mesh"])
            self._matches(spec, "mesh", len(names) >= 2, "expected at least two hosts")
            return Rule(
                kind=RuleKind.MESH,
                members=self._to_hosts(names, disabled=False),
                preshared_key=default_psk,
                keepalive=spec.keepalive,
                spec=spec,
            )
        if spec.hub is not None:
            hubs = self._names(spec.hub, spec.nodes["hub"])
            spokes = unnamed if spec.spokes is None else self._names(spec.spokes, spec.nodes["spokes"])
            spokes = [name for name in spokes if name not in hubs]
            if self._matches(spec, "hub", bool(hubs), "expected a hub"):
                self._matches(spec, "spokes", bool(spokes) or len(hubs) > 1, "there is no host left to be a spoke")
            return Rule(
                kind=RuleKind.HUB,
                hubs=self._to_hosts(hubs, disabled=False),
                spokes=self._to_hosts(spokes, disabled=False),
                isolate=spec.isolate,
                preshared_key=default_psk,
                keepalive=spec.keepalive,
                spec=spec,
            )
        return self._link(spec, default_psk)

    def _matches(self, spec: RuleSpec, key: str, good: bool, why: str) -> bool:
        """Report a rule that matches nothing, unless an unknown name has been reported as the reason."""
        names = getattr(spec, key) or ()
        if not good and all(name in self.spec.host_keys or name in self.groups for name in names):
            place = spec.nodes[key].span if key in spec.nodes else spec.node.span
            self.diagnostics.report(codes.EMPTY_RULE, f"the rule matches nothing: {why}", place)
        return good

    def _link(self, spec: RuleSpec, default_psk: bool) -> Rule | None:
        assert spec.link is not None
        node = spec.nodes["link"]
        if len(spec.link) != 2:
            self.diagnostics.report(
                codes.WRONG_TYPE, f"expected a list of two hosts, found {len(spec.link)}", node.span
            )
            return None
        good = True
        for name, place in _with_places(spec.link, node):
            if name not in self.spec.host_keys:
                self._unknown(name, place, group=False)
                good = False
        if not good:
            return None
        if spec.link[0] == spec.link[1]:
            self.diagnostics.report(codes.SELF_LINK, f"'{spec.link[0]}' is linked to itself", node.span)
            return None
        for name, place in _map_places(spec.endpoint or {}, spec.nodes.get("endpoint")):
            if name not in spec.link:
                self.diagnostics.report(
                    codes.LINK_ENDPOINT_NAME,
                    f"'{name}' is not on this link",
                    Label(place),
                    Label(node.span, "the link"),
                    help=suggest(name, spec.link) or (),
                )
        members = self._to_hosts(spec.link)
        if len(members) != 2 or any(host.disabled for host in members):
            return None
        return Rule(
            kind=RuleKind.LINK,
            members=members,
            endpoint={
                host.name: _with_port(spec.endpoint[host.name], host.listen_port)
                for host in members
                if spec.endpoint and host.name in spec.endpoint
            },
            preshared_key=default_psk if spec.preshared_key is None else spec.preshared_key,
            keepalive=spec.keepalive,
            any_allowed=spec.allowed_ips is not None,
            spec=spec,
        )

    def _check_twice(self, links: list[Rule]) -> None:
        first: dict[frozenset[str], Rule] = {}
        for rule in links:
            pair = frozenset(host.name for host in rule.members)
            other = first.setdefault(pair, rule)
            if other is not rule and rule.spec is not None and other.spec is not None:
                one, two = (host.name for host in rule.members)
                self.diagnostics.report(
                    codes.DUPLICATE_LINK,
                    f"'{one}' and '{two}' have two link rules",
                    Label(rule.spec.nodes["link"].span, "again here"),
                    Label(other.spec.nodes["link"].span, "first here"),
                    help="join them in one rule",
                )

    # --- expectations ------------------------------------------------------------------------------------------------

    def _expectations(self) -> Iterable[Expectation]:
        for spec in self.spec.expect:
            expectation = self._expectation(spec)
            if expectation is not None:
                yield expectation

    def _expectation(self, spec: ExpectSpec) -> Expectation | None:
        before = len(self.diagnostics)
        sources = self._names((spec.from_,), spec.nodes["from"])
        to_hosts = self._names((spec.to,), spec.nodes["to"]) if isinstance(spec.to, str) else []
        # A disabled host counts where it is named itself; as a member of a group it is passed over.
        by_group, to_group = spec.from_ in self.groups, spec.to in self.groups
        for name, place in _with_places(spec.via or (), spec.nodes.get("via")):
            if name not in self.spec.host_keys:
                self._unknown(name, place, group=False)
        if len(self.diagnostics) > before:
            return None
        return Expectation(
            sources=self._to_hosts(sources, disabled=not by_group),
            to_hosts=self._to_hosts(to_hosts, disabled=not to_group),
            to_address=None if isinstance(spec.to, str) else spec.to,
            via=spec.via,
            reachable=spec.reachable,
            spec=spec,
        )


_PRODUCT = {
    Manager.NETWORKD: "systemd",
    Manager.NETWORKMANAGER: "NetworkManager",
    Manager.WG_QUICK: "wireguard-tools",
    Manager.EXTERNAL: "an external host's manager",
}


def _fits(version: tuple[int, ...], manager: Manager) -> bool:
    if manager is Manager.NETWORKD:
        return version[0] >= 100
    if manager is Manager.NETWORKMANAGER:
        return version[0] < 100 and len(version) >= 2
    return False


def find_subnet(address: Address, subnets: Iterable[Prefix]) -> Prefix | None:
    """Return the subnet that contains the address, or None."""
    for subnet in subnets:
        if subnet.version == address.version and address in subnet:
            return subnet
    return None


def _with_port(endpoints: tuple[Endpoint, ...], listen_port: int) -> tuple[Endpoint, ...]:
    if not endpoints or all(endpoint.port for endpoint in endpoints):
        return endpoints
    return tuple(
        endpoint if endpoint.port else Endpoint(endpoint.host, listen_port, endpoint.address) for endpoint in endpoints
    )


def _with_places(names: tuple[str, ...], node: Node | None) -> list[tuple[str, Span]]:
    """Pair names with their places; `node` is a list, or one scalar that stands for a list."""
    if node is None:
        return []
    if isinstance(node, List):
        return [(name, item.span) for name, item in zip(names, node.items, strict=False)]
    return [(name, node.span) for name in names]


def _map_places(mapping: dict[str, Any], node: Node | None) -> list[tuple[str, Span]]:
    if not isinstance(node, Mapping):
        return []
    return [(name, key.span) for name in mapping if (key := node.key(name)) is not None]
