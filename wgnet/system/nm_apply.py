"""One profile of NetworkManager, from what it is to what it is to be, and back.

Stage: system. Input: a profile's settings, wanted or former; output: NetworkManager with them. The sessions of peers go
on: a profile is changed on disk alone; addresses, routes, rules and DNS are reapplied, and who called sets the device
right at once after that, for NetworkManager takes preshared keys off it and sets endpoints of long ago. Peers, keys,
port, mark and MTU of a device that is up are the caller's, with wg(8) and ip(8). Must not touch another profile.

Why not by activation: it ends every session (15 s for a peer that has no endpoint). Why not by reapplying peers: one
that is gone makes NetworkManager replace them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.profile import (
    configured_endpoints,
    differences,
    exchanged,
    has_preshared_keys,
    ip_differs,
    keeps_private_key,
    with_private_key_of,
)
from wgnet.managers.nm_settings import DbusSettings, Settings, to_dbus
from wgnet.system.nm import (
    Active,
    NetworkManagerDaemon,
    NmError,
    NmProblem,
    Profile,
    settings_from_json,
    settings_to_json,
)

__all__ = [
    "Found",
    "SavedProfile",
    "apply_profile",
    "await_active",
    "changes",
    "costs",
    "find_profile",
    "guard_profile",
    "reapply_ip",
    "remove_profile",
    "report_problem",
    "restore_profile",
    "save_profile",
]

#: Seconds for an activation: names of endpoints are asked for first, and a user's agent may be.
_ACTIVATION_S = 60.0
#: Seconds for one that is under way already.
_UNDER_WAY_S = 10.0
#: How often to reapply where somebody else changes the device at the same time.
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A profile as it is, with its secrets. `applied` is what its device was given, None where it is not active.

    Without `secrets_known` nobody asked for the secrets, and `settings` lacks them.
    """

    profile: Profile
    settings: DbusSettings = field(repr=False)
    active: Active | None
    applied: DbusSettings | None = field(repr=False)
    secrets_known: bool = True

    @property
    def configured(self) -> dict[str, str | None]:
        """The endpoints that the profile configures, by public key."""
        return configured_endpoints(self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedProfile:
    """A profile as it was, to be put back: `settings` with secrets, `applied` what its device had, None where none."""

    uuid: str
    filename: str
    settings: DbusSettings = field(repr=False)
    active: bool
    applied: DbusSettings | None = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return it in what JSON can hold; the secrets are in plain."""
        return {
            "uuid": self.uuid,
            "filename": self.filename,
            "settings": settings_to_json(self.settings),
            "active": self.active,
            "applied": None if self.applied is None else settings_to_json(self.applied),
        }

    @classmethod
    def from_json(cls, data: Any) -> SavedProfile:
        """Return what `to_json` made `data` of. Raises `ValueError`, `KeyError` and `TypeError`."""
        return cls(
            uuid=str(data["uuid"]),
            filename=str(data["filename"]),
            settings=settings_from_json(data["settings"]),
            active=bool(data["active"]),
            applied=None if data["applied"] is None else settings_from_json(data["applied"]),
        )


def find_profile(nm: NetworkManagerDaemon, uuid: str, *, secrets: bool = True) -> Found | None:
    """Return a profile by its UUID, or None. Changes nothing. Raises `NmError`.

    Its secrets, unless they are left out, are told only to who may change it.
    """
    profile = nm.profile(uuid)
    if profile is None:
        return None
    settings = nm.settings_with_secrets(profile.path) if secrets else nm.settings(profile.path)
    active = nm.active(uuid)
    applied = None
    if active is not None and active.device:
        try:
            applied = nm.applied(active.device).settings
        except NmError as error:
            # On its way down.
            if error.problem not in (NmProblem.GONE, NmProblem.REFUSED):
                raise
    return Found(profile=profile, settings=settings, active=active, applied=applied, secrets_known=secrets)


def save_profile(nm: NetworkManagerDaemon, uuid: str) -> SavedProfile | None:
    """Return what to put back later, None where there is no such profile. Raises `NmError`."""
    found = find_profile(nm, uuid)
    if found is None:
        return None
    return SavedProfile(
        uuid=uuid,
        filename=found.profile.filename,
        settings=found.settings,
        active=found.active is not None,
        applied=found.applied,
    )


# --- what would change -----------------------------------------------------------------------------------------------


def changes(found: Found | None, wanted: Settings) -> list[str]:
    """Return the properties of a profile that would change, as `ipv4.route-data`; `profile` for one that is new.

    `active` stands among them where it would be brought up.
    """
    if found is None:
        return ["profile"]
    body = with_private_key_of(to_dbus(wanted), found.settings)
    names = [f"{setting}.{name}" for setting, name in differences(body, found.settings)]
    if found.active is None and _autoconnects(body):
        names.append("active")
    elif found.applied is not None and not names and ip_differs(body, found.applied):
        # An earlier run ended in between.
        names.append("applied")
    return names


def costs(found: Found | None, wanted: Settings) -> list[str]:
    """Return what a change of the profile will cost in sessions, each with its reason; nothing, as a rule.

    A new private key, listen port or MTU is the device's, and not said here.
    """
    if found is None or found.active is None:
        return []
    body = to_dbus(wanted)
    said = []
    name = str(body["connection"]["interface-name"][1])
    if found.active.interface not in ("", name):
        said.append(
            f"the interface '{found.active.interface}' becomes '{name}': NetworkManager makes it anew, and every "
            "session begins again"
        )
    elif found.applied is not None and ip_differs(body, found.applied) and has_preshared_keys(found.applied):
        said.append(
            "NetworkManager takes the preshared keys off the interface for a moment when addresses, routes or DNS "
            "change: a handshake in that moment is tried again 5 s later; established sessions go on"
        )
    if keeps_private_key(found.settings) and not keeps_private_key(body):
        said.append("the next activation asks the user's agent for the private key")
    return said


def _autoconnects(body: DbusSettings) -> bool:
    return bool(body["connection"].get("autoconnect", ("b", True))[1])


# --- the change ------------------------------------------------------------------------------------------------------


def apply_profile(
    nm: NetworkManagerDaemon, wanted: Settings, settle_device: Callable[[], None], *, keyfile: str | None = None
) -> Active | None:
    """Make a profile so; return its connection, None where it stays down. Raises `NmError`, and what the callback does.

    `settle_device` is called at once after each step that touched the device. `keyfile` is where the profile may lie
    as a file that NetworkManager has not read yet: it is read first, or there would be two with one UUID.
    """
    body = to_dbus(wanted)
    uuid = wanted.uuid
    found = find_profile(nm, uuid)
    if found is None and keyfile is not None and os.path.exists(keyfile) and nm.load(keyfile):
        found = find_profile(nm, uuid)
    if found is None:
        path = nm.add(body)
    else:
        path = found.profile.path
        body = with_private_key_of(body, found.settings)
        if found.profile.unsaved or _is_transient(found.profile.filename) or differences(body, found.settings):
            nm.update(path, body)
    active = nm.active(uuid)
    return _bring(nm, path, body, body, active, active is not None or _autoconnects(body), settle_device)


def restore_profile(
    nm: NetworkManagerDaemon, saved: SavedProfile | None, uuid: str, settle_device: Callable[[], None]
) -> Active | None:
    """Put a profile back to what it was: settings, secrets, whether it is up; None for one that was not there.

    Where it was deleted and its file stands again, the file is read. Raises as `apply_profile` does.
    """
    if saved is None:
        remove_profile(nm, uuid)
        return None
    profile = nm.profile(uuid)
    if profile is None and os.path.exists(saved.filename) and nm.load(saved.filename):
        profile = nm.profile(uuid)
    transient = _is_transient(saved.filename)
    if profile is None:
        path = nm.add(saved.settings, in_memory=transient)
    else:
        path = profile.path
        if differences(saved.settings, nm.settings_with_secrets(path)) or _is_transient(profile.filename) != transient:
            nm.update(path, saved.settings, in_memory=transient)
    active = nm.active(uuid)
    return _bring(nm, path, saved.settings, saved.applied or saved.settings, active, saved.active, settle_device)


def _is_transient(filename: str) -> bool:
    """Tell whether a profile is gone with the next boot. One of /usr/lib is not changed there, but replaced in /etc."""
    return filename == "" or filename.startswith("/run/")


def _bring(
    nm: NetworkManagerDaemon,
    path: str,
    body: DbusSettings,
    applied: DbusSettings,
    active: Active | None,
    up: bool,
    settle_device: Callable[[], None],
) -> Active | None:
    """Bring a profile's connection up or down, and its device to IP settings."""
    if not up:
        if active is not None:
            nm.deactivate(active)
        return None
    if active is not None and not active.activated:
        active = await_active(nm, active)
    name = str(body["connection"]["interface-name"][1])
    if active is not None and active.interface != name:
        nm.deactivate(active)
        active = None
    if active is None:
        active = nm.activate(path, timeout=_ACTIVATION_S)
        settle_device()
    else:
        reapply_ip(nm, active, applied, settle_device)
    return active


def await_active(nm: NetworkManagerDaemon, active: Active) -> Active | None:
    """Wait for an activation that is under way; None where it comes to nothing. Raises `NmError`."""
    try:
        return nm.wait(active.path, timeout=_UNDER_WAY_S)
    except NmError as error:
        if error.problem is not NmProblem.ACTIVATION:
            raise
        return None


def reapply_ip(
    nm: NetworkManagerDaemon,
    active: Active,
    wanted: DbusSettings,
    settle_device: Callable[[], None],
    *,
    again: bool = False,
) -> None:
    """Have an active device take over IP settings, where they differ; or `again`, where somebody took what it had.

    Raises as `apply_profile` does.
    """
    for tried in range(1, _TRIES + 1):
        applied = nm.applied(active.device)
        if not again and not ip_differs(wanted, applied.settings):
            return
        try:
            nm.reapply(active.device, exchanged(applied.settings, wanted), applied.version)
        except NmError as error:
            if error.problem is not NmProblem.CHANGED or tried == _TRIES:
                raise
        else:
            settle_device()
            return


def remove_profile(nm: NetworkManagerDaemon, uuid: str) -> None:
    """Delete a profile with its connection and device; none is none. Raises `NmError`."""
    profile = nm.profile(uuid)
    if profile is None:
        return
    active = nm.active(uuid)
    if active is not None:
        # Deleting brings it down too, but does not say when it is down.
        nm.deactivate(active)
    nm.delete(profile.path)


def guard_profile(nm: NetworkManagerDaemon, uuid: str, timeout: int) -> str | None:
    """Have NetworkManager put a profile's device back in `timeout` seconds by itself; return the checkpoint.

    None where the profile is not active: no checkpoint is about a profile that is not there yet without being about
    everybody's new profiles too. Going back activates the profile anew where anything of it has changed, which ends its
    sessions, so it is the last resort, behind wgnet's own; before 1.5x it does not bring an interface's old name back.
    Raises `NmError`.
    """
    active = nm.active(uuid)
    if active is None or not active.device:
        return None
    return nm.checkpoint(active.device, timeout)


# --- what is said ----------------------------------------------------------------------------------------------------


def report_problem(error: NmError, network: str, diagnostics: Diagnostics) -> None:
    """Report why NetworkManager did not do what a network needs."""
    if error.problem is NmProblem.NOT_RUNNING:
        diagnostics.report(
            codes.NM_NOT_RUNNING,
            f"the profile of '{network}' needs NetworkManager, which does not run",
            help="start it with `systemctl start NetworkManager`, or write `manager: networkd`",
        )
    elif error.problem is NmProblem.DENIED:
        diagnostics.report(
            codes.NM_DENIED,
            f"this user may not change the profile of '{network}': {error.text}",
            help=(
                "run it as root",
                "or give the host `permissions: [USER]` with this user alone: polkit lets users change what is theirs",
            ),
        )
    elif error.problem is NmProblem.ACTIVATION:
        diagnostics.report(
            codes.NM_ACTIVATION,
            f"NetworkManager could not bring up '{network}': {error.text}",
            help="`journalctl -u NetworkManager` says more",
        )
    elif error.problem is NmProblem.NO_ANSWER:
        diagnostics.report(
            codes.NM_NO_ANSWER,
            f"NetworkManager did not answer about '{network}': {error.text}",
            help="see that it runs with `systemctl status NetworkManager`, and run the command again",
        )
    else:
        diagnostics.report(
            codes.NM_REFUSED,
            f"NetworkManager refuses the profile of '{network}': {error.text}",
            help="`journalctl -u NetworkManager` says more",
        )
