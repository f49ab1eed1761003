"""One change of a user's profiles, from beginning to end: kept, made, verified; or put back. Nobody is root here.

Stage: system. Input: a target of NetworkManager's interfaces alone; output: an `Outcome`, and diagnostics of what went
wrong. NetworkManager does all of it, and polkit says what it may be asked. Must not touch a file but the user's own
state, nor ask wg(8) or nft(8), which answer root alone: what a user can see is verified, and nothing else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import quote_names
from wgnet.keys.types import PrivateKey
from wgnet.live.costs import Cost
from wgnet.live.drift import Drift, find_drift
from wgnet.live.profile import as_told, differences, with_key_for_agent, with_private_key_of, without_secrets
from wgnet.live.user_profile import ChosenWay, Way, belongs_to, way_of_device
from wgnet.live.wanted import WantedInterface
from wgnet.managers.nm_settings import DbusSettings, to_dbus
from wgnet.syntax.spec import Manager
from wgnet.system import nm_apply
from wgnet.system.apply import Outcome, report_differences, report_failure
from wgnet.system.dbus import Bus, DBusError
from wgnet.system.interrupts import InterruptedApplyError, signals_as_errors, signals_ignored
from wgnet.system.links import link_exists
from wgnet.system.live import LiveError, read_public_state
from wgnet.system.manifest import Manifest
from wgnet.system.nm import Active, NetworkManagerDaemon, NmError, NmProblem
from wgnet.system.profiles import ReportedError
from wgnet.system.snapshot import Owned
from wgnet.system.taken import report_taken_interfaces
from wgnet.system.target import Target
from wgnet.system.user_state import Pending, UserState, user_name

__all__ = ["ProfileStep", "UserApplication", "public_drift"]

_T = TypeVar("_T")

#: What everybody may read of an interface, and its profile makes. Forwarding, nftables and the rest are root's part.
_PUBLIC = frozenset(("link", "mtu", "address", "route", "rule", "dns"))
#: Seconds for an activation: NetworkManager gives an agent two minutes to ask the user.
_ACTIVATION_S = 150.0
#: Seconds that a change may take before NetworkManager goes back by itself.
_LIMIT_S = 600
_SETTLES_S = 30.0
_PAUSE_S = 0.2
#: How long an agent may take to keep a key.
_AGENT_S = 5.0
#: With these a call has had no effect.
_WITHOUT_EFFECT = (NmProblem.DENIED, NmProblem.REFUSED, NmProblem.NOT_RUNNING, NmProblem.GONE)

_FAILURES = (DBusError, NmError, LiveError, OSError, ReportedError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileStep:
    """One profile, from what it is (`found`, None: not there) to what it is to be (`body`, None: gone).

    `names` are the properties that change, as `nm_apply.changes` has them; `device` is how its device follows.
    `key` is a private key that the user's agent is to keep and does not, `kept` the one that it does.
    """

    network: str
    name: str
    uuid: str
    found: nm_apply.Found | None
    body: DbusSettings | None = field(repr=False)
    up: bool
    names: tuple[str, ...]
    device: ChosenWay
    key: PrivateKey | None = None
    kept: PrivateKey | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.names) or self.device.way is not Way.NOTHING

    def __str__(self) -> str:
        what = f"the profile '{self.network}' ({self.name})"
        if self.body is None:
            return f"{what} is removed"
        if self.found is None:
            return f"{what} is added"
        return f"{what} changes: {', '.join(self.names)}" if self.names else f"{what} is activated anew"


def public_drift(wanted: Sequence[WantedInterface]) -> list[Drift]:
    """Return what differs of that which everybody may see. Raises `LiveError`."""
    if not wanted:
        return []
    state = read_public_state([each.name for each in wanted])
    return [each for each in find_drift(wanted, state) if each.aspect in _PUBLIC]


@dataclass(slots=True, kw_only=True)
class UserApplication:
    """One `wgnet apply` of a user.

    `target` has NetworkManager's interfaces alone, `wanted` the same for verification. After a run `changed` says
    whether anything was done, and `seconds_left` how long the change waits to be confirmed.
    """

    bus: Bus
    target: Target
    wanted: Sequence[WantedInterface]
    diagnostics: Diagnostics
    state: UserState = field(default_factory=UserState.of_environment)
    changed: bool = False
    seconds_left: float = 0.0
    _touched: list[ProfileStep] = field(default_factory=list)
    _checkpoints: list[str] = field(default_factory=list)
    _record: dict[str, Owned] = field(default_factory=dict)

    @property
    def _nm(self) -> NetworkManagerDaemon:
        return NetworkManagerDaemon(self.bus)

    # --- what would change -------------------------------------------------------------------------------------------

    def steps(self, drift: Sequence[Drift], *, ask: bool, unfinished: Sequence[str] = ()) -> list[ProfileStep]:
        """Return a step for each profile. With `ask` polkit may ask the user for a password to read its keys.

        Devices of `unfinished` profiles may have keys that were changed since. Raises `NmError`, `ReportedError`.
        """
        record = self.state.profiles()
        networks = self.target.networks
        if report_taken_interfaces(self.target, Manifest(), record.values(), self.diagnostics):
            raise ReportedError
        wanted = {each.settings.uuid for each in self.target.interfaces if each.settings is not None}
        found = []
        for uuid, owned in record.items():
            if uuid not in wanted and (networks is None or owned.network in networks):
                with self._reporting(owned.network):
                    gone = self._find(uuid, ask)
                    if gone is not None:
                        found.append(
                            ProfileStep(
                                network=owned.network,
                                name=owned.interface,
                                uuid=uuid,
                                found=gone,
                                body=None,
                                up=False,
                                names=("profile",),
                                device=ChosenWay(Way.NOTHING),
                            )
                        )
        for each in self.target.interfaces:
            assert each.settings is not None
            with self._reporting(each.network):
                body = to_dbus(each.settings)
                present = self._find(each.settings.uuid, ask)
                damaged = each.settings.uuid in unfinished or any(one.interface == each.name for one in drift)
                step = _step(each.network, each.name, body, present, damaged)
                found.append(self._with_key(step, each.agent_key))
        return found

    def _with_key(self, step: ProfileStep, key: PrivateKey | None) -> ProfileStep:
        """Return a step that hands a private key to the user's agent, where that has another or none."""
        kept = None
        if step.found is not None and step.found.secrets_known:
            kept = self._nm.agents_key(step.found.profile.path)
        if key is None or key == kept:
            return replace(step, kept=kept)
        device = step.device
        if _is_active(step):
            device = ChosenWay(Way.ACTIVATE, (*(device.because if device.way is Way.ACTIVATE else ()), "keys"))
        names = step.names if step.found is None else (*step.names, "wireguard.private-key")
        return replace(step, names=names, device=device, key=key, kept=kept)

    def _find(self, uuid: str, ask: bool) -> nm_apply.Found | None:
        found = nm_apply.find_profile(self._nm, uuid, secrets=ask)
        if found is not None and not ask and belongs_to(found.settings, user_name()):
            # Nobody is asked for a password for these.
            with contextlib.suppress(NmError):
                return nm_apply.find_profile(self._nm, uuid)
        return found

    def costs(self, steps: Sequence[ProfileStep]) -> list[Cost]:
        """Return what steps cost in sessions."""
        return [Cost(interface=each.name, reason=each.device.cost) for each in steps if each.device.cost is not None]

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self, confirm: float | None = None) -> Outcome:
        """Make the profiles so. With `confirm` they go back in so many seconds, unless somebody confirms."""
        try:
            with self.state.locked() as alone:
                if not alone:
                    self.diagnostics.report(
                        codes.LOCKED, "another wgnet is changing this user's profiles; nothing was changed"
                    )
                    return Outcome.NOT_STARTED
                return self._run(confirm)
        except OSError as error:
            report_failure(error, codes.CANNOT_START, "nothing was changed", self.diagnostics)
            return Outcome.NOT_STARTED

    def _run(self, confirm: float | None) -> Outcome:
        pending = self.state.pending()
        if pending is not None and pending.left:
            self.diagnostics.report(
                codes.UNCONFIRMED,
                f"the last change waits to be confirmed, for {pending.left:.0f} s more; nothing was changed",
                help="keep it with `wgnet confirm`, or undo it with `wgnet rollback`; then apply again",
            )
            return Outcome.NOT_STARTED
        try:
            unfinished = self._take_over(pending)
            drift = public_drift(self.wanted)
            steps = self.steps(drift, ask=True, unfinished=unfinished)
            self.changed = any(each.changes for each in steps)
            if self.changed and not self._may_start(steps, confirm):
                return Outcome.NOT_STARTED
        except _FAILURES as error:
            report_failure(error, codes.CANNOT_START, "nothing was changed", self.diagnostics)
            return Outcome.NOT_STARTED
        if not self.changed:
            self._remember(steps)
            self.state.end()
            return Outcome.DONE
        return self._change(steps, confirm)

    def _take_over(self, pending: Pending | None) -> tuple[str, ...]:
        """Return the profiles that a run which was killed was changing; NetworkManager is not to undo it any more."""
        if pending is None or pending.deadline is not None:
            return ()
        for path in pending.checkpoints:
            with contextlib.suppress(NmError):
                self._nm.keep(path)
        return pending.profiles

    def _may_start(self, steps: Sequence[ProfileStep], confirm: float | None) -> bool:
        """Report what is known beforehand not to be allowed; return whether nothing is."""
        changing = [each for each in steps if each.changes]
        if self._foreign(steps):
            return False
        moving = [each for each in changing if each.up or _is_active(each)]
        if moving and self._nm.permission("network-control") == "no":
            nm_apply.report_problem(
                NmError(NmProblem.DENIED, "polkit allows no connection to be brought up or down"),
                moving[0].network,
                self.diagnostics,
            )
            return False
        if confirm is None:
            return True
        down = [each for each in changing if each.body is None or not _is_active(each)]
        if down:
            self._refuse_confirm(
                "NetworkManager goes back by itself only for connections that are up and stay, which "
                f"{quote_names(each.network for each in down)} does not"
            )
        elif self._nm.permission("checkpoint-rollback") == "no":
            self._refuse_confirm("polkit does not let this user have NetworkManager go back by itself")
        else:
            return True
        return False

    def _foreign(self, steps: Sequence[ProfileStep]) -> bool:
        """Report interfaces that are somebody else's: NetworkManager would take them over."""
        own = {
            each.found.active.interface for each in steps if each.found is not None and each.found.active is not None
        }
        found = [each for each in steps if each.up and each.name not in own and link_exists(each.name)]
        for each in found:
            self.diagnostics.report(
                codes.FOREIGN_INTERFACE,
                f"there is an interface '{each.name}' that no profile of '{each.network}' made; nothing was changed",
                help=(
                    f"take it down the way it came up, `wg-quick down {each.name}` for example",
                    f"give the network '{each.network}' another `interface`",
                ),
            )
        return bool(found)

    def _refuse_confirm(self, why: str) -> None:
        self.diagnostics.report(
            codes.CANNOT_START,
            f"--confirm cannot be kept: {why}; nothing was changed",
            help=("leave out `--confirm`", "run it with sudo: root's apply goes back whatever happens"),
        )

    # --- the change itself -------------------------------------------------------------------------------------------

    def _change(self, steps: Sequence[ProfileStep], confirm: float | None) -> Outcome:
        differences_left: list[str] = []
        try:
            with signals_as_errors():
                changing = [each for each in steps if each.changes]
                uuids = tuple(each.uuid for each in changing)
                self._record = self.state.profiles()
                self.state.begin((), uuids)
                if not self._guard(changing, confirm):
                    self._forget()
                    return Outcome.NOT_STARTED
                self.state.begin(tuple(self._checkpoints), uuids)
                # Before there is anything that a run which is killed could leave unknown.
                self._remember(steps, before=True)
                # What goes comes first: another may have its interface then.
                for each in changing:
                    with self._reporting(each.network):
                        self._take(each)
                differences_left = self._verify(steps)
                if not differences_left:
                    self._await_agent(steps)
                    self._remember(steps)
                    self._settle(uuids, confirm)
                    return Outcome.DONE
        except InterruptedApplyError:
            self.diagnostics.report(codes.APPLY_FAILED, "the run was interrupted")
        except _FAILURES as error:
            report_failure(error, codes.APPLY_FAILED, "", self.diagnostics)
        else:
            report_differences(differences_left, ("NetworkManager",), self.diagnostics)
        return self._put_back()

    def _guard(self, steps: Sequence[ProfileStep], confirm: float | None) -> bool:
        """Have NetworkManager go back by itself, should nobody else; return whether that is so where it must be.

        Where it need not be, nobody is asked for a password.
        """
        asking = confirm is not None
        if not asking and self._nm.permission("checkpoint-rollback") != "yes":
            return True
        for each in steps:
            try:
                path = nm_apply.guard_profile(self._nm, each.uuid, _LIMIT_S)
            except NmError as error:
                if not asking:
                    continue
                self._release()
                self._refuse_confirm(f"NetworkManager does not go back by itself: {error}")
                return False
            if path is not None:
                self._checkpoints.append(path)
        return True

    def _settle(self, uuids: tuple[str, ...], confirm: float | None) -> None:
        if confirm is None:
            self._release()
            self.state.end()
            return
        for path in self._checkpoints:
            self._nm.extend(path, int(confirm))
        self.state.begin(tuple(self._checkpoints), uuids, confirm)
        self.seconds_left = confirm

    def _release(self) -> None:
        for path in self._checkpoints:
            with contextlib.suppress(NmError):
                self._nm.keep(path)
        self._checkpoints.clear()

    def _take(self, step: ProfileStep) -> None:
        """Bring one profile, and its device, to what they are to be. Raises `NmError`."""
        nm = self._nm
        if step.body is None:
            active = nm.active(step.uuid)
            if active is not None:
                # Deleting brings it down too, but does not say when it is down.
                self._attempt(step, lambda: nm.deactivate(active))
            profile = nm.profile(step.uuid)
            if profile is not None:
                self._attempt(step, lambda: nm.delete(profile.path))
            return
        body = step.body
        sent = with_key_for_agent(body, step.key or step.kept)
        if step.found is None:
            path = self._attempt(step, lambda: nm.add(sent))
        else:
            path = step.found.profile.path
            if step.key is not None or step.found.profile.unsaved or differences(body, step.found.settings):
                self._attempt(step, lambda: nm.update(path, sent))
        self._bring(step, path, body, step.device.way, step.up)

    def _attempt(self, step: ProfileStep, call: Callable[[], _T]) -> _T:
        """Make a call that changes something; whoever goes back is told what may have changed."""
        try:
            result = call()
        except NmError as error:
            if error.problem not in _WITHOUT_EFFECT:
                self._touch(step)
            raise
        except BaseException:
            self._touch(step)
            raise
        self._touch(step)
        return result

    def _touch(self, step: ProfileStep) -> None:
        if all(each.uuid != step.uuid for each in self._touched):
            self._touched.append(step)

    def _bring(self, step: ProfileStep, path: str, wanted: DbusSettings, way: Way, up: bool) -> None:
        """Bring a connection up or down, and its device to settings."""
        nm = self._nm
        active = nm.active(step.uuid)
        if not up:
            if active is not None:
                down = active
                self._attempt(step, lambda: nm.deactivate(down))
            return
        if active is not None and not active.activated:
            active = nm_apply.await_active(nm, active)
        if active is not None and active.interface != str(wanted["connection"]["interface-name"][1]):
            other = active
            self._attempt(step, lambda: nm.deactivate(other))
            active = None
        if active is None or way is Way.ACTIVATE:
            self._attempt(step, lambda: nm.activate(path, timeout=_ACTIVATION_S))
        elif way is Way.REAPPLY:
            self._reapply(step, active, wanted)

    def _reapply(self, step: ProfileStep, active: Active, wanted: DbusSettings) -> None:
        self._attempt(step, lambda: nm_apply.reapply_ip(self._nm, active, wanted, lambda: None))

    # --- verified ----------------------------------------------------------------------------------------------------

    def _verify(self, steps: Sequence[ProfileStep]) -> list[str]:
        """Wait until all is as it is to be; return what still differs, in words."""
        until = time.monotonic() + _SETTLES_S
        while True:
            found = [text for each in steps for text in self._unlike(each)]
            found += [str(each) for each in public_drift(self.wanted)]
            if not found or time.monotonic() >= until:
                return found
            time.sleep(_PAUSE_S)

    def _await_agent(self, steps: Sequence[ProfileStep]) -> None:
        """Wait until private keys that were handed over are kept, and report those that nobody took."""
        until = time.monotonic() + _AGENT_S
        for each in steps:
            profile = self._nm.profile(each.uuid) if each.key is not None else None
            if profile is None:
                continue
            while (kept := self._nm.agents_key(profile.path)) != each.key and time.monotonic() < until:
                time.sleep(_PAUSE_S)
            if kept != each.key:
                self.diagnostics.report(
                    codes.NO_AGENT,
                    f"no secret agent of this user keeps the private key of '{each.network}': whoever switches the "
                    "network on is asked for it",
                    help="apply it in a desktop session, where an agent runs: nm-applet, GNOME's or Plasma's own",
                )

    def _unlike(self, step: ProfileStep) -> Iterator[str]:
        nm = self._nm
        profile = nm.profile(step.uuid)
        if step.body is None:
            if profile is not None:
                yield f"the profile '{step.network}' is still there"
            return
        if profile is None:
            yield f"the profile '{step.network}' is missing"
            return
        told = nm.settings_with_secrets(profile.path)
        for setting, name in differences(as_told(step.body, told), told):
            yield f"the profile '{step.network}' has another {setting}.{name}"
        active = nm.active(step.uuid)
        if step.up and (active is None or not active.activated):
            yield f"the connection '{step.network}' is not up"

    # --- the way back ------------------------------------------------------------------------------------------------

    def _put_back(self) -> Outcome:
        """Make every profile that was touched what it was: PUT_BACK, NOT_STARTED where none was, or BROKEN."""
        try:
            with signals_ignored():
                for each in reversed(self._touched[:]):
                    with self._reporting(each.network):
                        self._take_back(each)
                self._release()
                self._forget()
        except _FAILURES as error:
            report_failure(error, codes.NOT_PUT_BACK, "", self.diagnostics)
            self.diagnostics.report(
                codes.NOT_PUT_BACK,
                "profiles may be between the old state and the new",
                help="run `wgnet apply` again: it goes on to the new state from wherever they are",
            )
            for path in self._checkpoints:
                with contextlib.suppress(NmError):
                    self._nm.roll_back(path)
            return Outcome.BROKEN
        return Outcome.PUT_BACK if self._touched else Outcome.NOT_STARTED

    def _take_back(self, step: ProfileStep) -> None:
        nm = self._nm
        if step.found is None:
            nm_apply.remove_profile(nm, step.uuid)
            return
        former, unsaved = step.found.settings, step.found.profile.unsaved
        # Where the agent had no key the new one stays there: it is the host's, and else it would be asked for.
        sent = with_key_for_agent(former, step.kept or step.key)
        profile = nm.profile(step.uuid)
        if profile is None:
            path = nm.add(sent, in_memory=unsaved)
        else:
            path = profile.path
            changed = profile.unsaved != unsaved or differences(former, nm.settings_with_secrets(path))
            if changed or (step.key is not None and step.kept is not None):
                nm.update(path, sent, in_memory=unsaved)
        applied = step.found.applied or former
        active = nm.active(step.uuid)
        way = Way.NOTHING
        if active is not None and active.device:
            now = nm.applied(active.device).settings
            way = way_of_device(applied, now, None).way
            if step.device.way is Way.ACTIVATE:
                # What keys the device has by now is not told.
                way = Way.ACTIVATE
        self._bring(step, path, applied, way, step.found.active is not None)

    # --- what is remembered and said ---------------------------------------------------------------------------------

    def _forget(self) -> None:
        """Remember what was remembered before this run."""
        self.state.write_profiles(self._record.values())
        self.state.end()

    def _remember(self, steps: Sequence[ProfileStep], *, before: bool = False) -> None:
        """Write which profiles are wgnet's; `before` the change those that go are among them, for they are there."""
        networks = self.target.networks
        kept = [
            each
            for each in self.state.profiles().values()
            if before or (networks is not None and each.network not in networks)
        ]
        made = [
            Owned(interface=each.name, network=each.network, manager=Manager.NETWORKMANAGER, uuid=each.uuid)
            for each in steps
            if each.body is not None
        ]
        self.state.write_profiles((*kept, *made))

    @contextlib.contextmanager
    def _reporting(self, network: str) -> Iterator[None]:
        """Report what NetworkManager refuses, by the network that it is about."""
        try:
            yield
        except NmError as error:
            nm_apply.report_problem(error, network, self.diagnostics)
            raise ReportedError from None


