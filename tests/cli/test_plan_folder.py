"""`wgnet plan -o DIR`: what `render -o DIR` would change. What `apply` would, on a machine, the lab shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.command import wgnet

TOPOLOGY = """\
wgnet: 1
network: {name: pair, subnets: [10.90.0.0/24], preshared-keys: true}
hosts:
  hub: {addresses: [10.90.0.1], endpoint: hub.example.net}
  desk: {addresses: [10.90.0.2], manager: networkmanager}
"""
NETDEV = "out/hub/etc/systemd/network/50-wgnet-pair.netdev"
PROFILE = "out/desk/etc/NetworkManager/system-connections/wgnet-pair.nmconnection"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    (tmp_path / "pair.yaml").write_text(TOPOLOGY)
    assert wgnet("keys", "generate", "--keys", "keys", "pair.yaml", cwd=tmp_path).status == 0
    return tmp_path


def _plan(folder: Path, *words: str) -> tuple[int, str]:
    done = wgnet("plan", "--keys", "keys", "-o", "out", "--exit-code", *words, "pair.yaml", cwd=folder)
    assert done.err == ""
    return done.status, done.out


def _files(folder: Path, *words: str) -> dict[str, str]:
    _, out = _plan(folder, "--format", "json", *words)
    said = json.loads(out)
    assert (said["version"], said["changes"], said["profiles"], said["costs"]) == (1, [], [], [])
    return {each["path"]: each["change"] for each in said["files"]}


def test_all_files_are_new_and_none_is_written(pair: Path) -> None:
    found = _files(pair)
    assert set(found.values()) == {"add"}
    assert not (pair / "out").exists()
    assert wgnet("render", "--keys", "keys", "-o", "out", "pair.yaml", cwd=pair).status == 0
    assert set(found) == {str(each.relative_to(pair)) for host in ("hub", "desk") for each in _written(pair, host)}
    assert _plan(pair) == (0, "nothing to do\n")


def _written(folder: Path, host: str) -> list[Path]:
    return [each for each in (folder / "out" / host).rglob("*") if each.is_file() and each.name != "manifest.json"]


def test_what_differs_is_shown_and_no_secret(pair: Path) -> None:
    status, out = _plan(pair)
    assert status == 3
    assert f"+++ {NETDEV}\n" in out
    # The private keys, in their files and in the profile, and the link's preshared key at both ends.
    assert out.count("(hidden)") == 7
    secrets = [
        word
        for each in (pair / "keys").rglob("*.key")
        for word in each.read_text().split()
        if not word.startswith("#") and len(word) == 44
    ]
    assert secrets
    assert not [word for word in secrets if word in out]


def test_a_change_of_one_line_is_that_line(pair: Path) -> None:
    wgnet("render", "--keys", "keys", "-o", "out", "pair.yaml", cwd=pair)
    topology = pair / "pair.yaml"
    topology.write_text(TOPOLOGY.replace("hub.example.net", "hub.example.net, keepalive: 20"))
    keyed = wgnet("keys", "generate", "--keys", "keys", "pair.yaml", cwd=pair)
    assert keyed.status == 0
    status, out = _plan(pair)
    assert status == 3
    assert [line for line in out.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "+PersistentKeepalive=20"
    ]
    assert _files(pair) == {NETDEV: "change"}
    assert _files(pair, "--host", "desk") == {}


def test_a_host_that_changes_managers_loses_files_and_gains_some(pair: Path) -> None:
    wgnet("render", "--keys", "keys", "-o", "out", "pair.yaml", cwd=pair)
    topology = pair / "pair.yaml"
    topology.write_text(topology.read_text().replace("manager: networkmanager", "manager: networkd"))
    found = _files(pair)
    assert found[PROFILE] == "remove"
    assert found["out/desk/etc/systemd/network/50-wgnet-pair.netdev"] == "add"
    assert (pair / PROFILE).exists()


def test_an_unknown_host_is_an_error(pair: Path) -> None:
    done = wgnet("plan", "--keys", "keys", "-o", "out", "--host", "hbu", "pair.yaml", cwd=pair)
    assert done.status == 1
    assert "did you mean 'hub'" in done.err


def test_another_root_is_no_machine(pair: Path) -> None:
    done = wgnet("plan", "--root", "/mnt", "pair.yaml", cwd=pair)
    assert done.status == 2
    assert "plan -o DIR" in done.err
