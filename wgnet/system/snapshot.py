"""What a machine was before a change, to put it back: kept on disk, since whoever changes it may be killed.

Stage: system. Input: the machine; output: a `Snapshot`, and its text as JSON. The text holds private keys: it lies in a
folder of root's alone. Must not change anything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wgnet.live.device import DeviceSettings, LiveDevice, NotADumpError, parse_dump
from wgnet.managers.artifact import Artifact
from wgnet.syntax.spec import Manager
from wgnet.system.files import Root, read_standing
from wgnet.system.links import is_up, mtu_of
from wgnet.system.manifest import Manifest
from wgnet.system.networkd import interface_of_netdev
from wgnet.system.programs import ProgramError, run_program
from wgnet.system.target import Target, parameters_of

__all__ = ["BadSnapshotError", "Owned", "Snapshot", "owned_interfaces", "take_snapshot"]

_VERSION = 2


class BadSnapshotError(Exception):
    """The text is no snapshot that this version could have written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """An interface that wgnet made: whose it is, of which network; NetworkManager's by its profile's UUID.

    Of one interface there may be two, where a run was killed in the middle: a file and a profile, or two profiles.
    """

    interface: str
    network: str
    manager: Manager
    uuid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A former state. `dump` is what `wg show all dump` printed, so it holds keys.

    `owned` are the interfaces that were wgnet's then, `made` those that the change goes to. `configured` are the
    endpoints of the files and profiles of then, `replaced` those of the change. `parameters` are values below
    /proc/sys. `profiles` are NetworkManager's by UUID, None where there was none. `up` are the interfaces that were up.
    """

    artifacts: tuple[Artifact, ...] = field(repr=False)
    dump: str = field(repr=False)
    mtus: Mapping[str, int]
    up: tuple[str, ...] = ()
    owned: tuple[Owned, ...]
    made: tuple[Owned, ...]
    configured: Mapping[str, Mapping[str, str | None]]
    replaced: Mapping[str, Mapping[str, str | None]]
    parameters: Mapping[str, str]
    profiles: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def devices(self) -> dict[str, LiveDevice]:
        """Return the devices of then."""
        return parse_dump(self.dump)

    def endpoints_to_leave(self, device: DeviceSettings) -> dict[str, str | None]:
        """Return what counts as configured on the way back to a device, so that only the change's are undone.

        Where the change has set none, the live one is left alone: the peer may have roamed since.
        """
        before, after = self.configured.get(device.name, {}), self.replaced.get(device.name, {})
        return {
            key: None if key in after and before.get(key) != after[key] else peer.endpoint
            for key, peer in device.peers.items()
        }

    def to_json(self) -> str:
        """Return the snapshot as text, with secrets."""
        return json.dumps(
            {
                "version": _VERSION,
                "artifacts": [_artifact_to_json(artifact) for artifact in self.artifacts],
                "dump": self.dump,
                "mtus": dict(self.mtus),
                "up": list(self.up),
                "owned": list(map(_owned_to_json, self.owned)),
                "made": list(map(_owned_to_json, self.made)),
                "configured": self.configured,
                "replaced": self.replaced,
                "parameters": self.parameters,
                "profiles": self.profiles,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Snapshot:
        """Return the snapshot of a text. Raises `BadSnapshotError`, which quotes nothing."""
        try:
            value = json.loads(text)
            if value["version"] != _VERSION:
                raise BadSnapshotError(f"expected version {_VERSION}")
            snapshot = cls(
                artifacts=tuple(map(_artifact_from_json, value["artifacts"])),
                dump=str(value["dump"]),
                mtus={str(name): int(mtu) for name, mtu in value["mtus"].items()},
                # Which a version before this one did not write down.
                up=tuple(map(str, value.get("up", ()))),
                owned=tuple(map(_owned_from_json, value["owned"])),
                made=tuple(map(_owned_from_json, value["made"])),
                configured=value["configured"],
                replaced=value["replaced"],
                parameters={str(name): str(text) for name, text in value["parameters"].items()},
                profiles=value["profiles"],
            )
            snapshot.devices()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, NotADumpError):
            raise BadSnapshotError("the text is damaged") from None
        return snapshot


def _artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    return {
        "path": artifact.path,
        "network": artifact.network,
        "content": base64.b64encode(artifact.content).decode(),
        "mode": artifact.mode,
        "owner": artifact.owner,
        "group": artifact.group,
        "target": artifact.target,
        "secret": artifact.secret,
    }


def _artifact_from_json(value: dict[str, Any]) -> Artifact:
    return Artifact(**{**value, "content": base64.b64decode(value["content"])})


def _owned_to_json(owned: Owned) -> dict[str, Any]:
    return {
        "interface": owned.interface,
        "network": owned.network,
        "manager": owned.manager.value,
        "uuid": owned.uuid,
    }


def _owned_from_json(value: dict[str, Any]) -> Owned:
    return Owned(
        interface=str(value["interface"]),
        network=str(value["network"]),
        manager=Manager(value["manager"]),
        uuid=None if value["uuid"] is None else str(value["uuid"]),
    )


def owned_interfaces(manifest: Manifest) -> tuple[Owned, ...]:
    """Return the interfaces of systemd-networkd that an earlier run made, by what it wrote."""
    return tuple(
        Owned(interface=name, network=entry.network, manager=Manager.NETWORKD)
        for path, entry in manifest.entries.items()
        if (name := interface_of_netdev(path)) is not None
    )


def take_snapshot(
    root: Path,
    manifest: Manifest,
    target: Target,
    *,
    owned: tuple[Owned, ...],
    made: tuple[Owned, ...],
    configured: Mapping[str, Mapping[str, str | None]],
    replaced: Mapping[str, Mapping[str, str | None]],
    profiles: Mapping[str, Any],
) -> Snapshot:
    """Return what the machine is now, as far as `target` may change it. Raises `ProgramError`, `OSError`."""
    artifacts = standing_artifacts(root, manifest)
    dump = run_program("wg", ["show", "all", "dump"], missing="wireguard-tools")
    try:
        parse_dump(dump)
    except NotADumpError as error:
        raise ProgramError(str(error)) from None
    names = {each.interface for each in (*owned, *made)}
    parameters = {**parameters_of(artifacts), **parameters_of(target.artifacts)}
    return Snapshot(
        artifacts=artifacts,
        dump=dump,
        mtus={name: mtu for name in sorted(names) if (mtu := mtu_of(name)) is not None},
        up=tuple(name for name in sorted(names) if is_up(name)),
        owned=owned,
        made=made,
        configured=configured,
        replaced=replaced,
        parameters={name: value for name in sorted(parameters) if (value := read_parameter(root, name)) is not None},
        profiles=profiles,
    )


def standing_artifacts(root: Path, manifest: Manifest) -> tuple[Artifact, ...]:
    """Return the files that stand where an earlier run wrote them, as they stand. Raises `OSError`."""
    import grp
    import os
    import pwd

    found: list[Artifact] = []
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    below = Root(descriptor, str(root))
    try:
        for path, entry in manifest.entries.items():
            folder, name = below.split(below.resolve(path), missing=True)
            standing = None if folder is None else read_standing(folder, name)
            if standing is None or standing.kind == "other":
                continue
            if standing.kind == "link":
                found.append(Artifact(path=f"/{path}", network=entry.network, target=standing.target or "", mode=0o777))
                continue
            try:
                owner, group = pwd.getpwuid(standing.uid).pw_name, grp.getgrgid(standing.gid).gr_name
            except KeyError:
                owner, group = entry.owner, entry.group
            found.append(
                Artifact(
                    path=f"/{path}",
                    network=entry.network,
                    content=standing.content or b"",
                    mode=standing.mode,
                    owner=owner,
                    group=group,
                    secret=True,
                )
            )
    finally:
        below.close()
        os.close(descriptor)
    return tuple(found)


def read_parameter(root: Path, name: str) -> str | None:
    """Return a kernel parameter's value, None where this kernel has none such."""
    try:
        return (root / "proc/sys" / name).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
