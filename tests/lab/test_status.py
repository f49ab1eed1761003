"""`wgnet status` on real hosts: nothing to report of one that is as planned, and by its name each thing that is not.

Input: `office` under each manager. Kernels, managers and resolvers are real here, so a false alarm shows, for which
`apply` would put a good change back. Each test leaves the hosts as it found them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from example_keys import private_key

from lab.product import FOLDER, WGNET, install_product
from lab.running import Running
from lab.settle import settle

# What changes a hub by hand knows how its manager mends it.
pytestmark = [
    pytest.mark.scenario_of("office", modes=("networkd", "networkmanager")),
    # One suite every day, all at night: status is the same everywhere, and two suites take five minutes more.
    pytest.mark.every_day("trixie-"),
]

#: Python and a dozen of tools start slowly under emulation.
_LIMIT = 300
_STRANGER = private_key("office", "stranger").public()


@pytest.fixture(autouse=True)
def _installed(running: Running) -> None:
    """Begin when all managers have done what they do at boot, with wgnet on every host."""
    settle(running.network, running.managers, running.hosts)
    # Other tests put it on some hosts of the same scenario, as they need it.
    results = running.network.run_many([(host, f"test -e {FOLDER}/wgnet") for host in running.hosts], check=False)
    without = [host for host, result in zip(running.hosts, results, strict=True) if result.status]
    install_product(running, without, running.prepared.texts)


def _status(running: Running, host: str, status: int = 0) -> dict[str, Any]:
    """Return what status says of a host, in JSON; `status` is how it is to exit."""
    done = running.network.run(host, f"{WGNET} status --exit-code --format json", timeout=_LIMIT, check=False)
    assert (done.status, done.stderr) == (status, ""), done.stdout[-2000:]
    for plan in running.prepared.plans[host].interfaces:
        assert private_key(plan.network, host).reveal() not in done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.scenario_of("office", "exit-node", "failover")
@pytest.mark.every_day("-networkd-office")
def test_hosts_as_planned_have_nothing_to_report(running: Running) -> None:
    """No manager's ways are taken for drift, and peers go by name; exit nodes have rules, marks and all of DNS."""
    for host in running.hosts:
        found = _status(running, host)
        assert (found["version"], found["host"], found["drift"], found["leftovers"]) == (1, host, False, [])
        plans = running.prepared.plans[host].interfaces
        for interface, plan in zip(found["interfaces"], plans, strict=True):
            assert (interface["state"], interface["drift"], interface["firewall"]) == ("up", [], [])
            assert {peer["name"] for peer in interface["peers"]} == {peer.name for peer in plan.peers}


@pytest.mark.every_day("-networkd-")
def test_a_peer_that_was_heard_of_has_a_handshake(running: Running) -> None:
    """A spoke that keeps alive has spoken with the hub."""
    (peer,) = _status(running, "laptop")["interfaces"][0]["peers"]
    assert peer["name"] == "fra"
    assert peer["latest_handshake"]
    assert peer["sent"] > 0
    assert peer["endpoint"]["live"] is not None


@contextmanager
def _otherwise(running: Running, change: str, undo: str) -> Iterator[None]:
    running.network.run("fra", f"umask 077; wg showconf wg0 >/run/before.conf; {change}")
    try:
        yield
    finally:
        running.network.run("fra", f"wg syncconf wg0 /run/before.conf; rm /run/before.conf; {undo}")


