"""`wgnet keys rotate`: step by step, what comes too early is refused, and a topology keeps its form."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from cli.command import KEYLESS, Result, wgnet_here

from wgnet.keys.types import PrivateKey

PHONE = "  phone: {addresses: [10.80.0.3], manager: wg-quick}  # a phone\n"


def public_of(path: Path) -> str:
    key = PrivateKey.parse(path.read_text().strip())
    assert isinstance(key, PrivateKey)
    return key.public()


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """Make a folder with a topology and its key store."""
    (tmp_path / "office.yaml").write_text(KEYLESS + PHONE)
    run(tmp_path, "generate")
    return tmp_path


def run(folder: Path, *words: str) -> Result:
    """Run `wgnet keys` with the folder's topology and key store."""
    return wgnet_here("keys", *words, "--keys", folder / "keys", "-f", folder / "office.yaml")


def rotate(folder: Path, *words: str) -> Result:
    return run(folder, "rotate", *words)


def stands(folder: Path) -> dict[str, str]:
    told = json.loads(rotate(folder, "--format", "json").out)
    assert told["version"] == 1
    return {each["host"]: each["stand"] for each in told["rotations"]}


def keys_in(text: str, host: str) -> tuple[str, str | None]:
    """Return a host's public key and its next one."""
    part = re.search(rf"^  {host}:.*?(?=^  \w|\Z)", text, re.MULTILINE | re.DOTALL)
    assert part is not None
    present = re.search(r'(?<!next-)public-key: "(.{44})"', part[0])
    following = re.search(r'next-public-key: "(.{44})"', part[0])
    assert present is not None
    return present[1], following and following[1]


def test_a_rotation_from_its_beginning_to_its_end(office: Path) -> None:
    topology, store = office / "office.yaml", office / "keys/office"
    before = topology.read_text()
    old = public_of(store / "fra.key")
    assert stands(office) == {"fra": "idle", "nyc": "idle", "phone": "idle"}

    done = rotate(office, "prepare", "--host", "fra")
    assert (done.status, done.err) == (0, "")
    assert "apply on 'nyc' and 'phone'" in done.out
    assert "'phone' (wg-quick) has no refresh" in done.out
    new = public_of(store / "_next/fra.key")
    assert keys_in(topology.read_text(), "fra") == (old, new)
    assert public_of(store / "fra.key") == old
    assert stands(office) == {"fra": "prepared", "nyc": "idle", "phone": "idle"}

    done = rotate(office, "switch", "--host", "fra")
    assert (done.status, done.err) == (0, "")
    assert keys_in(topology.read_text(), "fra") == (old, new)
    assert (public_of(store / "fra.key"), public_of(store / "_previous/fra.key")) == (new, old)
    assert not (store / "_next/fra.key").exists()
    assert stands(office)["fra"] == "switched"

    done = rotate(office, "finish")
    assert (done.status, done.err) == (0, "")
    assert topology.read_text() == before.replace(old, new)
    assert public_of(store / "fra.key") == new
    assert list((store / "_previous").iterdir()) == []
    assert stands(office)["fra"] == "idle"
    assert wgnet_here("check", topology).out.startswith("no problems")


def test_every_step_may_be_repeated(office: Path) -> None:
    for step in ("prepare", "switch", "finish"):
        assert rotate(office, step).status == 0
        kept = {path: path.read_bytes() for path in office.rglob("*") if path.is_file()}
        if step != "finish":
            assert rotate(office, step).status == 0
            assert {path: path.read_bytes() for path in office.rglob("*") if path.is_file()} == kept
    # At the end nobody is left to finish.
    done = rotate(office, "finish")
    assert (done.status, "WG5008" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("before", "step", "message"),
    [
        ((), "switch", "it has no next key in the topology"),
        ((), "finish", "no rotation is under way"),
        (("prepare",), "finish", "it has not switched yet"),
        (("prepare", "switch"), "prepare", "it has switched already"),
    ],
)
def test_a_step_that_comes_too_early_is_refused(before: tuple[str, ...], step: str, message: str, office: Path) -> None:
    for earlier in before:
        assert rotate(office, earlier, "--host", "fra").status == 0
    kept = {path: path.read_bytes() for path in office.rglob("*") if path.is_file()}
    done = rotate(office, step, "--host", "fra", "--host", "nyc")
    assert done.status == 1
    assert f"error[WG5008]: office/fra: {message}" in done.err
    assert {path: path.read_bytes() for path in office.rglob("*") if path.is_file()} == kept


