"""One change of the machine, from beginning to end: kept, made, verified; or put back.

Stage: system. Input: a target, and what each interface is wanted to be; output: an `Outcome`, and diagnostics of what
went wrong. Whoever is logged in through the very tunnel that changes must get back in, so nothing is touched before the
state of now is on disk and systemd watches over it (`guard`), and nothing is settled before the kernel has been read
back. Must not know the command line.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import system_reason
from wgnet.live.changes import device_change, restored_device
from wgnet.live.device import is_address
from wgnet.live.drift import Drift, find_drift
from wgnet.live.state import PolicyRule
from wgnet.live.wanted import KERNEL_MTU, WantedInterface
from wgnet.managers.artifact import Artifact
from wgnet.syntax.spec import Manager
from wgnet.system.converge import Converger, NotWrittenError
from wgnet.system.dbus import Bus, DBusError
from wgnet.system.guard import LIMIT_S, Guard
from wgnet.system.install import compare_system, read_manifest, recover, write_system
from wgnet.system.interrupts import InterruptedApplyError, signals_as_errors, signals_ignored
from wgnet.system.links import is_up, link_exists
from wgnet.system.live import LiveError, read_state
from wgnet.system.manifest import Manifest
from wgnet.system.networkd import netdev_path, policy_rules
from wgnet.system.nm import NmError
from wgnet.system.outcome import WriteReport
from wgnet.system.profiles import Profiles, ReportedError
from wgnet.system.programs import ProgramError, run_program
from wgnet.system.snapshot import BadSnapshotError, Owned, Snapshot, owned_interfaces, standing_artifacts, take_snapshot
from wgnet.system.taken import report_taken_interfaces
from wgnet.system.target import InterfaceTarget, Target, configured_endpoints, units_of
from wgnet.system.wireguard import read_devices

__all__ = [
    "Application",
    "Outcome",
    "put_back",
    "put_back_files",
    "report_differences",
    "report_failure",
    "rules_of_others",
]

#: Seconds for the managers to do all that they were told.
_SETTLES_S = 30.0
_PAUSE_S = 0.2
#: Seconds that what is right has to stay right.
_STAYS_S = 1.0
#: Seconds in which a manager does by itself what it was told.
_AT_WORK_S = 6.0
#: Differences that a diagnostic lists.
_LISTED = 12

_T = TypeVar("_T")

_FAILURES = (DBusError, ProgramError, NmError, LiveError, OSError, NotWrittenError, ReportedError)


class Outcome(enum.Enum):
    """How a run ended. The value is the exit status of wgnet(1)."""

    DONE = 0
    PUT_BACK = 4
    BROKEN = 5
    NOT_STARTED = 6


@dataclass(slots=True, kw_only=True)
class Application:
    """One `wgnet apply`.

    `wanted` are the interfaces of `target` as they are to be verified. With `force` files that were changed by hand are
    replaced. After a run `report` says which files changed, `changed` whether anything did, and `seconds_left` how long
    the change waits to be confirmed.
    """

    bus: Bus
    target: Target
    wanted: Sequence[WantedInterface]
    diagnostics: Diagnostics
    root: Path = Path("/")
    force: bool = False
    report: WriteReport = field(default_factory=WriteReport)
    changed: bool = False
    seconds_left: float = 0.0
    #: Policy rules of networks that the target does not speak of.
    _others: frozenset[PolicyRule] = field(init=False, default=frozenset())

    def run(self, confirm: float | None = None) -> Outcome:
        """Make the machine so. With `confirm` it goes back in so many seconds, unless somebody confirms."""
        guard = Guard(self.root)
        try:
            with guard.locked() as alone:
                if not alone:
                    self._not_started(codes.LOCKED, "another wgnet is changing this machine; nothing was changed")
                    return Outcome.NOT_STARTED
                return self._run(guard, confirm)
        except OSError as error:
            self._not_started(codes.CANNOT_START, f"'{error.filename}': {system_reason(error)}; nothing was changed")
            return Outcome.NOT_STARTED

    def _not_started(self, code: codes.Code, message: str, *ways_out: str) -> None:
        self.diagnostics.report(code, message, help=ways_out)

    def _run(self, guard: Guard, confirm: float | None) -> Outcome:
        armed = guard.armed()
        if armed is not None and not armed.is_due:
            self._not_started(
                codes.UNCONFIRMED,
                f"the last change waits to be confirmed, for {armed.left:.0f} s more; nothing was changed",
                "keep it with `wgnet confirm`, or undo it with `wgnet rollback`; then apply again",
            )
            return Outcome.NOT_STARTED
        if armed is not None:
            # An apply was killed in the middle. What it left is no state to come back to.
            outcome = put_back(guard, self.bus, self.diagnostics, self.root)
            if outcome is not Outcome.DONE:
                return outcome
        try:
            profiles = Profiles(self.bus, self.target, self.root)
            snapshot = self._prepare(profiles)
        except _FAILURES as error:
            report_failure(error, codes.CANNOT_START, "nothing was changed", self.diagnostics)
            return Outcome.NOT_STARTED
        if snapshot is None:
            return Outcome.NOT_STARTED
        if not self.changed:
            guard.tidy()
            return Outcome.DONE
        try:
            guard.arm(snapshot, limit=LIMIT_S)
        except (OSError, ProgramError) as error:
            report_failure(error, codes.CANNOT_START, "nothing was changed", self.diagnostics)
            return Outcome.NOT_STARTED
        return self._change(guard, profiles, snapshot, confirm)

    def _prepare(self, profiles: Profiles) -> Snapshot | None:
        """Return what to go back to, and find out whether anything changes; None after reporting what forbids it."""
        manifest = read_manifest(self.root, runtime=False, diagnostics=self.diagnostics)
        if manifest is None:
            return None
        owned = (*owned_interfaces(manifest), *profiles.owned())
        taken = report_taken_interfaces(self.target, manifest, owned, self.diagnostics)
        if taken or self._foreign(owned):
            return None
        compared = Diagnostics()
        report = compare_system(
            self.root,
            self.target.artifacts,
            networks=self.target.networks,
            diagnostics=compared,
            disowned=self.target.disowned,
        )
        # What is forced is what a person changed, and nothing of another network.
        if not self.force or any(each.code is codes.OTHER_NETWORK for each in compared):
            self.diagnostics.items.extend(compared)
            if report is None:
                return None
        made = tuple(
            Owned(
                interface=each.name,
                network=each.network,
                manager=each.manager,
                uuid=None if each.settings is None else each.settings.uuid,
            )
            for each in self.target.interfaces
        )
        artifacts = standing_artifacts(self.root, manifest)
        self._others = rules_of_others(artifacts, self.target, profiles)
        self.changed = (
            report is None
            or bool(report.written or report.removed)
            or bool(self._gone(owned, made))
            or profiles.differ()
            or bool(self._drift())
        )
        if not self.changed:
            self._adopt(manifest)
            profiles.adopt()
        return take_snapshot(
            self.root,
            manifest,
            self.target,
            owned=owned,
            made=made,
            configured={**configured_endpoints(artifacts), **profiles.configured()},
            replaced={
                each.name: {key: peer.endpoint for key, peer in each.device.peers.items()}
                for each in self.target.interfaces
            },
            profiles=profiles.save(),
        )

    def _adopt(self, manifest: Manifest) -> None:
        """Take files over that are right already, from a folder that `wgnet render -o` wrote as a rule."""
        if all(artifact.path.removeprefix("/") in manifest.entries for artifact in self.target.artifacts):
            return
        write_system(
            self.root,
            self.target.artifacts,
            networks=self.target.networks,
            runtime=False,
            force=False,
            diagnostics=self.diagnostics,
            disowned=self.target.disowned,
        )

    def _gone(self, owned: Sequence[Owned], made: Sequence[Owned]) -> list[Owned]:
        """Return interfaces of the networks concerned that are to go."""
        stay = {(each.interface, each.manager) for each in made}
        mine = _of_networks(owned, self.target.networks)
        return [each for each in mine if (each.interface, each.manager) not in stay]

    def _foreign(self, owned: Sequence[Owned]) -> bool:
        """Report interfaces that are somebody else's."""
        found = False
        names = {each.interface for each in owned}
        for each in self.target.interfaces:
            if each.name in names or not link_exists(each.name):
                continue
            # Files that an administrator carried here from `wgnet render -o` are wgnet's as well.
            if each.manager is Manager.NETWORKD and (self.root / netdev_path(each.name)).is_file():
                continue
            found = True
            self.diagnostics.report(
                codes.FOREIGN_INTERFACE,
                f"there is an interface '{each.name}' that wgnet did not make; nothing was changed",
                help=(
                    f"take it down the way it came up, `wg-quick down {each.name}` for example",
                    f"give the network '{each.network}' another `interface`",
                ),
            )
        return found

    def _drift(self) -> list[Drift]:
        found = find_drift(self.wanted, read_state([each.name for each in self.wanted]), self._others)
        # A name that has no address now is no reason to go back: `wgnet refresh` asks again.
        return [each for each in found if each.aspect != "endpoint" or is_address(each.expected or "")]

    # --- the change itself -------------------------------------------------------------------------------------------

    def _change(self, guard: Guard, profiles: Profiles, snapshot: Snapshot, confirm: float | None) -> Outcome:
        try:
            with signals_as_errors():
                converger = Converger(
                    bus=self.bus,
                    target=self.target,
                    owned=_of_networks(snapshot.owned, self.target.networks),
                    artifacts=snapshot.artifacts,
                    configured=snapshot.configured,
                    diagnostics=self.diagnostics,
                    root=self.root,
                    force=self.force,
                    profile_rules=profiles.rules(),
                )
                self.report = converger.run()
                profiles.apply(snapshot, self.diagnostics)

                def finish() -> None:
                    converger.finish()
                    Profiles.finish(self.target.of(Manager.NETWORKMANAGER), self.diagnostics)

                def look() -> list[Drift | str]:
                    return [*self._drift(), *converger.unfinished()]

                def set_again(found: Sequence[Drift | str]) -> None:
                    drift = [each for each in found if isinstance(each, Drift)]
                    converger.set_again(drift)
                    profiles.set_again(drift, self.diagnostics)

                differences = _settle(look, finish, set_again)
                if not differences:
                    # First: once nobody watches any more, nor may NetworkManager go back by itself.
                    profiles.settle(confirm)
                    if confirm is not None:
                        guard.wait(confirm)
                        self.seconds_left = confirm
                    else:
                        guard.disarm()
                    return Outcome.DONE
        except InterruptedApplyError:
            self.diagnostics.report(codes.APPLY_FAILED, "the run was interrupted")
        except _FAILURES as error:
            report_failure(error, codes.APPLY_FAILED, "", self.diagnostics)
        else:
            report_differences(differences, ("systemd-networkd", "NetworkManager"), self.diagnostics)
        outcome = put_back(guard, self.bus, self.diagnostics, self.root)
        return Outcome.PUT_BACK if outcome is Outcome.DONE else Outcome.BROKEN


