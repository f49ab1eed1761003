"""A fleet: the collection of packaging/ansible on one host of the lab, which reaches the others through the tunnel.

Input: `office` under each manager. The hub is the controller; it has Debian's ansible-core, the topology and the key
store, all others have sshd and wgnet. What is changed is the tunnel that Ansible itself comes through, so a host that
was changed wrongly is one that nobody reaches any more.
"""

from __future__ import annotations

import json
import re

import pytest
from example_keys import master_secret, private_key
from helpers import REPOSITORY

from lab.machine import File, Result
from lab.product import FOLDER, WGNET, install_product
from lab.running import Running
from lab.settle import settle

pytestmark = [
    pytest.mark.scenario_of("office", modes=("networkd", "networkmanager")),
    # Ansible is Python that starts Python, for each task on each host: long under emulation, so all are the night's.
    pytest.mark.every_day(),
]

CONTROLLER = "fra"
#: In the order in which they are changed, one by one.
HOSTS = ("fra", "nyc", "desk")
ADDRESSES = {"fra": "10.80.0.1", "nyc": "10.80.0.2", "desk": "10.80.0.3"}
PLACE = "/root/fleet"
_PROGRAM = ["env", f"PYTHONPATH={FOLDER}", "python3", "-m", "wgnet"]
_LIMIT = 900
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", re.MULTILINE)

_CONFIG = """\
[defaults]
collections_path = /root/fleet/collections
inventory = inventory.yml
host_key_checking = False
interpreter_python = /usr/bin/python3
timeout = 60
nocolor = True
[ssh_connection]
pipelining = True
"""
_KEYS_OF_SSH = f"""
install -d -m 700 /root/.ssh
[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
chmod -R go-rwx {PLACE}
cat /root/.ssh/id_ed25519.pub
"""
_DAEMON = """
install -d -m 700 /root/.ssh
echo 'KEY' >/root/.ssh/authorized_keys
install -d -m 755 /run/sshd
systemctl is-active --quiet lab-sshd ||
    systemd-run --quiet --unit=lab-sshd /usr/sbin/sshd -D -o UseDNS=no -o UsePAM=no
"""


