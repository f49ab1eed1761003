"""The key store's layout, and the form of a secret in its files.

Stage: keys. Input: names, secrets, the bytes of a file; output: file names, the bytes of a file, secrets.
What opens the files is `wgnet.system.keystore`. Nothing here opens one, and no problem that it returns
quotes a file's content.

The layout, below the folder that `--keys` names:

    NETWORK/HOST.key         a host's private key
    NETWORK/_next/HOST.key   the one that it changes to, while a rotation is under way
    NETWORK/_previous/HOST.key   the one that it has changed from, until the rotation ends
    NETWORK/_master.key      the master secret, from which the network's preshared keys are derived

A host name has no underscore (RFC 1123), so no host can be called what another file is called. Each file
holds one key, either in base64 with a line end, as wg(8) writes and reads it, or as a PKCS#8 PEM block that
is encrypted under the store's passphrase. cryptography's PKCS#8 derives the key from the passphrase with
2,048 rounds of PBKDF2: against someone who has the files, a passphrase is worth its length.
"""

from __future__ import annotations

import binascii
import enum
from typing import TypeVar

from wgnet.keys.base64 import KeyProblem
from wgnet.keys.types import Secret

__all__ = [
    "MASTER_FILE",
    "NEXT_FOLDER",
    "PREVIOUS_FOLDER",
    "SUFFIX",
    "FileProblem",
    "decode_secret",
    "encode_secret",
    "host_file",
    "host_of_file",
    "is_encrypted",
    "is_usable_passphrase",
    "network_folder",
]

MASTER_FILE = "_master.key"
NEXT_FOLDER = "_next"
PREVIOUS_FOLDER = "_previous"
SUFFIX = ".key"

#: The longest passphrase that OpenSSL takes for PKCS#8 (PEM_BUFSIZE less one), in bytes.
PASSPHRASE_BYTES = 1023

_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"

S = TypeVar("S", bound=Secret)


class FileProblem(enum.Enum):
    """Why the content of a file is no secret; the value completes the sentence 'the file ...'."""

    NOT_A_KEY = "does not hold a key"
    #: The block is whole enough to be tried. PKCS#8 cannot tell a wrong passphrase from damage.
    NOT_OPENED = "is not opened by the passphrase"


def network_folder(network: str) -> str:
    """Return the name of a network's folder in the store."""
    if network in {"", ".", ".."} or "/" in network or "\0" in network:
        raise ValueError("a network's name is one part of a path")
    return network


def host_file(host: str) -> str:
    """Return the name of a host's file in a network's folder, or in the folder of the next keys."""
    if not host or host.startswith((".", "_")) or "/" in host or "\0" in host:
        raise ValueError("a host's name is a host name of RFC 1123")
    return host + SUFFIX


def host_of_file(name: str) -> str | None:
    """Return the host whose key a file of this name holds, or None for any other file."""
    if not name.endswith(SUFFIX) or name.startswith((".", "_")):
        return None
    return name.removesuffix(SUFFIX)


def is_encrypted(content: bytes) -> bool:
    """Return whether the content of a key file is encrypted under a passphrase."""
    return content.lstrip().startswith(_ENCRYPTED)


def is_usable_passphrase(passphrase: bytes) -> bool:
    """Return whether PKCS#8 can be encrypted under this passphrase: 1 to 1023 bytes."""
    return 1 <= len(passphrase) <= PASSPHRASE_BYTES


def encode_secret(secret: Secret, passphrase: bytes | None) -> bytes:
    """Return the content of the file that keeps a secret, encrypted if there is a passphrase.

    The master secret is wrapped as if it were an X25519 key: PKCS#8 takes the 32 bytes as they are.
    """
    if passphrase is None:
        return secret.reveal().encode("ascii") + b"\n"
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(binascii.a2b_base64(secret.reveal())).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )


def decode_secret(kind: type[S], content: bytes, passphrase: bytes | None) -> S | FileProblem | KeyProblem:
    """Return the secret that a file holds, or what is wrong with its content.

    White space at the end is allowed, as `wg set ... private-key` allows it. `passphrase` is used only where
    `is_encrypted` holds.
    """
    if is_encrypted(content):
        return FileProblem.NOT_OPENED if passphrase is None else _decrypt(kind, content, passphrase)
    try:
        text = content.rstrip().decode("ascii")
    except UnicodeDecodeError:
        return FileProblem.NOT_A_KEY
    return kind.parse(text)


def _decrypt(kind: type[S], content: bytes, passphrase: bytes) -> S | FileProblem:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    if not is_usable_passphrase(passphrase):
        return FileProblem.NOT_OPENED
    try:
        key = serialization.load_pem_private_key(content, passphrase)
    except ValueError:
        return FileProblem.NOT_OPENED
    except UnsupportedAlgorithm:
        return FileProblem.NOT_A_KEY
    if not isinstance(key, X25519PrivateKey):
        return FileProblem.NOT_A_KEY
    return kind(
        key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    )
