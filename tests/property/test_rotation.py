"""Rotations of keys, every mix of hosts that have a step and hosts that do not: whoever could talk before talks still.

The texts, the plans, the preshared keys, what `apply` changes and what `refresh` does are wgnet's own; the devices that
they meet are `wireguard.py`'s. Every pair of neighbouring states of a network is tried with every host on either side
of it, whoever of the two speaks, with and without keepalives, endpoints and reboots.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import check_texts

from property.wireguard import Device, World
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.types import MasterSecret, PresharedKey, PrivateKey
from wgnet.live.device import DeviceSettings, wanted_device
from wgnet.live.refresh import (
    DeviceMemory,
    observe,
    refresh_endpoints,
    refresh_keys,
    refresh_preshared_keys,
    wanting_peers,
)
from wgnet.managers.base import InterfaceSecrets
from wgnet.plan.types import InterfacePlan
from wgnet.system.secrets import SecretFinder

MASTER = MasterSecret(b"\x07" * 32)
KEYS = {name: PrivateKey(bytes((number,)) * 32) for number, name in enumerate(("a0", "a1", "b0", "b1"), start=1)}
PUBLIC = {name: key.public() for name, key in KEYS.items()}
ADDRESS = {"a": "10.80.0.1", "b": "10.80.0.2"}
AT = {"a": "192.0.2.1:51820", "b": "192.0.2.2:51820"}
#: Seconds between two looks, as the timer has it.
PERIOD_S = 30
#: After so many looks whoever talks at all must talk: an answer missed, a key asked, AllowedIPs moved, each way.
LOOKS = 12


@dataclass(frozen=True)
class State:
    """A state of the topology and the private keys: of each host its keys in the file, and which it uses."""

    a: str
    b: str
    a_uses: str
    b_uses: str


def states(*steps: str) -> list[State]:
    """Return the states that a network goes through by steps, such as "a prepare" or "ab switch"."""
    files, uses = {"a": "a0", "b": "b0"}, {"a": "a0", "b": "b0"}
    found = [State(files["a"], files["b"], uses["a"], uses["b"])]
    for step in steps:
        hosts, verb = step.split()
        for host in hosts:
            if verb == "prepare":
                files[host] = f"{host}0 {host}1"
            elif verb == "switch":
                uses[host] = f"{host}1"
            else:
                files[host] = f"{host}1"
        found.append(State(files["a"], files["b"], uses["a"], uses["b"]))
    return found


ALONE = states("a prepare", "a switch", "a finish")
TOGETHER = states("ab prepare", "ab switch", "ab finish")
IN_TURN = states("a prepare", "b prepare", "a switch", "b switch", "a finish", "b finish")
STEPS = sorted({(old, new) for way in (ALONE, TOGETHER, IN_TURN) for old, new in itertools.pairwise(way)}, key=repr)


@dataclass(frozen=True)
class Shape:
    """What the two hosts are: who has an endpoint, whether keepalives are sent, who speaks, who reboots."""

    endpoints: str
    keepalive: int
    speakers: str
    reboots: str


SHAPES = [
    Shape(*parts) for parts in itertools.product(("a", "b", "ab"), (0, 25), ("a", "b", "ab"), ("", "a", "b", "ab"))
]


@functools.cache
def plan_of(state: State, host: str, endpoints: str, keepalive: int) -> InterfacePlan:
    lines = []
    for name, words in (("a", state.a), ("b", state.b)):
        present, *following = words.split()
        parts = [f"addresses: [{ADDRESS[name]}]", f"public-key: {PUBLIC[present]}", f"keepalive: {keepalive}"]
        parts += [f"next-public-key: {PUBLIC[one]}" for one in following]
        parts += [f"endpoint: {AT[name].partition(':')[0]}"] if name in endpoints else []
        lines.append(f"  {name}: {{{', '.join(parts)}}}")
    text = "wgnet: 1\nnetwork: {name: office, subnets: [10.80.0.0/24], preshared-keys: true}\nhosts:\n"
    diagnostics, fleet = check_texts(text + "\n".join(lines) + "\n")
    assert fleet is not None, list(diagnostics)
    (plan,) = fleet.plan_host(host).interfaces
    return plan


class Finder(SecretFinder):
    """The key store of one state, without a disk."""

    def __init__(self, state: State) -> None:
        super().__init__(store=self)  # type: ignore[arg-type]
        self._uses = {"a": state.a_uses, "b": state.b_uses}

    def private_key(self, network: str, host: str, diagnostics: Diagnostics) -> PrivateKey:
        del network, diagnostics
        return KEYS[self._uses[host]]

    def host_path(self, network: str, host: str) -> Path:
        return Path(network, host)

    def master(self, network: str, diagnostics: Diagnostics) -> MasterSecret:
        del network, diagnostics
        return MASTER


@functools.cache
def secrets_of(state: State, host: str, endpoints: str, keepalive: int) -> InterfaceSecrets:
    diagnostics = Diagnostics()
    found = Finder(state).find(plan_of(state, host, endpoints, keepalive), diagnostics)
    assert not list(diagnostics)
    return found


@functools.cache
def wanted_of(state: State, host: str, endpoints: str, keepalive: int) -> DeviceSettings:
    secrets = secrets_of(state, host, endpoints, keepalive)
    return wanted_device(plan_of(state, host, endpoints, keepalive), secrets)


class Fleet:
    """Two hosts, each in a state of its own."""

    def __init__(self, state: State, shape: Shape) -> None:
        self.shape = shape
        self.state = {"a": state, "b": state}
        self.memory = {"a": DeviceMemory(), "b": DeviceMemory()}
        self.world = World({AT[host]: Device(AT[host], KEYS["a0"], "") for host in "ab"})
        for host in "ab":
            self.device(host).reboot(self._wanted(host))

    def device(self, host: str) -> Device:
        return self.world.devices[AT[host]]

    def _wanted(self, host: str) -> DeviceSettings:
        return wanted_of(self.state[host], host, self.shape.endpoints, self.shape.keepalive)

    def apply(self, host: str, state: State) -> None:
        self.state[host] = state
        self.world.apply(self.device(host), self._wanted(host))

    def reboot(self, host: str) -> None:
        self.device(host).reboot(self._wanted(host))
        self.memory[host] = DeviceMemory()

    def refresh(self, host: str) -> None:
        plan = plan_of(self.state[host], host, self.shape.endpoints, self.shape.keepalive)
        secrets = secrets_of(self.state[host], host, self.shape.endpoints, self.shape.keepalive)
        device, former, now = self.device(host), self.memory[host], self.world.now
        live = device.live()
        conditions, memory = observe(live, former, now)
        todo = list(refresh_preshared_keys(plan, live, secrets.derived_keys))
        more, memory = refresh_keys(plan, live, conditions, memory, now, former.public_key)
        wanting = wanting_peers(plan, conditions, memory, now)
        moved, self.memory[host] = refresh_endpoints(live, wanting, memory, {}, now)
        for each in (*todo, *more, *moved):
            self.world.set(device, [one for one in (each.change, each.restored) if one is not None])

    def talk(self, speakers: str) -> bool:
        """Let hosts speak; return whether each packet arrives, and the answer to it."""
        arrived = True
        for host in speakers:
            other = "b" if host == "a" else "a"
            there = self.world.send(self.device(host), ADDRESS[host], ADDRESS[other])
            back = there and self.world.send(self.device(other), ADDRESS[other], ADDRESS[host])
            arrived = arrived and there and back
        return arrived

    def settle(self, speakers: str = "") -> bool:
        """Let time pass until packets of those who speak arrive twice in a row; return whether they ever do."""
        before = False
        for _ in range(LOOKS):
            self.world.now += PERIOD_S
            self.world.keep_alive()
            arrived = self.talk(speakers or self.shape.speakers)
            for host in "ab":
                self.refresh(host)
            if arrived and before:
                return True
            before = arrived
        return False


@functools.cache
def talks_without_rotation(shape: Shape) -> bool:
    """Whether two hosts of this shape would talk, had nobody touched a key: one may know no endpoint after a reboot."""
    fleet = Fleet(ALONE[0], shape)
    assert fleet.settle(speakers="ab")
    for host in shape.reboots:
        fleet.reboot(host)
    return fleet.settle()


def mixes() -> Iterator[tuple[bool, bool]]:
    yield from itertools.product((False, True), repeat=2)


@pytest.mark.parametrize(("old", "new"), STEPS, ids=lambda state: f"{state.a},{state.b},{state.a_uses}{state.b_uses}")
def test_hosts_on_either_side_of_a_step_talk_as_they_would_without_it(old: State, new: State) -> None:
    tried = 0
    for shape, mix in itertools.product(SHAPES, mixes()):
        if not talks_without_rotation(shape):
            continue
        fleet = Fleet(old, shape)
        assert fleet.settle(speakers="ab")  # so that each end knows where the other one is
        for host, changed in zip("ab", mix, strict=True):
            if changed:
                fleet.apply(host, new)
        for host in shape.reboots:
            fleet.reboot(host)
        assert fleet.settle(), (shape, mix)
        tried += 1
    assert tried > 200


@pytest.mark.parametrize("way", [ALONE, TOGETHER, IN_TURN], ids=["alone", "together", "in turn"])
def test_a_rotation_that_is_applied_host_by_host_never_parts_them(way: list[State]) -> None:
    for shape, order in itertools.product(SHAPES, ("ab", "ba")):
        if not talks_without_rotation(shape) or shape.reboots:
            continue
        fleet = Fleet(way[0], shape)
        assert fleet.settle(speakers="ab")
        for state in way[1:]:
            for host in order:
                fleet.apply(host, state)
                assert fleet.settle(), (shape, order, state)
        assert fleet.device("a").public_key == PUBLIC["a1"]
        assert set(fleet.device("b").peers) == {PUBLIC["a1"]}


def test_a_step_that_is_left_out_parts_them() -> None:
    """What the steps are for: a host that switches before its peers know its next key is heard by nobody."""
    shape = Shape("ab", 25, "ab", "")
    fleet = Fleet(ALONE[0], shape)
    assert fleet.settle()
    fleet.apply("a", ALONE[2])
    assert not fleet.settle()
    # And one whose peers have forgotten its old key before it has applied the switch.
    fleet = Fleet(ALONE[1], shape)
    assert fleet.settle()
    fleet.apply("b", ALONE[3])
    assert not fleet.settle()


def test_preshared_keys_are_needed_for_each_pair_of_keys() -> None:
    seen: set[tuple[str, str]] = set()
    for state in {*ALONE, *TOGETHER, *IN_TURN}:
        for host in "ab":
            secrets = secrets_of(state, host, "ab", 25)
            own = getattr(state, f"{host}_uses")
            for public, shared in secrets.preshared_keys.items():
                assert isinstance(shared, PresharedKey)
                assert shared == derive_preshared_key(MASTER, PUBLIC[own], public)
                seen.add((own, next(name for name, key in PUBLIC.items() if key == public)))
    assert seen >= set(itertools.product(("a0", "a1"), ("b0", "b1")))
