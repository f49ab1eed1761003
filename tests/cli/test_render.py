"""`wgnet init`, `keys` and `render`: from nothing to the files of every host, and what of it may be seen."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest
import yaml
from cli.command import KEYLESS, OFFICE, Result, wgnet, wgnet_here

from wgnet.cli.editing import write_public_keys
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PrivateKey

KEY = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=")

MIXED = """\
wgnet: 1
network: {name: office, interface: wg0, subnets: [10.80.0.0/24], preshared-keys: true}
peering: {hub: fra}
hosts:
  fra: {addresses: [10.80.0.1], endpoint: fra.example.net}
  nyc: {addresses: [10.80.0.2], manager: networkmanager}
  phone: {addresses: [10.80.0.3], manager: wg-quick}
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a folder with a topology of three managers, and its keys."""
    (tmp_path / "office.yaml").write_text(MIXED)
    done = wgnet_here("keys", "generate", "--keys", tmp_path / "keys", tmp_path / "office.yaml")
    assert (done.status, done.err) == (0, "")
    return tmp_path


def tree(folder: Path) -> dict[str, str]:
    """Return the files below a folder by path, with their contents."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".gitignore", ".wgnet-manifest.json")
    }


def secrets_of(folder: Path, text: str) -> set[str]:
    """Return the keys in a text that are not the public keys of the topology."""
    return set(KEY.findall(text)) - set(KEY.findall((folder / "office.yaml").read_text()))


def every_secret(folder: Path) -> set[str]:
    return {key for text in tree(folder / "rendered").values() for key in secrets_of(folder, text)}


def written_yaml(path: Path) -> dict[str, object]:
    # The loader in C takes tabs between brackets, which the one in Python does not.
    data: dict[str, object] = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    return data


# --- from nothing to everything --------------------------------------------------------------------------------------


def test_init_keys_check_render(tmp_path: Path) -> None:
    assert wgnet("init", cwd=tmp_path).out == "wrote office.yaml\n"
    again = wgnet("init", cwd=tmp_path)
    assert (again.status, again.out) == (6, "")
    assert "error[WG6001]" in again.err
    before = (tmp_path / "office.yaml").read_text()
    assert wgnet("check", "office.yaml", cwd=tmp_path).status == 0
    done = wgnet("keys", "generate", "--keys", "keys", "office.yaml", cwd=tmp_path)
    assert (done.status, done.out, done.err) == (0, "keys: 3 made in keys, 3 written into the topology\n", "")
    after = (tmp_path / "office.yaml").read_text()
    assert [line for line in after.splitlines() if "public-key" not in line] == before.splitlines()
    assert wgnet("check", "--strict", "office.yaml", cwd=tmp_path).out == "no problems: 1 network, 3 hosts\n"
    done = wgnet("render", "--keys", "keys", "office.yaml", cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "rendered").iterdir()) == [
        ".gitignore", ".wgnet-manifest.json", "gateway", "laptop", "phone",
    ]  # fmt: skip
    assert stat.S_IMODE((tmp_path / "rendered").stat().st_mode) == 0o700
    assert (tmp_path / "rendered/.gitignore").read_text() == "*\n"
    assert "rendered/gateway/etc/systemd/network/50-wgnet-wg0.netdev" in {
        f"rendered/{name}" for name in tree(tmp_path / "rendered")
    }
    first = tree(tmp_path / "rendered")
    done = wgnet("render", "--keys", "keys", "office.yaml", cwd=tmp_path)
    assert f"0 written, {len(first)} unchanged" in done.out
    assert tree(tmp_path / "rendered") == first


@pytest.mark.parametrize("name", ["first.yaml", "a\nb: [.yaml", "it's mine.yaml"])
def test_init_under_any_name(tmp_path: Path, name: str) -> None:
    assert wgnet("init", name, cwd=tmp_path).status == 0
    done = wgnet("check", name, cwd=tmp_path)
    assert done.status == 0
    assert wgnet("init", "-", cwd=tmp_path).out.startswith("# A WireGuard network")


