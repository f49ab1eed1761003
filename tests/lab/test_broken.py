"""The lab can fail: files that say something else than the plan turn the very checks red that every example passes.

Input: what wgnet renders of `office` and `phone`, with one thing wrong on each host, as a wrong renderer would have it.
Output: for each mistake, the check that names it: the kernel held against the plan, the managers' journal, or packets.
All mistakes of a network are booted at once, each host being held against its own plan; then the right files are put
back, the hosts boot again, and all checks are green, so that nothing but the mistake was seen.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.checks import journal_complaints, packets, unreachable
from lab.expected import differences
from lab.machine import Machine
from lab.network import HOSTS
from lab.running import Running, as_file
from lab.scenarios import Prepared, Scenario, prepare
from lab.settle import settle
from lab.state import StateError
from wgnet.managers.artifact import Artifact
from wgnet.record import replace

#: A key that no link has.
_WRONG = base64.b64encode(b"\1" * 32)


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One file of a host, and what is wrong with it. `seen`: patterns of what a check must say, by the check's name.

    `path` is the end of the file's path.
    """

    host: str
    path: str
    make: Callable[[Artifact], Artifact]
    seen: tuple[tuple[str, str], ...]


def instead(*pairs: tuple[bytes, bytes]) -> Callable[[Artifact], Artifact]:
    """Return what replaces texts in a file, each of which must be there; two may be exchanged for each other."""

    def make(artifact: Artifact) -> Artifact:
        changes = dict(pairs)
        pattern = b"|".join(re.escape(old) for old in sorted(changes, key=len, reverse=True))
        found = set(re.findall(pattern, artifact.content))
        assert found == set(changes), f"{artifact.path} has no {set(changes) - found}"
        return replace(artifact, content=re.sub(pattern, lambda match: changes[match[0]], artifact.content))

    return make


def mode(value: int, group: str = "root") -> Callable[[Artifact], Artifact]:
    """Return what gives a file another mode, and group."""
    return lambda artifact: replace(artifact, mode=value, group=group)


def wrong_preshared_key(artifact: Artifact) -> Artifact:
    """Give a host's one link a key that the other end does not have."""
    content, count = re.subn(rb"(?mi)^(preshared-?key=).*$", rb"\g<1>" + _WRONG, artifact.content)
    assert count == 1, artifact.path
    return replace(artifact, content=content)


_SWAPPED = instead(
    (b"10.80.0.2/32", b"10.80.0.3/32"), (b"10.80.0.3/32", b"10.80.0.2/32"),
    (b"fd42:80::2/128", b"fd42:80::3/128"), (b"fd42:80::3/128", b"fd42:80::2/128"),
)  # fmt: skip
_SWAPPED_SEEN = (
    ("plan", "fra: wg0: missing AllowedIPs of peer nyc: 10.80.0.2/32"),
    ("plan", "fra: wg0: extra AllowedIPs of peer nyc: 10.80.0.3/32"),
    ("plan", "fra: wg0: extra AllowedIPs of peer desk: 10.80.0.2/32"),
    ("packets", "nyc: no answer of 10.80.0.1 "),
)
_ROUTE_SEEN = (("plan", "nyc: .*192.168.10.0/24"),)
_MTU_SEEN = (("plan", "nyc: wg0: MTU: expected 1420, found 1380"),)
_PSK_SEEN = (
    ("plan", "desk: wg0: PresharedKey of peer fra: expected the link's, found another"),
    ("packets", "desk: no answer of 10.80.0.1 "),
)
_RULE_SEEN = (("plan", "phone: .*IPv4 32765: not from all fwmark 0xca6c lookup 51820"),)
_NETDEV, _NETWORK, _KEYFILE = ".netdev", ".network", ".nmconnection"

