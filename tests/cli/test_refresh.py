"""`wgnet refresh` as it is run, with a program in the place of wg(8) that has its devices from a file."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest
from cli.command import PROGRAM, Result, environment, wgnet_here
from realparsers import require_root
from realparsers.users import call_as_user

HERE = "lp/qXJlJu0ZUNgPqO1hPhNzmqHZ0SlhwaUAhqMEISR8="
A = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="
C = "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
D = "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="

TOPOLOGY = f"""\
wgnet: 1
network: {{name: office, interface: wg0, subnets: [10.80.0.0/24]}}
hosts:
  here: {{addresses: [10.80.0.1], public-key: {HERE}}}
  many: {{addresses: [10.80.0.2], public-key: {A}, endpoint: [192.0.2.1, many.invalid, 127.0.0.2]}}
  rotating: {{addresses: [10.80.0.4], public-key: {C}, next-public-key: {D}, endpoint: 127.0.0.3}}
"""

#: What `wg` does here: print the dump, note what is set, or fail as the file `fails` says.
WG = """\
#!{python}
import pathlib, sys
here = pathlib.Path({folder!r})
if (here / "gone").exists():
    sys.exit("Unable to access interface: No such device")
elif sys.argv[1:] == ["show", "all", "dump"]:
    print((here / "dump").read_text(), end="")
elif sys.argv[1] == "set":
    fails = (here / "fails").read_text().split()
    if any(word in sys.argv for word in fails):
        sys.exit("Unable to modify interface: Address family not supported by protocol")
    with (here / "set").open("a") as out:
        print(*sys.argv[2:], file=out)
    if "later" in fails:
        (here / "gone").touch()
else:
    sys.exit(1)
