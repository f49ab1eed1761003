"""NetworkManager's part of a change: which profiles are wgnet's, what they were, and their way to a target and back.

Stage: system. Input: a target; output: profiles as they are to be. Profiles are found by their UUID, never by the name
of a file, and a record in the state folder says which UUIDs are wgnet's, for the day when no topology does any more.
Must not touch another profile.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.changes import device_change, restored_device
from wgnet.live.costs import Cost
from wgnet.live.device import DeviceSettings, LiveDevice, is_address
from wgnet.live.drift import Drift
from wgnet.live.profile import policy_rules
from wgnet.live.state import PolicyRule
from wgnet.live.wanted import KERNEL_MTU
from wgnet.managers.nm_settings import to_dbus
from wgnet.syntax.spec import Manager
from wgnet.system import nm_apply
from wgnet.system.dbus import Bus
from wgnet.system.guard import LIMIT_S
from wgnet.system.links import link_exists, mtu_of, set_mtu
from wgnet.system.nm import NetworkManagerDaemon, NmError
from wgnet.system.resolve import resolve_endpoints
from wgnet.system.rootpath import path_below
from wgnet.system.snapshot import BadSnapshotError, Owned, Snapshot
from wgnet.system.target import InterfaceTarget, Target, keyfile_path
from wgnet.system.wholefiles import make_folders, put_file
from wgnet.system.wireguard import read_devices, set_device

__all__ = ["Profiles", "ReportedError", "forget_profiles", "read_record", "read_record_file", "write_record_file"]

_RECORD = "var/lib/wgnet/profiles.json"
_CHECKPOINTS = "var/lib/wgnet/apply/checkpoints.json"
_VERSION = 1
_FOLDER = "etc/NetworkManager/system-connections"
#: Seconds that NetworkManager's own way back leaves to wgnet's, which loses no session.
_MARGIN_S = 60


class ReportedError(Exception):
    """NetworkManager did not do what it was asked; why is among the diagnostics."""


def read_record(root: Path = Path("/")) -> dict[str, Owned]:
    """Return the profiles that are wgnet's by UUID, as the record has them; none where it cannot be read."""
    return read_record_file(_below(root, _RECORD))


