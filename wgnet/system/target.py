"""What a machine is to be, all of it: files, devices, profiles. What `apply` goes to, and what it goes back to.

Stage: system. Input: plans with their artifacts and secrets; output: a `Target`. Must not touch the machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wgnet.keys.types import PrivateKey
from wgnet.live.configured import endpoints_of_netdev
from wgnet.live.device import DeviceSettings, wanted_device
from wgnet.live.wanted import KERNEL_MTU
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.nm_settings import Settings
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager
from wgnet.system.networkd import interface_of_netdev

__all__ = [
    "InterfaceTarget",
    "Target",
    "configured_endpoints",
    "keyfile_path",
    "parameters_of",
    "units_of",
]

_UNIT = re.compile(r"(?:etc|run)/systemd/system/(wgnet-[^/]+\.service)")
_SYSCTL = re.compile(r"(?:etc|run)/sysctl\.d/50-wgnet-[^/]+\.conf")
_PARAMETER = re.compile(r"^([a-z0-9_.]+) = (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceTarget:
    """One interface. `active` is false where a person brings it up; `settings` are NetworkManager's alone.

    `agent_key` is a private key that the user's agent is to keep, None where it has it already, or asks for it.
    """

    network: str
    name: str
    manager: Manager
    device: DeviceSettings
    mtu: int
    active: bool
    settings: Settings | None = None
    agent_key: PrivateKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Files and interfaces. `networks` are those that it speaks of, None for all that wgnet ever wrote here."""

    artifacts: tuple[Artifact, ...]
    interfaces: tuple[InterfaceTarget, ...]
    networks: frozenset[str] | None = None
    #: Files that are forgotten and left to NetworkManager, without the leading slash.
    disowned: tuple[str, ...] = ()

    def of(self, manager: Manager) -> tuple[InterfaceTarget, ...]:
        """Return one manager's interfaces."""
        return tuple(each for each in self.interfaces if each.manager is manager)


def interface_target(plan: InterfacePlan, secrets: InterfaceSecrets) -> InterfaceTarget:
    """Return what an interface is to be by its plan."""
    settings = None
    if plan.manager is Manager.NETWORKMANAGER:
        from wgnet.managers.networkmanager import describe

        settings = describe(plan, secrets)
    return InterfaceTarget(
        network=plan.network,
        name=plan.interface,
        manager=plan.manager,
        device=wanted_device(plan, secrets),
        mtu=plan.mtu or KERNEL_MTU,
        active=plan.autoconnect,
        settings=settings,
        agent_key=secrets.private_key if plan.private_key.kind == "agent" else None,
    )


def keyfile_path(name: str) -> str:
    """Return where `wgnet render --system` writes an interface's profile, without the leading slash."""
    return f"etc/NetworkManager/system-connections/wgnet-{name}.nmconnection"


def units_of(artifacts: Sequence[Artifact]) -> dict[str, tuple[Artifact, ...]]:
    """Return wgnet's services among files: by name the unit, and the files that it reads."""
    found: dict[str, tuple[Artifact, ...]] = {}
    for unit in artifacts:
        match = _UNIT.fullmatch(unit.path.removeprefix("/"))
        if match and unit.target is None:
            text = unit.content.decode(errors="replace")
            read = [each for each in artifacts if each.path.endswith(".nft") and f" {each.path}" in text]
            found[match[1]] = (unit, *read)
    return found


def parameters_of(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Return the kernel parameters that files of sysctl.d set: values by path below /proc/sys."""
    found: dict[str, str] = {}
    for artifact in artifacts:
        if _SYSCTL.fullmatch(artifact.path.removeprefix("/")) and artifact.target is None:
            for name, value in _PARAMETER.findall(artifact.content.decode(errors="replace")):
                found[name.replace(".", "/")] = value
    return found


def configured_endpoints(artifacts: Sequence[Artifact]) -> dict[str, Mapping[str, str | None]]:
    """Return what files of systemd-networkd configure as endpoints: by interface, then by public key."""
    found: dict[str, Mapping[str, str | None]] = {}
    for artifact in artifacts:
        name = interface_of_netdev(artifact.path.removeprefix("/"))
        if name is not None:
            found[name] = endpoints_of_netdev(artifact.content.decode(errors="replace"))
    return found
