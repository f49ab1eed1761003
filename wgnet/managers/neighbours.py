"""What keeps the other manager of a machine away from an interface: systemd-networkd and NetworkManager side by side.

Stage: managers. Input: an interface's plan; output: one artifact in the other manager's words, which nobody reads where
that does not run. Measured (networkd 252 and 257, NetworkManager 1.42 and 1.52): without it `nmcli networking off`
takes the addresses and routes of networkd's interface, which do not come back, and a `.network` that matches every link
takes those of NetworkManager's. Opens nothing.
"""

from __future__ import annotations

from wgnet.managers.artifact import Artifact
from wgnet.managers.templates import Templates
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager

#: By who manages the interface: a file below /etc or /run, and its template. networkd takes the first of its files that
#: matches a link, so this one comes before an administrator's `10-all.network`, and before netplan's.
_FILES = {
    Manager.NETWORKD: ("NetworkManager/conf.d/50-wgnet-{}.conf", "neighbours/networkmanager.conf.j2"),
    Manager.NETWORKMANAGER: ("systemd/network/05-wgnet-{}.network", "neighbours/unmanaged.network.j2"),
}


class Neighbours:
    """Renders the file for the manager that an interface is not for. `base` is /etc, or /run until the next boot."""

    def __init__(self, templates: Templates, base: str = "/etc") -> None:
        self._templates = templates
        self._base = base

    def render(self, plan: InterfacePlan) -> list[Artifact]:
        """Return the file; none for wg-quick, whose interfaces are for a person to run. Raises TemplateProblem."""
        path = neighbour_path(plan, self._base)
        if path is None:
            return []
        text = self._templates.render(
            _FILES[plan.manager][1], network=plan.network, host=plan.host.name, interface=plan.interface
        )
        return [Artifact(path=path, network=plan.network, content=text.encode())]


def neighbour_path(plan: InterfacePlan, base: str = "/etc") -> str | None:
    """Return where the file for the other manager lies, or None where there is none."""
    if plan.manager not in _FILES:
        return None
    return f"{base}/{_FILES[plan.manager][0].format(plan.interface)}"