def test_hosts_that_are_gone_are_removed(store: Path) -> None:
    assert wgnet("render", "--keys", "keys", "office.yaml", cwd=store).status == 0
    text = (store / "office.yaml").read_text()
    (store / "office.yaml").write_text("".join(line for line in text.splitlines(keepends=True) if "phone" not in line))
    done = wgnet("render", "--keys", "keys", "office.yaml", cwd=store)
    assert "removed" in done.out
    assert not (store / "rendered/phone").exists()
    done = wgnet("render", "--host", "nyc", "-o", "one", "--keys", "keys", "office.yaml", cwd=store)
    assert {name.split("/")[0] for name in tree(store / "one")} == {"nyc"}


def test_unknown_host(store: Path) -> None:
    for arguments in (["render", "--host", "nyx", "office.yaml"], ["show", "nyx", "-f", "office.yaml"]):
        done = wgnet(*arguments, cwd=store)
        assert (done.status, done.out) == (1, "")
        assert "error[WG6005]" in done.err
        assert "did you mean 'nyc'?" in done.err


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_no_secret_is_shown_unless_asked_for_and_then_all_are(store: Path) -> None:
    assert wgnet("render", "--keys", "keys", "office.yaml", cwd=store).status == 0
    secrets = every_secret(store)
    assert len(secrets) == 5  # three private keys, two links
    hosts = ["--host", "fra", "--host", "nyc", "--host", "phone"]
    masked = wgnet("render", "--stdout", *hosts, "--keys", "keys", "office.yaml", cwd=store)
    assert (masked.status, masked.err) == (0, "")
    assert secrets_of(store, masked.out) == set()
    assert masked.out.count("(hidden)") >= 5
    shown = wgnet("render", "--stdout", "--show-secrets", *hosts, "--keys", "keys", "office.yaml", cwd=store)
    assert secrets_of(store, shown.out) == secrets
    private = {KEY.findall((store / f"keys/office/{host}.key").read_text())[0] for host in ("fra", "nyc", "phone")}
    assert private <= secrets
    for arguments in (
        ["keys", "show", "--keys", "keys", "office.yaml"],
        ["keys", "show", "--format", "json", "--keys", "keys", "office.yaml"],
        ["keys", "export", "fra", "--keys", "keys", "-f", "office.yaml"],
        ["keys", "export", "fra", "--format", "json", "--keys", "keys", "-f", "office.yaml"],
        ["show", "fra", "-f", "office.yaml"],
        ["show", "fra", "--format", "json", "-f", "office.yaml"],
        ["check", "office.yaml"],
        ["diff", "office.yaml", "office.yaml"],
    ):
        done = wgnet(*arguments, cwd=store)
        assert done.status == 0, arguments
        assert secrets_of(store, done.out + done.err) == set(), arguments
    listed = wgnet("keys", "show", "--show-secrets", "--keys", "keys", "office.yaml", cwd=store)
    assert secrets_of(store, listed.out) == private
    exported = wgnet("keys", "export", "fra", "--show-secrets", "--keys", "keys", "-f", "office.yaml", cwd=store)
    assert len(secrets_of(store, exported.out)) == 3  # its private key, and of its own links alone


def test_files_with_secrets_are_for_their_owner(store: Path) -> None:
    assert wgnet("render", "--keys", "keys", "office.yaml", cwd=store).status == 0
    for path in (store / "rendered").rglob("*"):
        if path.is_file() and secrets_of(store, path.read_text()):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o007, path
    for path in (store / "keys").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_without_the_store_files_say_what_is_missing(store: Path) -> None:
    done = wgnet("render", "--diagnostics", "concise", "office.yaml", cwd=store)
    assert done.status == 0
    assert {line.split("[")[1][:6] for line in done.err.splitlines() if "[" in line} == {"WG5004", "WG5005"}
    assert every_secret(store) == set()


def test_a_private_key_that_belongs_to_another_public_key(store: Path) -> None:
    other = PrivateKey.generate().reveal()
    (store / "keys/office/fra.key").write_text(f"{other}\n")
    done = wgnet("render", "--keys", "keys", "office.yaml", cwd=store)
    assert done.status == 1
    assert "error[WG5003]" in done.err
    assert other not in done.err
    assert not (store / "rendered").exists()


# --- this machine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    (root / "etc/wgnet/office.yaml").write_text(OFFICE.replace(", preshared-keys: true", ""))
    return root


