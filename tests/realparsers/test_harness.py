"""The harness itself: it catches what it is there to catch, and lets good files pass, under every version."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from realparsers import (
    SINCE,
    VERSIONS,
    audit_netdev,
    available,
    install,
    is_root,
    lint_keyfile,
    lint_networkd,
    lint_networkd_many,
    lint_nft,
    lint_sysctl,
    lint_unit,
    lint_wg_quick,
    load_keyfiles,
    run_networkd,
    too_new,
)

# Made for these tests, and used nowhere.
PRIVATE = "sx/iE5U7CYgtDiS3LSJmiWSWIaqvG33ApNzv9X8CPYg="
PUBLIC = "RFvWmtEGouPy63ylg4EmA+mbkqLNlLW6qG44tv7hwaw="
PRESHARED = "JMdApnWEDLZJLPthBWb72UVoNB7dxR+9lYgfJ2tC3Bg="

NETDEV = "/etc/systemd/network/50-wgnet-wg0.netdev"
NETWORK = "/etc/systemd/network/50-wgnet-wg0.network"
KEYFILE = "/etc/NetworkManager/system-connections/wg0.nmconnection"

GOOD_NETDEV = f"""\
[NetDev]
Name=wg0
Kind=wireguard
Description=office

[WireGuard]
PrivateKey={PRIVATE}
ListenPort=51820
FirewallMark=51820

[WireGuardPeer]
PublicKey={PUBLIC}
PresharedKey={PRESHARED}
AllowedIPs=10.0.0.2/32,fd00::2/128
Endpoint=[2001:db8::1]:51820
PersistentKeepalive=25
"""
GOOD_NETWORK = """\
[Match]
Name=wg0

[Link]
MTUBytes=1420
RequiredForOnline=no

[Network]
Address=10.0.0.1/24
Address=fd00::1/64
DHCP=no
IPv6AcceptRA=no

[Route]
Destination=10.9.0.0/16
Metric=50

[RoutingPolicyRule]
Family=ipv4
Table=main
SuppressPrefixLength=0
Priority=32764

[RoutingPolicyRule]
Family=ipv4
FirewallMark=51820
InvertRule=yes
Table=51820
Priority=32765
"""
GOOD_KEYFILE = f"""\
[connection]
id=wg0
uuid=5a7d9c0e-3a55-5d7c-8a6c-1f1f5a3c9b10
type=wireguard
interface-name=wg0
autoconnect=true

[wireguard]
private-key={PRIVATE}
private-key-flags=0
listen-port=51820
mtu=1420
fwmark=51820
peer-routes=false
ip4-auto-default-route=0
ip6-auto-default-route=0

[wireguard-peer.{PUBLIC}]
endpoint=[2001:db8::1]:51820
preshared-key={PRESHARED}
preshared-key-flags=0
persistent-keepalive=25
allowed-ips=fd00::/64;10.0.0.0/24;

[ipv4]
method=manual
address1=10.0.0.1/24
dns=10.0.0.53;
dns-search=~corp.example;
route1=10.66.0.0/16,0.0.0.0,77
route1_options=table=51820
routing-rule1=priority 20000 not from 0.0.0.0/0 fwmark 0xca6c table 51820

[ipv6]
method=manual
address1=fd00::1/64
"""
GOOD_WG_QUICK = f"""\
[Interface]
Address = 10.0.0.1/24, fd00::1/64
PrivateKey = {PRIVATE}
ListenPort = 51820
DNS = 10.0.0.53, corp.example
MTU = 1420
Table = off
FwMark = 0xca6c
PostUp = echo '%i'

[Peer]
PublicKey = {PUBLIC}
PresharedKey = {PRESHARED}
AllowedIPs = 10.0.0.2/32, fd00::2/128
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFile:
    """A file of a host, as the harness wants it."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    target: str | None = None


def networkd_tree(
    folder: Path,
    netdev: str = GOOD_NETDEV,
    network: str = GOOD_NETWORK,
    *,
    mode: int = 0o640,
    group: str = "systemd-network",
) -> Path:
    files = [
        HostFile(path=NETDEV, content=netdev.encode(), mode=mode, group=group),
        HostFile(path=NETWORK, content=network.encode()),
    ]
    return install(files, folder)


def keyfile(folder: Path, text: str = GOOD_KEYFILE, mode: int = 0o600) -> Path:
    install([HostFile(path=KEYFILE, content=text.encode(), mode=mode)], folder)
    return folder / KEYFILE.lstrip("/")


def wg_quick(folder: Path, text: str = GOOD_WG_QUICK, name: str = "wg0.conf", mode: int = 0o600) -> Path:
    install([HostFile(path=f"/{name}", content=text.encode(), mode=mode)], folder)
    return folder / name


def change(text: str, old: str, new: str) -> str:
    """Replace what must be there, so that no test passes since its text has changed."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.fixture(params=available())
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_version_is_there_in_continuous_integration() -> None:
    if os.environ.get("CI"):
        assert available() == list(VERSIONS)
    assert "installed" in available()


