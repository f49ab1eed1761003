"""What wgnet says to NetworkManager, call by call.

Stage: system. Input: profiles as `wgnet.managers.nm_settings` makes them, by UUID; output: profiles, connections and
devices as NetworkManager has them. Each call does one thing; what belongs together is `nm_apply`'s. Must not decide
what is changed, nor keep anything of a secret beyond what it returns.

Interfaces, flags and states: the D-Bus API reference of NetworkManager 1.36 to 1.58, NetworkManager(8).
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wgnet.keys.types import PrivateKey
from wgnet.managers.nm_settings import SECRET_IN_PROFILE, DbusSettings
from wgnet.system.dbus import Bus, DBusCallError, DBusError, NoBusError, from_json, to_json
from wgnet.system.nm_words import connection_reason, device_reason

__all__ = [
    "Active",
    "Applied",
    "NetworkManagerDaemon",
    "NmError",
    "NmProblem",
    "Profile",
    "settings_from_json",
    "settings_to_json",
    "with_secrets",
]

_NAME = "org.freedesktop.NetworkManager"
_PATH = "/org/freedesktop/NetworkManager"
_SETTINGS = f"{_NAME}.Settings"
_SETTINGS_PATH = f"{_PATH}/Settings"
_CONNECTION = f"{_SETTINGS}.Connection"
_ACTIVE = f"{_NAME}.Connection.Active"
_DEVICE = f"{_NAME}.Device"
_CHECKPOINT = f"{_NAME}.Checkpoint"
_NONE = "/"
_PROFILE_TYPE = "a{sa{sv}}"

# NMSettingsAddConnection2Flags and NMSettingsUpdate2Flags.
_TO_DISK, _IN_MEMORY, _IN_MEMORY_ONLY, _BLOCK_AUTOCONNECT, _NO_REAPPLY = 0x1, 0x2, 0x8, 0x20, 0x40
# NMManagerReloadFlags
_RELOAD_CONFIGURATION, _RELOAD_DNS = 0x1, 0x2
# NMActiveConnectionState
_ACTIVATED, _DEACTIVATED = 2, 4
# NMSettingsConnectionFlags
_UNSAVED = 0x1

#: Seconds for a call that changes something, by root, and by a person whom polkit may ask for a password.
_ROOTS_S, _PERSONS_S = 60.0, 300.0

_DENIED = ("PermissionDenied", "AccessDenied", "AuthorizationRequired", "NotAuthorized", "AuthFailed")
#: Of a plain "Failed": polkit itself is missing or did not answer, so that only root is allowed anything.
_CANNOT_ASK = "Error checking authorization"
_ABSENT = ("ServiceUnknown", "NameHasNoOwner", "NoServer", "FileNotFound")
_GONE = ("UnknownMethod", "UnknownObject", "UnknownInterface", "UnknownConnection", "ConnectionNotActive")


class NmProblem(enum.Enum):
    """What kind of thing went wrong."""

    NOT_RUNNING = "not running"
    DENIED = "denied"
    REFUSED = "refused"
    ACTIVATION = "activation"
    NO_ANSWER = "no answer"
    GONE = "gone"
    CHANGED = "changed in between"


class NmError(Exception):
    """NetworkManager did not do what it was asked. The text says what and why, and holds no secret."""

    def __init__(self, problem: NmProblem, text: str) -> None:
        self.problem = problem
        self.text = text
        super().__init__(problem, text)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A connection profile. `filename` is empty where it has no file, `interface` where it is bound to none.

    `path` is its D-Bus path, which another start of NetworkManager changes. `unsaved`: it is not what its file says.
    """

    path: str
    uuid: str
    id: str
    type: str
    interface: str
    filename: str
    unsaved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """An active connection; `device` is the path of its device and `interface` its name, empty while there is none."""

    path: str
    uuid: str
    state: int
    device: str
    interface: str

    @property
    def activated(self) -> bool:
        """Whether it is up, not on its way up or down."""
        return self.state == _ACTIVATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The settings that a device has, without secrets, and the number that tells whether they are still these."""

    settings: DbusSettings = field(repr=False)
    version: int


class NetworkManagerDaemon:
    """NetworkManager at the other end of a bus. All methods raise `NmError`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._write_s = _ROOTS_S if os.geteuid() == 0 else _PERSONS_S

    def is_running(self) -> bool:
        """Tell whether it runs; it is not started."""
        try:
            return self._bus.name_has_owner(_NAME)
        except NoBusError:
            return False
        except DBusError as error:
            problem = _problem(error)
        raise problem

    def version(self) -> tuple[int, ...]:
        """Return its version."""
        text = str(self._get(_PATH, _NAME, "Version"))
        return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdigit())

    def permission(self, name: str) -> str:
        """Return what this user may: `yes`, `auth` (after a password) or `no`, "" where nobody knows; nobody is asked.

        `name` is polkit's without the service's, as `settings.modify.own`.
        """
        [found] = self._call(_PATH, _NAME, "GetPermissions")
        return str(found.get(f"{_NAME}.{name}", ""))

    # --- profiles ----------------------------------------------------------------------------------------------------

    def profiles(self) -> list[Profile]:
        """Return all profiles that this user may see."""
        [paths] = self._call(_SETTINGS_PATH, _SETTINGS, "ListConnections")
        found = []
        for path in paths:
            try:
                found.append(self._profile(path))
            except NmError as error:
                # Deleted since, or somebody else's alone.
                if error.problem not in (NmProblem.GONE, NmProblem.DENIED):
                    raise
        return found

    def profile(self, uuid: str) -> Profile | None:
        """Return the profile of a UUID, or None."""
        try:
            [path] = self._call(_SETTINGS_PATH, _SETTINGS, "GetConnectionByUuid", "s", (uuid.lower(),))
            return self._profile(path)
        except NmError as error:
            # Before 1.4x it was InvalidConnection: "No connection with the UUID was found".
            if error.problem in (NmProblem.GONE, NmProblem.REFUSED):
                return None
            raise

    def _profile(self, path: str) -> Profile:
        found = self._get_all(path, _CONNECTION)
        connection = self.settings(path)["connection"]

        def text(name: str) -> str:
            return str(connection.get(name, ("s", ""))[1])

        return Profile(
            path=path,
            uuid=text("uuid"),
            id=text("id"),
            type=text("type"),
            interface=text("interface-name"),
            filename=str(found.get("Filename", "")),
            unsaved=bool(found.get("Unsaved", False)) or bool(found.get("Flags", 0) & _UNSAVED),
        )

    def settings(self, path: str) -> DbusSettings:
        """Return a profile's settings, without secrets."""
        [found] = self._call(path, _CONNECTION, "GetSettings")
        return dict(found)

    def settings_with_secrets(self, path: str) -> DbusSettings:
        """Return a WireGuard profile's settings with the secrets that are in it, as Update2() takes them back.

        What an agent keeps is not in the profile, and is left out, were the agent to tell it.
        """
        settings = self.settings(path)
        try:
            [secrets] = self._call(path, _CONNECTION, "GetSecrets", "s", ("wireguard",))
        except NmError as error:
            # From 1.56 on it is an error that there is no secret at all.
            if error.problem is not NmProblem.REFUSED or _keeps_private_key(settings):
                raise
            secrets = {}
        return with_secrets(settings, secrets)

    def agents_key(self, path: str) -> PrivateKey | None:
        """Return the private key that the user's agent keeps for a profile, None where it keeps none or there is none.

        The agent may ask the user to open the keyring. What NetworkManager itself remembers of an agent it does not
        tell, but forgets, so that the second question reaches the agent; seen with 1.42 to 1.58.
        """
        if _keeps_private_key(self.settings(path)):
            return None
        for _ in range(2):
            try:
                [secrets] = self._call(path, _CONNECTION, "GetSecrets", "s", ("wireguard",), timeout=self._write_s)
            except NmError as error:
                if error.problem is not NmProblem.REFUSED:
                    raise
                continue
            key = PrivateKey.parse(str(secrets.get("wireguard", {}).get("private-key", ("s", ""))[1]))
            if isinstance(key, PrivateKey):
                return key
        return None

    def load(self, filename: str) -> bool:
        """Have a keyfile read that was written beside NetworkManager; return whether it was taken. Root alone may."""
        [status, failures] = self._call(
            _SETTINGS_PATH, _SETTINGS, "LoadConnections", "as", ([filename],), timeout=self._write_s
        )
        return bool(status) and not failures

    def add(self, settings: DbusSettings, *, in_memory: bool = False) -> str:
        """Add a profile and return its path. It is not activated by that, whatever its autoconnect says.

        On disk, unless `in_memory`, which lasts until NetworkManager ends.
        """
        flags = (_IN_MEMORY if in_memory else _TO_DISK) | _BLOCK_AUTOCONNECT
        path, _ = self._call(
            _SETTINGS_PATH,
            _SETTINGS,
            "AddConnection2",
            f"{_PROFILE_TYPE}ua{{sv}}",
            (settings, flags, {}),
            timeout=self._write_s,
        )
        return str(path)

    def update(self, path: str, settings: DbusSettings, *, in_memory: bool = False) -> None:
        """Replace a profile's settings; what is active stays as it is.

        `settings` must hold all secrets, or none, which keeps them all: any that is sent replaces all. With `in_memory`
        the file goes.
        """
        flags = (_IN_MEMORY_ONLY if in_memory else _TO_DISK) | _BLOCK_AUTOCONNECT | _NO_REAPPLY
        self._call(
            path, _CONNECTION, "Update2", f"{_PROFILE_TYPE}ua{{sv}}", (settings, flags, {}), timeout=self._write_s
        )

    def delete(self, path: str) -> None:
        """Delete a profile, its file, and, where it is active, its connection and device."""
        self._call(path, _CONNECTION, "Delete", timeout=self._write_s)

    def reload_configuration(self) -> None:
        """Have NetworkManager.conf(5) and conf.d read again, which profiles are no part of; no link changes by it."""
        self._call(_PATH, _NAME, "Reload", "u", (_RELOAD_CONFIGURATION,), timeout=self._write_s)

    def rewrite_dns(self) -> None:
        """Have all DNS servers handed over, or written down, again; it believes that what it once did is still so."""
        self._call(_PATH, _NAME, "Reload", "u", (_RELOAD_DNS,), timeout=self._write_s)

    # --- connections -------------------------------------------------------------------------------------------------

    def active(self, uuid: str) -> Active | None:
        """Return the active connection of a profile, also one on its way up or down, or None."""
        for path in self._get(_PATH, _NAME, "ActiveConnections"):
            try:
                found = self._get_all(path, _ACTIVE)
            except NmError as error:
                if error.problem is NmProblem.GONE:
                    continue
                raise
            if found.get("Uuid") == uuid.lower() and found.get("State") != _DEACTIVATED:
                return self._active(path, found)
        return None

    def _active(self, path: str, found: Mapping[str, Any]) -> Active:
        device = next(iter(found.get("Devices", ())), "")
        interface = ""
        if device:
            try:
                interface = str(self._get(device, _DEVICE, "Interface"))
            except NmError as error:
                if error.problem is not NmProblem.GONE:
                    raise
                device = ""
        return Active(path=path, uuid=str(found["Uuid"]), state=int(found["State"]), device=device, interface=interface)

    def activate(self, path: str, *, timeout: float = 60.0) -> Active:
        """Activate a profile, wait until it is up, and return the connection. `timeout` is in seconds.

        Raises `NmError` of kind ACTIVATION with the reason where it fails, or is not up in time; then it is still on
        its way, or tried again by NetworkManager.
        """
        self._listen(_ACTIVE, "StateChanged")
        self._listen(_DEVICE, "StateChanged")
        try:
            [active] = self._call(
                _PATH, _NAME, "ActivateConnection", "ooo", (path, _NONE, _NONE), timeout=self._write_s
            )
        except NmError as error:
            if error.problem is not NmProblem.REFUSED:
                raise
            raise NmError(NmProblem.ACTIVATION, error.text) from None
        return self.wait(active, timeout=timeout)

    def wait(self, path: str, *, timeout: float) -> Active:
        """Wait until a connection is up and return it. Raises as `activate` does."""
        until = time.monotonic() + timeout
        reason = ""
        device = ""
        while True:
            try:
                found = self._get_all(path, _ACTIVE)
            except NmError as error:
                if error.problem is not NmProblem.GONE:
                    raise
                found = {"State": _DEACTIVATED}
            if found["State"] == _ACTIVATED:
                return self._active(path, found)
            device = next(iter(found.get("Devices", ())), device)
            left = until - time.monotonic()
            ended = found["State"] == _DEACTIVATED
            # What was said before it ended is there already.
            reason = self._hear(path, device, 0.2 if ended else min(max(left, 0.0), 1.0)) or reason
            if ended:
                raise NmError(NmProblem.ACTIVATION, reason or "it was deactivated at once")
            if left <= 0:
                raise NmError(NmProblem.ACTIVATION, reason or f"it was not up within {timeout:g} s")

    def _hear(self, path: str, device: str, timeout: float) -> str:
        """Return the reason that signals of a connection or its device give for a failure, "" for none."""
        reason = ""
        lost = False
        try:
            while (signal := self._bus.next_signal(timeout)) is not None:
                timeout = 0.0
                if signal.interface == _ACTIVE and signal.path == path and len(signal.values) == 2:
                    reason = reason or connection_reason(signal.values[1])
                elif signal.interface == _DEVICE and signal.path == device and len(signal.values) == 3:
                    # The device knows better what it was.
                    reason = device_reason(signal.values[2]) or reason
        except NoBusError:
            lost = True
        if lost:
            raise NmError(NmProblem.NO_ANSWER, "the connection to D-Bus was lost")
        return reason

    def deactivate(self, active: Active, *, timeout: float = 30.0) -> None:
        """Deactivate a connection and wait until it is gone, and its device with it. `timeout` is in seconds."""
        try:
            self._call(_PATH, _NAME, "DeactivateConnection", "o", (active.path,), timeout=self._write_s)
        except NmError as error:
            if error.problem is not NmProblem.GONE:
                raise
        until = time.monotonic() + timeout
        while self.active(active.uuid) is not None or (active.device and active.device in self._devices()):
            if time.monotonic() > until:
                raise NmError(NmProblem.ACTIVATION, f"it was not deactivated within {timeout:g} s")
            time.sleep(0.1)

    def _devices(self) -> list[str]:
        """Return the paths of devices that are there; AllDevices has those that profiles could make, too."""
        return list(self._get(_PATH, _NAME, "Devices"))

    # --- devices -----------------------------------------------------------------------------------------------------

    def applied(self, device: str) -> Applied:
        """Return what a device was given, which the profile may have left since."""
        settings, version = self._call(device, _DEVICE, "GetAppliedConnection", "u", (0,))
        return Applied(settings=dict(settings), version=version)

    def reapply(self, device: str, settings: DbusSettings, version: int) -> None:
        """Have a device take over settings, where `version` still tells what it has.

        With any difference NetworkManager takes all preshared keys off the device, and sets configured endpoints again.
        """
        self._call(device, _DEVICE, "Reapply", f"{_PROFILE_TYPE}tu", (settings, version, 0), timeout=self._write_s)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def checkpoint(self, device: str, timeout: int) -> str:
        """Have NetworkManager keep a device's state and go back to it in `timeout` seconds; return the checkpoint.

        One device and no flags: an empty list is all devices, and the flags for new connections and devices mean
        anybody's. Fails where another checkpoint holds the device.
        """
        [path] = self._call(_PATH, _NAME, "CheckpointCreate", "aouu", ([device], timeout, 0), timeout=self._write_s)
        return str(path)

    def checkpoints(self) -> dict[str, list[str]]:
        """Return everybody's checkpoints, and the names of the interfaces that each would put back."""
        found = {}
        for path in self._get(_PATH, _NAME, "Checkpoints"):
            try:
                devices = self._get(path, _CHECKPOINT, "Devices")
                found[str(path)] = [str(self._get(device, _DEVICE, "Interface")) for device in devices]
            except NmError as error:
                if error.problem is not NmProblem.GONE:
                    raise
        return found

    def extend(self, checkpoint: str, timeout: int) -> None:
        """Go back only in `timeout` seconds from now."""
        self._call(_PATH, _NAME, "CheckpointAdjustRollbackTimeout", "ou", (checkpoint, timeout))

    def keep(self, checkpoint: str) -> None:
        """Destroy a checkpoint: the state stays as it is now. One that is gone already is none."""
        try:
            self._call(_PATH, _NAME, "CheckpointDestroy", "o", (checkpoint,), timeout=self._write_s)
        except NmError as error:
            if error.problem not in (NmProblem.GONE, NmProblem.REFUSED):
                raise

    def roll_back(self, checkpoint: str) -> bool:
        """Go back to a checkpoint now; return whether each of its devices is what it was."""
        [result] = self._call(_PATH, _NAME, "CheckpointRollback", "o", (checkpoint,), timeout=self._write_s)
        return all(status == 0 for status in result.values())

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[object, ...] = (),
        *,
        timeout: float = 25.0,
    ) -> list[Any]:
        try:
            return self._bus.call(
                _NAME, path, interface, member, signature, body, timeout=timeout, auto_start=False, interactive=True
            )
        except DBusError as error:
            problem = _problem(error)
        except ValueError:
            # Nothing of it is known, on purpose: see `Bus.call`.
            problem = NmError(NmProblem.REFUSED, f"{member}: the settings cannot be sent over D-Bus")
        raise problem

    def _listen(self, interface: str, member: str) -> None:
        try:
            self._bus.listen(_NAME, interface, member)
        except DBusError as error:
            problem = _problem(error)
        else:
            return
        raise problem

    def _get(self, path: str, interface: str, name: str) -> Any:
        try:
            return self._bus.get(_NAME, path, interface, name)
        except DBusError as error:
            problem = _problem(error)
        raise problem

    def _get_all(self, path: str, interface: str) -> dict[str, Any]:
        try:
            return self._bus.get_all(_NAME, path, interface)
        except DBusError as error:
            problem = _problem(error)
        raise problem


