"""What a host needs beside its manager's files: kernel parameters, source NAT, the mark of replies, rules that stay.

Stage: managers. Input: an interface's plan; output: artifacts of sysctl.d, nftables and systemd, that work on a host
without wgnet. networkd has keys for some of it, but each since another version, and none that do all (IPv4Forwarding=
since 256, IPv4SrcValidMark= since 261; IPMasquerade= knows no outgoing link): so one way for all. Opens nothing.
"""

from __future__ import annotations

from wgnet.managers.artifact import Artifact
from wgnet.managers.escape import nft_identifier, nft_string, unit_name
from wgnet.managers.templates import Templates
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager


class Extras:
    """Renders what belongs to an interface, whoever its manager is.

    `base` is /etc, or /run for what is to be gone after a reboot.
    """

    def __init__(self, templates: Templates, base: str = "/etc") -> None:
        self._templates = templates
        self._base = base

    def render(self, plan: InterfacePlan) -> list[Artifact]:
        """Return the files that the plan needs, in the order in which they are to take effect on a running host.

        A unit that keeps router advertisements comes before the kernel parameters that would end them: start it before
        the sysctl.d file is applied, as happens at boot. Raises TemplateProblem.
        """
        artifacts: list[Artifact] = []
        if 6 in plan.forwarding:
            artifacts += self._unit(plan, f"{_accept_ra(plan)}.service", "accept-ra.service.j2", ("sysinit.target",))
        if plan.forwarding or plan.source_valid_mark:
            artifacts.append(
                self._file(
                    plan,
                    f"sysctl.d/50-wgnet-{plan.interface}.conf",
                    "sysctl.j2",
                    forwarding_4=4 in plan.forwarding,
                    forwarding_6=6 in plan.forwarding,
                    source_valid_mark=plan.source_valid_mark,
                    accept_ra_unit=f"{_accept_ra(plan)}.service",
                )
            )
        if plan.rules and plan.manager is not Manager.NETWORKD:
            artifacts.append(
                self._file(plan, f"systemd/networkd.conf.d/50-wgnet-{plan.interface}.conf", "networkd.conf.j2")
            )
        # wg-quick has a table of its own for it, which comes and goes with its interface.
        if plan.restore_mark and plan.manager is not Manager.WG_QUICK:
            # A folder of its own: `wg0.mark` is an interface's name as good as `wg0`.
            path = f"wgnet/nftables/mark/{plan.interface}.nft"
            artifacts += self._nftables(plan, "mark", path, plan.restore_mark, mark=plan.firewall_mark)
        if plan.masquerade:
            path = f"wgnet/nftables/{plan.interface}.nft"
            name = nft_string(plan.interface)
            artifacts += self._nftables(plan, "masquerade", path, plan.masquerade, name=name)
        return artifacts

    def _nftables(
        self, plan: InterfacePlan, kind: str, path: str, versions: frozenset[int], **values: object
    ) -> list[Artifact]:
        """Return a table of nftables and the unit that loads it, for some IP versions."""
        table = f"wgnet_{kind}_{nft_identifier(plan.interface)}"
        both = versions >= {4, 6}
        rules = self._file(
            plan,
            path,
            f"{kind}.nft.j2",
            table=table,
            matches=[""] if both else [f"meta nfproto ipv{version} " for version in sorted(versions)],
            **values,
        )
        return [
            rules,
            *self._unit(
                plan,
                f"wgnet-{kind}-{unit_name(plan.interface)}.service",
                f"{kind}.service.j2",
                # Stopping nftables.service stops this one too; starting it again must start it.
                ("multi-user.target", "nftables.service"),
                rules=rules.path,
                table=table,
            ),
        ]

    def _unit(
        self, plan: InterfacePlan, name: str, template: str, wanted_by: tuple[str, ...], **values: object
    ) -> list[Artifact]:
        """Return a unit and the links that enable it, as `systemctl enable` makes them."""
        folder = f"{self._base}/systemd/system"
        unit = self._file(plan, f"systemd/system/{name}", template, **values)
        links = [
            Artifact(path=f"{folder}/{target}.wants/{name}", network=plan.network, target=unit.path, mode=0o777)
            for target in wanted_by
        ]
        return [unit, *links]

    def _file(self, plan: InterfacePlan, path: str, template: str, **values: object) -> Artifact:
        text = self._templates.render(
            f"extras/{template}", network=plan.network, host=plan.host.name, interface=plan.interface, **values
        )
        return Artifact(path=f"{self._base}/{path}", network=plan.network, content=text.encode())


def _accept_ra(plan: InterfacePlan) -> str:
    return f"wgnet-accept-ra-{unit_name(plan.interface)}"
