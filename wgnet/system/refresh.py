"""Runs `wgnet refresh`: reads the live devices, finds names, changes single peers, and remembers.

Stage: system. Input: plans; output: what was done. What is to be done is `wgnet.live.refresh`'s. Must not change an
interface while another wgnet does: wg(8) would make a peer anew that was removed a moment ago.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from wgnet.keys.host import OwnPresharedKeys
from wgnet.live.device import LiveDevice
from wgnet.live.refresh import (
    Condition,
    DeviceMemory,
    PeerMemory,
    Refreshment,
    find_candidates,
    observe,
    refresh_endpoints,
    refresh_keys,
    refresh_preshared_keys,
    wanting_peers,
)
from wgnet.plan.types import InterfacePlan
from wgnet.system.names import NameFinder, find_unroutable
from wgnet.system.programs import ProgramError
from wgnet.system.wireguard import read_devices, set_peers

__all__ = ["Memory", "MemoryFile", "Refresher", "Report"]

#: Gone after a reboot, as the counters are.
MEMORY = Path("/run/wgnet/refresh.json")
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What runs tell each other: of devices by name, and the addresses that names had last."""

    devices: Mapping[str, DeviceMemory] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the memory as text."""
        devices = {
            name: {
                "public_key": device.public_key,
                "peers": {
                    key: {
                        "sent": peer.sent,
                        "received": peer.received,
                        "heard_at": peer.heard_at,
                        "heard_sent": peer.heard_sent,
                        "stale_sent": peer.stale_sent,
                        "tried": peer.tried,
                        "tried_at": peer.tried_at,
                    }
                    for key, peer in device.peers.items()
                },
            }
            for name, device in self.devices.items()
        }
        return json.dumps({"version": _VERSION, "devices": devices, "names": {**self.names}})

    @classmethod
    def from_json(cls, text: str) -> Memory:
        """Return the memory in a text; an empty one where the text is not understood: it is only a memory."""
        try:
            found = json.loads(text)
            if found["version"] != _VERSION:
                return cls()
            return cls(
                devices={
                    str(name): DeviceMemory(
                        public_key=None if device["public_key"] is None else str(device["public_key"]),
                        peers={str(key): _peer_memory(peer) for key, peer in device["peers"].items()},
                    )
                    for name, device in found["devices"].items()
                },
                names={str(name): [str(each) for each in addresses] for name, addresses in found["names"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()


def _peer_memory(found: Mapping[str, object]) -> PeerMemory:
    stale, tried = found["stale_sent"], found["tried"]
    if not isinstance(tried, list):
        raise TypeError
    return PeerMemory(
        sent=_number(found["sent"]),
        received=_number(found["received"]),
        heard_at=_number(found["heard_at"]),
        heard_sent=_number(found["heard_sent"]),
        stale_sent=None if stale is None else _number(stale),
        tried=tuple(str(each) for each in tried),
        tried_at=_number(found["tried_at"]),
    )


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFile:
    """Where the memory lies. That it cannot be read or written only makes runs forgetful."""

    path: Path = MEMORY

    def read(self) -> Memory:
        """Return the memory."""
        try:
            return Memory.from_json(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return Memory()

    def write(self, memory: Memory) -> None:
        """Replace the memory in one step."""
        try:
            self.path.parent.mkdir(mode=0o755, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=".refresh-")
        except OSError:
            return
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(memory.to_json())
            Path(name).replace(self.path)
        except OSError:
            Path(name).unlink(missing_ok=True)


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did. `done` and `failed` have the interface; `failed` also wg(8)'s words. `rotating`: to look again.

    `waiting` are the interfaces and peers that do not answer and have no other endpoint to try, `unresolved` peers and
    their names that have no address. `alone` is false where another wgnet changes the machine: nothing was done.
    """

    done: list[tuple[str, Refreshment]] = field(default_factory=list)
    failed: list[tuple[str, Refreshment, str]] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    unresolved: list[tuple[str, str]] = field(default_factory=list)
    rotating: bool = False
    alone: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresher:
    """One run after the other over some interfaces.

    `derived` are the derived preshared keys, by interface, of networks in which the host itself is between two keys.
    `lock` keeps others from changing the machine; it yields whether it does.
    """

    plans: Sequence[InterfacePlan]
    derived: Mapping[str, OwnPresharedKeys]
    lock: Callable[[], AbstractContextManager[bool]]
    memory: MemoryFile = field(default_factory=MemoryFile)

    def run(self, *, dry: bool) -> Report:
        """Do what is to be done now. Raises `ProgramError` where the devices cannot be read, and `OSError`."""
        names, mark, tunnels = self._names_to_find()
        known = self.memory.read().names
        # Servers may take their time: meanwhile anybody else may do his work.
        found = NameFinder(tunnels=tunnels, mark=mark).find(names, known) if names else {}
        report = Report()
        with self.lock() as alone:
            if not alone:
                report.alone = False
                return report
            memory = self.memory.read()
            devices = read_devices()
            kept = dict(memory.devices)
            addresses = {**memory.names, **found}
            for plan in self.plans:
                device = devices.get(plan.interface)
                if device is not None:
                    former = memory.devices.get(plan.interface, DeviceMemory())
                    kept[plan.interface] = self._refresh(plan, device, former, addresses, report, dry)
            if not dry:
                self.memory.write(Memory(devices={n: kept[n] for n in kept if n in devices}, names=addresses))
        return report

    def _names_to_find(self) -> tuple[list[str], int, list[str]]:
        """Return the names that peers need now, the mark of the tunnels' packets, and the tunnels."""
        memory, devices, now = self.memory.read(), read_devices(), int(time.time())
        names: list[str] = []
        for plan in self.plans:
            device = devices.get(plan.interface)
            if device is None:
                continue
            former = memory.devices.get(plan.interface, DeviceMemory())
            conditions, kept = observe(device, former, now, _unroutable(device, former, now))
            for peer, _ in wanting_peers(plan, conditions, kept, now):
                names += [each.host for each in peer.endpoints if each.address is None]
        mark = next((device.firewall_mark for device in devices.values() if device.firewall_mark), 0)
        return list(dict.fromkeys(names)), mark, list(devices)

    def _refresh(
        self,
        plan: InterfacePlan,
        device: LiveDevice,
        former: DeviceMemory,
        addresses: Mapping[str, Sequence[str]],
        report: Report,
        dry: bool,
    ) -> DeviceMemory:
        now = int(time.time())
        conditions, memory = observe(device, former, now, _unroutable(device, former, now))
        todo = list(refresh_preshared_keys(plan, device, self.derived.get(plan.interface, {})))
        keys, memory = refresh_keys(plan, device, conditions, memory, now, former.public_key)
        todo += keys
        wanting = wanting_peers(plan, conditions, memory, now)
        candidates = {each for peer, _ in wanting for each in find_candidates(peer, addresses)}
        unroutable = find_unroutable(candidates, device.firewall_mark)
        moved, memory = refresh_endpoints(device, wanting, memory, addresses, now, unroutable)
        todo += moved
        changed = {each.change.public_key for each in todo}
        for peer, key in wanting:
            report.unresolved += [
                (peer.name, each.host)
                for each in peer.endpoints
                if each.address is None and not addresses.get(each.host)
            ]
            if key not in changed:
                report.waiting.append((plan.interface, peer.name))
        report.rotating = report.rotating or plan.host.next_public_key is not None
        report.rotating = report.rotating or any(peer.next_public_key is not None for peer in plan.peers)
        for group in _groups(todo):
            failure = None if dry else _set(plan.interface, group)
            if failure is None:
                report.done += [(plan.interface, each) for each in group]
            else:
                report.failed += [(plan.interface, each, failure) for each in group]
        return memory


def _groups(todo: Sequence[Refreshment]) -> Iterator[list[Refreshment]]:
    """Yield what goes into one call: all that cannot fail; an endpoint's family may be one that the host lacks."""
    for together in ("preshared-key", "allowed-ips", "handshake"):
        group = [each for each in todo if each.what == together and each.change.endpoint is None]
        if group:
            yield group
    for each in todo:
        if each.change.endpoint is not None:
            yield [each]


def _set(interface: str, group: Sequence[Refreshment]) -> str | None:
    """Make changes; return wg(8)'s words where it fails. What is to be restored is restored then too."""
    failure = None
    for changes in ([each.change for each in group], [each.restored for each in group if each.restored is not None]):
        try:
            if changes:
                set_peers(interface, changes)
        except ProgramError as error:
            failure = failure or str(error)
    return failure


def _unroutable(device: LiveDevice, memory: DeviceMemory, now: int) -> frozenset[str]:
    """Return the endpoints without a route, of the peers that have not answered lately alone."""
    conditions, _ = observe(device, memory, now)
    stale = {
        live.endpoint
        for key, live in device.peers.items()
        if live.endpoint is not None and conditions[key] is not Condition.FRESH
    }
    return find_unroutable(stale, device.firewall_mark)
