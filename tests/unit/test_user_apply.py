"""A user's apply step by step: what NetworkManager is asked to do with a connection that is up, and what is put back.

A small NetworkManager stands in here, for connections that are up take a kernel with WireGuard; the real one, with
polkit, is in tests/dbus/test_user_apply.py.
"""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from dbus_sample import Example, key, profiles_of, small

from wgnet.cli.commands import confirm, rollback
from wgnet.cli.context import Context
from wgnet.cli.parser import build_parser
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PrivateKey
from wgnet.live.drift import Drift
from wgnet.live.profile import without_secrets
from wgnet.live.user_profile import Way, belongs_to, way_of_device
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.nm_settings import DbusSettings, to_dbus
from wgnet.record import replace
from wgnet.syntax.spec import Manager as WgnetManager
from wgnet.system import user_apply
from wgnet.system.apply import Outcome
from wgnet.system.nm import Active, Applied, NmError, NmProblem, Profile
from wgnet.system.snapshot import Owned
from wgnet.system.target import Target, interface_target
from wgnet.system.user_apply import UserApplication
from wgnet.system.user_state import Pending, UserState

# --- which way -------------------------------------------------------------------------------------------------------


def way(wanted: DbusSettings, *, psk: bool = False, damaged: bool = False) -> Way:
    former = small(psk=psk)
    return way_of_device(wanted, without_secrets(former), former, damaged=damaged).way


def with_setting(setting: str, name: str, value: Any, *, psk: bool = False) -> DbusSettings:
    settings: Any = copy.deepcopy(small(psk=psk))
    settings[setting][name] = value
    return settings  # type: ignore[no-any-return]


ADDRESS = ("aa{sv}", [{"address": ("s", "10.0.0.9"), "prefix": ("u", 24)}])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (small(psk=False), Way.NOTHING),
        (with_setting("connection", "id", ("s", "other")), Way.NOTHING),
        (with_setting("connection", "permissions", ("as", ["user:alice:"])), Way.NOTHING),
        (with_setting("connection", "autoconnect", ("b", True)), Way.NOTHING),
        (with_setting("ipv4", "address-data", ADDRESS), Way.REAPPLY),
        (with_setting("connection", "zone", ("s", "trusted")), Way.REAPPLY),
        (with_setting("wireguard", "mtu", ("u", 1380)), Way.ACTIVATE),
        (with_setting("wireguard", "listen-port", ("u", 1234)), Way.ACTIVATE),
        (with_setting("wireguard", "fwmark", ("u", 7)), Way.ACTIVATE),
        (with_setting("wireguard", "private-key", ("s", key(9))), Way.ACTIVATE),
        (with_setting("wireguard", "peers", ("aa{sv}", [])), Way.ACTIVATE),
        (with_setting("connection", "interface-name", ("s", "wg9")), Way.ACTIVATE),
        # A new preshared key.
        (small(psk=True), Way.ACTIVATE),
    ],
)
def test_the_way_of_a_change(wanted: DbusSettings, expected: Way) -> None:
    assert way(wanted) is expected


def test_preshared_keys_would_be_lost_by_reapplying() -> None:
    wanted = with_setting("ipv4", "address-data", ADDRESS, psk=True)
    change = way_of_device(wanted, without_secrets(small()), small())
    assert change.way is Way.ACTIVATE
    assert change.cost is not None
    assert "beside preshared keys" in change.cost
    assert way(small(), psk=True) is Way.NOTHING
    assert way(small(), psk=True, damaged=True) is Way.ACTIVATE


def test_what_a_way_costs_is_said_with_its_reason() -> None:
    wanted = with_setting("wireguard", "mtu", ("u", 1380), psk=True)
    cost = way_of_device(wanted, without_secrets(small()), small()).cost
    assert cost is not None
    assert cost.startswith("the MTU can be changed by a user only by activating")
    wanted["wireguard"]["private-key"] = ("s", key(9))
    cost = way_of_device(wanted, without_secrets(small()), small()).cost
    assert cost is not None
    assert cost.startswith("the MTU and keys can be changed")
    moved = way_of_device(with_setting("ipv4", "address-data", ADDRESS), without_secrets(small(psk=False)), None)
    assert moved.cost is not None
    assert "a peer that has moved" in moved.cost
    assert way_of_device(small(psk=False), without_secrets(small(psk=False)), None).cost is None


