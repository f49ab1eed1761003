"""Which profiles and checkpoints are wgnet's: what was rendered elsewhere, and what a killed run did not live to note.

NetworkManager is stood in for here; the real one is asked in tests/dbus and in the lab (test_faults.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wgnet.live.device import DeviceSettings
from wgnet.managers.nm_settings import Property, Setting, Settings
from wgnet.syntax.spec import Manager
from wgnet.system import profiles as profiles_module
from wgnet.system.profiles import Profiles, read_record
from wgnet.system.target import InterfaceTarget, Target

UUID = "5f3b8a52-35c1-4d51-8d0e-77a4f9d5ad01"


class Daemon:
    """A NetworkManager with these checkpoints, by path; `kept` are those that were destroyed."""

    def __init__(self, checkpoints: dict[str, list[str]]) -> None:
        self._checkpoints = checkpoints
        self.kept: list[str] = []

    def checkpoints(self) -> dict[str, list[str]]:
        return self._checkpoints

    def keep(self, path: str) -> None:
        self.kept.append(path)


def wanted() -> Target:
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=0, firewall_mark=0)
    settings = Settings((Setting("connection", (Property("uuid", "s", UUID),)),))
    mine = InterfaceTarget(
        network="corp",
        name="wg0",
        manager=Manager.NETWORKMANAGER,
        device=device,
        mtu=1420,
        active=True,
        settings=settings,
    )
    return Target(artifacts=(), interfaces=(mine,))


@pytest.mark.parametrize("there", [True, False])
def test_a_profile_that_is_right_already_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Unless it is known, its removal from the topology would leave it."""
    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: Daemon({}))
    monkeypatch.setattr("wgnet.system.nm_apply.find_profile", lambda *_: object() if there else None)
    Profiles(None, wanted(), tmp_path).adopt()  # type: ignore[arg-type]
    assert {name: each.uuid for name, each in read_record(tmp_path).items()} == ({"wg0": UUID} if there else {})


def test_a_checkpoint_that_nobody_noted_is_found_by_its_one_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon({"/noted": ["wg0"], "/ours": ["wg0"], "/wide": ["wg0", "eth0"], "/other": ["eth0"], "/all": []})
    monkeypatch.setattr(profiles_module, "NetworkManagerDaemon", lambda _: daemon)
    folder = tmp_path / "var/lib/wgnet/apply"
    folder.mkdir(parents=True)
    (folder / "checkpoints.json").write_text(json.dumps(["/noted"]))
    Profiles.keep(None, tmp_path, ["wg0"])  # type: ignore[arg-type]
    assert daemon.kept == ["/noted", "/ours"]
    assert not (folder / "checkpoints.json").exists()