def read_record_file(path: Path) -> dict[str, Owned]:
    """Return what the record in a file has, by UUID; nothing where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(uuid): Owned(
                interface=str(each["interface"]),
                network=str(each["network"]),
                manager=Manager.NETWORKMANAGER,
                uuid=str(uuid),
            )
            for uuid, each in value["profiles"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def forget_profiles(root: Path, stay: Collection[str]) -> list[str]:
    """Remove the keyfiles of profiles whose networks do not `stay`, from disk alone; return those networks, sorted.

    For a root whose daemon is told nothing: NetworkManager has a profile until it reads its files again. Raises
    `OSError`.
    """
    record = read_record(root)
    gone = {uuid: each.network for uuid, each in record.items() if each.network not in stay}
    for uuid in gone:
        _remove_keyfiles(root, uuid)
    if gone:
        _write_record(root, [each for uuid, each in record.items() if uuid not in gone])
    return sorted(set(gone.values()))


def _write_record(root: Path, owned: Iterable[Owned]) -> None:
    write_record_file(_below(root, _RECORD), owned)


def write_record_file(path: Path, owned: Iterable[Owned]) -> None:
    """Write a record, whole or not at all; an empty one is none. What has no UUID is left out. Raises `OSError`."""
    profiles = {
        each.uuid: {"network": each.network, "interface": each.interface} for each in owned if each.uuid is not None
    }
    if not profiles:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return
    make_folders(path.parent)
    text = json.dumps({"version": _VERSION, "profiles": profiles}, indent=1, sort_keys=True)
    put_file(path, text.encode(), 0o644)


class Profiles:
    """NetworkManager's interfaces of a target. All methods raise `NmError`, `ProgramError` and `OSError`."""

    def __init__(self, bus: Bus, target: Target, root: Path = Path("/")) -> None:
        self._nm = NetworkManagerDaemon(bus)
        self._root = root
        self._record = read_record(root)
        # By UUID: an interface's new name is no new profile, and another network may take over the name of one.
        self._wanted = {_uuid(each): each for each in target.of(Manager.NETWORKMANAGER)}
        networks = target.networks
        self._gone = {
            uuid: each
            for uuid, each in self._record.items()
            if uuid not in self._wanted and (networks is None or each.network in networks)
        }
        self._found = {uuid: nm_apply.find_profile(self._nm, uuid) for uuid in self._wanted}
        #: Nobody has these profiles but the disk: NetworkManager was taken off the machine. One that was stopped has
        #: left its devices.
        self._on_disk = (
            bool(self._gone)
            and not self._wanted
            and not any(link_exists(each.interface) for each in self._gone.values())
            and not self._nm.is_running()
        )

    def rules(self) -> dict[str, frozenset[PolicyRule]]:
        """Return the policy rules of NetworkManager's profiles as they are to be, by network."""
        found = {
            each.network: policy_rules(to_dbus(each.settings, secrets=False))
            for each in self._wanted.values()
            if each.settings is not None
        }
        others = [uuid for uuid in self._record if uuid not in self._wanted and uuid not in self._gone]
        if others and self._nm.is_running():
            for uuid in others:
                each = self._record[uuid]
                profile = self._nm.profile(uuid)
                found[each.network] = frozenset() if profile is None else policy_rules(self._nm.settings(profile.path))
        return found

    @staticmethod
    def saved_rules(snapshot: Snapshot) -> dict[str, frozenset[PolicyRule]]:
        """Return the policy rules of the profiles of a snapshot, by network. Raises `BadSnapshotError`."""
        known = {each.uuid: each.network for each in (*snapshot.made, *snapshot.owned)}
        saved = {uuid: _saved_profile(data) for uuid, data in snapshot.profiles.items()}
        return {known[uuid]: policy_rules(each.settings) for uuid, each in saved.items() if each is not None}

    def owned(self) -> tuple[Owned, ...]:
        """Return the interfaces whose profiles are wgnet's now, those of keyfiles that it rendered among them."""
        return tuple({**self._record, **self._present()}.values())

    def _present(self) -> dict[str, Owned]:
        """Return the profiles that stay, with the interfaces that they have by now."""
        return {
            uuid: Owned(
                interface=found.profile.interface or each.name,
                network=each.network,
                manager=Manager.NETWORKMANAGER,
                uuid=uuid,
            )
            for uuid, each in self._wanted.items()
            if (found := self._found[uuid]) is not None
        }

    # --- what would change -------------------------------------------------------------------------------------------

    def differ(self) -> bool:
        """Return whether a profile would change."""
        return bool(self.changes())

    def changes(self) -> list[str]:
        """Return what would become of profiles, a text each."""
        said = []
        for uuid, each in self._wanted.items():
            assert each.settings is not None
            names = nm_apply.changes(self._found[uuid], each.settings)
            if names == ["profile"]:
                said.append(f"the profile '{each.network}' ({each.name}) is added")
            elif names:
                said.append(f"the profile '{each.network}' ({each.name}) changes: {', '.join(names)}")
        said += [f"the profile '{each.network}' ({each.interface}) is removed" for each in self._gone.values()]
        return said

    def costs(self) -> list[Cost]:
        """Return what the change of profiles costs in sessions."""
        return [
            Cost(interface=each.name, reason=reason)
            for uuid, each in self._wanted.items()
            if each.settings is not None
            for reason in nm_apply.costs(self._found[uuid], each.settings)
        ]

    def configured(self) -> dict[str, Mapping[str, str | None]]:
        """Return the endpoints that profiles configure now, by interface and public key."""
        return {
            found.profile.interface or self._wanted[uuid].name: found.configured
            for uuid, found in self._found.items()
            if found is not None
        }

    def save(self) -> dict[str, Any]:
        """Return the profiles of now, with their secrets, by UUID; None for one that is not there."""
        if self._on_disk:
            return {uuid: _saved_from_disk(self._root, uuid) for uuid in self._gone}
        return {uuid: self._saved(uuid) for uuid in (*self._wanted, *self._gone)}

    def _saved(self, uuid: str) -> dict[str, Any] | None:
        saved = nm_apply.save_profile(self._nm, uuid)
        if saved is None:
            return None
        content = None
        with contextlib.suppress(OSError):
            content = base64.b64encode((self._root / saved.filename.lstrip("/")).read_bytes()).decode()
        return {**saved.to_json(), "content": content}

    # --- the change --------------------------------------------------------------------------------------------------

    def apply(self, snapshot: Snapshot, diagnostics: Diagnostics) -> None:
        """Bring the profiles, and the devices that they make, to the target.

        Raises `ReportedError` besides.
        """
        # Before there is anything that a run that is killed could leave unknown.
        _write_record(self._root, (*snapshot.owned, *snapshot.made))
        # NetworkManager would have two profiles for one interface.
        names = {each.name for each in self._wanted.values()}
        self._remove([each for each in self._gone.values() if each.interface in names], diagnostics)
        for uuid, each in self._wanted.items():
            assert each.settings is not None
            found = self._found[uuid]
            with _reporting(each.network, diagnostics):
                self._guard(uuid)
                settle = self._settling(each, {} if found is None else found.configured, diagnostics)
                keyfile = str(self._root / keyfile_path(each.name))
                active = nm_apply.apply_profile(self._nm, each.settings, settle, keyfile=keyfile)
                if active is not None:
                    settle()
                    if mtu_of(each.name) not in (None, each.mtu):
                        set_mtu(each.name, each.mtu)
        self._remove([each for each in self._gone.values() if each.interface not in names], diagnostics)
        left = [each for each in snapshot.owned if each.uuid not in self._gone]
        _write_record(self._root, (*left, *snapshot.made))

    def _remove(self, gone: Sequence[Owned], diagnostics: Diagnostics) -> None:
        for each in gone:
            if each.uuid is not None and self._on_disk:
                _remove_keyfiles(self._root, each.uuid)
            elif each.uuid is not None:
                with _reporting(each.network, diagnostics):
                    nm_apply.remove_profile(self._nm, each.uuid)

    def _guard(self, uuid: str) -> None:
        """Have NetworkManager go back by itself, should nobody else; one that it refuses is done without."""
        with contextlib.suppress(NmError):
            path = nm_apply.guard_profile(self._nm, uuid, LIMIT_S + _MARGIN_S)
            if path is not None:
                _write_checkpoints(self._root, [*_read_checkpoints(self._root), path])

    @staticmethod
    def _settling(
        each: InterfaceTarget, configured: Mapping[str, str | None], diagnostics: Diagnostics
    ) -> Callable[[], None]:
        """Return what sets the device right after NetworkManager has touched it.

        NetworkManager sets configured endpoints again: a peer that has roamed since gets back where it was.
        """
        before = read_devices().get(each.name)
        wanted, endpoints = _with_live_endpoints(each.device, before, configured)

        def settle() -> None:
            device = read_devices().get(each.name)
            if device is not None and (change := device_change(device, wanted, endpoints)):
                set_device(change, resolve_endpoints(change, diagnostics))

        return settle

    @staticmethod
    def finish(targets: Iterable[InterfaceTarget], diagnostics: Diagnostics) -> None:
        """Set the devices right that NetworkManager has set since: one that was restarted does so a moment later."""
        live = read_devices()
        for each in targets:
            device = live.get(each.name)
            # A name was asked for once already.
            peers = {
                key: peer if peer.endpoint is None or is_address(peer.endpoint) else replace(peer, endpoint=None)
                for key, peer in each.device.peers.items()
            }
            if device is not None and (change := device_change(device, replace(each.device, peers=peers))):
                set_device(change, resolve_endpoints(change, diagnostics))

    def set_again(self, drift: Sequence[Drift], diagnostics: Diagnostics) -> None:
        """Have NetworkManager give again what somebody took from its devices. Raises `ReportedError`."""
        ip = {each.interface for each in drift if each.aspect in ("link", "address", "route", "rule")}
        dns = {each.interface for each in drift if each.aspect == "dns"}
        for uuid, each in self._wanted.items():
            assert each.settings is not None
            with _reporting(each.network, diagnostics):
                active = self._nm.active(uuid) if each.name in ip else None
                if active is not None and active.activated:
                    settle = self._settling(each, {}, diagnostics)
                    nm_apply.reapply_ip(self._nm, active, to_dbus(each.settings), settle, again=True)
                if each.name in dns:
                    self._nm.rewrite_dns()

    def settle(self, confirm: float | None) -> None:
        """Keep the change; with `confirm` NetworkManager may still go back some time after so many seconds."""
        for path in _read_checkpoints(self._root):
            if confirm is None:
                self._nm.keep(path)
            else:
                with contextlib.suppress(NmError):
                    self._nm.extend(path, int(confirm) + _MARGIN_S)
        if confirm is None:
            _write_checkpoints(self._root, [])

    def adopt(self) -> None:
        """Take profiles over that are right already, from files that `wgnet render -o` wrote as a rule."""
        found = {**self._record, **self._present()}
        if found != self._record:
            _write_record(self._root, found.values())

    @staticmethod
    def keep(bus: Bus, root: Path = Path("/"), names: Collection[str] | None = None) -> None:
        """Keep what NetworkManager would go back from; `names` are wgnet's interfaces, else those of the record.

        A run that was killed may not have lived to write down that it had asked for it: a checkpoint of such an
        interface alone is wgnet's.
        """
        nm = NetworkManagerDaemon(bus)
        mine = {each.interface for each in read_record(root).values()} if names is None else names
        paths = _read_checkpoints(root)
        with contextlib.suppress(NmError):
            paths += [path for path, devices in nm.checkpoints().items() if len(devices) == 1 and devices[0] in mine]
        for path in dict.fromkeys(paths):
            with contextlib.suppress(NmError):
                nm.keep(path)
        _write_checkpoints(root, [])

    # --- the way back ------------------------------------------------------------------------------------------------

    @staticmethod
    def restore(bus: Bus, snapshot: Snapshot, diagnostics: Diagnostics, root: Path) -> None:
        """Put the profiles of a snapshot back, without a drop. Raises `ReportedError` besides."""
        if not snapshot.profiles:
            return
        if any(data is not None and data.get("on-disk") for data in snapshot.profiles.values()):
            Profiles.restore_files(snapshot, root)
            return
        nm = NetworkManagerDaemon(bus)
        devices = snapshot.devices()
        known = {each.uuid: each for each in (*snapshot.made, *snapshot.owned)}
        for uuid, data in snapshot.profiles.items():
            owned = known[uuid]
            name = owned.interface
            saved = _saved_profile(data)
            device = devices.get(name)
            target = InterfaceTarget(
                network=owned.network,
                name=name,
                manager=owned.manager,
                device=restored_device(device or LiveDevice.empty(name)),
                mtu=snapshot.mtus.get(name, KERNEL_MTU),
                active=device is not None,
            )
            with _reporting(owned.network, diagnostics):
                settle = Profiles._settling(target, snapshot.endpoints_to_leave(target.device), diagnostics)
                active = nm_apply.restore_profile(nm, saved, uuid, settle)
                if active is not None and device is not None:
                    settle()
                    if mtu_of(name) not in (None, target.mtu):
                        set_mtu(name, target.mtu)
        _write_record(root, snapshot.owned)
        Profiles.keep(bus, root, [each.interface for each in known.values()])

    @staticmethod
    def restore_files(snapshot: Snapshot, root: Path) -> None:
        """Put the profiles' files back, before NetworkManager runs. Raises `OSError`, `BadSnapshotError`."""
        for uuid, data in snapshot.profiles.items():
            saved = _saved_profile(data)
            if saved is None or not saved.filename.startswith("/etc/"):
                # What it was in memory, or in /run, is gone; what it was in /usr/lib is there, behind the file of /etc.
                _remove_keyfiles(root, uuid)
            elif data.get("content") is not None:
                put_file(root / saved.filename.lstrip("/"), base64.b64decode(data["content"]), 0o600)
        _write_record(root, snapshot.owned)
        _write_checkpoints(root, [])