@pytest.mark.parametrize(
    ("users", "user", "own"),
    [
        (["alice"], "alice", True),
        (["alice"], None, True),
        (["bob"], "alice", False),
        (["alice", "bob"], "alice", False),
        ([], "alice", False),
        ([], None, False),
    ],
)
def test_whose_a_profile_is(users: list[str], user: str | None, own: bool) -> None:
    settings = with_setting("connection", "permissions", ("as", [f"user:{each}:" for each in users]))
    assert belongs_to(settings, user) is own


# --- a NetworkManager ------------------------------------------------------------------------------------------------


class Manager:
    """NetworkManager as far as a user's apply talks to it: profiles with secrets, and what is up."""

    def __init__(self) -> None:
        self.profiles: dict[str, DbusSettings] = {}
        self.devices: dict[str, DbusSettings] = {}
        self.called: list[str] = []
        self.allowed = {"network-control": "yes", "checkpoint-rollback": "yes"}
        self.fails: dict[str, Callable[[], None]] = {}
        self.checkpoints: set[str] = set()

    def _do(self, name: str, note: str = "") -> None:
        self.called.append(f"{name} {note}".strip())
        step = self.fails.pop(name, None)
        if step is not None:
            step()

    def permission(self, name: str) -> str:
        return self.allowed.get(name, "no")

    def profile(self, uuid: str) -> Profile | None:
        if uuid not in self.profiles:
            return None
        interface = str(self.profiles[uuid]["connection"]["interface-name"][1])
        return Profile(
            path=uuid, uuid=uuid, id="", type="wireguard", interface=interface, filename="/etc/x", unsaved=False
        )

    def settings(self, path: str) -> DbusSettings:
        return without_secrets(self.profiles[path])

    def settings_with_secrets(self, path: str) -> DbusSettings:
        self._do("secrets")
        self.called.pop()
        return self.profiles[path]

    def agents_key(self, path: str) -> PrivateKey | None:
        assert path in self.profiles
        return None

    def active(self, uuid: str) -> Active | None:
        if uuid not in self.devices:
            return None
        name = str(self.devices[uuid]["connection"]["interface-name"][1])
        return Active(path=uuid, uuid=uuid, state=2, device=uuid, interface=name)

    def applied(self, device: str) -> Applied:
        return Applied(settings=without_secrets(self.devices[device]), version=1)

    def add(self, settings: DbusSettings, *, in_memory: bool = False) -> str:
        self._do("add")
        uuid = str(settings["connection"]["uuid"][1])
        self.profiles[uuid] = settings
        return uuid

    def update(self, path: str, settings: DbusSettings, *, in_memory: bool = False) -> None:
        self._do("update")
        self.profiles[path] = settings

    def delete(self, path: str) -> None:
        self._do("delete")
        del self.profiles[path]

    def activate(self, path: str, *, timeout: float) -> Active:
        self._do("activate")
        self.devices[path] = self.profiles[path]
        found = self.active(path)
        assert found is not None
        return found

    def deactivate(self, active: Active) -> None:
        self._do("deactivate")
        del self.devices[active.uuid]

    def reapply(self, device: str, settings: DbusSettings, version: int) -> None:
        self._do("reapply")
        assert version == 1
        self.devices[device] = settings

    def checkpoint(self, device: str, timeout: int) -> str:
        self._do("checkpoint")
        self.checkpoints.add(device)
        return device

    def extend(self, checkpoint: str, timeout: int) -> None:
        self._do("extend", str(timeout))
        assert checkpoint in self.checkpoints

    def keep(self, checkpoint: str) -> None:
        self.checkpoints.discard(checkpoint)

    def roll_back(self, checkpoint: str) -> bool:
        self._do("roll back")
        self.checkpoints.discard(checkpoint)
        return True


def failing(problem: NmProblem) -> Callable[[], None]:
    def step() -> None:
        raise NmError(problem, "no")

    return step


