"""systemd-networkd's files: what stands in them, and what the real networkd of several versions makes of them."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from realparsers import audit_netdev, available, install, run_networkd, too_new
from realparsers.networkd import sections

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostic, Diagnostics
from wgnet.diagnostics.words import MAX_NAMED
from wgnet.keys.types import PresharedKey
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.networkd import OLDEST, PREFIXES_IN_LINE, Networkd
from wgnet.managers.templates import Templates
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.plan.types import Action, InterfacePlan, PolicyRulePlan
from wgnet.record import replace
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification


def public(name: str) -> str:
    """Return a public key for a name, the same in each run."""
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def preshared(name: str) -> PresharedKey:
    return PresharedKey(hashlib.sha256(b"preshared" + name.encode()).digest())


# A host's key is written KEY:NAME.
HUB = """
wgnet: 1
network:
  name: office
  interface: wg0
  subnets: [10.80.0.0/24, "fd42:80::/64"]
  preshared-keys: true
  dns: {servers: [10.80.0.9, "fd42:80::9"], search: [corp.example.com, ~lab.example.com]}
peering: {hub: fra, isolate: true}
hosts:
  fra:
    description: 100% of the hub \\
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: KEY:fra
    next-public-key: KEY:fra-next
    endpoint: fra.example.net.
    advertise: [0.0.0.0/0, "::/0", 192.168.10.0/24]
  nyc:
    addresses: [10.80.0.2, "fd42:80::2"]
    public-key: KEY:nyc
    exit-node: fra
    bypass: [192.0.2.0/24, "2001:db8:1::/48"]
  sgp:
    addresses: [10.80.0.3]
    public-key: KEY:sgp
    table: 77
    autoconnect: false
    mtu: 1300
    endpoint: 192.0.2.3
    keepalive: 15
  old:
    addresses: [10.80.0.4, "fd42:80::4"]
    public-key: KEY:old
    table: off
    manager-version: 250.1
    listen-port: auto
"""
LINKS = """
wgnet: 1
network:
  name: links
  interface: w-0.=+
  subnets: [10.90.0.0/20, "fd42:90::/64"]
  dns: {servers: [10.90.0.9]}
peering:
  - {link: [a, b], preshared-key: {file: /etc/wgnet/a-b.psk}, endpoint: {b: "[2001:db8::b]:4000"}}
  - {link: [a, c], preshared-key: false, keepalive: 0}
hosts:
  a:
    addresses: [10.90.0.1/32, "fd42:90::1/128"]
    public-key: KEY:a
    endpoint: "[2001:db8::a]"
    forward: true
    firewall-mark: 0x10
  b: {addresses: [10.90.0.2, "fd42:90::2"], public-key: KEY:b, private-key: {file: /etc/wgnet/own.key}, metric: 55}
  c: {addresses: [10.90.0.3, "fd42:90::3"], public-key: KEY:c}
"""
TWO = """
wgnet: 1
network: {name: two, interface: wg1, subnets: [10.99.0.0/24], listen-port: 51821}
peering:
  - {link: [exit, nyc]}
hosts:
  exit: {addresses: [10.99.0.1], public-key: KEY:exit, endpoint: exit.example.net, advertise: [0.0.0.0/0]}
  nyc: {addresses: [10.99.0.2], public-key: KEY:nyc, exit-node: exit, firewall-mark: 51999}
"""
MIXED = """
wgnet: 1
network: {name: mixed, interface: wg0, subnets: [10.60.0.0/24]}
peering:
  - {hub: h, spokes: [s1, s2], isolate: true}
  - {link: [h, srv]}
hosts:
  h: {addresses: [10.60.0.1], public-key: KEY:h, endpoint: h.example.net}
  s1: {addresses: [10.60.0.2], public-key: KEY:s1}
  s2: {addresses: [10.60.0.3], public-key: KEY:s2}
  srv: {addresses: [10.60.0.9], public-key: KEY:srv}
