"""The keys that lie on a host: its private keys and the preshared keys of its links.

Stage: system. Input: paths below a root; output: keys, or diagnostics that name a path and never a content.
Where the files lie and what stands in them is `wgnet.keys.host`'s. A key that is there is never
overwritten.

A key file may be readable to a group, since systemd-networkd reads it as another user than root, but not to
everyone. Who owns it is not asked: on a host, root has decided that.
"""

from __future__ import annotations

import contextlib
import grp
import os
from pathlib import Path, PurePosixPath
from typing import TypeVar

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import system_reason
from wgnet.keys.base64 import KeyProblem
from wgnet.keys.host import OwnPresharedKeys, parse_preshared_keys
from wgnet.keys.store import FileProblem, decode_secret, encode_secret, is_encrypted
from wgnet.keys.types import PresharedKey, PrivateKey, Secret
from wgnet.syntax.spec import Manager
from wgnet.system import secretfiles
from wgnet.system.secretfiles import Rules, Trouble

__all__ = [
    "create_host_private_key",
    "has_previous_host_key",
    "host_key_ownership",
    "next_key_path",
    "read_host_preshared_key",
    "read_host_preshared_keys",
    "read_host_private_key",
    "shred_previous_host_key",
    "switch_host_private_key",
    "write_host_public_key",
]

#: Nobody else may put a file of his own in the place of a key.
_FOLDER = Rules(forbidden=0o002, own=False)
_FILE = Rules(forbidden=0o007, own=False)

_DAMAGED = "put a key there as `wg genkey` writes it"

S = TypeVar("S", bound=Secret)