# --- networkd


def test_networkd_takes_good_files_and_does_what_they_say(tmp_path: Path, version: str) -> None:
    result = run_networkd(networkd_tree(tmp_path), version=version)
    assert result.messages == ()
    (link,) = (entry for entry in result.addresses if entry["ifname"] == "wg0")
    assert link["mtu"] == 1420
    assert {"10.0.0.1", "fd00::1"} <= {address["local"] for address in link["addr_info"]}
    assert [(route["dst"], route["metric"]) for route in result.routes if route.get("protocol") == "static"] == [
        ("10.9.0.0/16", 50)
    ]
    rules = {rule["priority"]: rule for rule in result.rules if rule.get("protocol") == "static"}
    assert set(rules) == {32764, 32765}
    assert rules[32764]["suppress_prefixlen"] == 0
    assert (rules[32765]["fwmark"], rules[32765]["table"]) == ("0xca6c", "51820")


def test_networkd_is_quick_enough_for_every_example(tmp_path: Path) -> None:
    trees = [networkd_tree(tmp_path / str(number)) for number in range(8)]
    started = time.monotonic()
    results = lint_networkd_many(trees)
    took = time.monotonic() - started
    assert list(results) == trees
    assert not any(results.values())
    # 0.1 s a tree on two quiet processors; a loaded machine is given ten times that.
    assert took / len(trees) < 1.0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("PersistentKeepalive=25", "PersistentKeepalive=25\nColour=red", "Unknown key 'Colour'"),
        ("[WireGuardPeer]", "[WireGuardPear]", "Unknown section 'WireGuardPear'"),
        ("10.0.0.2/32", "10.0.0.256/32", "Network address is invalid"),
        ("10.0.0.2/32", "10.0.0.2/24", "not properly masked"),
        (PUBLIC, PUBLIC[:-2], "PublicKey="),
        (PRESHARED, "short", "PresharedKey="),
        (PRIVATE, "short", "networkd made no netdev of it"),
        (f"PrivateKey={PRIVATE}", "PrivateKeyFile=/etc/wgnet/none.key", "Failed to read private key"),
        ("PersistentKeepalive=25", "PersistentKeepalive=70000", "as keepalive interval"),
        ("Name=wg0", "Name=wg0-is-too-long-a-name", "NetDev"),
        ("Name=wg0", "Name=wg1", "no .network file is for 'wg1'"),
    ],
)
def test_networkd_reports_a_bad_netdev(tmp_path: Path, version: str, old: str, new: str, said: str) -> None:
    messages = lint_networkd(networkd_tree(tmp_path, change(GOOD_NETDEV, old, new)), version=version)
    assert any(said in message for message in messages), messages
    assert not any(PRIVATE in message or PRESHARED in message for message in messages)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DHCP=no", "DHCP=no\nColour=red", "Unknown key 'Colour'"),
        ("Address=10.0.0.1/24", "Address=10.0.0.1/33", "10.0.0.1/33"),
        ("Destination=10.9.0.0/16", "Destination=10.9.0.0/x", "10.9.0.0/x"),
        ("[Match]\nName=wg0", "[Match]\nName=wg1", "no .network file is for 'wg0'"),
        ("[Match]\nName=wg0", "[Match]", "No valid settings found in the [Match] section"),
        ("Priority=32765", "Priority=-1", "rule priority, ignoring: -1"),
    ],
)
def test_networkd_reports_a_bad_network(tmp_path: Path, version: str, old: str, new: str, said: str) -> None:
    messages = lint_networkd(networkd_tree(tmp_path, network=change(GOOD_NETWORK, old, new)), version=version)
    assert any(said in message for message in messages), messages


@pytest.mark.parametrize("path", [NETDEV, NETWORK])
def test_networkd_cannot_read_what_is_roots_alone(tmp_path: Path, version: str, path: str) -> None:
    tree = networkd_tree(tmp_path)
    file = tree / path.lstrip("/")
    if is_root():
        os.chown(file, 0, 0)
    file.chmod(0o600)
    messages = lint_networkd(tree, version=version)
    if is_root():
        assert f"{path}: networkd never opened it" in messages
        assert any(message.startswith("Failed to open") and "Permission denied" in message for message in messages)
    else:
        assert f"{path}: mode lets nobody but its owner read it, networkd drops root" in messages


