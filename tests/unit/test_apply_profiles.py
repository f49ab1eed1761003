"""Which profiles and checkpoints are wgnet's: what was rendered elsewhere, and what a killed run did not live to note.

NetworkManager is stood in for here; the real one is asked in tests/dbus and in the lab (test_faults.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.changes import DeviceChange, device_change, restored_device
from wgnet.live.device import DeviceSettings, parse_dump
from wgnet.managers.nm_settings import Property, Setting, Settings
from wgnet.syntax.spec import Manager
from wgnet.system import profiles as profiles_module
from wgnet.system.nm import Profile
from wgnet.system.profiles import Profiles, forget_profiles, read_record, write_record_file
from wgnet.system.snapshot import Owned, Snapshot
from wgnet.system.target import InterfaceTarget, Target

UUID = "5f3b8a52-35c1-4d51-8d0e-77a4f9d5ad01"


class Daemon:
    """A NetworkManager with these checkpoints, by path; `kept` are those that were destroyed."""

    def __init__(self, checkpoints: dict[str, list[str]], *, runs: bool = True) -> None:
        self._checkpoints = checkpoints
        self._runs = runs
        self.kept: list[str] = []

    def is_running(self) -> bool:
        return self._runs

    def checkpoints(self) -> dict[str, list[str]]:
        return self._checkpoints

    def keep(self, path: str) -> None:
        self.kept.append(path)


class Found:
    """A profile that is there, which makes an interface."""

    configured: dict[str, str | None] = {}  # noqa: RUF012  nobody changes it

    def __init__(self, interface: str) -> None:
        self.profile = Profile(
            path="/p", uuid=UUID, id="corp", type="wireguard", interface=interface, filename="", unsaved=False
        )


def wanted(name: str = "wg0", uuid: str = UUID) -> Target:
    device = DeviceSettings(name=name, private_key=None, public_keys=(), listen_port=0, firewall_mark=0)
    settings = Settings((Setting("connection", (Property("uuid", "s", uuid),)),))
    mine = InterfaceTarget(
        network="corp",
        name=name,
        manager=Manager.NETWORKMANAGER,
        device=device,
        mtu=1420,
        active=True,
        settings=settings,
    )
    return Target(artifacts=(), interfaces=(mine,))


def recorded(root: Path) -> dict[str, str]:
    """Return the interfaces in the record by UUID."""
    return {uuid: each.interface for uuid, each in read_record(root).items()}


@pytest.mark.parametrize("there", [True, False])
def test_a_profile_that_is_right_already_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Unless it is known, its removal from the topology would leave it."""
    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: Daemon({}))
    monkeypatch.setattr("wgnet.system.nm_apply.find_profile", lambda *_: Found("wg0") if there else None)
    Profiles(None, wanted(), tmp_path).adopt()  # type: ignore[arg-type]
    assert recorded(tmp_path) == ({UUID: "wg0"} if there else {})


def test_a_checkpoint_that_nobody_noted_is_found_by_its_one_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon({"/noted": ["wg0"], "/ours": ["wg0"], "/wide": ["wg0", "eth0"], "/other": ["eth0"], "/all": []})
    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: daemon)
    folder = tmp_path / "var/lib/wgnet/apply"
    folder.mkdir(parents=True)
    (folder / "checkpoints.json").write_text(json.dumps(["/noted"]))
    Profiles.keep(None, tmp_path, ["wg0"])  # type: ignore[arg-type]
    assert daemon.kept == ["/noted", "/ours"]
    assert not (folder / "checkpoints.json").exists()