def test_render_system_writes_in_place(root: Path, tmp_path: Path) -> None:
    done = wgnet("render", "--system", "--root", root, cwd=tmp_path)
    assert (done.status, done.out) == (6, "")
    assert "error[WG6005]" in done.err  # which host is it?
    (root / "etc/wgnet/host").write_text("nyc\n")
    done = wgnet("render", "--system", "--root", root, cwd=tmp_path)
    assert done.status == 0, done.err
    network = root / "etc/systemd/network/50-wgnet-wg0.network"
    assert "10.80.0.2/24" in network.read_text()
    assert wgnet("render", "--system", "--host", "fra", "--root", root, cwd=tmp_path).status == 0
    assert "10.80.0.1/24" in network.read_text()
    done = wgnet(
        "render", "--system", "--host", "nobody", "-f", root / "etc/wgnet/office.yaml", "--root", root, cwd=tmp_path
    )
    assert (done.status, done.out) == (1, "")


def test_keys_that_came_with_a_key_store_stay_without_it(tmp_path: Path) -> None:
    """A package's hook runs without one; the host's keys would have gone as what an earlier run left."""
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    (root / "etc/wgnet/host").write_text("nyc\n")
    path = root / "etc/wgnet/office.yaml"
    path.write_text(KEYLESS)
    assert wgnet("keys", "generate", "--keys", "keys", path, cwd=tmp_path).status == 0
    assert wgnet("render", "--system", "--root", root, "--keys", "keys", cwd=tmp_path).status == 0
    before = tree(root / "etc")
    assert {"wgnet/office.key", "wgnet/office.psk"} <= before.keys()
    for arguments in ((), (path,), ()):
        done = wgnet("render", "--system", "--root", root, *arguments, cwd=tmp_path)
        assert (done.status, tree(root / "etc")) == (0, before), done.err
    # A network that goes leaves them to whoever may need them.
    path.unlink()
    assert wgnet("render", "--system", "--root", root, cwd=tmp_path).status == 0
    assert {"wgnet/office.key", "wgnet/office.psk"} <= tree(root / "etc").keys()


def test_render_system_below_run(root: Path, tmp_path: Path) -> None:
    done = wgnet("render", "--system", "--runtime", "--host", "fra", "--root", root, cwd=tmp_path)
    assert done.status == 0, done.err
    assert (root / "run/systemd/network/50-wgnet-wg0.network").exists()
    assert not (root / "etc/systemd").exists()


def test_a_profile_that_apply_had_networkmanager_write_is_left_to_it(root: Path, tmp_path: Path) -> None:
    file = root / "etc/wgnet/office.yaml"
    file.write_text(file.read_text().replace("  nyc:", "  nyc:\n    manager: networkmanager", 1))
    line = ["render", "--system", "--host", "nyc", "--root", root]
    assert wgnet(*line, cwd=tmp_path).status == 0
    keyfile = root / "etc/NetworkManager/system-connections/wgnet-wg0.nmconnection"
    uuid = re.search(r"^uuid=(.*)$", keyfile.read_text(), re.MULTILINE)
    assert uuid is not None
    # NetworkManager has it in a file of its own since.
    keyfile.unlink()
    record = root / "var/lib/wgnet/profiles.json"
    profile = {uuid[1]: {"network": "office", "interface": "wg0"}}
    record.write_text(json.dumps({"version": 1, "profiles": profile}))
    done = wgnet(*line, cwd=tmp_path)
    assert done.status == 0, done.err
    assert "left to NetworkManager, as `wgnet apply` made it: the profile 'office'" in done.out
    assert not keyfile.exists()
    # Where it wrote to the same file, that stays as it wrote it.
    keyfile.write_text("[connection]\n")
    assert wgnet(*line, cwd=tmp_path).status == 0
    assert keyfile.read_text() == "[connection]\n"
    record.unlink()
    assert wgnet(*line, "--force", cwd=tmp_path).status == 0
    assert f"uuid={uuid[1]}" in keyfile.read_text()


