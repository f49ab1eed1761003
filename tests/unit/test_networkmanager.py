"""NetworkManager's profile: what is written, what its own parser makes of it, and that its two forms say one thing."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from realparsers import available, install, lint_keyfile, load_keyfiles

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.networkmanager import NetworkManager, describe, profile_uuid
from wgnet.managers.nm_settings import DbusSettings, to_dbus
from wgnet.managers.templates import Templates
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.plan.types import Action, AddressPlan, DnsPlan, InterfacePlan, PeerPlan, PolicyRulePlan, RoutePlan
from wgnet.record import replace
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.spec import Endpoint, SecretSource

FRA = "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
NYC = "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
SGP = "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="
NEXT = "/oYJ9PhB3it9Y/QxUr7u/WqmRspYrvoFFsFwuI8GLAM="
PRIVATE = PrivateKey.generate()
PRESHARED = PresharedKey.generate()
NEXT_PRESHARED = PresharedKey.generate()
KEYS = InterfaceSecrets(private_key=PRIVATE, preshared_keys={FRA: PRESHARED, NEXT: NEXT_PRESHARED})

TOPOLOGY = f"""\
wgnet: 1
network:
  name: office
  interface: wg0
  subnets: [10.80.0.0/24, "fd42:80::/64"]
  preshared-keys: true
  dns: {{servers: [10.80.0.1, "fd42:80::1"], search: [corp.example.com, ~lab.example.com]}}
peering: {{hub: fra}}
hosts:
  fra:
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: "{FRA}"
    next-public-key: "{NEXT}"
    endpoint: fra.example.net
    advertise: [192.168.10.0/24, 0.0.0.0/0, "::/0"]
  nyc:
    manager: networkmanager
    addresses: [10.80.0.2, "fd42:80::2"]
    public-key: "{NYC}"
    mtu: 1380
    permissions: [alice, bob]
    zone: trusted
    HERE: 0
"""


def plan_of(text: str, host: str = "nyc") -> InterfacePlan:
    diagnostics = Diagnostics()
    specification = parse_specification(text.encode(), "office.yaml", diagnostics)
    assert specification is not None
    topology = resolve_topology(specification, diagnostics)
    assert not diagnostics.has_errors, [d.message for d in diagnostics]
    return Fleet((Routing.of(topology),)).plan_host(host).interfaces[0]


def plan_with(*lines: str, host: str = "nyc", changes: tuple[tuple[str, str], ...] = ()) -> InterfacePlan:
    """Return the plan of `nyc` with further keys of its own."""
    text = TOPOLOGY.replace("    HERE: 0\n", "".join(f"    {line}\n" for line in lines))
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return plan_of(text, host)


def render(
    plan: InterfacePlan, secrets: InterfaceSecrets = KEYS, base: str = "/etc"
) -> tuple[Artifact, dict[str, dict[str, str]], Diagnostics]:
    diagnostics = Diagnostics()
    (artifact,) = NetworkManager(Templates(), base).render(plan, secrets, diagnostics)
    groups: dict[str, dict[str, str]] = {}
    group: dict[str, str] = {}
    for line in artifact.content.decode().splitlines():
        if line.startswith("["):
            assert line[1:-1] not in groups
            group = groups[line[1:-1]] = {}
        elif line and not line.startswith("#"):
            key, sign, value = line.partition("=")
            assert sign and key not in group, line
            group[key] = value
    return artifact, groups, diagnostics


def check(plan: InterfacePlan) -> Diagnostics:
    diagnostics = Diagnostics()
    NetworkManager(Templates()).check(plan, diagnostics)
    return diagnostics


def lint(artifact: Artifact, folder: Path, version: str) -> list[str]:
    install([artifact], folder)
    return lint_keyfile(folder / artifact.path.lstrip("/"), version)


def plan_isolating() -> InterfacePlan:
    """A hub of a network of IPv4 that isolates its spokes, and carries a subnet of IPv6 that one of them advertises."""
    return plan_of(
        f"""\
wgnet: 1
network: {{name: office, interface: wg0, subnets: [10.80.0.0/24]}}
peering: {{hub: fra, isolate: true}}
hosts:
  fra: {{manager: networkmanager, addresses: [10.80.0.1], public-key: "{FRA}", endpoint: "[2001:db8::1]:4500"}}
  nyc: {{addresses: [10.80.0.2], public-key: "{NYC}", advertise: ["2001:db8:5::/48"]}}
  sgp: {{addresses: [10.80.0.3], public-key: "{SGP}"}}
