"""What changes while the network runs, shown by packets: moves, lost power, reboots, lines that fail, and cheats.

Input: scenarios that run; each test leaves its own as it found it. Few examples stand for all, since a change costs
boots or waiting, and meets the manager and the kernel in the same way in each. `office` has a hub, spokes behind NAT,
both IP versions and preshared keys; `exit-node` moves although even its default route is the tunnel's; `two-hubs` goes
on when one of two is gone; `failover` is about nothing else; `road-warriors` leaves interfaces to a person, and has
with `customers` the spokes that must not reach one another. Under every mode, so that each manager has its turn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import pytest

from lab.checks import bring_up, packets, switch, unreachable
from lab.machine import File
from lab.pinging import until_answered
from lab.running import Running
from lab.settle import settle
from lab.wiring import move_script, return_script, underlay_files
from lab.world import World, moved
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager

#: Seconds of the keepalive that wgnet derives for who cannot be called, and what is added for a slow machine.
_KEEPALIVE, _SLACK = 25, 10
#: Seconds until WireGuard gives a silent session up (KEEPALIVE_TIMEOUT and REKEY_TIMEOUT of Linux), and an answer.
_NEW_SESSION = 15 + 25
#: Seconds after which a NAT box forgets here; after the last packet WireGuard sends one more, unasked, 10 s later.
_NAT_FORGETS, _PASSIVE = 30, 10


@pytest.fixture(autouse=True)
def _settled(running: Running) -> None:
    """Begin when all managers have done what they do at boot."""
    settle(running.network, running.managers, running.hosts)


# --- a host moves ----------------------------------------------------------------------------------------------------


@pytest.mark.scenario_of("office", "exit-node")
@pytest.mark.every_day("-networkd-", "-networkmanager-office")
def test_a_road_warrior_changes_its_address_and_traffic_goes_on(running: Running) -> None:
    hub = {"office": "fra", "exit-node": "ams"}[running.scenario.example]
    index = f"cat /sys/class/net/{_plan(running, 'laptop').interface}/ifindex"
    ours = [one for one in packets(running) if one.arrives and "laptop" in (one.node, _owner(running, one.target))]
    _wait_for_answers(running, "laptop", hub)
    before = running.network.run("laptop", index).stdout
    home, cafe = running.world, moved(running.world, "laptop")
    assert cafe.seen_as("laptop", 4) != home.seen_as("laptop", 4)
    with _pinging(running, "laptop", _address(running, hub)) as answers:
        try:
            _arrive(running, "laptop", cafe, move_script(home, "laptop"))
            _goes_on(running, "laptop", hub, cafe, answers)
            assert unreachable(running, ours) == []
        finally:
            _arrive(running, "laptop", home, return_script(home, "laptop"))
        _goes_on(running, "laptop", hub, home, answers)
    # It is the same interface still: nobody took the tunnel down on the way.
    assert running.network.run("laptop", index).stdout == before
    assert running.against_plan() == []


def _arrive(running: Running, host: str, world: World, plug: str) -> None:
    """Plug a host in somewhere, and have its manager take the addresses of that place."""
    manager, port = running.managers[host], world.uplink(host)
    running.machine.run(plug)
    files = [File(path, text.encode(), mode) for path, text, mode in underlay_files(world, host, manager)]
    running.machine.put(files, node=running.network.node(host))
    if manager is Manager.NETWORKMANAGER:
        command = f"nmcli connection reload && nmcli --wait 30 connection up {port.name}"
    else:
        command = f"networkctl reload && networkctl reconfigure {port.name}"
    running.network.run(host, command)
    settle(running.network, running.managers, [host])


def _goes_on(running: Running, host: str, hub: str, world: World, answers: Callable[[], int]) -> None:
    """Assert that a ping that goes on is answered again, the hub sees the host where it is, and calls it there."""
    arrived, limit = answers(), _KEEPALIVE + _SLACK
    interface, key = _plan(running, hub).interface, _plan(running, host).host.public_key
    endpoints = f"wg show {interface} endpoints"
    place = re.compile(rf"^{re.escape(str(key))}\t{re.escape(world.seen_as(host, 4))}:", re.MULTILINE)
    assert _within(limit, lambda: place.search(running.network.run(hub, endpoints).stdout) is not None), (
        f"{hub} still sees {host} elsewhere: {running.network.run(hub, endpoints).stdout}"
    )
    assert _within(limit, lambda: answers() > arrived), f"{host} has no answers of {hub} any more"
    assert _answered(running, hub, _address(running, host), seconds=5)


# --- hosts restart ---------------------------------------------------------------------------------------------------


@pytest.mark.scenario_of("office", "two-hubs")
@pytest.mark.every_day("-networkd-office", "-networkmanager-two-hubs")
def test_a_hub_loses_its_power_and_the_spokes_find_it_again(running: Running) -> None:
    hub, spoke = {"office": ("fra", "desk"), "two-hubs": ("ams", "shop01")}[running.scenario.example]
    for host in running.hosts:
        if host != hub:
            _wait_for_answers(running, host, hub)
    running.network.power_off(hub)
    # The spokes have sessions, and are told nothing.
    assert not _answered(running, spoke, _address(running, hub), seconds=3)
    _boot(running, hub)
    others = [host for host in running.hosts if host != hub]
    pings = [(host, until_answered(_address(running, hub), _NEW_SESSION + _SLACK)) for host in others]
    results = running.network.run_many(pings, timeout=_NEW_SESSION + 60, check=False)
    assert [host for host, result in zip(others, results, strict=True) if result.status] == []
    assert unreachable(running) == []
    assert running.against_plan() == []


@pytest.mark.scenario_of("office")
@pytest.mark.every_day("-networkd-", "-networkmanager-")
def test_a_spoke_that_reboots_is_what_it_was(running: Running) -> None:
    (before,) = running.states(("laptop",)).values()
    _shut_down(running, "laptop")
    _boot(running, "laptop")
    (after,) = running.states(("laptop",)).values()
    assert after == before
    _wait_for_answers(running, "laptop", "fra")
    assert [line for line in running.against_plan() if line.startswith("laptop:")] == []


def _shut_down(running: Running, host: str) -> None:
    """Let a host stop its services, and end."""
    # It may end before it has said that it was asked to.
    running.network.run(host, "systemctl poweroff", check=False)
    running.machine.run(f"while systemctl is-active --quiet lab-{host}; do sleep 0.2; done", timeout=120)
    running.network.power_off(host)


# --- lines fail ------------------------------------------------------------------------------------------------------


@pytest.mark.scenario_of("failover")
@pytest.mark.every_day("-networkd-", "-networkmanager-")
def test_traffic_takes_the_other_line_when_an_interface_is_down(running: Running) -> None:
    assert _line_in_use(running) == "wg-fibre"
    try:
        _both_ends(running, "wg-fibre", up=False)
        assert _within(_SLACK, lambda: _line_in_use(running) == "wg-lte")
    finally:
        _both_ends(running, "wg-fibre", up=True)
    assert _within(_NEW_SESSION, lambda: _line_in_use(running) == "wg-fibre")
    # Both lines of the head office are one machine's addresses here: its answers may come from either.
    assert running.against_plan(roamed=running.hosts) == []


def _line_in_use(running: Running) -> str:
    """Return the interface by which pings come from the one office to the other, and their answers go; "" for none."""
    # What is down may be gone as well: its numbers are then those of nothing.
    count = "; ".join(
        f"cat /sys/class/net/{name}/statistics/{way}_bytes 2>/dev/null || echo 0"
        for name in ("wg-fibre", "wg-lte")
        for way in ("rx", "tx")
    )
    plain = running.world.plain_at("192.168.50.10").name
    before = [int(word) for word in running.network.run("branch", count).stdout.split()]
    sent = running.network.run(plain, "ping -q -n -c 5 -i 0.2 -w 12 -s 1000 192.168.60.10", check=False)
    after = [int(word) for word in running.network.run("branch", count).stdout.split()]
    if sent.status:
        return ""
    # Keepalives alone come to some hundred bytes.
    used = [new - old > 4000 for old, new in zip(before, after, strict=True)]
    if used == [True, True, False, False]:
        return "wg-fibre"
    return "wg-lte" if used == [False, False, True, True] else "both"


def _both_ends(running: Running, interface: str, *, up: bool) -> None:
    """Take an interface down at both ends, as who watches the line would, or up."""
    for host in running.hosts:
        (plan,) = (one for one in running.prepared.plans[host].interfaces if one.interface == interface)
        switch(running, host, plan, up=up)
        settle(running.network, running.managers, [host])


# --- a person decides ------------------------------------------------------------------------------------------------


@pytest.mark.scenario_of("road-warriors")
def test_a_tunnel_that_a_person_brings_up_waits_for_that(running: Running) -> None:
    bring_up(running)
    running.network.power_off("alice")
    _boot(running, "alice")
    interface = _plan(running, "alice").interface
    assert f"{interface}: " not in running.network.run("alice", "ip -o link show up").stdout
    assert not _answered(running, "alice", "192.168.20.53", seconds=2)
    bring_up(running)
    assert _answered(running, "alice", "192.168.20.53", seconds=_NEW_SESSION)
    assert running.against_plan() == []


# --- spokes that cheat -----------------------------------------------------------------------------------------------


@pytest.mark.scenario_of("road-warriors", "customers")
@pytest.mark.every_day("-networkd-road", "-networkmanager-customers")
def test_the_hub_keeps_spokes_apart_that_both_cheat(running: Running) -> None:
    hub, cheat, other, more = {
        "road-warriors": ("router", "alice", "bob", []),
        "customers": ("gate", "initech", "acme-db", ["172.16.5.10"]),
    }[running.scenario.example]
    bring_up(running)
    assert isinstance(more, list)
    targets = [_address(running, other), *more]
    refuses = f"From {_address(running, hub)} .*Packet filtered"
    past = f"priority 100 iif {_plan(running, hub).interface} lookup main"
    for host in (cheat, other):
        _wait_for_answers(running, host, hub)
    with _cheating(running, cheat, hub, targets), _cheating(running, other, hub, [_address(running, cheat)]):
        for target in targets:
            found = running.network.run(cheat, f"ping -n -c 3 -i 0.5 -w 3 {target}", check=False)
            # The packet does arrive at the hub, which says that it refuses.
            assert found.status and re.search(refuses, found.stdout), found.stdout
        # Nothing else keeps them apart: with a rule before the plan's, the cheats have their way.
        running.network.run(hub, f"ip rule add {past}")
        try:
            assert [target for target in targets if not _answered(running, cheat, target, seconds=10)] == []
        finally:
            running.network.run(hub, f"ip rule del {past}")
    assert running.against_plan(roamed=running.hosts) == []


@contextmanager
def _cheating(running: Running, host: str, hub: str, targets: list[str]) -> Iterator[None]:
    """Let a host's owner send addresses to the hub, and take them from there, that the plan does not let it."""
    interface, key = _plan(running, host).interface, _plan(running, hub).host.public_key
    (line,) = (
        line
        for line in running.network.run(host, f"wg show {interface} allowed-ips").stdout.splitlines()
        if line.startswith(f"{key}\t")
    )
    allowed = line.split("\t")[1].split()
    given = f"wg set {interface} peer {key} allowed-ips"
    lines = [f"{given} {','.join([*allowed, *(f'{target}/32' for target in targets)])}"]
    lines += [f"ip route add {target}/32 dev {interface}" for target in targets]
    running.network.run(host, "\n".join(lines))
    try:
        yield
    finally:
        lines = [f"ip route del {target}/32 dev {interface}" for target in targets]
        running.network.run(host, "\n".join([f"{given} {','.join(allowed)}", *lines]))


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.scenario_of("office", modes=("networkd",))
def test_a_host_behind_nat_can_be_called_after_a_long_silence(running: Running) -> None:
    hub, silent, mute = "fra", "desk", "laptop"
    names = [f"net.netfilter.nf_conntrack_udp_timeout{stream}" for stream in ("", "_stream")]
    boxes = [box.name for box in map(running.world.nat_of, (silent, mute)) if box is not None]
    plan, key = _plan(running, mute), _plan(running, hub).host.public_key
    keepalive = f"wg set {plan.interface} peer {key} persistent-keepalive"
    told = {box: running.network.run(box, f"sysctl {' '.join(names)} | tr -d ' '").stdout.split() for box in boxes}
    try:
        for box in boxes:
            running.network.run(box, f"sysctl -qw {' '.join(f'{name}={_NAT_FORGETS}' for name in names)}")
        # What wgnet derived is taken from one of the two, to show that it is what matters.
        running.network.run(mute, f"{keepalive} off")
        for host in (silent, mute):
            _wait_for_answers(running, host, hub)
        time.sleep(_NAT_FORGETS + _PASSIVE + 5)
        assert _answered(running, hub, _address(running, silent), seconds=5)
        assert not _answered(running, hub, _address(running, mute), seconds=5)
    finally:
        for box in boxes:
            running.network.run(box, f"sysctl -qw {' '.join(told[box])}")
        running.network.run(mute, f"{keepalive} {_KEEPALIVE}")
    _wait_for_answers(running, mute, hub)
    assert running.against_plan() == []