class World:
    """A user before NetworkManager, with one profile of an example."""

    def __init__(self, state: Path) -> None:
        self.nm = Manager()
        self.state = UserState(state / "wgnet")
        self.drift: list[Drift] = []
        self.links: set[str] = set()
        self.example = next(each for each in profiles_of("office") if each.secrets.preshared_keys)
        self.diagnostics = Diagnostics()

    @property
    def uuid(self) -> str:
        return self.example.settings.uuid

    def application(self, *examples: Example, networks: frozenset[str] | None = None) -> UserApplication:
        self.diagnostics = Diagnostics()
        self.nm.called.clear()
        return UserApplication(
            bus=None,  # type: ignore[arg-type]
            target=Target(
                artifacts=(),
                interfaces=tuple(interface_target(each.plan, each.secrets) for each in examples),
                networks=networks,
            ),
            wanted=(),
            diagnostics=self.diagnostics,
            state=self.state,
        )

    def apply(self, *examples: Example, confirm: float | None = None) -> Outcome:
        return self.application(*examples).run(confirm)

    def up(self, **differing: Any) -> Example:
        """Return the example, up by itself, with another plan."""
        plan = replace(self.example.plan, autoconnect=True, **differing)
        return Example(name=self.example.name, plan=plan, secrets=self.example.secrets)

    @property
    def drawn(self) -> list[codes.Code]:
        return [each.code for each in self.diagnostics]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    found = World(tmp_path)
    monkeypatch.setattr(user_apply, "NetworkManagerDaemon", lambda _: found.nm)
    monkeypatch.setattr(user_apply, "public_drift", lambda _: found.drift)
    monkeypatch.setattr(user_apply, "link_exists", found.links.__contains__)
    monkeypatch.setattr(user_apply, "_SETTLES_S", 0.0)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield found
    assert not found.nm.fails, "a step was not reached"


def test_a_profile_is_added_and_brought_up_once(world: World) -> None:
    assert world.apply(world.up()) is Outcome.DONE
    assert world.nm.called == ["add", "activate"]
    assert world.apply(world.up()) is Outcome.DONE
    assert world.nm.called == []
    assert [each.uuid for each in world.state.profiles().values()] == [world.uuid]
    assert world.state.pending() is None


def test_peers_of_a_live_connection_are_set_by_activating_it_anew(world: World) -> None:
    assert world.apply(world.up()) is Outcome.DONE
    fewer = world.up(peers=world.example.plan.peers[:-1])
    [step] = world.application(fewer).steps([], ask=True)
    [cost] = world.application(fewer).costs([step])
    assert "peers" in cost.reason
    assert "every session ends" in cost.reason
    assert world.apply(fewer) is Outcome.DONE
    assert world.nm.called == ["checkpoint", "update", "activate"]
    assert world.nm.checkpoints == set()


def test_addresses_alone_are_reapplied(world: World) -> None:
    """Where no preshared key would be lost."""
    free = tuple(replace(peer, preshared_key=None) for peer in world.example.plan.peers)
    plain = Example(
        name="", plan=replace(world.example.plan, peers=free), secrets=replace_keys(world.example.secrets, {})
    )
    world.example = plain
    assert world.apply(world.up()) is Outcome.DONE
    moved = world.up(addresses=(replace(world.example.plan.addresses[0], address=ip_interface("10.80.0.99/24")),))
    assert world.apply(moved) is Outcome.DONE
    assert world.nm.called == ["checkpoint", "update", "reapply"]
    assert world.apply(moved) is Outcome.DONE
    assert world.nm.called == []


def replace_keys(secrets: InterfaceSecrets, keys: dict[str, Any]) -> InterfaceSecrets:
    return InterfaceSecrets(private_key=secrets.private_key, preshared_keys=keys)


def test_without_leave_for_a_checkpoint_nobody_is_asked(world: World) -> None:
    world.nm.allowed["checkpoint-rollback"] = "auth"
    assert world.apply(world.up()) is Outcome.DONE
    assert world.apply(world.up(mtu=1300)) is Outcome.DONE
    assert world.nm.called == ["update", "activate"]


def test_an_interface_of_somebody_else_is_left_alone(world: World) -> None:
    name = world.example.plan.interface
    world.links.add(name)
    assert world.apply(world.up()) is Outcome.NOT_STARTED
    assert (world.nm.called, world.drawn) == ([], [codes.FOREIGN_INTERFACE])
    world.links.clear()
    assert world.apply(world.up()) is Outcome.DONE
    world.links.add(name)
    assert world.apply(world.up(mtu=1300)) is Outcome.DONE