"""


def line(key: str, *, endpoint: str, allowed: str, handshake: int, received: int, sent: int, keepalive: str) -> str:
    return "\t".join(("wg0", key, "(none)", endpoint, allowed, str(handshake), str(received), str(sent), keepalive))


class Machine:
    """A machine with a topology and a wg of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "wg"
        program.write_text(WG.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        (folder / "fails").write_text("")
        (folder / "office.yaml").write_text(TOPOLOGY)
        self.dump()

    def dump(self, *, endpoint: str = "192.0.2.1:51820", silent: int = 3600, switched: int = 0) -> None:
        """Have `many` silent for some seconds; `rotating` was heard under its next key some seconds ago (0: never)."""
        now = int(time.time())
        lines = [f"wg0\t{'A' * 42}E=\t{HERE}\t51820\toff"]
        many = {"allowed": "10.80.0.2/32", "received": 9, "sent": 9, "keepalive": "25"}
        lines.append(line(A, endpoint=endpoint, handshake=now - silent, **many))  # type: ignore[arg-type]
        old = {"endpoint": "127.0.0.3:51820", "received": 9, "sent": 9, "keepalive": "off"}
        lines.append(line(C, allowed="10.80.0.4/32", handshake=now - 60, **old))  # type: ignore[arg-type]
        lines.append(line(D, allowed="(none)", handshake=now - switched if switched else 0, **old))  # type: ignore[arg-type]
        (self.folder / "dump").write_text("\n".join(lines) + "\n")

    def refresh(self, *words: str, before: str = "true") -> Result:
        """Run it with /run and /var/lib of its own, kept from run to run."""
        for name in ("run", "lib"):
            (self.folder / name).mkdir(exist_ok=True)
        script = (
            f"mount --bind '{self.folder}/run' /run && mount --bind '{self.folder}/lib' /var/lib && {before} && "
            'exec "$@"'
        )
        command = [*PROGRAM, "refresh", "--host", "here", *words, str(self.folder / "office.yaml")]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", *command],
            env=environment(PATH=f"{self.folder}:{os.environ['PATH']}"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(status=done.returncode, out=done.stdout, err=done.stderr)

    def was_set(self) -> list[str]:
        path = self.folder / "set"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    require_root("folders of the system are mounted over")
    return Machine(tmp_path)


def test_a_silent_peer_is_tried_elsewhere_and_nobody_else_is_named(machine: Machine) -> None:
    done = machine.refresh()
    assert done.status == 0
    assert done.out == "wg0: many: endpoint 127.0.0.2:51820, was 192.0.2.1:51820\n"
    assert "warning[WG6015]: 'many.invalid', where 'many' is reached, has no address now" in done.err
    assert machine.was_set() == [f"wg0 peer {A} endpoint 127.0.0.2:51820"]
    # It is given its time, and runs remember each other.
    machine.dump(endpoint="127.0.0.2:51820")
    assert machine.refresh("--quiet") == Result(status=0, out="", err="")
    assert machine.was_set() == []
    memory = json.loads((machine.folder / "run/wgnet/refresh.json").read_text())
    assert memory["devices"]["wg0"]["peers"][A]["tried"] == ["192.0.2.1:51820", "127.0.0.2:51820"]


def test_a_peer_that_answers_is_left_alone(machine: Machine) -> None:
    machine.dump(silent=100)
    assert machine.refresh() == Result(status=0, out="", err="")
    assert machine.was_set() == []


def test_a_dry_run_does_and_remembers_nothing(machine: Machine) -> None:
    for _ in range(2):
        done = machine.refresh("--dry-run")
        assert done.out == "wg0: many: would set: endpoint 127.0.0.2:51820, was 192.0.2.1:51820\n"
    assert machine.was_set() == []
    assert not (machine.folder / "run/wgnet").exists()


def test_allowed_ips_move_in_a_call_that_names_the_new_key_alone(machine: Machine) -> None:
    machine.dump(silent=100, switched=5)
    done = machine.refresh()
    assert done.out == "wg0: rotating: AllowedIPs to the key that shook hands last\n"
    assert machine.was_set() == [f"wg0 peer {D} allowed-ips 10.80.0.4/32"]


def test_while_keys_are_rotated_it_looks_again(machine: Machine) -> None:
    machine.dump(silent=100)
    begun = time.monotonic()
    assert machine.refresh("--for", "3s").status == 0
    assert time.monotonic() - begun > 2
    topology = machine.folder / "office.yaml"
    topology.write_text(topology.read_text().replace(f"next-public-key: {D}, ", ""))
    begun = time.monotonic()
    assert machine.refresh("--for", "30s").status == 0
    assert time.monotonic() - begun < 20


def test_json(machine: Machine) -> None:
    machine.dump(switched=5)
    done = machine.refresh("--format", "json", "--quiet")
    assert json.loads(done.out) == {
        "version": 1,
        "dry_run": False,
        "changes": [
            {
                "interface": "wg0",
                "host": "rotating",
                "public_key": D,
                "change": "allowed-ips",
                "before": None,
                "after": None,
            },
            {
                "interface": "wg0",
                "host": "many",
                "public_key": A,
                "change": "endpoint",
                "before": "192.0.2.1:51820",
                "after": "127.0.0.2:51820",
            },
        ],
        "failed": [],
        "waiting": [],
        "unresolved": [{"host": "many", "name": "many.invalid"}],
    }


def test_a_change_that_fails_keeps_no_other_from_being_made(machine: Machine) -> None:
    machine.dump(switched=5)
    (machine.folder / "fails").write_text("127.0.0.2:51820")
    done = machine.refresh("--quiet")
    assert done.status == 5
    assert "error[WG6040]: 'many' on 'wg0' could not be changed" in done.err
    assert machine.was_set() == [f"wg0 peer {D} allowed-ips 10.80.0.4/32"]


def test_a_later_round_that_cannot_be_leaves_what_an_earlier_one_set(machine: Machine) -> None:
    (machine.folder / "fails").write_text("later")
    done = machine.refresh("--quiet", "--for", "30")
    assert (done.status, "cannot be refreshed" in done.err) == (5, True), done.err
    assert machine.was_set() != []


def test_where_nothing_could_be_changed_the_status_says_so(machine: Machine) -> None:
    (machine.folder / "fails").write_text("127.0.0.2:51820")
    assert machine.refresh("--quiet").status == 6
    assert machine.was_set() == []


def test_an_interface_that_is_not_there_is_nothing_to_refresh(machine: Machine) -> None:
    (machine.folder / "dump").write_text("")
    assert machine.refresh() == Result(status=0, out="", err="")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda machine: (machine.folder / "wg").write_text("#!/bin/sh\necho no >&2\nexit 1\n"), "WG6010"),
        (lambda machine: (machine.folder / "dump").write_text("nonsense\t"), "WG6010"),
        (lambda machine: (machine.folder / "office.yaml").write_text(TOPOLOGY.replace("here", "there")), "WG6005"),
    ],
)
def test_what_keeps_it_from_starting(spoil: Callable[[Machine], object], code: str, machine: Machine) -> None:
    spoil(machine)
    done = machine.refresh()
    assert done.status == (1 if code == "WG6005" else 6)
    assert f"error[{code}]" in done.err
    assert machine.was_set() == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "devices": {"wg0": 3}, "names": {}}', "\0"]
)
def test_a_damaged_memory_is_none(text: str, machine: Machine) -> None:
    (machine.folder / "run/wgnet").mkdir(parents=True)
    (machine.folder / "run/wgnet/refresh.json").write_text(text)
    assert machine.refresh("--quiet").status == 0
    assert len(machine.was_set()) == 1


def test_while_another_wgnet_changes_the_machine_nothing_is_done(machine: Machine) -> None:
    done = machine.refresh(before="mkdir -p /var/lib/wgnet/apply && { flock 9; } 9>/var/lib/wgnet/apply/lock")
    assert done.status == 0
    machine.was_set()
    (machine.folder / "run/wgnet/refresh.json").unlink()
    held = machine.refresh(before="exec 9>/var/lib/wgnet/apply/lock && flock 9")
    assert (held.status, "error[WG6004]" in held.err) == (6, True)
    assert machine.was_set() == []


def test_only_root_may(tmp_path: Path) -> None:
    require_root("another user runs it")
    (tmp_path / "office.yaml").write_text(TOPOLOGY)
    with contextlib.chdir(tmp_path):
        said = call_as_user(65534, lambda: astuple(wgnet_here("refresh", "office.yaml")))
    assert said[0] == 6, said
    assert "error[WG6010]: only root may" in said[2]


@pytest.mark.parametrize("words", [("--root", "/mnt"), ("--host", "a", "--host", "b"), ("--for", "soon")])
def test_usage(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "office.yaml").write_text(TOPOLOGY)
    try:
        status = wgnet_here("refresh", *words, tmp_path / "office.yaml").status
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
