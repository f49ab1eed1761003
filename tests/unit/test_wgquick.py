"""wg-quick's file: what is written, what wg-quick and wg(8) make of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from realparsers import available, install, lint_wg_quick

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.templates import Templates
from wgnet.managers.wgquick import WgQuick
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.record import replace
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.spec import SecretSource

FRA = "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
PHONE = "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
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
DEFAULTS
peering: {{hub: fra}}
hosts:
  fra:
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: "{FRA}"
    next-public-key: "{NEXT}"
    endpoint: ["[2001:db8::1]:4500", fra.example.net]
    advertise: [192.168.10.0/24, 0.0.0.0/0, "::/0"]
  phone:
    manager: wg-quick
    addresses: [10.80.0.2, "fd42:80::2"]
    public-key: "{PHONE}"
    HERE: 0
"""
DNS = "dns: {servers: [10.80.0.1, 'fd42:80::1'], search: [corp.example.com, ~lab.example.com]}"


def plan_with(*lines: str, defaults: str = "", changes: tuple[tuple[str, str], ...] = ()) -> InterfacePlan:
    """Return the plan of `phone` with further keys of its own."""
    text = TOPOLOGY.replace("    HERE: 0\n", "".join(f"    {line}\n" for line in lines))
    text = text.replace("DEFAULTS\n", f"defaults: {{all: {{{defaults}}}}}\n" if defaults else "")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    diagnostics = Diagnostics()
    specification = parse_specification(text.encode(), "office.yaml", diagnostics)
    assert specification is not None
    topology = resolve_topology(specification, diagnostics)
    assert not diagnostics.has_errors, [d.message for d in diagnostics]
    return Fleet((Routing.of(topology),)).plan_host("phone").interfaces[0]


def render(
    plan: InterfacePlan, secrets: InterfaceSecrets = KEYS, base: str = "/etc"
) -> tuple[Artifact, list[dict[str, str]], Diagnostics]:
    """Return the file, its sections ([Interface] first), and what was reported."""
    diagnostics = Diagnostics()
    (artifact,) = WgQuick(Templates(), base).render(plan, secrets, diagnostics)
    sections: list[dict[str, str]] = []
    for line in artifact.content.decode().splitlines():
        if line.startswith("["):
            assert line == ("[Peer]" if sections else "[Interface]")
            sections.append({})
        elif line and not line.startswith("#"):
            key, sign, value = line.partition(" = ")
            assert sign and key not in sections[-1], line
            sections[-1][key] = value
    return artifact, sections, diagnostics


def check(plan: InterfacePlan) -> Diagnostics:
    diagnostics = Diagnostics()
    WgQuick(Templates()).check(plan, diagnostics)
    return diagnostics


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_whole_file_of_a_phone() -> None:
    artifact, _, diagnostics = render(plan_with("mtu: 1380", "keepalive: 25"))
    assert (artifact.path, artifact.mode, artifact.owner, artifact.group, artifact.secret) == (
        "/etc/wireguard/wg0.conf",
        0o600,
        "root",
        "root",
        True,
    )
    assert len(diagnostics) == 0
    header = "Written by wgnet from the network 'office' for the host 'phone'."
    assert (
        artifact.content.decode()
        == f"""\
# {header} Changes are lost at the next render; edit the topology.

[Interface]
PrivateKey = {PRIVATE.reveal()}
ListenPort = 51820
Address = 10.80.0.2/24, fd42:80::2/64
MTU = 1380

# fra
[Peer]
PublicKey = {FRA}
PresharedKey = {PRESHARED.reveal()}
AllowedIPs = 10.80.0.0/24, 192.168.10.0/24, fd42:80::/64
Endpoint = [2001:db8::1]:4500
PersistentKeepalive = 25

# fra
[Peer]
PublicKey = {NEXT}
PresharedKey = {NEXT_PRESHARED.reveal()}
Endpoint = [2001:db8::1]:4500
PersistentKeepalive = 25
"""
    )


def test_a_runtime_file_lies_below_run() -> None:
    assert render(plan_with(), base="/run")[0].path == "/run/wireguard/wg0.conf"


def test_a_port_that_the_kernel_chooses_is_left_out() -> None:
    _, (interface, *_), _ = render(plan_with("listen-port: auto"))
    assert "ListenPort" not in interface


def test_an_exit_node_is_wg_quicks_own_business() -> None:
    _, (interface, peer, _), _ = render(plan_with("exit-node: fra", DNS))
    assert peer["AllowedIPs"] == "0.0.0.0/0, 10.80.0.0/24, 192.168.10.0/24, ::/0, fd42:80::/64"
    # Two networks on one host would else have one mark.
    assert not {"FwMark", "Table"} & interface.keys()
    assert interface["DNS"] == "10.80.0.1, fd42:80::1, corp.example.com"
    assert len(check(plan_with("exit-node: fra", DNS))) == 0


def test_a_firewall_mark_that_was_asked_for_is_written() -> None:
    _, (interface, *_), _ = render(plan_with("exit-node: fra", "firewall-mark: 0xcafe"))
    assert interface["FwMark"] == "51966"


@pytest.mark.parametrize(("table", "written"), [("off", "off"), ("100", "100")])
def test_outside_of_main_addresses_bring_no_routes(table: str, written: str) -> None:
    plan = plan_with(f"table: {table}")
    _, (interface, *_), _ = render(plan)
    assert interface["Table"] == written
    assert interface["Address"] == "10.80.0.2/32, fd42:80::2/128"
    assert len(check(plan)) == 0