def test_networkd_warns_of_a_key_that_all_may_read(tmp_path: Path, version: str) -> None:
    messages = lint_networkd(networkd_tree(tmp_path, mode=0o644, group="root"), version=version)
    assert any("too permissive" in message for message in messages), messages


def test_networkd_reads_key_files_and_dropins_of_the_tree(tmp_path: Path, version: str) -> None:
    tree = networkd_tree(tmp_path, change(GOOD_NETDEV, f"PrivateKey={PRIVATE}", "PrivateKeyFile=/etc/wgnet/wg0.key"))
    key = HostFile(path="/etc/wgnet/wg0.key", content=PRIVATE.encode(), mode=0o640, group="systemd-network")
    conf = "/etc/systemd/networkd.conf.d/50-wgnet.conf"
    install([key, HostFile(path=conf, content=b"[Network]\nManageForeignRoutingPolicyRules=no\n")], tree)
    assert lint_networkd(tree, version=version) == []
    (tree / conf.lstrip("/")).write_text("[Network]\nColour=red\n")
    assert any("Unknown key 'Colour'" in message for message in lint_networkd(tree, version=version))


def test_networkd_takes_a_vrf_beside_a_wireguard_link(tmp_path: Path, version: str) -> None:
    tree = networkd_tree(tmp_path, network=change(GOOD_NETWORK, "DHCP=no", "DHCP=no\nVRF=blue"))
    vrf = b"[NetDev]\nName=blue\nKind=vrf\n\n[VRF]\nTable=100\n"
    install([HostFile(path="/etc/systemd/network/40-blue.netdev", content=vrf)], tree)
    assert lint_networkd(tree, version=version) == []
    missing = networkd_tree(tmp_path / "missing", network=change(GOOD_NETWORK, "DHCP=no", "DHCP=no\nVRF=blue"))
    assert any("blue" in message for message in lint_networkd(missing, version=version))


def test_networkd_reads_no_other_suffix(tmp_path: Path) -> None:
    tree = networkd_tree(tmp_path)
    install([HostFile(path="/etc/systemd/network/50-wg0.netwrok", content=GOOD_NETWORK.encode())], tree)
    assert "'/etc/systemd/network/50-wg0.netwrok' is not read by networkd" in lint_networkd(tree)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Endpoint=[2001:db8::1]:51820", "Endpoint=192.0.2.9", "Endpoint="),
        ("Endpoint=[2001:db8::1]:51820", "Endpoint=2001:db8::1:5182", "Endpoint="),
        ("PersistentKeepalive=25", "PersistentKeepalive=010", "PersistentKeepalive="),
        (f"PublicKey={PUBLIC}\n", "", "has no PublicKey="),
        (PUBLIC, PUBLIC[:-2] + "x=", "canonical"),
        ("fd00::2/128", f"fd00::2/128\n[WireGuardPeer]\nPublicKey={PUBLIC}\nAllowedIPs=10.1.0.0/16", "repeats"),
        ("fd00::2/128", f"fd00::2/128\n[WireGuardPeer]\nPublicKey={PRIVATE}\nAllowedIPs=10.0.0.2/32", "which wins"),
        ("FirewallMark=51820", "FirewallMark=051820", "plain decimal"),
    ],
)
def test_audit_finds_what_networkd_loses_in_silence(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "wg0.netdev"
    path.write_text(GOOD_NETDEV)
    assert audit_netdev(path) == []
    path.write_text(change(GOOD_NETDEV, old, new))
    assert any(said in message for message in audit_netdev(path)), audit_netdev(path)


# --- NetworkManager


def test_keyfile_good(tmp_path: Path, version: str) -> None:
    assert lint_keyfile(keyfile(tmp_path), version) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("listen-port=51820", "listen-port=70000", "listen-port=70000 is dropped"),
        ("listen-port=51820", "listen-port=51820\ncolour=red", "colour=red is dropped"),
        ("[2001:db8::1]:51820", "192.0.2.1", "endpoint=192.0.2.1 is dropped"),
        ("preshared-key-flags=0\n", "", "preshared-key=*** is dropped"),
        (f"preshared-key={PRESHARED}", "preshared-key=short", "preshared-key=*** is dropped"),
        ("10.0.0.0/24;", "10.0.0.0/24;bad;", "becomes"),
        ("10.66.0.0/16,", "10.66.0.0/166,", "route1="),
        ("route1=10.66.0.0/16,0.0.0.0,77", "route1=nonsense", "route1="),
        (f"[wireguard-peer.{PUBLIC}]", "[wireguard-peer.short]", "is dropped"),
        ("[wireguard]", "[wirequard]", "private-key"),
        ("method=manual\naddress1=10.0.0.1/24", "method=auto", "not supported for WireGuard"),
        ("autoconnect=true", "autoconnect=maybe", "autoconnect=maybe is no boolean"),
    ],
)
def test_keyfile_bad(tmp_path: Path, version: str, old: str, new: str, said: str) -> None:
    messages = lint_keyfile(keyfile(tmp_path, change(GOOD_KEYFILE, old, new)), version)
    assert any(said in message for message in messages), messages
    assert not any(PRIVATE in message or PRESHARED in message for message in messages)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o400])