"""
ANY = """
wgnet: 1
network: {name: babel, interface: babel0, subnets: [10.70.0.0/30]}
peering:
  - {link: [x, y], allowed-ips: any}
hosts:
  x: {addresses: [10.70.0.1], public-key: KEY:x, endpoint: x.example.net}
  y: {addresses: [10.70.0.2], public-key: KEY:y}
"""


def fleet(*texts: str) -> Fleet:
    diagnostics = Diagnostics()
    routings = []
    for number, text in enumerate(texts):
        text = re.sub(r"KEY:([\w-]+)", lambda match: public(match[1]), text)
        spec = parse_specification(text.encode(), f"{number}.yaml", diagnostics)
        assert spec is not None, list(diagnostics)
        topology = resolve_topology(spec, diagnostics)
        routings.append(Routing.of(topology))
    assert not diagnostics.has_errors, list(diagnostics)
    return Fleet(tuple(routings))


def plan(host: str, *texts: str, network: int = 0) -> InterfacePlan:
    return fleet(*texts).plan_host(host).interfaces[network]


def keys(of: InterfacePlan) -> InterfaceSecrets:
    """Return preshared keys for all peers, and for those that they rotate to."""
    names = [key for peer in of.peers for key in (peer.public_key, peer.next_public_key) if key]
    return InterfaceSecrets(preshared_keys={name: preshared(name) for name in names})


def render(of: InterfacePlan, secrets: InterfaceSecrets | None = None) -> tuple[Artifact, Artifact]:
    diagnostics = Diagnostics()
    netdev, network = Networkd(Templates()).render(of, keys(of) if secrets is None else secrets, diagnostics)
    assert list(diagnostics) == []
    return netdev, network


def check(of: InterfacePlan) -> list[Diagnostic]:
    diagnostics = Diagnostics()
    Networkd(Templates()).check(of, diagnostics)
    return list(diagnostics)


def section(artifact: Artifact, name: str) -> list[dict[str, str]]:
    return [dict(pairs) for found, pairs in sections(artifact.content.decode()) if found == name]


# --- the files


def test_netdev_as_a_whole() -> None:
    netdev, _ = render(plan("nyc", HUB))
    assert (
        netdev.content.decode()
        == f"""\
# Written by wgnet from the network 'office' for the host 'nyc'. Changes are lost at the next render; edit the topology.

[NetDev]
Name=wg0
Kind=wireguard

[WireGuard]
PrivateKeyFile=/etc/wgnet/office.key
ListenPort=51820
FirewallMark=51820

[WireGuardPeer]
# fra
PublicKey={public("fra")}
PresharedKey={preshared(public("fra")).reveal()}
AllowedIPs=0.0.0.0/0, 10.80.0.1/32, 192.168.10.0/24, ::/0, fd42:80::1/128
Endpoint=fra.example.net.:51820
PersistentKeepalive=25

[WireGuardPeer]
# fra
PublicKey={public("fra-next")}
PresharedKey={preshared(public("fra-next")).reveal()}
Endpoint=fra.example.net.:51820
PersistentKeepalive=25
"""
    )


def test_network_as_a_whole() -> None:
    _, network = render(plan("nyc", HUB))
    assert (
        network.content.decode()
        == """\
# Written by wgnet from the network 'office' for the host 'nyc'. Changes are lost at the next render; edit the topology.

[Match]
Name=wg0

[Link]
RequiredForOnline=no

[Network]
DHCP=no
IPv6AcceptRA=no
LinkLocalAddressing=no
DNS=10.80.0.9
DNS=fd42:80::9
Domains=~. corp.example.com ~lab.example.com
DNSDefaultRoute=yes

[Address]
Address=10.80.0.2/24
RouteMetric=2000

[Address]
Address=fd42:80::2/64
RouteMetric=2000

[Route]
Destination=192.168.10.0/24
Metric=2000

[Route]
Destination=0.0.0.0/0
Table=51820
Metric=2000

