"""Private keys that are to lie where another file goes: refused, since one of both would be lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.command import KEYLESS, wgnet
from helpers import codes_of

LAB = (
    KEYLESS.replace("    advertise: [192.168.10.0/24]\n", "")
    .replace("name: office, interface: wg0", "name: lab, interface: wg1, listen-port: 51821")
    .replace("10.80", "10.81")
)


def keeping(text: str, path: str) -> str:
    return text.replace("  fra:\n", f"  fra:\n    private-key: {{file: {path}}}\n")


@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        "/etc/wgnet",
        "/etc/wgnet/office.psk",
        "/etc/wgnet/nftables/wg0.nft",
        "/etc/systemd/network",
        "/etc/systemd/network/50-wgnet-wg0.netdev",
        "/etc/systemd/network/50-wgnet-wg0.netdev/key",
        "/run/systemd/network/50-wgnet-wg0.network",
        "/etc/systemd/system/multi-user.target.wants/key",
        "/etc/NetworkManager/system-connections/wgnet-wg0.nmconnection",
        "/etc/systemd/networkd.conf.d",
        "/etc/systemd/networkd.conf.d/50-wgnet-wg0.conf",
        "/etc/sysctl.d/50-wgnet-wg0.conf",
        "/etc/wireguard/wg0.conf",
        "/var/lib",
        "/var/lib/wgnet/manifest.json",
        "/run/wgnet/journal",
    ],
)
def test_a_private_key_in_the_place_of_another_file_is_refused(path: str) -> None:
    assert codes_of(keeping(KEYLESS, path)) == ["WG2027"]


@pytest.mark.parametrize(
    "path",
    ["/etc/wgnet/key", "/etc/systemd/network/office.key", "/etc/wireguard/private.key", "/srv/keys/fra", "/var/lib/wg"],
)
def test_a_private_key_beside_other_files_is_not(path: str) -> None:
    assert codes_of(keeping(KEYLESS, path)) == []


def test_two_networks_may_share_a_key_and_its_file_but_not_the_file_alone(tmp_path: Path) -> None:
    for name, text in (("office", KEYLESS), ("lab", LAB)):
        (tmp_path / f"{name}.yaml").write_text(keeping(text, "/etc/wgnet/fra.key"))
    assert wgnet("keys", "generate", "office.yaml", "lab.yaml", "--keys", "keys", cwd=tmp_path).status == 0
    refused = wgnet("check", "--format", "concise", "office.yaml", "lab.yaml", cwd=tmp_path)
    assert (refused.status, refused.out.count("error[WG2027]")) == (1, 1)

    # The same key in both.
    for name, text in (("office", KEYLESS), ("lab", LAB)):
        (tmp_path / f"{name}.yaml").write_text(keeping(text, "/etc/wgnet/fra.key"))
    (tmp_path / "keys/lab/fra.key").write_bytes((tmp_path / "keys/office/fra.key").read_bytes())
    assert wgnet("keys", "generate", "office.yaml", "lab.yaml", "--keys", "keys", cwd=tmp_path).status == 0
    for _ in range(2):
        done = wgnet("render", "office.yaml", "lab.yaml", "--keys", "keys", cwd=tmp_path)
        assert (done.status, done.err) == (0, "")
    assert (tmp_path / "rendered/fra/etc/wgnet/fra.key").read_bytes() == (tmp_path / "keys/lab/fra.key").read_bytes()