def test_an_interface_of_a_network_that_was_not_named_is_left_alone(world: World) -> None:
    name, network = world.example.plan.interface, world.example.plan.network
    theirs = Owned(interface=name, network="other", manager=WgnetManager.NETWORKMANAGER, uuid="u")
    with world.state.locked():
        world.state.write_profiles([theirs])
    run = world.application(world.up(), networks=frozenset({network}))
    assert run.run() is Outcome.NOT_STARTED
    assert (world.nm.called, world.drawn) == ([], [codes.OTHER_NETWORK])
    assert world.state.profiles() == {"u": theirs}
    # What is named gives way, and where nothing is named what no file describes any more.
    assert world.application(world.up(), networks=frozenset({network, "other"})).run() is Outcome.DONE
    assert set(world.state.profiles()) == {world.uuid}


def test_what_polkit_refuses_beforehand_is_not_begun(world: World) -> None:
    world.nm.allowed["network-control"] = "no"
    assert world.apply(world.up()) is Outcome.NOT_STARTED
    assert (world.nm.called, world.drawn) == ([], [codes.NM_DENIED])
    world.nm.allowed["network-control"] = "yes"
    world.nm.fails["add"] = failing(NmProblem.DENIED)
    assert world.apply(world.up()) is Outcome.NOT_STARTED
    assert world.drawn == [codes.NM_DENIED]
    assert world.state.profiles() == {}
    assert world.state.pending() is None


@pytest.mark.parametrize("step", ["update", "activate"])
@pytest.mark.parametrize("problem", [NmProblem.ACTIVATION, NmProblem.NO_ANSWER])
def test_what_fails_is_put_back(world: World, step: str, problem: NmProblem) -> None:
    assert world.apply(world.up()) is Outcome.DONE
    before = copy.deepcopy(world.nm.profiles), copy.deepcopy(world.nm.devices)
    world.nm.fails[step] = failing(problem)
    assert world.apply(world.up(mtu=1300)) is Outcome.PUT_BACK
    assert without_all(world.nm.profiles) == without_all(before[0])
    assert world.nm.profiles == before[0]
    assert without_all(world.nm.devices) == without_all(before[1])
    assert world.nm.checkpoints == set()
    assert world.state.pending() is None


def without_all(settings: dict[str, DbusSettings]) -> dict[str, DbusSettings]:
    return {uuid: without_secrets(each) for uuid, each in settings.items()}


def test_what_was_not_there_is_gone_again(world: World) -> None:
    world.nm.fails["activate"] = failing(NmProblem.ACTIVATION)
    assert world.apply(world.up()) is Outcome.PUT_BACK
    assert (world.nm.profiles, world.state.profiles()) == ({}, {})
    assert world.drawn == [codes.NM_ACTIVATION]


def test_what_differs_afterwards_is_named_and_put_back(world: World) -> None:
    world.drift = [Drift(interface="other", aspect="route", subject="10.0.0.0/8", expected="x", found=None)]
    assert world.apply(world.up()) is Outcome.PUT_BACK
    assert world.drawn == [codes.NOT_AS_PLANNED]
    assert world.nm.profiles == {}


def test_what_cannot_be_put_back_is_said(world: World) -> None:
    assert world.apply(world.up()) is Outcome.DONE
    world.nm.fails["activate"] = lambda: (
        world.nm.fails.update(update=failing(NmProblem.NO_ANSWER)) or failing(NmProblem.ACTIVATION)()
    )
    assert world.apply(world.up(mtu=1300)) is Outcome.BROKEN
    assert codes.NOT_PUT_BACK in world.drawn
    assert "roll back" in world.nm.called
    # The next run goes on to the new state.
    assert world.apply(world.up(mtu=1300)) is Outcome.DONE


def test_a_signal_puts_everything_back(world: World) -> None:
    before = signal.getsignal(signal.SIGTERM)
    world.nm.fails["activate"] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    assert world.apply(world.up()) is Outcome.PUT_BACK
    assert world.drawn == [codes.APPLY_FAILED]
    assert world.nm.profiles == {}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_run_is_finished_by_the_next(world: World) -> None:
    """Which keys the device has by then nobody tells a user: the connection is activated anew."""
    assert world.apply(world.up()) is Outcome.DONE
    world.nm.checkpoints.add("left over")
    world.state.begin(("left over",), (world.uuid,))
    assert world.apply(world.up()) is Outcome.DONE
    assert world.nm.called == ["checkpoint", "activate"]
    assert world.nm.checkpoints == set()
    assert world.state.pending() is None


