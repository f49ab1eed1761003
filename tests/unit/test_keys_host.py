"""The keys on a host: its private key, and the file of preshared keys."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.host import (
    format_preshared_keys,
    parse_preshared_keys,
    preshared_keys_path,
    private_key_path,
)
from wgnet.keys.store import encode_secret
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.system.hostkeys import (
    create_host_private_key,
    read_host_preshared_key,
    read_host_preshared_keys,
    read_host_private_key,
)

KEY = PurePosixPath("/etc/wgnet/office.key")
PSK = PurePosixPath("/etc/wgnet/office.psk")


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


PUBLIC, OTHER = encode(b"\x01" * 32), encode(b"\x02" * 32)
SECRET = encode(b"\xab" * 32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/wgnet").mkdir(parents=True)
    return tmp_path


def put(root: Path, path: PurePosixPath, content: str | bytes, mode: int = 0o600) -> Path:
    place = root / path.relative_to("/")
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    place.chmod(mode)
    return place


# --- the file of preshared keys, as text ---


def test_the_places_are_those_of_the_manual() -> None:
    assert private_key_path("office") == str(KEY)
    assert preshared_keys_path("office") == str(PSK)


keys = st.binary(min_size=32, max_size=32).filter(any).map(encode)


@given(st.dictionaries(st.just("") | keys, st.dictionaries(keys, keys, min_size=1), max_size=3))
def test_what_is_formatted_is_parsed(texts: dict[str, dict[str, str]]) -> None:
    wanted = {
        own: {public: PresharedKey(base64.b64decode(secret)) for public, secret in of_own.items()}
        for own, of_own in texts.items()
    }
    diagnostics = Diagnostics()
    text = format_preshared_keys(wanted)
    assert parse_preshared_keys(text, "office.psk", diagnostics) == wanted
    assert len(diagnostics) == 0
    assert format_preshared_keys(dict(reversed(wanted.items()))) == text


def test_comments_blanks_and_line_ends_are_passed_over() -> None:
    text = f"# office\r\n\n  {PUBLIC}\t{SECRET}  # fra\r\n\t# {OTHER} {SECRET}"
    diagnostics = Diagnostics()
    found = parse_preshared_keys(text, "office.psk", diagnostics)
    assert {public: key.reveal() for public, key in found[""].items()} == {PUBLIC: SECRET}
    assert len(diagnostics) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (SECRET, "expected a public key and a preshared key, found 1 word"),
        (f"{OTHER} {SECRET} {PUBLIC} {SECRET}", "expected a public key and a preshared key, found 4 words"),
        (f"{OTHER} {SECRET} {PUBLIC[:-2]}", "the own public key is not 44 characters of base64"),
        (f"{OTHER} {SECRET} {'A' * 43}=", "the own public key is all zero"),
        (f"{SECRET[:-2]} {SECRET}", "the public key is not 44 characters of base64"),
        (f"{OTHER} {SECRET[:-1]}", "the preshared key is not 44 characters of base64"),
        (f"{OTHER} {SECRET[:-2]}t=", "the preshared key is not canonical base64"),
        (f"{OTHER} {'A' * 43}=", "the preshared key is all zero"),
        (f"{'A' * 43}= {SECRET}", "the public key is all zero"),
        (f"{PUBLIC} {SECRET}", "the public key stands in line 1 already"),
    ],
)
def test_a_wrong_line_is_reported_by_its_number_and_never_shown(line: str, message: str) -> None:
    diagnostics = Diagnostics()
    last = encode(b"\x03" * 32)
    text = f"{PUBLIC} {SECRET}\n# comment\n{line}\n{last} {SECRET}\n"
    found = parse_preshared_keys(text, "/etc/wgnet/office.psk", diagnostics)
    assert {own: set(of_own) for own, of_own in found.items()} == {"": {PUBLIC, last}}
    (problem,) = diagnostics
    assert problem.code is codes.KEY_STORE
    assert problem.message == message
    assert problem.primary is not None
    assert str(problem.primary.span) == "/etc/wgnet/office.psk:3:1"
    assert SECRET[:12] not in repr(problem)
    assert diagnostics.sources == {}


def test_every_wrong_line_is_reported() -> None:
    diagnostics = Diagnostics()
    parse_preshared_keys("a\nb c\n\nd e f\n", "office.psk", diagnostics)
    assert [d.primary.span.line for d in diagnostics if d.primary] == [1, 2, 4]


# --- reading ---


def test_what_is_not_there_is_none_and_no_problem(root: Path, tmp_path: Path) -> None:
    diagnostics = Diagnostics()
    for place in (root, tmp_path / "no-root"):
        assert read_host_private_key(place, KEY, diagnostics) is None
        assert read_host_preshared_keys(place, PSK, diagnostics) is None
        assert read_host_preshared_key(place, PSK, diagnostics) is None
    assert len(diagnostics) == 0


def test_keys_are_read_below_the_root(root: Path) -> None:
    private = PrivateKey.generate()
    put(root, KEY, private.reveal() + "\n", 0o640)
    put(root, PSK, f"{PUBLIC} {SECRET}\n")
    put(root, PurePosixPath("/etc/wgnet/agreed.psk"), SECRET)
    diagnostics = Diagnostics()
    assert read_host_private_key(root, KEY, diagnostics) == private
    found = read_host_preshared_keys(root, PSK, diagnostics)
    assert found is not None
    assert found[""][PUBLIC].reveal() == SECRET
    agreed = read_host_preshared_key(root, PurePosixPath("/etc/wgnet/agreed.psk"), diagnostics)
    assert agreed is not None
    assert agreed.reveal() == SECRET
    assert len(diagnostics) == 0


def test_the_running_system_is_a_root_too(root: Path) -> None:
    """There the system's own symbolic links to folders are followed, and none to a file."""
    private = PrivateKey.generate()
    place = put(root, KEY, private.reveal())
    (root / "link").symlink_to(root / "etc/wgnet")
    (root / "etc/wgnet/other.key").symlink_to(place)
    diagnostics = Diagnostics()
    assert read_host_private_key(Path("/"), PurePosixPath(root / "link/office.key"), diagnostics) == private
    assert len(diagnostics) == 0
    assert read_host_private_key(Path("/"), PurePosixPath(root / "link/other.key"), diagnostics) is None
    assert [d.message for d in diagnostics] == [
        f"expected a regular file at '{root}/link/other.key', found a symbolic link"
    ]


