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
from wgnet.record import replace
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.spec import Manager

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


def test_files_of_a_host_with_an_exit_node() -> None:
    assert list(render(plan("nyc"))) == [
        "/etc/sysctl.d/50-wgnet-wg0.conf",
        "/etc/wgnet/nftables/mark/wg0.nft",
        "/etc/systemd/system/wgnet-mark-wg0.service",
        "/etc/systemd/system/multi-user.target.wants/wgnet-mark-wg0.service",
        "/etc/systemd/system/nftables.service.wants/wgnet-mark-wg0.service",
    ]


def test_a_networkd_beside_networkmanager_leaves_its_rules_alone() -> None:
    own = plan("nyc")
    path = "/etc/systemd/networkd.conf.d/50-wgnet-wg0.conf"
    assert path not in render(own)
    theirs = replace(own, manager=Manager.NETWORKMANAGER)
    assert "\n[Network]\nManageForeignRoutingPolicyRules=no\n" in render(theirs)[path].content.decode()
    assert path not in render(replace(theirs, rules=()))


def test_both_tables_stand_beside_each_other() -> None:
    """Who uses an exit node may masquerade, and no interface's name makes two files one."""
    host = plan("nyc", HUB.replace("exit-node: fra}", "exit-node: fra, masquerade: true}"))
    assert [path for path in render(host) if path.endswith((".nft", "system/wgnet-mark-wg0.service"))] == [
        "/etc/wgnet/nftables/mark/wg0.nft",
        "/etc/systemd/system/wgnet-mark-wg0.service",
        "/etc/wgnet/nftables/wg0.nft",
    ]


@pytest.mark.parametrize("base", ["/etc", "/run"])
def test_wg_quick_has_a_table_of_its_own(base: str) -> None:
    text = HUB.replace("exit-node: fra}", "exit-node: fra, manager: wg-quick, advertise: [10.9.0.0/16]}")
    assert not any("mark" in path for path in render(plan("nyc", text), base))
    other = text.replace("manager: wg-quick, ", "")
    assert f"{base}/wgnet/nftables/mark/wg0.nft" in render(plan("nyc", other), base)


@pytest.mark.parametrize("host", ["fra", "nyc"])
def test_files_of_a_run_that_is_gone_after_a_reboot(host: str) -> None:
    files = render(plan(host), "/run")
    assert all(path.startswith("/run/") for path in files)
    assert b"/etc/" not in b"".join(file.content for file in files.values())
    assert all(file.target is None or file.target in files for file in files.values())


def test_plain_host_needs_nothing() -> None:
    assert render(plan("sgp")) == {}


@pytest.mark.parametrize("host", ["fra", "nyc"])
def test_unit_s_own_wishes_are_the_links(host: str) -> None:
    """`systemctl disable` and `enable` find what is there."""
    files = render(plan(host))
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
    assert settings(render(plan("nyc"))) == ["net.ipv4.conf.all.src_valid_mark = 1"]


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


# --- tables of nftables

NFT = "etc/wgnet/nftables/wg0.nft"
MARK = "etc/wgnet/nftables/mark/wg0.nft"


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


@pytest.mark.parametrize("interface", ["wg0", "w-0.=+", "_0", "9z"])
def test_mark_for_any_name(tmp_path: Path, interface: str) -> None:
    install(render(plan("nyc", HUB.replace("interface: wg0", f"interface: {interface}"))).values(), tmp_path)
    assert lint_nft(tmp_path / f"etc/wgnet/nftables/mark/{interface}.nft") == []
    name = subprocess.run(["systemd-escape", interface], capture_output=True, text=True, check=True).stdout.strip()
    assert lint_unit(tmp_path / f"etc/systemd/system/wgnet-mark-{name}.service") == []


@pytest.mark.parametrize(
    ("host", "kind", "count"), [("fra", "masquerade", ["chain", "rule"]), ("nyc", "mark", ["chain", "rule"] * 2)]
)
def test_a_table_is_loaded_again_and_again_and_unloaded(tmp_path: Path, host: str, kind: str, count: list[str]) -> None:
    files = render(plan(host))
    install(files.values(), tmp_path)
    unit = files[f"/etc/systemd/system/wgnet-{kind}-wg0.service"]
    (start,), (reload,), (stop,) = (commands(unit, key, tmp_path) for key in ("ExecStart", "ExecReload", "ExecStop"))
    shown = "nft -j list ruleset"
    # Stopping must not fail after somebody flushed all rules.
    said = run(
        f"nft add table inet others; {start}; {start}; {reload}; {shown}; {stop}; {shown}\n"
        f"{start}; nft flush ruleset; {stop}"
    )
    loaded, unloaded = ([next(iter(item)) for item in json.loads(line)["nftables"][1:]] for line in said.splitlines())
    assert sorted(loaded) == sorted(["table", "table", *count])
    assert unloaded == ["table"]


@pytest.mark.parametrize(("host", "kind"), [("fra", "masquerade"), ("nyc", "mark")])
def test_tables_come_before_the_network_and_back_after_nftables(host: str, kind: str) -> None:
    unit = render(plan(host))[f"/etc/systemd/system/wgnet-{kind}-wg0.service"].content.decode()
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


