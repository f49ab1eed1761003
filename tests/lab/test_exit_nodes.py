"""Exit nodes, by what others see: whose address traffic bears outside, what stays at home, and who is asked for names.

A responder tells whoever connects the address that it was seen from, as websites do that answer "what is my address".
It stands at strangers on the internet, on local networks and on hosts; the tests hold what it says against the world.
Each test ends the responders that it started, and changes nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from example_keys import given_preshared_key

from lab.machine import Machine
from lab.running import Running
from lab.scenarios import Scenario, prepare
from lab.world import OUTSIDE, STRANGERS
from wgnet.model.topology import TABLE_OFF
from wgnet.plan.types import InterfacePlan

_PORT = 7007
#: What the responder answers to every query for an IPv4 address.
_ANSWER = "198.51.100.77"
#: Seconds for a connection through tunnels whose handshakes are yet to come, and for queries on a slow machine.
_PATIENCE = 40
#: An IPv4 ping of ping(8)'s default size in a tunnel: padded to 16 bytes, and a data message's header and tag.
_PING_IN_TUNNEL = 96 + 32
#: Seconds after which WireGuard no longer uses a handshake: REJECT_AFTER_TIME.
_REJECT_AFTER = 180
_EXIT_EXAMPLES = ("exit-node", "phone", "provider")

#: Python for the guest: takes the addresses at which it answers as a DNS server; says its process id when it listens.
_RESPONDER = f"""
import os, select, socket, sys
seen = socket.create_server(("", {_PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
servers = []
for address in sys.argv[1:]:
    servers.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM))
    servers[-1].bind((address, 53))
process = os.fork()
if process:
    print(process)
    sys.exit()
os.setsid()
while True:
    for ready in select.select([seen, *servers], [], [])[0]:
        try:
            if ready is seen:
                client, peer = seen.accept()
                client.sendall(peer[0].encode().replace(b"::ffff:", b"") + b"\\n")
                client.close()
                continue
            query, peer = ready.recvfrom(4096)
            end = query.index(0, 12) + 5
            wanted = query[end - 4:end - 2] == b"\\0\\1"
            answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton("{_ANSWER}")
            head = query[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if wanted else b"\\0\\0") + bytes(4)
            ready.sendto(head + query[12:end] + (answer if wanted else b""), peer)
        except OSError:
            pass
"""


@dataclass(frozen=True)
class Client:
    """A host that sends everything through an exit node."""

    host: str
    exit: str
    plan: InterfacePlan

    def own(self, version: int) -> str:
        """Return the address that it has in the tunnel's network."""
        return next(str(one.address.ip) for one in self.plan.addresses if one.address.version == version)


def _plans(running: Running) -> Iterator[InterfacePlan]:
    for host in running.hosts:
        yield from running.prepared.plans[host].interfaces


def _clients(running: Running) -> list[Client]:
    found = [
        Client(plan.host.name, plan.host.exit_node, plan)
        for plan in _plans(running)
        if plan.host.exit_node is not None and plan.table != TABLE_OFF
    ]
    assert found
    return found


def _interface_of(running: Running, node: str) -> str:
    """Return the WireGuard interface of a node, an external one too."""
    return next((plan.interface for plan in _plans(running) if plan.host.name == node), "wg0")


def _strangers(running: Running, client: Client) -> list[str]:
    """Return a stranger of each IP version who is no business of `bypass`."""
    addresses = [a for a in STRANGERS if not any(ip_address(a) in prefix for prefix in client.plan.bypass)]
    assert all(running.world.outside.owns(address) for address in addresses)
    assert {ip_address(address).version for address in addresses} == {4, 6}
    return addresses


def _public(running: Running, node: str) -> list[str]:
    """Return a node's public addresses, one of each IP version."""
    return [address for version in (4, 6) if (address := running.world.uplink(node).address(version))]


@contextmanager
def _responders(running: Running, nodes: Mapping[str, Iterable[str]]) -> Iterator[None]:
    """Let a responder run on each of `nodes`, a DNS server too at the addresses that are given."""
    starting = [
        (node, f"python3 -ISc {shlex.quote(_RESPONDER)} {' '.join(addresses)}") for node, addresses in nodes.items()
    ]
    started = running.network.run_many(starting, check=False)
    ending = [
        (node, f"kill {int(result.stdout)}") for node, result in zip(nodes, started, strict=True) if not result.status
    ]
    try:
        assert len(ending) == len(nodes), [result.stderr for result in started]
        yield
    finally:
        running.network.run_many(ending)


def _asked(running: Running, questions: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], str]:
    """Return what the responders say at addresses: (node, address) -> the source address, "-" for no answer."""
    script = (
        'ask() { { read -r -t 10 seen <&3 && echo "$1 $seen"; } 3<>"/dev/tcp/$1/'
        f'{_PORT}" || echo "$1 $(ip -o route get "$1" 2>&1)" >&2; }}\n'
    )
    scripts = [
        (node, script + "".join(f"ask {address} &\n" for address in addresses) + "wait")
        for node, addresses in questions.items()
    ]
    found = {(node, address): "-" for node, addresses in questions.items() for address in addresses}
    results = running.network.run_many(scripts, timeout=_PATIENCE, check=False)
    for (node, _), result in zip(scripts, results, strict=True):
        found.update({(node, address): str(ip_address(seen)) for address, seen in _pairs(result.stdout)})
        if result.stderr:
            print(f"{node}: {result.stderr}")
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(words[0], words[1]) for line in text.splitlines() if len(words := line.split()) == 2]


