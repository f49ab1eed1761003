"""What else manages a machine's network: the other manager, firewalld, netplan, and systemd-resolved or none.

Input: three hosts of a world of its own, of which `edge` is under each manager in turn. Output: its tunnel stays as it
is, or is what the neighbour's own words say; and where a file of wgnet's is what does it, the same goes wrong without.
docs/interop.md has the table. The hosts are shared: each test leaves them as it found them, or closes their world.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_keys import private_key

from lab.conftest import Lab
from lab.machine import File, Result
from lab.pinging import until_answered
from lab.product import WGNET, install_product
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from lab.settle import settle
from lab.wiring import underlay_files
from wgnet.syntax.spec import Manager

HUB, EDGE, FAR = "fra", "edge", "far"
ADDRESSES = {HUB: "10.80.0.1", EDGE: "10.80.0.2", FAR: "10.80.0.3"}
NETPLAN = "/etc/netplan/50-lab.yaml"
_RESOLVCONF = "/usr/sbin/resolvconf"
_LIMIT = 300
#: What a neighbour could take away, in an order of its own.
_STATE = (
    "ip -o address show dev wg0 | awk '{print $4}' | sort; ip route show dev wg0; ip -6 route show dev wg0\n"
    "cat /sys/class/net/wg0/ifindex; wg show wg0 allowed-ips\n"
)
#: An administrator keeps the uplink for networkd; what wgnet says of the tunnel is added to it.
_UPLINK = "/etc/NetworkManager/conf.d/10-uplink.conf"
_START_NETWORKMANAGER = (
    f"printf '[keyfile]\\nunmanaged-devices=interface-name:e*\\n' >{_UPLINK}\n"
    "systemctl start NetworkManager; nm-online -s -q -t 120\n"
)
_KEEPS_OFF = "/etc/NetworkManager/conf.d/50-wgnet-wg0.conf"
#: As somebody writes it who has networkd alone in mind.
_EVERY_LINK = "/etc/systemd/network/10-all.network"
_UNMANAGED = "/etc/systemd/network/05-wgnet-wg0.network"
_SETUP = "networkctl --no-legend --no-pager list wg0 | awk '{print $NF}'"
_LISTENER = """\
import socket
server = socket.create_server(("10.80.0.2", 8080))
while True:
    server.accept()[0].close()
"""

#: Answers every question for an address with one.
_NAME_SERVER = """\
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.80.0.1", 53))
while True:
    question, sender = server.recvfrom(1500)
    end = question.index(b"\\0", 12) + 5
    found = question[end - 4 : end - 2] == b"\\0\\1"
    record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4" + bytes((192, 0, 2, 99)) if found else b""
    head = question[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if found else b"\\0\\0") + bytes(4)
    server.sendto(head + question[12:end] + record, sender)
