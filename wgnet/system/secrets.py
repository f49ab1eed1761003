"""Where the secrets of an interface come from: the administrator's key store, or the host itself.

Input: plans. Output: `InterfaceSecrets` for the managers, and diagnostics where a key does not fit. Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.host import preshared_keys_path
from wgnet.keys.match import check_key_pair
from wgnet.keys.types import MasterSecret, PresharedKey, PrivateKey
from wgnet.managers.base import InterfaceSecrets
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import SecretSource
from wgnet.system.hostkeys import read_host_preshared_key, read_host_preshared_keys, read_host_private_key
from wgnet.system.keystore import KeyStore


@dataclass(slots=True, kw_only=True)
class SecretFinder:
    """Finds secrets in a key store (`store`), and on this host below `root`; None where there is none to look in."""

    store: KeyStore | None = None
    root: Path | None = None
    _masters: dict[str, MasterSecret | None] = field(default_factory=dict)

    def find(self, plan: InterfacePlan, diagnostics: Diagnostics) -> InterfaceSecrets:
        """Return the secrets of one interface that are at hand; the key store comes before the host."""
        return InterfaceSecrets(
            private_key=self._private_key(plan, diagnostics), preshared_keys=self._preshared_keys(plan, diagnostics)
        )

    def _private_key(self, plan: InterfacePlan, diagnostics: Diagnostics) -> PrivateKey | None:
        source = plan.private_key
        if source.kind == "agent":
            return None
        key = where = None
        if self.store is not None:
            key = self.store.private_key(plan.network, plan.host.name, diagnostics)
            where = str(self.store.host_path(plan.network, plan.host.name))
        if key is None and self.root is not None and source.kind == "file":
            key = read_host_private_key(self.root, PurePosixPath(source.name), diagnostics)
            where = source.name
        if key is None or where is None:
            return None
        publics = [public for public in (plan.host.public_key, plan.host.next_public_key) if public is not None]
        if publics and not check_key_pair(key, publics, where, diagnostics, plan.host.place("public-key")):
            return None
        return key

    def _preshared_keys(self, plan: InterfacePlan, diagnostics: Diagnostics) -> dict[str, PresharedKey]:
        found: dict[str, PresharedKey] = {}
        wanted = plan.secured_peers
        if not wanted:
            return found
        if self.root is not None and any(peer.preshared_key == "derived" for peer in wanted):
            path = PurePosixPath(preshared_keys_path(plan.network))
            on_host = read_host_preshared_keys(self.root, path, diagnostics)
            known = {key for peer in wanted for key in (peer.public_key, peer.next_public_key)}
            found.update((public, key) for public, key in (on_host or {}).items() if public in known)
        own = plan.host.public_key
        for peer in wanted:
            if isinstance(peer.preshared_key, SecretSource):
                if peer.preshared_key.kind == "file" and self.root is not None:
                    path = PurePosixPath(peer.preshared_key.name)
                    given = read_host_preshared_key(self.root, path, diagnostics)
                    if given is not None:
                        found[peer.public_key] = given
            elif self.store is not None and own is not None:
                master = self._master(plan.network, diagnostics)
                if master is not None:
                    for public in (peer.public_key, peer.next_public_key):
                        if public:
                            found[public] = derive_preshared_key(master, own, public)
        return found

    def _master(self, network: str, diagnostics: Diagnostics) -> MasterSecret | None:
        if network not in self._masters:
            assert self.store is not None
            self._masters[network] = self.store.master(network, diagnostics)
        return self._masters[network]