@pytest.mark.scenario_of(*_EXIT_EXAMPLES)
@pytest.mark.every_day("-networkd-", "-networkmanager-", "-mixed-phone")
def test_everything_leaves_at_the_exit_node_but_what_is_near(running: Running) -> None:
    world = running.world
    expected = {}
    nodes = {OUTSIDE}
    for client in _clients(running):
        for address in _strangers(running, client):
            expected[client.host, address] = world.seen_as(client.exit, ip_address(address).version)
            assert expected[client.host, address] != world.seen_as(client.host, ip_address(address).version)
        # The exit node at its public address is a peer like any other, and its own packets alone go there directly.
        for address in _public(running, client.exit):
            expected[client.host, address] = client.own(ip_address(address).version)
        near = world.near(client.host)
        assert near is not None
        for version in (4, 6):
            there, here = near.ports[0].address(version), world.uplink(client.host).address(version)
            assert there is not None
            assert here is not None
            expected[client.host, there] = here
        nodes |= {client.exit, near.name}
    questions = {client.host: [a for host, a in expected if host == client.host] for client in _clients(running)}
    with _responders(running, dict.fromkeys(sorted(nodes), ())):
        assert _asked(running, questions) == expected


@pytest.mark.scenario_of(*_EXIT_EXAMPLES)
@pytest.mark.every_day("-networkd-", "-networkmanager-", "-mixed-phone")
def test_the_tunnels_own_packets_do_not_loop(running: Running) -> None:
    clients = _clients(running)
    scripts = []
    for client in clients:
        name = client.plan.interface
        stranger = next(a for a in _strangers(running, client) if ip_address(a).version == 4)
        scripts.append(
            (
                client.host,
                f"ping -q -n -c 1 -w {_PATIENCE} {stranger} >&2\nwg show {name} transfer\n"
                f"ping -q -n -c 20 -i 0.02 -w {_PATIENCE} {stranger} >&2\necho @@\nwg show {name} transfer\n"
                f'echo @@\nwg show {name} latest-handshakes\necho now "$(date +%s)"\necho @@\n'
                f"wg show {name} endpoints\necho @@\nmark=$(wg show {name} fwmark)\n"
                f"for end in $(wg show {name} endpoints | cut -f2 | sed 's/:[0-9]*$//'); do\n"
                '  ip -o route get "$end" mark "$mark"; ip -o route get "$end"\ndone',
            )
        )
    results = running.network.run_many(scripts, timeout=2 * _PATIENCE)
    exits = sorted({client.exit for client in clients})
    wanted = [(node, f"wg show {_interface_of(running, node)} endpoints") for node in exits]
    seen = {
        node: dict(_pairs(result.stdout))
        for node, result in zip(exits, running.network.run_many(wanted), strict=True)
    }  # fmt: skip
    for client, result in zip(clients, results, strict=True):
        before, after, handshakes, endpoints, routes = result.stdout.split("@@\n")
        key = next(str(peer.public_key) for peer in client.plan.peers if peer.name == client.exit)
        sent = [int(next(line.split()[2] for line in text.splitlines() if key in line)) for text in (before, after)]
        # What loops is sent again and again; a keepalive or a handshake may come between.
        assert 20 * _PING_IN_TUNNEL <= sent[1] - sent[0] < 25 * _PING_IN_TUNNEL
        when = dict(_pairs(handshakes))
        assert 0 <= int(when["now"]) - int(when[key]) < _REJECT_AFTER
        underlay = running.world.uplink(client.host).name
        devices = re.findall(r" dev (\S+)", routes)
        assert devices == [underlay, client.plan.interface] * len(_pairs(endpoints))
        # No tunnel in the tunnel: the exit node sees the tunnel's packets come from where the host stands.
        address = ip_address(running.world.seen_as(client.host, 4))
        there, _, _ = seen[client.exit][str(client.plan.host.public_key)].rpartition(":")
        assert ip_address(there) == address


