"""The desktop's own agent: nm-applet and GNOME's keyring in a user's session, in which `wgnet apply` is run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from realparsers.bus import USER, USER_NUMBER, BusHost
from realparsers.needs import SYSTEM_PYTHON, needs

from wgnet.cli.main import main
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.system.keystore import KeyStore

from .conftest import Screen
from .test_dialog import RULE, start_polkit
from .test_summary import LAPTOP, office

WGNET = f"{SYSTEM_PYTHON} -P -m wgnet"


class Session:
    """A user's login: a bus of their own, a keyring that is open, and a shell for orders."""

    def __init__(self, screen: Screen, host: BusHost) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wgnet-session-", dir="/tmp"))
        self.folder.chmod(0o755)
        for name in ("home", "run"):
            (self.folder / name).mkdir(mode=0o700)
            os.chown(self.folder / name, USER_NUMBER, USER_NUMBER)
        for name, line in (
            ("passwd", f"{USER}:x:{USER_NUMBER}:{USER_NUMBER}::{self.folder}/home:/bin/sh\n"),
            ("group", f"{USER}:x:{USER_NUMBER}:\n"),
        ):
            (self.folder / name).write_text(f"{Path('/etc', name).read_text()}{line}")
        # A session's bus wants to know its user by name: for these processes alone there is one.
        mounts = " && ".join(f"mount --bind {self.folder}/{name} /etc/{name}" for name in ("passwd", "group"))
        login = f"setpriv --reuid {USER_NUMBER} --regid {USER_NUMBER} --clear-groups dbus-run-session -- sh"
        self._shell = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{mounts} && exec {login}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
                "DISPLAY": screen.display,
                "NO_AT_BRIDGE": "1",
                "HOME": f"{self.folder}/home",
                "XDG_RUNTIME_DIR": f"{self.folder}/run",
                "PYTHONPATH": str(screen.folder / "package"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "DBUS_SYSTEM_BUS_ADDRESS": host.address,
            },
        )

    def run(self, command: str) -> tuple[int, str]:
        """Run a line of the shell; return its status and what it said."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f'{{ {command}\n}} 2>&1; echo "::end $?"\n')
        self._shell.stdin.flush()
        said = []
        for line in self._shell.stdout:
            before, mark, status = line.partition("::end ")
            said.append(before)
            if mark:
                return int(status), "".join(said)
        raise AssertionError(f"the session is over: {''.join(said)}")

    def start_applet(self, host: BusHost) -> None:
        """Start the applet, and wait until it is the user's agent."""
        registered = host.log().count("agent registered")
        self.run("nm-applet > $HOME/applet.log 2>&1 &")
        until = time.monotonic() + 30
        while host.log().count("agent registered") == registered:
            assert time.monotonic() < until, self.run("cat $HOME/applet.log")
            time.sleep(0.1)

    def close(self) -> None:
        """Log out."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.write("kill $!\nexit\n")
            self._shell.stdin.close()
        self._shell.wait(30)
        self._shell.stdout.close()
        shutil.rmtree(self.folder)


@pytest.fixture
def host() -> Iterator[BusHost]:
    """NetworkManager, and a polkit that lets users do what they may at a seat."""
    for program in ("NetworkManager", "polkitd", "nmcli"):
        needs(program)
    with BusHost("installed", files={"/etc/polkit-1/rules.d/10-wgnet.rules": RULE}) as found:
        start_polkit(found)
        yield found


@pytest.fixture
def session(screen: Screen, host: BusHost) -> Iterator[Session]:
    """A session with an open keyring and the applet."""
    for program in ("nm-applet", "gnome-keyring-daemon", "secret-tool", "dbus-run-session", "unshare", "setpriv"):
        needs(program)
    found = Session(screen, host)
    try:
        status, said = found.run("printf secret | gnome-keyring-daemon --unlock --components=secrets")
        assert status == 0, said
        found.start_applet(host)
        yield found
    finally:
        found.close()


def test_the_keyring_keeps_the_key_through_every_change(screen: Screen, host: BusHost, session: Session) -> None:
    text = office(f"manager: networkmanager, permissions: [{USER}], private-key: {{agent: true}}, autoconnect: false")
    text = text.replace(f'public-key: "{LAPTOP}", ', "").replace("]}\npeering", "], preshared-keys: true}\npeering")
    file = screen.write("keyring.wgnet.yaml", text)
    store = session.folder / "keys"
    assert main(["keys", "generate", str(file), "--keys", str(store)]) == 0
    found = KeyStore(store).private_key("office", "laptop", Diagnostics())
    assert found is not None
    key = found.reveal()
    for path in (store, *store.rglob("*")):
        os.chown(path, USER_NUMBER, USER_NUMBER)
    apply = f"{WGNET} apply {file} --host laptop"
    status, said = session.run(f"{apply} --keys {store}")
    assert status == 0, said
    # The agent takes part; that the links have preshared keys is another matter (WG4004).
    assert "warning[WG6037]" not in said

    def in_keyring() -> str:
        return session.run(f"secret-tool lookup connection-uuid {uuid} setting-name wireguard setting-key private-key")[
            1
        ].strip()

    status, uuid = session.run("nmcli -g connection.uuid connection show office")
    uuid = uuid.strip()
    assert status == 0, uuid
    assert in_keyring() == key
    [keyfile] = host.keyfiles().values()
    assert key.encode() not in keyfile
    assert b"preshared-key=" in keyfile
    assert session.run("nmcli -g NAME,TYPE connection show")[1].splitlines()[-1] == "office:wireguard"

    for mtu in (1380, 1370):
        file.write_text(file.read_text().replace("autoconnect: false", f"autoconnect: false, mtu: {mtu}", 1))
        status, said = session.run(apply)
        assert status == 0, said
        [keyfile] = host.keyfiles().values()
        assert f"mtu={mtu}\n".encode() in keyfile
        assert f"uuid={uuid}\n".encode() in keyfile
        assert in_keyring() == key
        file.write_text(file.read_text().replace(f", mtu: {mtu}", ""))
        # What NetworkManager remembers is gone with it.
        session.run("kill $!; wait $!")
        host.kill("NetworkManager")
        host.start("NetworkManager")
        session.start_applet(host)

    status, said = session.run(f"{WGNET} remove office")
    assert status == 0, said
    assert host.keyfiles() == {}
    until = time.monotonic() + 10
    while in_keyring() and time.monotonic() < until:
        time.sleep(0.2)
    assert in_keyring() == ""
