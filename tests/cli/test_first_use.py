"""What a new user met: each is what somebody did, and what should have come of it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

from cli.command import wgnet

from wgnet.keys.types import PrivateKey

HUB = """\
wgnet: 1
network: {{name: net, subnets: [10.80.0.0/24]{inside}}}
peering: {{hub: hub}}
hosts:
  hub: {{addresses: [10.80.0.1], public-key: {hub}, endpoint: hub.example.net}}
  spoke: {{addresses: [10.80.0.2], public-key: {spoke}{more}}}
"""


def topology(folder: Path, *, inside: str = "", more: str = "", hub: str = "", spoke: str = "") -> Path:
    hub = hub or PrivateKey.generate().public()
    spoke = spoke or PrivateKey.generate().public()
    path = folder / "net.yaml"
    path.write_text(HUB.format(inside=inside, more=more, hub=f'"{hub}"', spoke=f'"{spoke}"'))
    return path


def test_no_key_is_made_beside_a_public_key_whose_private_one_is_elsewhere(tmp_path: Path) -> None:
    file = topology(tmp_path)
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    done = wgnet("keys", "generate", "--root", root, "--host", "hub", file, cwd=tmp_path)
    assert done.status == 1
    assert "error[WG5002]: the topology has a public key of 'hub', but its private key is not in" in done.err
    assert "WG5003" not in done.err
    assert list((root / "etc/wgnet").iterdir()) == []


def test_owner_of_an_external_host_can_be_told_the_preshared_key(tmp_path: Path) -> None:
    file = topology(tmp_path, inside=", preshared-keys: true", more=", manager: external")
    store = tmp_path / "keys"
    assert wgnet("keys", "generate", "--keys", store, file, cwd=tmp_path).status == 0
    done = wgnet("keys", "export", "--keys", store, "-f", file, "--show-secrets", "spoke", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    (told,) = re.findall(r"^\S{43}= (\S{43}=)$", done.out, re.MULTILINE)
    hub = wgnet("render", "--keys", store, "--host", "hub", "--stdout", "--show-secrets", file, cwd=tmp_path)
    assert f"PresharedKey={told}\n" in hub.out


def test_private_key_in_the_place_of_the_public_one_is_never_shown(tmp_path: Path) -> None:
    file = topology(tmp_path)
    store = tmp_path / "keys"
    text = re.sub(r", public-key: \"\S+\"", "", file.read_text())
    file.write_text(text)
    assert wgnet("keys", "generate", "--keys", store, file, cwd=tmp_path).status == 0
    private = (store / "net/spoke.key").read_text().strip()
    public = PrivateKey.parse(private).public()  # type: ignore[union-attr]
    file.write_text(file.read_text().replace(public, private))
    done = wgnet("render", "--keys", store, file, cwd=tmp_path)
    assert done.status == 1
    assert "error[WG2034]" in done.err
    assert private not in done.err + done.out


def test_encrypted_store_without_a_terminal_is_one_problem(tmp_path: Path) -> None:
    file = topology(tmp_path)
    file.write_text(re.sub(r", public-key: \"\S+\"", "", file.read_text()))
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    store = tmp_path / "keys"
    made = wgnet("keys", "generate", "--keys", store, "--encrypt", "--passphrase-file", passphrase, file, cwd=tmp_path)
    assert made.status == 0
    done = wgnet("keys", "show", "--keys", store, "--diagnostics", "json", file, cwd=tmp_path)
    found = [item["message"] for item in json.loads(done.err)["diagnostics"]]
    assert found == ["the key store has a passphrase, and there is no terminal to ask for it"]


def test_when_the_last_topology_is_gone_its_files_go(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    nothing = wgnet("render", "--system", "--root", root, "--host", "hub", cwd=tmp_path)
    assert nothing.status == 1
    assert "error[WG1022]" in nothing.err
    file = topology(tmp_path)
    place = root / "etc/wgnet/net.yaml"
    place.write_text(file.read_text())
    assert wgnet("render", "--system", "--root", root, "--host", "hub", cwd=tmp_path).status == 0
    assert list((root / "etc/systemd/network").iterdir())
    place.unlink()
    done = wgnet("render", "--system", "--root", root, cwd=tmp_path)
    assert done.status == 0
    assert ", 2 removed" in done.out or ", 3 removed" in done.out
    assert not (root / "etc/systemd/network").exists()


def messages(folder: Path, text: str) -> list[str]:
    (folder / "t.yaml").write_text(text)
    done = wgnet("check", "--format", "json", "t.yaml", cwd=folder)
    return [f"{item['code']} {item['message']}" for item in json.loads(done.out)["diagnostics"]]


def test_host_that_no_rule_names_is_one_warning(tmp_path: Path) -> None:
    text = HUB.format(inside="", more="", hub=f'"{PrivateKey.generate().public()}"', spoke=f'"{"A" * 42}E="')
    text = text.replace("{hub: hub}", "[{hub: hub, spokes: [spoke]}]")
    text += f'  new: {{addresses: [10.80.0.3], public-key: "{PrivateKey.generate().public()}"}}\n'
    assert messages(tmp_path, text) == ["WG3013 'new' has no peer: no rule of 'peering' names it"]


def test_hub_without_endpoint_is_one_error(tmp_path: Path) -> None:
    text = HUB.format(inside="", more="", hub=f'"{PrivateKey.generate().public()}"', spoke=f'"{"A" * 42}E="')
    text = text.replace(", endpoint: hub.example.net", "")
    text += f'  third: {{addresses: [10.80.0.3], public-key: "{PrivateKey.generate().public()}"}}\n'
    assert messages(tmp_path, text) == [
        "WG3012 'hub' and 'spoke' and 'third' cannot start a handshake: 'hub' has no endpoint, nor has any of them"
    ]


def test_what_follows_from_a_mistake_is_not_told_as_another(tmp_path: Path) -> None:
    keys = [PrivateKey.generate().public() for _ in range(2)]
    text = f"""\
