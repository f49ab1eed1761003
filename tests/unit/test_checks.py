"""Every refusal of the meaning: its code, its place, what it clashes with, and that the mended file is clean."""

# ruff: noqa: E501 - a host of a topology is one line

from __future__ import annotations

import pytest
from helpers import FILE, check_texts, codes_of, problems, unmark

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import CODES
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity

A, B, C, D = (f"{letter * 42}A=" for letter in "abcd")


def network(
    hosts: str, *, top: str = "", inside: str = "", subnets: str = "[10.80.0.0/24]", name: str = "office"
) -> str:
    """Return a topology; `hosts` are flow mappings by name, one a line."""
    lines = "".join(f"  {line.strip()}\n" for line in hosts.strip().splitlines())
    top = "".join(f"{line}\n" for line in top.strip().splitlines())
    return f"wgnet: 1\nnetwork: {{name: {name}, subnets: {subnets}{inside}}}\n{top}hosts:\n{lines}"


FRA = "fra: {addresses: [10.80.0.1], endpoint: fra.example.net}"
NYC = "nyc: {addresses: [10.80.0.2]}"
DUAL = '[10.80.0.0/24, "fd42:80::/64"]'

#: Code, the topology with its places marked, the same mended. One diagnostic each.
CASES: list[tuple[str, str, str]] = [
    (
        "WG3001",
        network("a: {addresses: [⟪10.80.0.1⟫], endpoint: a.example}\nb: {addresses: [10.80.0.3, ⟦10.80.0.1⟧]}"),
        network("a: {addresses: [10.80.0.1], endpoint: a.example}\nb: {addresses: [10.80.0.3, 10.80.0.2]}"),
    ),
    (  # a disabled host keeps its address
        "WG3001",
        network(f"{FRA}\na: {{addresses: [⟪10.80.0.2⟫], disabled: true}}\nb: {{addresses: [⟦10.80.0.2⟧]}}"),
        network(f"{FRA}\na: {{addresses: [10.80.0.3], disabled: true}}\nb: {{addresses: [10.80.0.2]}}"),
    ),
    (  # one address in two forms
        "WG3001",
        network(f'{FRA}\nb: {{addresses: ["⟪⟫"]}}').replace('"⟪⟫"', "⟪10.80.0.2⟫, ⟦10.80.0.2/24⟧"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2, 10.80.0.3/24]}}"),
    ),
    (
        "WG3002",
        network(f"{FRA.replace('}', f', public-key: ⟪{A}⟫}}')}\nb: {{addresses: [10.80.0.2], public-key: ⟦{A}⟧}}"),
        network(f"{FRA.replace('}', f', public-key: {A}}}')}\nb: {{addresses: [10.80.0.2], public-key: {B}}}"),
    ),
    (  # the next key of one is the present one of another
        "WG3002",
        network(
            f"{FRA.replace('}', f', public-key: {A}, next-public-key: ⟪{B}⟫}}')}\n"
            f"b: {{addresses: [10.80.0.2], public-key: ⟦{B}⟧}}"
        ),
        network(
            f"{FRA.replace('}', f', public-key: {A}, next-public-key: {C}}}')}\n"
            f"b: {{addresses: [10.80.0.2], public-key: {B}}}"
        ),
    ),
    (
        "WG3035",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], public-key: ⟪{A}⟫, next-public-key: ⟦{A}⟧}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], public-key: {A}, next-public-key: {B}}}"),
    ),
    (
        "WG3003",
        network(f"a: {{addresses: [10.80.0.1], endpoint: ⟦192.168.10.5⟧, advertise: [10.1.0.0/16, ⟪192.168.10.0/24⟫]}}\n{NYC}"),
        network(f"a: {{addresses: [10.80.0.1], endpoint: 192.0.2.5, advertise: [10.1.0.0/16, 192.168.10.0/24]}}\n{NYC}"),
    ),
    (  # inside what another host advertises; one of a list; a site-endpoint is exempt
        "WG3003",
        network(
            "a: {addresses: [10.80.0.1], endpoint: [192.0.2.1, ⟦10.1.0.5⟧], site: x, site-endpoint: 10.1.0.5}\n"
            "b: {addresses: [10.80.0.2], endpoint: b.example, advertise: [⟪10.1.0.0/16⟫]}\n"
            "c: {addresses: [10.80.0.3], endpoint: c.example, site: x}\nd: {addresses: [10.80.0.4]}"
        ),
        network(
            "a: {addresses: [10.80.0.1], endpoint: [192.0.2.1, 192.0.2.2], site: x, site-endpoint: 10.1.0.5}\n"
            "b: {addresses: [10.80.0.2], endpoint: b.example, advertise: [10.1.0.0/16]}\n"
            "c: {addresses: [10.80.0.3], endpoint: c.example, site: x}\nd: {addresses: [10.80.0.4]}"
        ),
    ),
    (
        "WG3003",
        network(f"a: {{addresses: [10.80.0.1], endpoint: '⟦⟧'}}\n{NYC}", subnets="⟪[10.80.0.0/24]⟫").replace(
            "'⟦⟧'", "⟦10.80.0.9:5⟧"
        ),
        network(f"a: {{addresses: [10.80.0.1], endpoint: '192.0.2.9:5'}}\n{NYC}"),
    ),
    (  # an endpoint of one link, seen by its other end
        "WG3003",
        network(
            f"{FRA}\nb: {{addresses: [10.80.0.2], advertise: [⟪10.1.0.0/16⟫]}}",
            top="peering: [{link: [fra, b], endpoint: {b: ⟦10.1.2.3⟧}}]",
        ),
        network(
            f"{FRA}\nb: {{addresses: [10.80.0.2], advertise: [10.1.0.0/16]}}",
            top="peering: [{link: [fra, b], endpoint: {b: 10.2.2.3}}]",
        ),
    ),
    (  # the user's own address has a shorter prefix than the subnet
        "WG3003",
        network("a: {addresses: [10.80.0.1], endpoint: ⟦10.9.9.9⟧}\nb: {addresses: [10.80.0.2/8]}", subnets="⟪[10.80.0.0/24]⟫"),
        network("a: {addresses: [10.80.0.1], endpoint: 11.9.9.9}\nb: {addresses: [10.80.0.2/8]}"),
    ),
    (
        "WG3004",
        network(f"{FRA}\nb: {{addresses: [⟦10.81.0.2⟧]}}", subnets="⟪[10.80.0.0/24]⟫"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2]}}"),
    ),
    (
        "WG3004",
        network(f'{FRA}\nb: {{addresses: [10.80.0.2, ⟦fd42:80::1⟧]}}', subnets="⟪[10.80.0.0/24]⟫"),
        network(f'{FRA}\nb: {{addresses: [10.80.0.2, "fd42:80::1"]}}', subnets=DUAL),
    ),
    ("WG3005", network(f"{FRA}\nb: {{addresses: [⟦10.80.0.0⟧]}}"), network(f"{FRA}\nb: {{addresses: [10.80.0.2]}}")),
    (
        "WG3005",
        network(f"{FRA}\nb: {{addresses: [⟦10.80.0.255⟧]}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.255]}}", subnets="[10.80.0.0/23]"),
    ),
    (  # a /31 has no such addresses
        "WG3005",
        network("a: {addresses: [⟦10.80.0.3⟧], endpoint: a.example}\nb: {addresses: [10.80.0.1]}", subnets="[10.80.0.0/30]"),
        network("a: {addresses: [10.80.0.0], endpoint: a.example}\nb: {addresses: [10.80.0.1]}", subnets="[10.80.0.0/31]"),
    ),
    (  # nor has an IPv6 subnet
        "WG3036",
        network(f'{FRA}\n⟦b⟧: {{}}'),
        network('a: {addresses: ["fd42:80::"], endpoint: a.example}\nb: {addresses: ["fd42:80::1"]}', subnets='["fd42:80::/64"]'),
    ),
    (
        "WG3006",
        network(
            "a: {addresses: [10.80.0.1], endpoint: a.example, advertise: [0.0.0.0/0, ⟪10.1.0.0/16⟫]}\n"
            "b: {addresses: [10.80.0.2], advertise: [10.2.0.0/16, 0.0.0.0/0, ⟦10.1.0.0/16⟧]}"
        ),
        network(
            "a: {addresses: [10.80.0.1], endpoint: a.example, advertise: [0.0.0.0/0, 10.1.0.0/16]}\n"
            "b: {addresses: [10.80.0.2], advertise: [10.2.0.0/16, 0.0.0.0/0, 10.1.1.0/24]}"
        ),
    ),
    (  # given by `defaults`: the list is the place
        "WG3006",
        network(
            f"{FRA.replace('}', ', advertise: [⟪10.1.0.0/16⟫]}')}\n{NYC}",
            top="groups: {g: [nyc]}\ndefaults: {g: {advertise: ⟦[10.2.0.0/16, 10.1.0.0/16]⟧}}",
        ),
        network(
            f"{FRA.replace('}', ', advertise: [10.3.0.0/16]}')}\n{NYC}",
            top="groups: {g: [nyc]}\ndefaults: {g: {advertise: [10.2.0.0/16, 10.1.0.0/16]}}",
        ),
    ),
    (
        "WG3007",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], advertise: [⟦10.80.0.128/25⟧]}}", subnets="[10.9.0.0/24, ⟪10.80.0.0/24⟫]"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], advertise: [10.80.0.0/16]}}", subnets="[10.9.0.0/24, 10.80.0.0/24]"),
    ),
    (
        "WG3007",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], advertise: [⟦10.80.0.0/24⟧]}}", subnets="[⟪10.80.0.0/24⟫]"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2]}}"),
    ),
    (
        "WG3008",
        network(f"{FRA}\n{NYC}", top="peering: {hub: ⟦frq⟧}"),
        network(f"{FRA}\n{NYC}", top="peering: {hub: fra}"),
    ),
    (
        "WG3008",
        network(f"{FRA}\n{NYC}", top="groups: {eu: [fra, ⟦nobody⟧]}"),
        network(f"{FRA}\n{NYC}", top="groups: {eu: [fra, nyc]}"),
    ),
    (
        "WG3008",
        network(f"{FRA}\n{NYC}", top="defaults: {⟦fra⟧: {mtu: 1400}}"),
        network(f"{FRA}\n{NYC}", top="groups: {g: [fra]}\ndefaults: {g: {mtu: 1400}}"),
    ),
    (
        "WG3008",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], exit-node: ⟦nobody⟧}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2]}}"),
    ),
    (
        "WG3008",
        network(f"{FRA}\n{NYC}", top="groups: {g: [fra]}\npeering: [{link: [⟦g⟧, nyc]}]"),
        network(f"{FRA}\n{NYC}", top="groups: {g: [fra]}\npeering: [{link: [fra, nyc]}]"),
    ),
    (
        "WG3008",
        network(f"{FRA}\n{NYC}", top="expect: [{from: fra, to: nyc, via: [⟦all⟧]}]"),
        network(f"{FRA}\n{NYC}", top="expect: [{from: fra, to: nyc, via: []}]"),
    ),
    (
        "WG3009",
        network(f"⟪fra⟫{FRA[3:]}\n{NYC}", top="groups: {⟦fra⟧: [nyc]}"),
        network(f"{FRA}\n{NYC}", top="groups: {eu: [nyc]}"),
    ),
    (
        "WG3009",
        network(f"{FRA}\n{NYC}", top="groups: {⟦all⟧: [nyc]}"),
        network(f"{FRA}\n{NYC}", top="groups: {every: [all]}"),
    ),
    (
        "WG3009",
        network(f"{FRA}\n⟦all⟧: {{addresses: [10.80.0.2]}}"),
        network(f"{FRA}\nALL: {{addresses: [10.80.0.2]}}"),
    ),
    (
        "WG3010",
        network(f"{FRA}\n{NYC}", top="peering: [{mesh: all}, {link: ⟦[nyc, nyc]⟧}]"),
        network(f"{FRA}\n{NYC}", top="peering: [{mesh: all}, {link: [nyc, fra]}]"),
    ),
    (
        "WG2003",
        network(f"{FRA}\n{NYC}", top="peering: [{mesh: all}, {link: ⟦[nyc]⟧}]"),
        network(f"{FRA}\n{NYC}", top="peering: [{mesh: all}, {link: [nyc, fra]}]"),
    ),
    (
        "WG3011",
        network(f"{FRA}\n{NYC}", top="groups: {g: [nyc]}\npeering: [{mesh: all}, {mesh: ⟦g⟧}]"),
        network(f"{FRA}\n{NYC}", top="groups: {g: [nyc, fra]}\npeering: [{mesh: all}, {mesh: g}]"),
    ),
    (
        "WG3011",
        network(f"{FRA}\n{NYC}", top="groups: {g: []}\npeering: [{mesh: all}, {hub: ⟦g⟧, spokes: nyc}]"),
        network(f"{FRA}\n{NYC}", top="groups: {g: [fra]}\npeering: [{mesh: all}, {hub: g, spokes: nyc}]"),
    ),
    (
        "WG3011",
        network(f"{FRA}\n{NYC}", top="peering: [⟦{hub: fra}⟧, {mesh: [nyc, fra]}]"),
        network(f"{FRA}\n{NYC}", top="peering: [{hub: fra}, {link: [nyc, fra]}]"),
    ),
    (
        "WG3012",
        network("⟪a⟫: {addresses: [10.80.0.1]}\n⟪b⟫: {addresses: [10.80.0.2]}", top="peering: {hub: a}").replace(
            "⟪a⟫", "⟦a⟧"
        ).replace("{hub: a}", "⟪{hub: a}⟫"),
        network("a: {addresses: [10.80.0.1], endpoint: a.example}\nb: {addresses: [10.80.0.2]}", top="peering: {hub: a}"),
    ),
    (  # a site-endpoint helps within the site alone
        "WG3012",
        network(
            "⟦a⟧: {addresses: [10.80.0.1], site: x, site-endpoint: 10.1.0.1}\n⟪b⟫: {addresses: [10.80.0.2], site: y}",
            top="peering: [⟪{link: [a, b]}⟫]",
        ),
        network(
            "a: {addresses: [10.80.0.1], site: x, site-endpoint: 10.1.0.1}\nb: {addresses: [10.80.0.2], site: x}",
            top="peering: [{link: [a, b]}]",
        ),
    ),
    (
        "WG3013",
        network(f"{FRA}\n⟦a⟧: {{addresses: [10.80.0.2]}}\n⟪b⟫: {{addresses: [10.80.0.3]}}"),
        network(f"{FRA.replace('}', ', forward: true}')}\na: {{addresses: [10.80.0.2]}}\nb: {{addresses: [10.80.0.3]}}"),
    ),
    (
        "WG3014",
        network(
            f"{FRA}\na: {{addresses: [10.80.0.2], exit-node: ⟦x⟧, bypass: ['::/0']}}\n"
            "⟪x⟫: {addresses: [10.80.0.3], advertise: [0.0.0.0/0]}",
            top="peering: {hub: fra}",
        ),
        network(
            f"{FRA}\na: {{addresses: [10.80.0.2], exit-node: x, bypass: ['::/0']}}\n"
            "x: {addresses: [10.80.0.3], endpoint: x.example, advertise: [0.0.0.0/0]}",
            top="peering: [{hub: fra}, {link: [a, x]}]",
        ),
    ),
    (
        "WG3014",
        network(f"{FRA}\na: {{addresses: [10.80.0.2], exit-node: ⟦a⟧, advertise: [0.0.0.0/0]}}"),
        network(f"{FRA}\na: {{addresses: [10.80.0.2], advertise: [0.0.0.0/0]}}"),
    ),
    (
        "WG3015",
        network(
            "fra: {addresses: [10.80.0.1], endpoint: a.example, advertise: ⟪[10.1.0.0/16]⟫}\n"
            "nyc: {addresses: [10.80.0.2], exit-node: ⟦fra⟧}"
        ),
        network(
            "fra: {addresses: [10.80.0.1], endpoint: a.example, advertise: [0.0.0.0/0]}\n"
            "nyc: {addresses: [10.80.0.2], exit-node: fra, bypass: ['::/0']}"
        ),
    ),
    (
        "WG3016",
        network(f"{FRA}\n{NYC}", top="expect: [⟦{from: nyc, to: fra, reachable: false}⟧]"),
        network(f"{FRA}\n{NYC}", top="expect: [{from: nyc, to: fra}]"),
    ),
    (
        "WG3021",
        network(f"{FRA}\n{NYC}", subnets="[⟪10.80.0.0/24⟫, ⟦10.80.0.128/25⟧]"),
        network(f"{FRA}\n{NYC}", subnets="[10.80.0.0/25, 10.80.0.128/25]"),
    ),
    (
        "WG3022",
        network(f"{FRA}\n{NYC}", top="groups: {a: [fra, ⟦a⟧]}"),
        network(f"{FRA}\n{NYC}", top="groups: {a: [fra, b], b: [nyc]}"),
    ),
    (
        "WG3023",
        network(
            "fra: {addresses: [10.80.0.1, 'fd42:80::1'], endpoint: a.example, advertise: [0.0.0.0/0]}\n"
            "nyc: {addresses: [10.80.0.2, 'fd42:80::2'], exit-node: ⟦fra⟧}",
            subnets=DUAL,
        ),
        network(
            "fra: {addresses: [10.80.0.1, 'fd42:80::1'], endpoint: a.example, advertise: [0.0.0.0/0, '::/0']}\n"
            "nyc: {addresses: [10.80.0.2, 'fd42:80::2'], exit-node: fra}",
            subnets=DUAL,
        ),
    ),
    (
        "WG3024",
        network(
            "fra: {addresses: [10.80.0.1], endpoint: a.example, advertise: [0.0.0.0/0]}\n"
            "nyc: {addresses: [10.80.0.2], exit-node: ⟦fra⟧, endpoint: ⟪b.example⟫, bypass: ['::/0']}"
        ),
        network(
            "fra: {addresses: [10.80.0.1], endpoint: a.example, advertise: [0.0.0.0/0]}\n"
            "nyc: {addresses: [10.80.0.2], exit-node: fra, bypass: ['::/0']}"
        ),
    ),
    (
        "WG3040",
        network(
            f"{FRA}\n{NYC}\nsgp: {{addresses: [10.80.0.3]}}",
            top="peering: [{hub: fra, spokes: nyc}, {hub: fra, spokes: sgp, isolate: ⟦true⟧}]",
        ),
        network(
            f"{FRA}\n{NYC}\nsgp: {{addresses: [10.80.0.3]}}", top="peering: {hub: fra, isolate: true}"
        ),
    ),
    (
        "WG3039",
        network(
            "fra: {addresses: [10.80.0.1], endpoint: ⟦vpn.corp.example⟧}\nnyc: {addresses: [10.80.0.2]}",
            inside=", dns: ⟪{servers: [10.80.0.1], search: [corp.example]}⟫",
        ),
        network(
            "fra: {addresses: [10.80.0.1], endpoint: vpn.example}\nnyc: {addresses: [10.80.0.2]}",
            inside=", dns: {servers: [10.80.0.1], search: [corp.example]}",
        ),
    ),
    (  # on one local network, since an endpoint for the world would draw WG3024 too
        "WG3038",
        network(
            "fra: {addresses: [10.80.0.1], site: x, site-endpoint: 192.168.1.1, advertise: [0.0.0.0/0], "
            "exit-node: ⟦nyc⟧, bypass: ['::/0']}\n"
            "nyc: {addresses: [10.80.0.2], site: x, advertise: [0.0.0.0/0], exit-node: ⟪fra⟫, bypass: ['::/0']}"
        ),
        network(
            "fra: {addresses: [10.80.0.1], site: x, site-endpoint: 192.168.1.1, advertise: [0.0.0.0/0]}\n"
            "nyc: {addresses: [10.80.0.2], site: x, advertise: [0.0.0.0/0], exit-node: fra, bypass: ['::/0']}"
        ),
    ),
    (
        "WG3025",
        network(
            f"{FRA}\na: {{addresses: [10.80.0.2], endpoint: a.example}}\nb: {{addresses: [10.80.0.3]}}".replace(
                "fra:", "⟪fra⟫:", 1
            ),
            top="peering: [{link: [fra, a], allowed-ips: ⟦any⟧}, {link: [fra, b]}]",
        ),
        network(f"{FRA}\na: {{addresses: [10.80.0.2]}}", top="peering: [{link: [fra, a], allowed-ips: any}]"),
    ),
    (
        "WG3026",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], endpoint: ['b.example:5', ⟦c.example⟧], listen-port: ⟪auto⟫}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], endpoint: ['b.example:5', 'c.example:5'], listen-port: auto}}"),
    ),
    (
        "WG3026",
        network(
            f"{FRA}\nb: {{addresses: [10.80.0.2], listen-port: ⟪auto⟫}}",
            top="peering: [{link: [fra, b], endpoint: {b: ['192.0.2.1:5', ⟦192.0.2.2⟧]}}]",
        ),
        network(
            f"{FRA}\nb: {{addresses: [10.80.0.2], listen-port: auto}}",
            top="peering: [{link: [fra, b], endpoint: {b: ['192.0.2.1:5', '192.0.2.2:5']}}]",
        ),
    ),
    (
        "WG3027",
        network(f"{FRA}\n{NYC}", top="peering: [{link: ⟪[fra, nyc]⟫}, {link: ⟦[nyc, fra]⟧}]"),
        network(f"{FRA}\n{NYC}", top="peering: [{mesh: all}, {link: [nyc, fra]}]"),
    ),
    (
        "WG3028",
        network(
            f"{FRA}\n{NYC}\nsgp: {{addresses: [10.80.0.3]}}",
            top="peering: [{hub: fra}, {link: ⟪[fra, nyc]⟫, endpoint: {⟦sgp⟧: 192.0.2.1}}]",
        ),
        network(
            f"{FRA}\n{NYC}\nsgp: {{addresses: [10.80.0.3]}}",
            top="peering: [{hub: fra}, {link: [fra, nyc], endpoint: {nyc: 192.0.2.1}}]",
        ),
    ),
    (
        "WG3029",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2, ⟪fd42:80::2⟫], mtu: ⟦1279⟧}}", subnets=DUAL),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2, 'fd42:80::2'], mtu: 1280}}", subnets=DUAL),
    ),
    (
        "WG3029",
        network(f"{FRA}\nb: {{addresses: [⟪fd42:80::2⟫, 10.80.0.2]}}", subnets=DUAL, inside=", mtu: ⟦576⟧"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2]}}", inside=", mtu: 576"),
    ),
    (
        "WG3031",
        network(f"{FRA.replace('}', ', advertise: [10.1.0.0/16]}')}\nb: {{addresses: [10.80.0.2], accept: [10.1.2.0/24, ⟦10.2.0.0/16⟧]}}"),
        network(f"{FRA.replace('}', ', advertise: [10.1.0.0/16]}')}\nb: {{addresses: [10.80.0.2], accept: [10.1.2.0/24, 10.0.0.0/8]}}"),
    ),
    (
        "WG3032",
        network(f"{FRA}\n{NYC}", inside=", dns: ⟦{servers: [10.80.0.53], search: [a.example]}⟧"),
        network(f"{FRA}\n{NYC}", inside=", dns: {servers: [10.80.0.1, 192.0.2.53], search: [a.example]}"),
    ),
    (
        "WG3037",
        network(f"fra: {{addresses: [10.80.0.1], endpoint: a.example, advertise: ⟦['fd00:10::/64']⟧}}\n{NYC}", subnets="⟪[10.80.0.0/24]⟫"),
        network(
            "fra: {addresses: [10.80.0.1], endpoint: a.example, advertise: ['fd00:10::/64']}\n"
            "nyc: {addresses: [10.80.0.2, 'fd42:80::2']}",
            subnets=DUAL,
        ),
    ),
    (  # a relay that does not take what others behind it would
        "WG3037",
        network(
            "hub: {addresses: [10.80.0.1], endpoint: a.example, accept: ⟦[]⟧}\n"
            "a: {addresses: [10.80.0.2], advertise: ⟪[10.1.0.0/16]⟫}\nb: {addresses: [10.80.0.3]}",
            top="peering: {hub: hub}",
        ),
        network(
            "hub: {addresses: [10.80.0.1], endpoint: a.example, accept: [10.1.0.0/16]}\n"
            "a: {addresses: [10.80.0.2], advertise: [10.1.0.0/16]}\nb: {addresses: [10.80.0.3]}",
            top="peering: {hub: hub}",
        ),
    ),
    (
        "WG2018",
        network(f"{FRA}\n{NYC}", name="⟦a-long-network-name⟧"),
        network(f"{FRA}\n{NYC}", name="a-long-network-name", inside=", interface: wg0"),
    ),
    (
        "WG2026",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], manager: networkmanager, manager-version: ⟦252⟧}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], manager: networkmanager, manager-version: 1.42}}"),
    ),
    (
        "WG2026",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], manager-version: ⟦1.42⟧}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], manager-version: 252}}"),
    ),
    (
        "WG4001",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], permissions: ⟦[alice]⟧}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], permissions: [alice], manager: networkmanager}}"),
    ),
    (
        "WG4001",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], private-key: ⟦{{agent: true}}⟧}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], private-key: {{agent: true}}, manager: networkmanager}}"),
    ),
    (
        "WG4002",
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], private-key: ⟦{{credential: k}}⟧, manager-version: 255}}"),
        network(f"{FRA}\nb: {{addresses: [10.80.0.2], private-key: {{credential: k}}, manager-version: 256}}"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "bad", "mended"), CASES)