def test_a_step_is_taken_by_all_that_are_named_or_by_none(office: Path) -> None:
    rotate(office, "prepare", "--host", "fra")
    assert rotate(office, "switch", "--host", "fra", "--host", "nyc").status == 1
    assert stands(office) == {"fra": "prepared", "nyc": "idle", "phone": "idle"}


def test_a_next_key_that_is_lost_is_told(office: Path) -> None:
    rotate(office, "prepare", "--host", "fra")
    (office / "keys/office/_next/fra.key").unlink()
    assert stands(office)["fra"] == "lost"
    done = rotate(office, "switch", "--host", "fra")
    assert (done.status, "its next private key is not where" in done.err) == (1, True)


def test_a_private_key_of_neither_public_key_is_told(office: Path) -> None:
    key = office / "keys/office/fra.key"
    key.write_text(PrivateKey.generate().reveal())
    assert "WG5003" in rotate(office).err


def test_a_store_without_the_key_says_where_to_go(office: Path) -> None:
    (office / "keys/office/fra.key").unlink()
    assert stands(office)["fra"] == "unknown"
    done = rotate(office, "prepare", "--host", "fra")
    assert (done.status, "run this on 'fra' itself" in done.err) == (1, True)
    # For all hosts it is passed over.
    assert rotate(office, "prepare").status == 0
    assert stands(office) == {"fra": "unknown", "nyc": "prepared", "phone": "prepared"}


@pytest.mark.parametrize("words", [("swich",), ("office", "switch", "finish"), ("prepare", "finish")])
def test_a_word_that_is_no_step_is_refused(words: tuple[str, ...], office: Path) -> None:
    done = rotate(office, *words)
    assert (done.status, done.out) == (2, "")
    assert stands(office)["fra"] == "idle"


def test_the_command_that_comes_next_does_what_it_says(office: Path) -> None:
    """Without the key store it would be about the key of the machine that it is run on."""
    [step] = re.findall(r"`wgnet (.*?)`", rotate(office, "prepare", "--host", "fra").out)
    assert wgnet_here(*shlex.split(step), "-f", office / "office.yaml").status == 0
    assert stands(office)["fra"] == "switched"


def test_an_unknown_host_is_not_sent_for_the_key_store_that_was_given(office: Path) -> None:
    done = rotate(office, "prepare", "--host", "fro")
    assert (done.status, "--keys" in done.err) == (1, False)


def test_the_step_may_stand_before_or_behind_the_files(office: Path) -> None:
    store, topology = office / "keys", office / "office.yaml"
    assert wgnet_here("keys", "rotate", "prepare", "--keys", store, topology).status == 0
    assert wgnet_here("keys", "rotate", "--keys", store, topology, "switch").status == 0
    assert set(stands(office).values()) == {"switched"}