OTHER = UUID.replace("5f", "6f")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What NetworkManager is told of the profile of wg0, which is there, and of others, which are not."""
    said: list[str] = []

    def applied(_nm: object, settings: Settings, _settle: object, **_: object) -> None:
        said.append(f"apply {settings.uuid}")

    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: Daemon({}))
    monkeypatch.setattr("wgnet.system.nm_apply.find_profile", lambda _, uuid: Found("wg0") if uuid == UUID else None)
    monkeypatch.setattr("wgnet.system.nm_apply.guard_profile", lambda *_: None)
    monkeypatch.setattr("wgnet.system.nm_apply.apply_profile", applied)
    monkeypatch.setattr("wgnet.system.nm_apply.remove_profile", lambda _, uuid: said.append(f"remove {uuid}"))
    monkeypatch.setattr("wgnet.system.nm_apply.restore_profile", lambda _, saved, uuid, __: said.append(f"back {uuid}"))
    monkeypatch.setattr(profiles_module, "read_devices", dict)
    mine = Owned(interface="wg0", network="corp", manager=Manager.NETWORKMANAGER, uuid=UUID)
    write_record_file(tmp_path / "var/lib/wgnet/profiles.json", [mine])
    return said


def snapshot_of(profiles: Profiles, target: Target) -> Snapshot:
    made = tuple(
        Owned(interface=each.name, network=each.network, manager=each.manager, uuid=each.settings.uuid)
        for each in target.interfaces
        if each.settings is not None
    )
    uuids = {each.uuid: None for each in (*made, *profiles.owned()) if each.uuid is not None}
    return Snapshot(
        artifacts=(),
        dump="",
        mtus={},
        owned=profiles.owned(),
        made=made,
        configured={},
        replaced={},
        parameters={},
        profiles=uuids,
    )


@pytest.mark.parametrize(
    ("name", "uuid", "calls"),
    [
        ("wg1", UUID, [f"apply {UUID}"]),
        ("wg0", OTHER, [f"remove {UUID}", f"apply {OTHER}"]),
        ("wg1", OTHER, [f"apply {OTHER}", f"remove {UUID}"]),
    ],
    ids=["another name of the interface", "another network of the interface", "another network"],
)
def test_a_profile_is_known_by_its_uuid(
    told: list[str], tmp_path: Path, name: str, uuid: str, calls: list[str]
) -> None:
    """By the name of its interface, one that is renamed would be removed, and one whose network is renamed be left."""
    target = wanted(name, uuid)
    profiles = Profiles(None, target, tmp_path)  # type: ignore[arg-type]
    snapshot = snapshot_of(profiles, target)
    assert {each.uuid for each in snapshot.owned} == {UUID}
    profiles.apply(snapshot, Diagnostics())
    assert told == calls
    assert recorded(tmp_path) == {uuid: name}
    # And back: of both it is known which interface they make.
    told.clear()
    Profiles.restore(None, snapshot, Diagnostics(), tmp_path)  # type: ignore[arg-type]
    assert told == [f"back {each}" for each in snapshot.profiles]
    assert recorded(tmp_path) == {UUID: "wg0"}


def test_a_run_that_is_killed_forgets_no_profile(
    told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them have one interface then: the one that is to go, and the one that comes."""
    target = wanted("wg0", OTHER)
    profiles = Profiles(None, target, tmp_path)  # type: ignore[arg-type]
    snapshot = snapshot_of(profiles, target)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wgnet.system.nm_apply.remove_profile", killed)
    with pytest.raises(KeyboardInterrupt):
        profiles.apply(snapshot, Diagnostics())
    assert recorded(tmp_path) == {UUID: "wg0", OTHER: "wg0"}
    # And the next run, which may have nothing to go back to, takes away what is to go.
    monkeypatch.setattr("wgnet.system.nm_apply.remove_profile", lambda _, uuid: told.append(f"remove {uuid}"))
    again = Profiles(None, target, tmp_path)  # type: ignore[arg-type]
    again.apply(snapshot_of(again, target), Diagnostics())
    assert told == [f"remove {UUID}", f"apply {OTHER}"]
    assert recorded(tmp_path) == {OTHER: "wg0"}


