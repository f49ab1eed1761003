"""`wgnet inventory`: the topologies as Ansible's dynamic inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.command import KEYLESS, OFFICE, wgnet

FLEET = """\
wgnet: 1
network: {name: office, interface: wg0, subnets: [10.80.0.0/24, "fd42:80::/64"]}
groups:
  north-shops: [oslo, turku]
  ungrouped: [turku]
  wgnet-hubs: [oslo]
defaults:
  all: {x-ansible: {ansible_user: root, ansible_port: 22}, x-backup: weekly}
  north-shops: {manager: networkmanager, x-ansible: {ansible-port: 2222}, x-backup: daily}
peering: {hub: [fra, sgp]}
hosts:
  fra:
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
    endpoint: [fra.example.net, 192.0.2.1]
    site: frankfurt
    advertise: [192.168.10.0/24, 0.0.0.0/0]
    manager-version: 257
    x-ansible: {ansible_host: 192.0.2.1, ansible_user: admin}
    x-rack-unit: {rack: 0777, unit: 12, spare: no, free: false, label: "12", since: null, tags: [a, 1e3]}
  sgp:
    addresses: [10.80.0.2]
    endpoint: sgp.example.net
    public-key: "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
  oslo:
    addresses: [10.80.0.3]
    public-key: "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="
  turku:
    addresses: [10.80.0.4]
    public-key: "/oYJ9PhB3it9Y/QxUr7u/WqmRspYrvoFFsFwuI8GLAM="
  lost:
    addresses: [10.80.0.5]
    disabled: true
  provider:
    manager: external
    addresses: [10.80.0.6]
    public-key: "X/0e2xzaSLlUVIZZ7c/ewFMnnjd0yTF1TM8c7yjFvDY="
"""
#: A second network on two of the hosts; a host is named as a group of the first one is.
BACKUP = """\
wgnet: 1
network: {name: back.up, interface: wg1, subnets: [10.81.0.0/24], listen-port: 51821}
hosts:
  fra:
    addresses: [10.81.0.1]
    public-key: "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
    endpoint: fra.example.net
    x-ansible: {ansible_host: 192.0.2.9}
  oslo:
    manager: wg-quick
    addresses: [10.81.0.3]
    public-key: "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "office.yaml").write_text(FLEET)
    (tmp_path / "backup.yaml").write_text(BACKUP)
    return tmp_path


def listed(folder: Path, *files: str) -> dict[str, Any]:
    done = wgnet("inventory", "--list", *files, cwd=folder)
    assert (done.status, done.err) == (0, "")
    shown: dict[str, Any] = json.loads(done.out)
    return shown


def members(shown: dict[str, Any]) -> dict[str, list[str]]:
    return {name: group["hosts"] for name, group in shown.items() if "hosts" in group}


def test_groups_are_the_topologys_and_those_of_network_manager_and_hub(fleet: Path) -> None:
    shown = listed(fleet, "office.yaml")
    assert members(shown) == {
        "wgnet_network_office": ["fra", "sgp", "oslo", "turku"],
        "wgnet_manager_networkd": ["fra", "sgp"],
        "wgnet_manager_networkmanager": ["oslo", "turku"],
        "wgnet_manager_wg_quick": [],
        "wgnet_hubs": ["fra", "sgp"],
        "wgnet_spokes_of_fra": ["oslo", "turku"],
        "wgnet_spokes_of_sgp": ["oslo", "turku"],
        "north_shops": ["oslo", "turku"],
        # What Ansible and wgnet call groups themselves is not to be mixed with a topology's.
        "group_ungrouped": ["turku"],
        "group_wgnet_hubs": ["oslo"],
    }
    assert shown["all"]["vars"] == {"wgnet_inventory_version": 1}
    assert set(shown["all"]["children"]) == {"ungrouped", *members(shown)}


