"""Every example's files, taken by the managers themselves: the real parsers of each version that is there.

networkd loads each tree in namespaces of its own, keyfiles go through nmcli and the daemon, .conf files through
wg-quick, what stands beside them through nft, systemd-analyze and the kernel's own list of parameters. Nothing may be
said. A credential is the service manager's to give, so a key stands in for it.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from example_trees import Tree, examples, render
from realparsers import (
    audit_netdev,
    available,
    install,
    lint_keyfile,
    lint_networkd_many,
    lint_nft,
    lint_sysctl,
    lint_unit,
    lint_wg_quick,
    load_keyfiles,
    too_new,
)
from test_golden import variant, variants

from wgnet.managers.artifact import Artifact
from wgnet.record import replace

VERSIONS = available()


KEY = base64.b64encode(b"a key that was agreed elsewhere."[:32])
CREDENTIAL = re.compile(rb"^((?:Private|Preshared)Key=)@.*$", re.MULTILINE)


def without_credentials(files: list[Artifact]) -> list[Artifact]:
    """Return the files with a key in the place of every credential."""
    return [replace(artifact, content=CREDENTIAL.sub(rb"\g<1>" + KEY, artifact.content)) for artifact in files]


def on_the_host(files: list[Artifact]) -> list[Artifact]:
    """Return the key files that the topology says are on the host already: a provider's preshared key, say."""
    named = {
        path
        for artifact in files
        for path in re.findall(r"^(?:Private|Preshared)KeyFile=(.*)$", artifact.content.decode(), re.MULTILINE)
    }
    return [
        Artifact(path=path, network="", content=KEY + b"\n", mode=0o640, group="systemd-network", secret=True)
        for path in sorted(named - {artifact.path for artifact in files})
    ]


def lint(tree: Tree, folder: Path, version: str) -> list[str]:
    """Return all that the managers of one version say about the files of some hosts."""
    hosts = {}
    for name, files in tree.files.items():
        if files:
            hosts[name] = install([*without_credentials(files), *on_the_host(files)], folder / name)
    assert hosts
    said: list[str] = []
    networkd = [root for root in hosts.values() if list(root.glob("etc/systemd/network/*"))]
    for found in lint_networkd_many(networkd, version=version).values():
        said += found
    keyfiles = {root: list(root.glob("etc/NetworkManager/system-connections/*")) for root in hosts.values()}
    for root, paths in keyfiles.items():
        for path in paths:
            said += lint_keyfile(path, version)
        for path in root.glob("etc/wireguard/*.conf"):
            said += lint_wg_quick(path, version=version)
    # Last, since the test ends there without root: what the others said must not be lost.
    assert said == []
    for root, paths in keyfiles.items():
        if paths:
            loaded = load_keyfiles(root, version=version)
            assert {Path(path).name for path in loaded.profiles} == {path.name for path in paths}
            said += loaded.messages
    return said


def lint_beside(tree: Tree, folder: Path) -> list[str]:
    """Return what the tools of this machine say, and which keys the oldest supported versions lack."""
    said: list[str] = []
    for name, files in tree.files.items():
        root = install(without_credentials(files), folder / name)
        said += too_new(root, networkd=249, nm="1.36")
        for path in root.glob("etc/systemd/network/*.netdev"):
            said += audit_netdev(path)
        for path in root.glob("etc/wgnet/nftables/**/*.nft"):
            said += lint_nft(path)
        for path in root.glob("etc/sysctl.d/*.conf"):
            said += lint_sysctl(path)
        for path in root.glob("etc/systemd/system/*.service"):
            said += lint_unit(path)
    return said


def own(name: str, folder: Path) -> Tree:
    return render({path.name: path.read_text() for path in examples()[name]}, folder)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", examples())
def test_managers_take_every_file_without_a_word(name: str, version: str, tmp_path: Path) -> None:
    assert lint(own(name, tmp_path / "made"), tmp_path / "hosts", version) == []


@pytest.mark.parametrize(("name", "manager"), variants(), ids=lambda value: getattr(value, "value", value))
def test_other_managers_take_every_file_without_a_word(name: str, manager: object, tmp_path: Path) -> None:
    tree = variant(name, manager, tmp_path / "made")  # type: ignore[arg-type]
    if tree is not None and any(tree.files.values()):
        assert lint(tree, tmp_path / "hosts", "installed") == []


@pytest.mark.parametrize("name", examples())
def test_what_stands_beside_is_sound_and_nothing_is_too_new(name: str, tmp_path: Path) -> None:
    tree = own(name, tmp_path / "made")
    assert lint_beside(tree, tmp_path / "hosts") == []
