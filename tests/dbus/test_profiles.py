"""Profiles over D-Bus, with the real NetworkManager: exact types, secrets all or none, one profile a UUID, and back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from dbus_sample import UUID, Example, key, profiles_of, secrets_of, small
from example_trees import examples
from realparsers.bus import BusHost

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.live.profile import differences, exchanged, ip_differs
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.networkmanager import NetworkManager, describe
from wgnet.managers.nm_settings import DbusSettings, to_dbus
from wgnet.managers.templates import Templates
from wgnet.record import replace
from wgnet.system.dbus import Bus
from wgnet.system.nm import NetworkManagerDaemon, NmError, NmProblem
from wgnet.system.nm_apply import (
    SavedProfile,
    apply_profile,
    changes,
    costs,
    find_profile,
    guard_profile,
    remove_profile,
    report_problem,
    restore_profile,
    save_profile,
)

OTHER = "0f2d1c5e-0000-5000-8000-0000000000ff"


def down(example: Example) -> Example:
    """Return an example's profile as one that stays down: this machine's kernel may have no WireGuard."""
    return Example(name=example.name, plan=replace(example.plan, autoconnect=False), secrets=example.secrets)


def nothing() -> None:
    raise AssertionError("there is no device to settle")


def test_there_are_profiles_to_look_at() -> None:
    assert sum(len(profiles_of(name)) for name in examples()) > 90


@pytest.mark.parametrize("name", examples())
def test_what_is_sent_is_what_the_keyfile_says(
    name: str, nm: NetworkManagerDaemon, daemon: BusHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property by property, with its type: what comes over D-Bus, and what the same daemon reads from our keyfile."""
    renderer = NetworkManager(Templates())
    for example in profiles_of(name):
        wanted = to_dbus(example.settings)
        path = nm.add(wanted)
        sent = nm.settings_with_secrets(path)
        assert differences(wanted, sent) == [], example.name
        nm.delete(path)
        [artifact] = renderer.render(example.plan, example.secrets, Diagnostics())
        assert nm.load(daemon.put(Path(artifact.path).name, artifact.content))
        profile = nm.profile(example.settings.uuid)
        assert profile is not None
        read = nm.settings_with_secrets(profile.path)
        assert differences(wanted, read) == [], example.name
        if wanted["ipv6"]["method"] == ("s", "disabled"):
            # There is none, and so it means nothing; a keyfile that does not speak of it has another default.
            read["ipv6"].pop("addr-gen-mode", None)
        assert sent == read, example.name
        assert sorted(secrets_of(sent)) == sorted(secrets_of(wanted)), example.name
        nm.delete(profile.path)


def test_every_property_of_a_profile_counts(nm: NetworkManagerDaemon) -> None:
    """Whatever is changed of a profile is seen as a difference, in both directions."""
    example = profiles_of("office")[0]
    wanted = to_dbus(example.settings)
    current = nm.settings_with_secrets(nm.add(wanted))
    for setting, properties in wanted.items():
        for name in properties:
            if name in ("uuid", "type"):
                continue
            less: Any = copy.deepcopy(wanted)
            value = less[setting].pop(name)[1]
            told = differences(less, current)
            # What means the same as its absence may go.
            meaningless = value in (0, True, []) or name in ("addr-gen-mode",)
            assert ((setting, name) in told) or meaningless, (setting, name)
    more: Any = copy.deepcopy(wanted)
    more["connection"]["zone"] = ("s", "trusted")
    assert differences(more, current) == [("connection", "zone")]
    assert differences(wanted, {**current, "user": {"data": ("a{ss}", {"a": "b"})}}) == [("user", "data")]


def test_a_preshared_key_needs_its_flags_to_be_kept(nm: NetworkManagerDaemon) -> None:
    settings: Any = small()
    del settings["wireguard"]["peers"][1][0]["preshared-key-flags"]
    found = nm.settings_with_secrets(nm.add(settings))
    assert secrets_of(found) == [key(1)]
    nm.update(nm.profile(UUID).path, small())  # type: ignore[union-attr]
    assert secrets_of(nm.settings_with_secrets(nm.profile(UUID).path)) == [key(1), key(3)]  # type: ignore[union-attr]