#: Sends to addresses from marked sockets, as WireGuard does, and prints which answer.
ASK = """
import select, socket, sys, time
asking = {}
for address in sys.argv[2:]:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[1]))
    one.sendto(b"?", (address, 7))
    asking[one] = address
end = time.monotonic() + 1.5
answered = set()
while len(answered) < len(asking) and (left := end - time.monotonic()) > 0:
    for one in select.select(set(asking) - answered, [], [], left)[0]:
        if one.recvfrom(9)[1][0] == asking[one]:
            answered.add(one)
print(*[address for one, address in asking.items() if one in answered])
"""
#: Answers what comes by UDP, from the address that it was sent to.
ANSWER = """
import select, socket
answering = []
for address in "198.51.100.2", "203.0.113.9", "2001:db8:9::9":
    answering.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM))
    answering[-1].bind((address, 7))
open("ready", "w").close()
while True:
    for each in select.select(answering, [], [])[0]:
        each.sendto(b"an answer", each.recvfrom(9)[1])
"""
#: A host behind `out` with the routes of an exit node's, `wg0` being where everything else goes; and strict filters:
#: the kernel's, and one for IPv6 as firewalld has it.
STRICT = """
unshare --net sh -euc '
    : >apart; until ip link set upstream up 2>/dev/null; do sleep 0.05; done
    ip address add 198.51.100.2/24 dev upstream; ip address add 203.0.113.9/32 dev upstream
    ip address add 2001:db8::2/64 dev upstream nodad; ip address add 2001:db8:9::9/128 dev upstream nodad
    exec {python} answer.py' & far=$!
trap 'kill $far' EXIT
until [ -e apart ]; do sleep 0.05; done
ip link add out type veth peer name upstream netns $far
until [ -e ready ]; do sleep 0.05; done
ip address add 198.51.100.1/24 dev out; ip address add 2001:db8::1/64 dev out nodad
ip link add wg0 type veth peer name peers
ip address add 10.80.0.2/24 dev wg0; ip address add fd42:80::2/64 dev wg0 nodad
for link in out wg0 peers; do ip link set $link up; done
for version in 4 6; do
    ip -$version rule add not fwmark 51820 table 51820
    ip -$version rule add table main suppress_prefixlength 0
    ip -$version route add default dev wg0 table 51820
done
ip route add default via 198.51.100.2; ip route add default via 2001:db8::2
sysctl -qp {root}/etc/sysctl.d/50-wgnet-wg0.conf
for link in all out; do echo 1 >/proc/sys/net/ipv4/conf/$link/rp_filter; done
nft 'table inet strict {{ chain prerouting {{ type filter hook prerouting priority mangle + 10;
    meta nfproto ipv6 icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }}; }}'
ask() {{ {python} ask.py $1 203.0.113.9 2001:db8:9::9; }}
"""


@pytest.mark.parametrize(
    ("text", "answered"), [(HUB, {4, 6}), (only("4"), {4}), (only("6"), {6})], ids=["both", "4", "6"]
)
def test_replies_pass_a_strict_reverse_path_filter(tmp_path: Path, text: str, answered: set[int]) -> None:
    files = render(plan("nyc", text))
    install(files.values(), tmp_path)
    (tmp_path / "ask.py").write_text(ASK)
    (tmp_path / "answer.py").write_text(ANSWER)
    parameters = tmp_path / "etc/sysctl.d/50-wgnet-wg0.conf"
    if not parameters.exists():
        parameters.parent.mkdir(parents=True)
        parameters.touch()
    unit = files["/etc/systemd/system/wgnet-mark-wg0.service"]
    (start,), (stop,) = (commands(unit, key, tmp_path) for key in ("ExecStart", "ExecStop"))
    said = run(
        STRICT.format(python=sys.executable, root=tmp_path) + f"ask 51820; {start}; ask 51820; {stop}; ask 51820",
        cwd=tmp_path,
    )
    passing = [address for version, address in ((4, "203.0.113.9"), (6, "2001:db8:9::9")) if version in answered]
    assert [line.split() for line in said.splitlines()] == [[], passing, []]


def test_marks_of_others_are_left_alone(tmp_path: Path) -> None:
    """The mark goes back to what bore it, not to all that comes by UDP: others mark packets as well."""
    files = render(plan("nyc"))
    install(files.values(), tmp_path)
    (tmp_path / "ask.py").write_text(ASK)
    (tmp_path / "answer.py").write_text(ANSWER)
    (start,) = commands(files["/etc/systemd/system/wgnet-mark-wg0.service"], "ExecStart", tmp_path)
    said = run(
        STRICT.format(python=sys.executable, root=tmp_path)
        + f"""
        nft 'table inet others {{
            counter theirs {{ }}
            counter ours {{ }}
            chain before {{ type filter hook prerouting priority raw; udp sport 7 meta mark set 0x77; }}
            chain after {{ type filter hook prerouting priority mangle + 20;
                meta mark 0x77 counter name theirs; meta mark 51820 counter name ours; }}
        }}'
        {start}
        {sys.executable} ask.py 0 198.51.100.2; {sys.executable} ask.py 9 198.51.100.2; ask 51820
        nft -j list counters
        """,
        cwd=tmp_path,
    )
    *answers, counters = said.splitlines()
    assert answers == ["198.51.100.2", "198.51.100.2", "203.0.113.9 2001:db8:9::9"]
    found = [item["counter"] for item in json.loads(counters)["nftables"][1:]]
    assert {each["name"]: each["packets"] for each in found} == {"theirs": 2, "ours": 2}
