"""`wgnet init`: write a commented first topology."""

from __future__ import annotations

import re
from pathlib import Path

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, Context
from wgnet.system.textfiles import create_file

FIRST_TOPOLOGY = """\
# A WireGuard network, for wgnet. The manual: wgnet-topology(5).
#
#   wgnet keys generate --keys keys office.yaml   makes the keys, and writes the public ones in here
#   wgnet check office.yaml                       says what is wrong, or that nothing is
#   wgnet render --keys keys office.yaml          writes every host's files below rendered/
wgnet: 1

network:
  name: office                      # also the interface's name, unless `interface` is given
  interface: wg0
  subnets: [10.80.0.0/24]           # add "fd42:80::/64" (choose your own), and every host can have both

# Who peers with whom. `mesh` is every pair; here all peer with the hub, which relays between them.
peering: {hub: gateway}

hosts:
  gateway:
    addresses: [10.80.0.1]
    endpoint: gateway.example.net   # where the others reach it; UDP port 51820 must be let in
    # What is there must have a route back to 10.80.0.0/24, through the gateway; else add `masquerade: true`.
    advertise: [192.168.10.0/24]    # the local network behind it; remove the line if there is none

  laptop:                           # no endpoint: it may roam, and is learned from its traffic
    manager: networkmanager         # the desktop's; without this line it is systemd-networkd
    addresses: [10.80.0.10]

  phone:
    manager: wg-quick               # a .conf for the WireGuard app
    addresses: [10.80.0.11]

# What must hold. `wgnet check` follows the packets, and says where they go instead.
expect:
  - {from: laptop, to: 192.168.10.20, via: [gateway]}
  - {from: phone, to: laptop, via: [gateway]}
"""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_./+-]+")


def run(context: Context) -> int:
    """Write the topology to a file that does not exist yet, or print it."""
    target = context.options.target
    if target == "-":
        context.output.write(FIRST_TOPOLOGY)
        return EXIT_DONE
    # Any other name would have to be quoted for the shell, or could end the comment that it stands in.
    text = FIRST_TOPOLOGY.replace("office.yaml", target if _PLAIN_NAME.fullmatch(target) else "FILE")
    if not create_file(Path(target), text.encode(), context.diagnostics):
        return EXIT_NOT_STARTED
    context.output.line(f"wrote {target}")
    return EXIT_DONE
