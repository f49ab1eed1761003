"""The pages of WG3xxx: the meaning across the network."""

from __future__ import annotations

import base64
import hashlib

from wgnet.diagnostics import codes
from wgnet.diagnostics.explanations.explanation import (
    FRA_KEY,
    NYC_KEY,
    OFFICE,
    OTHER_KEY,
    SGP_KEY,
    TOK_KEY,
    Explanation,
    change,
)

# A third host, without an endpoint.
_THREE = f"""\
{OFFICE}\
  sgp:
    addresses: [10.80.0.3]
    public-key: "{SGP_KEY}"
"""

# Two hosts with both address families, and an exit node between them.
_DUAL = f"""\
wgnet: 1
network:
  name: office
  subnets: [10.80.0.0/24, "fd42:80::/64"]
hosts:
  fra:
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: "{FRA_KEY}"
    endpoint: fra.example.net
    advertise: [0.0.0.0/0, "::/0"]
  nyc:
    addresses: [10.80.0.2, "fd42:80::2"]
    public-key: "{NYC_KEY}"
    exit-node: fra
"""

_EXIT_SGP = f"""\
  sgp:
    addresses: [10.80.0.3, "fd42:80::3"]
    public-key: "{SGP_KEY}"
    advertise: [0.0.0.0/0, "::/0"]
"""

_ONE_ISOLATED = """\
peering:
  - {hub: fra, spokes: [nyc]}
  - {hub: fra, spokes: [sgp], isolate: true}
hosts:
"""

_DNS_LINE = "  name: office\n  dns: {servers: [10.80.0.1], search: [corp.example.com]}\n"

# Two exit nodes on one local network, each through the other.
_RING = f"""\
wgnet: 1
network:
  name: office
  subnets: [10.80.0.0/24, "fd42:80::/64"]
hosts:
  fra:
    addresses: [10.80.0.1, "fd42:80::1"]
    public-key: "{FRA_KEY}"
    site: frankfurt
    site-endpoint: 192.168.10.5
    advertise: [0.0.0.0/0, "::/0"]
    exit-node: nyc
  nyc:
    addresses: [10.80.0.2, "fd42:80::2"]
    public-key: "{NYC_KEY}"
    site: frankfurt
    advertise: [0.0.0.0/0, "::/0"]
    exit-node: fra
"""

# A second network with a host that is in the first one too.
_LAB = f"""\
wgnet: 1
network:
  name: lab
  subnets: [10.81.0.0/24]
  listen-port: 51821
hosts:
  fra:
    addresses: [10.81.0.1]
    public-key: "{OTHER_KEY}"
    endpoint: fra.example.net
  tok:
    addresses: [10.81.0.2]
    public-key: "{TOK_KEY}"
"""


def _fra(line: str) -> str:
    """Return the topology of two hosts with one more line at `fra`."""
    return change(OFFICE, ("  fra:\n", f"  fra:\n    {line}\n"))


def _peering(rules: str, text: str = OFFICE) -> str:
    """Return a topology with peering rules."""
    return change(text, ("hosts:\n", f"peering:\n{rules}hosts:\n"))


def _both(office: str, lab: str) -> dict[str, str]:
    return {"office.yaml": office, "lab.yaml": lab}


def _crowd(peering: str) -> bytes:
    """Return a topology of 2,100 hosts, one with an endpoint."""
    lines = ["wgnet: 1", "network: {name: office, subnets: [10.80.0.0/16]}", f"peering: {peering}", "hosts:"]
    for number in range(2100):
        # Any 32 bytes serve as a public key; nobody has the private one.
        key = base64.b64encode(hashlib.sha256(b"%d" % number).digest()).decode()
        endpoint = "" if number else ", endpoint: fra.example.net"
        address = f"10.80.{number // 250}.{number % 250 + 1}"
        lines.append(f'  host{number}: {{addresses: [{address}], public-key: "{key}"{endpoint}}}')
    return "\n".join([*lines, ""]).encode()