"""


def topology(manager: str) -> dict[str, Any]:
    """Return a hub, the host that has neighbours, and one that reaches it through the hub."""
    hosts: dict[str, Any] = {
        HUB: {"endpoint": "fra.example.net"},
        EDGE: {"manager": manager, "keepalive": "25"},
        FAR: {"keepalive": "25"},
    }
    if manager == "networkmanager":
        hosts[EDGE]["zone"] = "trusted"
    for name, host in hosts.items():
        number = ADDRESSES[name].rpartition(".")[2]
        host["addresses"] = [ADDRESSES[name], f"fd42:80::{number}"]
        host["public-key"] = private_key("corp", name).public()
    return {
        "wgnet": "1",
        "network": {
            "name": "corp",
            "interface": "wg0",
            "subnets": ["10.80.0.0/24", "fd42:80::/64"],
            "dns": {"servers": [ADDRESSES[HUB]], "search": ["corp.example.com"]},
        },
        "peering": [{"hub": HUB}],
        "hosts": hosts,
    }


class Neighbourhood:
    """The three hosts in a machine, with wgnet on the hub and on `edge`."""

    def __init__(self, lab: Lab, suite: str, manager: str, folder: Path) -> None:
        self.machine, self.manager = lab.machine(suite), Manager(manager)
        scenario = Scenario(suite, "neighbours", manager)
        managers = {HUB: Manager.NETWORKD, EDGE: self.manager, FAR: Manager.NETWORKD}
        prepared = prepare_texts({"corp.yaml": topology(manager)}, scenario, folder, managers)
        self.running = Running(self.machine, scenario, folder, prepared)
        self.network = self.running.network
        assert self.running.problems == []
        install_product(self.running, [HUB, EDGE], prepared.texts)

    def run(self, script: str, host: str = EDGE, *, check: bool = True) -> Result:
        return self.network.run(host, script, timeout=_LIMIT, check=check)

    def state(self) -> str:
        """Return all of the tunnel that a neighbour could take away."""
        return self.run(_STATE).stdout

    def until(self, state: str) -> None:
        """Wait until the tunnel is again as it was."""
        until = time.monotonic() + 60
        while (now := self.state()) != state:
            assert time.monotonic() < until, now
            time.sleep(0.5)

    def pings(self, host: str = EDGE, target: str = HUB) -> None:
        """Wait for an answer through the tunnel."""
        self.run(until_answered(ADDRESSES[target], 40), host)

    def status(self, host: str = EDGE) -> dict[str, Any]:
        """Return what `wgnet status` says of the tunnel, which is as planned."""
        done = self.run(f"{WGNET} status --exit-code --format json", host)
        (found,) = json.loads(done.stdout)["interfaces"]
        assert isinstance(found, dict)
        return found

    def settle(self) -> None:
        settle(self.network, self.running.managers, [EDGE])

    def close(self) -> None:
        self.running.close()


class _Worlds:
    """The one world that is up, of a suite and a manager."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab, self._folder = lab, folder
        self._now: tuple[tuple[str, str], Neighbourhood] | None = None

    def get(self, suite: str, manager: str) -> Neighbourhood:
        if self._now is None or self._now[0] != (suite, manager) or self._now[1].machine.ended:
            self.close()
            folder = self._folder / f"{suite}-{manager}"
            self._now = (suite, manager), Neighbourhood(self._lab, suite, manager, folder)
        return self._now[1]

    def close(self) -> None:
        if self._now is not None:
            self._now[1].close()
            self._now = None


@pytest.fixture(scope="module")
def worlds(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Worlds]:
    """Keep a world from test to test."""
    found = _Worlds(lab, tmp_path_factory.mktemp("neighbours"))
    yield found
    found.close()


@pytest.fixture
def hosts(worlds: _Worlds, suite: str, hub_manager: str) -> Neighbourhood:
    """The three hosts; `edge` has the manager that the test's name says."""
    return worlds.get(suite, hub_manager)


# --- the other manager -----------------------------------------------------------------------------------------------


@pytest.mark.every_day("trixie-networkd")
def test_the_other_manager_leaves_the_interface_alone(hosts: Neighbourhood, worlds: _Worlds) -> None:
    """It is restarted, switched off, told of every link; without wgnet's file the tunnel would lose its addresses."""
    hosts.pings()
    before = hosts.state()
    try:
        if hosts.manager is Manager.NETWORKD:
            _beside_networkmanager(hosts, before)
        else:
            _beside_networkd(hosts, before)
    finally:
        hosts.run(
            f"systemctl stop NetworkManager; rm -f {_UPLINK}"
            if hosts.manager is Manager.NETWORKD
            else f"rm -f {_EVERY_LINK}; systemctl stop systemd-networkd.socket systemd-networkd.service"
        )
    if hosts.manager is Manager.NETWORKMANAGER:
        # networkd has had it.
        worlds.close()


def _beside_networkmanager(hosts: Neighbourhood, before: str) -> None:
    switched_off = "nmcli networking off; sleep 2"
    hosts.run(_START_NETWORKMANAGER)
    for script in ("true", "systemctl restart NetworkManager; nm-online -s -q -t 120", switched_off):
        assert "\nwg0:unmanaged\n" in "\n" + hosts.run(f"{script}\nnmcli -t -f DEVICE,STATE device").stdout
        assert hosts.state() == before
    hosts.run("nmcli networking on; sleep 1")
    assert hosts.state() == before
    hosts.pings()
    # It is the file that does it.
    hosts.run(f"rm {_KEEPS_OFF}; systemctl restart NetworkManager; nm-online -s -q -t 120; {switched_off}")
    assert ADDRESSES[EDGE] not in hosts.state()
    hosts.run("nmcli networking on; sleep 1")
    assert ADDRESSES[EDGE] not in hosts.state()
    # What networkd takes for there is set again, and NetworkManager hears at once what is not for it.
    said = hosts.run(f"{WGNET} apply").stdout
    assert "'edge': applied" in said
    assert hosts.state() == before
    assert "\nwg0:unmanaged\n" in "\n" + hosts.run("nmcli -t -f DEVICE,STATE device").stdout
    hosts.pings()