[Route]
Destination=::/0
Table=51820
Metric=2000

[RoutingPolicyRule]
To=192.0.2.0/24
Table=254
Priority=32763

[RoutingPolicyRule]
Family=ipv4
SuppressPrefixLength=0
Table=254
Priority=32764

[RoutingPolicyRule]
Family=ipv4
FirewallMark=51820
InvertRule=yes
Table=51820
Priority=32765

[RoutingPolicyRule]
To=2001:db8:1::/48
Table=254
Priority=32763

[RoutingPolicyRule]
Family=ipv6
SuppressPrefixLength=0
Table=254
Priority=32764

[RoutingPolicyRule]
Family=ipv6
FirewallMark=51820
InvertRule=yes
Table=51820
Priority=32765
"""
    )


def test_paths_modes_and_owners() -> None:
    netdev, network = render(plan("nyc", HUB))
    assert netdev == replace(
        netdev, path="/etc/systemd/network/50-wgnet-wg0.netdev", mode=0o640, owner="root", group="systemd-network"
    )
    assert network == replace(
        network, path="/etc/systemd/network/50-wgnet-wg0.network", mode=0o644, owner="root", group="root", secret=False
    )
    assert netdev.network == network.network == "office"
    of = plan("nyc", HUB)
    runtime = Networkd(Templates(), "/run").render(of, keys(of), Diagnostics())
    assert [file.path for file in runtime] == [
        "/run/systemd/network/50-wgnet-wg0.netdev",
        "/run/systemd/network/50-wgnet-wg0.network",
    ]
    assert b"PrivateKeyFile=/etc/wgnet/office.key\n" in runtime[0].content


def test_netdev_is_secret_only_with_a_preshared_key_in_it() -> None:
    assert render(plan("nyc", HUB))[0].secret
    assert not render(plan("b", LINKS))[0].secret


def test_netdev_of_a_plain_host_leaves_out_what_is_off() -> None:
    of = plan("c", LINKS)
    (netdev,) = section(render(of)[0], "WireGuard")
    assert netdev == {"PrivateKeyFile": "/etc/wgnet/links.key", "ListenPort": "51820"}
    (peer,) = section(render(of)[0], "WireGuardPeer")
    assert peer == {
        "PublicKey": public("a"),
        "AllowedIPs": "10.90.0.0/20, fd42:90::/64",
        "Endpoint": "[2001:db8::a]:51820",
    }
    assert "ListenPort" not in section(render(plan("old", HUB))[0], "WireGuard")[0]


def test_description_of_the_host_is_the_link_s() -> None:
    netdev, _ = render(plan("fra", HUB))
    assert b"\nDescription=100% of the hub \\ \n" in netdev.content


def test_first_endpoint_alone_is_configured() -> None:
    text = LINKS.replace('endpoint: "[2001:db8::a]"', 'endpoint: [one.example.net, "two.example.net:9"]')
    (peer,) = section(render(plan("c", text))[0], "WireGuardPeer")
    assert peer["Endpoint"] == "one.example.net:51820"


def test_long_list_of_prefixes_is_split_over_lines() -> None:
    prefixes = [f"10.{high}.{low}.0/24" for high in range(100, 110) for low in range(100)]
    text = LINKS.replace("forward: true", f"forward: true\n    advertise: [{', '.join(prefixes)}]")
    netdev, _ = render(plan("c", text))
    lines = [line for line in netdev.content.decode().splitlines() if line.startswith("AllowedIPs=")]
    found = [word for line in lines for word in line.removeprefix("AllowedIPs=").split(", ")]
    assert sorted(found) == sorted([*prefixes, "10.90.0.0/20", "fd42:90::/64"])
    assert len(lines) == -(-len(found) // PREFIXES_IN_LINE)


def test_routes_need_no_key_of_systemd_250_unless_250_makes_its_own() -> None:
    assert section(render(plan("old", HUB))[0], "WireGuard")[0]["RouteTable"] == "off"
    for version in ("251", "257.13"):
        netdev, _ = render(plan("old", HUB.replace("250.1", version)))
        assert b"RouteTable" not in netdev.content


def test_link_is_up_by_itself_unless_told_otherwise() -> None:
    assert section(render(plan("sgp", HUB))[1], "Link") == [
        {"MTUBytes": "1300", "RequiredForOnline": "no", "ActivationPolicy": "manual"}
    ]
    assert section(render(plan("fra", HUB))[1], "Link") == [{"RequiredForOnline": "no"}]


def test_prefix_route_has_the_metric_or_is_not_made() -> None:
    def addresses(host: str, text: str) -> list[dict[str, str]]:
        return section(render(plan(host, text))[1], "Address")

    assert addresses("b", LINKS)[0] == {"Address": "10.90.0.2/20", "RouteMetric": "55"}
    assert addresses("a", LINKS) == [{"Address": "10.90.0.1/32"}, {"Address": "fd42:90::1/128"}]
    assert addresses("old", HUB)[0] == {"Address": "10.80.0.4/24", "AddPrefixRoute": "no"}
    _, sgp = render(plan("sgp", HUB))
    assert section(sgp, "Address") == [{"Address": "10.80.0.3/24", "AddPrefixRoute": "no"}]
    assert {"Destination": "10.80.0.0/24", "Table": "77", "Metric": "2000"} in section(sgp, "Route")


def test_dns_for_some_names() -> None:
    (network,) = section(render(plan("sgp", HUB))[1], "Network")
    assert network["Domains"] == "corp.example.com ~lab.example.com"
    assert network["DNSDefaultRoute"] == "no"
    (network,) = section(render(plan("c", LINKS))[1], "Network")
    assert network["Domains"].split()[:2] == ["~0.90.10.in-addr.arpa", "~1.90.10.in-addr.arpa"]
    assert network["DNSDefaultRoute"] == "no"
    (network,) = section(render(plan("x", ANY))[1], "Network")
    assert network == {"DHCP": "no", "IPv6AcceptRA": "no", "LinkLocalAddressing": "no"}


def test_isolation_refuses_what_comes_from_the_tunnel() -> None:
    assert section(render(plan("fra", HUB))[1], "RoutingPolicyRule")[0] == {
        "To": "10.80.0.2/31",
        "IncomingInterface": "wg0",
        "Type": "prohibit",
        "Priority": "32601",
    }


def test_rule_for_all_addresses_names_its_family() -> None:
    of = plan("x", ANY)
    everything = IPv6Network("::/0")
    rule = PolicyRulePlan(version=6, priority=7, source=everything, destination=everything, action=Action.PROHIBIT)
    assert section(render(replace(of, rules=(rule,)))[1], "RoutingPolicyRule") == [
        {"Family": "ipv6", "Type": "prohibit", "Priority": "7"}
    ]


# --- secrets


def test_private_key_from_a_credential() -> None:
    text = LINKS.replace("{file: /etc/wgnet/own.key}", "{credential: wg.b}, manager-version: 256")
    assert check(plan("b", text)) == []
    assert section(render(plan("b", text))[0], "WireGuard")[0]["PrivateKey"] == "@wg.b"


def test_preshared_key_from_a_file_or_a_credential() -> None:
    assert section(render(plan("b", LINKS))[0], "WireGuardPeer")[0]["PresharedKeyFile"] == "/etc/wgnet/a-b.psk"
    text = LINKS.replace("{file: /etc/wgnet/a-b.psk}", "{credential: a-b}")
    assert section(render(plan("b", text))[0], "WireGuardPeer")[0]["PresharedKey"] == "@a-b"


def absent(of: InterfacePlan, at_hand: Mapping[str, PresharedKey]) -> tuple[Artifact, list[Diagnostic]]:
    diagnostics = Diagnostics()
    netdev, _ = Networkd(Templates()).render(of, InterfaceSecrets(preshared_keys=at_hand), diagnostics)
    return netdev, list(diagnostics)


def test_absent_preshared_keys_are_left_out_and_told() -> None:
    of = plan("fra", HUB)
    netdev, (warning,) = absent(of, {public("sgp"): preshared("sgp")})
    assert warning.code is codes.PRESHARED_KEY_ABSENT
    assert "of 'fra' is written without the preshared keys of 'nyc' and 'old'" in warning.message
    assert warning.primary is not None and warning.primary.span == of.host.span
    assert "--keys" in warning.help[0]
    assert preshared("sgp").reveal() not in repr(warning)
    assert [peer.get("PresharedKey") for peer in section(netdev, "WireGuardPeer")] == [
        None,
        preshared("sgp").reveal(),
        None,
    ]
    assert netdev.secret
    # The key that a peer rotates to has a preshared key of its own.
    netdev, (warning,) = absent(plan("sgp", HUB), {public("fra"): preshared("fra")})
    assert "preshared keys of 'fra'" in warning.message
    assert ["PresharedKey" in peer for peer in section(netdev, "WireGuardPeer")] == [True, False]
    assert not absent(plan("sgp", HUB), {})[0].secret


def test_many_absent_preshared_keys_are_counted() -> None:
    spokes = "".join(f"  s{n}: {{addresses: [10.80.0.{n}], public-key: KEY:s{n}}}\n" for n in range(10, 22))
    _, (warning,) = absent(plan("fra", HUB + spokes), {})
    names = ["nyc", "sgp", "old", *(f"s{n}" for n in range(10, 22))]
    assert [name for name in names if f"'{name}'" in warning.message] == names[:MAX_NAMED]
    assert warning.message.endswith(f" and {len(names) - MAX_NAMED} more")


def test_no_secret_outlives_its_host() -> None:
    """The layouts that hosts share hold no preshared key."""
    networkd = Networkd(Templates())
    for host in ("nyc", "sgp", "old"):
        of = plan(host, HUB)
        other = InterfaceSecrets(preshared_keys={public("fra"): preshared(host), public("fra-next"): preshared(host)})
        netdev, _ = networkd.render(of, other, Diagnostics())
        assert {peer["PresharedKey"] for peer in section(netdev, "WireGuardPeer")} == {preshared(host).reveal()}
    assert b"PresharedKey" not in networkd.render(plan("nyc", HUB), InterfaceSecrets(), Diagnostics())[0].content


# --- many hosts


class Counting(Templates):
    """Templates that count what they lay out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def render(self, name: str, /, **values: object) -> str:
        self.counts[name] = self.counts.get(name, 0) + 1
        return super().render(name, **values)


