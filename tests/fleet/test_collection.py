"""The Ansible collection on the controller: its inventory, its playbooks, and what it does where wgnet cannot run.

What it does on hosts is the lab's to show (tests/lab/test_fleet.py): there is a system there that can be changed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cli.command import environment, wgnet
from helpers import REPOSITORY

ANSIBLE = REPOSITORY / "packaging/ansible"
COLLECTION = ANSIBLE / "ansible_collections/wgnet/fleet"
PROGRAM = [sys.executable, "-m", "wgnet"]
KEY = re.compile(r"[A-Za-z0-9+/]{43}=")

FLEET = """\
wgnet: 1
network: {name: office, interface: wg0, subnets: [10.80.0.0/24], preshared-keys: true}
groups: {north-shops: [oslo]}
peering: {hub: fra}
hosts:
  fra: {addresses: [10.80.0.1], endpoint: fra.example.net, x-ansible: {ansible_host: 192.0.2.1}}
  oslo: {addresses: [10.80.0.2], x-note: "{{ lookup('pipe', 'id') }}"}
  phone: {addresses: [10.80.0.3], manager: wg-quick}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """An administrator's folder: topology, key store, inventory."""
    (tmp_path / "office.yaml").write_text(FLEET)
    assert wgnet("keys", "generate", "office.yaml", "--keys", "keys", cwd=tmp_path).status == 0
    config = {"plugin": "wgnet.fleet.topology", "topologies": ["office.yaml"], "program": PROGRAM}
    (tmp_path / "inventory.yml").write_text(json.dumps(config))
    return tmp_path