def test_secrets_are_sent_all_or_none(nm: NetworkManagerDaemon) -> None:
    path = nm.add(small())
    none: Any = small()
    del none["wireguard"]["private-key"]
    del none["wireguard"]["peers"][1][0]["preshared-key"]
    nm.update(path, none)
    assert secrets_of(nm.settings_with_secrets(path)) == [key(1), key(3)]
    some: Any = small()
    del some["wireguard"]["private-key"]
    nm.update(path, some)
    assert secrets_of(nm.settings_with_secrets(path)) == [key(3)]


def test_a_private_key_that_is_not_at_hand_is_not_taken_away(nm: NetworkManagerDaemon) -> None:
    example = next(down(each) for each in profiles_of("office") if each.secrets.preshared_keys)
    apply_profile(nm, example.settings, nothing)
    without = InterfaceSecrets(preshared_keys=example.secrets.preshared_keys)
    plan = replace(example.plan, mtu=1380)
    apply_profile(nm, describe(plan, without), nothing)
    found = find_profile(nm, example.settings.uuid)
    assert found is not None
    assert found.settings["wireguard"]["mtu"] == ("u", 1380)
    assert sorted(secrets_of(found.settings)) == sorted(secrets_of(to_dbus(example.settings)))


# --- one profile a UUID ----------------------------------------------------------------------------------------------