wgnet: 1
network: {{name: net, subnets: [10.80.0.0/24, "fd42::/64"]}}
hosts:
  fra:
    addresses: [10.80.0.1, "fd42::1"]
    public-key: "{keys[0]}"
    endpoint: fra.example.net
    advertise: [0.0.0.0/0, "::/0"]
  nyc: {{addresses: [10.80.0.2, "fd42:acmé::1"], public-key: "{keys[1]}", exit-node: fra}}
"""
    assert [message.split()[0] for message in messages(tmp_path, text)] == ["WG2010"]
    text = text.replace("acmé::1", ":2").replace("hosts:", "peering: {hub: frankfurt}\nhosts:")
    assert [message.split()[0] for message in messages(tmp_path, text)] == ["WG3008"]


def test_dns_server_beyond_the_exit_node_is_reached(tmp_path: Path) -> None:
    keys = [PrivateKey.generate().public() for _ in range(2)]
    text = f"""\
wgnet: 1
network: {{name: veil, subnets: [10.64.0.0/16], dns: {{servers: [10.64.0.1]}}}}
hosts:
  me: {{addresses: [10.64.12.7/32], public-key: "{keys[0]}", exit-node: vpn, bypass: ["::/0"]}}
  vpn: {{manager: external, public-key: "{keys[1]}", endpoint: 192.0.2.1, advertise: [0.0.0.0/0]}}
"""
    assert messages(tmp_path, text) == []


def test_endpoint_by_name_under_an_exit_node_that_answers_all_questions(tmp_path: Path) -> None:
    keys = [PrivateKey.generate().public() for _ in range(2)]
    text = f"""\
wgnet: 1
network: {{name: net, subnets: [10.80.0.0/24], dns: {{servers: [10.80.0.1]}}}}
hosts:
  fra: {{addresses: [10.80.0.1], public-key: "{keys[0]}", endpoint: fra.example.net, advertise: [0.0.0.0/0]}}
  nyc: {{addresses: [10.80.0.2], public-key: "{keys[1]}", exit-node: fra, bypass: ["::/0"]}}
"""
    assert [message.split()[0] for message in messages(tmp_path, text)] == ["WG3039"]
    # NetworkManager looks the name up before the tunnel is there, and without an exit node nobody asks fra for it.
    assert messages(tmp_path, text.replace("exit-node", "manager: networkmanager, exit-node")) == []
    assert messages(tmp_path, text.replace(', exit-node: fra, bypass: ["::/0"]', "")) == []


def test_link_local_subnet_in_two_networks_of_one_host_is_no_collision(tmp_path: Path) -> None:
    for number in (1, 2):
        keys = [PrivateKey.generate().public() for _ in range(2)]
        (tmp_path / f"link{number}.yaml").write_text(f"""\
wgnet: 1
network: {{name: link{number}, subnets: ["fe80::/64"], listen-port: {51820 + number}}}
hosts:
  a: {{addresses: ["fe80::1"], public-key: "{keys[0]}", endpoint: a.example.net}}
  b: {{addresses: ["fe80::2"], public-key: "{keys[1]}"}}
""")
    done = wgnet("check", "link1.yaml", "link2.yaml", cwd=tmp_path)
    assert (done.status, done.out) == (0, "no problems: 2 networks, 2 hosts\n")


def test_second_spoke_changes_nothing_on_a_first_that_may_relay(tmp_path: Path) -> None:
    file = topology(tmp_path, more=", forward: true")
    before = wgnet("render", "--host", "spoke", "--stdout", file, cwd=tmp_path)
    assert "AllowedIPs=10.80.0.0/24\n" in before.out
    file.write_text(
        file.read_text() + f'  third: {{addresses: [10.80.0.3], public-key: "{PrivateKey.generate().public()}"}}\n'
    )
    assert wgnet("render", "--host", "spoke", "--stdout", file, cwd=tmp_path).out == before.out


def test_absent_secrets_of_many_hosts_are_told_once(tmp_path: Path) -> None:
    file = topology(tmp_path, inside=", preshared-keys: true", more=", manager: networkmanager")
    done = wgnet("render", "--diagnostics", "json", file, cwd=tmp_path)
    assert done.status == 0
    found = [f"{item['code']} {item['message']}" for item in json.loads(done.err)["diagnostics"]]
    assert found == [
        "WG5005 the files of 'hub' and 'spoke' are written without the preshared keys of their links",
        "WG5004 the files of 'spoke' are written without their private keys: their tunnels cannot start",
    ]


def test_folders_that_are_closed_on_a_host_are_closed_in_the_output(tmp_path: Path) -> None:
    file = topology(tmp_path, more=", manager: networkmanager")
    assert wgnet("render", file, cwd=tmp_path).status == 0
    profiles = tmp_path / "rendered/spoke/etc/NetworkManager/system-connections"
    modes = [stat.S_IMODE(folder.stat().st_mode) for folder in (profiles, profiles.parent)]
    assert modes == [0o700, 0o755]
    # Where the folder may not be exchanged as a whole, the files go in one by one, by another way.
    (tmp_path / "inside").mkdir()
    assert wgnet("render", "-o", ".", file, cwd=tmp_path / "inside").status == 0
    profiles = tmp_path / "inside/spoke/etc/NetworkManager/system-connections"
    assert stat.S_IMODE(profiles.stat().st_mode) == 0o700