def test_refused_at_its_place_and_clean_when_mended(code: str, bad: str, mended: str) -> None:
    text, primary, secondary = unmark(bad)
    found = problems(text)
    assert [one.code.name for one in found] == [code], [one.message for one in found]
    one = found[0]
    assert one.primary is not None
    labels = [f"{s.span.line}:{s.span.column}-{s.span.end_column}" for s in (one.primary, *one.secondary)]
    assert labels[:1] == primary
    assert sorted(labels[1:]) == sorted(secondary)
    assert one.severity is CODES[code].severity
    assert [later.message for later in problems(mended)] == []


# --- several files on one host ---------------------------------------------------------------------------------------

SECOND = "fra: {addresses: [10.81.0.1], endpoint: fra.example.net}\ntok: {addresses: [10.81.0.2]}"


def second(hosts: str = SECOND, inside: str = ", listen-port: 51821", name: str = "lab") -> str:
    return network(hosts, subnets="[10.81.0.0/24]", inside=inside, name=name)


FLEETS = [
    (
        "WG3033",
        network(f"{FRA}\n{NYC}", name="⟪office⟫"),
        second(name="⟦office⟧", inside=", interface: wg1, listen-port: 5"),
    ),
    ("WG3017", network(f"⟪fra⟫{FRA[3:]}\n{NYC}"), second(SECOND.replace("endpoint", "interface: ⟦office⟧, endpoint"))),
    ("WG3018", network(f"⟪fra⟫{FRA[3:]}\n{NYC}"), second(SECOND.replace("fra:", "⟦fra⟧:", 1), inside="")),
    (
        "WG3019",
        network(f"{FRA.replace('}', ', firewall-mark: ⟪777⟫}')}\n{NYC}"),
        second(SECOND.replace("endpoint", "firewall-mark: ⟦0x309⟧, endpoint")),
    ),
    (  # both need one by default
        "WG3019",
        network(
            "fra: {addresses: [10.80.0.1], exit-node: ⟪nyc⟫, bypass: ['::/0']}\n"
            "nyc: {addresses: [10.80.0.2], endpoint: n.example, advertise: [0.0.0.0/0]}"
        ),
        second(
            "fra: {addresses: [10.81.0.1], exit-node: ⟦tok⟧, bypass: ['::/0'], metric: 3000}\n"
            "tok: {addresses: [10.81.0.2], endpoint: t.example, advertise: [0.0.0.0/0]}"
        ),
    ),
    (  # a mark is a table's number too
        "WG3019",
        network(
            "fra: {addresses: [10.80.0.1], exit-node: ⟪nyc⟫, bypass: ['::/0']}\n"
            "nyc: {addresses: [10.80.0.2], endpoint: n.example, advertise: [0.0.0.0/0]}"
        ),
        second("fra: {addresses: [10.81.0.1], table: ⟦51820⟧, endpoint: a.example}\ntok: {addresses: [10.81.0.2]}"),
    ),
    (
        "WG3020",
        network(f"⟪fra⟫{FRA[3:]}\nnyc: {{addresses: [10.80.0.2], advertise: [10.1.0.0/16]}}"),
        second(SECOND.replace("fra:", "⟦fra⟧:", 1).replace("10.81.0.2]", "10.81.0.2], advertise: [10.1.0.0/16]")),
    ),
]


