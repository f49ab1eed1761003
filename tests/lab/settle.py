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
#: Seconds for the names of endpoints; some tests are about names that nobody answers to.
_RESOLVING = 20
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

# Neither manager says that it is still looking for an endpoint: both resolve names again when the first attempt came
# before there was a network (NetworkManager after 1, 2, 4 ... s), and are "configured" or "activated" meanwhile.
_ENDPOINTS = f"""
shopt -s nullglob
files=({{/etc,/run}}/systemd/network/*.netdev {{/etc,/run}}/NetworkManager/system-connections/*.nmconnection)
named() {{
    awk -F= '/^\\[/ {{key = ""}} /^\\[wireguard-peer\\./ {{key = substr($0, 17, 44)}}
             /^(Name|interface-name)=/ {{name = $2}} /^PublicKey=/ {{key = substr($0, 11)}}
             /^(Endpoint|endpoint)=/ {{print name "\\t" key "\\t(none)"}}' "$@" </dev/null
}}
limit=$((SECONDS + {_RESOLVING}))
while wg show all endpoints | grep -qFx -f <(named "${{files[@]}}"); do
    [ $SECONDS -lt $limit ] || break
    sleep 0.3
done
"""


def settle(network: Network, managers: Mapping[str, Manager], hosts: Sequence[str]) -> None:
    """Wait for hosts; an AssertionError after five minutes."""
    scripts = [(host, _NETWORKMANAGER if managers[host] is Manager.NETWORKMANAGER else _NETWORKD) for host in hosts]
    scripts = [(host, script + _ENDPOINTS) for host, script in scripts]
    network.run_many(scripts, timeout=_LIMIT)