def rules_of_others(artifacts: Sequence[Artifact], target: Target, profiles: Profiles) -> frozenset[PolicyRule]:
    """Return the policy rules of networks of wgnet's that a target does not speak of. Raises `NmError`."""
    if target.networks is None:
        return frozenset()
    files = policy_rules(each for each in artifacts if each.network not in target.networks)
    return files.union(*(rules for network, rules in profiles.rules().items() if network not in target.networks))


def report_differences(found: Sequence[object], units: Sequence[str], diagnostics: Diagnostics) -> None:
    """Report what is not as planned after a change; `units` are those whose journal may say why."""
    lines = [str(each) for each in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"and {len(found) - _LISTED} more")
    diagnostics.report(
        codes.NOT_AS_PLANNED,
        f"after the change the live state differs from the plan: {'; '.join(lines)}",
        help=f"look at the manager's journal: `journalctl {' '.join(f'-u {unit}' for unit in units)}`",
    )


def report_failure(error: Exception, code: codes.Code, after: str, diagnostics: Diagnostics) -> None:
    """Report what ended a step, unless it was reported where it struck; `after` says how things are now, or is ""."""
    if isinstance(error, NotWrittenError | ReportedError):
        return  # reported where it struck
    if isinstance(error, OSError):
        where = f"'{error.filename}': " if error.filename else ""
        message = f"{where}{system_reason(error)}"
    else:
        message = str(error)
    diagnostics.report(code, f"{message}; {after}" if after else message, help=getattr(error, "help", None) or ())


