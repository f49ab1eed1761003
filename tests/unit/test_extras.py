"""Kernel parameters, source NAT and rules beside the managers' files: what the real programs make of them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from realparsers import install, lint_nft, lint_sysctl, lint_unit

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.managers.extras import Extras
from wgnet.managers.templates import Templates
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification

HUB = """
wgnet: 1
network: {name: office, interface: wg0, subnets: [10.80.0.0/24, "fd42:80::/64"]}
peering:
  - {hub: fra, spokes: [nyc, sgp], isolate: true}
  - {link: [fra, srv]}
hosts:
  fra:
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: KEY:fra
    endpoint: fra.example.net
    advertise: [0.0.0.0/0, "::/0"]
    masquerade: true
  nyc: {addresses: [10.80.0.2, "fd42:80::2"], public-key: KEY:nyc, exit-node: fra}
  sgp: {addresses: [10.80.0.3], public-key: KEY:sgp}
  srv: {addresses: [10.80.0.9, "fd42:80::9"], public-key: KEY:srv}
"""


def plan(host: str, text: str = HUB) -> InterfacePlan:
    def public(match: re.Match[str]) -> str:
        return base64.b64encode(hashlib.sha256(match[1].encode()).digest()).decode()

    diagnostics = Diagnostics()
    spec = parse_specification(re.sub(r"KEY:([\w-]+)", public, text).encode(), "office.yaml", diagnostics)
    assert spec is not None, list(diagnostics)
    topology = resolve_topology(spec, diagnostics)
    assert not diagnostics.has_errors, list(diagnostics)
    (interface,) = Fleet((Routing.of(topology),)).plan_host(host).interfaces
    return interface


def only(versions: str) -> str:
    """Return the topology with one IP version in its network and behind its hub."""
    six, four = r'"fd42:80::[0-9/]+"', r"10\.80\.0\.[0-9/]+"
    text = re.sub(six if versions == "4" else four, "", HUB)
    text = re.sub(r'"::/0"' if versions == "4" else r"0\.0\.0\.0/0", "", text)
    text = re.sub(r",\s*\]", "]", re.sub(r"\[\s*,", "[", text))
    return (
        text
        if versions == "4"
        else re.sub(r"(?m)^  sgp:.*$", '  sgp: {addresses: ["fd42:80::3"], public-key: KEY:sgp}', text)
    )


def render(of: InterfacePlan, base: str = "/etc") -> dict[str, Artifact]:
    return {file.path: file for file in Extras(Templates(), base).render(of)}


def settings(files: dict[str, Artifact]) -> list[str]:
    text = files["/etc/sysctl.d/50-wgnet-wg0.conf"].content.decode()
    return [line for line in text.splitlines() if line and line[0] != "#"]


def run(script: str, *, cwd: Path | None = None) -> str:
    """Run a shell script as root of a network namespace of its own."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-euc", f"ip link set lo up\n{script}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(unit: Artifact, key: str, root: Path) -> list[str]:
    """Return the unit's command lines, with the paths of what was installed below `root`."""
    lines = [line for line in unit.content.decode().splitlines() if line.startswith(f"{key}=")]
    return [line.partition("=")[2].replace("$$", "$").replace("/etc/wgnet/", f"{root}/etc/wgnet/") for line in lines]


# --- which files


def test_files_of_a_hub_in_the_order_of_their_effect() -> None:
    files = render(plan("fra"))
    assert list(files) == [
        "/etc/systemd/system/wgnet-accept-ra-wg0.service",
        "/etc/systemd/system/sysinit.target.wants/wgnet-accept-ra-wg0.service",
        "/etc/sysctl.d/50-wgnet-wg0.conf",
        "/etc/wgnet/nftables/wg0.nft",
        "/etc/systemd/system/wgnet-masquerade-wg0.service",
        "/etc/systemd/system/multi-user.target.wants/wgnet-masquerade-wg0.service",
        "/etc/systemd/system/nftables.service.wants/wgnet-masquerade-wg0.service",
    ]
    for path, file in files.items():
        assert (file.owner, file.group, file.network, file.secret) == ("root", "root", "office", False)
        if ".wants/" in path:
            assert file.target == f"/etc/systemd/system/{Path(path).name}"
            assert file.target in files
            assert file.content == b""
        else:
            assert (file.mode, file.target) == (0o644, None)
            assert file.content.startswith(b"# Written by wgnet from the network 'office' for the host 'fra'. Changes ")
            assert file.content.endswith(b"\n")


