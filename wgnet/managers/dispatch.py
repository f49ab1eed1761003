"""From the plan of a host to all its files: each interface by its manager, and beside them what no manager does.

Input: plans and secrets. Output: artifacts in a fixed order. Opens nothing but templates.
"""

from __future__ import annotations

from importlib import import_module

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets, Renderer
from wgnet.managers.extras import Extras
from wgnet.managers.neighbours import Neighbours
from wgnet.managers.templates import TemplateProblem, Templates
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager

#: The module and class of each manager; a run imports those that it needs.
_RENDERERS = {
    Manager.NETWORKD: ("networkd", "Networkd"),
    Manager.NETWORKMANAGER: ("networkmanager", "NetworkManager"),
    Manager.WG_QUICK: ("wgquick", "WgQuick"),
}


class Managers:
    """The renderers of one run; they keep what many hosts share. Files go below `base`, /etc or /run."""

    def __init__(self, templates: Templates, base: str = "/etc") -> None:
        self._templates = templates
        self._base = base
        self._renderers: dict[Manager, Renderer] = {}
        self._extras = Extras(templates, base)
        self._neighbours = Neighbours(templates, base)

    def _renderer(self, manager: Manager) -> Renderer:
        renderer = self._renderers.get(manager)
        if renderer is None:
            module, name = _RENDERERS[manager]
            renderer = getattr(import_module(f"wgnet.managers.{module}"), name)(self._templates, self._base)
            self._renderers[manager] = renderer
        return renderer

    def check(self, plan: InterfacePlan, diagnostics: Diagnostics) -> None:
        """Report what the interface's manager cannot express."""
        self._renderer(plan.manager).check(plan, diagnostics)

    def render(
        self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics, *, deliver_keys: bool = False
    ) -> list[Artifact]:
        """Return the files of one interface; with `deliver_keys` also those that hold the host's own secrets."""
        try:
            artifacts = self._renderer(plan.manager).render(plan, secrets, diagnostics)
            artifacts += self._neighbours.render(plan)
            # wg-quick sets what an exit node needs by itself; what forwarding needs it leaves to others.
            if plan.manager is not Manager.WG_QUICK or plan.forwarding:
                artifacts += self._extras.render(plan)
        except TemplateProblem as problem:
            problem.report(diagnostics)
            return []
        if deliver_keys and plan.manager is not Manager.WG_QUICK:
            artifacts += key_files(plan, secrets)
        return artifacts


def key_files(plan: InterfacePlan, secrets: InterfaceSecrets) -> list[Artifact]:
    """Return the files in which the host keeps its secrets: `wgnet render --system` on it finds them there."""
    from wgnet.keys.host import format_preshared_keys, preshared_keys_path

    artifacts = []
    if secrets.private_key is not None and plan.private_key.kind == "file":
        # systemd-networkd reads the file itself, and not as root.
        networkd = plan.manager is Manager.NETWORKD
        artifacts.append(
            Artifact(
                path=plan.private_key.name,
                network=plan.network,
                content=f"{secrets.private_key.reveal()}\n".encode(),
                mode=0o640 if networkd else 0o600,
                group="systemd-network" if networkd else "root",
                secret=True,
            )
        )
    derived = secrets.derived_keys
    if plan.host.next_public_key is None:
        found = {
            public: secrets.preshared_keys[public]
            for peer in plan.peers
            if peer.preshared_key == "derived"
            for public in (peer.public_key, peer.next_public_key)
            if public and public in secrets.preshared_keys
        }
        derived = {"": found} if found else {}
    if derived:
        artifacts.append(
            Artifact(
                path=preshared_keys_path(plan.network),
                network=plan.network,
                content=format_preshared_keys(derived).encode(),
                mode=0o600,
                secret=True,
            )
        )
    return artifacts


def host_key_paths(plan: InterfacePlan) -> tuple[str, ...]:
    """Return where the host keeps its secrets of a network, without the leading slash: never to be taken for left over.

    A run with a key store delivers them, and the next one without finds them there and does not.
    """
    from wgnet.keys.host import preshared_keys_path

    private = (plan.private_key.name,) if plan.private_key.kind == "file" else ()
    return tuple(path.removeprefix("/") for path in (*private, preshared_keys_path(plan.network)))


def check_plans(fleet: Fleet, diagnostics: Diagnostics) -> None:
    """Report, for every host of every network, what its manager cannot express."""
    managers = Managers(Templates())
    for name in fleet.host_names():
        for plan in fleet.plan_host(name).interfaces:
            managers.check(plan, diagnostics)
