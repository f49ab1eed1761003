"""Checks of what hosts are: addresses, keys, MTU, endpoints, advertised subnets. One pure function a rule.

Input: a topology. Output: diagnostics alone. Nothing here needs links or paths.
"""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.span import Span
from wgnet.model.resolve import find_subnet
from wgnet.model.topology import Host, Topology
from wgnet.routing.prefixes import PrefixMap, contains, overlap
from wgnet.syntax.spec import Manager, Prefix


def check_subnets(topology: Topology, diagnostics: Diagnostics) -> None:
    """Two subnets of one network may not overlap: an address would belong to both."""
    for number, one in enumerate(topology.subnets):
        for earlier, other in enumerate(topology.subnets[:number]):
            if overlap(one, other):
                diagnostics.report(
                    codes.SUBNETS_OVERLAP,
                    f"subnets {one} and {other} overlap",
                    Label(topology.network_place("subnets", number)),
                    Label(topology.network_place("subnets", earlier)),
                )


def check_addresses(topology: Topology, diagnostics: Diagnostics) -> None:
    """Every host has an address, inside a subnet, its own, and one that a host may have."""
    owners: dict[object, tuple[Host, int]] = {}
    for host in topology.hosts:
        if not host.addresses and host.manager is not Manager.EXTERNAL and not host.is_bad("addresses"):
            diagnostics.report(
                codes.NO_ADDRESS,
                f"'{host.name}' has no address",
                host.span,
                help="give it one: addresses: [ADDRESS]",
            )
        for number, interface in enumerate(host.addresses):
            address = interface.ip
            first = owners.setdefault(address, (host, number))
            if first[0] is not host or _written(host, first[1]) != _written(host, number):
                diagnostics.report(
                    codes.DUPLICATE_ADDRESS,
                    f"'{host.name}' and '{first[0].name}' have the address {address}"
                    if first[0] is not host
                    else f"'{host.name}' has the address {address} twice",
                    Label(host.place("addresses", number), "again here"),
                    Label(first[0].place("addresses", first[1]), "first here"),
                )
            if not topology.subnets:
                continue
            subnet = find_subnet(address, topology.subnets)
            if subnet is None:
                words = ", ".join(str(known) for known in topology.subnets)
                diagnostics.report(
                    codes.ADDRESS_OUTSIDE,
                    f"address {address} of '{host.name}' is outside every subnet",
                    Label(host.place("addresses", number)),
                    Label(topology.network_place("subnets"), f"expected one inside {words}"),
                )
            elif subnet.version == 4 and subnet.prefixlen <= 30:
                what = (
                    "network"
                    if address == subnet.network_address
                    else "broadcast"
                    if address == subnet.broadcast_address
                    else None
                )
                if what:
                    diagnostics.report(
                        codes.RESERVED_ADDRESS,
                        f"{address} is the {what} address of {subnet}",
                        host.place("addresses", number),
                    )


def _written(host: Host, number: int) -> object:
    """Return an address as it was written: the same item twice has been reported as that."""
    return (host.spec.addresses or ())[number]


def check_public_keys(topology: Topology, diagnostics: Diagnostics) -> None:
    """No two keys of the network are equal, the prepared ones included."""
    owners: dict[str, tuple[Host, str]] = {}
    for host in topology.hosts:
        for name, key in (("public-key", host.public_key), ("next-public-key", host.next_public_key)):
            if key is None:
                continue
            other, other_name = owners.setdefault(key, (host, name))
            if (other, other_name) == (host, name):
                continue
            if other is host:
                diagnostics.report(
                    codes.NEXT_KEY_EQUAL,
                    f"the next public key of '{host.name}' is its present one",
                    Label(host.place(name)),
                    Label(host.place(other_name)),
                    help="remove `next-public-key` once the rotation is over",
                )
            else:
                diagnostics.report(
                    codes.DUPLICATE_PUBLIC_KEY,
                    f"'{host.name}' and '{other.name}' have one public key",
                    Label(host.place(name), "again here"),
                    Label(other.place(other_name), "first here"),
                    help="every host needs a private key of its own: make one with `wgnet keys generate`",
                )