def test_keyfile_mode(tmp_path: Path, mode: int) -> None:
    assert lint_keyfile(keyfile(tmp_path, mode=mode)) == [f"mode is {mode:04o}, expected 0600"]


def test_daemon_reads_back_what_is_in_a_keyfile(tmp_path: Path, version: str) -> None:
    keyfile(tmp_path)
    loaded = load_keyfiles(tmp_path, version=version)
    assert loaded.messages == ()
    settings = loaded.profiles[KEYFILE].settings
    assert settings["wireguard"]["private-key"] == PRIVATE
    (peer,) = settings["wireguard"]["peers"]
    assert peer == {
        "public-key": PUBLIC,
        "preshared-key": PRESHARED,
        "preshared-key-flags": 0,
        "endpoint": "[2001:db8::1]:51820",
        "persistent-keepalive": 25,
        "allowed-ips": ["fd00::/64", "10.0.0.0/24"],
    }
    assert settings["ipv4"]["route-data"] == [{"dest": "10.66.0.0", "prefix": 16, "metric": 77, "table": 51820}]
    assert PRIVATE not in repr(loaded)
    assert PRESHARED not in repr(loaded)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[2001:db8::1]:51820", "192.0.2.1", "is not a valid endpoint"),
        ("10.0.0.0/24;", "10.0.0.0/24;bad;", "has invalid allowed-ips"),
        ("10.66.0.0/16,", "10.66.0.0/166,", "invalid prefix length"),
        ("method=manual\naddress1=10.0.0.1/24", "method=auto", "did not load it"),
    ],
)
def test_daemon_complains(tmp_path: Path, version: str, old: str, new: str, said: str) -> None:
    keyfile(tmp_path, change(GOOD_KEYFILE, old, new))
    messages = load_keyfiles(tmp_path, version=version).messages
    assert any(said in message for message in messages), messages


def test_daemon_refuses_a_file_that_others_may_read(tmp_path: Path, version: str) -> None:
    keyfile(tmp_path, mode=0o640)
    loaded = load_keyfiles(tmp_path, version=version)
    assert loaded.profiles == {}
    assert f"{KEYFILE}: NetworkManager did not load it" in loaded.messages


# --- wg-quick, nft, sysctl, units


def test_wg_quick_good(tmp_path: Path, version: str) -> None:
    assert lint_wg_quick(wg_quick(tmp_path), version=version) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("FwMark = 0xca6c", "Colour = red", "Line unrecognized"),
        (PRESHARED, PRESHARED[:-2] + "x=", "not the correct length or format: `***'"),
        ("10.0.0.2/32", "10.0.0.256/32", "10.0.0.256"),
        ("vpn.example.com:51820", "192.0.2.1", "Unable to find port of endpoint"),
        ("[Peer]", "[Pear]", "Line unrecognized: `[Pear]'"),
        ("Address = 10.0.0.1/24", "Address = 10.0.0.1/33", "Address=10.0.0.1/33 is no address"),
        ("Table = off", "Table = of f", "Table="),
        ("ListenPort = 51820", "ListenPort = 51820\nSaveConfig = yes", "neither true nor false"),
    ],
)
def test_wg_quick_bad(tmp_path: Path, version: str, old: str, new: str, said: str) -> None:
    messages = lint_wg_quick(wg_quick(tmp_path, change(GOOD_WG_QUICK, old, new)), version=version)
    assert any(said in message for message in messages), messages
    assert not any(PRIVATE in message or PRESHARED in message for message in messages)


def test_wg_quick_name_and_mode(tmp_path: Path) -> None:
    assert "mode is 0644, expected 0600" in lint_wg_quick(wg_quick(tmp_path, mode=0o644))
    (message,) = lint_wg_quick(wg_quick(tmp_path, name="sixteen-letters-.conf"))
    assert "15 characters" in message