@pytest.mark.parametrize(("code", "first", "other"), FLEETS)
def test_what_two_files_may_not_share(code: str, first: str, other: str) -> None:
    one_text, none, secondary = unmark(first)
    two_text, primary, nothing = unmark(other)
    assert none == nothing == []
    found = problems(one_text, two_text)
    assert [one.code.name for one in found] == [code], [one.message for one in found]
    label = found[0].primary
    assert label is not None
    assert (label.span.file, f"{label.span.line}:{label.span.column}-{label.span.end_column}") == (
        "t2.yaml",
        primary[0],
    )
    (also,) = found[0].secondary
    assert (also.span.file, f"{also.span.line}:{also.span.column}-{also.span.end_column}") == (FILE, secondary[0])


@pytest.mark.parametrize(
    "change",
    [
        ("endpoint: fra", "metric: 2001, endpoint: fra"),
        ("endpoint: fra", "table: 100, endpoint: fra"),
        ("endpoint: fra", "table: off, endpoint: fra"),
        ("endpoint: fra", "accept: [], endpoint: fra"),
    ],
)
def test_two_ways_to_one_subnet_need_another_metric_or_table(change: tuple[str, str]) -> None:
    first = network(f"{FRA}\nnyc: {{addresses: [10.80.0.2], advertise: [10.1.0.0/16]}}")
    other = second(SECOND.replace("10.81.0.2]", "10.81.0.2], advertise: [10.1.0.0/16]"))
    assert codes_of(first, other) == ["WG3020"]
    assert codes_of(first, other.replace(*change)) == []