def test_an_update_keeps_path_file_and_uuid(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    example = down(profiles_of("office")[0])
    assert changes(find_profile(nm, example.settings.uuid), example.settings) == ["profile"]
    assert apply_profile(nm, example.settings, nothing) is None
    before = find_profile(nm, example.settings.uuid)
    assert before is not None
    assert changes(before, example.settings) == []
    [(name, content)] = daemon.keyfiles().items()
    apply_profile(nm, example.settings, nothing)
    assert daemon.keyfiles() == {name: content}
    other = Example(name="", plan=replace(example.plan, listen_port=1234, interface="wg77"), secrets=example.secrets)
    assert changes(before, other.settings) == ["connection.interface-name", "wireguard.listen-port"]
    assert costs(before, other.settings) == []
    apply_profile(nm, other.settings, nothing)
    after = find_profile(nm, example.settings.uuid)
    assert after is not None
    assert after.profile.path == before.profile.path
    assert after.profile.filename == before.profile.filename
    assert after.profile.interface == "wg77"
    assert list(daemon.keyfiles()) == [name]
    assert sum(profile.type == "wireguard" for profile in nm.profiles()) == 1


@pytest.mark.parametrize("read", [True, False], ids=["read", "not-read-yet"])
def test_a_rendered_keyfile_is_updated_in_its_place(
    nm: NetworkManagerDaemon, daemon: BusHost, read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `wgnet render --system` left is the profile, whether NetworkManager has seen the file or not."""
    example = down(profiles_of("office")[0])
    [artifact] = NetworkManager(Templates()).render(example.plan, example.secrets, Diagnostics())
    name = Path(artifact.path).name
    inside = daemon.put(name, artifact.content)
    if read:
        assert nm.load(inside)
    # The daemon's /etc is not this side's.
    monkeypatch.setattr("os.path.exists", lambda path: (daemon.connections / Path(path).name).is_file())
    wanted = describe(replace(example.plan, mtu=1300), example.secrets)
    apply_profile(nm, wanted, nothing, keyfile=inside)
    assert list(daemon.keyfiles()) == [name]
    assert b"mtu=1300" in daemon.keyfiles()[name]
    saved = save_profile(nm, wanted.uuid)
    content = daemon.keyfiles()[name]
    remove_profile(nm, wanted.uuid)
    assert daemon.keyfiles() == {}
    remove_profile(nm, wanted.uuid)
    # Its file stands again, as it was: that is read, and keeps its name.
    daemon.put(name, content)
    restore_profile(nm, saved, wanted.uuid, nothing)
    assert daemon.keyfiles() == {name: content}
    assert save_profile(nm, wanted.uuid) == saved


def test_a_profile_that_is_gone_with_the_next_boot_becomes_lasting(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    example = down(profiles_of("office")[0])
    nm.add(to_dbus(example.settings), in_memory=True)
    assert daemon.keyfiles() == {}
    saved = save_profile(nm, example.settings.uuid)
    assert saved is not None
    assert saved.filename.startswith("/run/") or saved.filename == ""
    apply_profile(nm, example.settings, nothing)
    assert len(daemon.keyfiles()) == 1
    restore_profile(nm, saved, example.settings.uuid, nothing)
    assert daemon.keyfiles() == {}
    assert nm.profile(example.settings.uuid) is not None


def test_profiles_of_others_stay_byte_by_byte(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    """Ones of the same interface name, id and file name too."""
    foreign = small(uuid=OTHER, interface="wg0")
    nm.add(foreign)
    example = down(profiles_of("office")[0])
    twin: Any = copy.deepcopy(to_dbus(example.settings))
    twin["connection"]["uuid"] = ("s", "0f2d1c5e-0000-5000-8000-0000000000fe")
    nm.add(twin)
    unread = b"[connection]\n# by hand, and not read\nid=x\n"
    daemon.put("wgnet-other.nmconnection", unread)
    before = daemon.keyfiles()
    assert len(before) == 3
    apply_profile(nm, example.settings, nothing)
    saved = save_profile(nm, example.settings.uuid)
    apply_profile(nm, describe(replace(example.plan, mtu=1300), example.secrets), nothing)
    restore_profile(nm, saved, example.settings.uuid, nothing)
    assert {name: daemon.keyfiles()[name] for name in before} == before
    remove_profile(nm, example.settings.uuid)
    assert daemon.keyfiles() == before


# --- back ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(6))
def test_a_profile_is_put_back_exactly(nm: NetworkManagerDaemon, daemon: BusHost, number: int) -> None:
    """Through JSON, changed or deleted in between; the file too, where NetworkManager wrote it before."""
    every = [each for name in examples() for each in profiles_of(name)]
    example = down(every[number * len(every) // 6])
    uuid = example.settings.uuid
    assert save_profile(nm, uuid) is None
    apply_profile(nm, example.settings, nothing)
    files = daemon.keyfiles()
    saved = save_profile(nm, uuid)
    assert saved is not None
    assert not saved.active
    assert saved.applied is None
    assert not any(secret in repr(saved) for secret in secrets_of(saved.settings))
    again = SavedProfile.from_json(json.loads(json.dumps(saved.to_json())))
    assert again == saved
    changed = replace(example.plan, mtu=1300, peers=example.plan.peers[:1], interface="wg99")
    apply_profile(nm, describe(changed, InterfaceSecrets(private_key=PrivateKey(bytes([9] * 32)))), nothing)
    assert daemon.keyfiles() != files
    assert restore_profile(nm, again, uuid, nothing) is None
    assert daemon.keyfiles() == files
    assert save_profile(nm, uuid) == saved
    remove_profile(nm, uuid)
    restore_profile(nm, again, uuid, nothing)
    assert save_profile(nm, uuid) == saved
    restore_profile(nm, None, uuid, nothing)
    assert daemon.keyfiles() == {}


# --- what goes wrong -------------------------------------------------------------------------------------------------


def told(error: NmError) -> list[Any]:
    diagnostics = Diagnostics()
    report_problem(error, "office", diagnostics)
    [diagnostic] = diagnostics
    assert diagnostic.help
    assert str(error) in diagnostic.message or error.problem is NmProblem.NOT_RUNNING
    return [diagnostic.code]


BAD: dict[str, tuple[str, str, Any]] = {
    "method": ("ipv4", "method", ("s", "auto")),
    "unknown property": ("wireguard", "foo", ("s", key(1))),
    "wrong type": ("wireguard", "listen-port", ("as", [key(1)])),
    "bad key": ("wireguard", "private-key", ("s", key(1)[:-2] + "!=")),
    "bad type of a key": ("wireguard", "private-key", ("u", 5)),
    "bad endpoint": (
        "wireguard",
        "peers",
        ("aa{sv}", [{"public-key": ("s", key(2)), "endpoint": ("s", key(3)), "preshared-key": ("s", key(3))}]),
    ),
    "no peer's key": ("wireguard", "peers", ("aa{sv}", [{"preshared-key": ("s", key(3))}])),
    "unsendable": ("wireguard", "private-key", ("s", key(1) + "\0")),
}


@pytest.mark.parametrize(("setting", "name", "value"), BAD.values(), ids=BAD)
def test_a_profile_that_is_refused_is_told_without_secrets(
    nm: NetworkManagerDaemon, daemon: BusHost, setting: str, name: str, value: Any
) -> None:
    settings: Any = small()
    settings[setting][name] = value
    with pytest.raises(NmError) as caught:
        nm.add(settings)
    assert caught.value.problem is NmProblem.REFUSED
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    said = repr(caught.value) + str(caught.value)
    assert key(1)[:-2] not in said
    assert key(3) not in said
    assert told(caught.value) == [codes.NM_REFUSED]
    assert daemon.keyfiles() == {}


def test_an_activation_that_fails_has_its_reason(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    """In a network that has a link of that name already, of another kind."""
    daemon.run("ip", "link", "add", "wg0", "type", "bridge")
    try:
        path = nm.add(small())
        with pytest.raises(NmError) as caught:
            nm.activate(path, timeout=10)
        assert caught.value.problem is NmProblem.ACTIVATION
        assert len(str(caught.value)) > 10
        assert told(caught.value) == [codes.NM_ACTIVATION]
        assert nm.active(UUID) is None
        assert guard_profile(nm, UUID, 60) is None
    finally:
        daemon.run("ip", "link", "delete", "wg0")


def test_a_daemon_that_is_gone_is_told(daemon: BusHost, bus: Bus, nm: NetworkManagerDaemon) -> None:
    path = nm.add(small())
    files = daemon.keyfiles()
    daemon.kill("NetworkManager")
    try:
        assert not nm.is_running()
        with pytest.raises(NmError) as caught:
            nm.update(path, small(interface="wg5"))
        assert caught.value.problem is NmProblem.NOT_RUNNING
        assert told(caught.value) == [codes.NM_NOT_RUNNING]
        assert daemon.keyfiles() == files
    finally:
        daemon.start("NetworkManager")
    assert nm.is_running()
    profile = nm.profile(UUID)
    assert profile is not None
    assert secrets_of(nm.settings_with_secrets(profile.path)) == secrets_of(small())
    bus.close()
    with pytest.raises(NmError) as caught:
        nm.profiles()
    assert caught.value.problem is NmProblem.NO_ANSWER
    assert told(caught.value) == [codes.NM_NO_ANSWER]


def test_absent_profiles_are_none(nm: NetworkManagerDaemon) -> None:
    assert nm.profile(UUID) is None
    assert nm.active(UUID) is None
    assert find_profile(nm, UUID) is None
    with pytest.raises(NmError) as caught:
        nm.settings("/org/freedesktop/NetworkManager/Settings/4711")
    assert caught.value.problem is NmProblem.GONE


# --- checkpoints, by the nearest device that every kernel has --------------------------------------------------------


def bridge(name: str, address: str, uuid: str) -> DbusSettings:
    return {
        "connection": {
            "id": ("s", name),
            "uuid": ("s", uuid),
            "type": ("s", "bridge"),
            "interface-name": ("s", name),
            "autoconnect": ("b", False),
        },
        "bridge": {"stp": ("b", False)},
        "ipv4": {
            "method": ("s", "manual"),
            "address-data": ("aa{sv}", [{"address": ("s", address), "prefix": ("u", 24)}]),
        },
        "ipv6": {"method": ("s", "disabled")},
    }


def addresses(daemon: BusHost) -> set[str]:
    return {
        each["local"]
        for link in json.loads(daemon.run("ip", "-j", "-4", "address"))
        for each in link["addr_info"]
        if each["local"] != "127.0.0.1"
    }


def test_a_checkpoint_is_about_our_device_alone(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    """Others' devices, profiles that they change, and profiles that they add meanwhile, stay as they made them."""
    ours, theirs = bridge("ours", "10.1.0.1", UUID), bridge("theirs", "10.2.0.1", OTHER)
    path, foreign = nm.add(ours), nm.add(theirs)
    nm.activate(path)
    nm.activate(foreign)
    checkpoint = guard_profile(nm, UUID, 600)
    assert checkpoint is not None
    assert nm.checkpoints() == {checkpoint: ["ours"]}
    nm.update(path, bridge("ours", "10.1.0.9", UUID))
    nm.update(foreign, bridge("theirs", "10.2.0.9", OTHER))
    nm.activate(path)
    nm.activate(foreign)
    nm.activate(nm.add(bridge("new", "10.3.0.1", "0f2d1c5e-0000-5000-8000-0000000000aa")))
    assert addresses(daemon) == {"10.1.0.9", "10.2.0.9", "10.3.0.1"}
    nm.extend(checkpoint, 300)
    assert nm.roll_back(checkpoint)
    active = nm.active(UUID)
    assert active is not None
    nm.wait(active.path, timeout=10)
    assert addresses(daemon) == {"10.1.0.1", "10.2.0.9", "10.3.0.1"}
    assert nm.settings(path)["ipv4"]["address-data"] == ours["ipv4"]["address-data"]
    checkpoint = guard_profile(nm, UUID, 600)
    assert checkpoint is not None
    with pytest.raises(NmError):
        guard_profile(nm, UUID, 600)
    nm.keep(checkpoint)
    nm.keep(checkpoint)
    assert nm.checkpoints() == {}


def test_ip_settings_are_reapplied_without_another_activation(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    path = nm.add(bridge("ours", "10.1.0.1", UUID))
    active = nm.activate(path)
    applied = nm.applied(active.device)
    wanted = bridge("ours", "10.1.0.9", UUID)
    assert not ip_differs(bridge("ours", "10.1.0.1", UUID), applied.settings)
    assert ip_differs(wanted, applied.settings)
    nm.update(path, wanted)
    with pytest.raises(NmError) as caught:
        nm.reapply(active.device, wanted, applied.version + 7)
    assert caught.value.problem is NmProblem.CHANGED
    settings = {name: value for name, value in exchanged(applied.settings, wanted).items() if name != "wireguard"}
    nm.reapply(active.device, settings, applied.version)
    assert nm.active(UUID) == active
    assert not ip_differs(wanted, nm.applied(active.device).settings)
    nm.deactivate(active)
    assert nm.active(UUID) is None
    assert addresses(daemon) == set()


# --- an agent's key --------------------------------------------------------------------------------------------------


def test_an_agents_key_is_never_sent(nm: NetworkManagerDaemon, daemon: BusHost) -> None:
    settings: Any = small(psk=False)
    del settings["wireguard"]["private-key"]
    settings["wireguard"]["private-key-flags"] = ("u", 1)
    path = nm.add(settings)
    found = nm.settings_with_secrets(path)
    assert secrets_of(found) == []
    assert differences(settings, found) == []
    assert b"private-key=" not in b"".join(daemon.keyfiles().values())
    secured: Any = small()
    del secured["wireguard"]["private-key"]
    secured["wireguard"]["private-key-flags"] = ("u", 1)
    nm.update(path, secured)
    assert secrets_of(nm.settings_with_secrets(path)) == [PresharedKey.parse(key(3)).reveal()]  # type: ignore[union-attr]