def test_another_root_is_never_left(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "office.key").write_text(SECRET)
    (outside / "office.key").chmod(0o600)
    (root / "etc/wgnet").rmdir()
    (root / "etc/wgnet").symlink_to(outside)
    diagnostics = Diagnostics()
    assert read_host_private_key(root, KEY, diagnostics) is None
    assert create_host_private_key(root, PurePosixPath("/etc/wgnet/new.key"), diagnostics) is None
    assert [(d.code, d.message) for d in diagnostics] == [
        (codes.KEY_STORE, f"expected a folder at '{root}/etc/wgnet', found a symbolic link")
    ] * 2
    assert [p.name for p in outside.iterdir()] == ["office.key"]
    with pytest.raises(ValueError, match="normalised"):
        read_host_private_key(root, PurePosixPath("/etc/../../office.key"), diagnostics)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o602, 0o601])
def test_a_file_that_everyone_may_open_is_refused(root: Path, mode: int) -> None:
    place = put(root, KEY, SECRET, mode)
    put(root, PSK, f"{PUBLIC} {SECRET}\n", mode)
    diagnostics = Diagnostics()
    assert read_host_private_key(root, KEY, diagnostics) is None
    assert read_host_preshared_keys(root, PSK, diagnostics) is None
    assert [d.code for d in diagnostics] == [codes.KEY_STORE] * 2
    assert f"'{place}'" in diagnostics.items[0].message
    assert f"found {mode:04o}" in diagnostics.items[0].message
    assert diagnostics.items[0].help[0] == f"run `chmod {mode & ~7:o} {place}`"
    assert SECRET not in repr(diagnostics)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the key in '{}' is not 44 characters of base64"),
        (SECRET[:-3], "the key in '{}' is not 44 characters of base64"),
        ("\n" + SECRET, "the key in '{}' is not 44 characters of base64"),
        (SECRET + " " + SECRET, "the key in '{}' is not 44 characters of base64"),
        (SECRET[:-2] + "t=", "the key in '{}' is not canonical base64"),
        ("A" * 43 + "=\n", "the key in '{}' is all zero"),
        (SECRET + "é", "'{}' does not hold a key"),
        (b"\xff\xfe" + SECRET.encode(), "'{}' does not hold a key"),
    ],
)
def test_a_damaged_key_is_reported_and_never_shown(root: Path, content: str | bytes, message: str) -> None:
    place = put(root, KEY, content)
    diagnostics = Diagnostics()
    assert read_host_private_key(root, KEY, diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.KEY_STORE
    assert found.message == message.format(place)
    assert SECRET[:12] not in repr(diagnostics)


def test_an_encrypted_key_is_of_no_use_on_a_host(root: Path) -> None:
    content = encode_secret(PrivateKey.generate(), b"secret")
    put(root, KEY, content)
    diagnostics = Diagnostics()
    assert read_host_private_key(root, KEY, diagnostics) is None
    (found,) = diagnostics
    assert "found an encrypted one" in found.message


def test_a_file_of_preshared_keys_that_is_not_text(root: Path) -> None:
    put(root, PSK, b"\xff\xfe " + SECRET.encode() + b"\n# caf\xc3\xa9\n")
    diagnostics = Diagnostics()
    assert read_host_preshared_keys(root, PSK, diagnostics) == {}
    assert [d.message for d in diagnostics] == ["the public key is not 44 characters of base64"]


# --- creating ---


def test_the_private_key_is_made_with_mode_and_group_before_its_first_byte(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = 54321 if os.geteuid() == 0 else os.getgid()
    states = []
    real = os.write

    def watch(file: int, data: bytes) -> int:
        found = os.fstat(file)
        states.append((stat.S_IMODE(found.st_mode), found.st_gid, found.st_size))
        return real(file, data)

    monkeypatch.setattr(os, "write", watch)
    diagnostics = Diagnostics()
    key = create_host_private_key(root, KEY, diagnostics, mode=0o640, gid=group)
    assert states == [(0o640, group, 0)]
    assert key is not None
    place = root / "etc/wgnet/office.key"
    assert place.read_text() == key.reveal() + "\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert place.stat().st_gid == group
    assert read_host_private_key(root, KEY, diagnostics) == key
    assert len(diagnostics) == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "etc").mkdir()
    diagnostics = Diagnostics()
    before = os.umask(umask)
    try:
        key = create_host_private_key(tmp_path, KEY, diagnostics)
    finally:
        os.umask(before)
    assert key is not None
    assert stat.S_IMODE((tmp_path / "etc/wgnet").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "etc/wgnet/office.key").stat().st_mode) == 0o600
    assert len(diagnostics) == 0


def test_a_key_is_never_overwritten(root: Path) -> None:
    place = put(root, KEY, SECRET)
    diagnostics = Diagnostics()
    assert create_host_private_key(root, KEY, diagnostics) is None
    assert place.read_text() == SECRET
    assert [d.message for d in diagnostics] == [f"'{place}' is there already, and no key is ever overwritten"]
    assert [p.name for p in place.parent.iterdir()] == ["office.key"]


def test_a_root_that_is_not_there_is_reported(tmp_path: Path) -> None:
    diagnostics = Diagnostics()
    assert create_host_private_key(tmp_path / "none", KEY, diagnostics) is None
    assert [d.code for d in diagnostics] == [codes.KEY_STORE]
    assert not (tmp_path / "none").exists()