def _is_active(step: ProfileStep) -> bool:
    return step.found is not None and step.found.active is not None


def _step(network: str, name: str, wanted: DbusSettings, found: nm_apply.Found | None, damaged: bool) -> ProfileStep:
    """Return how a profile comes to what it is to be, from what it is."""
    autoconnects = bool(wanted["connection"].get("autoconnect", ("b", True))[1])
    if found is None:
        return ProfileStep(
            network=network,
            name=name,
            uuid=str(wanted["connection"]["uuid"][1]),
            found=None,
            body=wanted,
            up=autoconnects,
            names=("profile",),
            device=ChosenWay(Way.NOTHING),
        )
    body = with_private_key_of(wanted, found.settings)
    known = found.secrets_known
    names = [
        f"{setting}.{each}" for setting, each in differences(body if known else without_secrets(body), found.settings)
    ]
    up = found.active is not None or autoconnects
    if up and found.active is None:
        names.append("active")
    device = ChosenWay(Way.NOTHING)
    if found.applied is not None:
        device = way_of_device(body, found.applied, found.settings if known else None, damaged=damaged)
    return ProfileStep(
        network=network,
        name=name,
        uuid=found.profile.uuid,
        found=found,
        body=body,
        up=up,
        names=tuple(names),
        device=device,
    )