def _beside_networkd(hosts: Neighbourhood, before: str) -> None:
    # The underlay is NetworkManager's, too, and in none of wgnet's files.
    hosts.run(
        f"mkdir -p /etc/systemd/network; printf '[Match]\\nName=wg*\\n\\n[Network]\\nDHCP=yes\\n' >{_EVERY_LINK}\n"
        "systemctl start systemd-networkd"
    )
    for script in ("true", "systemctl restart systemd-networkd", "networkctl reload", "networkctl reconfigure wg0"):
        assert hosts.run(f"{script} || true; sleep 2; {_SETUP}").stdout.split() == ["unmanaged"]
        assert hosts.state() == before
    hosts.pings()
    # It is the file that does it.
    without = f"rm {_UNMANAGED}; systemctl restart systemd-networkd; sleep 5; {_SETUP}"
    assert hosts.run(without).stdout.split() != ["unmanaged"]
    if hosts.running.scenario.suite != "bookworm":
        # 252 only adds what its file says.
        assert ADDRESSES[EDGE] not in hosts.state()
    # What NetworkManager takes for there is given again, and networkd hears at once what is not for it.
    said = hosts.run(f"{WGNET} apply").stdout
    assert "'edge': applied" in said
    assert hosts.run(_SETUP).stdout.split() == ["unmanaged"]
    hosts.settle()
    assert hosts.state() == before
    hosts.pings()


# --- a person ---------------------------------------------------------------------------------------------------------


@pytest.mark.every_day("trixie-networkd")
def test_what_a_person_took_away_is_given_again(hosts: Neighbourhood) -> None:
    """The link is down, or asks another DNS server: the manager believes that all is as it made it."""
    hosts.pings()
    before = hosts.state()
    for deed in ("ip link set wg0 down", "resolvectl dns wg0 9.9.9.9"):
        hosts.run(deed)
        assert hosts.run(f"{WGNET} status --exit-code", check=False).status == 3
        said = hosts.run(f"{WGNET} apply").stdout
        assert "'edge': applied" in said
        hosts.settle()
        hosts.status()
        # A link-local address is made by chance, each time that the link comes up.
        until = time.monotonic() + 60
        while _without_link_local(now := hosts.state()) != _without_link_local(before):
            assert time.monotonic() < until, f"{before}\n{now}"
            time.sleep(0.5)
    hosts.pings()


def _without_link_local(state: str) -> list[str]:
    return [line for line in state.splitlines() if not line.startswith("fe80:")]


# --- systemd-resolved, or none ---------------------------------------------------------------------------------------


@pytest.mark.every_day("[trixie]")
def test_a_host_without_resolved(worlds: _Worlds, suite: str) -> None:
    """Of networkd's servers nobody hears, and wgnet says so."""
    hosts = worlds.get(suite, "networkd")
    assert hosts.status()["dns_unread"] is False
    try:
        hosts.run("systemctl mask --quiet --runtime --now systemd-resolved")
        assert hosts.status()["dns_unread"] is True
        assert "DNS: nobody here reads 10.80.0.1: systemd-resolved, " in hosts.run(f"{WGNET} status").stdout
        # The rest is as planned, and neither put back nor found to be done again.
        for command in ("apply", "plan --exit-code"):
            done = hosts.run(f"{WGNET} {command}")
            assert "warning[WG6023]: nobody here reads the DNS servers of 'wg0'" in done.stderr
    finally:
        hosts.run("systemctl unmask --quiet --runtime systemd-resolved; systemctl start systemd-resolved")
    hosts.settle()
    hosts.run(f"until resolvectl dns wg0 | grep -q {ADDRESSES[HUB]}; do sleep 0.3; done")
    assert hosts.status()["dns_unread"] is False


