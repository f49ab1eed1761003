"""Waits until the managers of hosts have done what their files say, or given up.

Input: a scenario that runs. To systemd a host has booted when its manager runs; NetworkManager activates connections
for seconds after that, and either manager when it was told of a change. It judges nothing: that is for the checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.running import Running
from wgnet.syntax.spec import Manager

_LIMIT = 90
_NETWORKD = "until ! networkctl --no-legend list | grep -qE ' (pending|initialized|configuring) *$'; do sleep 0.3; done"
_NETWORKMANAGER = (
    f"nm-online -q -s -t {_LIMIT}\nuntil ! nmcli -t -f STATE connection show --active | grep -q ing; do sleep 0.3; done"
)


def settle(running: Running, hosts: Sequence[str] | None = None) -> None:
    """Wait for some hosts, or for all; an AssertionError after 90 s."""
    scripts = [
        (host, _NETWORKMANAGER if running.managers[host] is Manager.NETWORKMANAGER else _NETWORKD)
        for host in (running.hosts if hosts is None else hosts)
    ]
    running.network.run_many(scripts, timeout=_LIMIT)
