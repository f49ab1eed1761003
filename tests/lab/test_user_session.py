"""A person's session at a NetworkManager host: logind, polkit's own rules, a secret agent, and a kernel with WireGuard.

Input: a hub that runs, and a laptop that knows nothing of the network, with two users who are no administrators.
Output: what `wgnet apply` adds without root is the user's own, is switched on with the key that her agent keeps, stays
through changes, and is neither another user's nor to be changed from elsewhere than the seat.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_keys import master_secret, private_key
from helpers import REPOSITORY

from lab.conftest import Lab
from lab.machine import File, Machine, Result
from lab.pinging import until_answered
from lab.product import WGNET, install_product
from lab.running import Running
from lab.scenarios import Scenario, prepare_texts
from wgnet.diagnostics import codes
from wgnet.managers.networkmanager import profile_uuid
from wgnet.syntax.spec import Manager

pytestmark = pytest.mark.every_day("trixie")

HUB, LAPTOP = "fra", "laptop"
HUB_ADDRESS, BEHIND_HUB = "10.80.0.1", "192.168.50.0/24"
UUID = profile_uuid("office", LAPTOP)
KEY = private_key("office", LAPTOP)
USERS = {"alice": 1001, "bob": 1002}
_LIMIT = 120
_AGENT = "/usr/local/lib/agent.py"
#: What login(1), or a display manager, asks PAM for, without the password.
_LOGIN = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_systemd.so\n"
#: What a desktop has and a host of the lab has not (lab/image.py). NetworkManager looks for logind when it starts.
_DESKTOP = (
    "systemctl --quiet unmask systemd-logind.service polkit.service; systemctl daemon-reload\n"
    "systemctl start systemd-logind.service polkit.service; systemctl restart NetworkManager.service\n"
    "nm-online -q -s -t 60\n"
    + "".join(f"useradd --create-home --shell /bin/bash --uid {number} {name}\n" for name, number in USERS.items())
)


def network(*, user: str = "", preshared: bool = False, **hub: object) -> dict[str, Any]:
    """Return the network; the laptop is a `user`'s as docs/desktop.md has it, and the hub has more."""
    laptop: dict[str, Any] = {
        "addresses": ["10.80.0.2"],
        "manager": "networkmanager",
        "keepalive": "25",
    }
    laptop["public-key"] = KEY.public()
    if user:
        laptop |= {
            "permissions": [user],
            "private-key": {"agent": "true"},
            "autoconnect": "false",
        }
    gateway = {
        "addresses": [HUB_ADDRESS],
        "endpoint": "fra.example.net",
        "public-key": private_key("office", HUB).public(),
    }
    return {
        "wgnet": "1",
        "network": {
            "name": "office",
            "subnets": ["10.80.0.0/24"],
            "preshared-keys": str(preshared).lower(),
        },
        "peering": [{"hub": HUB}],
        "hosts": {HUB: {**gateway, "manager": "networkd", **hub}, LAPTOP: laptop},
    }


def topology(**more: Any) -> str:
    """Return the text of a `network`."""
    return yaml.dump(network(**more), sort_keys=False)


class Session:
    """A login of a user that logind knows; `run` runs commands in it."""

    def __init__(self, laptop: Laptop, user: str) -> None:
        """Log a user in at the seat, as a display manager does: whoever was there before is in the background."""
        self._laptop = laptop
        self.user = user
        self.home = f"/home/{user}"
        unit = f"login-{user}"
        login = (
            f"systemd-run --quiet --collect --unit={unit} --property=PAMName=lab-login --property=User={user}"
            " -E XDG_SEAT=seat0 -E XDG_SESSION_TYPE=wayland -E XDG_SESSION_CLASS=user sleep infinity\n"
            f"process=$(systemctl show -P MainPID {unit}.service)\n"
            "until grep -q 'session-.*scope' /proc/$process/cgroup; do sleep 0.2; done\n"
            "cut -d : -f 3 /proc/$process/cgroup"
        )
        self.scope = laptop.run(login, timeout=_LIMIT).stdout.strip()
        self.name = self.scope.rpartition("/session-")[2].removesuffix(".scope")

    def script(self, command: str) -> str:
        """Return root's script that runs a command as the user, as a process of the session."""
        environment = (
            f"HOME={self.home} USER={self.user} LC_ALL=C.UTF-8 PATH=/usr/bin:/bin"
            f" XDG_RUNTIME_DIR=/run/user/{USERS[self.user]} XDG_SESSION_ID={self.name}"
        )
        # A user's process is where its session's others are: polkit goes by that, and so does logind.
        return (
            f"echo $$ >/sys/fs/cgroup{self.scope}/cgroup.procs; cd {self.home}\n"
            f"exec setpriv --reuid {self.user} --regid {self.user} --init-groups env -i {environment}"
            f" bash -euo pipefail -c {shlex.quote(command)}"
        )

    def run(self, command: str) -> Result:
        """Run a command to its end; its status may be any."""
        script = f"systemd-run --quiet --collect --pipe --wait bash -e -s <<'END'\n{self.script(command)}\nEND\n"
        return self._laptop.run(script, timeout=_LIMIT, check=False)

    def wgnet(self, command: str) -> tuple[int, str]:
        """Run wgnet; return its status and all it said."""
        return _told(self.run(f"{WGNET} {command} 2>&1"))

    @property
    def state(self) -> dict[str, str]:
        """What logind and polkit go by."""
        shown = self._laptop.run(f"loginctl show-session {self.name} -p Active -p Remote -p Seat -p Name").stdout
        return dict(line.split("=", 1) for line in shown.split())