""",
        "fra",
    )


#: Plans that, together, have everything that can be written.
RICH = {
    "spoke": lambda: plan_with(),
    "exit": lambda: plan_with("exit-node: fra", "bypass: [192.0.2.0/24, 198.51.100.7, '2001:db8::/32']"),
    "table": lambda: plan_with("table: 100", "metric: 77", "firewall-mark: 0xcafe"),
    "off": lambda: plan_with("table: off"),
    "agent": lambda: plan_with(
        "private-key: {agent: true}",
        "autoconnect: false",
        "listen-port: auto",
        changes=(("preshared-keys: true", "mtu: 1400"),),
    ),
    "relay": plan_isolating,
}


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_whole_file_of_a_spoke() -> None:
    artifact, _, diagnostics = render(plan_with())
    assert (artifact.path, artifact.mode, artifact.owner, artifact.group, artifact.secret) == (
        "/etc/NetworkManager/system-connections/wgnet-wg0.nmconnection",
        0o600,
        "root",
        "root",
        True,
    )
    assert len(diagnostics) == 0
    assert (
        artifact.content.decode()
        == f"""\
# Written by wgnet from the network 'office' for the host 'nyc'. Changes are lost at the next render; edit the topology.

[connection]
id=office
uuid={profile_uuid("office", "nyc")}
type=wireguard
interface-name=wg0
autoconnect=true
permissions=user:alice:;user:bob:;
zone=trusted

[wireguard]
private-key={PRIVATE.reveal()}
private-key-flags=0
listen-port=51820
mtu=1380
peer-routes=false
ip4-auto-default-route=0
ip6-auto-default-route=0

# fra
[wireguard-peer.{FRA}]
endpoint=fra.example.net:51820
preshared-key={PRESHARED.reveal()}
preshared-key-flags=0
persistent-keepalive=25
allowed-ips=10.80.0.0/24;192.168.10.0/24;fd42:80::/64;

# fra
[wireguard-peer.{NEXT}]
endpoint=fra.example.net:51820
preshared-key={NEXT_PRESHARED.reveal()}
preshared-key-flags=0
persistent-keepalive=25

[ipv4]
method=manual
address1=10.80.0.2/24
route-metric=2000
route1=192.168.10.0/24,,2000
dns=10.80.0.1;
dns-search=corp.example.com;~lab.example.com;
dns-priority=150

