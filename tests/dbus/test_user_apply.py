"""What a user may have done without being root: the commands themselves, on the real NetworkManager and polkit."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from realparsers.bus import USER, USER_NUMBER, BusHost
from realparsers.sandbox import require_root

from wgnet.cli import user
from wgnet.cli.main import main
from wgnet.diagnostics import codes
from wgnet.managers import templates
from wgnet.managers.templates import package_folder
from wgnet.system.dbus import Bus
from wgnet.system.live import read_public_state
from wgnet.system.lock import lock_folder
from wgnet.system.nm import NetworkManagerDaemon

from .conftest import needs

AsUser = Callable[[Callable[[], Any]], Any]
#: What polkit lets a user do who sits at the machine; there is no seat here.
RULE = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.NetworkManager.settings.modify.own") return polkit.Result.YES;
    if (action.id == "org.freedesktop.NetworkManager.network-control") return polkit.Result.YES;
});
"""
HUB, LAPTOP = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs=", "0CvoFnL5TxrI7Trgu745od0gTfjsY2nYuapHzROPbDA="


def office(
    more: str = f"private-key: {{agent: true}}, permissions: [{USER}], autoconnect: false",
    *,
    keys: bool = True,
    psk: bool = False,
    tail: str = "",
) -> str:
    """Return a network of a hub and a laptop; the laptop has `more`."""
    hub, laptop = (f', public-key: "{key}"' if keys else "" for key in (HUB, LAPTOP))
    return (
        f"wgnet: 1\nnetwork: {{name: office, subnets: [10.80.0.0/24], preshared-keys: {str(psk).lower()}}}\n"
        f"peering: {{hub: fra}}\nhosts:\n  fra: {{addresses: [10.80.0.1], endpoint: 192.0.2.1{hub}}}\n"
        f"  laptop: {{addresses: [10.80.0.2]{laptop}, manager: networkmanager{', ' if more else ''}{more}}}\n{tail}"
    )


class Desk:
    """A user's folder and bus; commands run there as that user, in a process of their own."""

    def __init__(self, folder: Path, host: BusHost, as_user: AsUser) -> None:
        self.folder, self.host, self._as_user = folder, host, as_user
        self.file = folder / "office.yaml"
        self.state = folder / "state" / "wgnet"

    def wgnet(self, *arguments: str) -> tuple[int, str]:
        """Run a command; return its status and both outputs together."""
        said = self.folder / "said"
        said.touch()
        said.chmod(0o666)
        said.write_bytes(b"")

        def run() -> int:
            with open(said, "w", encoding="utf-8") as stream:
                sys.stdout = sys.stderr = stream
                os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self.host.address
                os.environ["XDG_STATE_HOME"] = str(self.folder / "state")
                try:
                    return main(list(arguments))
                except SystemExit as end:
                    return int(str(end.code))

        status: int = self._as_user(run)
        text = said.read_text()
        assert "Traceback" not in text, text
        return status, text

    def on(self, command: str, text: str, *options: str) -> tuple[int, str]:
        """Run a command about the laptop of a topology."""
        self.file.write_text(text)
        return self.wgnet(command, str(self.file), "--host", "laptop", *options)

    @property
    def record(self) -> list[str]:
        """The networks that the user's state has profiles of."""
        path = self.state / "profiles.json"
        if not path.exists():
            return []
        return [each["network"] for each in json.loads(path.read_text())["profiles"].values()]

    @property
    def keyfile(self) -> str:
        [content] = self.host.keyfiles().values()
        return content.decode()


@pytest.fixture(scope="module", autouse=True)
def _everything_at_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A user without rights may not be able to read this interpreter's modules, or the checkout, later."""
    read_public_state(["lo"])
    for name in ("ascii", "utf-8-sig", "idna"):
        codecs.lookup(name)
    folder = tmp_path_factory.mktemp("imported")
    file = folder / "office.yaml"
    file.write_text(office(keys=False, psk=True))
    with redirect_stdout(StringIO()):
        assert main(["keys", "generate", str(file), "--keys", str(folder / "keys")]) == 0
        assert main(["render", str(file), "--keys", str(folder / "keys"), "-o", str(folder / "out")]) == 0
        assert main(["plan", str(file), "--format", "json", "-o", str(folder / "out")]) == 0
    with (
        tempfile.TemporaryDirectory(prefix="wgnet-templates-", dir="/tmp") as readable,
        pytest.MonkeyPatch.context() as patch,
    ):
        os.chmod(readable, 0o755)
        shutil.copytree(package_folder(), readable, dirs_exist_ok=True)
        os.chmod(readable, 0o755)
        patch.setattr(templates, "package_folder", lambda: Path(readable))
        yield


