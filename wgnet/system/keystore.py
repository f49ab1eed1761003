"""The key store on the disk.

Stage: system. Input: the folder of `--keys`, names, a passphrase; output: private keys and master secrets,
or diagnostics that name a path and never a content. The layout and the form of the files are
`wgnet.keys.store`'s. A key that is there is never overwritten.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys import store
from wgnet.keys.base64 import KeyProblem
from wgnet.keys.store import FileProblem
from wgnet.keys.types import MasterSecret, PrivateKey, Secret
from wgnet.system import secretfiles
from wgnet.system.secretfiles import Rules, Trouble

__all__ = ["KeyStore"]

#: Names may be seen, but nobody else may put a file of his own in the place of a key.
_FOLDER = Rules(forbidden=0o022, own=True)
_FILE = Rules(forbidden=0o077, own=True)

_DAMAGED = "restore the file from a backup, or remove it and make a new key"

S = TypeVar("S", bound=Secret)


class KeyStore:
    """The private keys and master secrets of networks, in a folder of the administrator.

    `passphrase` is asked at most once, and only if a file needs it. With `encrypt` new files are encrypted
    under it; without, they are as soon as any file of the store is: an encrypted store stays one. With
    `must_exist` it is an error to read from a store that is not there; creating a key makes the folder,
    0700, in any case.

    The methods return None both for what is not there and for what cannot be had; the second is reported. A
    problem that concerns the whole store is reported once to each collector.
    """

    def __init__(
        self,
        path: Path,
        passphrase: Callable[[], bytes | None] | None = None,
        *,
        encrypt: bool = False,
        must_exist: bool = True,
    ) -> None:
        if encrypt and passphrase is None:
            raise ValueError("encryption needs a passphrase")
        self._path = path
        self._ask = passphrase
        self._encrypt = encrypt
        self._must_exist = must_exist
        self._answer: bytes | None = None
        self._asked = False
        #: Whether the passphrase has opened a file, or may be used because there is none.
        self._proved = False
        #: Whether any file is encrypted; None until that was looked up.
        self._encrypted: bool | None = None
        self._swept: set[tuple[str, ...]] = set()
        self._told_to: Diagnostics | None = None
        self._told: set[str] = set()

    # --- reading ---

    def private_key(self, network: str, host: str, diagnostics: Diagnostics) -> PrivateKey | None:
        """Return a host's private key."""
        return self._read(PrivateKey, (store.network_folder(network),), store.host_file(host), diagnostics)

    def next_private_key(self, network: str, host: str, diagnostics: Diagnostics) -> PrivateKey | None:
        """Return the private key that a host changes to."""
        return self._read(PrivateKey, _next(network), store.host_file(host), diagnostics)

    def host_path(self, network: str, host: str) -> Path:
        """Return where a host's private key is, or would be; the path is for messages."""
        return self._path / store.network_folder(network) / store.host_file(host)

    def master(self, network: str, diagnostics: Diagnostics) -> MasterSecret | None:
        """Return the secret that a network's preshared keys are derived from."""
        return self._read(MasterSecret, (store.network_folder(network),), store.MASTER_FILE, diagnostics)

    def hosts(self, network: str, diagnostics: Diagnostics) -> tuple[str, ...]:
        """Return the hosts of a network that the store has a private key of, sorted."""
        return self._hosts((store.network_folder(network),), diagnostics)

    def next_hosts(self, network: str, diagnostics: Diagnostics) -> tuple[str, ...]:
        """Return the hosts of a network that the store has a next private key of, sorted."""
        return self._hosts(_next(network), diagnostics)

    def is_encrypted(self, diagnostics: Diagnostics) -> bool:
        """Return whether any file of the store is encrypted. The passphrase is not asked for."""
        if self._encrypted is None:
            self._encrypted = self._first_encrypted(diagnostics) is not None
        return self._encrypted

    # --- creating ---

    def create_private_key(self, network: str, host: str, diagnostics: Diagnostics) -> PrivateKey | None:
        """Make a host's private key; one that is there already is an error."""
        return self._create(PrivateKey, (store.network_folder(network),), store.host_file(host), diagnostics)

    def create_next_private_key(
        self, network: str, host: str, diagnostics: Diagnostics, key: PrivateKey | None = None
    ) -> PrivateKey | None:
        """Make the private key that a host changes to, or store `key` as it; one that is there already is an error."""
        return self._create(PrivateKey, _next(network), store.host_file(host), diagnostics, key)

    def create_master(self, network: str, diagnostics: Diagnostics) -> MasterSecret | None:
        """Make a network's master secret; one that is there already is an error."""
        return self._create(MasterSecret, (store.network_folder(network),), store.MASTER_FILE, diagnostics)

    # --- rotating ---

    def has_previous(self, network: str, host: str, diagnostics: Diagnostics) -> bool:
        """Return whether the private key that a host has changed from is still there."""
        return host in self._hosts(_previous(network), diagnostics)

    def switch_private_key(self, network: str, host: str, diagnostics: Diagnostics) -> bool:
        """Make the next private key of a host its present one, which stays as the previous one.

        It is one step, and a run that is killed loses neither. Return False after reporting why not.
        """
        name, present = store.host_file(host), (store.network_folder(network),)
        trouble: Trouble | None = None
        with (
            self._folder(present, diagnostics) as folder,
            self._folder(_next(network), diagnostics) as following,
            self._folder(_previous(network), diagnostics, make=True) as previous,
        ):
            if folder is None or following is None or previous is None:
                return False
            shown = str(self.host_path(network, host))
            trouble = secretfiles.take_over_secret(
                folder, name, shown, following=(following, name), previous=(previous, name)
            )
        if trouble is not None:
            diagnostics.report(codes.KEY_STORE, trouble.message, help=trouble.help)
        return trouble is None

    def shred_previous(self, network: str, host: str, diagnostics: Diagnostics) -> bool:
        """Remove the private key that a host has changed from. Return False after reporting why not."""
        name = store.host_file(host)
        with self._folder(_previous(network), diagnostics) as folder:
            shown = str(self._path.joinpath(*_previous(network), name))
            trouble = None if folder is None else secretfiles.shred_secret(folder, name, shown)
        if trouble is not None:
            diagnostics.report(codes.KEY_STORE, trouble.message, help=trouble.help)
        return trouble is None

    # --- how ---

    def _read(self, kind: type[S], folders: tuple[str, ...], name: str, diagnostics: Diagnostics) -> S | None:
        shown = str(self._path.joinpath(*folders, name))
        with self._folder(folders, diagnostics) as folder:
            if folder is None:
                return None
            content = secretfiles.read_secret(folder, name, shown, _FILE)
        if isinstance(content, Trouble):
            diagnostics.report(codes.KEY_STORE, content.message, help=content.help)
            return None
        if content is None:
            return None
        return self._decode(kind, content, shown, diagnostics)

    def _decode(self, kind: type[S], content: bytes, shown: str, diagnostics: Diagnostics) -> S | None:
        passphrase = None
        if store.is_encrypted(content):
            passphrase = self._passphrase(diagnostics)
            if passphrase is None:
                return None
        secret = store.decode_secret(kind, content, passphrase)
        if isinstance(secret, KeyProblem):
            diagnostics.report(codes.KEY_STORE, f"the key in '{shown}' {secret.value}", help=_DAMAGED)
            return None
        if secret is FileProblem.NOT_A_KEY:
            diagnostics.report(codes.KEY_STORE, f"'{shown}' {secret.value}", help=_DAMAGED)
            return None
        if isinstance(secret, FileProblem):
            if self._proved:
                diagnostics.report(
                    codes.PASSPHRASE,
                    f"the passphrase opens other files of the key store, but not '{shown}'",
                    help="give every file one passphrase, or replace the file if it is damaged",
                )
            else:
                self._report_once(
                    diagnostics,
                    codes.PASSPHRASE,
                    f"the passphrase does not open '{shown}'",
                    "give the passphrase that the key store was made with",
                    key="passphrase",
                )
            return None
        self._proved = self._proved or passphrase is not None
        return secret

    def _create(
        self, kind: type[S], folders: tuple[str, ...], name: str, diagnostics: Diagnostics, secret: S | None = None
    ) -> S | None:
        passphrase = None
        if self._encrypt or self.is_encrypted(diagnostics):
            passphrase = self._passphrase_for_new(diagnostics)
            if passphrase is None:
                return None
        secret = kind.generate() if secret is None else secret
        with self._folder(folders, diagnostics, make=True) as folder:
            if folder is None:
                return None
            if folders not in self._swept:
                secretfiles.remove_leftovers(folder)
                self._swept.add(folders)
            shown = str(self._path.joinpath(*folders, name))
            trouble = secretfiles.create_secret(folder, name, shown, store.encode_secret(secret, passphrase))
        if trouble is not None:
            diagnostics.report(codes.KEY_STORE, trouble.message, help=trouble.help)
            return None
        if passphrase is not None:
            self._encrypted = True
        return secret

    def _hosts(self, folders: tuple[str, ...], diagnostics: Diagnostics) -> tuple[str, ...]:
        with self._folder(folders, diagnostics) as folder:
            if folder is None:
                return ()
            names = secretfiles.list_folder(folder, str(self._path.joinpath(*folders)))
        if isinstance(names, Trouble):
            diagnostics.report(codes.KEY_STORE, names.message, help=names.help)
            return ()
        return tuple(sorted(host for name in names if (host := store.host_of_file(name)) is not None))

    @contextlib.contextmanager
    def _folder(
        self, folders: tuple[str, ...], diagnostics: Diagnostics, *, make: bool = False
    ) -> Iterator[int | None]:
        """Open a folder of the store; None if it is not there, or if it was reported."""
        with contextlib.ExitStack() as stack:
            path, mode = self._path, 0o700 if make else None
            current = stack.enter_context(secretfiles.top_folder(path, _FOLDER, make=mode))
            if current is None and self._must_exist:
                current = Trouble(
                    f"there is no key store at '{path}'",
                    ("name the folder that `wgnet keys generate --keys DIR` made",),
                )
            for name in folders:
                if not isinstance(current, int):
                    break
                path = path / name
                current = stack.enter_context(secretfiles.folder_at(current, name, str(path), _FOLDER, make=mode))
            if isinstance(current, Trouble):
                self._report_once(diagnostics, codes.KEY_STORE, current.message, *current.help)
                current = None
            yield current

    def _passphrase(self, diagnostics: Diagnostics) -> bytes | None:
        """Return the passphrase, which is asked for once; what keeps it from being used is reported."""
        if self._ask is None:
            self._report_once(
                diagnostics,
                codes.PASSPHRASE,
                f"the key store '{self._path}' is encrypted, and there is no passphrase",
                "give the passphrase that the key store was made with",
            )
            return None
        if not self._asked:
            self._asked = True
            self._answer = self._ask()
        if self._answer is None:
            return None
        if not store.is_usable_passphrase(self._answer):
            self._report_once(
                diagnostics,
                codes.PASSPHRASE,
                f"expected a passphrase of 1 to {store.PASSPHRASE_BYTES} bytes, found {len(self._answer)}",
                "give a passphrase of that length",
            )
            return None
        return self._answer

    def _passphrase_for_new(self, diagnostics: Diagnostics) -> bytes | None:
        """Return the passphrase if it opens what the store has: one store is to have one passphrase."""
        passphrase = self._passphrase(diagnostics)
        if passphrase is None or self._proved:
            return passphrase
        found = self._first_encrypted(diagnostics)
        if found is not None:
            shown, content = found
            # The kind does not matter to the question whether it opens.
            if self._decode(MasterSecret, content, shown, diagnostics) is None:
                return None
        self._proved = True
        return passphrase

    def _first_encrypted(self, diagnostics: Diagnostics) -> tuple[str, bytes] | None:
        """Return the path and content of an encrypted file of the store.

        What cannot be read is passed over here: it is reported when it is asked for.
        """
        with secretfiles.top_folder(self._path, _FOLDER) as top:
            if isinstance(top, Trouble):
                self._report_once(diagnostics, codes.KEY_STORE, top.message, *top.help)
            if not isinstance(top, int):
                return None
            return _first_encrypted_below(top, self._path, depth=0)

    def _report_once(
        self, diagnostics: Diagnostics, code: Code, message: str, *help_lines: str, key: str | None = None
    ) -> None:
        """Report what concerns the whole store: not again for each of thousands of hosts."""
        if self._told_to is not diagnostics:
            self._told_to = diagnostics
            self._told.clear()
        if (key or message) not in self._told:
            self._told.add(key or message)
            diagnostics.report(code, message, help=help_lines)


def _next(network: str) -> tuple[str, ...]:
    return (store.network_folder(network), store.NEXT_FOLDER)


def _previous(network: str) -> tuple[str, ...]:
    return (store.network_folder(network), store.PREVIOUS_FOLDER)


def _first_encrypted_below(folder: int, path: Path, depth: int) -> tuple[str, bytes] | None:
    """Look through a folder of the store: networks at depth 0, their keys at 1, their next and previous ones at 2."""
    names = secretfiles.list_folder(folder, str(path))
    if isinstance(names, Trouble):
        return None
    for name in names:
        shown = str(path / name)
        if depth > 0 and name.endswith(store.SUFFIX):
            content = secretfiles.read_secret(folder, name, shown, _FILE)
            if isinstance(content, bytes) and store.is_encrypted(content):
                return shown, content
        elif depth == 0 or name in (store.NEXT_FOLDER, store.PREVIOUS_FOLDER):
            with secretfiles.folder_at(folder, name, shown, _FOLDER) as below:
                if isinstance(below, int):
                    found = _first_encrypted_below(below, path / name, depth + 1)
                    if found is not None:
                        return found
    return None