def _of_networks(owned: Sequence[Owned], networks: frozenset[str] | None) -> tuple[Owned, ...]:
    return tuple(each for each in owned if networks is None or each.network in networks)


def _settle(
    look: Callable[[], Sequence[_T]],
    finish: Callable[[], None],
    set_again: Callable[[Sequence[_T]], None] = lambda _: None,
) -> Sequence[_T]:
    """Wait until a look finds nothing, and nothing again a moment later; return what is still found in the end.

    systemd-networkd below 256 answers a reload before it has done it, and sets what it takes for right. So `finish`,
    which sets what no manager does, is called again after each look that finds something; `set_again` when something
    stays wrong for so long that nobody is at work on it: after 6, 12 and 24 s.
    """
    begin = time.monotonic()
    until = begin + _SETTLES_S
    again = begin + _AT_WORK_S
    clean = False
    while True:
        found = look()
        if time.monotonic() >= until or (clean and not found):
            return found
        clean = not found
        if found and (now := time.monotonic()) >= again:
            again = now + (now - begin)
            set_again(found)
        if clean:
            time.sleep(_STAYS_S)
        else:
            finish()
            time.sleep(_PAUSE_S)


# --- the way back ----------------------------------------------------------------------------------------------------


def put_back(guard: Guard, bus: Bus, diagnostics: Diagnostics, root: Path = Path("/")) -> Outcome:
    """Make the machine what it was before the last change: DONE, or BROKEN after reporting what is in between.

    The caller holds the guard's lock.
    """
    try:
        snapshot = guard.snapshot()
        if snapshot is None:
            raise BadSnapshotError("it is not there any more")
        with signals_ignored():
            differences = _restore(snapshot, bus, diagnostics, root, repeats=guard.begin_way_back())
    except BadSnapshotError as error:
        diagnostics.report(
            codes.NOT_PUT_BACK,
            f"the state before the last change cannot be used: {error}",
            help="run `wgnet apply`: it goes on to the new state from wherever the machine is",
        )
        # Armed for ever, it would keep every apply to come from going on.
        guard.disarm()
        return Outcome.BROKEN
    except _FAILURES as error:
        report_failure(error, codes.NOT_PUT_BACK, "the machine may be between the old state and the new", diagnostics)
        return Outcome.BROKEN
    if differences:
        diagnostics.report(codes.NOT_PUT_BACK, f"not as before: {'; '.join(differences)}")
        return Outcome.BROKEN
    guard.disarm()
    guard.forget()
    return Outcome.DONE


