"""What is read and set of interfaces, on a kernel: addresses' metrics, managers' routes and policy rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
ip link set lo up
ip link add d0 type bridge
ip link set d0 up
ip address add 10.0.0.1/24 dev d0 metric 2000
ip address add 10.0.1.1/24 dev d0
ip address add fd00::1/64 dev d0 nodad
ip route add 10.9.0.0/16 dev d0 table 77 metric 5 proto static
ip route add fd99::/16 dev d0 proto static
ip route add 10.8.0.0/16 dev d0
"""
#: wgnet's, as networkd makes them; then a person's: one that the kernel would take for the first, and one by itself.
_RULES = """
ip rule add priority 32000 iif d0 lookup main protocol static
ip rule add priority 32763 to 192.0.2.0/24 lookup main protocol static
ip rule add priority 32764 lookup main suppress_prefixlength 0 protocol static
ip rule add priority 32765 not fwmark 51820 lookup 51820 protocol static
ip -6 rule add priority 32765 not fwmark 51820 lookup 51820 protocol static
ip rule add priority 32001 iif d0 prohibit protocol static
ip rule add priority 32001 iif d0 to 10.7.0.0/16 prohibit protocol static
ip rule add priority 32765 from 10.1.2.3 lookup 51820
"""
_READ_RULES = """
from wgnet.live.configured import rules_of_network
from wgnet.system.links import delete_rule
from wgnet.system.live import read_rules

def section(*lines):
    return "\\n".join(["[RoutingPolicyRule]", *lines, ""])

text = "".join([
    section("Family=ipv4", "IncomingInterface=d0", "Table=254", "Priority=32000"),
    section("To=192.0.2.0/24", "Table=254", "Priority=32763"),
    section("Family=ipv4", "SuppressPrefixLength=0", "Table=254", "Priority=32764"),
    *(section("Family=ipv%d" % one, "FirewallMark=51820", "InvertRule=yes", "Table=51820", "Priority=32765")
      for one in (4, 6)),
    section("Family=ipv4", "IncomingInterface=d0", "Type=prohibit", "Priority=32001"),
])
rules = rules_of_network(text)
before = read_rules()
assert len(rules) == 6 and rules < before, (rules, before)
for rule in sorted(rules, key=str):
    delete_rule(rule)
    delete_rule(rule)
[ambiguous] = [rule for rule in rules if rule.action == "prohibit"]
assert read_rules() == before - rules | {ambiguous}, read_rules()
"""
_READ = """
from wgnet.live.configured import routes_of_network
from wgnet.system.links import delete_route, set_metrics, wrong_metrics
from wgnet.system.live import read_routes

wanted = {"10.0.0.1/24": 2000, "10.0.1.1/24": 2000, "10.0.2.1/24": 2000}
assert wrong_metrics("d0", wanted) == {"10.0.1.1/24": 2000}
set_metrics("d0", wanted)
assert wrong_metrics("d0", wanted) == {}

text = "[Route]\\nDestination=10.9.0.0/16\\nTable=77\\nMetric=5\\n\\n[Route]\\nDestination=fd99::/16\\n"
routes = routes_of_network(text, "d0")
before = read_routes("d0")
assert len(routes) == 2 and routes < before, (routes, before)
for route in routes:
    delete_route(route)
    delete_route(route)
assert read_routes("d0") == before - routes
"""


def test_metrics_and_routes_of_a_kernel() -> None:
    """What a manager made (`proto static`) is found and taken away, once; a person's route stays."""
    assert "10.8.0.0/16 dev d0" in _run(f'{_SCRIPT}{sys.executable} -c "$READ"\nip -o route show 10.8.0.0/16', _READ)


def test_rules_of_a_kernel() -> None:
    """Those that a file asks for are found and taken away, once, and no other that the kernel would take for one."""
    left = _run(f'{_SCRIPT}{_RULES}{sys.executable} -c "$READ"\nip -o rule show', _READ_RULES)
    assert "from 10.1.2.3 lookup 51820" in left
    assert "to 10.7.0.0/16 iif d0 prohibit" in left


def _run(script: str, read: str) -> str:
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-euc", script],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "READ": read, "PYTHONPATH": str(Path.cwd())},
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