#: For a host: pings under each kind of reverse path filter, with and without the table that gives replies their mark.
_FILTERED = """
set -u
cd /proc/sys/net/ipv4/conf
before=$(cat all/rp_filter {link}/rp_filter)
restore() {{
  systemctl start {unit}
  set -- $before
  echo "$1" >all/rp_filter; echo "$2" >{link}/rp_filter
}}
trap restore EXIT
filter() {{ echo "$1" >all/rp_filter; echo "$1" >{link}/rp_filter; }}
dropped() {{ nstat -asz TcpExtIPReversePathFilter | awk '$1 != "#kernel" {{ print $2 }}'; }}
passes() {{
  local were; were=$(dropped)
  if ping -q -n -c 1 -w "$2" {stranger} >&2; then echo "$1: passes"
  elif [ "$(dropped)" -gt "$were" ]; then echo "$1: dropped"
  else echo "$1: lost"; fi
}}
filter 1; passes strict {patience}
systemctl stop {unit}; passes "strict, no mark" 4
filter 2; passes "loose, no mark" {patience}
systemctl start {unit}; passes loose {patience}
filter 1; passes "strict again" {patience}
"""


@pytest.mark.scenario_of("exit-node", modes=("networkd", "networkmanager"))
def test_replies_pass_a_strict_reverse_path_filter(running: Running) -> None:
    clients = _clients(running)
    scripts = [
        (
            client.host,
            _FILTERED.format(
                link=running.world.uplink(client.host).name,
                unit=f"wgnet-mark-{client.plan.interface}.service",
                stranger=next(a for a in _strangers(running, client) if ip_address(a).version == 4),
                patience=_PATIENCE,
            ),
        )
        for client in clients
    ]
    for result in running.network.run_many(scripts, timeout=5 * _PATIENCE):
        # Without the mark it is this filter that drops them, so that it is the mark that lets them pass.
        assert result.stdout.splitlines() == [
            "strict: passes",
            "strict, no mark: dropped",
            "loose, no mark: passes",
            "loose: passes",
            "strict again: passes",
        ]


@pytest.mark.scenario_of("exit-node", modes=("networkd", "networkmanager"))
@pytest.mark.every_day("-networkd-")
def test_marks_of_other_packets_are_left_alone(running: Running) -> None:
    client = _clients(running)[0]
    world, mark, link = running.world, client.plan.firewall_mark, running.world.uplink(client.host)
    near, stranger = world.near(client.host), _strangers(running, client)[0]
    assert near is not None
    rules = f"""
table inet lab_marks {{
  counter theirs {{ }}
  counter ours {{ }}
  chain before {{
    type filter hook prerouting priority raw
    iifname "{link.name}" udp dport {_PORT} meta mark set 0x77
  }}
  chain after {{
    type filter hook prerouting priority mangle + 10
    iifname "{link.name}" udp dport {_PORT} meta mark 0x77 counter name theirs
    iifname "{link.name}" meta l4proto udp meta mark {mark} counter name ours
  }}
}}"""
    listed = "nft -j list counters table inet lab_marks; nft delete table inet lab_marks"
    try:
        running.network.run(client.host, f"nft -f - <<'RULES'\n{rules}\nRULES")
        running.network.run(near.name, f"for each in 1 2 3; do echo >/dev/udp/{link.address(4)}/{_PORT}; done")
        running.network.run(client.host, f"ping -q -n -c 2 -i 0.2 -w {_PATIENCE} {stranger}", timeout=2 * _PATIENCE)
    finally:
        result = running.network.run(client.host, listed, check=False)
    counters = [one["counter"] for one in json.loads(result.stdout)["nftables"] if "counter" in one]
    packets = {one["name"]: one["packets"] for one in counters}
    assert packets["theirs"] == 3
    assert packets["ours"] >= 2


