"""Profiles for the tests on a message bus: small ones, and those of every example's every host."""

from __future__ import annotations

import base64
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from example_trees import examples, read_fleet, store_of, under

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.networkmanager import describe
from wgnet.managers.nm_settings import DbusSettings, Settings
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager
from wgnet.system.keystore import KeyStore
from wgnet.system.secrets import SecretFinder

UUID = "0f2d1c5e-0000-5000-8000-000000000001"


def key(number: int) -> str:
    """Return a key that is a valid private one, and good for any other use."""
    return base64.b64encode(bytes([8, *[number] * 30, 64])).decode()


def small(*, uuid: str = UUID, interface: str = "wg0", psk: bool = True, user: str | None = None) -> DbusSettings:
    """Return a profile of one address and two peers."""
    secured: dict[str, Any] = {"preshared-key": ("s", key(3)), "preshared-key-flags": ("u", 0)} if psk else {}
    connection: dict[str, Any] = {
        "id": ("s", "office"),
        "uuid": ("s", uuid),
        "type": ("s", "wireguard"),
        "interface-name": ("s", interface),
        "autoconnect": ("b", False),
    }
    if user is not None:
        connection["permissions"] = ("as", [f"user:{user}:"])
    return {
        "connection": connection,
        "wireguard": {
            "private-key": ("s", key(1)),
            "private-key-flags": ("u", 0),
            "peers": (
                "aa{sv}",
                [
                    {"public-key": ("s", key(2)), "allowed-ips": ("as", ["10.0.0.2/32", "fd00::2/128"]), **secured},
                    {
                        "public-key": ("s", key(4)),
                        "endpoint": ("s", "192.0.2.1:51820"),
                        "persistent-keepalive": ("u", 25),
                        "allowed-ips": ("as", ["10.0.0.3/32"]),
                    },
                ],
            ),
        },
        "ipv4": {
            "method": ("s", "manual"),
            "address-data": ("aa{sv}", [{"address": ("s", "10.0.0.1"), "prefix": ("u", 24)}]),
        },
        "ipv6": {"method": ("s", "disabled")},
    }


def secrets_of(settings: DbusSettings) -> list[str]:
    """Return the secrets that a profile holds."""
    wireguard: dict[str, Any] = dict(settings["wireguard"])
    found = [wireguard[name][1] for name in ("private-key",) if name in wireguard]
    peers = wireguard.get("peers", ("", []))[1]
    return [*found, *(peer["preshared-key"][1] for peer in peers if "preshared-key" in peer)]


@dataclass(frozen=True)
class Example:
    """One interface of one host of an example, under NetworkManager."""

    name: str
    plan: InterfacePlan
    secrets: InterfaceSecrets

    @property
    def settings(self) -> Settings:
        """Its profile."""
        return describe(self.plan, self.secrets)


@functools.cache
def profiles_of(name: str) -> tuple[Example, ...]:
    """Return an example's profiles: of a single file with every host under NetworkManager, else as they are written."""
    texts = {path.name: path.read_text() for path in examples()[name]}
    if len(texts) == 1:
        texts = {file: under(Manager.NETWORKMANAGER, text)[0] for file, text in texts.items()}
    fleet, diagnostics = read_fleet(texts)
    assert not diagnostics.has_errors
    found = []
    with tempfile.TemporaryDirectory() as folder:
        finder = SecretFinder(store=KeyStore(store_of(fleet, Path(folder) / "store")))
        for host in fleet.host_names():
            for plan in fleet.plan_host(host).interfaces:
                if plan.manager is Manager.NETWORKMANAGER:
                    secrets = finder.find(plan, Diagnostics())
                    found.append(Example(name=f"{plan.network}/{host}", plan=plan, secrets=secrets))
    return tuple(found)