def _restore(snapshot: Snapshot, bus: Bus, diagnostics: Diagnostics, root: Path, *, repeats: bool) -> list[str]:
    """Go back to a snapshot, once more if it `repeats`; return what is not as it was."""
    devices = snapshot.devices()
    interfaces = tuple(
        InterfaceTarget(
            network=owned.network,
            name=name,
            manager=owned.manager,
            device=restored_device(devices[name]),
            mtu=snapshot.mtus.get(name, KERNEL_MTU),
            active=True,
        )
        for name, owned in {each.interface: each for each in snapshot.owned}.items()
        if name in devices
    )
    configured = {each.name: snapshot.endpoints_to_leave(each.device) for each in interfaces}
    manifest = read_manifest(root, runtime=False, diagnostics=diagnostics)
    converger = Converger(
        bus=bus,
        target=Target(artifacts=snapshot.artifacts, interfaces=interfaces),
        owned=(*snapshot.owned, *snapshot.made),
        artifacts=() if manifest is None else standing_artifacts(root, manifest),
        configured=configured,
        diagnostics=diagnostics,
        root=root,
        force=True,
        repeats=repeats,
        parameters=snapshot.parameters,
        profile_rules=Profiles.saved_rules(snapshot),
    )
    converger.run()
    Profiles.restore(bus, snapshot, diagnostics, root)

    def finish() -> None:
        converger.finish()
        Profiles.finish(converger.target.of(Manager.NETWORKMANAGER), diagnostics)

    def look() -> list[str]:
        return [*_differences(snapshot, interfaces, configured), *converger.unfinished()]

    def set_again(_: Sequence[str]) -> None:
        converger.drop_left()
        converger.set_links_up([name for name in snapshot.up if name in devices and not is_up(name)])

    return list(_settle(look, finish, set_again))