def test_the_networks_of_named_files_take_nothing_from_another(root: Path, tmp_path: Path) -> None:
    line = ["render", "--system", "--host", "fra", "--root", root]
    assert wgnet(*line, cwd=tmp_path).status == 0
    network = root / "etc/systemd/network/50-wgnet-wg0.network"
    before = network.read_text()
    file = root / "etc/wgnet/office.yaml"
    file.write_text(file.read_text().replace("name: office", "name: firm", 1))
    done = wgnet(*line, "-f", file, cwd=tmp_path)
    assert (done.status, done.out) == (6, "")
    assert "error[WG6022]" in done.err
    assert "is taken by the network 'office'" in done.err
    assert network.read_text() == before
    # It was renamed: without a file named the old one is known to be gone.
    assert wgnet(*line, cwd=tmp_path).status == 0
    assert network.read_text() != before
    # And the profile that `wgnet apply` made of another network is nowhere in the files.
    profile = {"u": {"network": "office", "interface": "wg0"}}
    (root / "var/lib/wgnet/profiles.json").write_text(json.dumps({"version": 1, "profiles": profile}))
    done = wgnet(*line, "-f", file, cwd=tmp_path)
    assert (done.status, "the interface 'wg0' of 'firm' is taken by the network 'office'" in done.err) == (6, True)


def test_what_was_changed_by_hand_is_not_replaced(root: Path, tmp_path: Path) -> None:
    line = ["render", "--system", "--host", "fra", "--root", root]
    assert wgnet(*line, cwd=tmp_path).status == 0
    network = root / "etc/systemd/network/50-wgnet-wg0.network"
    network.write_text(network.read_text() + "# mine\n")
    (root / "etc/wgnet/office.yaml").write_text(
        (root / "etc/wgnet/office.yaml").read_text().replace("10.80.0.1]", "10.80.0.7]")
    )
    done = wgnet(*line, cwd=tmp_path)
    assert (done.status, done.out) == (6, "")
    assert "error[WG6002]" in done.err
    assert "# mine" in network.read_text()
    assert wgnet(*line, "--force", cwd=tmp_path).status == 0
    assert "10.80.0.7/24" in network.read_text()


@pytest.mark.parametrize("template", ["{{ nonsense", "{% include 'nowhere' %}", "{{ undefined.name }}", ""])
def test_a_template_of_ones_own_that_is_broken(root: Path, tmp_path: Path, template: str) -> None:
    own = root / "etc/wgnet/templates/networkd/network.j2"
    own.parent.mkdir(parents=True)
    own.write_text(template)
    done = wgnet("render", "--system", "--host", "fra", "--root", root, cwd=tmp_path)
    if template:
        assert (done.status, "error[WG6006]" in done.err) == (1, True)
        assert not (root / "etc/systemd").exists()
    else:
        assert (root / "etc/systemd/network/50-wgnet-wg0.network").read_text() == ""


# --- keys generate, in place -----------------------------------------------------------------------------------------


def generate(folder: Path, text: str | bytes) -> tuple[Result, bytes]:
    path = folder / "t.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    done = wgnet_here("keys", "generate", "--keys", folder / "keys", path)
    return done, path.read_bytes()