[ipv6]
method=manual
addr-gen-mode=stable-privacy
address1=fd42:80::2/64
route-metric=2000
dns=fd42:80::1;
dns-search=corp.example.com;~lab.example.com;
dns-priority=150
"""
    )


def test_the_uuid_outlives_everything_but_the_names() -> None:
    assert profile_uuid("office", "nyc") == "88a1c064-d971-5c2c-a725-bdc4e04f3e0b"
    assert profile_uuid("office", "fra") != profile_uuid("office", "nyc") != profile_uuid("home", "nyc")
    _, groups, _ = render(plan_with("interface: wg7", "manager-version: 1.46"))
    assert groups["connection"]["uuid"] == profile_uuid("office", "nyc")
    assert groups["connection"]["interface-name"] == "wg7"


def test_a_runtime_file_lies_below_run() -> None:
    artifact, _, _ = render(plan_with(), base="/run")
    assert artifact.path == "/run/NetworkManager/system-connections/wgnet-wg0.nmconnection"


def test_every_preshared_key_bears_its_flags() -> None:
    # Without them NetworkManager drops the key and says nothing.
    for make in RICH.values():
        _, groups, _ = render(make())
        for name, group in groups.items():
            assert ("preshared-key" in group) is (group.get("preshared-key-flags") == "0"), name


def test_an_exit_node_is_routed_by_rules_of_the_plan() -> None:
    _, groups, _ = render(plan_with("exit-node: fra", "bypass: [192.0.2.0/24, 198.51.100.7, '2001:db8::/32']"))
    assert groups["wireguard"]["fwmark"] == "51820"
    assert groups["ipv4"]["route2"] == "0.0.0.0/0,,2000"
    assert groups["ipv4"]["route2_options"] == "table=51820"
    assert [value for key, value in groups["ipv4"].items() if key.startswith("routing-rule")] == [
        "priority 32763 to 192.0.2.0/24 table 254",
        "priority 32763 to 198.51.100.7 table 254",
        "priority 32764 from 0.0.0.0/0 suppress_prefixlength 0 table 254",
        "priority 32765 not from 0.0.0.0/0 fwmark 0xca6c table 51820",
    ]
    assert [value for key, value in groups["ipv6"].items() if key.startswith("routing-rule")] == [
        "priority 32763 to 2001:db8::/32 table 254",
        "priority 32764 from ::/0 suppress_prefixlength 0 table 254",
        "priority 32765 not from ::/0 fwmark 0xca6c table 51820",
    ]
    for family in ("ipv4", "ipv6"):
        assert groups[family]["dns-search"] == "~.;corp.example.com;~lab.example.com;"
        assert int(groups[family]["dns-priority"]) < 0


def test_a_table_of_its_own_takes_the_connected_prefix_too() -> None:
    _, groups, _ = render(plan_with("table: 100", "metric: 77"))
    for family, address in (("ipv4", "10.80.0.2/24"), ("ipv6", "fd42:80::2/64")):
        assert groups[family]["address1"] == address
        assert (groups[family]["route-table"], groups[family]["route-metric"]) == ("100", "77")
    # NetworkManager makes the routes to the addresses' prefixes itself.
    assert [value for key, value in groups["ipv4"].items() if re.match(r"route\d", key)] == ["192.168.10.0/24,,77"]
    assert not any(re.match(r"route\d", key) for key in groups["ipv6"])


def test_without_a_table_there_is_no_route_at_all() -> None:
    _, groups, _ = render(plan_with("table: off"))
    assert groups["ipv4"]["address1"] == "10.80.0.2/32"
    assert groups["ipv6"]["address1"] == "fd42:80::2/128"
    assert not any(
        key.startswith("route-table") or re.match(r"route\d", key) for key in groups["ipv4"] | groups["ipv6"]
    )
    assert groups["wireguard"]["peer-routes"] == "false"


def test_a_version_without_address_is_not_automatic() -> None:
    _, groups, _ = render(
        plan_with(
            changes=((', "fd42:80::/64"', ""), (', "fd42:80::1"]\n    pub', "]\n    pub"), (', "fd42:80::2"', ""))
        )
    )
    assert groups["ipv6"] == {"method": "disabled"}


def test_a_relay_carries_what_it_has_no_address_of() -> None:
    _, groups, _ = render(plan_isolating(), InterfaceSecrets(private_key=PRIVATE))
    # `disabled` would turn IPv6 off on the interface, and `manual` wants an address before 1.46.
    assert groups["ipv6"] == {
        "method": "link-local",
        "addr-gen-mode": "stable-privacy",
        "route1": "2001:db8:5::/48,,2000",
        "routing-rule1": "priority 32601 to 2001:db8:5::/48 iif wg0 type prohibit",
    }
    assert groups["ipv4"]["routing-rule1"] == "priority 32601 to 10.80.0.2/31 iif wg0 type prohibit"


def test_servers_that_cannot_be_asked_are_left_out() -> None:
    # NetworkManager refuses a profile with servers of a disabled version.
    four = (("addresses: [10.80.0.2, ", "addresses: ["), ('[10.80.0.1, "fd42:80::1"], search', "[10.80.0.1], search"))
    _, groups, _ = render(plan_with(changes=four))
    assert not any(key.startswith("dns") for key in groups["ipv4"] | groups["ipv6"])


def test_reverse_zones_are_routed_and_not_searched() -> None:
    _, groups, _ = render(plan_with(changes=((", search: [corp.example.com, ~lab.example.com]", ""),)))
    assert groups["ipv4"]["dns-search"] == "~0.80.10.in-addr.arpa;" + "~0.0.0.0.0.0.0.0.0.8.0.0.2.4.d.f.ip6.arpa;"


def test_an_agents_key_never_stands_in_the_file() -> None:
    artifact, groups, diagnostics = render(plan_with("private-key: {agent: true}"))
    assert groups["wireguard"]["private-key-flags"] == "1"
    assert "private-key" not in groups["wireguard"]
    assert PRIVATE.reveal() not in artifact.content.decode()
    assert len(diagnostics) == 0
    artifact, _, _ = render(plan_with("private-key: {agent: true}", changes=(("preshared-keys: true", "mtu: 1400"),)))
    assert artifact.secret is False


def test_preshared_keys_beside_an_agents_key_are_told() -> None:
    """What the agent tells is all that NetworkManager has then: seen in the lab, with 1.52."""
    diagnostics = Diagnostics()
    manager = NetworkManager(Templates())
    manager.check(plan_with("private-key: {agent: true}"), diagnostics)
    [found] = diagnostics
    assert found.code is codes.PRESHARED_WITH_AGENT
    assert "'fra'" in found.message
    quiet = Diagnostics()
    manager.check(plan_with("private-key: {agent: true}", changes=(("preshared-keys: true", "mtu: 1400"),)), quiet)
    manager.check(plan_with(), quiet)
    assert len(quiet) == 0


def test_absent_secrets_are_left_out_and_told() -> None:
    artifact, groups, diagnostics = render(plan_with(), InterfaceSecrets())
    assert "private-key" not in groups["wireguard"]
    assert not any("preshared-key" in group for group in groups.values())
    assert artifact.secret is False
    private, shared = diagnostics
    assert private.code is codes.PRIVATE_KEY_ABSENT
    assert any("agent: true" in way for way in private.help)
    assert shared.code is codes.PRESHARED_KEY_ABSENT
    assert "'fra'" in shared.message
    assert not diagnostics.has_errors


def test_a_preshared_key_agreed_elsewhere_serves_both_keys_of_a_peer() -> None:
    plan = plan_with()
    peer = replace(plan.peers[0], preshared_key=SecretSource("file", "/etc/wgnet/fra.psk"))
    secrets = InterfaceSecrets(private_key=PRIVATE, preshared_keys={FRA: PRESHARED})
    _, groups, diagnostics = render(replace(plan, peers=(peer,), secured_peers=(peer,)), secrets)
    assert groups[f"wireguard-peer.{NEXT}"]["preshared-key"] == PRESHARED.reveal()
    assert len(diagnostics) == 0


def test_nothing_shows_a_secret() -> None:
    settings = describe(plan_with(), KEYS)
    shown = repr(settings) + repr(render(plan_with())[0])
    for secret in (PRIVATE, PRESHARED, NEXT_PRESHARED):
        assert secret.reveal() not in shown


# --- what it cannot express ------------------------------------------------------------------------------------------


def test_a_plain_host_is_expressible() -> None:
    for make in RICH.values():
        assert len(check(make())) == 0


def test_credentials_are_refused() -> None:
    (found,) = check(plan_with("private-key: {credential: wg.office}"))
    assert found.code is codes.MANAGER_CANNOT
    assert found.primary is not None
    assert found.primary.span.line == TOPOLOGY[: TOPOLOGY.index("    HERE")].count("\n") + 1
    plan = plan_with()
    peer = replace(plan.peers[0], preshared_key=SecretSource("credential", "psk"))
    (found,) = check(replace(plan, peers=(peer,), secured_peers=(peer,)))
    assert found.code is codes.MANAGER_CANNOT
    assert "'fra'" in found.message


@pytest.mark.parametrize(
    ("version", "expressible"),
    [
        (None, False),
        ("1.36", True),
        ("1.42.8", True),
        ("1.44", False),
        ("1.44.4", False),
        ("1.46", True),
        ("1.58", True),
    ],
)
def test_ipv4_routes_without_an_address_need_the_right_version(version: str | None, expressible: bool) -> None:
    lines = () if version is None else (f"manager-version: {version}",)
    # What a host advertises itself makes it take routes of that version.
    plan = plan_with(*lines, "advertise: [10.1.0.0/16]", changes=(("addresses: [10.80.0.2, ", "addresses: ["),))
    assert [found.code for found in check(plan)] == ([] if expressible else [codes.VERSION_CANNOT])
    _, groups, _ = render(plan)
    assert groups["ipv4"]["method"] == "disabled"
    assert groups["ipv4"]["route1"].endswith(",,2000")


# --- NetworkManager itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", available())
@pytest.mark.parametrize("name", RICH)
@pytest.mark.parametrize("secrets", [KEYS, InterfaceSecrets()], ids=["keys", "no-keys"])
def test_its_own_parser_drops_nothing(tmp_path: Path, name: str, version: str, secrets: InterfaceSecrets) -> None:
    artifact, _, _ = render(RICH[name](), secrets)
    assert lint(artifact, tmp_path, version) == []


def plain(settings: DbusSettings) -> dict[str, dict[str, Any]]:
    """Take the signatures out."""

    def strip(value: object) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, (_, inner) in value.items()}
        if isinstance(value, bytes):
            return list(value)
        return [strip(item) for item in value] if isinstance(value, list) else value

    return {
        name: {key: strip(value) for key, (_, value) in properties.items()} for name, properties in settings.items()
    }


#: What the daemon shows that nobody wrote: values by default, and older forms of addresses, routes and servers.
_SHOWN_TOO = ("addresses", "routes", "dns-data", "address-data", "route-data", "dns-search", "permissions")


@pytest.mark.parametrize("version", available())
def test_the_daemon_reads_from_keyfiles_what_would_be_sent_over_dbus(tmp_path: Path, version: str) -> None:
    plans = {}
    files = []
    for number, (name, make) in enumerate(RICH.items()):
        plan = replace(make(), interface=f"wg{number}", network=name)
        artifact, _, _ = render(plan)
        plans[artifact.path] = plan
        files.append(artifact)
    loaded = load_keyfiles(install(files, tmp_path), version=version)
    assert loaded.messages == ()
    assert loaded.profiles.keys() == plans.keys()
    for path, plan in plans.items():
        sent, shown = plain(to_dbus(describe(plan, KEYS))), loaded.profiles[path].settings
        for setting, properties in sent.items():
            for key, value in properties.items():
                default = {"private-key-flags": 0, "autoconnect": True}.get(key)
                found = shown[setting].get(key, default)
                if key == "peers":
                    value = sorted(({**peer, "allowed-ips": peer.get("allowed-ips", [])} for peer in value), key=str)
                    found = sorted(({**peer, "allowed-ips": peer.get("allowed-ips", [])} for peer in found), key=str)
                assert found == value, (path, setting, key)
            for key, value in shown[setting].items():
                assert key in properties or key in _SHOWN_TOO, (path, setting, key, value)


# --- both forms say one thing ----------------------------------------------------------------------------------------

_V4 = st.ip_addresses(v=4)
_V6 = st.ip_addresses(v=6)


def _prefixes(version: int, shortest: int = 0) -> st.SearchStrategy[Any]:
    longest = 32 if version == 4 else 128
    return st.builds(
        lambda address, length: ipaddress.ip_network((address, length), strict=False),
        _V4 if version == 4 else _V6,
        st.integers(shortest, longest),
    )


_ANY_PREFIX = st.one_of(_prefixes(4), _prefixes(6))
_NUMBER = st.integers(1, 2**32 - 1)
_TABLE = st.sampled_from([0, 254, 100, 2**32 - 1])
_NAME = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)


@st.composite
def rules(draw: st.DrawFn) -> PolicyRulePlan:
    version = draw(st.sampled_from([4, 6]))
    prohibit = draw(st.booleans())
    prefix = st.none() | _prefixes(version)
    return PolicyRulePlan(
        version=version,
        priority=draw(st.integers(0, 2**32 - 1)),
        action=Action.PROHIBIT if prohibit else Action.LOOKUP,
        table=None if prohibit else draw(_NUMBER),
        source=draw(prefix),
        destination=draw(prefix),
        incoming_interface=draw(st.none() | st.just("wg0")),
        firewall_mark=draw(st.none() | _NUMBER),
        invert=draw(st.booleans()),
        suppress_prefix_length=None if prohibit else draw(st.none() | st.integers(0, 32)),
    )


@st.composite
def peers(draw: st.DrawFn) -> PeerPlan:
    address = draw(st.none() | _V4 | _V6)
    host = draw(_NAME) if address is None else str(address)
    return PeerPlan(
        name=draw(_NAME),
        public_key=PrivateKey(draw(st.binary(min_size=32, max_size=32))).public(),
        next_public_key=draw(st.none() | st.just(NEXT)),
        endpoints=draw(st.just(()) | st.just((Endpoint(host, draw(st.integers(1, 65535)), address),))),
        allowed_ips=tuple(draw(st.lists(_ANY_PREFIX, unique=True, max_size=4))),
        persistent_keepalive=draw(st.integers(0, 65535)),
        preshared_key=draw(st.sampled_from([None, "derived"])),
        route_allowed_ips=True,
    )


_BASE = plan_with()


@st.composite
def plans(draw: st.DrawFn) -> tuple[InterfacePlan, InterfaceSecrets]:
    found = draw(st.lists(peers(), max_size=3, unique_by=lambda peer: peer.public_key))
    for peer in found[1:]:
        found[found.index(peer)] = replace(peer, next_public_key=None)
    table = draw(_TABLE)
    addresses = [
        AddressPlan(address=ipaddress.ip_interface((draw(_V4), draw(st.integers(1, 32)))), prefix_route=table == 254)
        for _ in range(draw(st.integers(0, 2)))
    ] + [
        AddressPlan(address=ipaddress.ip_interface((draw(_V6), draw(st.integers(1, 128)))), prefix_route=table == 254)
        for _ in range(draw(st.integers(0, 2)))
    ]
    metric = draw(_NUMBER)
    plan = replace(
        _BASE,
        private_key=SecretSource(*draw(st.sampled_from([("file", "/etc/wgnet/office.key"), ("agent", "")]))),
        listen_port=draw(st.integers(0, 65535)),
        mtu=draw(st.none() | st.integers(576, 65535)),
        firewall_mark=draw(st.integers(0, 2**32 - 1)),
        table=table,
        metric=metric,
        addresses=tuple(addresses),
        peers=tuple(found),
        secured_peers=tuple(peer for peer in found if peer.preshared_key is not None),
        routes=tuple(
            RoutePlan(destination=prefix, table=draw(st.just(table or 254) | _NUMBER), metric=metric)
            for prefix in draw(st.lists(_ANY_PREFIX, unique=True, max_size=4))
        ),
        rules=tuple(draw(st.lists(rules(), max_size=4))),
        dns=draw(
            st.none()
            | st.builds(
                DnsPlan,
                servers=st.lists(_V4 | _V6, unique=True, min_size=1, max_size=3).map(tuple),
                search=st.lists(_NAME.map(lambda name: f"~{name}.example"), max_size=2).map(tuple),
                reverse=st.just(()) | st.just(("10.in-addr.arpa",)),
                everything=st.booleans(),
            )
        ),
        autoconnect=draw(st.booleans()),
    )
    shared = {peer.public_key: PresharedKey.generate() for peer in found if draw(st.booleans())}
    return plan, InterfaceSecrets(private_key=draw(st.just(PRIVATE) | st.none()), preshared_keys=shared)


def read_back(groups: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Read a keyfile as nm-settings-keyfile(5) has it into what D-Bus would say, without types."""
    settings: dict[str, dict[str, Any]] = {}
    peers_found: list[dict[str, Any]] = []
    for name, group in groups.items():
        if name.startswith("wireguard-peer."):
            peers_found.append(_peer_back(name, group))
            continue
        found = settings[name] = {}
        for key, text in group.items():
            if key in ("permissions", "dns-search"):
                found[key] = text.split(";")[:-1]
            elif key == "dns":
                found[key] = [_server_back(word) for word in text.split(";")[:-1]]
            elif key.startswith("address"):
                address, _, length = text.partition("/")
                found.setdefault("address-data", []).append({"address": address, "prefix": int(length)})
            elif re.fullmatch(r"route\d+", key):
                destination, _, metric = text.split(",")
                address, _, length = destination.partition("/")
                route = {"dest": address, "prefix": int(length), "metric": int(metric)}
                found.setdefault("route-data", []).append(route)
            elif re.fullmatch(r"route\d+_options", key):
                found["route-data"][-1]["table"] = int(text.removeprefix("table="))
            elif key.startswith("routing-rule"):
                found.setdefault("routing-rules", []).append(dict(_rule_back(name, text.split())))
            elif key == "addr-gen-mode":
                found[key] = ["eui64", "stable-privacy"].index(text)
            elif text in ("true", "false"):
                found[key] = text == "true"
            else:
                found[key] = int(text) if re.fullmatch(r"-?\d+", text) and key != "id" else text
    if peers_found:
        settings["wireguard"]["peers"] = peers_found
    return settings