class Laptop:
    """The laptop and its hub, booted, with users, and the file and key store that one of them was given."""

    def __init__(self, machine: Machine, suite: str, folder: Path) -> None:
        scenario = Scenario(suite, "session", "networkmanager")
        managers = {HUB: Manager.NETWORKD, LAPTOP: Manager.NETWORKMANAGER}
        prepared = prepare_texts({"office.yaml": network()}, scenario, folder, managers)
        # The user is to add it.
        prepared.files[LAPTOP] = []
        self.machine = machine
        self.running = Running(machine, scenario, folder, prepared)
        assert self.running.problems == []
        install_product(self.running, [LAPTOP])
        self.put(
            File("/etc/pam.d/lab-login", _LOGIN.encode()),
            File(_AGENT, (REPOSITORY / "tests/realparsers/agent.py").read_bytes()),
        )
        self.run(_DESKTOP, timeout=_LIMIT)

    def begin(self) -> Session:
        """Log alice in, and give her what an administrator gives her."""
        self.write(topology(user="alice"))
        keys = {"_master": master_secret("office"), LAPTOP: KEY}
        self.put(*(File(f"/root/keys/office/{name}.key", f"{key.reveal()}\n".encode()) for name, key in keys.items()))
        self.run("rm -rf ~alice/keys; mv /root/keys ~alice; chown -R alice: ~alice/keys; chmod -R go-rwx ~alice/keys")
        return Session(self, "alice")

    def run(self, script: str, *, timeout: float = 60, check: bool = True) -> Result:
        """Run a script as root."""
        return self.running.network.run(LAPTOP, script, timeout=timeout, check=check)

    def put(self, *files: File) -> None:
        self.machine.put(files, node=self.running.network.node(LAPTOP))

    def write(self, text: str) -> None:
        """Give alice another topology."""
        self.put(
            File(
                "/home/alice/office.wgnet.yaml",
                text.encode(),
                owner="alice",
                group="alice",
            )
        )

    @property
    def interfaces(self) -> list[str]:
        return self.run("wg show interfaces").stdout.split()

    @property
    def keyfiles(self) -> str:
        """What is on the disk of profiles: names, owners, modes and digests."""
        places = "/etc/NetworkManager/system-connections /etc/wgnet /etc/sysctl.d"
        return self.run(
            f"find {places} -type f -exec stat -c '%n %U %a' {{}} + -exec sha256sum {{}} + 2>&1 | sort"
        ).stdout

    def holders(self) -> list[str]:
        """Return the files that have the private key in clear, but for the keyring of the tests' own agent."""
        places = "/etc /home /root /run /tmp /var"
        script = f"cat >/dev/shm/key; grep -rIlFsf /dev/shm/key {places} || true; rm /dev/shm/key"
        node = self.running.network.node(LAPTOP)
        return self.machine.run(script, node=node, given=KEY.reveal(), timeout=_LIMIT).stdout.split()

    def pings(self) -> None:
        """Wait for an answer of the hub."""
        self.run(until_answered(HUB_ADDRESS, 40), timeout=90)


class Agent:
    """The secret agent of a session, with a keyring that outlives it."""

    def __init__(self, laptop: Laptop, session: Session) -> None:
        self._laptop, self._session = laptop, session
        self.keyring = f"{session.home}/.keyring"

    def start(self) -> None:
        """Start it, and wait until NetworkManager has taken it."""
        command = f"mkdir -p {self.keyring}; touch {self.keyring}/calls; exec python3 {_AGENT} {self.keyring}"
        before = len(self.calls)
        starting = (
            f"cat >/run/agent.sh <<'END'\n{self._session.script(command)}\nEND\n"
            "systemd-run --quiet --collect --unit=lab-agent bash -e /run/agent.sh\n"
            f"until_=$((SECONDS + 40)); until [ $(grep -c '' {self.keyring}/calls) -gt {before} ]\n"
            "do [ $SECONDS -lt $until_ ] || exit 1; sleep 0.2; done"
        )
        self._laptop.run(starting, timeout=90)

    def stop(self) -> None:
        self._laptop.run("systemctl stop lab-agent.service")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What it was asked, in order."""
        lines = self._laptop.run(f"cat {self.keyring}/calls || true").stdout.splitlines()
        return [json.loads(line) for line in lines]

    @property
    def keeps(self) -> bool:
        """Whether it keeps the laptop's key."""
        last = [call for call in self.calls if call["do"] in ("save", "delete")]
        return bool(last) and last[-1]["do"] == "save" and last[-1]["key"] == KEY.reveal()


