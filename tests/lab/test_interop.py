"""Two managers on one machine: what networkd does to NetworkManager's rules, and what wgnet writes against it.

Input: an exit node's user under NetworkManager. Output: with the file of wgnet, a networkd that runs beside it and sets
a link of its own leaves the rules alone; without, they are gone, which is why there is the file.
"""

from __future__ import annotations

import pytest

from lab.running import Running
from lab.settle import settle
from wgnet.syntax.spec import Manager

pytestmark = pytest.mark.scenario_of("exit-node", modes=("networkmanager",))

_LINK = "dummy-own"
_NETWORK = f"/run/systemd/network/10-{_LINK}.network"
_RULES = "ip -4 rule; ip -6 rule"
#: networkd sets a link, and has done so.
_SET = (
    f"networkctl reconfigure {_LINK}\n"
    f"until networkctl --no-legend list {_LINK} | grep -q ' configured *$'; do sleep 0.2; done\n"
)


def test_networkd_leaves_the_rules_of_networkmanagers_interface_alone(running: Running) -> None:
    hosts = [
        host
        for host in running.hosts
        if running.managers[host] is Manager.NETWORKMANAGER
        and any(each.rules for each in running.prepared.plans[host].interfaces)
    ]
    assert hosts
    for host in hosts:
        network = running.network
        settings = [
            f"/etc/systemd/networkd.conf.d/50-wgnet-{each.interface}.conf"
            for each in running.prepared.plans[host].interfaces
            if each.rules
        ]
        before = network.run(host, _RULES).stdout
        begin = (
            f"mkdir -p /run/systemd/network; ip link add {_LINK} type dummy\n"
            f"printf '[Match]\\nName={_LINK}\\n\\n[Network]\\nAddress=198.18.33.1/24\\n' >{_NETWORK}\n"
            f"nmcli device set {_LINK} managed no || true\n"
            "systemctl start systemd-networkd\n"
        )
        try:
            assert network.run(host, begin + _SET + _RULES, timeout=120).stdout == before
            # It is the file that does it.
            moved = "".join(f"mv {path} {path}.away\n" for path in settings)
            again = network.run(host, f"{moved}systemctl restart systemd-networkd\n" + _SET + _RULES, timeout=120)
            assert again.stdout != before
        finally:
            back = "".join(f"[ ! -e {path}.away ] || mv {path}.away {path}\n" for path in settings)
            names = " ".join(each.interface for each in running.prepared.plans[host].interfaces)
            network.run(
                host,
                f"{back}systemctl stop systemd-networkd.service systemd-networkd.socket\n"
                f"ip link del {_LINK}; rm -f {_NETWORK}\n"
                f"for name in {names}; do nmcli connection up ifname $name >/dev/null; done",
                timeout=180,
            )
        settle(network, running.managers, [host])
        assert network.run(host, _RULES).stdout == before
