"""wg-quick(8): an interface's plan -> a .conf file, for phones and other systems too.

Stage: managers. Input: a plan and the secrets at hand; output: one artifact. wg-quick makes routes, and the policy
routing of an exit node, out of AllowedIPs by itself; what it makes otherwise than the plan says is refused. Hooks are
never written: they are Linux's, and a phone's app drops them in silence. So `masquerade` and the refusals of an
isolating hub, which nothing else would keep, are refused too; forwarding is kept by the sysctl.d file of
`extras.py`. Opens nothing.
"""

from __future__ import annotations

import ipaddress

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets, public_keys, report_foreign_keys
from wgnet.managers.escape import single_line
from wgnet.managers.inline import dns_servers, preshared_key, report_absent, report_credentials
from wgnet.managers.templates import Templates
from wgnet.model.topology import TABLE_MAIN, TABLE_OFF
from wgnet.plan.types import Action, InterfacePlan, PeerPlan
from wgnet.record import record

_OTHER_MANAGERS = "set `manager: networkd` or `manager: networkmanager`"


@record(kw_only=False)
class Section:
    """One section: its name, the comment above it, and its lines as keys and values. It may hold a key."""

    name: str
    comment: str
    entries: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"<Section {self.name}>"


class WgQuick:
    """Renders a wg-quick file. `base` is /etc, or /run for what is to be gone after a reboot."""

    def __init__(self, templates: Templates, base: str = "/etc") -> None:
        self._templates = templates
        self._folder = f"{base}/wireguard"

    def check(self, plan: InterfacePlan, diagnostics: Diagnostics) -> None:
        """Report, at its place, everything in the plan that wg-quick cannot express."""
        host = plan.host
        report_foreign_keys(plan, "wg-quick", diagnostics)
        report_credentials(plan, "wg-quick", diagnostics)
        if plan.private_key.kind == "agent":
            diagnostics.report(
                codes.MANAGER_CANNOT,
                "wg-quick cannot ask an agent for the private key",
                host.place("private-key"),
                help="name a file: private-key: {file: PATH}, or set `manager: networkmanager`",
            )

        def cannot(key: str, message: str, *ways_out: str) -> None:
            diagnostics.report(codes.MANAGER_CANNOT, message, host.place(key), help=(*ways_out, _OTHER_MANAGERS))

        if "metric" in host.nodes:
            cannot("metric", "wg-quick cannot set a metric", "remove `metric`")
        if plan.bypass:
            # AllowedIPs without them would be no default route any more, and only that makes wg-quick mark its packets.
            cannot("bypass", "wg-quick cannot keep prefixes outside of an exit node", "remove `bypass`")
        if plan.masquerade:
            cannot("masquerade", "wg-quick cannot masquerade", "remove `masquerade`")
        if any(rule.action is Action.PROHIBIT for rule in plan.rules):
            cannot("forward", f"wg-quick cannot keep the spokes of '{host.name}' apart", "remove `isolate`")
        if plan.table not in (TABLE_MAIN, TABLE_OFF):
            if plan.default_versions:
                cannot("table", "wg-quick makes no policy routing beside a table", "remove `table`")
            elif not _routes_peers(plan):
                cannot("table", "wg-quick cannot route its own prefix alone into a table", "set `table: off`")
        if plan.dns is not None and not plan.dns.everything:
            diagnostics.report(
                codes.SPLIT_DNS_LEFT_OUT,
                f"wg-quick would send every query to the network's servers, so '{host.name}' gets none",
                host.place("dns"),
                help=(
                    f"set at '{host.name}' dns: {{servers: [...], search: [\"~.\"]}} to send them every query",
                    f"set at '{host.name}' dns: {{}} to say that it is to have none",
                ),
            )

    def render(self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> list[Artifact]:
        """Return the .conf file, root's alone. Absent secrets are left out and reported. Raises TemplateProblem."""
        path = f"{self._folder}/{plan.interface}.conf"
        report_absent(plan, secrets, path, diagnostics)
        sections = [_interface(plan, secrets)]
        sections += [
            _peer(peer, public_key, secrets, in_use) for peer in plan.peers for public_key, in_use in public_keys(peer)
        ]
        text = self._templates.render("wg-quick/conf.j2", network=plan.network, host=plan.host.name, sections=sections)
        secret = any(key in ("PrivateKey", "PresharedKey") for section in sections for key, _ in section.entries)
        return [Artifact(path=path, network=plan.network, content=text.encode(), mode=0o600, secret=secret)]


def _interface(plan: InterfacePlan, secrets: InterfaceSecrets) -> Section:
    entries: list[tuple[str, str]] = []
    if secrets.private_key is not None:
        entries.append(("PrivateKey", secrets.private_key.reveal()))
    if plan.listen_port:
        entries.append(("ListenPort", str(plan.listen_port)))
    if plan.addresses:
        # An address of full length has no route to its prefix, which ip-address(8) would make in the table main.
        words = [
            str(each.address if each.prefix_route else ipaddress.ip_interface(each.address.ip))
            for each in plan.addresses
        ]
        entries.append(("Address", ", ".join(words)))
    if plan.mtu is not None:
        entries.append(("MTU", str(plan.mtu)))
    dns = _dns(plan)
    if dns:
        entries.append(("DNS", ", ".join(dns)))
    table = _table(plan)
    if table is not None:
        entries.append(("Table", table))
    if plan.host.firewall_mark is not None:
        # Else wg-quick finds one itself that no other network of the host uses.
        entries.append(("FwMark", str(plan.host.firewall_mark)))
    return Section("Interface", "", tuple(entries))


def _table(plan: InterfacePlan) -> str | None:
    """Return where wg-quick is to make routes, or None for its own way, which is the plan's with the table main."""
    if plan.table == TABLE_OFF or not _routes_peers(plan):
        return "off"
    return None if plan.table == TABLE_MAIN else str(plan.table)


def _routes_peers(plan: InterfacePlan) -> bool:
    # `allowed-ips: any` is never beside another link.
    return all(peer.route_allowed_ips for peer in plan.peers)


def _dns(plan: InterfacePlan) -> list[str]:
    """Return servers and search domains. wg-quick sends every query to the servers: none unless that is meant."""
    if plan.dns is None or not plan.dns.everything:
        return []
    servers = [str(server) for version in (4, 6) for server in dns_servers(plan, version)]
    # A domain that is routed and not searched says nothing more where every query goes one way.
    return servers + [domain for domain in plan.dns.search if not domain.startswith("~")] if servers else []


def _peer(peer: PeerPlan, public_key: str, secrets: InterfaceSecrets, in_use: bool) -> Section:
    entries = [("PublicKey", single_line(public_key))]
    shared = preshared_key(peer, public_key, secrets)
    if shared is not None:
        entries.append(("PresharedKey", shared.reveal()))
    if in_use and peer.allowed_ips:
        entries.append(("AllowedIPs", ", ".join(map(str, peer.allowed_ips))))
    if peer.endpoints:
        entries.append(("Endpoint", single_line(str(peer.endpoints[0]))))
    if peer.persistent_keepalive:
        entries.append(("PersistentKeepalive", str(peer.persistent_keepalive)))
    return Section("Peer", single_line(peer.name), tuple(entries))