def test_what_is_known_of_two_profiles_of_one_interface_goes_through_a_snapshot(
    told: list[str], tmp_path: Path
) -> None:
    both = [
        Owned(interface="wg0", network=network, manager=Manager.NETWORKMANAGER, uuid=uuid)
        for network, uuid in (("corp", UUID), ("firm", OTHER))
    ]
    write_record_file(tmp_path / "var/lib/wgnet/profiles.json", both)
    profiles = Profiles(None, Target(artifacts=(), interfaces=()), tmp_path)  # type: ignore[arg-type]
    snapshot = snapshot_of(profiles, Target(artifacts=(), interfaces=()))
    assert Snapshot.from_json(snapshot.to_json()).owned == tuple(both)
    Profiles.restore(None, snapshot, Diagnostics(), tmp_path)  # type: ignore[arg-type]
    assert told == [f"back {UUID}", f"back {OTHER}"]
    assert recorded(tmp_path) == {UUID: "wg0", OTHER: "wg0"}


def test_profiles_of_a_networkmanager_that_is_gone_go_from_disk_and_come_back_there(
    told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken off the machine, it answers nothing, and would keep every change out for ever."""
    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: Daemon({}, runs=False))
    folder = tmp_path / "etc/NetworkManager/system-connections"
    folder.mkdir(parents=True)
    texts = {"corp.nmconnection": f"[connection]\nuuid={UUID}\n", "other.nmconnection": f"[connection]\nuuid={OTHER}\n"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    target = Target(artifacts=(), interfaces=())
    # One that was stopped has left the device, which nobody else is to remove.
    monkeypatch.setattr(profiles_module, "link_exists", lambda name: name == "wg0")
    monkeypatch.setattr("wgnet.system.nm_apply.save_profile", lambda _, uuid: told.append(f"ask for {uuid}"))
    assert Profiles(None, target, tmp_path).save() == {UUID: None}  # type: ignore[arg-type]
    assert told.pop() == f"ask for {UUID}"
    monkeypatch.setattr(profiles_module, "link_exists", lambda _: False)
    profiles = Profiles(None, target, tmp_path)  # type: ignore[arg-type]
    assert profiles.changes() == ["the profile 'corp' (wg0) is removed"]
    snapshot = replace(snapshot_of(profiles, target), profiles=profiles.save())
    profiles.apply(snapshot, Diagnostics())
    assert [path.name for path in folder.iterdir()] == ["other.nmconnection"]
    assert recorded(tmp_path) == {}
    Profiles.restore(None, Snapshot.from_json(snapshot.to_json()), Diagnostics(), tmp_path)  # type: ignore[arg-type]
    assert {path.name: path.read_text() for path in folder.iterdir()} == texts
    assert (folder / "corp.nmconnection").stat().st_mode & 0o777 == 0o600
    assert (recorded(tmp_path), told) == ({UUID: "wg0"}, [])


def test_what_an_images_links_lead_to_outside_is_not_forgotten(tmp_path: Path) -> None:
    """They lead elsewhere in the image that it is to be; nothing of the machine that builds it is touched."""
    root = tmp_path / "image"
    keyfile = f"[connection]\nuuid={UUID}\n"
    mine = Owned(interface="wg0", network="corp", manager=Manager.NETWORKMANAGER, uuid=UUID)
    outside = tmp_path / "elsewhere"
    for place in (outside, root / str(outside).lstrip("/")):
        (place / "NetworkManager/system-connections").mkdir(parents=True)
        (place / "NetworkManager/system-connections/corp.nmconnection").write_text(keyfile)
        (place / "wgnet").mkdir()
        write_record_file(place / "wgnet/profiles.json", [mine])
    for link, place in (("etc/NetworkManager", "NetworkManager"), ("var/lib/wgnet", "wgnet")):
        (root / link).parent.mkdir(parents=True)
        (root / link).symlink_to(outside / place)
    assert forget_profiles(root, ()) == ["corp"]
    left = {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and "image" not in path.parts
    }
    assert left == {"elsewhere/NetworkManager/system-connections/corp.nmconnection", "elsewhere/wgnet/profiles.json"}
    assert [path for path in root.rglob("*") if path.is_file()] == []


CHANGED, ROAMED, PLAIN, GONE = (f"{letter * 42}A=" for letter in "crpg")


def dump(changed: str, roamed: str, plain: str, gone: str) -> str:
    ends = {CHANGED: changed, ROAMED: roamed, PLAIN: plain, GONE: gone}
    lines = [f"wg0\t{'k' * 42}A=\t{'l' * 42}A=\t51820\toff"]
    lines += [
        f"wg0\t{key}\t(none)\t{end}\t10.0.0.{n}/32\t1000\t148\t92\toff" for n, (key, end) in enumerate(ends.items())
    ]
    return "".join(f"{line}\n" for line in lines)


def test_an_endpoint_that_the_change_has_set_is_set_back_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left as it is, the way back would never come to its end."""
    mine = Owned(interface="wg0", network="corp", manager=Manager.NETWORKMANAGER, uuid=UUID)
    snapshot = Snapshot(
        artifacts=(),
        dump=dump("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"),
        mtus={},
        owned=(mine,),
        made=(mine,),
        configured={"wg0": {CHANGED: "192.0.2.1:1", ROAMED: "192.0.2.2:1", PLAIN: None, GONE: "192.0.2.4:1"}},
        replaced={"wg0": {CHANGED: "192.0.2.9:9", ROAMED: "192.0.2.2:1", PLAIN: None}},
        parameters={},
        profiles={UUID: None},
    )
    found: list[DeviceChange] = []

    def restore(_nm: object, _saved: object, _uuid: str, settle: Callable[[], None]) -> None:
        settle()

    # The last one was to go, and the change did not live to take it away.
    live = parse_dump(dump("192.0.2.9:9", "198.51.100.2:7", "198.51.100.3:7", "198.51.100.4:7"))
    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: Daemon({}))
    monkeypatch.setattr("wgnet.system.nm_apply.restore_profile", restore)
    monkeypatch.setattr(profiles_module, "read_devices", lambda: live)
    monkeypatch.setattr(profiles_module, "set_device", lambda change, _: found.append(change))
    Profiles.restore(None, snapshot, Diagnostics(), tmp_path)  # type: ignore[arg-type]
    [change] = found
    # Root's verification asks the same, or it would wait for what nobody does.
    after = replace(live["wg0"], peers={**live["wg0"].peers, CHANGED: snapshot.devices()["wg0"].peers[CHANGED]})
    wanted = restored_device(snapshot.devices()["wg0"])
    assert not device_change(after, wanted, snapshot.endpoints_to_leave(wanted))
    assert [(peer.public_key, peer.endpoint) for peer in change.peers] == [(CHANGED, "192.0.2.1:1")]