def test_hosts_are_those_that_files_are_made_for(fleet: Path) -> None:
    shown = listed(fleet, "office.yaml")
    wgnet("render", "office.yaml", "-o", "rendered", cwd=fleet)
    rendered = {path.name for path in (fleet / "rendered").iterdir() if path.is_dir()}
    assert set(shown["_meta"]["hostvars"]) == rendered == {"fra", "sgp", "oslo", "turku"}
    assert all({"lost", "provider"}.isdisjoint(hosts) for hosts in members(shown).values())


def test_variables_of_a_host(fleet: Path) -> None:
    variables = listed(fleet, "office.yaml")["_meta"]["hostvars"]["fra"]
    assert {name: value for name, value in variables.items() if name.startswith("wgnet_")} == {
        "wgnet_host": "fra",
        "wgnet_manager": "networkd",
        "wgnet_addresses": ["10.80.0.1", "fd42:80::1"],
        "wgnet_endpoint": "fra.example.net:51820",
        "wgnet_networks": {
            "office": {
                "file": str(fleet / "office.yaml"),
                "interface": "wg0",
                "manager": "networkd",
                "manager_version": "257",
                "addresses": ["10.80.0.1/24", "fd42:80::1/64"],
                "public_key": "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc=",
                "endpoints": ["fra.example.net:51820", "192.0.2.1:51820"],
                "listen_port": 51820,
                "site": "frankfurt",
                "advertise": ["192.168.10.0/24"],
                "hub": True,
            }
        },
    }


def test_own_keys_are_variables_those_of_groups_below_those_of_the_host(fleet: Path) -> None:
    variables = listed(fleet, "office.yaml")["_meta"]["hostvars"]
    own = {
        host: {name: value for name, value in of.items() if not name.startswith("wgnet_")}
        for host, of in variables.items()
    }
    assert own["sgp"] == {"ansible_user": "root", "ansible_port": 22, "x_backup": "weekly"}
    assert own["oslo"] == {"ansible_user": "root", "ansible_port": 2222, "x_backup": "daily"}
    assert own["fra"] == {
        "ansible_host": "192.0.2.1",
        "ansible_user": "admin",
        "ansible_port": 22,
        "x_backup": "weekly",
        # By what was written, never by YAML's guess.
        "x_rack_unit": {
            "rack": "0777", "unit": 12, "spare": "no", "free": False, "label": "12", "since": None, "tags": ["a", "1e3"]
        },
    }  # fmt: skip


def test_nobody_is_reached_by_an_address_that_nobody_gave(fleet: Path) -> None:
    variables = listed(fleet, "office.yaml")["_meta"]["hostvars"]
    assert [name for name, of in variables.items() if "ansible_host" in of] == ["fra"]


def test_a_host_of_two_networks_is_one(fleet: Path) -> None:
    shown = listed(fleet, "office.yaml", "backup.yaml")
    fra, oslo = (shown["_meta"]["hostvars"][name] for name in ("fra", "oslo"))
    assert fra["wgnet_addresses"] == ["10.80.0.1", "fd42:80::1", "10.81.0.1"]
    assert set(fra["wgnet_networks"]) == {"office", "back.up"}
    assert fra["ansible_host"] == "192.0.2.9"  # the later file's
    assert oslo["wgnet_manager"] == "networkmanager"
    assert oslo["wgnet_networks"]["back.up"]["manager"] == "wg-quick"
    assert members(shown)["wgnet_network_back_up"] == ["fra", "oslo"]
    assert members(shown)["wgnet_manager_wg_quick"] == ["oslo"]


def test_a_group_that_is_named_as_a_host_of_another_file_is_told_from_it(fleet: Path) -> None:
    (fleet / "office.yaml").write_text(FLEET.replace("ungrouped:", "tokyo:"))
    (fleet / "backup.yaml").write_text(BACKUP.replace("oslo:", "tokyo:"))
    shown = listed(fleet, "office.yaml", "backup.yaml")
    assert members(shown)["group_tokyo"] == ["turku"]
    assert "tokyo" not in shown


