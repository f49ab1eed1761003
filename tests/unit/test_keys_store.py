"""The key store: its layout, its files, its passphrase."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys import store as form
from wgnet.keys.store import FileProblem
from wgnet.keys.types import MasterSecret, PresharedKey, PrivateKey, Secret
from wgnet.system.keystore import KeyStore

SECRET = base64.b64encode(b"\xab" * 32).decode()
PASSPHRASE = b"correct horse battery staple"


class Asked:
    """A passphrase that counts how often it was asked for."""

    def __init__(self, answer: bytes = PASSPHRASE) -> None:
        self.answer, self.times = answer, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.answer


@pytest.fixture
def diagnostics() -> Diagnostics:
    return Diagnostics()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def put(folder: Path, name: str, content: str | bytes, mode: int = 0o600) -> Path:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    place.chmod(mode)
    return place


def no_secret_in(diagnostics: Diagnostics, *more: str) -> bool:
    return not any(text[:12] in repr(diagnostics) for text in (SECRET, PASSPHRASE.decode(), *more))


# --- layout ---

CREATE: list[tuple[Callable[[KeyStore, Diagnostics], Secret | None], str]] = [
    (lambda store, d: store.create_private_key("office", "fra", d), "office/fra.key"),
    (lambda store, d: store.create_next_private_key("office", "fra", d), "office/_next/fra.key"),
    (lambda store, d: store.create_master("office", d), "office/_master.key"),
]
READ: list[Callable[[KeyStore, Diagnostics], Secret | None]] = [
    lambda store, d: store.private_key("office", "fra", d),
    lambda store, d: store.next_private_key("office", "fra", d),
    lambda store, d: store.master("office", d),
]


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o177])
def test_what_is_created_is_private_and_read_back(
    folder: Path, diagnostics: Diagnostics, umask: int, encrypt: bool
) -> None:
    before = os.umask(umask)
    try:
        store = KeyStore(folder, Asked() if encrypt else None, encrypt=encrypt)
        created = [create(store, diagnostics) for create, _ in CREATE]
    finally:
        os.umask(before)
    again = KeyStore(folder, Asked() if encrypt else None)
    assert [read(again, diagnostics) for read in READ] == created
    assert len(diagnostics) == 0
    assert None not in created
    for path in (folder, folder / "office", folder / "office/_next"):
        assert mode(path) == 0o700
    for _, name in CREATE:
        assert mode(folder / name) == 0o600
        assert (folder / name).read_bytes().startswith(b"-----BEGIN ENCRYPTED") == encrypt
    assert sum(p.is_file() for p in folder.rglob("*")) == 3


def test_hosts_are_never_called_what_other_files_are(folder: Path, diagnostics: Diagnostics) -> None:
    names = ("_master", "_next", "next", "master", "fra.next", "fra.key", "key", "fra", "psk")
    legal = tuple(sorted(name for name in names if "_" not in name))
    store = KeyStore(folder)
    store.create_master("office", diagnostics)
    for name in legal:
        assert store.create_private_key("office", name, diagnostics) is not None
        assert store.create_next_private_key("office", name, diagnostics) is not None
    assert store.hosts("office", diagnostics) == legal
    assert store.next_hosts("office", diagnostics) == legal
    assert store.hosts("other", diagnostics) == ()
    assert len(diagnostics) == 0
    for name in ("", "_master", "_next", ".x", "a/b", "..", "a\0b"):
        with pytest.raises(ValueError, match="host name"):
            store.private_key("office", name, diagnostics)
    for name in ("", ".", "..", "a/b", "a\0b"):
        with pytest.raises(ValueError, match="one part of a path"):
            store.hosts(name, diagnostics)


def test_other_files_are_no_hosts(folder: Path, diagnostics: Diagnostics) -> None:
    for name in ("README", "fra.key~", ".wgnet-new-00.key", "_master.key", ".key", "nyc.key"):
        put(folder, f"office/{name}", SECRET)
    assert KeyStore(folder).hosts("office", diagnostics) == ("nyc",)


def test_what_is_not_there_is_none_and_no_problem(folder: Path, diagnostics: Diagnostics) -> None:
    folder.mkdir(mode=0o700)
    for store in (KeyStore(folder), KeyStore(folder / "none", must_exist=False)):
        assert [read(store, diagnostics) for read in READ] == [None] * 3
        assert store.hosts("office", diagnostics) == ()
        assert not store.is_encrypted(diagnostics)
    assert len(diagnostics) == 0
    assert list(folder.iterdir()) == []


def test_a_store_that_is_not_there_is_reported_once(folder: Path, diagnostics: Diagnostics) -> None:
    store = KeyStore(folder)
    assert [read(store, diagnostics) for read in READ] == [None] * 3
    assert [(d.code, d.message) for d in diagnostics] == [(codes.KEY_STORE, f"there is no key store at '{folder}'")]
    second = Diagnostics()
    assert store.master("office", second) is None
    assert len(second) == 1


def test_a_key_is_never_overwritten(folder: Path, diagnostics: Diagnostics) -> None:
    store = KeyStore(folder)
    for create, name in CREATE:
        assert create(store, diagnostics) is not None
        content = (folder / name).read_bytes()
        assert len(diagnostics) == 0
        assert create(store, diagnostics) is None
        (found,) = diagnostics
        assert found.message == f"'{folder / name}' is there already, and no key is ever overwritten"
        assert (folder / name).read_bytes() == content
        diagnostics.items.clear()


# --- the passphrase ---


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=64))
@example(b"\xff" * 32, b"x")
@example(b"\x07" + b"\x00" * 30 + b"\x80", b"\0")
def test_encryption_keeps_every_bit(raw: bytes, passphrase: bytes) -> None:
    """The master secret is wrapped as an X25519 key, and must not come back clamped."""
    for kind in (MasterSecret, PresharedKey, PrivateKey):
        content = form.encode_secret(kind(raw), passphrase)
        assert form.is_encrypted(content)
        assert form.decode_secret(kind, content, passphrase) == kind(raw)
        assert form.decode_secret(kind, content, passphrase + b"!") is FileProblem.NOT_OPENED
        assert form.decode_secret(kind, content, None) is FileProblem.NOT_OPENED
    assert base64.b64decode(MasterSecret(raw).reveal()) == raw


def test_the_encrypted_file_is_standard_pkcs8(folder: Path, diagnostics: Diagnostics) -> None:
    key = KeyStore(folder, Asked(), encrypt=True).create_private_key("office", "fra", diagnostics)
    assert key is not None
    content = (folder / "office/fra.key").read_bytes()
    assert key.reveal().encode() not in content
    loaded = serialization.load_pem_private_key(content, PASSPHRASE)
    raw = loaded.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert base64.b64encode(raw).decode() == key.public()


def test_the_passphrase_is_asked_once_and_only_if_needed(folder: Path, diagnostics: Diagnostics) -> None:
    plain = Asked()
    store = KeyStore(folder, plain)
    store.create_private_key("office", "plain", diagnostics)
    assert store.private_key("office", "plain", diagnostics) is not None
    assert plain.times == 0

    asked = Asked()
    store = KeyStore(folder, asked, encrypt=True)
    for host in ("a", "b", "c"):
        assert store.create_private_key("office", host, diagnostics) is not None
        assert store.private_key("office", host, diagnostics) is not None
    assert store.private_key("office", "plain", diagnostics) is not None
    assert asked.times == 1

    asked = Asked(b"wrong")
    store = KeyStore(folder, asked)
    for host in ("a", "b", "c"):
        assert store.private_key("office", host, diagnostics) is None
    assert asked.times == 1


def test_a_wrong_passphrase_is_reported_once_and_never_shown(folder: Path, diagnostics: Diagnostics) -> None:
    store = KeyStore(folder, Asked(), encrypt=True)
    made = [store.create_private_key("office", host, diagnostics) for host in ("a", "b")]
    wrong = KeyStore(folder, Asked(b"wrong-passphrase"))
    assert wrong.private_key("office", "a", diagnostics) is None
    assert wrong.private_key("office", "b", diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.PASSPHRASE
    assert found.message == f"the passphrase does not open '{folder}/office/a.key'"
    assert no_secret_in(diagnostics, "wrong-passphrase", *(key.reveal() for key in made if key))


@pytest.mark.parametrize("answer", [b"", b"x" * 1024])
def test_a_passphrase_that_cannot_be_one(folder: Path, diagnostics: Diagnostics, answer: bytes) -> None:
    store = KeyStore(folder, Asked(answer), encrypt=True)
    assert store.create_private_key("office", "fra", diagnostics) is None
    assert store.create_private_key("office", "nyc", diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.PASSPHRASE
    assert found.message == f"expected a passphrase of 1 to 1023 bytes, found {len(answer)}"
    assert not folder.exists()


def test_an_encrypted_store_without_a_passphrase(folder: Path, diagnostics: Diagnostics) -> None:
    KeyStore(folder, Asked(), encrypt=True).create_private_key("office", "fra", diagnostics)
    store = KeyStore(folder)
    assert store.is_encrypted(diagnostics)
    assert store.private_key("office", "fra", diagnostics) is None
    assert store.create_private_key("office", "nyc", diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.PASSPHRASE
    assert not (folder / "office/nyc.key").exists()


@pytest.mark.parametrize(("create", "name"), CREATE)
def test_an_encrypted_store_stays_one(
    folder: Path,
    diagnostics: Diagnostics,
    create: Callable[[KeyStore, Diagnostics], Secret | None],
    name: str,
) -> None:
    """One encrypted file anywhere is enough, and what is new must be under the same passphrase."""
    KeyStore(folder).create_private_key("office", "aaa", diagnostics)
    KeyStore(folder, Asked(), encrypt=True).create_next_private_key("other", "zzz", diagnostics)
    assert create(KeyStore(folder, Asked()), diagnostics) is not None
    assert len(diagnostics) == 0
    assert form.is_encrypted((folder / name).read_bytes())
    (folder / name).unlink()

    for encrypt in (False, True):
        assert create(KeyStore(folder, Asked(b"another"), encrypt=encrypt), diagnostics) is None
        assert not (folder / name).exists()
    assert {d.code for d in diagnostics} == {codes.PASSPHRASE}


def test_a_file_under_another_passphrase_is_told_from_a_wrong_one(folder: Path, diagnostics: Diagnostics) -> None:
    KeyStore(folder, Asked(), encrypt=True).create_private_key("office", "a", diagnostics)
    put(folder, "office/b.key", form.encode_secret(PrivateKey.generate(), b"another"))
    store = KeyStore(folder, Asked())
    assert store.private_key("office", "a", diagnostics) is not None
    assert store.private_key("office", "b", diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.PASSPHRASE
    assert found.message == f"the passphrase opens other files of the key store, but not '{folder}/office/b.key'"


def test_a_store_knows_that_it_was_encrypted_a_moment_ago(folder: Path, diagnostics: Diagnostics) -> None:
    asked = Asked()
    store = KeyStore(folder, asked, encrypt=True)
    assert not store.is_encrypted(diagnostics)
    assert asked.times == 0
    store.create_master("office", diagnostics)
    assert store.is_encrypted(diagnostics)


def test_encryption_without_a_passphrase_is_a_bug(folder: Path) -> None:
    with pytest.raises(ValueError, match="needs a passphrase"):
        KeyStore(folder, encrypt=True)


# --- what is refused ---


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o620, 0o610, 0o644])
@pytest.mark.parametrize(("read", "name"), list(zip(READ, (name for _, name in CREATE), strict=True)))
def test_a_file_that_others_may_open_is_refused(
    folder: Path,
    diagnostics: Diagnostics,
    bits: int,
    read: Callable[[KeyStore, Diagnostics], Secret | None],
    name: str,
) -> None:
    place = put(folder, name, SECRET, bits)
    assert read(KeyStore(folder), diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.KEY_STORE
    assert (
        found.message == f"other users may read '{place}': expected mode {bits & 0o700:04o} or less, found {bits:04o}"
    )
    assert found.help[0] == f"run `chmod {bits & 0o700:o} {place}`"
    assert no_secret_in(diagnostics)


@pytest.mark.parametrize("which", [".", "office", "office/_next"])
@pytest.mark.parametrize("bits", [0o770, 0o707, 0o720, 0o702])
def test_a_folder_that_others_may_write_to_is_refused(
    folder: Path, diagnostics: Diagnostics, which: str, bits: int
) -> None:
    put(folder, "office/_next/fra.key", SECRET)
    (folder / which).chmod(bits)
    store = KeyStore(folder)
    assert store.next_private_key("office", "fra", diagnostics) is None
    assert store.create_next_private_key("office", "nyc", diagnostics) is None
    assert store.next_hosts("office", diagnostics) == ()
    (found,) = diagnostics
    assert found.code is codes.KEY_STORE
    assert f"found {bits:04o}" in found.message
    assert str(folder / which) in found.help[0]
    assert not (folder / "office/_next/nyc.key").exists()


@pytest.mark.parametrize("which", [".", "office", "office/fra.key"])
def test_what_belongs_to_another_user_is_refused(
    folder: Path, diagnostics: Diagnostics, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    put(folder, "office/fra.key", SECRET)
    if os.geteuid() == 0:
        os.chown(folder / which, 4242, -1)
        owner = 4242
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        which = "."
    assert KeyStore(folder).private_key("office", "fra", diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.KEY_STORE
    assert found.message == f"'{folder / which}' belongs to another user (uid {owner})"
    assert no_secret_in(diagnostics)


@pytest.mark.parametrize("which", ["office", "office/_next", "office/_next/fra.key"])
@pytest.mark.parametrize("dangling", [False, True])
def test_symbolic_links_in_the_store_are_refused(
    folder: Path, diagnostics: Diagnostics, tmp_path: Path, which: str, dangling: bool
) -> None:
    put(folder, "office/_next/fra.key", SECRET)
    (folder / which).rename(tmp_path / "elsewhere")
    (folder / which).symlink_to(tmp_path / ("none" if dangling else "elsewhere"))
    store = KeyStore(folder)
    assert store.next_private_key("office", "fra", diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.KEY_STORE
    kind = "a regular file" if which.endswith(".key") else "a folder"
    assert found.message == f"expected {kind} at '{folder / which}', found a symbolic link"
    assert store.create_next_private_key("office", "fra", Diagnostics()) is None
    assert (folder / which).is_symlink()
    assert not (tmp_path / "none").exists()


def test_the_store_itself_may_be_named_by_a_link(folder: Path, diagnostics: Diagnostics, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    created = KeyStore(folder).create_private_key("office", "fra", diagnostics)
    assert KeyStore(tmp_path / "link").private_key("office", "fra", diagnostics) == created
    assert len(diagnostics) == 0


def test_what_is_no_regular_file_is_refused_at_once(folder: Path, diagnostics: Diagnostics) -> None:
    put(folder, "office/x.key", SECRET)
    os.mkfifo(folder / "office/fifo.key", 0o600)
    (folder / "office/folder.key").mkdir(mode=0o700)
    put(folder, "file", SECRET)
    store = KeyStore(folder)
    assert store.private_key("office", "fifo", diagnostics) is None
    assert store.private_key("office", "folder", diagnostics) is None
    assert store.private_key("file", "fra", diagnostics) is None
    assert [d.message for d in diagnostics] == [
        f"expected a regular file at '{folder}/office/fifo.key', found a FIFO",
        f"expected a regular file at '{folder}/office/folder.key', found a folder",
        f"expected a folder at '{folder}/file', found a regular file",
    ]
    assert store.create_private_key("file", "fra", diagnostics) is None
    # The search for encrypted files passes over all of them.
    assert not KeyStore(folder).is_encrypted(diagnostics)


def test_a_store_that_is_a_file_is_refused(folder: Path, diagnostics: Diagnostics) -> None:
    folder.write_text(SECRET)
    assert KeyStore(folder).master("office", diagnostics) is None
    assert KeyStore(folder).create_master("office", diagnostics) is None
    assert {d.message for d in diagnostics} == {f"expected a folder at '{folder}', found a regular file"}
    assert folder.read_text() == SECRET


def ed25519_pem() -> bytes:
    return ed25519.Ed25519PrivateKey.from_private_bytes(b"\xab" * 32).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE),
    )


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("", codes.KEY_STORE, "the key in '{}' is not 44 characters of base64"),
        (SECRET + SECRET, codes.KEY_STORE, "the key in '{}' is not 44 characters of base64"),
        (SECRET[:-2] + "t=", codes.KEY_STORE, "the key in '{}' is not canonical base64"),
        ("A" * 43 + "=", codes.KEY_STORE, "the key in '{}' is all zero"),
        (SECRET.encode() + b"\xff", codes.KEY_STORE, "'{}' does not hold a key"),
        (ed25519_pem(), codes.KEY_STORE, "'{}' does not hold a key"),
        (ed25519_pem()[:-60], codes.PASSPHRASE, "the passphrase does not open '{}'"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + SECRET,
            codes.PASSPHRASE,
            "the passphrase does not open '{}'",
        ),
        (
            f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n",
            codes.KEY_STORE,
            "the key in '{}' is not 44 characters of base64",
        ),
        (SECRET + "\n" * 17_000_000, codes.KEY_STORE, "'{}' is too large to hold keys"),
    ],
    ids=range(10),
)
def test_a_damaged_file_is_reported_and_never_shown(
    folder: Path, diagnostics: Diagnostics, content: str | bytes, code: codes.Code, message: str
) -> None:
    place = put(folder, "office/fra.key", content)
    assert KeyStore(folder, Asked()).private_key("office", "fra", diagnostics) is None
    (found,) = diagnostics
    assert found.code is code
    assert found.message == message.format(place)
    assert no_secret_in(diagnostics)


def test_a_host_name_too_long_for_the_disk_is_reported(folder: Path, diagnostics: Diagnostics) -> None:
    host = ".".join(["a" * 62] * 4) + "a"
    store = KeyStore(folder)
    assert store.create_private_key("office", host, diagnostics) is None
    (found,) = diagnostics
    assert found.code is codes.KEY_STORE
    assert found.message.endswith("file name too long")
    assert list((folder / "office").iterdir()) == []