def test_what_no_topology_describes_any_more_goes(world: World) -> None:
    assert world.apply(world.up()) is Outcome.DONE
    elsewhere = world.application(networks=frozenset({"other"}))
    assert elsewhere.run() is Outcome.DONE
    assert not elsewhere.changed
    assert world.apply() is Outcome.DONE
    assert world.nm.called == ["checkpoint", "deactivate", "delete"]
    assert (world.nm.profiles, world.state.profiles()) == ({}, {})


# --- confirmed or not ------------------------------------------------------------------------------------------------


def command(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[codes.Code]]:
    """Run `confirm` or `rollback` as a user."""
    from wgnet.cli import user

    class NoBus:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(user, "open_bus", lambda _: NoBus())
    monkeypatch.setattr(user, "NetworkManagerDaemon", lambda _: world.nm)
    context = Context.of(build_parser([name]).parse_args([name]))
    status = {"confirm": confirm, "rollback": rollback}[name].run(context)
    return status, [each.code for each in context.diagnostics]


@pytest.mark.parametrize("name", ["confirm", "rollback"])
def test_a_change_waits_to_be_confirmed(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.apply(world.up()) is Outcome.DONE
    run = world.application(world.up(mtu=1300))
    assert run.run(60.0) is Outcome.DONE
    assert run.seconds_left == 60.0
    assert world.nm.called == ["checkpoint", "update", "activate", "extend 60"]
    assert world.nm.checkpoints == {world.uuid}
    assert world.apply(world.up()) is Outcome.NOT_STARTED
    assert world.drawn == [codes.UNCONFIRMED]
    assert command(world, name, monkeypatch) == (0, [])
    assert world.nm.checkpoints == set()
    assert ("roll back" in world.nm.called) is (name == "rollback")
    assert command(world, name, monkeypatch) == (6, [codes.NOTHING_TO_SETTLE])
    assert world.apply(world.up()) is Outcome.DONE


def test_confirm_is_refused_where_networkmanager_could_not_go_back(world: World) -> None:
    assert world.apply(world.up(), confirm=60.0) is Outcome.NOT_STARTED
    assert (world.nm.called, world.drawn) == ([], [codes.CANNOT_START])
    assert world.apply(world.up()) is Outcome.DONE
    world.nm.allowed["checkpoint-rollback"] = "no"
    assert world.apply(world.up(mtu=1300), confirm=60.0) is Outcome.NOT_STARTED
    assert (world.nm.called, world.drawn) == ([], [codes.CANNOT_START])
    world.nm.allowed["checkpoint-rollback"] = "auth"
    world.nm.fails["checkpoint"] = failing(NmProblem.DENIED)
    assert world.apply(world.up(mtu=1300), confirm=60.0) is Outcome.NOT_STARTED
    assert world.nm.called == ["checkpoint"]
    assert world.state.pending() is None


# --- what is remembered ----------------------------------------------------------------------------------------------


def test_a_change_of_another_boot_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = UserState(tmp_path)
    state.begin(("a",), ("b",), 60.0)
    pending = state.pending()
    assert pending is not None
    assert (pending.checkpoints, pending.profiles) == (("a",), ("b",))
    assert 59.0 < pending.left <= 60.0
    boot = tmp_path / "boot"
    boot.write_text("another\n")
    monkeypatch.setattr("wgnet.system.user_state._BOOT", boot)
    assert state.pending() is None
    (tmp_path / "change.json").write_text("{")
    assert state.pending() is None
    state.end()
    state.end()
    assert list(tmp_path.iterdir()) == [boot]


def test_time_that_is_over_is_nobodys() -> None:
    assert Pending(deadline=None).left == 0
    assert Pending(deadline=time.clock_gettime(time.CLOCK_BOOTTIME) - 1).left == 0


def test_where_a_users_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert UserState.of_environment().folder == Path("/home/alice/.local/state/wgnet")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert UserState.of_environment().folder == Path("/state/wgnet")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert UserState.of_environment().folder == Path("/home/alice/.local/state/wgnet")


def test_the_sample_has_keys() -> None:
    assert any("private-key" in to_dbus(each.settings)["wireguard"] for each in profiles_of("office"))
