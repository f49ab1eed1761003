"""Waits for an answer, and counts the answers that do not come to packets that hosts send all the while.

Input: a network, and for each host the address that it sends to, every 10 ms. Output: what was lost between the
beginning and the end of a `with`. It judges nothing.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from lab.network import Network

#: Seconds between two packets.
INTERVAL = 0.01
_LIMIT = 1800
_NUMBERS = itertools.count(1)


def until_answered(target: str, seconds: int) -> str:
    """Return the script that pings until there is an answer; it fails when there is none within some seconds."""
    # One ping with a deadline would end at the first router that knows no way yet. Without a pause a peer without an
    # endpoint, whose packets the kernel refuses at once, would have all tries in a moment.
    once = f"ping -q -n -c 1 -W 1 {target} >/dev/null 2>&1"
    return f"until_=$((SECONDS + {seconds})); until {once}; do [ $SECONDS -lt $until_ ] || exit 1; sleep 0.3; done"


class Pinging:
    """Sends as long as its `with` lasts; `lost` and `sent` count packets by host."""

    def __init__(self, network: Network, targets: Mapping[str, str]) -> None:
        """`targets` are the addresses to send to, by the host that sends."""
        self.lost: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self._network = network
        self._targets = dict(targets)
        self._stop = f"/run/pinging{next(_NUMBERS)}"
        self._threads: list[threading.Thread] = []
        self._problems: list[BaseException] = []

    def __str__(self) -> str:
        return ", ".join(f"{host} {self.lost[host]} of {self.sent[host]}" for host in self.lost)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ping, args=each) for each in self._targets.items()]
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            time.sleep(2)  # a session that was reset is missed with the packets after it
        for host in self._targets:
            self._network.run(host, f"touch {self._stop}.stop")
        for thread in self._threads:
            thread.join()
        if error is None:
            assert not self._problems, self._problems

    def _ping(self, host: str, address: str) -> None:
        script = (
            f"ping -n -i {INTERVAL} {address} >{self._stop} & pinging=$!\n"
            f"until [ -e {self._stop}.stop ]; do sleep 0.1; done\nkill -INT $pinging; wait $pinging || true\n"
            # The number of a packet has 16 bits, and what was under way at the end does not count.
            'awk \'/icmp_seq=/ {split($0, a, "icmp_seq="); seq = a[2] + 0; if (seq < last - 30000) turn += 65536; '
            "last = seq; if (turn + seq > most) most = turn + seq; if (!seen[turn + seq]++) got++} "
            f"/packets transmitted/ {{sent = $1}} END {{print most - got, most, sent}}' {self._stop}"
        )
        try:
            lost, most, sent = map(int, self._network.run(host, script, timeout=_LIMIT).stdout.split())
        except BaseException as error:
            self._problems.append(error)
            return
        # Silence to the very end would not show as a gap.
        self.lost[host] = lost + (sent - most if sent - most > 100 else 0)
        self.sent[host] = sent