@pytest.fixture(autouse=True)
def _fleet(running: Running) -> None:
    """Make the hub a controller, and the others its hosts."""
    settle(running.network, running.managers, running.hosts)
    if running.network.run(CONTROLLER, f"test -e {PLACE}", check=False).status == 0:
        return
    install_product(running, HOSTS)
    collections = REPOSITORY / "packaging/ansible"
    files = [
        File(f"{PLACE}/collections/{path.relative_to(collections)}", path.read_bytes())
        for path in sorted(collections.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]
    inventory = {
        "plugin": "wgnet.fleet.topology",
        "topologies": ["office.yaml"],
        "program": _PROGRAM,
        # Where they are before each change, whatever address the topology is going to give them.
        "compose": {"ansible_host": f"{json.dumps(ADDRESSES)}[inventory_hostname]"},
    }
    files += [
        File(f"{PLACE}/ansible.cfg", _CONFIG.encode()),
        File(f"{PLACE}/inventory.yml", json.dumps(inventory).encode()),
        File(f"{PLACE}/office.yaml", running.prepared.texts["office.yaml"].encode()),
        File(f"{PLACE}/keys/office/_master.key", f"{master_secret('office').reveal()}\n".encode(), 0o600),
        *(
            File(f"{PLACE}/keys/office/{host}.key", f"{private_key('office', host).reveal()}\n".encode(), 0o600)
            for host in running.hosts
        ),
    ]
    running.machine.put(files, node=running.network.node(CONTROLLER))
    public = running.network.run(CONTROLLER, _KEYS_OF_SSH).stdout.strip()
    running.network.run_many([(host, _DAEMON.replace("KEY", public)) for host in HOSTS])


def _play(running: Running, *arguments: str, book: str = "rollout", **variables: object) -> Result:
    """Run one of the collection's playbooks on the controller."""
    given = {
        "wgnet_hosts": ":".join(HOSTS),
        "wgnet_serial": 1,
        "ansible_become": False,
        "wgnet_keys": f"{PLACE}/keys",
        "wgnet_program": _PROGRAM,
        "wgnet_command": _PROGRAM,
        **variables,
    }
    here = running.network.node(CONTROLLER)
    running.machine.put([File(f"{PLACE}/given.json", json.dumps(given).encode())], node=here)
    command = f"ansible-playbook wgnet.fleet.{book} -e @given.json {' '.join(arguments)}"
    script = f"export HOME=/root LC_ALL=C.UTF-8; cd {PLACE}; {command}"
    done = running.network.run(CONTROLLER, script, timeout=_LIMIT, check=False)
    secrets = [private_key("office", host).reveal() for host in running.hosts] + [master_secret("office").reveal()]
    assert not any(secret in done.stdout + done.stderr for secret in secrets)
    return done


def _recap(done: Result) -> dict[str, tuple[int, int]]:
    """Return how many tasks changed something and how many failed, by host."""
    return {host: (int(changed), int(failed)) for host, changed, failed in _RECAP.findall(done.stdout)}


def _said(done: Result) -> str:
    return f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


def _part(running: Running, host: str) -> dict[str, str]:
    """Return what lies in /etc/wgnet, with modes and owners."""
    script = "cd /etc/wgnet; for f in *; do [ ! -f $f ] || stat -c '%n %a %U:%G' $f; done"
    return dict(line.split(" ", 1) for line in running.network.run(host, script).stdout.splitlines())


def _state(running: Running, host: str) -> str:
    """Return the part and the device, keys as digests; prefixes and peers in any order, endpoints as they roam."""
    device = "(wg show wg0 private-key; wg showconf wg0) | grep -v ^Endpoint | tr -d ' ' | tr , '\\n'"
    return running.network.run(
        host, f"sha256sum /etc/wgnet/*; ip -br a show wg0; {device} | sed 's/^AllowedIPs=//' | sort | sha256sum"
    ).stdout


def _edit(running: Running, old: str, new: str) -> None:
    """Change the controller's topology, from what the hosts were booted with."""
    text = running.prepared.texts["office.yaml"]
    assert text.count(old) == 1
    here = running.network.node(CONTROLLER)
    running.machine.put([File(f"{PLACE}/office.yaml", text.replace(old, new).encode())], node=here)


def _bring(running: Running) -> None:
    """See to it that the hosts have had their first run."""
    if running.network.run(HOSTS[-1], "test -e /var/lib/wgnet/fleet/shipped.json", check=False).status:
        done = _play(running)
        assert done.status == 0, _said(done)


def _pending(running: Running, host: str) -> str:
    script = "ls -d /var/lib/wgnet/apply/armed /var/lib/wgnet/fleet/pending 2>/dev/null || true"
    return running.network.run(host, script).stdout


def test_every_host_gets_its_part_and_no_others_and_a_second_run_finds_nothing(running: Running) -> None:
    """From hosts that were set up by hand: a look first, then the run, then the same again."""
    # It has its network, from files; now it has no key and no topology to make it anew from.
    running.network.run("nyc", "rm -f /etc/wgnet/office.*")
    before = _part(running, "nyc")
    done = _play(running, "--check", "--diff", "--limit", "nyc")
    assert _recap(done) == {"nyc": (1, 0)}, _said(done)
    assert "+ /etc/wgnet/office.yaml\n+ /etc/wgnet/office.key\n+ /etc/wgnet/office.psk\n" in done.stdout
    assert _part(running, "nyc") == before
    assert running.network.run("nyc", "ls /var/lib/wgnet/fleet", check=False).status != 0

    done = _play(running)
    assert {host: failed for host, (_, failed) in _recap(done).items()} == dict.fromkeys(HOSTS, 0), _said(done)
    assert _recap(done)["nyc"][0] == 1
    mode = "640 root:systemd-network" if running.scenario.mode == "networkd" else "600 root:root"
    for host in HOSTS:
        assert _part(running, host) == {
            "host": "644 root:root",
            "office.key": mode,
            "office.psk": "600 root:root",
            "office.yaml": "644 root:root",
        }
        told = running.network.run(host, "cat /etc/wgnet/office.key /etc/wgnet/office.psk").stdout
        assert private_key("office", host).reveal() in told
        assert not any(private_key("office", each).reveal() in told for each in running.hosts if each != host)
        # A spoke's one link is that with the hub.
        assert host == CONTROLLER or len(re.findall(r"^\S{44} \S{44}$", told, re.MULTILINE)) == 1
        assert master_secret("office").reveal() not in told
        assert _pending(running, host) == ""
        # What was carried there by hand is wgnet's now, and can be changed.
        running.network.run(host, "test -s /var/lib/wgnet/manifest.json")
    assert running.against_plan() == []

    done = _play(running)
    assert _recap(done) == dict.fromkeys(HOSTS, (0, 0)), _said(done)


def test_a_host_that_is_not_reached_after_its_change_goes_back(running: Running) -> None:
    """The new topology has it at another address, which the hub, not changed, does not let through."""
    _bring(running)
    before = _state(running, "nyc")
    _edit(running, "10.80.0.2\n", "10.80.0.22\n")
    try:
        done = _play(running, "--limit", "nyc", wgnet_confirm=60)
    finally:
        _edit(running, "10.80.0.2\n", "10.80.0.2\n")
    assert _recap(done)["nyc"] == (0, 1), _said(done)
    # The session that applied may hang until it is back, and is then told what has become of it.
    back = ("it went back by itself; it is reached again", "cannot be confirmed any more, and was rolled back")
    assert any(words in done.stdout for words in back), _said(done)
    assert _pending(running, "nyc") == ""
    assert _state(running, "nyc") == before
    assert running.against_plan() == []


def test_the_first_failure_ends_the_run_and_may_put_the_others_back(running: Running) -> None:
    """The hub is changed first, and no longer lets the second host's address through; the third is never come to."""
    _bring(running)
    before = _state(running, CONTROLLER)
    _edit(running, "10.80.0.2\n", "10.80.0.22\n")
    try:
        done = _play(running, wgnet_on_failure="rollback")
    finally:
        _edit(running, "10.80.0.2\n", "10.80.0.2\n")
    assert done.status != 0
    recap = _recap(done)
    assert recap["nyc"][1] == 1, _said(done)
    assert "desk" not in recap
    assert "nyc cannot be reached" in done.stdout, _said(done)
    assert _state(running, CONTROLLER) == before
    assert running.against_plan() == []
    # Whoever asks the hub itself hears the same.
    assert running.network.run(CONTROLLER, f"{WGNET} plan --exit-code", timeout=300, check=False).status == 0


def test_a_test_of_the_administrators_own_decides(running: Running) -> None:
    """`wgnet_verify` fails on the host: what was verified and reachable goes back all the same; else it stays."""
    _bring(running)
    _edit(running, "  subnets:\n", "  mtu: 1400\n  subnets:\n")
    try:
        done = _play(running, "--limit", "desk", wgnet_verify="ip -o link show wg0 | grep -q 'mtu 1420'")
        assert _recap(done)["desk"] == (0, 1), _said(done)
        assert "it was rolled back" in done.stdout, _said(done)
        assert running.against_plan() == []
        done = _play(running, "--limit", "desk", wgnet_verify="ip -o link show wg0 | grep -q 'mtu 1400'")
        assert _recap(done)["desk"] == (1, 0), _said(done)
        assert "mtu 1400" in running.network.run("desk", "ip -o link show wg0").stdout
    finally:
        _edit(running, "  subnets:\n", "  subnets:\n")
    done = _play(running, "--limit", "desk", book="rollback")
    assert _recap(done)["desk"] == (1, 0), _said(done)
    assert running.against_plan() == []
    done = _play(running, "--limit", "desk", book="rollback")
    assert _recap(done)["desk"] == (0, 0), _said(done)