PAGES = (
    Explanation(
        code=codes.DUPLICATE_ADDRESS,
        meaning=(
            "Two hosts have the same tunnel address. An address belongs to one peer's AllowedIPs: the kernel gives a "
            "prefix that two peers claim to one of them, and takes it away from the other without a message."
        ),
        example=change(OFFICE, ("10.80.0.2", "10.80.0.1")),
        fixed=OFFICE,
        way_out="Give one of them another address.",
    ),
    Explanation(
        code=codes.DUPLICATE_PUBLIC_KEY,
        meaning=(
            "Two hosts have the same public key, so they share one private key or one of them was copied. WireGuard "
            "knows a peer by its key alone: to the others both are a single peer whose endpoint jumps from one to the "
            "other, and only one of the two gets traffic at a time."
        ),
        example=change(OFFICE, (NYC_KEY, FRA_KEY)),
        fixed=OFFICE,
        way_out="Make a key pair of its own for each host with `wgnet keys generate`.",
    ),
    Explanation(
        code=codes.ENDPOINT_LOOP,
        meaning=(
            "A host reaches a peer at an address that it also routes into the tunnel. The encrypted packets would "
            "enter the tunnel that they are to carry, and never leave the host. It happens when the endpoint lies "
            "inside a subnet that the peer, or another one behind it, advertises. A `site-endpoint` is exempt, since "
            "hosts of one site do not take the site's subnets through the tunnel."
        ),
        example=change(
            OFFICE,
            ("    endpoint: fra.example.net\n", "    endpoint: 192.168.10.5\n    advertise: [192.168.10.0/24]\n"),
        ),
        fixed=_fra("advertise: [192.168.10.0/24]"),
        way_out="Use an address outside what is advertised, or set `site` and `site-endpoint` for hosts of one place.",
    ),
    Explanation(
        code=codes.ADDRESS_OUTSIDE,
        meaning=(
            "A host's address lies in none of the network's `subnets`. Its peers would have no route to it where they "
            "rely on the subnet, and a relay that was given the subnets whole would not cover it."
        ),
        example=change(OFFICE, ("10.80.0.2", "10.81.0.2")),
        fixed=OFFICE,
        way_out="Correct the address, or add the subnet that it is in.",
    ),
    Explanation(
        code=codes.RESERVED_ADDRESS,
        meaning=(
            "The address is the first or the last of an IPv4 subnet, which name the subnet itself and its broadcast. "
            "Linux and many programs treat both in a special way, so no host can use them. Only a /31 and a /32 have "
            "no such addresses."
        ),
        example=change(OFFICE, ("10.80.0.2", "10.80.0.255")),
        fixed=OFFICE,
    ),
    Explanation(
        code=codes.ADVERTISED_TWICE,
        meaning=(
            "Two hosts advertise the same subnet. A prefix can stand at one peer only, so one of the two would never "
            "get a packet for it; WireGuard cannot balance between peers or fall back. Default routes are an offer "
            "and may be made by any number of hosts."
        ),
        example=change(
            OFFICE,
            ("  fra:\n", "  fra:\n    advertise: [192.168.10.0/24]\n"),
            ("  nyc:\n", "  nyc:\n    advertise: [192.168.10.0/24]\n"),
        ),
        fixed=change(
            OFFICE,
            ("  fra:\n", "  fra:\n    advertise: [192.168.10.0/24]\n"),
            ("  nyc:\n", "  nyc:\n    advertise: [192.168.20.0/24]\n"),
        ),
        way_out=(
            "Leave it at the host that is really in front of the subnet, or let each advertise its own part; a longer "
            "prefix inside a shorter one is fine."
        ),
    ),
    Explanation(
        code=codes.ADVERTISED_INSIDE,
        meaning=(
            "A host advertises a prefix that equals a subnet of the network or lies inside one. Those addresses are "
            "the hosts' own, and every host would be told two ways to them. A prefix that contains a subnet is "
            "allowed: the longer one wins."
        ),
        example=_fra("advertise: [10.80.0.128/25]"),
        fixed=_fra("advertise: [192.168.10.0/24]"),
    ),
    Explanation(
        code=codes.UNKNOWN_NAME,
        meaning=(
            "A name stands where a host or group is meant, and the file has none of that name, or has a group where "
            "only a host can be. The message names the one that was probably meant."
        ),
        example=_peering("  - hub: farnkfurt\n"),
        fixed=_peering("  - hub: fra\n"),
    ),
    Explanation(
        code=codes.NAME_CLASH,
        meaning=(
            "Hosts and groups share one name space, since both can stand in a rule, and this name is a group's and a "
            "host's. `all` is always the group of every host."
        ),
        example=change(OFFICE, ("hosts:\n", "groups:\n  nyc: [nyc]\nhosts:\n")),
        fixed=change(OFFICE, ("hosts:\n", "groups:\n  america: [nyc]\nhosts:\n")),
    ),
    Explanation(
        code=codes.SELF_LINK,
        meaning=(
            "A `link` names the same host twice. A host cannot be its own peer: the kernel drops in silence a peer "
            "that has the interface's own public key."
        ),
        example=_peering("  - mesh: all\n  - link: [nyc, nyc]\n"),
        fixed=_peering("  - mesh: all\n  - link: [fra, nyc]\n"),
    ),
    Explanation(
        code=codes.EMPTY_RULE,
        meaning=(
            "A peering rule gives no pair: a mesh of a single host, or a hub without a spoke. `spokes` that are not "
            "given are the hosts that no mesh or hub rule names, and here none is left. The rule was meant to do "
            "something, so it is not passed over."
        ),
        example=_peering("  - hub: fra\n    spokes: [nyc]\n  - mesh: [nyc]\n"),
        fixed=_peering("  - hub: fra\n    spokes: [nyc]\n"),
    ),
    Explanation(
        code=codes.NO_HANDSHAKE,
        meaning=(
            "A `hub` or `link` rule wants these two hosts to be peers, but neither has an `endpoint`, so neither "
            "knows where to send the first packet. A `site-endpoint` counts between hosts of one site. In a `mesh` "
            "such a pair is left out and relayed through others if it can be."
        ),
        example=change(_peering("  - hub: fra\n"), ("    endpoint: fra.example.net\n", "")),
        fixed=_peering("  - hub: fra\n"),
        way_out="Give one of the two an `endpoint`, on the host or on the link, or let them meet through a hub.",
    ),
    Explanation(
        code=codes.UNREACHABLE_PAIR,
        meaning=(
            "Two hosts of the network cannot reach each other: they are not peers, and no host with `forward` "
            "connects them. Often both are behind NAT, so that the mesh left their pair out. Hubs relay by default, "
            "other hosts do not. It is a warning because it may be intended; `expect` turns what must hold into an "
            "error, and `isolate` on a hub says that it is meant so."
        ),
        example=_THREE,
        fixed=change(_THREE, ("  fra:\n", "  fra:\n    forward: true\n")),
    ),
    Explanation(
        code=codes.EXIT_NODE_NOT_PEER,
        meaning=(
            "The exit node is not a direct peer of this host. Everything that leaves for the internet has to be in "
            "the AllowedIPs of one peer, and a relay in between would send it out by itself instead of passing it on."
        ),
        example=change(_peering("  - hub: fra\n", _DUAL + _EXIT_SGP), ("exit-node: fra", "exit-node: sgp")),
        fixed=_peering("  - hub: fra\n", _DUAL + _EXIT_SGP),
        way_out="Choose a direct peer, or make the exit node one with a `link` rule.",
    ),
    Explanation(
        code=codes.EXIT_NODE_NO_DEFAULT,
        meaning=(
            "The host that is named as exit node does not offer to be one: it advertises neither `0.0.0.0/0` nor "
            "`::/0`. Both sides have to say so, since the exit node must forward and usually masquerade what comes "
            "out of the tunnel."
        ),
        example=change(_DUAL, ('    advertise: [0.0.0.0/0, "::/0"]\n', "")),
        fixed=_DUAL,
    ),
    Explanation(
        code=codes.EXPECT_FAILED,
        meaning=(
            "The file says under `expect` what must hold, and it does not: somebody reaches what they should not, "
            "does not reach what they should, or goes another way. It is proved for every member of a group and for "
            "every address family that both ends have, and the message shows the path that the packet takes instead."
        ),
        example=f"{OFFICE}expect:\n  - {{from: nyc, to: fra, reachable: false}}\n",
        fixed=f"{OFFICE}expect:\n  - {{from: nyc, to: fra}}\n",
        way_out="Change the network if the expectation is right, else the expectation.",
    ),
    Explanation(
        code=codes.INTERFACE_COLLISION,
        meaning=(
            "Two networks would use the same interface on one host. An interface has one private key, one port and "
            "one set of peers; the second file of the same interface would be ignored by systemd-networkd, and "
            "replace the first elsewhere."
        ),
        example=_both(OFFICE, change(_LAB, ("  fra:\n", "  fra:\n    interface: office\n"))),
        fixed=_both(OFFICE, _LAB),
    ),
    Explanation(
        code=codes.LISTEN_PORT_COLLISION,
        meaning=(
            "Two networks would listen on the same UDP port of one host. The kernel lets the first have it, and the "
            "second interface does not come up. `listen-port` stands at the network or at the host; `auto` suits "
            "hosts without an endpoint."
        ),
        example=_both(OFFICE, change(_LAB, ("51821", "51820"))),
        fixed=_both(OFFICE, _LAB),
    ),
    Explanation(
        code=codes.MARK_COLLISION,
        meaning=(
            "Two networks would use the same firewall mark on one host. The mark tells the tunnel's own packets from "
            "those that are to enter it, and numbers the routing table of the exit node, so with one mark for both "
            "each network would take the other's packets for its own. So it is where the mark that an exit node needs "
            "is the number that the other network gives as its `table`."
        ),
        example=_both(_fra("firewall-mark: 51820"), change(_LAB, ("  fra:\n", "  fra:\n    firewall-mark: 51820\n"))),
        fixed=_both(_fra("firewall-mark: 51820"), change(_LAB, ("  fra:\n", "  fra:\n    firewall-mark: 51821\n"))),
    ),
    Explanation(
        code=codes.ROUTE_COLLISION,
        meaning=(
            "Two networks would make the same route on one host: prefix, table and metric are equal. The kernel keeps "
            "one of them, so the other network's traffic would go the wrong way, depending on which came up first."
        ),
        example=_both(
            change(OFFICE, ("  nyc:\n", "  nyc:\n    advertise: [192.168.10.0/24]\n")),
            change(_LAB, ("  tok:\n", "  tok:\n    advertise: [192.168.10.0/24]\n")),
        ),
        fixed=_both(
            change(OFFICE, ("  nyc:\n", "  nyc:\n    advertise: [192.168.10.0/24]\n")),
            change(_LAB, ("  tok:\n", "  tok:\n    advertise: [192.168.20.0/24]\n")),
        ),
        way_out="Change one prefix, or give the host another `metric` or `table` in one network.",
    ),
    Explanation(
        code=codes.SUBNETS_OVERLAP,
        meaning=(
            "Two subnets of one network are equal, or one lies inside the other. It could not be told which prefix "
            "length an address has, and so which addresses its host takes for neighbours."
        ),
        example=change(OFFICE, ("[10.80.0.0/24]", "[10.80.0.0/24, 10.80.0.128/25]")),
        fixed=change(OFFICE, ("[10.80.0.0/24]", "[10.80.0.0/24, 10.80.1.0/24]")),
    ),
    Explanation(
        code=codes.GROUP_CYCLE,
        meaning=(
            "A group has itself among its members, directly or through other groups, so its members cannot be listed."
        ),
        example=change(OFFICE, ("hosts:\n", "groups:\n  east: [fra, west]\n  west: [nyc, east]\nhosts:\n")),
        fixed=change(OFFICE, ("hosts:\n", "groups:\n  east: [fra, west]\n  west: [nyc]\nhosts:\n")),
    ),
    Explanation(
        code=codes.EXIT_NODE_ONE_FAMILY,
        meaning=(
            "The exit node offers a default route for one address family alone. Whatever the host sends by the other "
            "family leaves beside the tunnel, with the host's own address, which is rarely what someone expects who "
            "sends everything through an exit node."
        ),
        example=change(_DUAL, ('[0.0.0.0/0, "::/0"]', "[0.0.0.0/0]")),
        fixed=_DUAL,
        way_out=(
            "Let the exit node advertise both, with addresses of both families in the network, or switch the other "
            "family off on the host."
        ),
    ),
    Explanation(
        code=codes.EXIT_NODE_PUBLIC_HOST,
        meaning=(
            "A host that others reach at an `endpoint` of its own uses an exit node. Replies to what comes in at its "
            "public address would enter the tunnel and leave elsewhere with another source, so services on that "
            "address stop working. WireGuard's own packets are not affected: they bear the firewall mark."
        ),
        example=change(_DUAL, ("    exit-node: fra\n", "    exit-node: fra\n    endpoint: nyc.example.net\n")),
        fixed=_DUAL,
    ),
    Explanation(
        code=codes.ANY_NOT_ALONE,
        meaning=(
            "`allowed-ips: any` gives a link 0.0.0.0/0 and ::/0 at both ends, for a routing protocol to fill the "
            "routes. On one interface a prefix belongs to one peer, so such a link has to be the only one of both its "
            "hosts in this file: with a second peer one of them would lose its addresses. Networks for routing "
            "protocols have a file, and an interface, for each link."
        ),
        example=_peering("  - link: [fra, nyc]\n    allowed-ips: any\n  - link: [fra, sgp]\n", _THREE),
        fixed=_peering("  - link: [fra, nyc]\n    allowed-ips: any\n"),
    ),
    Explanation(
        code=codes.PORT_UNKNOWN,
        meaning=(
            "The endpoint has no port, so it would be the host's listen port, but that is `auto`: the kernel chooses "
            "another one at every start and nobody knows it in advance."
        ),
        example=_fra("listen-port: auto"),
        fixed=_fra("listen-port: 51820"),
        way_out="Write the port into the endpoint, or give the host a fixed `listen-port`.",
    ),
    Explanation(
        code=codes.DUPLICATE_LINK,
        meaning=(
            "Two `link` rules name the same pair, in whichever order. They could disagree about the endpoint, the "
            "preshared key or the keepalive, and neither would be the stronger one. A link beside a mesh or hub rule "
            "is fine and wins over it."
        ),
        example=_peering("  - link: [fra, nyc]\n    keepalive: 15\n  - link: [nyc, fra]\n    preshared-key: false\n"),
        fixed=_peering("  - link: [fra, nyc]\n    keepalive: 15\n    preshared-key: false\n"),
    ),
    Explanation(
        code=codes.LINK_ENDPOINT_NAME,
        meaning=(
            "The `endpoint` of a link says how the other end reaches one of its two hosts. The name here is neither "
            "of them, so the endpoint would never be used."
        ),
        example=_peering("  - hub: fra\n  - link: [fra, nyc]\n    endpoint: {sgp: 10.1.2.3}\n", _THREE),
        fixed=_peering("  - hub: fra\n  - link: [fra, nyc]\n    endpoint: {nyc: 10.1.2.3}\n", _THREE),
    ),
    Explanation(
        code=codes.MTU_TOO_SMALL,
        meaning=(
            "The host has an IPv6 address in the network and an MTU below 1280. IPv6 requires 1280 bytes on every "
            "link (RFC 8200), and the kernel switches it off on an interface that has less."
        ),
        example=change(_DUAL, ("hosts:\n", "  mtu: 1200\nhosts:\n")),
        fixed=change(_DUAL, ("hosts:\n", "  mtu: 1280\nhosts:\n")),
    ),
    Explanation(
        code=codes.TOO_MANY_LINKS,
        meaning=(
            "The peering rules give more links than wgnet makes: a full mesh of 2,048 hosts is the most. The links of "
            "a mesh grow with the square of its hosts, and each host would keep a session with every other, so a "
            "larger one is nearly always a slip: a group that was meant to be the spokes of a hub."
        ),
        example=lambda: _crowd("mesh"),
        fixed=lambda: _crowd("{hub: host0}"),
        way_out=(
            "Let the hosts meet at one or more hubs, and mesh only those that exchange much traffic; or split the "
            "network into several."
        ),
    ),
    Explanation(
        code=codes.ACCEPT_NOTHING,
        meaning=(
            "`accept` narrows what a host takes of the subnets that others advertise. This entry covers none of them, "
            "so it has no effect; it may be misspelt, or the subnet is not advertised any more."
        ),
        example=change(_fra("advertise: [192.168.10.0/24]"), ("  nyc:\n", "  nyc:\n    accept: [192.168.99.0/24]\n")),
        fixed=change(_fra("advertise: [192.168.10.0/24]"), ("  nyc:\n", "  nyc:\n    accept: [192.168.10.0/24]\n")),
    ),
    Explanation(
        code=codes.DNS_UNREACHABLE,
        meaning=(
            "A DNS server has an address inside the network's subnets, and no host has the address, or this one has no "
            "path to it. Its queries would be lost, and with an exit node nothing would resolve at all."
        ),
        example=change(OFFICE, ("hosts:\n", "  dns: {servers: [10.80.0.53], search: [corp.example.com]}\nhosts:\n")),
        fixed=change(OFFICE, ("hosts:\n", "  dns: {servers: [10.80.0.1], search: [corp.example.com]}\nhosts:\n")),
    ),
    Explanation(
        code=codes.NETWORK_NAME_COLLISION,
        meaning=(
            "Two of the files describe networks of the same name. The name is the network's identity: its files on "
            "the hosts, its keys and its interface are named after it, so the two would overwrite each other."
        ),
        example=_both(OFFICE, change(_LAB, ("name: lab", "name: office\n  interface: lab"))),
        fixed=_both(OFFICE, _LAB),
    ),
    Explanation(
        code=codes.NEXT_KEY_EQUAL,
        meaning=(
            "`next-public-key` is the key that a rotation goes to, and here it is the host's present key. One key "
            "cannot be two peers, and nothing would be rotated."
        ),
        example=change(OFFICE, (f'"{NYC_KEY}"\n', f'"{NYC_KEY}"\n    next-public-key: "{NYC_KEY}"\n')),
        fixed=change(OFFICE, (f'"{NYC_KEY}"\n', f'"{NYC_KEY}"\n    next-public-key: "{OTHER_KEY}"\n')),
        way_out="Remove it when the rotation is over.",
    ),
    Explanation(
        code=codes.NO_ADDRESS,
        meaning=(
            "The host has no address in the network, so nothing can be sent to it or come from it. Only external "
            "hosts may do without, such as a provider that is there for its default route."
        ),
        example=change(OFFICE, ("    addresses: [10.80.0.2]\n", "")),
        fixed=OFFICE,
        way_out="Write an address that no other host has.",
    ),
    Explanation(
        code=codes.ADVERTISED_UNREACHABLE,
        meaning=(
            "A host advertises a subnet that some hosts cannot reach: no path leads to it, or the network has no "
            "addresses of that family to send from."
        ),
        example=_fra('advertise: ["fd00:10::/64"]'),
        fixed=_fra("advertise: [192.168.10.0/24]"),
    ),
    Explanation(
        code=codes.DNS_ENDPOINT,
        meaning=(
            "A host's DNS goes through the tunnel, and so does the question for the address of the peer that carries "
            "it. systemd-networkd asks when the interface comes up and goes on asking; if the first question is too "
            "early at boot, every later one waits for a tunnel that waits for the answer."
        ),
        example=change(OFFICE, ("fra.example.net", "fra.corp.example.com"), ("  name: office\n", _DNS_LINE)),
        fixed=change(OFFICE, ("  name: office\n", _DNS_LINE)),
    ),
    Explanation(
        code=codes.EXIT_NODE_RING,
        meaning=(
            "Each of these hosts sends what has no other way through the next, and the last through the first. Such a "
            "packet goes round until its hops are used up, and never leaves."
        ),
        example=_RING,
        fixed=change(_RING, ("    exit-node: nyc\n", "")),
        way_out="One of them has to be where the others leave: remove its `exit-node`.",
    ),
    Explanation(
        code=codes.ISOLATES_NOTHING,
        meaning=(
            "`isolate` keeps the spokes of its own rule from each other. With one spoke there is nobody to keep it "
            "from: spokes of another rule reach it through the hub, and it reaches them."
        ),
        example=change(_THREE, ("hosts:\n", _ONE_ISOLATED)),
        fixed=change(_THREE, ("hosts:\n", "peering: {hub: fra, spokes: [nyc, sgp], isolate: true}\nhosts:\n")),
        way_out="Put both into the spokes of one rule, or give one of them a network of its own.",
    ),
)