def _peer_back(name: str, group: dict[str, str]) -> dict[str, Any]:
    peer: dict[str, Any] = {"public-key": name.removeprefix("wireguard-peer."), **group}
    for key in ("preshared-key-flags", "persistent-keepalive"):
        if key in peer:
            peer[key] = int(peer[key])
    if "allowed-ips" in peer:
        peer["allowed-ips"] = peer["allowed-ips"].split(";")[:-1]
    return peer


def _server_back(text: str) -> int | list[int]:
    address = ipaddress.ip_address(text)
    return int.from_bytes(address.packed, sys.byteorder) if address.version == 4 else list(address.packed)


def _rule_back(group: str, words: list[str]) -> Iterator[tuple[str, Any]]:
    yield "family", {"ipv4": 2, "ipv6": 10}[group]
    queue = iter(words)
    for word in queue:
        if word == "not":
            yield "invert", True
            continue
        value = next(queue)
        if word in ("from", "to"):
            prefix = ipaddress.ip_network(value)
            if prefix.prefixlen:
                yield word, str(prefix.network_address)
                yield f"{word}-len", prefix.prefixlen
        elif word == "fwmark":
            yield "fwmark", int(value, 16)
            yield "fwmask", 0xFFFFFFFF
        elif word == "type":
            assert value == "prohibit"
            yield "action", 8
        elif word == "iif":
            yield "iifname", value
        else:
            yield {"suppress_prefixlength": "suppress-prefixlength"}.get(word, word), int(value)