@contextmanager
def desk_at(host: BusHost, as_user: AsUser) -> Iterator[Desk]:
    # pytest's own folders are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="wgnet-desk-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        (folder / "state").mkdir()
        os.chown(folder / "state", USER_NUMBER, USER_NUMBER)
        yield Desk(folder, host, as_user)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def allowing() -> Iterator[BusHost]:
    """NetworkManager, and a polkit that lets users do what they may at a seat."""
    require_root("NetworkManager starts as root only")
    needs("NetworkManager")
    needs("polkitd")
    with BusHost("installed", files={"/etc/polkit-1/rules.d/10-wgnet.rules": RULE}) as host:
        host.start("polkit")
        with Bus.connect(host.address) as bus:
            until = time.monotonic() + 20
            while not bus.name_has_owner("org.freedesktop.PolicyKit1"):
                assert time.monotonic() < until, host.log("polkit")
                time.sleep(0.05)
        yield host


@pytest.fixture
def desk(allowing: BusHost, as_user: AsUser) -> Iterator[Desk]:
    with desk_at(allowing, as_user) as found:
        yield found
        found.wgnet("remove", "office")
    assert allowing.keyfiles() == {}


@pytest.fixture
def refusing(as_user: AsUser) -> Iterator[Desk]:
    """Only root is allowed anything: there is no polkit."""
    require_root("NetworkManager starts as root only")
    needs("NetworkManager")
    with BusHost("installed") as host, desk_at(host, as_user) as found:
        yield found


def test_a_profile_is_planned_made_changed_and_removed(desk: Desk) -> None:
    status, said = desk.on("plan", office(), "--exit-code")
    assert (status, "the profile 'office' (office) is added" in said) == (3, True), said
    assert desk.host.keyfiles() == {}
    status, said = desk.on("apply", office())
    assert (status, "'laptop': applied" in said) == (0, True), said
    assert "not compared" in said
    before = desk.keyfile
    assert f"permissions=user:{USER}:;" in before
    assert "private-key-flags=1" in before
    assert "private-key=" not in before
    assert desk.record == ["office"]
    status_of = desk.state.stat()
    assert (status_of.st_mode & 0o777, status_of.st_uid) == (0o700, USER_NUMBER)
    assert sorted(path.name for path in desk.state.iterdir()) == ["profiles.json"]

    status, said = desk.on("apply", office())
    assert (status, "nothing to do" in said) == (0, True), said
    assert desk.on("plan", office(), "--exit-code")[0] == 0
    assert desk.keyfile == before

    changed = office(
        tail='  bob: {addresses: [10.80.0.3], public-key: "h3WmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="}\n'
    )
    changed = changed.replace("autoconnect: false", "autoconnect: false, mtu: 1380")
    status, said = desk.on("plan", changed, "--format", "json")
    assert json.loads(said)["costs"] == []
    assert desk.on("apply", changed)[0] == 0
    assert "mtu=1380" in desk.keyfile
    assert len(desk.host.keyfiles()) == 1

    status, said = desk.wgnet("remove", "office")
    assert (status, desk.host.keyfiles(), desk.record) == (0, {}, []), said
    status, said = desk.wgnet("remove", "office")
    assert (status, codes.NOTHING_TO_REMOVE.name in said) == (6, True), said


def test_keys_come_from_the_store_and_stay_in_the_profile(desk: Desk) -> None:
    text = office(f"permissions: [{USER}], autoconnect: false", keys=False, psk=True)
    status, said = desk.on("apply", office(f"permissions: [{USER}], autoconnect: false", psk=True))
    assert (status, "is not at hand" in said) == (6, True), said
    store = desk.folder / "keys"
    desk.file.write_text(text)
    assert main(["keys", "generate", str(desk.file), "--keys", str(store)]) == 0
    text = desk.file.read_text()
    for path in (store, *store.rglob("*")):
        os.chown(path, USER_NUMBER, USER_NUMBER)
    status, said = desk.on("apply", text, "--keys", str(store))
    assert status == 0, said
    keys = [line for line in desk.keyfile.splitlines() if "private-key=" in line or "preshared-key=" in line]
    assert len(keys) == 2
    assert not any(line.partition("=")[2] in said for line in keys)
    # Without the store: what the profile has is what it is to have.
    status, said = desk.on("apply", text.replace("autoconnect: false", "autoconnect: false, mtu: 1380"))
    assert status == 0, said
    assert "mtu=1380" in desk.keyfile
    assert [line for line in desk.keyfile.splitlines() if line in keys] == keys


