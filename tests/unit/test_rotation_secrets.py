"""Preshared keys of a host that is between two keys: each belongs to a pair of keys, so each end must take the same."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from helpers import check_texts

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.types import MasterSecret, PrivateKey
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.dispatch import Managers, key_files
from wgnet.managers.templates import Templates
from wgnet.plan.derive import Fleet
from wgnet.system.keystore import KeyStore
from wgnet.system.secrets import SecretFinder

MASTER = MasterSecret(b"\x07" * 32)
KEYS = {name: PrivateKey(bytes((number,)) * 32) for number, name in enumerate(("a0", "a1", "b0", "b1"), start=1)}
PUBLIC = {name: key.public() for name, key in KEYS.items()}


def fleet_of(manager: str = "networkd", a: str = "a0 a1", b: str = "b0 b1") -> Fleet:
    def keys(words: str) -> str:
        present, *following = words.split()
        return f"public-key: {PUBLIC[present]}" + "".join(f", next-public-key: {PUBLIC[one]}" for one in following)

    text = f"""\
wgnet: 1
network: {{name: office, subnets: [10.80.0.0/24], preshared-keys: true}}
defaults: {{all: {{manager: {manager}}}}}
hosts:
  a: {{addresses: [10.80.0.1], endpoint: 192.0.2.1, {keys(a)}}}
  b: {{addresses: [10.80.0.2], {keys(b)}}}
"""
    diagnostics, fleet = check_texts(text)
    assert fleet is not None, list(diagnostics)
    return fleet


def store_with(folder: Path, **keys: str) -> KeyStore:
    """Write a store that has these private keys and the master secret."""
    network = folder / "office"
    network.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, secret in {"_master": MASTER, **{host: KEYS[key] for host, key in keys.items()}}.items():
        path = network / f"{name}.key"
        path.write_text(f"{secret.reveal()}\n")
        path.chmod(0o600)
    return KeyStore(folder)


def find(fleet: Fleet, host: str, finder: SecretFinder) -> tuple[InterfaceSecrets, list[str]]:
    diagnostics = Diagnostics()
    (plan,) = fleet.plan_host(host).interfaces
    return finder.find(plan, diagnostics), [d.code.name for d in diagnostics]


@pytest.mark.parametrize(("a", "b"), list(itertools.product(("a0", "a1"), ("b0", "b1"))))
def test_whichever_keys_two_hosts_use_both_come_to_one_preshared_key(a: str, b: str, tmp_path: Path) -> None:
    fleet = fleet_of()
    finder = SecretFinder(store=store_with(tmp_path, a=a, b=b))
    at_a, said_a = find(fleet, "a", finder)
    at_b, said_b = find(fleet, "b", finder)
    assert said_a == said_b == []
    shared = derive_preshared_key(MASTER, PUBLIC[a], PUBLIC[b])
    assert at_a.preshared_keys[PUBLIC[b]] == at_b.preshared_keys[PUBLIC[a]] == shared
    # And with the key that the peer does not use yet, or no more.
    assert at_a.preshared_keys.keys() == {PUBLIC["b0"], PUBLIC["b1"]}


@pytest.mark.parametrize("manager", ["networkd", "networkmanager", "wg-quick"])
@pytest.mark.parametrize("a", ["a0", "a1"])
def test_files_have_the_preshared_keys_of_the_key_that_the_host_uses(manager: str, a: str, tmp_path: Path) -> None:
    fleet = fleet_of(manager)
    secrets, _ = find(fleet, "a", SecretFinder(store=store_with(tmp_path, a=a, b="b0")))
    (plan,) = fleet.plan_host("a").interfaces
    text = "".join(
        file.content.decode()
        for file in Managers(Templates()).render(plan, secrets, Diagnostics())
        if file.content is not None
    )
    other = "a1" if a == "a0" else "a0"
    for b in ("b0", "b1"):
        assert derive_preshared_key(MASTER, PUBLIC[a], PUBLIC[b]).reveal() in text
        assert derive_preshared_key(MASTER, PUBLIC[other], PUBLIC[b]).reveal() not in text


def test_a_host_is_handed_the_preshared_keys_of_both_its_keys(tmp_path: Path) -> None:
    fleet = fleet_of()
    store = store_with(tmp_path / "store", a="a0")
    (plan,) = fleet.plan_host("a").interfaces
    secrets, _ = find(fleet, "a", SecretFinder(store=store))
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    for file in key_files(plan, secrets):
        path = root / file.path[1:]
        assert file.content is not None
        path.write_bytes(file.content)
        path.chmod(file.mode)
    # It switches by itself: nobody else has to come by.
    for own in ("a0", "a1"):
        (root / "etc/wgnet/office.key").write_text(KEYS[own].reveal())
        found, said = find(fleet, "a", SecretFinder(root=root))
        assert said == []
        assert found.preshared_keys == {
            PUBLIC[b]: derive_preshared_key(MASTER, PUBLIC[own], PUBLIC[b]) for b in ("b0", "b1")
        }
    # After the end its file says still which line is for which key.
    found, _ = find(fleet_of(a="a1"), "a", SecretFinder(root=root))
    assert found.preshared_keys[PUBLIC["b0"]] == derive_preshared_key(MASTER, PUBLIC["a1"], PUBLIC["b0"])
    assert found.derived_keys == {}


def test_lines_from_before_a_rotation_are_for_the_present_key_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    psk = root / "etc/wgnet/office.psk"
    old = derive_preshared_key(MASTER, PUBLIC["a0"], PUBLIC["b0"])
    psk.write_text(f"{PUBLIC['b0']} {old.reveal()}\n")
    psk.chmod(0o600)
    for own, expected in (("a0", {PUBLIC["b0"]: old}), ("a1", {})):
        key = root / "etc/wgnet/office.key"
        key.write_text(KEYS[own].reveal())
        key.chmod(0o600)
        found, _ = find(fleet_of(), "a", SecretFinder(root=root))
        assert found.preshared_keys == expected


def test_a_host_whose_private_key_is_elsewhere_draws_a_warning(tmp_path: Path) -> None:
    store = store_with(tmp_path, b="b0")
    found, said = find(fleet_of(), "a", SecretFinder(store=store))
    assert said == [codes.KEY_IN_USE_UNKNOWN.name]
    assert found.preshared_keys[PUBLIC["b0"]] == derive_preshared_key(MASTER, PUBLIC["a0"], PUBLIC["b0"])
    _, said = find(fleet_of(a="a0"), "a", SecretFinder(store=store))
    assert said == []
