"""systemd-networkd: an interface's plan -> a .netdev and a .network file.

Stage: managers. Input: a plan, and the preshared keys at hand; output: artifacts. Only keys that systemd 249 knows are
written, unless what is asked for needs a newer one, and nothing that any version up to 262 warns of. Since 257 a reload
applies a changed .netdev, but neither its MTU nor routes that come of it: so both stand in the .network. The private
key never stands in a file from here. Opens nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.artifact import Artifact
from wgnet.managers.base import InterfaceSecrets, public_keys, report_absent_preshared_keys, report_foreign_keys
from wgnet.managers.escape import unit_value
from wgnet.managers.templates import Templates
from wgnet.model.topology import TABLE_MAIN
from wgnet.plan.types import Action, AddressPlan, DnsPlan, InterfacePlan, PeerPlan, PolicyRulePlan, RoutePlan
from wgnet.syntax.spec import Prefix, SecretSource

#: The oldest systemd that is supported: Ubuntu 22.04's.
OLDEST = 249
#: `PrivateKey=@NAME` and `PresharedKey=@NAME`; systemd.netdev(5).
CREDENTIALS_SINCE = 256
#: Prefixes in a line of AllowedIPs=. systemd reads lines of up to 1 MiB (LONG_LINE_MAX); people read shorter ones.
PREFIXES_IN_LINE = 32

# Stands for a preshared key while a section is laid out; no value can hold it.
_PLACE = "\0"
# ProtectHome=yes in systemd-networkd.service.
_HIDDEN = ("/home/", "/root/", "/run/user/")


#: A section of a .network file: its name and its lines.
_Section = tuple[str, list[str]]


class Networkd:
    """Renders the files of systemd-networkd. One of it serves many hosts, and lays a peer that they share out once.

    `base` is /etc, or /run for what is to be gone after a reboot.
    """

    def __init__(self, templates: Templates, base: str = "/etc") -> None:
        self._templates = templates
        self._folder = f"{base}/systemd/network"
        # By identity; the peers are held, so that no other object takes their identity over.
        self._sections: dict[int, str] = {}
        self._held: list[PeerPlan] = []
        # By value: peers with a preshared key are no two alike, but differ in little else.
        self._layouts: dict[tuple[object, ...], str] = {}

    def check(self, plan: InterfacePlan, diagnostics: Diagnostics) -> None:
        """Report, at its place, everything in the plan that networkd or its version cannot express."""
        host = plan.host
        report_foreign_keys(plan, "networkd", diagnostics)
        version = _version(plan)
        if version is not None and version < OLDEST:
            diagnostics.report(
                codes.VERSION_CANNOT,
                f"expected systemd {OLDEST} or later, found '{version}'",
                host.place("manager-version"),
                help="give the version that `networkctl --version` prints, or remove `manager-version`",
            )
        self._check_source(plan, plan.private_key, "private-key", "the private key", diagnostics)
        for peer in plan.secured_peers:
            if isinstance(peer.preshared_key, SecretSource):
                what = f"the preshared key of '{peer.name}'"
                self._check_source(plan, peer.preshared_key, "preshared-key", what, diagnostics)

    def _check_source(
        self, plan: InterfacePlan, source: SecretSource, key: str, what: str, diagnostics: Diagnostics
    ) -> None:
        place = plan.host.place(key)
        if source.kind == "agent":
            diagnostics.report(
                codes.MANAGER_CANNOT,
                f"networkd cannot ask an agent for {what}",
                place,
                help=f"give `{key}` as a file or a credential, or set `manager: networkmanager`",
            )
        elif source.kind == "credential":
            version = _version(plan)
            if version is None or version < CREDENTIALS_SINCE:
                found = "an unknown version" if version is None else f"version {version}"
                diagnostics.report(
                    codes.VERSION_CANNOT,
                    f"networkd reads {what} from a credential since version {CREDENTIALS_SINCE}, found {found}",
                    place,
                    help=f"set `manager-version: {CREDENTIALS_SINCE}` if the host has it, or give a file",
                )
        elif source.name.startswith(_HIDDEN):
            diagnostics.report(
                codes.MANAGER_CANNOT,
                f"networkd cannot read {what} from '{source.name}'",
                place,
                help="keep the file in /etc/wgnet: networkd's service sees neither /home, /root nor /run/user",
            )

    def render(self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> list[Artifact]:
        """Return the .netdev and the .network file. Derived preshared keys that are absent are left out, and reported.

        A .netdev that holds a preshared key is secret. Raises TemplateProblem.
        """
        peers, secret = self._peers(plan, secrets, diagnostics)
        description = plan.host.description
        version = _version(plan)
        netdev = self._templates.render(
            "networkd/netdev.j2",
            network=plan.network,
            host=plan.host.name,
            interface=plan.interface,
            description=unit_value(description) if description else None,
            private_key=_secret_line("PrivateKey", plan.private_key),
            listen_port=plan.listen_port,
            firewall_mark=plan.firewall_mark,
            # systemd 250.0 to 250.2 make routes of AllowedIPs unless told not to; 249 does not know the key.
            route_table_off=version == 250,
            peers=peers,
        )
        dns = plan.dns
        network = self._templates.render(
            "networkd/network.j2",
            network=plan.network,
            host=plan.host.name,
            interface=plan.interface,
            mtu=plan.mtu,
            autoconnect=plan.autoconnect,
            dns_servers=() if dns is None else [str(server) for server in dns.servers],
            domains="" if dns is None else " ".join(_domains(dns)),
            dns_default_route="yes" if dns is not None and dns.everything else "no",
            sections=[
                *(_address(address, plan.metric) for address in plan.addresses),
                *(_route(route) for route in plan.routes),
                *(_rule(rule) for rule in plan.rules),
            ],
        )
        stem = f"{self._folder}/50-wgnet-{plan.interface}"
        return [
            Artifact(
                path=f"{stem}.netdev",
                network=plan.network,
                content=netdev.encode(),
                mode=0o640,
                # networkd runs as this user.
                group="systemd-network",
                secret=secret,
            ),
            Artifact(path=f"{stem}.network", network=plan.network, content=network.encode()),
        ]

    # --- peers -------------------------------------------------------------------------------------------------------

    def _peers(self, plan: InterfacePlan, secrets: InterfaceSecrets, diagnostics: Diagnostics) -> tuple[str, bool]:
        """Return the sections of all peers, and whether a secret is in them.

        A full mesh of 1000 hosts has a million sections: those that hosts share are looked up without a loop of ours.
        """
        try:
            return "".join(map(self._sections.__getitem__, map(id, plan.peers))), False
        except KeyError:
            pass
        pieces: list[str] = []
        absent: list[str] = []
        secret = False
        for peer in plan.peers:
            if peer.preshared_key != "derived":
                pieces.append(self._shared_section(peer))
                continue
            for public_key, allowed in public_keys(peer):
                key = secrets.preshared_keys.get(public_key)
                layout = self._layout(peer, public_key, allowed, key is not None)
                if key is None:
                    absent.append(peer.name)
                    pieces.append(layout)
                else:
                    secret = True
                    pieces.append(layout.replace(_PLACE, key.reveal()))
        if absent:
            path = f"{self._folder}/50-wgnet-{plan.interface}.netdev"
            report_absent_preshared_keys(plan, path, absent, diagnostics)
        return "".join(pieces), secret

    def _shared_section(self, peer: PeerPlan) -> str:
        section = self._sections.get(id(peer))
        if section is None:
            source = peer.preshared_key
            line = _secret_line("PresharedKey", source) if isinstance(source, SecretSource) else None
            section = "".join([self._section(peer, key, line, allowed) for key, allowed in public_keys(peer)])
            self._sections[id(peer)] = section
            self._held.append(peer)
        return section

    def _layout(self, peer: PeerPlan, public_key: str, allowed: bool, has_key: bool) -> str:
        """Return a section with `_PLACE` where its preshared key goes, if it has one."""
        key = (
            peer.name,
            public_key,
            peer.endpoints[:1],
            peer.allowed_ips if allowed else (),
            peer.persistent_keepalive,
            has_key,
        )
        layout = self._layouts.get(key)
        if layout is None:
            line = f"PresharedKey={_PLACE}" if has_key else None
            layout = self._layouts[key] = self._section(peer, public_key, line, allowed)
        return layout

    def _section(self, peer: PeerPlan, public_key: str, preshared_key: str | None, allowed: bool) -> str:
        """Lay a peer out; a key that is known but not yet in use is not `allowed` any prefix."""
        return self._templates.render(
            "networkd/peer.j2",
            name=peer.name,
            public_key=public_key,
            preshared_key=preshared_key,
            allowed_ips=list(_allowed_ips(peer.allowed_ips)) if allowed else (),
            # The port is always there: networkd takes an endpoint without one as port 0, and says nothing.
            endpoint=str(peer.endpoints[0]) if peer.endpoints else None,
            persistent_keepalive=peer.persistent_keepalive,
        )


def _allowed_ips(prefixes: Sequence[Prefix]) -> Iterator[str]:
    for start in range(0, len(prefixes), PREFIXES_IN_LINE):
        yield ", ".join(map(str, prefixes[start : start + PREFIXES_IN_LINE]))


def _secret_line(key: str, source: SecretSource) -> str:
    if source.kind == "credential":
        return f"{key}=@{unit_value(source.name)}"
    return f"{key}File={unit_value(source.name)}"


def _version(plan: InterfacePlan) -> int | None:
    """Return the host's systemd version, or None where any may be meant."""
    return None if plan.manager_version is None else plan.manager_version[0]


