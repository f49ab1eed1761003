"""Every example, on real kernels, under every manager: its hosts boot from files alone, and do what the plan says."""

from __future__ import annotations

import re

from lab.checks import bring_up, journal_complaints, packets, unreachable
from lab.machine import Machine
from lab.running import Running
from lab.scenarios import VERSIONS

#: Peers whose endpoint may be another than configured as soon as the network is up: an address of the peer that its
#: kernel prefers, where it has several on one link and begins the handshake itself.
ROAMED = {"failover": ("hq",)}


def test_the_suite_has_the_versions_that_wgnet_is_told(machine: Machine, suite: str) -> None:
    said = machine.run("networkctl --version; NetworkManager --version").stdout
    found = re.search(r"\Asystemd (\d+) .*^(\d+\.\d+)", said, re.MULTILINE | re.DOTALL)
    assert found is not None, said
    assert found.groups() == VERSIONS[suite]


def by_hand(running: Running) -> dict[str, list[str]]:
    """Return the interfaces that a person brings up, by host."""
    return {
        host: [plan.interface for plan in running.prepared.plans[host].interfaces if not plan.autoconnect]
        for host in running.hosts
    }


def test_every_host_boots_from_files_alone(running: Running) -> None:
    assert running.problems == []
    for host, interfaces in by_hand(running).items():
        # networkd makes the interface and leaves it down; the others make none.
        links = running.network.run(host, "ip -br link show up").stdout.splitlines()
        assert [line for line in links if line.split()[0] in interfaces] == [], host
    bring_up(running)


def test_the_kernel_is_as_planned(running: Running) -> None:
    assert running.against_plan(roamed=ROAMED.get(running.scenario.example, ())) == []


def test_every_packet_arrives_that_should_and_no_other(running: Running) -> None:
    assert any(packet.arrives for packet in packets(running)) or running.scenario.example == "babel"
    assert unreachable(running) == []


def test_no_manager_warns_of_a_file(running: Running) -> None:
    assert journal_complaints(running) == []