def test_files_of_a_run_that_is_gone_after_a_reboot() -> None:
    files = render(plan("fra"), "/run")
    assert all(path.startswith("/run/") for path in files)
    assert b"/etc/" not in b"".join(file.content for file in files.values())
    assert all(file.target is None or file.target in files for file in files.values())


def test_plain_host_needs_nothing() -> None:
    assert render(plan("sgp")) == {}


def test_unit_s_own_wishes_are_the_links() -> None:
    """`systemctl disable` and `enable` find what is there."""
    files = render(plan("fra"))
    for path, unit in files.items():
        if path.endswith(".service") and ".wants/" not in path:
            wanted = re.search(rb"^WantedBy=(.*)$", unit.content, re.MULTILINE)
            assert wanted is not None
            links = {f"/etc/systemd/system/{target}.wants/{Path(path).name}" for target in wanted[1].decode().split()}
            assert links == {other for other in files if other.endswith(f".wants/{Path(path).name}")}


# --- kernel parameters


def test_sysctl_of_a_hub() -> None:
    assert settings(render(plan("fra"))) == ["net.ipv4.ip_forward = 1", "net.ipv6.conf.all.forwarding = 1"]


def test_sysctl_of_one_ip_version() -> None:
    files = render(plan("fra", only("4")))
    assert settings(files) == ["net.ipv4.ip_forward = 1"]
    assert not any("accept-ra" in path for path in files)
    files = render(plan("fra", only("6")))
    assert settings(files) == ["net.ipv6.conf.all.forwarding = 1"]
    assert any("accept-ra" in path for path in files)


def test_sysctl_of_a_host_with_an_exit_node() -> None:
    files = render(plan("nyc"))
    assert list(files) == ["/etc/sysctl.d/50-wgnet-wg0.conf"]
    assert settings(files) == ["net.ipv4.conf.all.src_valid_mark = 1"]


@pytest.mark.parametrize("host", ["fra", "nyc"])
def test_systemd_sysctl_takes_the_file(tmp_path: Path, host: str) -> None:
    install([file for file in render(plan(host)).values() if "sysctl" in file.path], tmp_path)
    assert lint_sysctl(tmp_path / "etc/sysctl.d/50-wgnet-wg0.conf") == []


def test_router_advertisements_go_on_where_they_were_heard() -> None:
    (unit,) = [
        file for path, file in render(plan("fra")).items() if path.endswith("system/wgnet-accept-ra-wg0.service")
    ]
    (command,) = commands(unit, "ExecStart", Path())
    folder = "/proc/sys/net/ipv6/conf"
    said = run(
        "ip link add kernel type veth peer name managed; ip link add router type veth\n"
        f"echo 0 >{folder}/managed/accept_ra; echo 2 >{folder}/router/accept_ra\n"
        f"{command}\n{command}\necho 1 >{folder}/all/forwarding\nip link add late type veth\n"
        f"cd {folder}; grep . kernel/accept_ra managed/accept_ra router/accept_ra late/accept_ra all/forwarding"
    )
    assert said.split() == [
        "kernel/accept_ra:2",
        "managed/accept_ra:0",
        "router/accept_ra:2",
        "late/accept_ra:2",
        "all/forwarding:1",
    ]


def test_router_advertisements_come_before_sysctl() -> None:
    unit = render(plan("fra"))["/etc/systemd/system/wgnet-accept-ra-wg0.service"].content.decode()
    assert "\nBefore=systemd-sysctl.service " in unit
    # Whatever is before the network must not wait for sysinit.target, which may wait for the network (cloud-init).
    assert "\nDefaultDependencies=no\n" in unit


# --- masquerade

NFT = "etc/wgnet/nftables/wg0.nft"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (HUB, 'iifname "wg0" oifname != "wg0" masquerade'),
        (only("4"), 'meta nfproto ipv4 iifname "wg0" oifname != "wg0" masquerade'),
        (only("6"), 'meta nfproto ipv6 iifname "wg0" oifname != "wg0" masquerade'),
    ],
    ids=["both", "4", "6"],
)
def test_masquerade_of_the_plan_s_ip_versions(tmp_path: Path, text: str, rule: str) -> None:
    install(render(plan("fra", text)).values(), tmp_path)
    lines = [line.strip() for line in (tmp_path / NFT).read_text().splitlines()]
    assert [line for line in lines if line.endswith("masquerade")] == [rule]
    assert lint_nft(tmp_path / NFT) == []