MISTAKES = {
    ("office", "networkd"): (
        Mistake("fra", _NETDEV, _SWAPPED, _SWAPPED_SEEN),
        Mistake("nyc", _NETWORK, instead((b"[Route]\nDestination=192.168.10.0/24\nMetric=2000\n", b"")), _ROUTE_SEEN),
        Mistake("nyc", _NETWORK, instead((b"[Link]\n", b"[Link]\nMTUBytes=1380\n")), _MTU_SEEN),
        Mistake("desk", _NETDEV, wrong_preshared_key, _PSK_SEEN),
        # The world can read the preshared key.
        Mistake("laptop", _NETDEV, mode(0o644), (("journal", r"^laptop .*50-wgnet-wg0\.netdev"),)),
        # systemd-network cannot read the private key.
        Mistake(
            "phone",
            "office.key",
            mode(0o600),
            (("plan", "^phone: (no WireGuard interface wg0|.*private key)"), ("journal", r"^phone .*office\.key")),
        ),
    ),
    ("office", "networkmanager"): (
        Mistake("fra", _KEYFILE, _SWAPPED, _SWAPPED_SEEN),
        Mistake("nyc", _KEYFILE, instead((b"route1=192.168.10.0/24,,2000\n", b"")), _ROUTE_SEEN),
        Mistake("nyc", _KEYFILE, instead((b"[wireguard]\n", b"[wireguard]\nmtu=1380\n")), _MTU_SEEN),
        Mistake("desk", _KEYFILE, wrong_preshared_key, _PSK_SEEN),
        # NetworkManager does not take what the world can read.
        Mistake(
            "laptop",
            _KEYFILE,
            mode(0o644),
            (("plan", "^laptop: no WireGuard interface wg0"), ("journal", r"^laptop .*wgnet-wg0\.nmconnection")),
        ),
    ),
    ("phone", "networkd"): (
        Mistake(
            "phone",
            _NETWORK,
            instead(
                (
                    b"[RoutingPolicyRule]\nFamily=ipv4\nFirewallMark=51820\nInvertRule=yes\nTable=51820\n"
                    b"Priority=32765\n",
                    b"",
                )
            ),
            _RULE_SEEN,
        ),
    ),
    ("phone", "networkmanager"): (
        Mistake(
            "phone",
            _KEYFILE,
            instead((b"routing-rule2=priority 32765 not from 0.0.0.0/0 fwmark 0xca6c table 51820\n", b"")),
            _RULE_SEEN,
        ),
    ),
}


@pytest.mark.parametrize(("example", "manager"), MISTAKES)
@pytest.mark.every_day("bookworm-office-networkd", "bookworm-phone-networkmanager")
def test_what_is_wrong_with_a_file_turns_the_lab_red(
    machine: Machine, suite: str, tmp_path: Path, example: str, manager: str
) -> None:
    mistakes = MISTAKES[example, manager]
    right = prepare(Scenario(suite, example, manager), tmp_path)
    running = Running(machine, right.scenario, tmp_path, _with(right, mistakes))
    hosts = sorted({mistake.host for mistake in mistakes})
    found = _checks(running, hosts)
    for mistake in mistakes:
        for check, pattern in mistake.seen:
            assert any(re.search(pattern, line) for line in found[check]), (pattern, found)
    # What nobody made a mistake in is not blamed for one.
    kinds = {(mistake.host, check) for mistake in mistakes for check, _ in mistake.seen}
    blamed = {(re.split("[: ]", line)[0], check) for check in ("plan", "journal") for line in found[check]}
    assert blamed == {(host, check) for host, check in kinds if check != "packets"}, found
    for host in hosts:
        running.network.power_off(host)
        running.machine.put(map(as_file, right.files[host]), root=f"{HOSTS}/{host}/root")
    assert running.network.boot(hosts, right.credentials) == []
    assert _checks(running, hosts) == {"plan": [], "journal": [], "packets": []}
    running.close()


def _with(right: Prepared, mistakes: tuple[Mistake, ...]) -> Prepared:
    """Return what was prepared with its mistakes made."""
    files = {host: list(artifacts) for host, artifacts in right.files.items()}
    for mistake in mistakes:
        (place,) = (n for n, one in enumerate(files[mistake.host]) if one.path.endswith(mistake.path))
        files[mistake.host][place] = mistake.make(files[mistake.host][place])
    return dataclasses.replace(right, files=files)


def _checks(running: Running, hosts: list[str]) -> dict[str, list[str]]:
    """Return what the checks of every example say; of packets, those that hosts with a mistake send to a hub."""
    settle(running.network, running.managers, running.hosts)
    hub = next(host for host in running.hosts if host not in hosts or host == "fra")
    addresses = {str(one.address.ip) for one in running.prepared.plans[hub].interfaces[0].addresses}
    some = [one for one in packets(running) if one.node in hosts and one.target in addresses]
    return {
        "plan": [line for host in running.hosts for line in _against_plan(running, host)],
        "journal": journal_complaints(running),
        "packets": unreachable(running, some),
    }


def _against_plan(running: Running, host: str) -> list[str]:
    """Return the differences of one host, the lack of its interface being one."""
    try:
        (live,) = running.states((host,)).values()
    except StateError as error:
        return [f"{host}: {error}"]
    return [f"{host}: {line}" for line in differences(running.expected(host), live)]