LAYOUTS = {
    "block": KEYLESS,
    "flow": "wgnet: 1\nnetwork: {name: o, subnets: [10.80.0.0/24]}\n"
    "hosts: {a: {addresses: [10.80.0.1], endpoint: e}, b: {addresses: [10.80.0.2]}}\n",
    "json": json.dumps(
        {
            "wgnet": 1,
            "network": {"name": "o", "subnets": ["10.80.0.0/24"]},
            "hosts": {"a": {"addresses": ["10.80.0.1"], "endpoint": "e"}, "b": {"addresses": ["10.80.0.2"]}},
        },
        indent="\t",
    ),
    "comments": KEYLESS.replace("[10.80.0.1]", "[10.80.0.1] # the hub: {\n    # and more\n").replace(
        "  nyc:", "\n  # nyc\n  nyc: # roams"
    ),
    "long lists": KEYLESS.replace("[10.80.0.1]", "\n      - 10.80.0.1 # one\n\n      # two\n      - 10.80.0.9\n"),
    "aliases": KEYLESS.replace("[10.80.0.1]", "&a [&one 10.80.0.1]").replace(
        "    addresses: [10.80.0.2]", "    site: *one\n    addresses:\n      - 10.80.0.2\n    bypass: *a"
    ),
    "addresses by alias": KEYLESS.replace("hosts:", "x-a: &a [10.80.0.1]\nx-b: &b 10.80.0.2\nhosts:")
    .replace("[10.80.0.1]\n    endpoint", "*a\n    endpoint")
    .replace("[10.80.0.2]", "\n      - *b"),
    "flow with addresses by alias": KEYLESS.replace("hosts:", "x-b: &b [10.80.0.2]\nhosts:").replace(
        "nyc:\n    addresses: [10.80.0.2]", "nyc: {addresses: *b}"
    ),
    "host by alias": KEYLESS.replace("hosts:", "x-nyc: &nyc {addresses: [10.80.0.2]}\nhosts:").replace(
        "nyc:\n    addresses: [10.80.0.2]", "nyc: *nyc"
    ),
    "anchored": KEYLESS.replace("  nyc:\n", "  nyc: &nyc\n"),
    "quoted": KEYLESS.replace("addresses: [10.80.0.2]", "\"addresses\": ['10.80.0.2']"),
    "explicit key": KEYLESS.replace("  nyc:\n    addresses: [10.80.0.2]", "  ? nyc\n  : addresses: [10.80.0.2]"),
    "order": KEYLESS.replace("    addresses: [10.80.0.2]", "    site: x\n    addresses: [10.80.0.2]\n    mtu: 1400"),
    "no line end": KEYLESS.rstrip("\n"),
    "document marks": f"---\n{KEYLESS}...\n",
    "ü€😀": KEYLESS.replace("[10.80.0.1]", "[10.80.0.1]\n    description: ü€😀 # ü€😀").replace("nyc:", "nyc: # ü€😀"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["plain", "crlf", "mark"])
def test_generate_writes_in_place(tmp_path: Path, layout: str, form: str) -> None:
    text = LAYOUTS[layout]
    data = text.replace("\n", "\r\n").encode() if form == "crlf" else b"\xef\xbb\xbf" * (form == "mark") + text.encode()
    done, after = generate(tmp_path, data)
    assert (done.status, done.err) == (0, "")
    # Nothing but the keys was added: without them the file is what it was.
    assert (
        re.sub(
            rb'(?m)^ *public-key: "[^"]*"\r?\n?|, "?public-key"?: "[^"]*"|public-key: "[^"]*",? ?', b"", after
        ).split()
        == data.split()
    )
    found = written_yaml(tmp_path / "t.yaml")["hosts"]
    assert isinstance(found, dict)
    for name, host in found.items():
        private = PrivateKey.parse((next((tmp_path / "keys").rglob(f"{name}.key"))).read_text().strip())
        assert isinstance(private, PrivateKey)
        assert host["public-key"] == private.public()
    if form == "crlf":
        assert after.count(b"\n") == after.count(b"\r\n")
    again, unchanged = generate(tmp_path, after)
    assert (again.status, unchanged) == (0, after)
    assert "0 made" in again.out


def test_public_key_stands_behind_the_addresses(tmp_path: Path) -> None:
    _, after = generate(tmp_path, LAYOUTS["order"])
    lines = [line.split(":")[0].strip() for line in after.decode().splitlines()]
    assert lines[-5:] == ["nyc", "site", "addresses", "public-key", "mtu"]


def test_json_stays_json(tmp_path: Path) -> None:
    _, after = generate(tmp_path, LAYOUTS["json"])
    assert all("public-key" in host for host in json.loads(after)["hosts"].values())


def test_hosts_that_share_a_mapping_cannot_have_a_key_each(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    text = KEYLESS.replace("  nyc:\n", "  nyc: &n\n") + "  sgp: *n\n"
    path.write_text(text)
    diagnostics = Diagnostics()
    assert not write_public_keys(str(path), {"sgp": "A" * 43 + "="}, diagnostics)
    assert [one.code.name for one in diagnostics] == ["WG6001"]
    assert "by an alias its mapping stands elsewhere too" in diagnostics.items[0].message
    assert path.read_text() == text


def test_a_layout_that_cannot_be_edited_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    text = KEYLESS.replace("    addresses: [10.80.0.2]", "    ? addresses\n    : *a").replace(
        "[10.80.0.1]", "&a [10.80.0.1]"
    )
    path.write_text(text)
    diagnostics = Diagnostics()
    assert not write_public_keys(str(path), {"nyc": "b" * 42 + "A="}, diagnostics)
    (one,) = diagnostics
    assert one.code.name == "WG6001"
    assert one.help == (f"write it there by hand: 'nyc' has public-key: {'b' * 42}A=",)
    assert path.read_text() == text


def test_generate_keeps_mode_and_link(tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text(KEYLESS)
    real.chmod(0o640)
    (tmp_path / "t.yaml").symlink_to("real.yaml")
    assert wgnet("keys", "generate", "--keys", "keys", "t.yaml", cwd=tmp_path).status == 0
    assert (tmp_path / "t.yaml").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_text().count("public-key") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "real.yaml", "t.yaml"]


def test_generate_cannot_write_into_standard_input(tmp_path: Path) -> None:
    done = wgnet("keys", "generate", "--keys", "keys", "-", cwd=tmp_path, stdin=KEYLESS)
    assert done.status == 6
    assert "error[WG6001]" in done.err


def test_generate_for_one_host(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(KEYLESS)
    done = wgnet("keys", "generate", "--keys", "keys", "--host", "nyc", "t.yaml", cwd=tmp_path)
    assert done.status == 0
    assert sorted(path.name for path in (tmp_path / "keys/office").glob("*.key")) == ["_master.key", "nyc.key"]
    done = wgnet("keys", "generate", "--keys", "other", "--host", "nyx", "t.yaml", cwd=tmp_path)
    assert (done.status, "did you mean 'nyc'?" in done.err) == (1, True)
    assert not (tmp_path / "other").exists()


def test_generate_on_the_host_itself(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/wgnet").mkdir(parents=True)
    path = root / "etc/wgnet/office.yaml"
    path.write_text(KEYLESS)
    done = wgnet("keys", "generate", "--host", "nyc", "--root", root, cwd=tmp_path)
    assert done.status == 0, done.err
    key = root / "etc/wgnet/office.key"
    private = PrivateKey.parse(key.read_text().strip())
    assert isinstance(private, PrivateKey)
    assert done.out == f"office: nyc {private.public()}\n"
    assert private.public() in path.read_text()
    assert not stat.S_IMODE(key.stat().st_mode) & 0o007
    assert wgnet("keys", "generate", "--host", "nyc", "--root", root, cwd=tmp_path).out == done.out
    both = wgnet("keys", "generate", "--host", "nyc", "--host", "fra", "--root", root, cwd=tmp_path)
    assert (both.status, both.out) == (2, "")


def test_a_packages_topology_is_not_changed_by_the_first_boot(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("etc/wgnet", "usr/lib/wgnet"):
        (root / folder).mkdir(parents=True)
    (root / "etc/wgnet/host").write_text("nyc\n")
    path = root / "usr/lib/wgnet/office.yaml"
    path.write_text(KEYLESS)
    (root / "usr/lib/wgnet/broken.yaml").write_text("wgnet: [")
    arguments = ("keys", "generate", "--root", root)
    done = wgnet(*arguments, cwd=tmp_path)
    private = PrivateKey.parse((root / "etc/wgnet/office.key").read_text().strip())
    assert isinstance(private, PrivateKey)
    assert done.out == f"office: nyc {private.public()} (in /etc/wgnet/office.pub)\n"
    # Another package's broken topology keeps nobody's key from being made.
    assert (done.status, "broken.yaml" in done.err, done.err.count("error[")) == (1, True, 1)
    public = root / "etc/wgnet/office.pub"
    assert (public.read_text(), stat.S_IMODE(public.stat().st_mode)) == (f"{private.public()}\n", 0o644)
    assert path.read_text() == KEYLESS
    (root / "usr/lib/wgnet/broken.yaml").unlink()
    again = wgnet(*arguments, cwd=tmp_path)
    assert (again.status, again.out, again.err) == (0, done.out, "")
    # A place that cannot be written is said, and the key stays.
    public.unlink()
    public.mkdir()
    failed = wgnet(*arguments, cwd=tmp_path)
    assert (failed.status, "office.pub' cannot be written" in failed.err) == (1, True)
    assert PrivateKey.parse((root / "etc/wgnet/office.key").read_text().strip()).public() == private.public()
    # Once the topology has the key, nothing is left to be said elsewhere.
    public.rmdir()
    path.write_text(path.read_text().replace("nyc:\n", f'nyc:\n    public-key: "{private.public()}"\n'))
    told = wgnet(*arguments, cwd=tmp_path)
    assert (told.status, told.out, public.exists()) == (0, f"office: nyc {private.public()}\n", False)


# --- keys show, keys export ------------------------------------------------------------------------------------------


def test_keys_show(store: Path) -> None:
    shown = json.loads(wgnet("keys", "show", "--format", "json", "--keys", "keys", "office.yaml", cwd=store).out)
    assert shown["version"] == 1
    assert [(row["network"], row["host"], row["private_key"]) for row in shown["keys"]] == [
        ("office", "fra", "(hidden)"),
        ("office", "nyc", "(hidden)"),
        ("office", "phone", "(hidden)"),
    ]
    table = wgnet("keys", "show", "--host", "nyc", "office.yaml", cwd=store).out
    assert table == f"office/nyc  {shown['keys'][1]['public_key']}\n"


def test_keys_export_prints_for_programs(store: Path) -> None:
    arguments = ("keys", "export", "nyc", "--format", "json", "--keys", "keys", "-f", "office.yaml")
    shown = json.loads(wgnet(*arguments, cwd=store).out)
    assert (shown["version"], shown["host"]) == (1, "nyc")
    assert [tuple(file.values())[:4] for file in shown["files"]] == [
        ("/etc/wgnet/office.key", "0600", "root", "root"),
        ("/etc/wgnet/office.psk", "0600", "root", "root"),
    ]
    assert secrets_of(store, json.dumps(shown)) == set()
    told = json.loads(wgnet(*arguments, "--show-secrets", cwd=store).out)
    text = wgnet("keys", "export", "nyc", "--show-secrets", "--keys", "keys", "-f", "office.yaml", cwd=store).out
    assert all(file["content"] in text and file["content"].endswith("\n") for file in told["files"])
    assert "(hidden)" not in json.dumps(told)
    assert wgnet(*arguments, "-o", "usb", cwd=store).status == 2


def test_keys_export_writes_one_hosts_part(store: Path) -> None:
    done = wgnet("keys", "export", "nyc", "-o", "usb", "--keys", "keys", "-f", "office.yaml", cwd=store)
    assert (done.status, done.err) == (0, "")
    files = tree(store / "usb")
    assert sorted(files) == ["nyc/etc/wgnet/office.key", "nyc/etc/wgnet/office.psk"]
    assert (store / "keys/office/nyc.key").read_text() == files["nyc/etc/wgnet/office.key"]
    for path in (store / "usb").rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = wgnet("keys", "export", "nobody", "--keys", "keys", "-f", "office.yaml", cwd=store)
    assert (done.status, "error[WG6005]: there is no host 'nobody' that files are made for" in done.err) == (1, True)


def test_an_encrypted_store(tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(MIXED)
    (tmp_path / "pass").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    keys = ["--keys", "keys", "office.yaml"]
    done = wgnet("keys", "generate", "--encrypt", "--passphrase-file", "pass", *keys, cwd=tmp_path)
    assert (done.status, done.err) == (0, "")
    assert not any(
        KEY.search(path.read_text(errors="replace")) for path in (tmp_path / "keys").rglob("*") if path.is_file()
    )
    assert wgnet("render", "--passphrase-file", "pass", *keys, cwd=tmp_path).status == 0
    for option in (["--passphrase-file", "wrong"], ["--passphrase-file", "nowhere"], []):
        done = wgnet("render", "-o", "other", *option, *keys, cwd=tmp_path)
        assert (done.status, done.out) == (1, "")
        assert "error[WG5006]" in done.err
    assert not (tmp_path / "other").exists()


def test_nothing_is_left_behind(store: Path) -> None:
    assert sorted(os.listdir(store)) == ["keys", "office.yaml"]
