"""What all manager modules share: the shape of a renderer and the secrets that it is given."""

from __future__ import annotations

from collections.abc import Mapping

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.managers.artifact import Artifact
from wgnet.plan.types import InterfacePlan
from wgnet.record import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


@record()
class InterfaceSecrets:
    """The secrets of one interface that are at hand. `preshared_keys` is by the peer's public key."""

    private_key: PrivateKey | None = None
    preshared_keys: Mapping[str, PresharedKey] = field(default_factory=dict)


class Renderer(Protocol):
    """A manager: checks what it cannot express, then turns an interface's plan into files. It opens nothing."""

    def check(self, plan: InterfacePlan, diagnostics: Diagnostics) -> None:
        """Report, at its place, everything in the plan that the manager or its version cannot express."""

    def render(self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> list[Artifact]:
        """Return the interface's files in a fixed order; report secrets that must stand in them and are absent."""
