"""Draw a network of one hub as README shows it: `python docs/picture.py examples/office.yaml > docs/office.svg`.

Input: a topology file. Output: SVG on stdout, for light and dark backgrounds alike. The committed picture equals it; a
test holds the two together.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from wgnet.checks.run import check_topology
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.model.resolve import resolve_topology
from wgnet.model.topology import Host
from wgnet.routing.allowed_ips import Routing
from wgnet.routing.links import endpoint_towards
from wgnet.syntax.decode import parse_specification

WIDTH, GAP = 208, 14
CARD, LAN = 80, 46
TOP, MIDDLE, BOTTOM = 12, 112, 284
HEIGHT = BOTTOM + CARD + 52

_STYLE = """\
  <style>
    text { font: 13px system-ui, sans-serif; fill: #1f2933; text-anchor: middle }
    .name { font-weight: 600; font-size: 15px }
    .small { font-size: 12px; fill: #52606d }
    rect { fill: #f5f7fa; stroke: #7b8794; stroke-width: 1.2 }
    .hub { fill: #e3f2ea; stroke: #2f855a }
    .lan { fill: none; stroke-dasharray: 5 4 }
    .link { stroke: #2f855a; stroke-width: 2; fill: none }
    .wire { stroke: #7b8794; stroke-width: 1.5; stroke-dasharray: 5 4 }
    marker path { fill: #2f855a }
    @media (prefers-color-scheme: dark) {
      text { fill: #e4e7eb } .small { fill: #9aa5b1 }
      rect { fill: #1f2933; stroke: #7b8794 }
      .hub { fill: #1c3a2c; stroke: #68d391 } .lan { fill: none }
      .link { stroke: #68d391 } marker path { fill: #68d391 }
    }
  </style>
  <defs>
    <marker id="called" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"
        orient="auto-start-reverse">
      <path d="M0 0 10 5 0 10z"/>
    </marker>
  </defs>
"""


def read_routing(path: str) -> Routing:
    """Read a topology. Raises SystemExit where it has errors, or no hub of its own."""
    diagnostics = Diagnostics()
    spec = parse_specification(Path(path).read_bytes(), path, diagnostics)
    topology = None if spec is None else resolve_topology(spec, diagnostics)
    routing = None if topology is None else check_topology(topology, diagnostics, missing_keys=Severity.NOTE)
    if routing is None or diagnostics.has_errors:
        raise SystemExit(f"{path}: see `wgnet check`")
    return routing


def draw(routing: Routing) -> str:
    """Return the picture: what lies behind the hub on top, the hub, the spokes in a row."""
    topology = routing.topology
    hub = topology.rules[0].hubs[0]
    spokes = topology.rules[0].spokes
    width = len(spokes) * (WIDTH + GAP) + GAP
    middle = width // 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(f"The network {topology.name}: {hub.name} is the hub")}">\n',
        _STYLE,
    ]
    if hub.advertise:
        parts.append(f'  <line class="wire" x1="{middle}" y1="{TOP + LAN}" x2="{middle}" y2="{MIDDLE}"/>\n')
        parts.append(
            _box("lan", middle, TOP, LAN, [("", "local network"), ("small", ", ".join(map(str, hub.advertise)))])
        )
    for number, spoke in enumerate(spokes):
        x = GAP + WIDTH // 2 + number * (WIDTH + GAP)
        start = middle + (x - middle) * (WIDTH // 2 - 24) // (middle - GAP - WIDTH // 2)
        rule = routing.links.rule(hub, spoke)
        assert rule is not None
        ends = ' marker-end="url(#called)"' if endpoint_towards(hub, spoke, rule) else ""
        ends += ' marker-start="url(#called)"' if endpoint_towards(spoke, hub, rule) else ""
        parts.append(f'  <path class="link" d="M{x} {BOTTOM}L{start} {MIDDLE + CARD}"{ends}/>\n')
        parts.append(_host("", spoke, x, BOTTOM))
    parts.append(_host("hub", hub, middle, MIDDLE))
    subnets = ", ".join(map(str, topology.subnets))
    note = f"network {topology.name}: {subnets} \N{MIDDLE DOT} an arrow points at the host that is called"
    parts.append(f'  <text class="small" x="{middle}" y="{HEIGHT - 18}">{escape(note)}</text>\n</svg>\n')
    return "".join(parts)


def _host(kind: str, host: Host, x: int, y: int) -> str:
    reached = str(host.endpoint[0].host) if host.endpoint else "no endpoint"
    lines = [
        ("name", host.name),
        ("", " ".join(str(address.ip) for address in host.addresses)),
        ("small", f"{host.manager.value} \N{MIDDLE DOT} {reached}"),
    ]
    return _box(kind, x, y, CARD, lines)


def _box(kind: str, x: int, y: int, height: int, lines: list[tuple[str, str]]) -> str:
    """Return a box with centred lines of text, each with a class of its own."""
    text = [f'  <rect{_class(kind)} x="{x - WIDTH // 2}" y="{y}" width="{WIDTH}" height="{height}" rx="8"/>\n']
    step = 22 if len(lines) > 2 else 18
    first = y + (height - step * (len(lines) - 1)) // 2 + 5
    for number, (style, line) in enumerate(lines):
        text.append(f'  <text{_class(style)} x="{x}" y="{first + number * step}">{escape(line)}</text>\n')
    return "".join(text)


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


if __name__ == "__main__":
    sys.stdout.write(draw(read_routing(sys.argv[1])))