@given(plans())
def test_keyfile_and_dbus_settings_say_the_same(drawn: tuple[InterfacePlan, InterfaceSecrets]) -> None:
    plan, secrets = drawn
    _, groups, _ = render(plan, secrets)
    assert read_back(groups) == plain(to_dbus(describe(plan, secrets)))


@given(plans())
def test_types_are_those_of_networkmanager(drawn: tuple[InterfacePlan, InterfaceSecrets]) -> None:
    for name, properties in to_dbus(describe(*drawn)).items():
        for key, (signature, value) in properties.items():
            _assert_type(signature, value, f"{name}.{key}")


#: nm-settings-dbus(5); in `peers` NetworkManager ignores what has another type.
_INNER = {
    **dict.fromkeys(("address", "dest", "from", "to", "iifname", "public-key", "endpoint", "preshared-key"), "s"),
    **dict.fromkeys(("prefix", "metric", "table", "priority", "fwmark", "fwmask"), "u"),
    **dict.fromkeys(("preshared-key-flags", "persistent-keepalive"), "u"),
    **dict.fromkeys(("from-len", "to-len", "action"), "y"),
    **dict.fromkeys(("family", "suppress-prefixlength"), "i"),
    "invert": "b",
    "allowed-ips": "as",
}
_RANGE = {"y": (0, 255), "i": (-(2**31), 2**31 - 1), "u": (0, 2**32 - 1), "x": (-(2**63), 2**63 - 1)}


