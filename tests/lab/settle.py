"""Waits until the managers of hosts have done what their files say, or given up.

Input: a network whose hosts have booted, and who manages each. To systemd a host has booted when its manager runs;
NetworkManager activates connections for seconds after that, and either manager when it was told of a change. It judges
nothing: that is for the checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.network import Network
from wgnet.syntax.spec import Manager

_LIMIT = 300
# A link that is down because a person brings it up stays "configuring".
_NETWORKD = (
    "until ! networkctl --no-legend list | grep -v ' off ' | grep -qE ' (pending|initialized|configuring) *$'\n"
    "do sleep 0.3; done"
)
_NETWORKMANAGER = (
    # Its client gives up after 30 s by itself, in which a machine that boots several hosts at once may not answer.
    f"until nm-online -q -s -t {_LIMIT}; do sleep 1; done\n"
    "until ! nmcli -t -f STATE connection show --active | grep -q ing; do sleep 0.3; done"
)


def settle(network: Network, managers: Mapping[str, Manager], hosts: Sequence[str]) -> None:
    """Wait for hosts; an AssertionError after five minutes."""
    scripts = [(host, _NETWORKMANAGER if managers[host] is Manager.NETWORKMANAGER else _NETWORKD) for host in hosts]
    network.run_many(scripts, timeout=_LIMIT)