def _problem(error: DBusError) -> NmError:
    if not isinstance(error, DBusCallError):
        return NmError(NmProblem.NO_ANSWER, str(error))
    last = error.name.rpartition(".")[2]
    said = error.message or last
    if last in _ABSENT:
        return NmError(NmProblem.NOT_RUNNING, "NetworkManager does not run")
    if last.endswith(_DENIED) or said.startswith(_CANNOT_ASK):
        return NmError(NmProblem.DENIED, said)
    if error.unanswered:
        return NmError(NmProblem.NO_ANSWER, f"{error.member}: {said}")
    if last == "VersionIdMismatch":
        return NmError(NmProblem.CHANGED, said)
    if last in _GONE:
        return NmError(NmProblem.GONE, said)
    return NmError(NmProblem.REFUSED, said)


# --- secrets ---------------------------------------------------------------------------------------------------------


def with_secrets(settings: DbusSettings, secrets: DbusSettings) -> DbusSettings:
    """Return settings with what GetSecrets() returned of them, where the profile itself keeps it."""
    given = secrets.get("wireguard", {})
    wireguard = dict(settings.get("wireguard", {}))
    if "private-key" in given and _is_kept(wireguard, "private-key-flags", default=SECRET_IN_PROFILE):
        wireguard["private-key"] = given["private-key"]
    by_key = {peer["public-key"][1]: peer for peer in _items(given, "peers")}
    peers = []
    for peer in _items(wireguard, "peers"):
        key = by_key.get(peer["public-key"][1], {}).get("preshared-key")
        if key is not None and _is_kept(peer, "preshared-key-flags", default=None):
            peer = {**peer, "preshared-key": key}
        peers.append(peer)
    if peers:
        wireguard["peers"] = ("aa{sv}", peers)
    return {**settings, "wireguard": wireguard}


def _items(setting: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return list(setting[name][1]) if name in setting else []


def _is_kept(item: Mapping[str, Any], flags: str, *, default: int | None) -> bool:
    value = item[flags][1] if flags in item else default
    return bool(value == SECRET_IN_PROFILE)


def _keeps_private_key(settings: DbusSettings) -> bool:
    return _is_kept(settings.get("wireguard", {}), "private-key-flags", default=SECRET_IN_PROFILE)


def settings_to_json(settings: DbusSettings) -> Any:
    """Return a profile in what JSON can hold; it has the secrets in plain. Raises `ValueError`."""
    return to_json(_PROFILE_TYPE, settings)


def settings_from_json(data: object) -> DbusSettings:
    """Return the profile that `settings_to_json` made `data` of. Raises `ValueError`."""
    settings: DbusSettings = from_json(_PROFILE_TYPE, data)
    return settings
