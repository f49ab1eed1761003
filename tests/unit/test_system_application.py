"""How an apply ends: done, put back, broken, not started; who is asked before, and what is said.

The steps themselves are stood in for here, and run on real managers in the lab (test_apply.py, test_faults.py).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wgnet.cli.commands import apply as apply_command
from wgnet.cli.commands import remove
from wgnet.cli.context import Context
from wgnet.cli.machine import MachinePlan, not_planned
from wgnet.cli.parser import build_parser
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.changes import DeviceChange, PeerChange
from wgnet.live.device import DeviceSettings
from wgnet.live.drift import Drift
from wgnet.managers.artifact import Artifact
from wgnet.record import replace as replace_record
from wgnet.syntax.spec import Manager
from wgnet.system import apply as apply_module
from wgnet.system.apply import Application, Outcome
from wgnet.system.converge import NotWrittenError
from wgnet.system.guard import Armed, Guard
from wgnet.system.install import write_system
from wgnet.system.networkd import netdev_path
from wgnet.system.outcome import WriteReport
from wgnet.system.programs import ProgramError
from wgnet.system.resolve import resolve_endpoints
from wgnet.system.snapshot import Owned, Snapshot
from wgnet.system.target import InterfaceTarget, Target, keyfile_path

DRIFT = Drift(interface="wg0", aspect="peer", subject="bob", expected="KEY", found=None)


class World:
    """What stands in for the machine: what the steps do, and what was called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        #: Whether somebody still watched when NetworkManager's own way back was given up.
        self.watched = False
        self.step: Callable[[], None] = lambda: None
        self.back: Callable[[], list[str]] = list
        self.drift: list[list[Drift]] = [[DRIFT], []]
        self.unfinished: list[list[str]] = []

    def look(self, *_: object) -> list[Drift]:
        return self.drift.pop(0) if len(self.drift) > 1 else self.drift[0]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    found = World()

    class Steps:
        def __init__(self, **_: object) -> None: ...

        def run(self) -> WriteReport:
            found.called.append("change")
            found.step()
            return WriteReport(written=("/etc/x",))

        def finish(self) -> None:
            found.called.append("finish")

        def unfinished(self) -> list[str]:
            return found.unfinished.pop(0) if found.unfinished else []

        def set_again(self, drift: list[Drift]) -> None:
            found.called.append(f"set {[each.subject for each in drift]} again")

    class Profiles:
        def __init__(self, *_: object) -> None: ...

        owned = staticmethod(tuple)
        configured = save = staticmethod(dict)  # type: ignore[var-annotated]

        def differ(self) -> bool:
            return False

        def adopt(self) -> None: ...

        rules = staticmethod(dict)  # type: ignore[var-annotated]

        @staticmethod
        def finish(*_: object) -> None:
            found.called.append("finish profiles")

        def apply(self, *_: object) -> None: ...

        def set_again(self, drift: list[Drift], _: object) -> None:
            found.called.append(f"give {[each.subject for each in drift]} again")

        def settle(self, *_: object) -> None:
            found.called.append("settle")
            found.watched = (tmp_path / "var/lib/wgnet/apply/armed").exists()

    def restore(*_: object, repeats: bool) -> list[str]:
        found.called.append("restore once more" if repeats else "restore")
        return found.back()

    monkeypatch.setattr(apply_module, "Converger", Steps)
    monkeypatch.setattr(apply_module, "Profiles", Profiles)
    monkeypatch.setattr(apply_module, "_restore", restore)
    monkeypatch.setattr(apply_module, "find_drift", found.look)
    monkeypatch.setattr(apply_module, "read_state", lambda _: None)
    monkeypatch.setattr(apply_module, "_SETTLES_S", 0.0)
    monkeypatch.setattr("wgnet.system.snapshot.run_program", lambda *_, **__: "")
    monkeypatch.setattr("wgnet.system.guard.run_program", lambda *_, **__: "")
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    yield found


def application(root: Path, *interfaces: InterfaceTarget) -> Application:
    return Application(
        bus=None,  # type: ignore[arg-type]
        target=Target(artifacts=(), interfaces=interfaces),
        wanted=(),
        diagnostics=Diagnostics(),
        root=root,
    )


def drawn(run: Application) -> list[str]:
    return [item.code.name for item in run.diagnostics.items]