def test_what_is_not_as_planned_is_named(running: Running) -> None:
    """Peers, keys, addresses, routes, parameters: what somebody changed on a running hub, and nothing else."""
    keys = {peer.name: peer.public_key for peer in running.prepared.plans["fra"].interfaces[0].peers}
    change = f"""
        wg set wg0 peer {keys["nyc"]} persistent-keepalive 7 peer {keys["desk"]} preshared-key /dev/null
        wg set wg0 peer {keys["laptop"]} allowed-ips 10.80.0.7/32 peer {keys["phone"]} remove
        wg set wg0 peer {_STRANGER} allowed-ips 10.80.0.99/32
        ip link set wg0 mtu 1400
        ip route add 10.99.0.0/16 dev wg0
        ip address add 10.98.0.1/32 dev wg0
        echo 0 >/proc/sys/net/ipv4/ip_forward
    """
    # `wg syncconf` takes a keepalive that a file does not name for none of its business.
    undo = f"""
        wg set wg0 peer {keys["nyc"]} persistent-keepalive 0
        ip link set wg0 mtu 1420
        ip route del 10.99.0.0/16 dev wg0
        ip address del 10.98.0.1/32 dev wg0
        echo 1 >/proc/sys/net/ipv4/ip_forward
    """
    with _otherwise(running, change, undo):
        found = _status(running, "fra", 3)
        (interface,) = found["interfaces"]
        assert [(one["aspect"], one["subject"], one["expected"], one["found"]) for one in interface["drift"]] == [
            ("mtu", "", "1420", "1400"),
            ("peer", "phone", keys["phone"], None),
            ("peer", _STRANGER, None, _STRANGER),
            ("allowed-ips", "laptop", "fd42:80::7/128", None),
            ("preshared-key", "desk", "the link's", None),
            ("persistent-keepalive", "nyc", "off", "7 s"),
            ("address", "10.98.0.1", None, "10.98.0.1/32"),
            ("route", "10.99.0.0/16", None, "10.99.0.0/16 dev wg0 metric 0"),
            ("forwarding", "IPv4", "on", "off"),
        ]
        text = running.network.run("fra", f"{WGNET} status", timeout=_LIMIT).stdout
        assert re.search(rf"^  {re.escape(_STRANGER)} +never ", text, re.MULTILINE)
        assert re.search(r"^  phone +missing", text, re.MULTILINE)
        assert "    missing preshared key of peer desk" in text
    assert running.against_plan() == []
    _status(running, "fra")


@pytest.mark.every_day("-networkd-")
def test_a_firewall_that_drops_what_the_hub_is_for_is_named(running: Running) -> None:
    """A policy of drop, and no rule that lets WireGuard in or its peers through; one that does is enough."""
    rules = """
        table inet lab {
          chain input {
            type filter hook input priority filter; policy drop;
            ct state established,related accept; iifname "lo" accept; tcp dport 22 accept; RULE;
          }
          chain forward { type filter hook forward priority filter; policy drop; ct state established accept; RULE2; }
        }
    """

    def load(first: str, second: str) -> str:
        text = rules.replace("RULE2", second).replace("RULE", first)
        return f"nft delete table inet lab 2>/dev/null || :\nnft -f - <<'EOF'\n{text}\nEOF\n"

    with _otherwise(running, load("counter", "counter"), "nft delete table inet lab 2>/dev/null || :"):
        (interface,) = _status(running, "fra")["interfaces"]
        assert [(one["need"].split()[0], one["table"], one["chain"]) for one in interface["firewall"]] == [
            ("let", "lab", "input"),
            ("forward", "lab", "forward"),
            ("forward", "lab", "forward"),
        ]
        running.network.run("fra", load("udp dport 51820 accept", 'iifname "wg0" accept'))
        assert _status(running, "fra")["interfaces"][0]["firewall"] == []
    assert running.against_plan() == []


@pytest.mark.every_day("-networkd-")
def test_a_link_that_somebody_took_down_is_down(running: Running) -> None:
    """One difference, not one for each of its addresses and routes."""
    running.network.run("nyc", "ip link set wg0 down")
    try:
        (interface,) = _status(running, "nyc", 3)["interfaces"]
        assert interface["state"] == "down"
        assert [(one["aspect"], one["expected"], one["found"]) for one in interface["drift"]] == [
            ("link", "up", "down")
        ]
    finally:
        by_manager = {
            "networkd": "networkctl reconfigure wg0 || networkctl up wg0",
            "networkmanager": "nmcli --wait 30 connection up office",
        }
        running.network.run("nyc", f"ip link set wg0 up; {by_manager[running.managers['nyc'].value]}")
    settle(running.network, running.managers, ["nyc"])
    assert running.against_plan() == []
