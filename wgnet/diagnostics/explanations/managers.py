"""The pages of WG4xxx: what a manager cannot express."""

from __future__ import annotations

from wgnet.diagnostics import codes
from wgnet.diagnostics.explanations.explanation import OFFICE, Explanation, change

_CREDENTIAL = "  fra:\n    manager-version: {}\n    private-key: {{credential: network.wireguard.office}}\n"
_AGENT = "  nyc:\n    manager: networkmanager\n    private-key: {agent: true}\n    autoconnect: false\n"

PAGES = (
    Explanation(
        code=codes.MANAGER_CANNOT,
        meaning=(
            "The host's `manager` has no setting for this key. `permissions` and `zone`, for example, are "
            "NetworkManager's: systemd-networkd knows neither users nor firewalld zones. wgnet does not leave out in "
            "silence what it cannot write, since the host would then be another than the one described."
        ),
        example=change(OFFICE, ("  nyc:\n", "  nyc:\n    zone: trusted\n")),
        fixed=change(OFFICE, ("  nyc:\n", "  nyc:\n    manager: networkmanager\n    zone: trusted\n")),
        way_out="Remove the key, or choose the manager that has it; a key in `defaults` can go to a group of its own.",
    ),
    Explanation(
        code=codes.VERSION_CANNOT,
        meaning=(
            "The host's manager can express this, but not in the version that `manager-version` names; the message "
            "says which version can. Without `manager-version` wgnet writes what every supported version understands. "
            "systemd, for example, reads keys from credentials since version 256; an older one would drop the "
            "interface."
        ),
        example=change(OFFICE, ("  fra:\n", _CREDENTIAL.format(252))),
        fixed=change(OFFICE, ("  fra:\n", _CREDENTIAL.format(257))),
        way_out="Remove the key, or raise `manager-version` when the host really runs a newer version.",
    ),
    Explanation(
        code=codes.SPLIT_DNS_LEFT_OUT,
        meaning=(
            "The network's DNS servers are meant for the domains in `search` alone, but wg-quick knows no such "
            "difference: its `DNS =` sends every query of the host to them, also those for the rest of the world. "
            "wgnet therefore leaves the servers out of this host's file. With an `exit-node` everything enters the "
            "tunnel anyway, and they are written."
        ),
        example=change(
            OFFICE,
            ("hosts:\n", "  dns: {servers: [10.80.0.1], search: [corp.example.com]}\nhosts:\n"),
            ("  nyc:\n", "  nyc:\n    manager: wg-quick\n"),
        ),
        fixed=change(
            OFFICE,
            ("hosts:\n", "  dns: {servers: [10.80.0.1], search: [corp.example.com]}\nhosts:\n"),
            ("  nyc:\n", "  nyc:\n    manager: networkmanager\n"),
        ),
        way_out=(
            "Accept that the host does not resolve the network's names, give it an `exit-node`, or another manager."
        ),
    ),
    Explanation(
        code=codes.PRESHARED_WITH_AGENT,
        meaning=(
            "The host's private key lies with the user's agent, and links of its have preshared keys, which are in "
            "the profile. When the network is switched on, NetworkManager (1.32 and newer) takes what the agent tells "
            "for all secrets of the profile, and leaves each peer out whose preshared key was not told; the agents of "
            "desktops tell what they keep, the private key. The network is then shown as up, and no packet goes "
            "through it."
        ),
        example=change(OFFICE, ("hosts:\n", "  preshared-keys: true\nhosts:\n"), ("  nyc:\n", _AGENT)),
        fixed=change(OFFICE, ("  nyc:\n", _AGENT)),
        way_out=(
            "Do without preshared keys on the links of this host, or leave `private-key` at its default: the key is "
            "then in the profile beside the preshared ones, where root alone can read it."
        ),
    ),
)