def _told(done: Result) -> tuple[int, str]:
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert KEY.reveal() not in said
    return done.status, said


@pytest.fixture(scope="module")
def laptop(lab: Lab, suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One for all tests of a suite: each begins with `Laptop.begin`, and leaves no profile of wgnet."""
    made = Laptop(lab.machine(suite), suite, tmp_path_factory.mktemp("session"))
    try:
        yield made
    finally:
        made.running.close()


@pytest.fixture
def alice(laptop: Laptop) -> Iterator[Session]:
    """Alice at her seat, with her file and the keys that she was given, before she has added anything."""
    yield laptop.begin()
    if not laptop.machine.ended:
        laptop.run("systemctl stop lab-agent login-alice login-bob || true")


def test_a_network_of_a_users_own(laptop: Laptop, alice: Session) -> None:
    assert alice.state == {
        "Active": "yes",
        "Remote": "no",
        "Seat": "seat0",
        "Name": "alice",
    }
    desktop = Agent(laptop, alice)
    desktop.start()

    # Added: hers alone, its private key with the agent alone.
    status, said = alice.wgnet("apply office.wgnet.yaml --keys keys")
    assert (status, "applied" in said) == (0, True), said
    assert codes.NO_AGENT.name not in said
    shown = alice.run("nmcli -g connection.uuid,connection.permissions,wireguard.private-key-flags c show office")
    assert shown.stdout.splitlines() == [UUID, "user\\:alice", "1"]
    assert laptop.run("stat -c '%U %a' /etc/NetworkManager/system-connections/*office*").stdout == "root 600\n"
    laptop.run("rm -r ~alice/keys")
    assert laptop.holders() == [f"{desktop.keyring}/calls"]
    assert desktop.keeps
    assert laptop.interfaces == []

    # Switched on and off in her session: the agent is asked, and nobody else.
    for _ in range(2):
        asked = len(desktop.calls)
        up = alice.run("nmcli connection up office")
        assert up.status == 0, up.stdout + up.stderr
        assert "get" in [call["do"] for call in desktop.calls[asked:]]
        laptop.pings()
        assert laptop.running.against_plan() == []
        assert alice.run("nmcli connection down office").status == 0
        assert laptop.interfaces == []

    # Without an agent it does not come up, and says why; nmcli can be one.
    desktop.stop()
    up = alice.run("nmcli connection up office 2>&1")
    assert up.status == 4, up.stdout
    assert "wireguard.private-key" in up.stdout, up.stdout
    assert laptop.interfaces == []
    typed = alice.run(f"nmcli --ask connection up office <<<{KEY.reveal()}")
    assert typed.status == 0, typed.stderr
    laptop.pings()

    # Changed while it is on: the same profile, still on, with its key.
    desktop.start()
    laptop.write(topology(user="alice", advertise=[BEHIND_HUB]))
    status, said = alice.wgnet("plan office.wgnet.yaml")
    assert status == 0, said
    status, said = alice.wgnet("apply office.wgnet.yaml")
    assert (status, "applied" in said) == (0, True), said
    assert alice.run("nmcli -g UUID connection show --active").stdout.split().count(UUID) == 1
    assert desktop.keeps
    assert laptop.run("wg show all allowed-ips; ip route").stdout.count(BEHIND_HUB) == 2
    laptop.pings()
    assert alice.run("nmcli connection down office && nmcli connection up office").status == 0
    laptop.pings()
    status, said = alice.wgnet("apply office.wgnet.yaml")
    assert (status, "nothing to do" in said) == (0, True), said

    # What goes back by itself takes an administrator here; nothing waits for a decision.
    before = laptop.keyfiles
    laptop.write(topology(user="alice"))
    status, said = alice.wgnet("apply office.wgnet.yaml --confirm 60s")
    assert (status, "--confirm cannot be kept" in said) == (6, True), said
    status, said = alice.wgnet("rollback")
    assert (status, codes.NOTHING_TO_SETTLE.name in said) == (6, True), said
    assert laptop.keyfiles == before

    # And it goes as it came.
    status, said = alice.wgnet("remove office")
    assert status == 0, said
    assert laptop.interfaces == []
    assert "office" not in laptop.run("nmcli -g NAME connection show").stdout.split()
    assert laptop.run("ls /etc/NetworkManager/system-connections | grep office || true").stdout == ""
    assert not desktop.keeps


@pytest.mark.every_day()
def test_preshared_keys_beside_the_agents_key_leave_peers_out(laptop: Laptop, alice: Session) -> None:
    """It is NetworkManager's doing, and wgnet says so: where it no longer is, the warning is to go."""
    Agent(laptop, alice).start()
    laptop.write(topology(user="alice", preshared=True))
    status, said = alice.wgnet("apply office.wgnet.yaml --keys keys")
    assert (status, codes.PRESHARED_WITH_AGENT.name in said) == (0, True), said
    assert alice.run("nmcli connection up office").status == 0
    assert laptop.run("wg show office public-key").stdout.strip() == KEY.public()
    assert laptop.run("wg show office allowed-ips | grep -v '(none)' || true").stdout == ""
    assert alice.wgnet("remove office")[0] == 0


@pytest.mark.every_day()
def test_it_is_nobody_elses_and_not_changed_from_elsewhere(laptop: Laptop, alice: Session) -> None:
    desktop = Agent(laptop, alice)
    desktop.start()

    # From elsewhere she would have to give a password, which nobody there can ask for.
    laptop.run(_SSH, timeout=_LIMIT)
    remote = "ssh -o StrictHostKeyChecking=no -o BatchMode=yes -q alice@127.0.0.1 "
    seen = laptop.run(remote + "'loginctl show-session $XDG_SESSION_ID -p Active -p Remote -p Seat'").stdout
    assert "Remote=yes" in seen, seen

    def from_elsewhere(command: str) -> tuple[int, str]:
        return _told(laptop.run(remote + shlex.quote(f"{command} 2>&1"), timeout=_LIMIT, check=False))

    before = laptop.keyfiles
    status, said = from_elsewhere(f"{WGNET} apply office.wgnet.yaml --keys keys")
    assert (status, codes.NM_DENIED.name in said) == (6, True), said
    assert laptop.keyfiles == before
    status, said = alice.wgnet("apply office.wgnet.yaml --keys keys")
    assert status == 0, said
    before = laptop.keyfiles
    laptop.write(topology(user="alice", advertise=[BEHIND_HUB]))
    for command in ("apply office.wgnet.yaml", "remove office"):
        status, said = from_elsewhere(f"{WGNET} {command}")
        assert (status, codes.NM_DENIED.name in said) == (6, True), said
        assert laptop.keyfiles == before
    status, said = from_elsewhere("nmcli connection up office")
    assert status != 0, said
    assert laptop.interfaces == []

    # Another user takes the seat: to him it is not there.
    bob = Session(laptop, "bob")
    assert (bob.state["Active"], alice.state["Active"]) == ("yes", "no")
    assert "office" not in bob.run("nmcli -g NAME connection show").stdout.split()
    for command in ("up", "modify", "delete", "show --show-secrets"):
        verb, _, options = command.partition(" ")
        more = " connection.autoconnect yes" if verb == "modify" else ""
        assert bob.run(f"nmcli {options} connection {verb} {UUID}{more}").status != 0
    laptop.run("cp ~alice/office.wgnet.yaml ~bob; chown bob: ~bob/office.wgnet.yaml")
    status, said = bob.wgnet("apply office.wgnet.yaml")
    assert (status, "alice" in said) == (6, True), said
    assert (laptop.keyfiles, laptop.interfaces) == (before, [])

    # Hers it is in the background, too, as polkit's rules have it: her session is still at the computer.
    status, said = alice.wgnet("apply office.wgnet.yaml")
    assert (status, "applied" in said) == (0, True), said
    assert laptop.keyfiles != before
    laptop.run(f"loginctl activate {alice.name}")
    assert (bob.state["Active"], alice.state["Active"]) == ("no", "yes")
    assert desktop.keeps
    up = alice.run("nmcli connection up office")
    assert up.status == 0, up.stdout + up.stderr
    laptop.pings()
    assert alice.wgnet("remove office")[0] == 0


_SSH = """
install -d -m 700 /root/.ssh ~alice/.ssh
[ -e /root/.ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub ~alice/.ssh/authorized_keys; chown -R alice: ~alice/.ssh
install -d -m 755 /run/sshd
systemd-run --quiet --unit=lab-sshd /usr/sbin/sshd -D -o UseDNS=no -o UsePAM=yes
until ssh-keyscan 127.0.0.1 >/dev/null 2>&1; do sleep 0.2; done
"""