def check_public_keys_present(
    topology: Topology, diagnostics: Diagnostics, severity: Severity, keyless: str | None = None
) -> None:
    """Every host has a public key: an error where files are made, a note where a network is only looked at.

    A note also of the host `keyless`, whose own files are made: its peers need the key, those files do not.
    """
    for host in topology.hosts:
        if host.public_key is None and not host.disabled and not host.is_bad("public-key"):
            diagnostics.report(
                codes.NO_PUBLIC_KEY,
                f"'{host.name}' has no public key",
                host.span,
                help="make one with `wgnet keys generate`, which writes it here"
                if host.manager is not Manager.EXTERNAL
                else "ask whoever runs the host for it",
                severity=Severity.NOTE if host.name == keyless else severity,
            )


def check_mtus(topology: Topology, diagnostics: Diagnostics) -> None:
    """IPv6 needs an MTU of 1280: below it the kernel takes IPv6 off the interface."""
    for host in topology.hosts:
        if host.mtu is not None and host.mtu < 1280 and 6 in host.versions:
            place = host.place("mtu") if "mtu" in host.nodes else topology.network_place("mtu")
            number = next(n for n, address in enumerate(host.addresses) if address.version == 6)
            diagnostics.report(
                codes.MTU_TOO_SMALL,
                f"'{host.name}' has an IPv6 address, which needs an MTU of 1280 or more, found {host.mtu}",
                Label(place),
                Label(host.place("addresses", number), "the IPv6 address"),
            )


def check_ports(topology: Topology, diagnostics: Diagnostics) -> None:
    """An endpoint has a port, or the host a listen port that it defaults to."""
    for host in topology.hosts:
        for name, endpoints in (("endpoint", host.endpoint), ("site-endpoint", host.site_endpoint)):
            for number, endpoint in enumerate(endpoints):
                if not endpoint.port:
                    _port_unknown(host, host.place(name, number), diagnostics)
    for rule in topology.rules:
        for host in rule.members:
            for number, endpoint in enumerate(rule.endpoint.get(host.name, ())):
                if not endpoint.port:
                    _port_unknown(host, rule.endpoint_place(host, number), diagnostics)


def _port_unknown(host: Host, place: Span, diagnostics: Diagnostics) -> None:
    diagnostics.report(
        codes.PORT_UNKNOWN,
        f"the endpoint of '{host.name}' has no port, and its listen port is 'auto'",
        Label(place),
        *([Label(host.place("listen-port"), "so the kernel chooses")] if "listen-port" in host.nodes else []),
        help="write the port, or set a `listen-port`",
    )


def check_advertised(topology: Topology, diagnostics: Diagnostics) -> None:
    """No subnet is advertised by two hosts, and none lies inside the network's own; default routes are offers."""
    owners: dict[Prefix, Host] = {}
    for host in topology.hosts:
        if host.disabled:
            continue
        for prefix in host.advertise:
            place = host.advertise_place(prefix)
            other = owners.setdefault(prefix, host)
            if other is not host:
                diagnostics.report(
                    codes.ADVERTISED_TWICE,
                    f"'{host.name}' and '{other.name}' advertise {prefix}",
                    Label(place, "again here"),
                    Label(other.advertise_place(prefix), "first here"),
                    help="describe two ways to one subnet as two networks with different metrics",
                )
            for number, subnet in enumerate(topology.subnets):
                if contains(subnet, prefix):
                    relation = "is" if subnet == prefix else "lies inside"
                    diagnostics.report(
                        codes.ADVERTISED_INSIDE,
                        f"{prefix}, which '{host.name}' advertises, {relation} the network's own subnet",
                        Label(place),
                        Label(topology.network_place("subnets", number), "the network's"),
                        help="a host's own addresses need not be advertised",
                    )


def check_accept(topology: Topology, diagnostics: Diagnostics) -> None:
    """An accepted prefix is, holds, or is part of something that another host advertises."""
    if not any(host.accept for host in topology.hosts):
        return
    advertised = [(prefix, host) for host in topology.hosts if not host.disabled for prefix in host.advertise]
    around: PrefixMap[Host] = PrefixMap(advertised)
    for host in topology.hosts:
        for number, prefix in enumerate(host.accept or ()):
            found = around.find(prefix)
            if found is not None and found[1] is not host:
                continue
            if not any(other is not host and contains(prefix, one) for one, other in advertised):
                diagnostics.report(
                    codes.ACCEPT_NOTHING,
                    f"'{host.name}' accepts {prefix}, which no other host advertises",
                    host.place("accept", number),
                )