@pytest.mark.scenario_of("exit-node")
@pytest.mark.every_day("-networkd-", "-networkmanager-")
def test_bypass_and_hosts_without_exit_node_leave_directly(running: Running) -> None:
    world = running.world
    directly = {host: list(STRANGERS) for host in ("archive", "nas")}
    (laptop,) = (client for client in _clients(running) if client.host == "laptop")
    directly["laptop"] = [a for a in STRANGERS if any(ip_address(a) in prefix for prefix in laptop.plan.bypass)]
    assert directly["laptop"] == ["192.0.2.80"]
    # What is no exit node of a host is a stranger at its public address, and a peer at that of the tunnel.
    expected = {
        (host, address): world.seen_as(host, ip_address(address).version)
        for host, addresses in directly.items()
        for address in addresses
    }
    for version, address in zip((4, 6), _public(running, "sto"), strict=True):
        expected["laptop", address] = world.seen_as("ams", version)
        expected["nas", address] = world.seen_as("nas", version)
    for address, own in (("10.50.0.2", "10.50.0.10"), ("fd42:50::2", "fd42:50::10")):
        expected["laptop", address] = own
    questions = {host: [a for name, a in expected if name == host] for host in directly}
    with _responders(running, {OUTSIDE: (), "sto": ()}):
        assert _asked(running, questions) == expected


@pytest.mark.scenario_of("exit-node")
@pytest.mark.every_day("-networkd-", "-networkmanager-")
def test_table_off_makes_no_route_and_serves_what_binds_itself(running: Running) -> None:
    (state,) = running.states(("archive",)).values()
    own = state.interfaces["exits"].addresses
    # NetworkManager makes the routes to the prefixes of the host's own addresses nevertheless.
    near = (ip_network("fe80::/64"), ip_network("10.50.0.0/24"), ip_network("fd42:50::/64"))
    assert own
    assert [route for route in state.routes if route.destination not in near and not _is_own(route, own)] == []
    assert state.rules == frozenset()
    client = (
        "import socket; s = socket.socket(); s.settimeout(10); s.setsockopt(1, socket.SO_BINDTODEVICE, b'exits');"
        f" s.connect(('{STRANGERS[0]}', {_PORT})); print(s.recv(99).decode())"
    )
    with _responders(running, {OUTSIDE: ()}):
        result = running.network.run("archive", f"python3 -ISc {shlex.quote(client)}")
    assert result.stdout.strip() == running.world.seen_as("sto", 4)


def _is_own(route: Any, addresses: Iterable[Any]) -> bool:
    return any(route.destination == ip_network(str(one.address.ip)) for one in addresses)


@pytest.mark.scenario_of("exit-node")
@pytest.mark.every_day("-networkd-", "-networkmanager-")
def test_masquerading_leaves_traffic_between_peers_alone(running: Running) -> None:
    # The exit nodes of both forward this, and translate what the same hosts send to strangers.
    own = {name: {4: f"10.50.0.{number}", 6: f"fd42:50::{number}"} for name, number in
           (("laptop", 10), ("desktop", 11), ("nas", 13))}  # fmt: skip
    expected = {
        (source, own[target][version]): own[source][version]
        for source, target in (("laptop", "desktop"), ("desktop", "laptop"), ("nas", "laptop"))
        for version in (4, 6)
    }
    questions = {host: [a for name, a in expected if name == host] for host in own}
    with _responders(running, {"laptop": (), "desktop": ()}):
        # A host of wg-quick sends no keepalives: it can be called once it has called.
        first = _asked(running, {"desktop": questions.pop("desktop")})
        assert first | _asked(running, questions) == expected