@pytest.mark.every_day()
def test_a_host_whose_networkmanager_writes_resolv_conf(worlds: _Worlds, suite: str) -> None:
    """Where there is no systemd-resolved, a name that only the network's server knows is found all the same."""
    hosts = worlds.get(suite, "networkmanager")
    assert hosts.status()["dns_unread"] is False
    try:
        _find_names_without_resolved(hosts)
    finally:
        hosts.run(
            "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf\n"
            f"[ ! -e {_RESOLVCONF}.away ] || mv {_RESOLVCONF}.away {_RESOLVCONF}\n"
            "systemctl unmask --quiet --runtime systemd-resolved; systemctl start systemd-resolved\n"
            "systemctl restart NetworkManager"
        )
    hosts.settle()
    hosts.run(f"until resolvectl dns wg0 | grep -q {ADDRESSES[HUB]}; do sleep 0.3; done")
    assert hosts.status()["dns_unread"] is False


def _find_names_without_resolved(hosts: Neighbourhood) -> None:
    hosts.machine.put([File("/run/names.py", _NAME_SERVER.encode())], node=hosts.network.node(HUB))
    hosts.run("systemd-run --quiet --unit=lab-names python3 /run/names.py", HUB)
    try:
        hosts.run(
            "systemctl mask --quiet --runtime --now systemd-resolved; rm /etc/resolv.conf\n"
            # Of the same package, and of no use without the service: NetworkManager would leave the writing to it.
            f"mv {_RESOLVCONF} {_RESOLVCONF}.away; systemctl restart NetworkManager"
        )
        hosts.settle()
        hosts.run(
            f"until grep -qx 'nameserver {ADDRESSES[HUB]}' /etc/resolv.conf\n"
            "do [ $SECONDS -lt 60 ] || exit 1; sleep 0.5; done 2>/dev/null"
        )
        # A name that nobody else knows.
        assert hosts.run("getent ahostsv4 db.corp.example.com").stdout.split()[0] == "192.0.2.99"
        assert hosts.status()["dns_unread"] is False
        done = hosts.run(f"{WGNET} apply")
        assert ("nothing to do" in done.stdout, done.stderr) == (True, "")
    finally:
        hosts.run("systemctl stop lab-names", HUB)


# --- firewalld -------------------------------------------------------------------------------------------------------


@pytest.mark.every_day()
def test_a_hub_behind_firewalld(worlds: _Worlds, suite: str) -> None:
    """Status says what is dropped, and by whom; an administrator puts networkd's interface into a zone."""
    hosts = worlds.get(suite, "networkd")
    relayed = f"ping -q -n -c 2 -W 2 {ADDRESSES[EDGE]}"
    hosts.pings(FAR, EDGE)
    try:
        # 1.3 says that it has started before it has.
        hosts.run("systemctl start firewalld; until firewall-cmd --quiet --state; do sleep 0.5; done", HUB)
        # What was under way goes on; a new ping is a new connection.
        assert hosts.run(relayed, FAR, check=False).status
        found = hosts.status(HUB)["firewall"]
        assert [(one["need"], one["table"], one["hook"]) for one in found] == [
            ("let in UDP port 51820", "firewalld", "input"),
            ("forward IPv4 and IPv6 from wg0 to wg0", "firewalld", "forward"),
        ]
        # What docs/interop.md tells an administrator to do.
        hosts.run(
            "firewall-cmd --quiet --permanent --zone=trusted --change-interface=wg0\n"
            "firewall-cmd --quiet --permanent --add-port=51820/udp\n"
            "firewall-cmd --quiet --reload",
            HUB,
        )
        hosts.pings(FAR, EDGE)
        assert hosts.status(HUB)["firewall"] == []
    finally:
        hosts.run("systemctl stop firewalld; rm -f /etc/firewalld/zones/*.xml", HUB)
    hosts.pings(FAR, EDGE)


@pytest.mark.every_day()
def test_the_zone_of_the_topology(worlds: _Worlds, suite: str) -> None:
    """NetworkManager's interface is in its zone, and what comes through is what that lets in."""
    hosts = worlds.get(suite, "networkmanager")
    hosts.pings()
    hosts.machine.put([File("/run/listener.py", _LISTENER.encode())], node=hosts.network.node(EDGE))
    connect = f"echo >/dev/tcp/{ADDRESSES[EDGE]}/8080"
    try:
        hosts.run("systemd-run --quiet --unit=lab-listener python3 /run/listener.py; systemctl start firewalld")
        zone = "until firewall-cmd --get-zone-of-interface=wg0 2>/dev/null; do sleep 0.5; done"
        assert hosts.run(zone).stdout == "trusted\n"
        hosts.run(connect, HUB)
        # Its own default lets nobody in there.
        hosts.run("firewall-cmd --quiet --zone=public --change-interface=wg0")
        assert hosts.run(connect, HUB, check=False).status
        hosts.run("nmcli connection up corp")
        assert hosts.run(zone).stdout == "trusted\n"
        hosts.pings()
        hosts.run(connect, HUB)
    finally:
        hosts.run("systemctl stop firewalld lab-listener")
    hosts.settle()