@pytest.mark.parametrize(("handshake", "are_set"), [(0, ["192.0.2.1:1"]), (1000, [])])
def test_an_endpoint_of_nobody_is_not_kept_for_one_that_a_peer_roamed_to(
    monkeypatch: pytest.MonkeyPatch, handshake: int, are_set: list[str]
) -> None:
    """What a restarted NetworkManager has set of a configuration that is gone."""
    live = parse_dump(
        f"wg0\t{'k' * 42}A=\t{'l' * 42}A=\t51820\toff\n"
        f"wg0\t{CHANGED}\t(none)\t192.0.2.9:9\t10.0.0.1/32\t{handshake}\t0\t0\toff\n"
    )
    monkeypatch.setattr(profiles_module, "read_devices", lambda: live)
    found: list[DeviceChange] = []
    monkeypatch.setattr(profiles_module, "set_device", lambda change, _: found.append(change))
    settings = restored_device(live["wg0"])
    peers = {CHANGED: replace(settings.peers[CHANGED], endpoint="192.0.2.1:1")}
    mine = replace(wanted().interfaces[0], device=replace(settings, peers=peers))

    def finish() -> None:
        Profiles.finish([mine], Diagnostics())

    for settle in (Profiles._settling(mine, {CHANGED: "192.0.2.1:1"}, Diagnostics()), finish):
        found.clear()
        settle()
        assert [peer.endpoint for change in found for peer in change.peers] == are_set