@pytest.mark.parametrize("preshared_keys", ["false", "true"])
def test_peers_that_hosts_share_are_laid_out_once(preshared_keys: str) -> None:
    hosts = "".join(
        f"  h{n}: {{addresses: [10.80.1.{n}], public-key: KEY:h{n}, endpoint: h{n}.example.net}}\n"
        for n in range(1, 31)
    )
    mesh = f"wgnet: 1\nnetwork: {{name: m, subnets: [10.80.1.0/24], preshared-keys: {preshared_keys}}}\nhosts:\n{hosts}"
    whole = fleet(mesh)
    templates = Counting()
    networkd = Networkd(templates)
    for name in whole.host_names():
        (of,) = whole.plan_host(name).interfaces
        netdev, network = networkd.render(of, keys(of), Diagnostics())
        assert (netdev, network) == render(of)
        assert len(section(netdev, "WireGuardPeer")) == 29
    assert templates.counts == {"networkd/peer.j2": 30, "networkd/netdev.j2": 30, "networkd/network.j2": 30}


# --- what networkd cannot express


def test_nothing_to_report() -> None:
    for text in (HUB, LINKS, TWO, ANY, MIXED):
        for host in fleet(text).host_names():
            assert check(plan(host, text)) == []


@pytest.mark.parametrize(
    ("text", "code", "said", "place"),
    [
        ("permissions: [alice]", codes.MANAGER_CANNOT, "networkd cannot express 'permissions'", "permissions"),
        ("zone: trusted", codes.MANAGER_CANNOT, "networkd cannot express 'zone'", "zone"),
        ("private-key: {agent: true}", codes.MANAGER_CANNOT, "cannot ask an agent for the private key", "private-key"),
        ("private-key: {credential: c}", codes.VERSION_CANNOT, "since version 256, found an unknown", "private-key"),
        (
            "private-key: {credential: c}, manager-version: 255",
            codes.VERSION_CANNOT,
            "since version 256, found version 255",
            "private-key",
        ),
        ("private-key: {file: /root/w.key}", codes.MANAGER_CANNOT, "the private key from '/root/w.key'", "private-key"),
        ("manager-version: 248", codes.VERSION_CANNOT, f"systemd {OLDEST} or later, found '248'", "manager-version"),
    ],
)
def test_check_reports_at_the_place(text: str, code: codes.Code, said: str, place: str) -> None:
    of = plan("c", LINKS.replace("public-key: KEY:c", f"public-key: KEY:c, {text}"))
    (found,) = check(of)
    assert found.code is code
    assert said in found.message
    assert found.help
    assert found.primary is not None and found.primary.span == of.host.nodes[place].span


