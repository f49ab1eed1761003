"""`wgnet apply` that is killed, starved, cut off and interrupted: the old state or the new one, and never between.

Input: the hub of `faulty.py`, under each manager, on each suite. Output: for faults of every kind, at every step or at
some that are spread over all, that the machine is exactly in one of both states, that whoever is to put it back does
so without us, and that a second apply arrives; and that what is somebody else's is byte by byte what it was.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab.faulty import ADMIN, HUB, HUB_ADDRESS, STORE, Faulty
from lab.image import LabError
from lab.machine import Machine
from lab.settle import settle

pytestmark = pytest.mark.every_day("bookworm-networkmanager")

#: How many faults of each kind there are every day; at night there are all that there can be.
KINDS = {"kill": 6, "restart": 2, "disk": 2, "sector": 2, "program": 2, "bus": 2}
#: How many times the power is cut in the middle of a change, every day and at night.
POWER_CUTS = (1, 8)
APPLY = f"apply --keys {STORE}"
_PENDING_S = 25
_MANAGERS = {"networkd": "systemd-networkd", "networkmanager": "NetworkManager"}
#: The last hub that was booted: one serves all tests of a suite and a manager.
_BOOTED: list[Faulty] = []


@pytest.fixture
def faulty(
    machine: Machine, suite: str, hub_manager: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Faulty]:
    """The hub in its old state; afterwards it is there again, and nothing else was touched."""
    if not _BOOTED or _BOOTED[0].machine is not machine or _BOOTED[0].manager != hub_manager:
        _close()
        _BOOTED.append(Faulty(machine, suite, hub_manager, tmp_path_factory.mktemp("faulty")))
        _BOOTED[0].go("old")
    found = _BOOTED[0]
    theirs = found.look()
    yield found
    try:
        if found.state() != "old":
            found.go("old")
        after = found.look()
    except (LabError, OSError):
        # A test that failed has taken its machine with it, and is blamed itself.
        _BOOTED.clear()
        return
    assert after == theirs


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    _close()


def _close() -> None:
    for found in _BOOTED:
        found.close()
    _BOOTED.clear()


# --- faults at every step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.every_day("kill")
def test_every_fault_leaves_the_old_state_or_the_new(
    faulty: Faulty,
    suite: str,
    kind: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    found = []
    points = request.config.getoption("--faults")
    if points is None and request.config.getoption("--nightly"):
        for origin in ("old", "new"):
            found += faulty.strike(kind, origin=origin)
    else:
        found += faulty.strike(kind, points=points or KINDS[kind])
    bad = [str(point) for point in found if point.bad]
    said = f"{suite} {faulty.manager} {kind}: {len(found)} faults injected, {len(found) - len(bad)} survived"
    record_property("faults", said)
    print(said, *bad, sep="\n", flush=True)
    assert found
    assert not bad, "\n".join(bad)


@pytest.mark.every_day("bookworm-networkd")
def test_the_power_is_cut_in_the_middle(faulty: Faulty, request: pytest.FixtureRequest) -> None:
    total = faulty.go("new")
    faulty.go("old")
    count = POWER_CUTS[bool(request.config.getoption("--nightly"))]
    for number in range(count):
        # Of one the middle, of more some that are spread over all of the change.
        faulty.cut_power((number + 1) * total // (count + 1))
        assert faulty.state(settled=True) in ("old", "new")
        faulty.choose("new")
        applied = faulty.wgnet(APPLY)
        assert (applied.status, faulty.state()) == (0, "new"), applied.stdout + applied.stderr
        faulty.go("old")


# --- what is missing -------------------------------------------------------------------------------------------------


def _nothing_starts(faulty: Faulty, said: str, before: str = "") -> None:
    """Assert that an apply to the new state ends before it begins."""
    faulty.choose("new")
    refused = faulty.wgnet(APPLY, before=before)
    assert refused.status == 6, refused.stdout + refused.stderr
    assert re.search(said, refused.stderr), refused.stderr
    assert "nothing was changed" in refused.stderr


def test_without_a_bus_nothing_starts(faulty: Faulty) -> None:
    unit = _MANAGERS[faulty.manager]
    faulty.network.run(HUB, "systemctl stop dbus.socket dbus.service", timeout=90)
    try:
        _nothing_starts(faulty, "no connection to D-Bus")
    finally:
        faulty.network.run(HUB, f"systemctl start dbus.socket dbus.service; systemctl restart {unit}", timeout=90)
    settle(faulty.network, faulty.running.managers, [HUB])
    assert faulty.state() == "old"


def test_without_its_manager_nothing_starts(faulty: Faulty) -> None:
    unit = _MANAGERS[faulty.manager]
    # networkd's socket would start it again.
    faulty.network.run(HUB, f"systemctl stop '{unit}*.socket' {unit}.service", timeout=90)
    try:
        _nothing_starts(faulty, "does not run here")
    finally:
        faulty.network.run(HUB, f"systemctl start {unit}.service", timeout=90)
    settle(faulty.network, faulty.running.managers, [HUB])
    assert faulty.state() == "old"


def test_who_is_not_root_starts_nothing(faulty: Faulty) -> None:
    """Under NetworkManager a user may have a profile of the own, but not the machine's keys."""
    faulty.choose("new")
    refused = faulty.wgnet(APPLY, before="setpriv --reuid=65534 --regid=65534 --clear-groups -- env ")
    expected = {"networkd": (6, "only root"), "networkmanager": (1, "permission denied")}[faulty.manager]
    assert (refused.status, expected[1] in refused.stderr) == (expected[0], True), refused.stderr
    assert faulty.state() == "old"