def raising(error: Exception) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_a_change_is_made_verified_and_settled(world: World, tmp_path: Path) -> None:
    run = application(tmp_path)
    assert run.run() is Outcome.DONE
    assert run.changed
    assert world.called == ["change", "settle"]
    # Killed in between, NetworkManager would go back minutes later, and nobody would know why.
    assert world.watched
    assert drawn(run) == []
    assert Guard(tmp_path).armed() is None
    # What `wgnet rollback` goes back to.
    assert Guard(tmp_path).has_snapshot()


def test_nothing_is_touched_where_nothing_differs(world: World, tmp_path: Path) -> None:
    world.drift = [[]]
    run = application(tmp_path)
    assert run.run() is Outcome.DONE
    assert not run.changed
    assert world.called == []
    assert not Guard(tmp_path).has_snapshot()


def test_a_step_that_fails_is_put_back(world: World, tmp_path: Path) -> None:
    world.step = raising(ProgramError("'ip' failed: no"))
    run = application(tmp_path)
    assert run.run() is Outcome.PUT_BACK
    assert world.called == ["change", "restore"]
    assert [item.code for item in run.diagnostics.items] == [codes.APPLY_FAILED]
    assert Guard(tmp_path).armed() is None
    assert not Guard(tmp_path).has_snapshot()


def test_files_that_cannot_be_written_are_reported_by_who_wrote(world: World, tmp_path: Path) -> None:
    world.step = raising(NotWrittenError())
    run = application(tmp_path)
    assert run.run() is Outcome.PUT_BACK
    assert drawn(run) == []


def test_a_state_that_is_not_as_planned_is_put_back_and_named(world: World, tmp_path: Path) -> None:
    world.drift = [[DRIFT]]
    run = application(tmp_path)
    assert run.run() is Outcome.PUT_BACK
    [told] = run.diagnostics.items
    assert told.code is codes.NOT_AS_PLANNED
    assert "missing peer bob" in told.message


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_what_somebody_took_from_a_link_is_set_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managers believe that the addresses are there, until they are told to set the link anew: after a while.

    And what that brings to light is mended, too, a longer while later.
    """
    monkeypatch.setattr(apply_module, "_SETTLES_S", 30.0)
    monkeypatch.setattr(apply_module, "_PAUSE_S", 3.0)
    monkeypatch.setattr(apply_module, "time", Clock())
    gone, other = (
        Drift(interface="wg0", aspect="address", subject=f"10.0.0.{number}", expected="it", found=None)
        for number in (1, 2)
    )
    # Before the change, then each 3 s.
    world.drift = [[DRIFT], [gone, DRIFT], [gone, DRIFT], [gone, DRIFT], [gone], [other], [other], [], []]
    assert application(tmp_path).run() is Outcome.DONE
    assert [each for each in world.called if not each.startswith("finish")] == [
        "change",
        "set ['10.0.0.1', 'bob'] again",
        "give ['10.0.0.1', 'bob'] again",
        "set ['10.0.0.2'] again",
        "give ['10.0.0.2'] again",
        "settle",
    ]
    assert world.called.count("finish") == world.called.count("finish profiles") == 6


def test_a_metric_that_a_manager_sets_back_is_set_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel and the plan agree in all that `status` compares: the metric of an address is not among it."""
    monkeypatch.setattr(apply_module, "_SETTLES_S", 5.0)
    monkeypatch.setattr(apply_module, "_STAYS_S", 0.0)
    world.drift = [[DRIFT], [], [], [], []]
    world.unfinished = [[], ["wg0: 10.0.0.1/24: expected the metric 2000"]]
    assert application(tmp_path).run() is Outcome.DONE
    assert world.called == ["change", "finish", "finish profiles", "settle"]


def test_what_a_manager_sets_back_is_set_again(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_module, "_SETTLES_S", 5.0)
    monkeypatch.setattr(apply_module, "_STAYS_S", 0.0)
    # Right at the first look, then set back by who answers before it is done.
    world.drift = [[DRIFT], [], [DRIFT], [], []]
    assert application(tmp_path).run() is Outcome.DONE
    assert world.called == ["change", "finish", "finish profiles", "settle"]


def test_a_name_without_address_is_no_reason_to_go_back(world: World, tmp_path: Path) -> None:
    named = Drift(interface="wg0", aspect="endpoint", subject="bob", expected="bob.example:51820", found=None)
    world.drift = [[DRIFT, named], [named]]
    assert application(tmp_path).run() is Outcome.DONE
    for expected in ("192.0.2.1:51820", "[2001:db8::1]:51820"):
        numeric = Drift(interface="wg0", aspect="endpoint", subject="bob", expected=expected, found=None)
        world.drift = [[numeric]]
        assert application(tmp_path).run() is Outcome.PUT_BACK