@pytest.mark.parametrize("text", ["permissions: [alice]", "zone: trusted", "manager-version: 1.42"])
def test_check_lets_pass_what_a_group_has_for_other_managers(text: str) -> None:
    assert check(plan("c", LINKS + f"defaults: {{all: {{{text}}}}}\n")) == []


def test_check_reports_an_agent_that_a_group_has() -> None:
    (found,) = check(plan("c", LINKS + "defaults: {all: {private-key: {agent: true}}}\n"))
    assert found.code is codes.MANAGER_CANNOT


@pytest.mark.parametrize(
    ("source", "code"),
    [("{credential: a-b}", codes.VERSION_CANNOT), ("{file: /home/a/b.psk}", codes.MANAGER_CANNOT)],
)
def test_check_reports_a_preshared_key_out_of_reach(source: str, code: codes.Code) -> None:
    (found,) = check(plan("b", LINKS.replace("{file: /etc/wgnet/a-b.psk}", source)))
    assert found.code is code
    assert "the preshared key of 'a'" in found.message


# --- the real networkd

CASES = [
    ("fra", (HUB,)),
    ("nyc", (HUB, TWO)),
    ("sgp", (HUB,)),
    ("a", (LINKS,)),
    ("b", (LINKS,)),
    ("x", (ANY,)),
    ("h", (MIXED,)),
]
UP = ("sgp", (HUB.replace("autoconnect: false", "autoconnect: true"),))


