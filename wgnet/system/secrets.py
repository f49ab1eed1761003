"""Where the secrets of an interface come from: the administrator's key store, or the host itself.

Input: plans. Output: `InterfaceSecrets` for the managers, and diagnostics where a key does not fit. Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.host import OwnPresharedKeys, preshared_keys_path
from wgnet.keys.match import check_key_pair
from wgnet.keys.types import MasterSecret, PresharedKey, PrivateKey
from wgnet.managers.base import InterfaceSecrets
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager, SecretSource
from wgnet.system.hostkeys import read_host_preshared_key, read_host_preshared_keys, read_host_private_key
from wgnet.system.keystore import KeyStore


@dataclass(slots=True, kw_only=True)
class SecretFinder:
    """Finds secrets in a key store (`store`), and on this host below `root`; None where there is none to look in.

    A key that an agent is to keep is looked for only where somebody can hand it over (`for_agent`).
    """

    store: KeyStore | None = None
    root: Path | None = None
    for_agent: bool = False
    _masters: dict[str, MasterSecret | None] = field(default_factory=dict)

    def find(self, plan: InterfacePlan, diagnostics: Diagnostics) -> InterfaceSecrets:
        """Return the secrets of one interface that are at hand; the key store comes before the host."""
        private_key = self._private_key(plan, diagnostics)
        host = plan.host
        own = host.public_key
        if host.next_public_key is not None and private_key is not None:
            own = private_key.public()
        derived = self._derived_keys(plan, diagnostics)
        preshared_keys = dict(derived.get(own or "", {}))
        preshared_keys.update(self._given_keys(plan, diagnostics))
        if derived and private_key is None and host.next_public_key and plan.manager is not Manager.EXTERNAL:
            diagnostics.report(
                codes.KEY_IN_USE_UNKNOWN,
                f"'{host.name}' is between two keys and its private key is not at hand: "
                "the preshared keys in its files are those of its present one",
                host.place("next-public-key"),
                help=(
                    f"run `wgnet render --system` or `wgnet apply` on '{host.name}' itself once it has switched",
                    "give the key store with `--keys DIR`, if its private key is there",
                ),
            )
        return InterfaceSecrets(
            private_key=private_key,
            preshared_keys=preshared_keys,
            derived_keys={} if host.next_public_key is None else derived,
        )

    def _private_key(self, plan: InterfacePlan, diagnostics: Diagnostics) -> PrivateKey | None:
        source = plan.private_key
        if source.kind == "agent" and not self.for_agent:
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

    def _derived_keys(self, plan: InterfacePlan, diagnostics: Diagnostics) -> dict[str, dict[str, PresharedKey]]:
        """Return the derived preshared keys by the host's own public key, of which it may have two, and the peer's."""
        host = plan.host
        peers = [
            public
            for peer in plan.secured_peers
            if peer.preshared_key == "derived"
            for public in (peer.public_key, peer.next_public_key)
            if public
        ]
        own_keys = [public for public in (host.public_key, host.next_public_key) if public]
        if not peers or not own_keys:
            return {}
        on_host: OwnPresharedKeys = {}
        if self.root is not None:
            path = PurePosixPath(preshared_keys_path(plan.network))
            on_host = read_host_preshared_keys(self.root, path, diagnostics) or {}
        master = None if self.store is None else self._master(plan.network, diagnostics)
        found: dict[str, dict[str, PresharedKey]] = {}
        for own in own_keys:
            # A line that does not name the host's own key was written when the host had one alone: the present one.
            of_own = {**on_host.get("", {}), **on_host.get(own, {})} if own == own_keys[0] else on_host.get(own, {})
            keys = {public: of_own[public] for public in peers if public in of_own}
            if master is not None:
                keys.update((public, derive_preshared_key(master, own, public)) for public in peers)
            if keys:
                found[own] = keys
        return found

    def _given_keys(self, plan: InterfacePlan, diagnostics: Diagnostics) -> dict[str, PresharedKey]:
        """Return the preshared keys that were agreed elsewhere and lie in a file of this host."""
        found: dict[str, PresharedKey] = {}
        for peer in plan.secured_peers:
            source = peer.preshared_key
            if isinstance(source, SecretSource) and source.kind == "file" and self.root is not None:
                given = read_host_preshared_key(self.root, PurePosixPath(source.name), diagnostics)
                if given is not None:
                    found[peer.public_key] = given
        return found

    def _master(self, network: str, diagnostics: Diagnostics) -> MasterSecret | None:
        if network not in self._masters:
            assert self.store is not None
            self._masters[network] = self.store.master(network, diagnostics)
        return self._masters[network]
