"""Which of NetworkManager's profiles are wgnet's, root's part: what the real daemon has follows the topologies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from realparsers.bus import BusHost

from wgnet.cli.context import Context
from wgnet.cli.machine import plan_machine
from wgnet.cli.main import main
from wgnet.cli.parser import build_parser
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.syntax.spec import Manager
from wgnet.system import profiles as profiles_module
from wgnet.system.dbus import Bus
from wgnet.system.nm import NetworkManagerDaemon
from wgnet.system.profiles import Profiles, read_record
from wgnet.system.snapshot import Owned, Snapshot

HUB = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="

Apply = Callable[..., Snapshot]


def topology(name: str, interface: str = "wg0", number: int = 80) -> str:
    """Return a network whose profile stays down: this machine's kernel may have no WireGuard."""
    return (
        f"wgnet: 1\nnetwork:\n  name: {name}\n  interface: {interface}\n  subnets: [10.{number}.0.0/24]\n"
        f"  listen-port: {number}\npeering: {{hub: fra}}\nhosts:\n"
        f'  fra: {{addresses: [10.{number}.0.1], endpoint: 192.0.2.1, public-key: "{HUB}"}}\n'
        f"  laptop: {{addresses: [10.{number}.0.2], manager: networkmanager, autoconnect: false}}\n"
    )


@pytest.fixture
def apply(bus: Bus, daemon: BusHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apply:
    """Bring NetworkManager's profiles to topologies, as `wgnet apply` does; return what it could go back to."""
    monkeypatch.setattr(profiles_module, "read_devices", dict)
    for folder in ("root/etc/NetworkManager", "keys"):
        (tmp_path / folder).mkdir(parents=True, mode=0o700)
    # The daemon's own folder, out of this root, where no link of an image would lead.
    (tmp_path / "root/etc/NetworkManager/system-connections").symlink_to(daemon.connections)
    monkeypatch.setattr(profiles_module, "path_below", lambda root, path: f"{root}/{path}")

    def run(*texts: str, named: bool = True) -> Snapshot:
        files: Sequence[Path] = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
            assert main(["keys", "generate", str(file), "--host", "laptop", "--keys", str(tmp_path / "keys")]) == 0
        words = ["apply", *map(str, files), "--host", "laptop", "--keys", str(tmp_path / "keys")]
        context = Context.of(build_parser(words).parse_args([*words, "--root", str(tmp_path / "root")]))
        fleet = context.read_fleet()
        assert fleet is not None
        if not named:
            context.options.files = []
        plan = plan_machine(context, fleet, bus)
        assert plan is not None, list(context.diagnostics)
        profiles = Profiles(bus, plan.target, tmp_path / "root")
        snapshot = Snapshot(
            artifacts=(),
            dump="",
            mtus={},
            owned=profiles.owned(),
            made=tuple(
                Owned(
                    interface=each.name,
                    network=each.network,
                    manager=Manager.NETWORKMANAGER,
                    uuid=each.settings.uuid,
                )
                for each in plan.target.interfaces
                if each.settings is not None
            ),
            configured={},
            replaced={},
            parameters={},
            profiles=profiles.save(),
        )
        profiles.apply(snapshot, Diagnostics())
        return Snapshot.from_json(snapshot.to_json())

    return run


def profiles_of(daemon: BusHost) -> set[str]:
    """Return the names in NetworkManager's keyfiles."""
    lines = [line for content in daemon.keyfiles().values() for line in content.decode().splitlines()]
    return {line.removeprefix("id=") for line in lines if line.startswith("id=")}


def record(tmp_path: Path) -> dict[str, str]:
    return {each.interface: each.network for each in read_record(tmp_path / "root").values()}


def test_a_network_that_is_renamed_leaves_no_profile(apply: Apply, bus: Bus, daemon: BusHost, tmp_path: Path) -> None:
    """It has another UUID, and the same interface: both would come up at boot, the one or the other."""
    apply(topology("corp"), named=False)
    before = daemon.keyfiles()
    assert profiles_of(daemon) == {"corp"}
    snapshot = apply(topology("firm"), named=False)
    assert profiles_of(daemon) == {"firm"}
    assert record(tmp_path) == {"wg0": "firm"}
    # And back, to the byte.
    Profiles.restore(bus, snapshot, Diagnostics(), tmp_path / "root")
    assert daemon.keyfiles() == before
    assert record(tmp_path) == {"wg0": "corp"}


def test_a_network_that_is_not_named_keeps_its_profile(apply: Apply, daemon: BusHost, tmp_path: Path) -> None:
    apply(topology("corp"))
    apply(topology("firm", "wg1"))
    assert profiles_of(daemon) == {"corp", "firm"}
    assert record(tmp_path) == {"wg0": "corp", "wg1": "firm"}


def test_two_networks_exchange_their_interfaces(apply: Apply, bus: Bus, daemon: BusHost, tmp_path: Path) -> None:
    apply(topology("corp"), topology("firm", "wg1", 81))
    before = daemon.keyfiles()
    snapshot = apply(topology("corp", "wg1"), topology("firm", "wg0", 81))
    assert profiles_of(daemon) == {"corp", "firm"}
    assert record(tmp_path) == {"wg1": "corp", "wg0": "firm"}
    Profiles.restore(bus, snapshot, Diagnostics(), tmp_path / "root")
    assert daemon.keyfiles() == before
    assert record(tmp_path) == {"wg0": "corp", "wg1": "firm"}


@pytest.mark.parametrize("lasting", [True, False], ids=["in /etc", "until the next boot"])
def test_a_boot_finds_the_files_of_before(
    apply: Apply, nm: NetworkManagerDaemon, daemon: BusHost, tmp_path: Path, lasting: bool
) -> None:
    """Before NetworkManager runs: of a profile that no boot would have had, what is not confirmed does not stay."""
    apply(topology("corp"))
    [profile] = [each for each in nm.profiles() if each.type == "wireguard"]
    if not lasting:
        nm.update(profile.path, nm.settings_with_secrets(profile.path), in_memory=True)
    before = daemon.keyfiles()
    assert bool(before) is lasting
    snapshot = apply(topology("corp").replace("autoconnect: false", "autoconnect: false, mtu: 1300"))
    assert b"mtu=1300" in b"".join(daemon.keyfiles().values())
    # Of no profile, and no reason to stop in the middle.
    other = daemon.connections / "other.nmconnection"
    other.mkdir()
    Profiles.restore_files(snapshot, tmp_path / "root")
    other.rmdir()
    assert daemon.keyfiles() == before