@pytest.mark.scenario_of(*_EXIT_EXAMPLES)
@pytest.mark.every_day("-networkd-", "-networkmanager-", "-mixed-phone")
def test_names_are_asked_for_in_the_network(running: Running) -> None:
    clients = _clients(running)
    servers: dict[str, list[str]] = {}
    for client in clients:
        assert client.plan.dns is not None
        for server in map(str, client.plan.dns.servers):
            owner = [plan.host.name for plan in _plans(running) if server in _own_addresses(plan)]
            given = servers.setdefault(owner[0] if owner else client.exit, [])
            given.extend([] if server in given else [server])
    assert servers
    for host, state in running.states().items():
        for plan in running.prepared.plans[host].interfaces:
            dns = state.interfaces[plan.interface].dns
            assert dns is not None
            if host in {client.host for client in clients}:
                assert plan.dns is not None
                assert dns.servers == tuple(map(str, plan.dns.servers))
                assert "~." in dns.domains
                assert dns.default_route is True
            elif plan.dns is None or not plan.dns.servers:
                assert dns.servers == ()
                assert "~." not in dns.domains
    # A name that nobody asked for before, so that no cache has it.
    scripts = [
        (client.host, f"resolvectl query -4 {client.host}.example.org; getent ahostsv4 host.{client.host}.example.org")
        for client in clients
    ]
    with _responders(running, servers):
        results = running.network.run_many(scripts, timeout=_PATIENCE)
    for client, result in zip(clients, results, strict=True):
        assert re.search(rf"{client.host}\.example\.org: {_ANSWER} +-- link: {client.plan.interface}\n", result.stdout)
        assert re.search(rf"^{_ANSWER} +STREAM ", result.stdout, re.MULTILINE)


def _own_addresses(plan: InterfacePlan) -> set[str]:
    return {str(one.address.ip) for one in plan.addresses}


@pytest.mark.scenario_of("provider")
def test_a_given_preshared_key_is_in_force_on_both_ends(running: Running) -> None:
    (client,) = _clients(running)
    (peer,) = client.plan.peers
    secret = given_preshared_key("/etc/wgnet/veil-provider.psk")
    ours = running.network.run(
        client.host,
        f"ping -q -n -c 1 -w {_PATIENCE} {STRANGERS[0]} >&2\nwg show {client.plan.interface} preshared-keys",
    )
    theirs = running.network.run(client.exit, "wg show wg0 preshared-keys")
    # Whether they are equal, not what they are: a failure does not print them.
    equal_here = _pairs(ours.stdout) == [(str(peer.public_key), secret)]
    equal_there = _pairs(theirs.stdout) == [(str(client.plan.host.public_key), secret)]
    assert equal_here
    assert equal_there


def _only_ipv4(text: dict[str, Any]) -> None:
    """Let the server of the example `phone` be an exit node for IPv4 alone."""
    assert text["hosts"]["server"]["advertise"] == ["0.0.0.0/0", "::/0"]
    text["hosts"]["server"]["advertise"] = ["0.0.0.0/0"]
    text["expect"] = [line for line in text["expect"] if ":" not in line["to"]]
    assert text["expect"]


@pytest.mark.every_day("-networkd]", "-networkmanager]")
def test_an_exit_node_for_ipv4_leaves_ipv6_alone(machine: Machine, suite: str, mode: str, tmp_path: Path) -> None:
    scenario = Scenario(suite, "phone", mode)
    running = Running(machine, scenario, tmp_path, prepare(scenario, tmp_path, _only_ipv4))
    assert running.problems == []
    assert running.against_plan() == []
    (client,) = _clients(running)
    expected = {("phone", "10.77.0.1"): "10.77.0.2", ("phone", "fd42:77::1"): "fd42:77::2"}
    for address in STRANGERS:
        version = ip_address(address).version
        expected["phone", address] = running.world.seen_as("server" if version == 4 else "phone", version)
    with _responders(running, {OUTSIDE: (), "server": ()}):
        assert _asked(running, {client.host: [address for _, address in expected]}) == expected
    rules = running.network.run("phone", "ip -6 rule; ip -6 route show default; ip rule")
    own, _, other = rules.stdout.partition("default ")
    assert "fwmark" not in own, "IPv6 has a rule of the exit node"
    assert "fwmark" in other
    assert f" dev {running.world.uplink('phone').name} " in other.splitlines()[0]
    running.close()