def test_what_cannot_be_put_back_stays_armed(world: World, tmp_path: Path) -> None:
    world.step = raising(OSError(28, "No space left on device", "/etc/x"))
    world.back = lambda: ["'wg0' differs"]
    run = application(tmp_path)
    assert run.run() is Outcome.BROKEN
    assert [item.code for item in run.diagnostics.items] == [codes.APPLY_FAILED, codes.NOT_PUT_BACK]
    assert Guard(tmp_path).armed() == Armed(deadline=None)


def test_a_way_back_that_came_to_no_end_is_gone_once_more_and_the_next_is_a_first_one(
    world: World, tmp_path: Path
) -> None:
    """Files that it put back may have been read by nobody."""
    world.step = raising(ProgramError("no"))
    world.back = raising(ProgramError("neither"))  # type: ignore[assignment]
    assert application(tmp_path).run() is Outcome.BROKEN
    world.back = list
    world.drift = [[DRIFT]]
    assert application(tmp_path).run() is Outcome.PUT_BACK
    assert world.called == ["change", "restore", "restore once more", "change", "restore"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_everything_back(world: World, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    world.step = lambda: os.kill(os.getpid(), number)
    run = application(tmp_path)
    assert run.run() is Outcome.PUT_BACK
    assert world.called == ["change", "restore"]
    assert signal.getsignal(number) is before


def test_a_change_that_waits_is_not_overtaken(world: World, tmp_path: Path) -> None:
    first = application(tmp_path)
    assert first.run(confirm=60.0) is Outcome.DONE
    assert first.seconds_left == 60.0
    world.drift = [[DRIFT], []]
    second = application(tmp_path)
    assert second.run() is Outcome.NOT_STARTED
    assert [item.code for item in second.diagnostics.items] == [codes.UNCONFIRMED]
    assert world.called == ["change", "settle"]


def test_what_a_killed_run_left_is_put_back_first(world: World, tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    assert application(tmp_path).run(confirm=60.0) is Outcome.DONE
    # Its time is over, and nobody was there to do it.
    guard._write("armed", '{"deadline": 0}')
    world.called.clear()
    world.drift = [[DRIFT], []]
    assert application(tmp_path).run() is Outcome.DONE
    assert world.called == ["restore", "change", "settle"]


def test_somebody_elses_interface_stops_it(world: World, tmp_path: Path) -> None:
    device = DeviceSettings(name="lo", private_key=None, public_keys=(), listen_port=0, firewall_mark=0)
    mine = InterfaceTarget(network="n", name="lo", manager=Manager.NETWORKD, device=device, mtu=1420, active=True)
    run = application(tmp_path, mine)
    assert run.run() is Outcome.NOT_STARTED
    assert [item.code for item in run.diagnostics.items] == [codes.FOREIGN_INTERFACE]
    assert world.called == []
    # Files that were carried here from a rendered folder are wgnet's.
    path = tmp_path / "etc/systemd/network/50-wgnet-lo.netdev"
    path.parent.mkdir(parents=True)
    path.touch()
    assert application(tmp_path, mine).run() is Outcome.DONE


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("kind", ["netdev", "profile", "keyfile"])
def test_the_interface_of_a_network_that_was_not_named_stops_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, force: bool
) -> None:
    """One that was renamed among them; what wgnet wrote says whose it is, whether it is up or not."""
    if kind == "profile":
        theirs = Owned(interface="wg0", network="old", manager=Manager.NETWORKMANAGER, uuid="u")
        monkeypatch.setattr(apply_module.Profiles, "owned", staticmethod(lambda: (theirs,)))
    else:
        path = netdev_path("wg0") if kind == "netdev" else keyfile_path("wg0")
        artifact = Artifact(path=f"/{path}", network="old", content=b"x")
        write_system(tmp_path, [artifact], networks=None, runtime=False, force=False, diagnostics=Diagnostics())
    manager = Manager.NETWORKMANAGER if kind == "keyfile" else Manager.NETWORKD
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=0, firewall_mark=0)
    mine = InterfaceTarget(network="new", name="wg0", manager=manager, device=device, mtu=1420, active=True)
    run = application(tmp_path, mine)
    run.force = force
    run.target = replace(run.target, networks=frozenset({"new"}))
    assert run.run() is Outcome.NOT_STARTED
    [told] = run.diagnostics.items
    assert told.code is codes.OTHER_NETWORK
    assert "'wg0' of 'new' is taken by the network 'old'" in told.message
    assert world.called == []
    # Without files named what nothing describes any more gives way, and with both named what one of them leaves.
    for networks in (None, frozenset({"new", "old"})):
        run = application(tmp_path, mine)
        run.target = replace(run.target, networks=networks)
        world.drift = [[]]
        assert run.run() is Outcome.DONE


def test_a_file_of_a_network_that_was_not_named_is_not_forced(world: World, tmp_path: Path) -> None:
    shared = Artifact(path="/etc/wgnet/shared.key", network="old", content=b"x")
    write_system(tmp_path, [shared], networks=None, runtime=False, force=False, diagnostics=Diagnostics())
    run = application(tmp_path)
    run.force = True
    run.target = Target(
        artifacts=(replace_record(shared, network="new", content=b"y"),), interfaces=(), networks=frozenset({"new"})
    )
    assert run.run() is Outcome.NOT_STARTED
    assert drawn(run) == [codes.OTHER_NETWORK.name]
    assert world.called == []


def test_a_second_one_at_the_same_time_is_refused(world: World, tmp_path: Path) -> None:
    with Guard(tmp_path).locked():
        run = application(tmp_path)
        assert run.run() is Outcome.NOT_STARTED
    assert [item.code for item in run.diagnostics.items] == [codes.LOCKED]


def test_a_state_folder_that_cannot_be_made_stops_it(world: World, tmp_path: Path) -> None:
    (tmp_path / "var").write_text("")
    run = application(tmp_path)
    assert run.run() is Outcome.NOT_STARTED
    assert [item.code for item in run.diagnostics.items] == [codes.CANNOT_START]


@pytest.mark.parametrize("content", [None, b"{", b"\xff"], ids=["gone", "cut off", "no text"])
def test_without_a_state_to_go_back_to_the_next_apply_goes_on(
    world: World, tmp_path: Path, content: bytes | None
) -> None:
    guard = Guard(tmp_path)
    world.step = raising(OSError(28, "No space left on device", "/etc/x"))
    world.back = lambda: ["'wg0' differs"]
    assert application(tmp_path).run() is Outcome.BROKEN
    path = tmp_path / "var/lib/wgnet/apply/snapshot.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    run = application(tmp_path)
    assert run.run() is Outcome.BROKEN
    assert drawn(run) == [codes.NOT_PUT_BACK.name]
    assert guard.armed() is None
    world.step = lambda: None
    world.drift = [[DRIFT], []]
    assert application(tmp_path).run() is Outcome.DONE


def test_a_snapshot_that_is_gone_is_said(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Guard) -> Snapshot | None:
        return None

    world.step = raising(ProgramError("no"))
    monkeypatch.setattr(Guard, "snapshot", lost)
    run = application(tmp_path)
    assert run.run() is Outcome.BROKEN
    assert [item.code for item in run.diagnostics.items] == [codes.APPLY_FAILED, codes.NOT_PUT_BACK]


# --- the commands ----------------------------------------------------------------------------------------------------


def context_of(*arguments: str) -> Context:
    return Context.of(build_parser(arguments).parse_args(arguments))


def test_without_a_bus_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    context = context_of("apply", str(office(tmp_path)), "--host", "a")
    assert apply_command.run(context) == 6
    assert [item.code for item in context.diagnostics.items] == [codes.CANNOT_START]


def office(folder: Path) -> Path:
    path = folder / "office.yaml"
    path.write_text(
        "wgnet: 1\nnetwork: {name: office, subnets: [10.80.0.0/24]}\npeering: {hub: a}\nhosts:\n"
        '  a: {addresses: [10.80.0.1], endpoint: a.b, public-key: "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="}\n'
        '  b: {addresses: [10.80.0.2], public-key: "0CvoFnL5TxrI7Trgu745od0gTfjsY2nYuapHzROPbDA="}\n'
    )
    return path


@pytest.mark.parametrize("command", ["apply", "plan", "confirm", "rollback", "remove office"])
def test_a_running_system_has_no_other_root(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wgnet.cli.main import main

    assert main([*command.split(), "--root", str(tmp_path)]) == 2
    assert "has no --root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "status"),
    [(codes.UNKNOWN_HOST_ARGUMENT, 1), (codes.CHANGED_BY_HAND, 6), (codes.CANNOT_WRITE, 6), (codes.CANNOT_START, 6)],
    ids=lambda each: str(getattr(each, "name", each)),
)
def test_what_the_machine_lacks_is_no_error_of_the_topology(code: codes.Code, status: int) -> None:
    context = context_of("plan")
    context.diagnostics.report(code, "no")
    assert not_planned(context) == status


def test_there_is_nothing_to_remove_that_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of("remove", "office")
    monkeypatch.setattr(remove, "refuse_root", lambda _: False)
    context.options.root = str(tmp_path)
    assert remove.run(context) == 6
    assert [item.code for item in context.diagnostics.items] == [codes.NOTHING_TO_REMOVE]


class Waiting:
    """An apply at a terminal that waits to be confirmed; `meanwhile` happens while it looks at the keyboard."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.meanwhile: Callable[[], None] = lambda: None
        monkeypatch.setattr(apply_command, "is_terminal", lambda _: True)
        monkeypatch.setattr("select.select", self._select)

    def _select(self, *_: object) -> tuple[list[int], list[int], list[int]]:
        self.meanwhile()
        return [], [], []

    def run(self) -> int:
        context = context_of("apply", "--confirm", "60s", str(self.root))
        context.options.root = str(self.root)
        made = MachinePlan(name="a", plans=(), target=Target(artifacts=(), interfaces=()), wanted=())
        return apply_command.apply_plan(context, made, None)  # type: ignore[arg-type]


def test_who_waits_sees_that_it_was_confirmed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(tmp_path, monkeypatch)
    waiting.meanwhile = Guard(tmp_path).disarm
    assert waiting.run() == 0


def test_what_is_being_rolled_back_is_not_taken_for_confirmed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, guard = Waiting(tmp_path, monkeypatch), Guard(tmp_path)
    disarmed = threading.Event()

    def roll_back() -> None:
        with guard.locked() as alone:
            assert alone
            guard.disarm()
            disarmed.set()
            time.sleep(0.3)  # systemctl takes its time
            guard.forget()

    def meanwhile() -> None:
        threading.Thread(target=roll_back).start()
        assert disarmed.wait(10)

    waiting.meanwhile = meanwhile
    assert waiting.run() == 4


def test_a_rollback_that_failed_is_not_waited_for_for_ever(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Waiting(tmp_path, monkeypatch)
    monkeypatch.setattr(apply_command, "LIMIT_S", -60)
    assert waiting.run() == 5
    assert Guard(tmp_path).armed() is not None


def test_a_host_of_wg_quick_is_told_how_it_goes_on(tmp_path: Path, world: World) -> None:
    context = context_of("apply", str(tmp_path))
    context.options.root = str(tmp_path)
    plan: Any = type("Plan", (), {"manager": Manager.WG_QUICK, "interface": "wg0"})()
    made = MachinePlan(name="a", plans=(plan,), target=Target(artifacts=(), interfaces=()), wanted=())
    assert apply_command.apply_plan(context, made, None) == 0  # type: ignore[arg-type]
    [told] = context.diagnostics.items
    assert told.code is codes.BROUGHT_UP_BY_HAND
    assert "wg-quick up wg0" in told.help[0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60.0), ("60", 60.0), ("5m", 300.0), ("1h", 3600.0), ("24h", 86400.0)]
)
def test_a_time_is_seconds_minutes_or_hours(text: str, seconds: float) -> None:
    assert context_of("apply", "--confirm", text).options.confirm == seconds


@pytest.mark.parametrize("text", ["", "0", "s", "1d", "-5", "1.5m", "25h", "9" * 30, "\u0665s"])
def test_what_is_no_time_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        context_of("apply", "--confirm", text)
    assert end.value.code == 2
    capsys.readouterr()


def test_a_name_without_address_leaves_the_peer_without_endpoint() -> None:
    diagnostics = Diagnostics()
    change = DeviceChange(
        name="wg0",
        peers=(
            PeerChange(name="a", public_key="A=", endpoint="nobody.invalid:51820"),
            PeerChange(name="b", public_key="B=", endpoint="localhost:5"),
            PeerChange(name="c", public_key="C=", endpoint="[2001:db8::1]:6"),
        ),
    )
    found = resolve_endpoints(change, diagnostics)
    assert found["nobody.invalid:51820"] == ""
    assert found["localhost:5"] in ("127.0.0.1:5", "[::1]:5")
    assert "[2001:db8::1]:6" not in found
    assert [item.code for item in diagnostics.items] == [codes.ENDPOINT_UNKNOWN]