def test_two_sound_files() -> None:
    assert codes_of(network(f"{FRA}\n{NYC}"), second()) == []
    both_auto = network(f"{FRA}\n{NYC}").replace("fra.example.net", "'fra.example.net:5', listen-port: auto")
    assert (
        codes_of(
            both_auto, second(SECOND.replace("fra.example.net", "'fra.example.net:5', listen-port: auto"), inside="")
        )
        == []
    )


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("severity", "status"), [(Severity.NOTE, False), (Severity.ERROR, True)])
def test_missing_public_key_is_as_bad_as_the_command_says(severity: Severity, status: bool) -> None:
    text = network(f"{FRA}\n{NYC}\nx: {{addresses: [10.80.0.3], disabled: true}}")
    diagnostics, _ = check_texts(text, missing_keys=severity)
    assert [(one.code, one.severity) for one in diagnostics] == [(codes.NO_PUBLIC_KEY, severity)] * 2
    assert diagnostics.has_errors is status


def test_all_members_and_families_are_proved() -> None:
    text = network(
        "fra: {addresses: [10.80.0.1, 'fd42:80::1'], endpoint: fra.example}\n"
        "a: {addresses: [10.80.0.2, 'fd42:80::2']}\nb: {addresses: [10.80.0.3]}",
        top="groups: {g: [a, b]}\nexpect: [{from: g, to: fra, reachable: false}]",
        subnets=DUAL,
    )
    messages = [one.message for one in problems(text) if one.code is codes.EXPECT_FAILED]
    assert messages == [
        "IPv4 from 'a' to 'fra' arrives, expected it not to: a -> fra",
        "IPv4 from 'b' to 'fra' arrives, expected it not to: b -> fra",
        "IPv6 from 'a' to 'fra' arrives, expected it not to: a -> fra",
    ]


