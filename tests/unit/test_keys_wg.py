"""wgnet's keys and wg(8)'s are the same keys."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.base64 import KeyProblem, check_key
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.system.hostkeys import create_host_private_key, read_host_private_key
from wgnet.system.keystore import KeyStore


@pytest.fixture(autouse=True)
def wg_is_installed() -> None:
    if shutil.which("wg") is None:
        if os.environ.get("CI"):
            pytest.fail("wg(8) is not installed, and in CI it must be")
        pytest.skip("wg(8) is not installed")


def wg(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["wg", *words], input=text, capture_output=True, text=True, check=False)


def test_a_private_key_of_wg_is_taken_as_it_is() -> None:
    for _ in range(8):
        text = wg("genkey").stdout.rstrip("\n")
        key = PrivateKey.parse(text)
        assert isinstance(key, PrivateKey)
        assert key.reveal() == text
        assert key.public() == wg("pubkey", text=text).stdout.rstrip("\n")


def test_wg_takes_our_private_key() -> None:
    for _ in range(8):
        key = PrivateKey.generate()
        done = wg("pubkey", text=key.reveal() + "\n")
        assert done.returncode == 0
        assert done.stdout == key.public() + "\n"


def test_an_unclamped_key_is_the_same_key_clamped() -> None:
    unclamped = "/" * 42 + "8="
    key = PrivateKey.parse(unclamped)
    assert isinstance(key, PrivateKey)
    assert key.reveal() != unclamped
    assert wg("pubkey", text=unclamped).stdout == wg("pubkey", text=key.reveal()).stdout


def test_a_preshared_key_of_wg_is_taken_as_it_is() -> None:
    text = wg("genpsk").stdout.rstrip("\n")
    key = PresharedKey.parse(text)
    assert isinstance(key, PresharedKey)
    assert key.reveal() == text


@pytest.mark.parametrize("last", "AEIMQUYcgkosw048" + "BCDFGHJKL+/9")
def test_wg_and_we_refuse_the_same_last_characters(last: str) -> None:
    text = "C" * 42 + last + "="
    assert (wg("pubkey", text=text).returncode == 0) == (check_key(text) is None)


@pytest.mark.parametrize("text", ["", "C" * 43, "C" * 42 + "==", "C" * 44, "-" * 42 + "A=", "C" * 45 + "="])
def test_wg_and_we_refuse_what_is_no_key(text: str) -> None:
    assert check_key(text) is KeyProblem.NOT_A_KEY
    assert wg("pubkey", text=text).returncode != 0


def test_wg_reads_our_key_files_and_we_read_its(tmp_path: Path) -> None:
    diagnostics = Diagnostics()
    store = KeyStore(tmp_path / "keys")
    created = store.create_private_key("office", "fra", diagnostics)
    assert created is not None
    content = (tmp_path / "keys/office/fra.key").read_text()
    assert wg("pubkey", text=content).stdout == created.public() + "\n"

    (tmp_path / "etc").mkdir()
    path = PurePosixPath("/etc/wgnet/office.key")
    on_host = create_host_private_key(tmp_path, path, diagnostics)
    assert on_host is not None
    assert wg("pubkey", text=(tmp_path / "etc/wgnet/office.key").read_text()).stdout == on_host.public() + "\n"

    (tmp_path / "etc/wgnet/office.key").write_text(wg("genkey").stdout)
    read = read_host_private_key(tmp_path, path, diagnostics)
    assert read is not None
    assert read.reveal() + "\n" == (tmp_path / "etc/wgnet/office.key").read_text()
    assert len(diagnostics) == 0