@functools.cache
def case(host: str, texts: tuple[str, ...]) -> tuple[InterfacePlan, ...]:
    return fleet(*texts).plan_host(host).interfaces


def tree(folder: Path, plans: tuple[InterfacePlan, ...]) -> Path:
    files = [file for of in plans for file in render(of)]
    sources = {of.private_key.name for of in plans} | {"/etc/wgnet/a-b.psk"}
    files += [
        Artifact(path=path, network="", content=preshared(path).reveal().encode(), mode=0o640, group="systemd-network")
        for path in sorted(sources)
    ]
    return install(files, folder)


@pytest.mark.parametrize("version", available())
@pytest.mark.parametrize(("host", "texts"), [*CASES, UP], ids=[*(host for host, _ in CASES), "sgp-up"])
def test_networkd_does_what_the_plan_says(tmp_path: Path, version: str, host: str, texts: tuple[str, ...]) -> None:
    plans = case(host, texts)
    done = run_networkd(tree(tmp_path, plans), version=version)
    assert done.messages == ()
    names = {of.interface for of in plans}
    # A link that waits for `networkctl up` gets its addresses and routes with that.
    up = [of for of in plans if of.autoconnect]
    have = {(a["ifname"], f"{info['local']}/{info['prefixlen']}") for a in done.addresses for info in a["addr_info"]}
    assert {entry for entry in have if entry[0] in names} == {
        (of.interface, str(address.address)) for of in up for address in of.addresses
    }
    routes = {
        (r["dev"], "default" if r["dst"] == "default" else r["dst"], str(r.get("table", "main")), r.get("metric", 0))
        for r in done.routes
        if r.get("dev") in names and r.get("protocol") == "static"
    }
    assert routes == {
        (
            of.interface,
            str(route.destination).removesuffix("/32").removesuffix("/128")
            if route.destination.prefixlen
            else "default",
            "main" if route.table == 254 else str(route.table),
            route.metric,
        )
        for of in up
        for route in of.routes
    }
    prefix_routes = {
        (r["dev"], r["dst"], r["metric"])
        for r in done.routes
        if r.get("dev") in names and r.get("protocol") == "kernel" and r.get("type", "unicast") == "unicast"
        if "/" in r["dst"] and not r["dst"].startswith("fe80")
    }
    assert prefix_routes == {
        (of.interface, str(address.address.network), of.metric)
        for of in up
        for address in of.addresses
        if address.prefix_route and address.address.network.prefixlen < address.address.max_prefixlen
    }
    rules = [
        rule for rule in done.rules if rule.get("protocol") == "static" or rule["priority"] not in (0, 32766, 32767)
    ]
    assert len(rules) == len({rule for of in plans for rule in of.rules})
    assert sorted(rule["priority"] for rule in rules) == sorted(rule.priority for of in plans for rule in of.rules)