def test_the_message_shows_the_path_that_the_packet_takes() -> None:
    text = network(
        f"{FRA}\na: {{addresses: [10.80.0.2]}}\nb: {{addresses: [10.80.0.3], advertise: [10.1.0.0/16]}}",
        top="peering: {hub: fra}\nexpect:\n- {from: a, to: b, via: []}\n- {from: a, to: 10.1.0.9, via: [b]}\n"
        "- {from: a, to: 10.9.0.1}\n- {from: a, to: 10.1.0.9, via: [fra, b]}\n- {from: a, to: b, via: [fra]}",
    )
    assert [one.message for one in problems(text)] == [
        "IPv4 from 'a' to 'b' takes another path: a -> fra -> b, expected via no host between",
        "IPv4 from 'a' to 10.1.0.9 takes another path: a -> fra -> b, expected via b",
        "IPv4 from 'a' to 10.9.0.1 does not arrive: a: no peer of 'a' has '10.9.0.1' in its AllowedIPs",
    ]


@pytest.mark.parametrize(("way", "reachable", "holds"), [
    ("from: off, to: fra", "true", False), ("from: fra, to: off", "true", False),
    ("from: off, to: fra", "false", True), ("from: fra, to: off", "false", True),
    ("from: fra, to: g", "true", True),
])  # fmt: skip
def test_a_disabled_host_is_reached_by_nobody(way: str, reachable: str, holds: bool) -> None:
    text = network(
        f"{FRA}\n{NYC}\noff: {{addresses: [10.80.0.3], disabled: true}}",
        top=f"groups: {{g: [nyc, off]}}\nexpect: [{{{way}, reachable: {reachable}}}]",
    )
    assert codes_of(text) == ([] if holds else ["WG3016"])


