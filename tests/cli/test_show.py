"""`wgnet show` and `wgnet diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.command import OFFICE, wgnet


@pytest.fixture
def office(tmp_path: Path) -> Path:
    (tmp_path / "office.yaml").write_text(OFFICE)
    return tmp_path


def test_table(office: Path) -> None:
    done = wgnet("show", "nyc", "-f", "office.yaml", cwd=office)
    assert (done.status, done.err) == (0, "")
    assert done.out.split("\n\n")[1:] == [
        "peer fra\n"
        "  public key     lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc=\n"
        "  endpoint       fra.example.net:51820\n"
        "  allowed ips    10.80.0.0/24, 192.168.10.0/24\n"
        "  keepalive      every 25 s\n"
        "  preshared key  derived",
        "routes:\n  192.168.10.0/24 dev wg0 metric 2000\n",
    ]


def test_firewall_lets_in_those_who_have_to_call(office: Path) -> None:
    done = wgnet("show", "fra", "-f", "office.yaml", cwd=office)
    assert "firewall:\n  let in UDP port 51820\n" in done.out


def test_json(office: Path) -> None:
    done = wgnet("show", "nyc", "--format", "json", "-f", "office.yaml", cwd=office)
    assert (done.status, done.err) == (0, "")
    shown = json.loads(done.out)
    assert (shown["version"], shown["host"]) == (1, "nyc")
    (interface,) = shown["interfaces"]
    assert interface["addresses"] == [{"address": "10.80.0.2/24", "prefix_route": True}]
    assert interface["private_key"] == {"kind": "file", "name": "/etc/wgnet/office.key"}
    assert interface["routes"] == [{"destination": "192.168.10.0/24", "table": 254, "metric": 2000}]
    assert interface["peers"] == [
        {
            "name": "fra",
            "public_key": "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc=",
            "next_public_key": None,
            "endpoint": "fra.example.net:51820",
            "endpoints": ["fra.example.net:51820"],
            "allowed_ips": ["10.80.0.0/24", "192.168.10.0/24"],
            "persistent_keepalive": 25,
            "preshared_key": "derived",
        }
    ]
    # A host without routes of its own has no other place that tells these.
    assert (interface["table"], interface["metric"]) == (254, 2000)
    assert set(interface) >= {
        "network", "interface", "manager", "manager_version", "public_key", "listen_port", "mtu", "firewall_mark",
        "autoconnect", "rules", "dns", "forwarding", "source_valid_mark", "restore_mark", "masquerade",
        "firewall",
    }  # fmt: skip


def test_hosts(office: Path) -> None:
    done = wgnet("show", "nyc", "--format", "hosts", "-f", "office.yaml", cwd=office)
    assert done.out == "# network office\n10.80.0.1\tfra\n10.80.0.2\tnyc\n"


def test_what_a_firewall_must_let_through(office: Path) -> None:
    out = wgnet("show", "fra", "-f", "office.yaml", cwd=office).out
    assert "firewall:\n  let in UDP port 51820\n" in out
    assert "192.168.10.0/24" in out.partition("firewall:")[2]


def test_diff(office: Path) -> None:
    done = wgnet("diff", "office.yaml", "office.yaml", "--exit-code", cwd=office)
    assert (done.status, done.out, done.err) == (0, "nothing changes\n", "")
    new = OFFICE.replace("192.168.10.0/24", "192.168.20.0/24") + "  sgp: {addresses: [10.80.0.3]}\n"
    (office / "new.yaml").write_text(new)
    done = wgnet("diff", "office.yaml", "new.yaml", cwd=office)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "+ host sgp"
    assert "+ nyc reaches sgp, 192.168.20.0/24" in lines
    assert "- nyc no longer reaches 192.168.10.0/24" in lines
    assert "~ nyc: /etc/systemd/network/50-wgnet-wg0.network" in lines
    assert wgnet("diff", "office.yaml", "new.yaml", "--exit-code", cwd=office).status == 3
    shown = json.loads(wgnet("diff", "office.yaml", "new.yaml", "--format", "json", cwd=office).out)
    assert shown["version"] == 1
    assert shown["hosts"] == {"added": ["sgp"], "removed": []}
    assert shown["reach"]["gained"]["nyc"] == ["sgp", "192.168.20.0/24"]
    assert shown["reach"]["lost"]["nyc"] == ["192.168.10.0/24"]
    assert "/etc/systemd/network/50-wgnet-wg0.netdev" in shown["files"]["sgp"]["added"]
    back = json.loads(wgnet("diff", "new.yaml", "office.yaml", "--format", "json", cwd=office).out)
    assert back["hosts"] == {"added": [], "removed": ["sgp"]}
    assert back["reach"]["lost"]["nyc"] == shown["reach"]["gained"]["nyc"]


def test_diff_shows_a_key_that_changed(office: Path) -> None:
    changed = OFFICE.replace(
        "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0=", "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="
    )
    (office / "new.yaml").write_text(changed)
    shown = json.loads(wgnet("diff", "office.yaml", "new.yaml", "--format", "json", cwd=office).out)
    assert "/etc/systemd/network/50-wgnet-wg0.netdev" in shown["files"]["fra"]["changed"]
    assert shown["reach"] == {"gained": {}, "lost": {}}