def ansible(tool: str, *arguments: str, cwd: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool of Ansible's, after a script `before` in a mount namespace of its own."""
    program = Path(sys.executable).parent / f"ansible-{tool}"
    variables = {
        "ANSIBLE_COLLECTIONS_PATH": str(ANSIBLE),
        "ANSIBLE_HOME": str(cwd / "home"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [str(program), "-i", "inventory.yml", *arguments]
    if before:
        script = f'set -e\n{before}\nexec "$@"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]
    return subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=300, check=False
    )


def listed(folder: Path) -> dict[str, Any]:
    done = ansible("inventory", "--list", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    # Since 2.19 Ansible says of text that it came from elsewhere, and is not to be computed in.
    shown: dict[str, Any] = json.loads(done.stdout, object_hook=lambda value: value.get("__ansible_unsafe", value))
    return shown


def test_the_plugin_has_what_wgnet_says(fleet: Path) -> None:
    own = json.loads(wgnet("inventory", "--list", "office.yaml", cwd=fleet).out)
    shown = listed(fleet)
    for name, variables in own["_meta"]["hostvars"].items():
        assert variables.items() <= shown["_meta"]["hostvars"][name].items()
    groups = {name for name, group in own.items() if group.get("hosts")}
    assert {name: shown[name]["hosts"] for name in groups} == {name: own[name]["hosts"] for name in groups}
    assert shown["north_shops"]["hosts"] == ["oslo"]


def test_a_script_has_it_too(fleet: Path) -> None:
    script = fleet / "inventory.yml"
    expected = listed(fleet)["_meta"]["hostvars"]
    script.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} inventory -f {fleet}/office.yaml "$@"\n')
    script.chmod(0o755)
    shown = listed(fleet)["_meta"]["hostvars"]
    assert shown["fra"] == expected["fra"]


def test_hosts_are_reached_as_the_inventory_composes(fleet: Path) -> None:
    config = json.loads((fleet / "inventory.yml").read_text())
    config["compose"] = {"ansible_host": "ansible_host | default(wgnet_addresses[0])"}
    (fleet / "inventory.yml").write_text(json.dumps(config))
    variables = listed(fleet)["_meta"]["hostvars"]
    assert {name: of["ansible_host"] for name, of in variables.items()} == {
        "fra": "192.0.2.1",
        "oslo": "10.80.0.2",
        "phone": "10.80.0.3",
    }


def test_what_a_topology_says_is_not_run(fleet: Path) -> None:
    done = ansible("inventory", "--host", "oslo", cwd=fleet)
    assert "{{ lookup('pipe', 'id') }}" in done.stdout
    assert "uid=" not in done.stdout


def test_a_broken_topology_is_no_inventory(fleet: Path) -> None:
    (fleet / "office.yaml").write_text(FLEET.replace("10.80.0.2", "10.80.0.300"))
    done = ansible("inventory", "--list", cwd=fleet)
    assert "WG2010" in done.stderr
    assert "oslo" not in done.stdout


@pytest.mark.parametrize("name", ["rollout", "rollback"])
def test_a_playbook_is_one(fleet: Path, name: str) -> None:
    done = ansible("playbook", "--syntax-check", f"wgnet.fleet.{name}", cwd=fleet)
    assert done.returncode == 0, done.stderr


def test_it_can_be_built_and_installed(fleet: Path) -> None:
    program = Path(sys.executable).parent / "ansible-galaxy"
    variables = {"ANSIBLE_HOME": str(fleet / "home"), "ANSIBLE_NOCOLOR": "1"}
    for arguments in (["build", COLLECTION], ["install", "wgnet-fleet-0.1.0.tar.gz", "-p", "installed"]):
        command = [program, "collection", *arguments]
        done = subprocess.run(
            command, cwd=fleet, env=environment(**variables), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    installed = fleet / "installed/ansible_collections/wgnet/fleet"
    there = {path.relative_to(COLLECTION) for path in COLLECTION.rglob("*") if path.is_file()}
    assert {path for path in there if not (installed / path).exists() and "__pycache__" not in path.parts} == {
        Path("galaxy.yml")
    }


def test_its_version_is_wgnets() -> None:
    from wgnet import __version__

    assert f"\nversion: {__version__}\n" in (COLLECTION / "galaxy.yml").read_text()


def test_the_documentation_is_read() -> None:
    program = Path(sys.executable).parent / "ansible-doc"
    variables = {"ANSIBLE_COLLECTIONS_PATH": str(ANSIBLE)}
    for kind, name in (("module", "host"), ("inventory", "topology"), ("role", "wgnet")):
        done = subprocess.run(
            [program, "--json", "-t", kind, f"wgnet.fleet.{name}"],
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"wgnet.fleet.{name}" in json.loads(done.stdout)
        # For people it is made of texts: a colon where YAML sees a mapping is only found here.
        done = subprocess.run(
            [program, "-t", kind, f"wgnet.fleet.{name}"],
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert name in done.stdout


def test_the_role_and_the_module_have_one_list_of_options() -> None:
    """A variable of the role that its argument specification does not have would be neither checked nor told."""
    import yaml

    defaults = yaml.safe_load((COLLECTION / "roles/wgnet/defaults/main.yml").read_text())
    specs = yaml.safe_load((COLLECTION / "roles/wgnet/meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == defaults
    told = (REPOSITORY / "docs/fleet.md").read_text()
    assert [name for name in defaults if f"`{name}`" not in told] == []


def rollout(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Roll out to one host, this machine, on which nothing but a scratch of its folders can be changed."""
    before = textwrap.dedent("""\
        mount -t tmpfs tmpfs /run
        mount -t tmpfs tmpfs /var/lib
        mount -t overlay overlay -o lowerdir=/etc,upperdir=$PWD/up,workdir=$PWD/work /etc
    """)
    for name in ("up", "work"):
        (folder / name).mkdir(exist_ok=True)
    variables = {
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "wgnet_keys": str(folder / "keys"),
        "wgnet_program": PROGRAM,
        "wgnet_command": PROGRAM,
    }
    chosen = ["-c", "local", "--limit", "oslo", "-e", json.dumps(variables)]
    return ansible("playbook", "wgnet.fleet.rollout", *chosen, *arguments, cwd=folder, before=before)


@pytest.mark.parametrize("arguments", [("-vvv", "--diff"), ("-vvv", "--check", "--diff")], ids=["run", "check"])
def test_a_host_that_cannot_be_planned_is_left_alone_and_no_secret_is_shown(
    fleet: Path, arguments: tuple[str, ...]
) -> None:
    """There is no bus in the namespace: wgnet itself says so, having read the part that was brought."""
    done = rollout(fleet, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "wgnet plan ended with status 6" in said
    assert "failed=1" in said
    assert [path for path in (fleet / "up").rglob("*") if "wgnet" in path.name] == []
    secrets = {KEY.findall(path.read_text())[0] for path in (fleet / "keys").rglob("*.key")}
    exported = wgnet("keys", "export", "oslo", "--show-secrets", "-f", "office.yaml", "--keys", "keys", cwd=fleet).out
    secrets |= set(KEY.findall(exported)) - set(KEY.findall((fleet / "office.yaml").read_text()))
    assert len(secrets) == 5  # three hosts', the master, a link's
    assert [secret for secret in secrets if secret in said] == []


def test_without_the_hosts_key_in_the_store_nothing_is_brought(fleet: Path) -> None:
    (fleet / "keys/office/oslo.key").unlink()
    (fleet / "office.yaml").write_text(
        (fleet / "office.yaml").read_text().replace("preshared-keys: true", "preshared-keys: false")
    )
    done = rollout(fleet)
    assert done.returncode == 2
    assert "WG5002" in done.stdout + done.stderr