def test_both_hosts_without_a_family_in_common_cannot_meet_an_expectation() -> None:
    text = network(
        "fra: {addresses: [10.80.0.1], endpoint: fra.example}\na: {addresses: ['fd42:80::2']}",
        top="expect: [{from: a, to: fra}]",
        subnets=DUAL,
    )
    assert [one.message for one in problems(text)] == ["'a' and 'fra' have no IP version in common"]


def test_isolated_spokes_are_not_reported_as_cut_off() -> None:
    text = network(
        f"{FRA}\na: {{addresses: [10.80.0.2]}}\nb: {{addresses: [10.80.0.3]}}",
        top="peering: {hub: fra, isolate: true}\nexpect: [{from: a, to: b, reachable: false}, {from: a, to: fra}]",
    )
    assert codes_of(text) == []


def test_a_mesh_beyond_the_limit_is_refused_before_any_link_is_made() -> None:
    hosts = "\n".join(
        f"h{n}: {{addresses: [10.80.{n // 250}.{n % 250 + 1}], endpoint: h{n}.example}}" for n in range(2049)
    )
    found = problems(network(hosts, subnets="[10.80.0.0/16]"))
    assert [one.code.name for one in found] == ["WG3030"]
    assert found[0].message == "the rules make 2,098,176 links, expected at most 2,096,128"