@pytest.mark.parametrize("interface", ["wg0", "w-0.=+", "_0", "9z"])
def test_masquerade_for_any_name(tmp_path: Path, interface: str) -> None:
    files = render(plan("fra", HUB.replace("interface: wg0", f"interface: {interface}"))).values()
    install(files, tmp_path)
    assert lint_nft(tmp_path / f"etc/wgnet/nftables/{interface}.nft") == []
    names = subprocess.run(["systemd-escape", interface], capture_output=True, text=True, check=True).stdout.split()
    units = [tmp_path / f"etc/systemd/system/wgnet-{kind}-{names[0]}.service" for kind in ("masquerade", "accept-ra")]
    for unit in units:
        assert lint_unit(unit) == []


def test_masquerade_is_loaded_again_and_again_and_unloaded(tmp_path: Path) -> None:
    files = render(plan("fra"))
    install(files.values(), tmp_path)
    unit = files["/etc/systemd/system/wgnet-masquerade-wg0.service"]
    (start,), (reload,), (stop,) = (commands(unit, key, tmp_path) for key in ("ExecStart", "ExecReload", "ExecStop"))
    shown = "nft -j list ruleset"
    # Stopping must not fail after somebody flushed all rules.
    said = run(
        f"nft add table inet others; {start}; {start}; {reload}; {shown}; {stop}; {shown}\n"
        f"{start}; nft flush ruleset; {stop}"
    )
    loaded, unloaded = ([next(iter(item)) for item in json.loads(line)["nftables"][1:]] for line in said.splitlines())
    assert loaded == ["table", "table", "chain", "rule"]
    assert unloaded == ["table"]


def test_masquerade_comes_back_after_nftables(tmp_path: Path) -> None:
    unit = render(plan("fra"))["/etc/systemd/system/wgnet-masquerade-wg0.service"].content.decode()
    for line in (
        "After=nftables.service",
        "PartOf=nftables.service",
        "ReloadPropagatedFrom=nftables.service",
        "Before=network-pre.target shutdown.target",
        "DefaultDependencies=no",
        "RemainAfterExit=yes",
    ):
        assert f"\n{line}\n" in unit


#: Sends a UDP packet into the machine by `far`, as a peer would, and prints the source that it leaves with by `out`.
SEND = """
import socket, struct, sys
far, mac, out = sys.argv[1:]
def opened(link, protocol):
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    raw.bind((link, protocol))
    raw.settimeout(10)
    return raw
def packet(total):
    addresses = socket.inet_aton("10.80.0.2") + socket.inet_aton("198.51.100.9")
    return struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, total) + addresses
total = sum(struct.unpack("!10H", packet(0)))
total = (total & 0xFFFF) + (total >> 16)
listener, sender = opened(out, 0x0800), opened(far, 0)
ethernet = bytes.fromhex(mac) + bytes(6) + b"\\x08\\x00"
sender.send(ethernet + packet(~total & 0xFFFF) + struct.pack("!HHHH", 4000, 53, 8, 0))
while True:
    got = listener.recv(2000)
    if got[23] == 17 and socket.inet_ntoa(got[30:34]) == "198.51.100.9":
        print(socket.inet_ntoa(got[26:30]))
        break
"""


@pytest.mark.parametrize(("enters", "source"), [("wg0", "198.51.100.1"), ("lan", "10.80.0.2")])
def test_masquerade_translates_what_comes_from_the_tunnel(tmp_path: Path, enters: str, source: str) -> None:
    install(render(plan("fra")).values(), tmp_path)
    (tmp_path / "send.py").write_text(SEND)
    said = run(
        f"""
        ip link add {enters} address 02:00:00:00:00:01 type veth peer name far
        ip link add out type veth peer name upstream
        for link in {enters} far out upstream; do ip link set $link up; done
        ip address add 10.80.0.1/24 dev {enters}; ip address add 198.51.100.1/24 dev out
        ip neighbour add 198.51.100.9 lladdr 02:00:00:00:00:09 dev out
        echo 1 >/proc/sys/net/ipv4/ip_forward
        nft -f {tmp_path / NFT}
        {sys.executable} {tmp_path}/send.py far 020000000001 upstream
        """
    )
    assert said == f"{source}\n"