def test_an_encrypted_store_stays_one(tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(KEYLESS)
    (tmp_path / "passphrase").write_text("correct horse\n")
    with_passphrase = ("--passphrase-file", str(tmp_path / "passphrase"))
    assert run(tmp_path, "generate", "--encrypt", *with_passphrase).status == 0
    for step in ("prepare", "switch", "finish"):
        assert rotate(tmp_path, step, *with_passphrase).status == 0
        assert all(path.read_text().startswith("-----BEGIN ENC") for path in (tmp_path / "keys").rglob("*.key"))


LAYOUTS = {
    "flow": '  fra: {addresses: [10.80.0.1], endpoint: 192.0.2.1, public-key: "KEY"}\n',
    "json": '  "fra": {"addresses": ["10.80.0.1"], "endpoint": "192.0.2.1", "public-key": "KEY"}\n',
    "unquoted": "  fra:\n    addresses: [10.80.0.1]\n    endpoint: 192.0.2.1\n    public-key: KEY  # comment\n",
    "first": "  fra:\n    public-key: KEY\n    addresses: [10.80.0.1]\n    endpoint: 192.0.2.1\n",
    "crlf": "  fra:\r\n    public-key: 'KEY'\r\n    addresses: [10.80.0.1]\r\n    endpoint: 192.0.2.1\r\n",
    "comments": "  fra:  # hub\n    # its key\n    public-key: 'KEY'\n\n    # where\n    addresses: [10.80.0.1]\n"
    "    endpoint: 192.0.2.1\n",
    "flow over lines": '  fra: {\n    public-key: "KEY",\n    addresses: [10.80.0.1], endpoint: 192.0.2.1,\n  }\n',
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_topology_keeps_its_form(layout: str, tmp_path: Path) -> None:
    store = tmp_path / "keys/office"
    store.mkdir(mode=0o700, parents=True)
    (tmp_path / "keys").chmod(0o700)
    key = PrivateKey.generate()
    (store / "fra.key").write_text(key.reveal())
    (store / "fra.key").chmod(0o600)
    head = "wgnet: 1\nnetwork: {name: office, subnets: [10.80.0.0/24]}\nhosts:\n"
    text = head + LAYOUTS[layout].replace("KEY", key.public()) + "  nyc: {addresses: [10.80.0.2]}\n"
    topology = tmp_path / "office.yaml"
    topology.write_bytes(text.encode())
    for step in ("prepare", "switch", "finish"):
        done = rotate(tmp_path, step, "--host", "fra")
        assert (done.status, done.err) == (0, "")
    new = public_of(store / "fra.key")
    assert new != key.public()
    assert topology.read_bytes().decode() == re.sub(
        rf"['\"]?{re.escape(key.public())}['\"]?", lambda _: f'"{new}"', text
    )


@pytest.mark.parametrize("marked", ["next-public-key", "public-key"])
def test_an_alias_is_never_edited(marked: str, tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(KEYLESS)
    run(tmp_path, "generate")
    rotate(tmp_path, "prepare", "--host", "fra")
    rotate(tmp_path, "switch", "--host", "fra")
    topology = tmp_path / "office.yaml"
    present, following = keys_in(topology.read_text(), "fra")
    value = f'"{following if marked.startswith("next") else present}"'
    text = topology.read_text().replace(f" {marked}: {value}", f" {marked}: *key")
    topology.write_text(text.replace("wgnet: 1\n", f"x-key: &key {value}\nwgnet: 1\n"))
    kept = topology.read_bytes()
    done = rotate(tmp_path, "finish", "--host", "fra")
    assert done.status == 6
    assert "write it there by hand" in done.err
    assert topology.read_bytes() == kept
    assert (tmp_path / "keys/office/_previous/fra.key").exists()


# --- on the host itself ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a host whose key was made there."""
    (tmp_path / "etc/wgnet").mkdir(parents=True)
    (tmp_path / "etc/wgnet/office.yaml").write_text(KEYLESS.replace("preshared-keys: true", "preshared-keys: false"))
    assert here(tmp_path, "generate").status == 0
    return tmp_path


def here(root: Path, *words: str, host: str = "fra") -> Result:
    return wgnet_here("keys", *words, "--root", root, "--host", host)


def test_a_host_rotates_its_own_key(root: Path) -> None:
    folder = root / "etc/wgnet"
    mode = (folder / "office.key").stat().st_mode
    old = public_of(folder / "office.key")
    for step in ("prepare", "switch", "finish"):
        done = here(root, "rotate", step)
        assert (done.status, done.err) == (0, "")
        assert {path.stat().st_mode for path in folder.glob("office.key*")} == {mode}
    new = public_of(folder / "office.key")
    assert new != old
    assert keys_in((folder / "office.yaml").read_text(), "fra") == (new, None)
    assert sorted(path.name for path in folder.iterdir()) == ["office.key", "office.yaml"]


def test_a_host_does_not_switch_without_the_preshared_keys_of_its_next_key(root: Path, tmp_path: Path) -> None:
    folder, store = root / "etc/wgnet", tmp_path / "store"
    topology = folder / "office.yaml"
    topology.write_text(topology.read_text().replace("preshared-keys: false", "preshared-keys: true"))
    # The administrator has the key of nyc, and the master secret.
    assert wgnet_here("keys", "generate", "--keys", store, topology).status == 0
    assert here(root, "rotate", "prepare").status == 0
    refused = here(root, "rotate", "switch")
    assert (refused.status, "has no preshared keys for its next key" in refused.err) == (1, True)
    assert public_of(folder / "office.key") == keys_in(topology.read_text(), "fra")[0]

    carried = wgnet_here("keys", "export", "fra", "--keys", store, "-f", topology, "-o", tmp_path / "out")
    assert carried.status == 0
    (folder / "office.psk").write_bytes((tmp_path / "out/fra/etc/wgnet/office.psk").read_bytes())
    (folder / "office.psk").chmod(0o600)
    assert here(root, "rotate", "switch").status == 0
    assert public_of(folder / "office.key") == keys_in(topology.read_text(), "fra")[1]


def test_two_networks_that_share_a_key_file_rotate_as_one(tmp_path: Path) -> None:
    office = KEYLESS.replace("  fra:\n", "  fra:\n    private-key: {file: /etc/wgnet/fra.key}\n")
    office = office.replace("    advertise: [192.168.10.0/24]\n", "")
    lab = office.replace("name: office, interface: wg0", "name: lab, interface: wg1, listen-port: 51821")
    folder = tmp_path / "etc/wgnet"
    folder.mkdir(parents=True)
    (folder / "office.yaml").write_text(office.replace("preshared-keys: true", "preshared-keys: false"))
    (folder / "lab.yaml").write_text(
        lab.replace("10.80", "10.81").replace("preshared-keys: true", "preshared-keys: false")
    )
    assert here(tmp_path, "generate").status == 0
    store = tmp_path / "store"
    for step in ("prepare", "switch", "finish"):
        assert here(tmp_path, "rotate", step).status == 0
        texts = [(folder / name).read_text() for name in ("office.yaml", "lab.yaml")]
        assert keys_in(texts[0], "fra") == keys_in(texts[1], "fra")
    # And so in the key store.
    for network in ("office", "lab"):
        (store / network).mkdir(mode=0o700, parents=True)
        (store / network / "fra.key").write_bytes((folder / "fra.key").read_bytes())
        (store / network / "fra.key").chmod(0o600)
    files = [part for name in ("office", "lab") for part in ("-f", folder / f"{name}.yaml")]
    for step in ("prepare", "switch", "finish"):
        done = wgnet_here("keys", "rotate", step, "--host", "fra", "--keys", store, *files)
        assert (done.status, done.err) == (0, "")
        texts = [(folder / name).read_text() for name in ("office.yaml", "lab.yaml")]
        assert keys_in(texts[0], "fra") == keys_in(texts[1], "fra")


# --- what `check` and `keys show` tell ---


def test_check_tells_which_hosts_are_between_two_keys(office: Path) -> None:
    rotate(office, "prepare", "--host", "fra")
    done = wgnet_here("check", office / "office.yaml")
    assert done.status == 0
    assert "note[WG5007]: 'fra' is between two keys" in done.out
    assert "apply this file on 'nyc' and 'phone' before 'fra' is switched" in done.out
    assert "expect 'phone' to lose 'fra'" in done.out
    assert wgnet_here("check", "--strict", office / "office.yaml").status == 0


def test_show_has_the_next_key_and_masks_its_secret(office: Path) -> None:
    rotate(office, "prepare", "--host", "fra")
    secret = (office / "keys/office/_next/fra.key").read_text().strip()
    shown = json.loads(run(office, "show", "--format", "json").out)["keys"]
    assert [each["next_private_key"] for each in shown] == ["(hidden)", None, None]
    assert "next (hidden)" in run(office, "show").out
    assert secret in run(office, "show", "--show-secrets").out