def test_of_two_at_once_the_second_is_refused(faulty: Faulty) -> None:
    faulty.choose("new")
    wgnet = f"PYTHONPATH=/opt/wgnet python3 -m wgnet {APPLY}"
    both = faulty.run(
        f"{wgnet} >/run/first 2>&1 & first=$!\n"
        "until [ -e /var/lib/wgnet/apply/armed ]; do sleep 0.02; done\n"
        "kill -STOP $first\n"
        f"second=0; {wgnet} >/run/second 2>&1 || second=$?\n"
        "kill -CONT $first; wait $first; echo $? $second; cat /run/second",
    )
    assert both.stdout.startswith("0 6\n"), both.stdout + both.stderr
    assert "another wgnet is changing this machine" in both.stdout
    assert faulty.state() == "new"


# --- disks -----------------------------------------------------------------------------------------------------------


def _folder(faulty: Faulty) -> str:
    """Return the folder that the manager's own files are in."""
    return {
        "networkd": "/etc/systemd/network",
        "networkmanager": "/etc/NetworkManager/system-connections",
    }[faulty.manager]


@contextmanager
def _full(faulty: Faulty, folder: str) -> Iterator[None]:
    """Let a folder be on a disk of its own that has no room left."""
    faulty.network.run(
        HUB,
        f"mkdir /run/small; mount -t tmpfs -o mode=755,size=256k small /run/small; cp -a {folder}/. /run/small/\n"
        f"mount --move /run/small {folder} 2>/dev/null || mount --bind /run/small {folder}\n"
        f"head -c 1M /dev/zero >{folder}/ballast 2>/dev/null || true",
    )
    try:
        yield
    finally:
        faulty.network.run(HUB, f"umount {folder}; umount /run/small 2>/dev/null || true; rmdir /run/small")


@contextmanager
def _read_only(faulty: Faulty, folder: str) -> Iterator[None]:
    # A manager with mounts of its own gets a copy of what is mounted, as it is then: read-only from the beginning.
    faulty.network.run(
        HUB,
        f"mkdir /run/closed; mount --bind {folder} /run/closed; mount -o remount,bind,ro /run/closed\n"
        f"mount --bind /run/closed {folder}",
    )
    try:
        yield
    finally:
        faulty.network.run(HUB, f"umount {folder}; umount /run/closed; rmdir /run/closed")


@pytest.mark.parametrize("what", ["state-full", "files-full", "files-read-only"])
def test_a_disk_that_takes_nothing_more_changes_nothing(faulty: Faulty, what: str) -> None:
    folder = "/var/lib/wgnet" if what.startswith("state") else _folder(faulty)
    spoilt = _read_only if what.endswith("read-only") else _full
    faulty.choose("new")
    with spoilt(faulty, folder):
        failed = faulty.wgnet(APPLY)
        # Nothing begins without a place to keep the old state in.
        assert failed.status == (6 if folder == "/var/lib/wgnet" else 4), failed.stdout + failed.stderr
    assert faulty.state(settled=True) == "old", failed.stdout + failed.stderr
    applied = faulty.wgnet(APPLY)
    assert (applied.status, faulty.state()) == (0, "new"), applied.stdout + applied.stderr


