"""What is read and set of interfaces, on a kernel: addresses' metrics and managers' routes."""

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
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--net", "sh", "-euc"),
            f'{_SCRIPT}{sys.executable} -c "$READ"\nip -o route show 10.8.0.0/16',
        ],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "READ": _READ, "PYTHONPATH": str(Path.cwd())},
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "10.8.0.0/16 dev d0" in done.stdout