def test_external_hosts_need_no_address() -> None:
    assert codes_of(network(f"{FRA}\nvpn: {{manager: external, endpoint: v.example, advertise: [10.5.0.0/16]}}")) == []


def test_every_problem_of_the_meaning_in_one_run() -> None:
    text = network(
        "a: {addresses: [10.80.0.1, 10.9.0.1], endpoint: 10.80.0.1, exit-node: b}\n"
        "b: {addresses: [10.80.0.1], advertise: [10.80.0.0/25], next-public-key: " + A + "}\n"
        "c: {public-key: " + A + "}",
        top="groups: {b: [x]}\nexpect: [{from: q, to: a}]",
    )
    assert sorted({one.code.name for one in problems(text)}) == [
        "WG3001", "WG3002", "WG3003", "WG3004", "WG3007", "WG3008", "WG3009", "WG3015", "WG3036",
    ]  # fmt: skip


def test_every_code_of_the_meaning_has_a_case_here() -> None:
    covered = {code for code, *_ in (*CASES, *FLEETS)} | {"WG3030"}
    assert {name for name in CODES if name.startswith("WG3")} <= covered


def test_checks_report_into_the_collector_that_they_are_given() -> None:
    diagnostics, fleet = check_texts(network(f"{FRA}\n{NYC}"))
    assert isinstance(diagnostics, Diagnostics)
    assert fleet is not None
    assert fleet.host_names() == ["fra", "nyc"]