def read_host_private_key(root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> PrivateKey | None:
    """Return the private key in a file of the host; None if the file is not there, or if it was reported."""
    return _read_key(PrivateKey, root, path, diagnostics)


def read_host_preshared_key(root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> PresharedKey | None:
    """Return the one preshared key in a file of the host, as `preshared-key: {file: PATH}` names it."""
    return _read_key(PresharedKey, root, path, diagnostics)


def read_host_preshared_keys(root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> OwnPresharedKeys | None:
    """Return a host's preshared keys by its own public key, "" where no line says which, and by the peers'.

    None if the file is not there, or if it could not be read, which is reported, as is every wrong line.
    """
    content = _read(root, path, diagnostics)
    if content is None:
        return None
    # What is not ASCII is in a comment or in a line that is wrong anyway.
    return parse_preshared_keys(content.decode("ascii", "replace"), str(_below(root, path)), diagnostics)


def host_key_ownership(manager: Manager, diagnostics: Diagnostics) -> tuple[int, int, int]:
    """Return the mode, owner and group of a private key on this host; -1 leaves what whoever runs this has."""
    uid = 0 if os.geteuid() == 0 else -1
    if manager is not Manager.NETWORKD:
        return 0o600, uid, -1
    # systemd-networkd reads the key itself, and not as root.
    return 0o640, uid, _networkd_group(diagnostics) if uid == 0 else -1


def _networkd_group(diagnostics: Diagnostics) -> int:
    try:
        return grp.getgrnam("systemd-network").gr_gid
    except KeyError:
        diagnostics.report(
            codes.GROUP_MISSING,
            "there is no group 'systemd-network' here, the key belongs to root alone",
            help="install systemd-networkd, then `chgrp systemd-network` the key: it does not run as root",
        )
        return -1


def create_host_private_key(
    root: Path,
    path: PurePosixPath,
    diagnostics: Diagnostics,
    *,
    mode: int = 0o600,
    uid: int = -1,
    gid: int = -1,
    key: PrivateKey | None = None,
) -> PrivateKey | None:
    """Make the host's private key, or put `key`, in a new file, and its folder (0755) if that is not there.

    `mode`, `uid` and `gid` hold before the key is in the file: 0640 and the group systemd-network where
    systemd-networkd reads it, else 0600; -1 leaves an owner as it is. A file that is there already is an
    error.
    """
    shown = str(_below(root, path))
    key = PrivateKey.generate() if key is None else key
    # Topology files lie in the same folder, and networkd must get through it.
    with secretfiles.folder_beneath(root, path.parent, _FOLDER, make=0o755) as folder:
        trouble: Trouble | None
        if folder is None:
            trouble = Trouble(f"the folder of '{shown}' cannot be made: the one above it is not there")
        elif isinstance(folder, Trouble):
            trouble = folder
        else:
            secretfiles.remove_leftovers(folder)
            trouble = secretfiles.create_secret(
                folder, path.name, shown, encode_secret(key, None), mode=mode, uid=uid, gid=gid
            )
    if trouble is not None:
        diagnostics.report(codes.KEY_STORE, trouble.message, help=trouble.help)
        return None
    return key


def write_host_public_key(
    root: Path, path: PurePosixPath, key: PrivateKey, diagnostics: Diagnostics
) -> PurePosixPath | None:
    """Write the public key of a private one beside it, as `NAME.pub` (0644); return where, None after an error."""
    place = path.with_suffix(".pub") if path.suffix == ".key" else path.with_name(f"{path.name}.pub")
    shown, new = str(_below(root, place)), f".{place.name}.new"
    try:
        with secretfiles.folder_beneath(root, path.parent, _FOLDER) as folder:
            if folder is None or isinstance(folder, Trouble):
                diagnostics.report(
                    codes.KEY_STORE, f"the folder of '{shown}' is not there" if folder is None else folder.message
                )
                return None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600, dir_fd=folder), "w", encoding="ascii") as stream:
                os.fchmod(stream.fileno(), 0o644)
                stream.write(f"{key.public()}\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(new, place.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        diagnostics.report(codes.KEY_STORE, f"'{shown}' cannot be written: {system_reason(error)}")
        return None
    return place


def next_key_path(path: PurePosixPath) -> PurePosixPath:
    """Return where the key lies that the one at `path` is to be changed for."""
    return path.with_name(f"{path.name}.next")


def _previous_key_path(path: PurePosixPath) -> PurePosixPath:
    return path.with_name(f"{path.name}.previous")


def has_previous_host_key(root: Path, path: PurePosixPath) -> bool:
    """Return whether the key that the one at `path` was changed for is still there."""
    return os.path.lexists(_below(root, _previous_key_path(path)))


def switch_host_private_key(root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> bool:
    """Make the host's next private key its present one, which stays as the previous one.

    It is one step, and a run that is killed loses neither. Return False after reporting why not.
    """
    shown = str(_below(root, path))
    with secretfiles.folder_beneath(root, path.parent, _FOLDER) as folder:
        trouble: Trouble | None
        if folder is None:
            trouble = Trouble(f"the folder of '{shown}' is not there")
        elif isinstance(folder, Trouble):
            trouble = folder
        else:
            trouble = secretfiles.take_over_secret(
                folder,
                path.name,
                shown,
                following=(folder, next_key_path(path).name),
                previous=(folder, _previous_key_path(path).name),
            )
    if trouble is not None:
        diagnostics.report(codes.KEY_STORE, trouble.message, help=trouble.help)
    return trouble is None


def shred_previous_host_key(root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> bool:
    """Remove the private key that the host has changed from. Return False after reporting why not."""
    previous = _previous_key_path(path)
    with secretfiles.folder_beneath(root, path.parent, _FOLDER) as folder:
        trouble: Trouble | None = None
        if isinstance(folder, Trouble):
            trouble = folder
        elif folder is not None:
            trouble = secretfiles.shred_secret(folder, previous.name, str(_below(root, previous)))
    if trouble is not None:
        diagnostics.report(codes.KEY_STORE, trouble.message, help=trouble.help)
    return trouble is None


def _read_key(kind: type[S], root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> S | None:
    content = _read(root, path, diagnostics)
    if content is None:
        return None
    shown = str(_below(root, path))
    if is_encrypted(content):
        # networkd and wg(8), which read the same file, know no passphrase.
        diagnostics.report(
            codes.KEY_STORE,
            f"expected a key in base64 in '{shown}', found an encrypted one",
            help="deliver the host's key from the key store with `--keys`",
        )
        return None
    key = decode_secret(kind, content, None)
    if isinstance(key, KeyProblem):
        diagnostics.report(codes.KEY_STORE, f"the key in '{shown}' {key.value}", help=_DAMAGED)
        return None
    if isinstance(key, FileProblem):
        diagnostics.report(codes.KEY_STORE, f"'{shown}' {key.value}", help=_DAMAGED)
        return None
    return key


def _read(root: Path, path: PurePosixPath, diagnostics: Diagnostics) -> bytes | None:
    with secretfiles.folder_beneath(root, path.parent, _FOLDER) as folder:
        if isinstance(folder, int):
            content = secretfiles.read_secret(folder, path.name, str(_below(root, path)), _FILE)
        else:
            content = folder
    if isinstance(content, Trouble):
        diagnostics.report(codes.KEY_STORE, content.message, help=content.help)
        return None
    return content


def _below(root: Path, path: PurePosixPath) -> Path:
    return root / path.relative_to("/")