def _differences(
    snapshot: Snapshot,
    interfaces: Sequence[InterfaceTarget],
    configured: Mapping[str, Mapping[str, str | None]],
) -> list[str]:
    live = read_devices()
    found = [f"'{each.name}' is missing" for each in interfaces if each.name not in live]
    found += [
        f"'{each.name}' differs"
        for each in interfaces
        if each.name in live and device_change(live[each.name], each.device, configured[each.name])
    ]
    found += [f"'{each.name}' is down" for each in interfaces if each.name in snapshot.up and not is_up(each.name)]
    there = {each.name for each in interfaces}
    made = {each.interface for each in snapshot.made}
    return found + [f"'{name}' is still there" for name in sorted(made - there) if link_exists(name)]


def put_back_files(guard: Guard, diagnostics: Diagnostics, root: Path = Path("/")) -> Outcome:
    """Put the files back before any manager runs, at boot; managers make the rest of them.

    The caller holds the guard's lock.
    """
    try:
        snapshot = guard.snapshot()
        if snapshot is None:
            guard.disarm()
            return Outcome.DONE
        recover(root, runtime=False, diagnostics=diagnostics)
        # systemd has the services of what is not confirmed among its jobs already, or runs them.
        now, before = _standing_units(root, diagnostics), units_of(snapshot.artifacts)
        if going := sorted(now.keys() - before.keys()):
            run_program("systemctl", ["stop", *going])
        report = write_system(
            root, snapshot.artifacts, networks=None, runtime=False, force=True, diagnostics=diagnostics
        )
        Profiles.restore_files(snapshot, root)
        if report is None:
            return Outcome.BROKEN
        if now != before:
            run_program("systemctl", ["daemon-reload"])
        # They are started before the network, but not before this ends.
        if changed := sorted(name for name, files in before.items() if now.get(name) != files):
            run_program("systemctl", ["restart", "--no-block", *changed])
        guard.disarm()
        guard.forget()
    except (OSError, BadSnapshotError, ProgramError) as error:
        report_failure(error, codes.NOT_PUT_BACK, "", diagnostics)
        return Outcome.BROKEN
    return Outcome.DONE


def _standing_units(root: Path, diagnostics: Diagnostics) -> dict[str, tuple[Artifact, ...]]:
    """Return wgnet's services as they stand below a root, with the files that they read."""
    manifest = read_manifest(root, runtime=False, diagnostics=diagnostics)
    return {} if manifest is None else units_of(standing_artifacts(root, manifest))