def test_a_network_that_is_renamed_leaves_no_profile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has another UUID, and the same interface; nor does it where the run is killed before the old one goes."""
    corp = office().replace("name: office", "name: office, interface: wg0")
    firm = corp.replace("name: office", "name: firm")
    assert desk.on("apply", corp)[0] == 0
    before = desk.host.keyfiles()
    for command in ("plan", "apply"):
        status, said = desk.on(command, firm)
        assert (status, codes.OTHER_NETWORK.name in said) == (6, True), said
        assert "'wg0' of 'firm' is taken by the network 'office'" in said
    assert (desk.host.keyfiles(), desk.record) == (before, ["office"])
    # As if the file lay among the system's.
    monkeypatch.setattr(user, "networks_named", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(NetworkManagerDaemon, "delete", lambda *_: os._exit(7))
        with pytest.raises(AssertionError):
            desk.on("apply", firm)
    assert "id=office" in desk.keyfile
    assert sorted(desk.record) == ["firm", "office"]
    status, said = desk.on("apply", firm)
    assert (status, "id=firm" in desk.keyfile, desk.record) == (0, True, ["firm"]), said
    assert desk.wgnet("remove", "firm")[0] == 0


def test_what_does_not_come_up_is_put_back(desk: Desk) -> None:
    """Its kernel has no WireGuard, or the tester's network is another than NetworkManager's: it cannot be verified."""
    status, said = desk.on("apply", office(f"private-key: {{agent: true}}, permissions: [{USER}]"))
    assert (status, "everything was put back" in said) == (4, True), said
    assert codes.NM_ACTIVATION.name in said or codes.NOT_AS_PLANNED.name in said
    assert (desk.host.keyfiles(), desk.record) == ({}, [])
    assert desk.on("apply", office())[0] == 0
    before = desk.keyfile
    up = office(f"private-key: {{agent: true}}, permissions: [{USER}], mtu: 1380")
    assert desk.on("apply", up)[0] == 4
    assert desk.keyfile == before
    assert desk.record == ["office"]


def test_what_is_everybodys_takes_an_administrator(desk: Desk) -> None:
    status, said = desk.on("apply", office("private-key: {agent: true}, autoconnect: false"))
    assert status == 6, said
    assert codes.NM_NOT_OWN.name in said
    assert codes.NM_DENIED.name in said
    assert "permissions: [" in said
    assert (desk.host.keyfiles(), desk.record) == ({}, [])


def test_what_root_alone_can_do_is_named(desk: Desk) -> None:
    more = f"private-key: {{agent: true}}, permissions: [{USER}], autoconnect: false, advertise: [192.168.80.0/24]"
    status, said = desk.on("apply", office(more))
    assert status == 0, said
    assert codes.NEEDS_ROOT.name in said
    assert "/etc/sysctl.d/" in said
    status, said = desk.on("apply", office("manager: networkd").replace("manager: networkmanager, ", ""))
    assert (status, "only root may change 'office'" in said) == (6, True), said


def test_a_change_that_nobody_could_undo_is_not_made(desk: Desk) -> None:
    status, said = desk.on("apply", office(), "--confirm", "60s")
    assert (status, "--confirm cannot be kept" in said) == (6, True), said
    assert desk.host.keyfiles() == {}
    for command in ("confirm", "rollback"):
        status, said = desk.wgnet(command)
        assert (status, codes.NOTHING_TO_SETTLE.name in said) == (6, True), said


def test_two_at_once_do_not_mix(desk: Desk) -> None:
    assert desk.on("apply", office())[0] == 0
    lock = lock_folder(None, str(desk.state), wait=0)
    try:
        status, said = desk.on("apply", office().replace("autoconnect: false", "autoconnect: false, mtu: 1380"))
    finally:
        os.close(lock)
    assert (status, codes.LOCKED.name in said) == (6, True), said


def test_where_polkit_says_no_nothing_is_touched(refusing: Desk) -> None:
    status, said = refusing.on("apply", office())
    assert (status, codes.NM_DENIED.name in said) == (6, True), said
    assert (refusing.host.keyfiles(), refusing.record) == ({}, [])
    refusing.host.kill("NetworkManager")
    status, said = refusing.on("apply", office())
    assert (status, "NetworkManager does not run" in said) == (6, True), said
    refusing.host.kill("bus")
    status, said = refusing.on("plan", office())
    assert (status, codes.CANNOT_START.name in said) == (6, True), said