def _assert_type(signature: str, value: object, where: str) -> None:
    if signature == "aa{sv}":
        assert isinstance(value, list)
        for item in value:
            for key, (inner, content) in item.items():
                assert inner == _INNER[key], f"{where}.{key}"
                _assert_type(inner, content, f"{where}.{key}")
    elif signature == "aay":
        assert isinstance(value, list)
        assert all(isinstance(item, bytes) and len(item) == 16 for item in value), where
    elif signature.startswith("a"):
        assert isinstance(value, list)
        for item in value:
            _assert_type(signature[1:], item, where)
    elif signature in _RANGE:
        assert type(value) is int, where
        assert _RANGE[signature][0] <= value <= _RANGE[signature][1], where
    else:
        assert type(value) is {"s": str, "b": bool}[signature], where


@given(plans())
def test_all_secrets_go_over_dbus_or_none(drawn: tuple[InterfacePlan, InterfaceSecrets]) -> None:
    plan, secrets = drawn
    kept = repr(to_dbus(describe(plan, secrets), secrets=False))
    for secret in (PRIVATE, *secrets.preshared_keys.values()):
        assert secret.reveal() not in kept
    without = to_dbus(describe(plan, secrets), secrets=False)
    assert describe(plan, secrets).has_secrets is (without != to_dbus(describe(plan, secrets)))
