"""What NetworkManager and wg-quick share: secrets that stand in the file itself, and how their absence is told.

Stage: managers. Input: an interface's plan and the secrets at hand; output: a peer's preshared key, diagnostics. No
secret enters a diagnostic.
"""

from __future__ import annotations

from collections.abc import Iterable

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PresharedKey
from wgnet.managers.base import InterfaceSecrets, public_keys, report_absent_preshared_keys, ways_to_keys
from wgnet.plan.types import InterfacePlan, PeerPlan
from wgnet.syntax.spec import Address, SecretSource


def preshared_key(peer: PeerPlan, public_key: str, secrets: InterfaceSecrets) -> PresharedKey | None:
    """Return the preshared key of a link under one of the peer's keys, or None where it has none, or none at hand.

    A derived one depends on the public keys; one that was agreed elsewhere is the link's, whatever the keys are.
    """
    if peer.preshared_key is None:
        return None
    found = secrets.preshared_keys.get(public_key)
    if found is None and isinstance(peer.preshared_key, SecretSource):
        found = secrets.preshared_keys.get(peer.public_key)
    return found


def report_absent(
    plan: InterfacePlan, secrets: InterfaceSecrets, path: str, diagnostics: Diagnostics, ways_out: Iterable[str] = ()
) -> None:
    """Warn of the secrets that must stand in the file `path` and are not at hand; `ways_out` are the manager's own."""
    host = plan.host
    if secrets.private_key is None and plan.private_key.kind == "file":
        diagnostics.report(
            codes.PRIVATE_KEY_ABSENT,
            f"'{path}' of '{host.name}' is written without its private key: the tunnel cannot start",
            host.place("private-key"),
            help=(*ways_to_keys(host), *ways_out),
        )
    absent = [
        peer.name
        for peer in plan.secured_peers
        if any(preshared_key(peer, key, secrets) is None for key, _ in public_keys(peer))
    ]
    if absent:
        report_absent_preshared_keys(plan, path, absent, diagnostics)


def report_credentials(plan: InterfacePlan, manager: str, diagnostics: Diagnostics) -> None:
    """Report secrets that are to come from systemd credentials, for a manager that reads none."""
    host = plan.host
    if plan.private_key.kind == "credential":
        diagnostics.report(
            codes.MANAGER_CANNOT,
            f"{manager} cannot read the private key from a credential",
            host.place("private-key"),
            help=("name a file: private-key: {file: PATH}", "set `manager: networkd`, which can since version 256"),
        )
    for peer in plan.secured_peers:
        if isinstance(peer.preshared_key, SecretSource) and peer.preshared_key.kind == "credential":
            diagnostics.report(
                codes.MANAGER_CANNOT,
                f"{manager} cannot read the preshared key of the link with '{peer.name}' from a credential",
                host.span,
                help="name a file in the link's rule: preshared-key: {file: PATH}",
            )


def dns_servers(plan: InterfacePlan, version: int) -> tuple[Address, ...]:
    """Return the DNS servers of an IP version; none where the host has no address to ask them from."""
    if plan.dns is None or all(address.address.version != version for address in plan.addresses):
        return ()
    return tuple(server for server in plan.dns.servers if server.version == version)