@pytest.mark.parametrize("version", available())
def test_mtu_too_small_for_ipv6_is_kept(tmp_path: Path, version: str) -> None:
    """The kernel then takes IPv6 from the link, whatever is written; what networkd says is about that alone."""
    plans = (plan("sgp", HUB.replace("mtu: 1300", "mtu: 1000")),)
    said = run_networkd(tree(tmp_path, plans), version=version).messages
    assert all("IPv6" in message and "requested MTU" not in message for message in said), said


@pytest.mark.parametrize(("host", "texts"), [*CASES, ("old", (HUB,))], ids=[*(host for host, _ in CASES), "old"])
def test_every_version_knows_all_keys(tmp_path: Path, host: str, texts: tuple[str, ...]) -> None:
    root = tree(tmp_path, case(host, texts))
    assert too_new(root, networkd=250 if host == "old" else OLDEST) == []
    assert too_new(root, networkd=262) == []
    for path in sorted(root.glob("etc/systemd/network/*.netdev")):
        assert audit_netdev(path) == []


def test_cases_hold_every_key_that_is_ever_written() -> None:
    """What the real networkd is shown above is all that there is; `RouteTable=` and credentials have their own."""
    have = {
        (name, key)
        for host, texts in CASES
        for of in case(host, texts)
        for file in render(of)
        for name, pairs in sections(file.content.decode())
        for key, _ in pairs
    }
    written = {
        "NetDev": "Name Kind Description",
        "WireGuard": "PrivateKeyFile ListenPort FirewallMark",
        "WireGuardPeer": "PublicKey PresharedKey PresharedKeyFile AllowedIPs Endpoint PersistentKeepalive",
        "Match": "Name",
        "Link": "MTUBytes RequiredForOnline ActivationPolicy",
        "Network": "DHCP IPv6AcceptRA LinkLocalAddressing DNS Domains DNSDefaultRoute",
        "Address": "Address RouteMetric AddPrefixRoute",
        "Route": "Destination Table Metric",
        "RoutingPolicyRule": "Family From To IncomingInterface FirewallMark InvertRule SuppressPrefixLength Type Table "
        "Priority",
    }
    assert have == {(name, key) for name, words in written.items() for key in words.split()}