# --- sections of the .network ----------------------------------------------------------------------------------------


def _domains(dns: DnsPlan) -> Iterator[str]:
    if dns.everything:
        yield "~."
    yield from dns.search
    for zone in dns.reverse:
        yield f"~{zone}"


def _address(plan: AddressPlan, metric: int) -> _Section:
    lines = [f"Address={plan.address}"]
    if not plan.prefix_route:
        lines.append("AddPrefixRoute=no")
    elif plan.address.network.prefixlen < plan.address.max_prefixlen:
        # Of both families: networkd passes it on as IFA_RT_PRIORITY, which the kernel knows since 4.18.
        lines.append(f"RouteMetric={metric}")
    return "Address", lines


def _route(plan: RoutePlan) -> _Section:
    lines = [f"Destination={plan.destination}"]
    if plan.table != TABLE_MAIN:
        lines.append(f"Table={plan.table}")
    lines.append(f"Metric={plan.metric}")
    return "Route", lines


def _rule(plan: PolicyRulePlan) -> _Section:
    # A prefix of no length is what the rule is for without one.
    source = plan.source if plan.source is not None and plan.source.prefixlen else None
    destination = plan.destination if plan.destination is not None and plan.destination.prefixlen else None
    lines: list[str] = []
    if source is None and destination is None:
        # Beside an address it would only repeat, or contradict, the address.
        lines.append(f"Family=ipv{plan.version}")
    if source is not None:
        lines.append(f"From={source}")
    if destination is not None:
        lines.append(f"To={destination}")
    if plan.incoming_interface is not None:
        lines.append(f"IncomingInterface={plan.incoming_interface}")
    if plan.firewall_mark is not None:
        lines.append(f"FirewallMark={plan.firewall_mark}")
    if plan.invert:
        lines.append("InvertRule=yes")
    if plan.suppress_prefix_length is not None:
        lines.append(f"SuppressPrefixLength={plan.suppress_prefix_length}")
    if plan.action is Action.PROHIBIT:
        lines.append("Type=prohibit")
    if plan.table is not None:
        lines.append(f"Table={plan.table}")
    lines.append(f"Priority={plan.priority}")
    return "RoutingPolicyRule", lines