# --- netplan ---------------------------------------------------------------------------------------------------------


@pytest.mark.every_day("[trixie]")
def test_a_host_whose_underlay_is_netplans(worlds: _Worlds, suite: str) -> None:
    """Its files lie beside wgnet's, none in the place of another, and `netplan apply` is nothing to the tunnel."""
    _beside_netplan(worlds, suite, "networkd")


@pytest.mark.every_day()
def test_a_host_whose_networkmanager_is_netplans(worlds: _Worlds, suite: str) -> None:
    """The same with `renderer: NetworkManager`, as on a desktop."""
    _beside_netplan(worlds, suite, "networkmanager")


def _beside_netplan(worlds: _Worlds, suite: str, manager: str) -> None:
    hosts = worlds.get(suite, manager)
    _hand_over_to_netplan(hosts)
    ours = "ls /run/systemd/network /etc/systemd/network /run/NetworkManager/system-connections 2>/dev/null"
    names = [name for name in hosts.run(ours, check=False).stdout.split() if "." in name and not name.endswith(":")]
    assert len(names) == len(set(names))
    assert any("netplan" in name for name in names)
    hosts.settle()
    hosts.pings()
    digest = "sha256sum /etc/netplan/* $(find /run/systemd /run/NetworkManager -name '*netplan*' -type f | sort)"
    theirs = hosts.run(digest).stdout
    assert len(theirs.splitlines()) > 1
    # What is applied beside it leaves it alone, and comes through its next run.
    assert "nothing to do" in hosts.run(f"{WGNET} apply").stdout
    hosts.run(f"sed -i 's/keepalive: .*25.*/keepalive: 21/' /etc/wgnet/corp.yaml; {WGNET} apply")
    assert hosts.run("wg show wg0 persistent-keepalive").stdout.split()[-1] == "21"
    assert hosts.run(digest).stdout == theirs
    before = hosts.state()
    # What a machine has and a container has not.
    hosts.run("mount -o remount,rw /sys; mount -o remount,rw /sys/devices; systemctl start systemd-udevd")
    said = hosts.run("netplan apply")
    hosts.settle()
    hosts.until(before)
    assert "Traceback" not in said.stderr
    assert hosts.run("wg show wg0 persistent-keepalive").stdout.split()[-1] == "21"
    hosts.pings()
    hosts.status()
    assert hosts.run(digest).stdout == theirs
    # The underlay is another's now.
    worlds.close()


def _hand_over_to_netplan(hosts: Neighbourhood) -> None:
    """Boot `edge` with netplan's files in the place of those of its manager, made by netplan's own generator."""
    (port,) = hosts.running.world.nodes[EDGE].ports
    description = {
        "addresses": list(port.addresses),
        "routes": [
            {"to": "::/0" if ":" in gateway else "0.0.0.0/0", "via": gateway, "on-link": True}
            for gateway in port.gateways
        ],
        "optional": True,
    }
    if hosts.manager is Manager.NETWORKD:
        description["accept-ra"] = False
    made = {
        "network": {
            "version": 2,
            "renderer": "networkd" if hosts.manager is Manager.NETWORKD else "NetworkManager",
            "ethernets": {port.name: description},
        }
    }
    went = [
        path for path, _, _ in underlay_files(hosts.running.world, EDGE, hosts.manager) if re.search(port.name, path)
    ]
    hosts.machine.put([File(NETPLAN, yaml.safe_dump(made).encode(), 0o600)], node=hosts.network.node(EDGE))
    hosts.run(f"rm {' '.join(went)} /etc/systemd/system-generators/netplan")
    hosts.network.power_off(EDGE)
    assert hosts.network.boot([EDGE]) == []
