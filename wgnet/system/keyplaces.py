"""The two places where a host's private keys may be, seen alike: the administrator's key store, and the host itself.

Stage: system. Input: a network and a host; output: its private keys, and what a rotation does with them, or
diagnostics. Whatever is killed in here, no key is lost: a new one is on the disk before the old one leaves its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.rotation import KeysAtHand
from wgnet.keys.types import PrivateKey
from wgnet.system import hostkeys
from wgnet.system.keystore import KeyStore

__all__ = ["HostPlace", "KeyPlace", "StorePlace"]


class KeyPlace(Protocol):
    """Where the private keys of one host in one network are."""

    @property
    def shown(self) -> str:
        """The path of the present key, for messages."""

    def read(self, diagnostics: Diagnostics) -> KeysAtHand:
        """Return the keys; one that cannot be had is reported, and None."""

    def make_next(self, diagnostics: Diagnostics, key: PrivateKey | None) -> PrivateKey | None:
        """Make the next private key, or keep `key` as it; None after reporting why not."""

    def switch(self, diagnostics: Diagnostics) -> bool:
        """Make the next private key the present one, and that the previous one; False after reporting why not."""

    def shred_previous(self, diagnostics: Diagnostics) -> bool:
        """Remove the previous private key; False after reporting why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """The key store."""

    store: KeyStore
    network: str
    host: str

    @property
    def shown(self) -> str:
        """The path of the present key, for messages."""
        return str(self.store.host_path(self.network, self.host))

    def read(self, diagnostics: Diagnostics) -> KeysAtHand:
        """Return the keys; one that cannot be had is reported, and None."""
        return KeysAtHand(
            present=self.store.private_key(self.network, self.host, diagnostics),
            following=self.store.next_private_key(self.network, self.host, diagnostics),
            has_previous=self.store.has_previous(self.network, self.host, diagnostics),
        )

    def make_next(self, diagnostics: Diagnostics, key: PrivateKey | None) -> PrivateKey | None:
        """Make the next private key, or keep `key` as it; None after reporting why not."""
        return self.store.create_next_private_key(self.network, self.host, diagnostics, key)

    def switch(self, diagnostics: Diagnostics) -> bool:
        """Make the next private key the present one, and that the previous one; False after reporting why not."""
        return self.store.switch_private_key(self.network, self.host, diagnostics)

    def shred_previous(self, diagnostics: Diagnostics) -> bool:
        """Remove the previous private key; False after reporting why not."""
        return self.store.shred_previous(self.network, self.host, diagnostics)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlace:
    """The host's own key file. `ownership` is asked for the mode, owner and group of a new one: -1 leaves it."""

    root: Path
    path: PurePosixPath
    ownership: Callable[[], tuple[int, int, int]]

    @property
    def shown(self) -> str:
        """The path of the present key, for messages."""
        return str(self.path)

    def read(self, diagnostics: Diagnostics) -> KeysAtHand:
        """Return the keys; one that cannot be had is reported, and None."""
        return KeysAtHand(
            present=hostkeys.read_host_private_key(self.root, self.path, diagnostics),
            following=hostkeys.read_host_private_key(self.root, hostkeys.next_key_path(self.path), diagnostics),
            has_previous=hostkeys.has_previous_host_key(self.root, self.path),
        )

    def make_next(self, diagnostics: Diagnostics, key: PrivateKey | None) -> PrivateKey | None:
        """Make the next private key, or keep `key` as it; None after reporting why not."""
        mode, uid, gid = self.ownership()
        path = hostkeys.next_key_path(self.path)
        return hostkeys.create_host_private_key(self.root, path, diagnostics, mode=mode, uid=uid, gid=gid, key=key)

    def switch(self, diagnostics: Diagnostics) -> bool:
        """Make the next private key the present one, and that the previous one; False after reporting why not."""
        return hostkeys.switch_host_private_key(self.root, self.path, diagnostics)

    def shred_previous(self, diagnostics: Diagnostics) -> bool:
        """Remove the previous private key; False after reporting why not."""
        return hostkeys.shred_previous_host_key(self.root, self.path, diagnostics)