def _saved_from_disk(root: Path, uuid: str) -> dict[str, Any] | None:
    """Return a profile that no NetworkManager has, in the form of `Profiles.save`."""
    for path in _keyfiles(root, uuid):
        saved = nm_apply.SavedProfile(
            uuid=uuid, filename=f"/{_FOLDER}/{path.name}", settings={}, active=False, applied=None
        )
        return {**saved.to_json(), "content": base64.b64encode(path.read_bytes()).decode(), "on-disk": True}
    return None


def _uuid(each: InterfaceTarget) -> str:
    assert each.settings is not None
    return each.settings.uuid


def _saved_profile(data: Any) -> nm_apply.SavedProfile | None:
    if data is None:
        return None
    try:
        return nm_apply.SavedProfile.from_json(data)
    except (ValueError, KeyError, TypeError):
        raise BadSnapshotError("a profile in it is damaged") from None


@contextlib.contextmanager
def _reporting(network: str, diagnostics: Diagnostics) -> Iterator[None]:
    """Report what NetworkManager refuses, by the network that it is about."""
    try:
        yield
    except NmError as error:
        nm_apply.report_problem(error, network, diagnostics)
        raise ReportedError from None


def _with_live_endpoints(
    wanted: DeviceSettings, before: LiveDevice | None, configured: Mapping[str, str | None]
) -> tuple[DeviceSettings, dict[str, str | None]]:
    """Return settings with the live endpoint of each peer whose configured one stays, and what they replace."""
    if before is None:
        return wanted, dict(configured)
    peers = dict(wanted.peers)
    replaced: dict[str, str | None] = dict(configured)
    for key, peer in wanted.peers.items():
        live = before.peers.get(key)
        if live is None or live.endpoint is None or peer.is_astray(live):
            continue
        if configured.get(key, peer.endpoint) == peer.endpoint:
            peers[key] = replace(peer, endpoint=live.endpoint)
            # Nothing is configured so: what differs from it is set.
            replaced[key] = None
    return replace(wanted, peers=peers), replaced


# --- files -----------------------------------------------------------------------------------------------------------


def _read_checkpoints(root: Path) -> list[str]:
    try:
        return [str(path) for path in json.loads((root / _CHECKPOINTS).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _write_checkpoints(root: Path, paths: list[str]) -> None:
    path = root / _CHECKPOINTS
    if paths:
        put_file(path, json.dumps(paths).encode(), 0o600)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _remove_keyfiles(root: Path, uuid: str) -> None:
    """Remove the keyfile that a run which was rolled back had NetworkManager write: by the UUID in it."""
    for path in _keyfiles(root, uuid):
        path.unlink()


def _keyfiles(root: Path, uuid: str) -> list[Path]:
    """Return the keyfiles that have a UUID; a link is none of wgnet's."""
    return [
        path
        for path in sorted(_below(root, _FOLDER).glob("*.nmconnection"))
        if path.is_file()
        and not path.is_symlink()
        and f"uuid={uuid}" in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]


def _below(root: Path, path: str) -> Path:
    # Of an image, whose links lead where they do on the system that it is to be.
    return Path(path_below(str(root), path))