def test_nft(tmp_path: Path) -> None:
    path = tmp_path / "wgnet.nft"
    text = "table inet wgnet {\n  chain forward {\n    type filter hook forward priority 0;\n    %s\n  }\n}\n"
    path.write_text(text % 'iifname "wg0" tcp flags syn tcp option maxseg size set rt mtu')
    assert lint_nft(path) == []
    path.write_text(text % 'iifname "wg0" colour red')
    assert any("Error: " in message for message in lint_nft(path))


def test_sysctl(tmp_path: Path) -> None:
    path = tmp_path / "50-wgnet.conf"
    before = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").read_text()
    path.write_text(
        "# forwarding\nnet.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n"
        "net.ipv4.conf.all.src_valid_mark = 1\nnet.ipv4.conf.wg0.rp_filter = 2\nnet/ipv4/conf/eth0.5/rp_filter=2\n"
    )
    assert lint_sysctl(path) == []
    path.write_text("net.ipv4.ip_forwarding = 1\nnet.ipv4.ip_forward = many\nvm.swappiness = 1\nhello\n")
    messages = lint_sysctl(path)
    assert len(messages) == 4, messages
    assert Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").read_text() == before


def test_unit(tmp_path: Path) -> None:
    path = tmp_path / "wgnet-example.service"
    text = "[Unit]\nDescription=example\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/wgnet-absent refresh\n"
    path.write_text(text)
    assert lint_unit(path, absent=["/usr/bin/wgnet-absent"]) == []
    assert any("not executable" in message for message in lint_unit(path))
    path.write_text(text + "Colour=red\n")
    assert any("Unknown key" in message for message in lint_unit(path, absent=["/usr/bin/wgnet-absent"]))


# --- versions that cannot be run here


def test_too_new_names_what_older_versions_lack(tmp_path: Path) -> None:
    tree = networkd_tree(
        tmp_path,
        change(GOOD_NETDEV, "ListenPort=51820", "ListenPort=51820\nRouteTable=main"),
        change(GOOD_NETWORK, "DHCP=no", "DHCP=no\nIPv4Forwarding=yes\nIPForward=yes"),
    )
    keyfile(
        tree, change(GOOD_KEYFILE, "route1_options=table=51820", "route1_options=table=51820,weight=2\nforwarding=1")
    )
    assert too_new(tree) == [
        "50-wgnet-wg0.netdev: [WireGuard] RouteTable= needs systemd 250",
        "50-wgnet-wg0.network: [Network] IPv4Forwarding= needs systemd 256",
        "wg0.nmconnection: [ipv4] route1_options: weight needs NetworkManager 1.42",
        "wg0.nmconnection: [ipv4] forwarding needs NetworkManager 1.54",
    ]
    assert too_new(tree, networkd=262, nm="1.58") == [
        "50-wgnet-wg0.network: [Network] IPForward= is ignored since systemd 256"
    ]


def test_too_new_is_silent_about_what_ubuntu_22_04_has(tmp_path: Path) -> None:
    tree = networkd_tree(tmp_path)
    keyfile(tree)
    assert too_new(tree) == []


@pytest.mark.parametrize("kind", ["netdev", "network", "conf"])
def test_table_of_versions_agrees_with_the_daemons(tmp_path: Path, version: str, kind: str) -> None:
    """Each key is unknown to the daemon exactly where the table says that it is newer."""
    number = {"installed": 252, "trixie": 257, "sid": 262}[version]
    text = {"netdev": "", "network": "", "conf": ""}
    for (of, section, key), _ in SINCE.items():
        # Conditions would rule the file out.
        if of == kind and section != "Match":
            text[kind] += f"[{section}]\n{key}=\n"
    netdev = GOOD_NETDEV + text["netdev"] + change(GOOD_NETDEV, "Description=office", "")
    tree = networkd_tree(tmp_path, netdev, GOOD_NETWORK + text["network"])
    conf = HostFile(path="/etc/systemd/networkd.conf.d/50-wgnet.conf", content=text["conf"].encode())
    install([conf] if text["conf"] else [], tree)
    said = "\n".join(lint_networkd(tree, version=version))
    unknown = {
        (section, key)
        for of, section, key in SINCE
        if of == kind and f"Unknown key '{key}' in section [{section}]" in said
    }
    assert unknown == {
        (section, key)
        for (of, section, key), since in SINCE.items()
        if of == kind and section != "Match" and since > number
    }