# --- people ----------------------------------------------------------------------------------------------------------


def test_a_terminal_that_goes_in_the_middle_puts_everything_back(faulty: Faulty) -> None:
    faulty.choose("new")
    status, said = faulty.on_terminal("hang up", APPLY)
    # Before anything has changed it dies of the signal, and who watches finds that it did.
    assert status in (4, -1), said
    assert faulty.state(settled=True) == "old"


def test_enter_keeps_a_change(faulty: Faulty) -> None:
    faulty.choose("new")
    status, said = faulty.on_terminal("enter", f"{APPLY} --confirm 100s")
    assert status == 0, said
    assert "confirmed" in said
    _is_kept(faulty)


def test_confirming_in_time_keeps_a_change(faulty: Faulty) -> None:
    faulty.choose("new")
    applied = faulty.wgnet(f"{APPLY} --confirm 100s")
    assert applied.status == 0, applied.stderr
    assert "confirm it within" in applied.stdout
    confirmed = faulty.wgnet("confirm")
    assert confirmed.status == 0, confirmed.stderr
    _is_kept(faulty)


def _is_kept(faulty: Faulty) -> None:
    """Assert that nobody is left who would put anything back."""
    assert faulty.state(settled=True) == "new"
    left = "systemctl list-units 'wgnet-confirm*' 'wgnet-guard*' --plain --no-legend; find /etc -name 'wgnet-rollback*'"
    assert faulty.run(left).stdout == ""
    if faulty.manager == "networkmanager":
        name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
        points = faulty.run(f"busctl get-property {name} {path} {name} Checkpoints").stdout
        assert points.strip() == "ao 0"


def test_who_is_killed_while_waiting_to_be_confirmed_is_rolled_back(faulty: Faulty) -> None:
    faulty.choose("new")
    status, said = faulty.on_terminal("kill", f"{APPLY} --confirm {_PENDING_S}s")
    assert status == -9, said
    assert faulty.state(settled=True) == "old"


def test_a_reboot_before_the_confirmation_is_the_old_state_again(faulty: Faulty) -> None:
    faulty.choose("new")
    applied = faulty.wgnet(f"{APPLY} --confirm 1h")
    assert applied.status == 0, applied.stderr
    assert faulty.state() == "new"
    faulty.reboot()
    assert faulty.state(settled=True) == "old"
    # Put back before anything of the network began.
    lines = faulty.run(
        "journalctl -b -o short-monotonic --no-pager _PID=1 |"
        f" grep -E 'Finished wgnet-rollback|Starting {_MANAGERS[faulty.manager]}'"
    ).stdout.splitlines()
    assert [line.split("]: ")[-1].split()[0] for line in lines[:2]] == ["Finished", "Starting"], lines


def test_an_administrator_who_cuts_the_own_connection_comes_back(faulty: Faulty) -> None:
    faulty.choose("new")
    # As who deletes the wrong host.
    faulty.network.run(
        HUB,
        "python3 - <<'E'\nimport yaml\npath = '/etc/wgnet/corp.yaml'\n"
        "data = yaml.load(open(path), Loader=yaml.BaseLoader)\n"
        f"del data['hosts']['{ADMIN}']\nyaml.safe_dump(data, open(path, 'w'))\nE",
    )
    _await_answer(faulty)
    applied = faulty.wgnet(f"{APPLY} --confirm {_PENDING_S}s")
    assert applied.status == 0, applied.stdout + applied.stderr
    assert not _answers(faulty)
    assert faulty.state(settled=True) == "old"
    _await_answer(faulty)


def _await_answer(faulty: Faulty) -> None:
    """Wait for an answer through the tunnel: whoever was booted has no session yet."""
    until = time.monotonic() + 60
    while not _answers(faulty):
        assert time.monotonic() < until, "no answer through the tunnel"


def _answers(faulty: Faulty) -> bool:
    """Return whether the hub answers the administrator through the tunnel."""
    return faulty.network.run(ADMIN, f"ping -n -c 1 -W 2 {HUB_ADDRESS}", check=False).status == 0