# --- helpers ---------------------------------------------------------------------------------------------------------


def _plan(running: Running, host: str) -> InterfacePlan:
    return running.prepared.plans[host].interfaces[0]


def _address(running: Running, host: str) -> str:
    """Return a host's first IPv4 address in its tunnel."""
    return next(str(one.address.ip) for one in _plan(running, host).addresses if one.address.version == 4)


def _owner(running: Running, address: str) -> str | None:
    """Return the host whose tunnel has an address."""
    for host in running.hosts:
        if any(one.address.ip == ip_address(address) for one in _plan(running, host).addresses):
            return host
    return None


def _answered(running: Running, node: str, target: str, *, seconds: int) -> bool:
    return running.network.run(node, until_answered(target, seconds), timeout=seconds + 60, check=False).status == 0


def _boot(running: Running, host: str) -> None:
    """Give a host its power again."""
    assert running.network.boot([host], running.prepared.credentials) == []
    settle(running.network, running.managers, [host])


def _wait_for_answers(running: Running, host: str, hub: str) -> None:
    """Have sessions both ways."""
    assert _answered(running, host, _address(running, hub), seconds=_NEW_SESSION), f"{host} does not reach {hub}"


@contextmanager
def _pinging(running: Running, host: str, target: str) -> Iterator[Callable[[], int]]:
    """Keep a host pinging; what is yielded returns the number of answers up to now."""
    log = "/run/lab-ping"
    started = running.network.run(host, f"ping -n -i 0.5 {target} >{log} 2>&1 & echo $!").stdout.strip()
    try:
        yield lambda: int(running.network.run(host, f"grep -c 'bytes from' {log} || true").stdout)
    finally:
        with suppress(AssertionError):
            running.network.run(host, f"kill {started}; rm -f {log}")


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within some seconds."""
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            return False
        time.sleep(0.5)
    return True