def test_any_allowed_ips_make_no_routes() -> None:
    link = "peering: [{link: [fra, phone], allowed-ips: any}]"
    plan = plan_with(changes=(("peering: {hub: fra}", link),))
    _, (interface, peer, *_), _ = render(plan)
    assert interface["Table"] == "off"
    assert interface["Address"] == "10.80.0.2/24, fd42:80::2/64"
    assert peer["AllowedIPs"] == "0.0.0.0/0, ::/0"
    assert len(check(plan)) == 0
    (found,) = check(plan_with("table: 100", changes=(("peering: {hub: fra}", link),)))
    assert found.code is codes.MANAGER_CANNOT


def test_split_dns_is_left_out_with_a_warning() -> None:
    plan = plan_with(DNS)
    _, (interface, *_), _ = render(plan)
    assert "DNS" not in interface
    (found,) = check(plan)
    assert found.code is codes.SPLIT_DNS_LEFT_OUT
    assert found.primary is not None
    assert "'phone'" in found.message
    assert len(check(plan_with("dns: {}"))) == 0


def test_all_queries_can_be_asked_for() -> None:
    plan = plan_with("dns: {servers: [10.80.0.1], search: ['~.', corp.example.com]}")
    assert render(plan)[1][0]["DNS"] == "10.80.0.1, corp.example.com"
    assert len(check(plan)) == 0


def test_servers_that_cannot_be_asked_are_left_out() -> None:
    plan = plan_with("dns: {servers: ['fd42:80::1'], search: ['~.', a.example]}", changes=((', "fd42:80::2"', ""),))
    assert "DNS" not in render(plan)[1][0]


def test_absent_secrets_are_left_out_and_told() -> None:
    artifact, sections, diagnostics = render(plan_with(), InterfaceSecrets())
    assert not any("PrivateKey" in section or "PresharedKey" in section for section in sections)
    assert artifact.secret is False
    assert [found.code for found in diagnostics] == [codes.PRIVATE_KEY_ABSENT, codes.PRESHARED_KEY_ABSENT]
    assert not diagnostics.has_errors
    assert all("'/etc/wireguard/wg0.conf'" in found.message for found in diagnostics)


def test_many_absent_preshared_keys_are_one_warning() -> None:
    plan = plan_with()
    many = tuple(replace(plan.peers[0], name=f"h{number}") for number in range(12))
    _, _, diagnostics = render(replace(plan, peers=many, secured_peers=many), InterfaceSecrets(private_key=PRIVATE))
    (found,) = diagnostics
    assert "'h0'" in found.message
    assert found.message.endswith("'h7' and 4 more")


# --- what it cannot express ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("permissions: [alice]",), "'permissions'"),
        (("zone: trusted",), "'zone'"),
        (("metric: 100",), "a metric"),
        (("private-key: {agent: true}",), "an agent"),
        (("private-key: {credential: wg.office}",), "a credential"),
        (("exit-node: fra", "bypass: [192.0.2.0/24]"), "outside of an exit node"),
        (("masquerade: true", "advertise: [10.9.0.0/16]"), "masquerade"),
        (("exit-node: fra", "table: 100"), "beside a table"),
    ],
)
def test_what_wg_quick_lacks_is_refused_where_it_was_written(lines: tuple[str, ...], named: str) -> None:
    (found,) = check(plan_with(*lines))
    assert found.code is codes.MANAGER_CANNOT
    assert named in found.message
    assert found.help
    assert found.primary is not None
    line = found.primary.span.line
    written = TOPOLOGY.replace("DEFAULTS\n", "")[: TOPOLOGY.replace("DEFAULTS\n", "").index("    HERE")].count("\n") + 1
    assert written <= line < written + len(lines)


def test_what_is_for_networkmanager_may_be_inherited() -> None:
    assert len(check(plan_with(defaults="permissions: [alice], zone: trusted"))) == 0
    # All else would be lost without a word.
    (found,) = check(plan_with(defaults="metric: 100"))
    assert found.code is codes.MANAGER_CANNOT


def test_a_preshared_key_from_a_credential_is_refused() -> None:
    plan = plan_with()
    peer = replace(plan.peers[0], preshared_key=SecretSource("credential", "psk"))
    (found,) = check(replace(plan, peers=(peer,), secured_peers=(peer,)))
    assert found.code is codes.MANAGER_CANNOT


def test_an_isolating_hub_is_refused_and_a_plain_one_is_not() -> None:
    third = f'  sgp: {{addresses: [10.80.0.3], public-key: "{SGP}"}}\n'
    hub = ("peering: {hub: fra}", "peering: {hub: phone}")
    isolating = ("peering: {hub: fra}", "peering: {hub: phone, isolate: true}")
    extra = ("hosts:\n", f"hosts:\n{third}")
    lines = ("endpoint: phone.example.net", "advertise: [10.9.0.0/16]")
    assert len(check(plan_with(*lines, changes=(hub, extra)))) == 0
    (found,) = check(plan_with(*lines, changes=(isolating, extra)))
    assert found.code is codes.MANAGER_CANNOT
    assert "spokes of 'phone'" in found.message


# --- wg-quick and wg themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", available())
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("mtu: 1380", "keepalive: 25", "exit-node: fra", "firewall-mark: 0xcafe", DNS),
        ("table: off", "listen-port: auto"),
        ("table: 4294967295",),
    ],
)
@pytest.mark.parametrize("secrets", [KEYS, InterfaceSecrets()], ids=["keys", "no-keys"])
def test_wg_quick_takes_everything(
    tmp_path: Path, lines: tuple[str, ...], version: str, secrets: InterfaceSecrets
) -> None:
    artifact, _, _ = render(plan_with(*lines), secrets)
    install([artifact], tmp_path)
    assert lint_wg_quick(tmp_path / artifact.path.lstrip("/"), version=version) == []
