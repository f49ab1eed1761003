"""What all manager modules share: the shape of a renderer, the secrets that it is given, and what all of them report.

Stage: managers. Opens nothing. No secret enters a diagnostic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.words import quote_names
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.managers.artifact import Artifact
from wgnet.model.topology import Host
from wgnet.plan.types import InterfacePlan, PeerPlan
from wgnet.record import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


@record()
class InterfaceSecrets:
    """The secrets of one interface that are at hand.

    `preshared_keys` is by the peer's public key, and goes with the private key that the host has now. While its keys
    are rotated `derived_keys` has those of both, by the host's own public key and then by the peer's.
    """

    private_key: PrivateKey | None = None
    preshared_keys: Mapping[str, PresharedKey] = field(default_factory=dict)
    derived_keys: Mapping[str, Mapping[str, PresharedKey]] = field(default_factory=dict)


class Renderer(Protocol):
    """A manager: checks what it cannot express, then turns an interface's plan into files. It opens nothing."""

    def check(self, plan: InterfacePlan, diagnostics: Diagnostics) -> None:
        """Report, at its place, everything in the plan that the manager or its version cannot express."""

    def render(self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> list[Artifact]:
        """Return the interface's files in a fixed order; report secrets that must stand in them and are absent."""


def public_keys(peer: PeerPlan) -> Iterator[tuple[str, bool]]:
    """Yield the public keys that a peer is configured under, and whether it is the one with the AllowedIPs.

    The second is the key that a rotation goes to: it must be known before the peer changes over. It has the endpoint
    and the keepalive too, since a peer that only hears would not be reached any more when the first key dies.
    """
    yield peer.public_key, True
    if peer.next_public_key is not None:
        yield peer.next_public_key, False


def report_foreign_keys(plan: InterfacePlan, manager: str, diagnostics: Diagnostics) -> None:
    """Report keys that are NetworkManager's alone; inherited ones are meant for other hosts of the group."""
    host = plan.host
    for key in ("permissions", "zone"):
        if key in host.spec.nodes:
            diagnostics.report(
                codes.MANAGER_CANNOT,
                f"{manager} cannot express '{key}'",
                host.place(key),
                help=f"remove `{key}`, or set `manager: networkmanager`",
            )


def ways_to_keys(host: Host) -> tuple[str, str]:
    """Return the ways out for a host whose files lack keys."""
    return (
        "give the key store with `--keys DIR`",
        f"run `wgnet render --system` on '{host.name}', where its keys lie",
    )


def report_absent_preshared_keys(
    plan: InterfacePlan, path: str, peers: Iterable[str], diagnostics: Diagnostics
) -> None:
    """Warn that the file `path` is written without the preshared keys of these peers, each named once."""
    diagnostics.report(
        codes.PRESHARED_KEY_ABSENT,
        f"'{path}' of '{plan.host.name}' is written without the preshared keys of {quote_names(dict.fromkeys(peers))}",
        plan.host.span,
        help=ways_to_keys(plan.host),
    )