def test_one_host_has_the_variables_that_the_list_has(fleet: Path) -> None:
    shown = listed(fleet, "office.yaml", "backup.yaml")
    done = wgnet("inventory", "--host", "oslo", "-f", "office.yaml", "backup.yaml", cwd=fleet)
    # Files are read in the order in which operands come before -f.
    other = listed(fleet, "backup.yaml", "office.yaml")["_meta"]["hostvars"]["oslo"]
    assert (done.status, done.err, json.loads(done.out)) == (0, "", other)
    assert other.keys() == shown["_meta"]["hostvars"]["oslo"].keys()


@pytest.mark.parametrize("name", ["lost", "provider", "nobody"])
def test_no_host_that_nothing_is_made_for(fleet: Path, name: str) -> None:
    done = wgnet("inventory", "--host", name, "office.yaml", cwd=fleet)
    assert (done.status, done.out) == (1, "")
    assert "WG6005" in done.err


def test_hosts_without_a_key_are_in_it_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(KEYLESS)
    variables = listed(tmp_path, "office.yaml")["_meta"]["hostvars"]
    assert variables["fra"]["wgnet_networks"]["office"]["public_key"] is None


def test_no_secret_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(OFFICE.replace("    public-key:", "    # public-key:"))
    assert wgnet("keys", "generate", "office.yaml", "--keys", "keys", cwd=tmp_path).status == 0
    secrets = [path.read_text().split()[-1] for path in (tmp_path / "keys").rglob("*.key")]
    assert len(secrets) == 3
    out = json.dumps(listed(tmp_path, "office.yaml"))
    assert [secret for secret in secrets if secret in out] == []


@pytest.mark.parametrize("name", ["ansible_password", "ansible-become-pass", "ansible_ssh_private_key_passphrase"])
def test_a_password_is_refused_and_not_shown(fleet: Path, name: str) -> None:
    text = FLEET.replace("{ansible_user: root,", f"{{{name}: tulips, ansible_user: root,")
    (fleet / "office.yaml").write_text(text)
    done = wgnet("inventory", "--list", "office.yaml", "--diagnostics", "concise", cwd=fleet)
    assert (done.status, done.out) == (1, "")
    assert done.err.count("error[WG2037]") == 1  # once, though every host has it
    assert done.err.startswith("office.yaml:8:")
    assert "tulips" not in done.err
    # In full too, which quotes the line.
    assert "tulips" not in wgnet("inventory", "--list", "office.yaml", cwd=fleet).err


def test_variables_that_are_none(fleet: Path) -> None:
    (fleet / "office.yaml").write_text(
        FLEET.replace("x-ansible: {ansible_host: 192.0.2.1, ansible_user: admin}", "x-ansible: fra")
    )
    done = wgnet("inventory", "--list", "office.yaml", cwd=fleet)
    assert (done.status, done.out) == (1, "")
    assert "WG2003" in done.err


def test_a_broken_topology_gives_none(fleet: Path) -> None:
    (fleet / "office.yaml").write_text(FLEET.replace("10.80.0.2", "10.80.0.300"))
    done = wgnet("inventory", "--list", "office.yaml", cwd=fleet)
    assert (done.status, done.out) == (1, "")


@pytest.mark.parametrize("arguments", [(), ("--list", "--host", "fra")])
def test_it_is_either_the_list_or_a_host(fleet: Path, arguments: tuple[str, ...]) -> None:
    assert wgnet("inventory", *arguments, "office.yaml", cwd=fleet).status == 2


def test_the_systems_topologies_are_read_where_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "root/etc/wgnet"
    folder.mkdir(parents=True)
    (folder / "office.yaml").write_text(OFFICE)
    shown = listed(tmp_path, "--root", "root")
    assert shown["_meta"]["hostvars"]["fra"]["wgnet_networks"]["office"]["file"] == str(folder / "office.yaml")
