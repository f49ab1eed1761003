"""The private keys of the examples, which stand nowhere: each follows from a seed that anybody can read here.

The examples bear the public keys alone, as a person's file does. Tests make a key store with `make_store`; a new
example gets its public keys with `python tests/example_keys.py FILE...`, where it says "@" ("@@" for the next key).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from wgnet.keys.types import MasterSecret, PrivateKey

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def private_key(network: str, host: str) -> PrivateKey:
    """Return a host's private key; the type clamps it."""
    return PrivateKey(hashlib.sha256(f"wgnet example key {network}/{host}".encode()).digest())


def next_private_key(network: str, host: str) -> PrivateKey:
    """Return the private key that a host changes to."""
    return PrivateKey(hashlib.sha256(f"wgnet example next key {network}/{host}".encode()).digest())


def master_secret(network: str) -> MasterSecret:
    """Return what a network's preshared keys are derived from."""
    return MasterSecret(hashlib.sha256(f"wgnet example master secret {network}".encode()).digest())


def given_preshared_key(name: str) -> str:
    """Return a preshared key that was agreed on elsewhere, in base64, by the name of its file or credential."""
    return MasterSecret(hashlib.sha256(f"wgnet example preshared key {name}".encode()).digest()).reveal()


def make_store(folder: Path, network: str, hosts: list[str], rotating: list[str]) -> None:
    """Write a key store with the private keys of a network's hosts, its master secret and the keys to come."""
    for path, secret in (
        (folder / network / "_master.key", master_secret(network)),
        *((folder / network / f"{host}.key", private_key(network, host)) for host in hosts),
        *((folder / network / "_next" / f"{host}.key", next_private_key(network, host)) for host in rotating),
    ):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret.reveal() + "\n")


def fill(text: str) -> str:
    """Return an example's text with the public keys in their places."""
    found = re.search(r"^  name: (\S+)$", text, re.MULTILINE)
    assert found is not None, "no network"
    network, host, hosts = found[1], "", False
    lines = []
    for line in text.split("\n"):
        hosts = line == "hosts:" or (hosts and line[:1] in ("", " ", "#"))
        name = re.match(r"  ([a-z0-9-]+):", line)
        if hosts and name:
            host = name[1]
        line = line.replace('"@@"', f'"{next_private_key(network, host).public()}"')
        lines.append(line.replace('"@"', f'"{private_key(network, host).public()}"'))
    return "\n".join(lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(fill(path.read_text()))
