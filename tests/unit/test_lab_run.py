"""The lab's one command: what it counts, when it fails, and what it says where it cannot run. No machine is booted."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
from example_trees import examples
from lab.image import SUITES
from lab.report import OTHERS, SuiteReport, duration, read_cases, table
from lab.runner import CANNOT, FAILED, OK, conclude, jobs_for, left_out, parse, versions
from lab.scenarios import MODES, Scenario, scenarios
from lab.schedule import group_of

CHECKOUT = Path(__file__).parent.parent.parent
RUN = CHECKOUT / "tests/lab/run"
CHECK = CHECKOUT / ".ci/check_junit.py"
#: Every scenario by name, as the command knows them.
KNOWN = {one.id: one.mode for suite in SUITES for one in scenarios(suite, nightly=True)}
GOOD = [
    "test_kernel[bookworm-networkd-office]",
    "test_packets[bookworm-networkd-office]",
    "test_kernel[bookworm-networkd-two-hubs]",
    "test_kernel[bookworm-networkd-two-hubs-whole]",
    "test_families[bookworm-mixed-office-ipv6]",
    "test_edited[bookworm-networkmanager-seven]",
    "test_corpus[bookworm]",
    "test_alone",
]


def junit(path: Path, names: Sequence[str], **said: str) -> Path:
    """Write what pytest would: each test passed, but for those that `said` gives another element."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = [
        f'<testcase classname="tests.lab.test_bring_up" name="{name}" time="1">'
        + "".join(f'<{element} message="because"/>' for word, element in said.items() if word in name)
        + "</testcase>"
        for name in names
    ]
    path.write_text(f"<testsuites><testsuite name='lab'>{''.join(cases)}</testsuite></testsuites>")
    return path


def report(path: Path, expected: Sequence[str] = (), suite: str = "bookworm", status: int = 0) -> SuiteReport:
    cases = read_cases(path, suite, MODES, KNOWN)
    return SuiteReport(suite, MODES, cases, tuple(expected), seconds=61.2, versions="kernel 6.1", status=status)


def rows(text: str) -> dict[tuple[str, str], list[int]]:
    """Return the numbers of the table by suite and mode."""
    lines = text.partition("\n\n")[0].splitlines()[1:]
    return {(words[0], words[1]): [int(word) for word in words[2:]] for words in map(str.split, lines)}


def test_the_table_counts_scenarios_and_tests_of_each_mode(tmp_path: Path) -> None:
    text = table([report(junit(tmp_path / "a.xml", GOOD, packets="failure", alone="error"))])
    assert text.splitlines()[0].split() == ["suite", "manager", "scenarios", "tests", "passed", "failed", "not", "run"]
    assert rows(text) == {
        ("bookworm", "networkd"): [3, 4, 3, 1, 0],
        ("bookworm", "networkmanager"): [0, 1, 1, 0, 0],
        ("bookworm", "mixed"): [1, 1, 1, 0, 0],
        ("bookworm", OTHERS): [0, 2, 1, 1, 0],
        ("bookworm", "all"): [4, 8, 6, 2, 0],
    }
    assert "bookworm: 1 min 1 s; kernel 6.1" in text


def test_a_scenario_whose_tests_were_skipped_did_not_run(tmp_path: Path) -> None:
    found = report(junit(tmp_path / "a.xml", GOOD, office="skipped"), ["bookworm-networkd-office"])
    assert found.scenarios == {"bookworm-networkd-two-hubs", "bookworm-networkd-two-hubs-whole"}
    assert found.problems()[0] == "bookworm: 1 of 1 scenarios did not run: bookworm-networkd-office"
    assert len([line for line in found.problems() if "not run: test_bring_up::test_" in line]) == 3


def test_each_name_that_pytest_gives_a_scenario_is_found_again(tmp_path: Path) -> None:
    every = [one.id for one in scenarios("forky", nightly=True)]
    assert len(set(every)) == len(every)
    found = read_cases(junit(tmp_path / "a.xml", [f"test_x[{name}]" for name in every]), "forky", MODES, KNOWN)
    assert [case.scenario for case in found] == every
    assert [case.mode for case in found] == [KNOWN[name] for name in every]


def test_workers_share_no_scenario_and_no_module_that_brings_up_its_own(tmp_path: Path) -> None:
    # pytest collects and shares out as always; only that a test runs is replaced by a note of who would run it.
    (tmp_path / "who.py").write_text(
        "import os, pathlib, pytest\n"
        "from _pytest.reports import TestReport\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_protocol(item):\n"
        "    with pathlib.Path(os.environ['NOTES']).open('a') as notes:\n"
        "        print(os.environ['PYTEST_XDIST_WORKER'], item.nodeid, file=notes)\n"
        "    report = TestReport(item.nodeid, item.location, {}, 'passed', None, 'call')\n"
        "    item.ihook.pytest_runtest_logreport(report=report)\n"
        "    return True\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NOTES": str(tmp_path / "notes")}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "who", "-p", "no:cacheprovider", "tests/lab", "--lab", "-n", "2"]
    done = subprocess.run([*command, "--suite=forky"], cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    workers: dict[str, set[str]] = {}
    orders: dict[str, list[str]] = {}
    for line in (tmp_path / "notes").read_text().splitlines():
        worker, _, name = line.partition(" ")
        group = group_of(name, list(KNOWN))
        workers.setdefault(group, set()).add(worker)
        orders.setdefault(worker, []).append(group)
    assert {one.id for one in scenarios("forky")} <= set(workers)
    assert [group for group, found in workers.items() if len(found) > 1] == []
    assert len(orders) == 2
    for order in orders.values():
        # Nor does a worker leave a group and come back to it.
        assert len([group for group, _ in groupby(order)]) == len(set(order))


def test_what_is_for_every_day_is_there() -> None:
    # A part of a name that no test has any more would leave the test to the night, and nobody would be told.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/lab", "--lab", "--suite=all"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command += ["--nightly", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    names = [line.partition("::")[2] for line in done.stdout.splitlines()]
    parts = [
        (function, part)
        for path in (CHECKOUT / "tests/lab").glob("test_*.py")
        for given, function in re.findall(r"@pytest\.mark\.every_day\((.*)\)\n(?:@.*\n)*def (\w+)", path.read_text())
        for part in re.findall(r'"([^"]+)"', given)
    ]
    assert len(parts) > 10
    found = {
        (function, part)
        for function, part in parts
        for name in names
        if name.startswith(f"{function}[") and part in name
    }
    assert set(parts) - found == set()


def test_what_was_left_out_is_said_with_the_modes() -> None:
    found = left_out(Scenario("bookworm", "site-to-site", mode) for mode in MODES)
    assert any("instead of credential (networkd, networkmanager, mixed)" in line for line in found)
    assert left_out([Scenario("forky", "site-to-site", "networkd")]) == ()
    text = table([SuiteReport("bookworm", MODES, (), (), 1, left_out=found)])
    assert text.endswith("\n".join(f"bookworm: {line}" for line in found))


def test_a_run_in_which_all_passed_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"test_x[{one.id}]" for one in scenarios("trixie")]
    path = junit(tmp_path / "a.xml", names)
    expected = [one.id for one in scenarios("trixie")]
    assert conclude([report(path, expected, "trixie")]) == OK
    assert "the lab passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "said", "status", "problem"),
    [
        (GOOD, {"alone": "failure"}, 1, "bookworm: failed: test_bring_up::test_alone"),
        (GOOD, {"alone": "error"}, 1, "bookworm: failed: test_bring_up::test_alone"),
        (GOOD, {"alone": "skipped"}, 0, "bookworm: not run: test_bring_up::test_alone"),
        (GOOD, {}, 3, "bookworm: pytest ended with status 3"),
        ([], {}, 5, "bookworm: no test ran"),
        (GOOD[:1], {"office": "skipped"}, 0, "bookworm: no test ran"),
        (GOOD[2:3], {}, 0, "bookworm: 1 of 1 scenarios did not run: bookworm-networkd-office"),
    ],
)
def test_a_run_that_is_not_whole_ends_with_1(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    said: dict[str, str],
    status: int,
    problem: str,
) -> None:
    path = junit(tmp_path / "a.xml", names, **said)
    assert conclude([report(path, ["bookworm-networkd-office"], status=status)]) == FAILED
    out = capsys.readouterr().out
    assert problem in out.splitlines()
    assert "the lab FAILED" in out


def test_a_run_without_results_or_suites_fails(tmp_path: Path) -> None:
    assert conclude([report(tmp_path / "none.xml", status=2)]) == FAILED
    assert conclude([]) == FAILED


def start(*arguments: str, path: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": "/nonexistent"}
    return subprocess.run(
        [python, str(RUN), *arguments], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_what_is_missing_is_said_with_its_package() -> None:
    done = start(path="")
    assert done.returncode == CANNOT
    assert "qemu-system-x86_64 (Debian: apt install qemu-system-x86)" in done.stderr
    assert ("root, for debootstrap" in done.stderr) == (os.geteuid() != 0)
    assert done.stdout == ""


def test_a_python_without_the_modules_is_told_how_to_get_them(tmp_path: Path) -> None:
    # A checkout without an environment, and a Python that sees its own library alone.
    for name in ("__init__.py", "image.py", "report.py", "runner.py", "run"):
        target = tmp_path / "tests/lab" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((CHECKOUT / "tests/lab" / name).read_bytes())
    command = [sys.executable, "-I", "-S", str(tmp_path / "tests/lab/run")]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == CANNOT
    assert "Python's pytest, xdist, yaml" in done.stderr
    assert ".venv/bin/pip install -e '.[test]'" in done.stderr


def test_a_python_without_the_modules_starts_that_of_the_checkout(tmp_path: Path) -> None:
    for name in ("__init__.py", "image.py", "report.py", "runner.py", "run"):
        target = tmp_path / "tests/lab" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((CHECKOUT / "tests/lab" / name).read_bytes())
    tools = [tmp_path / "bin" / name for name in ("qemu-system-x86_64", "debootstrap", "mkfs.ext4")]
    other = tmp_path / ".venv/bin/python"
    for program in (*tools, other):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text('#!/bin/sh\nprintf "%s " "started" "${1##*/}" "$2" "$3"\n')
        program.chmod(0o755)
    command = [sys.executable, "-I", "-S", str(tmp_path / "tests/lab/run"), "-k", "office"]
    done = subprocess.run(command, env={"PATH": str(tools[0].parent)}, capture_output=True, text=True)
    if os.geteuid() == 0:
        assert done.stdout == "started run -k office "
    else:
        assert (done.returncode, done.stdout) == (CANNOT, "")


def test_a_shell_wants_a_terminal() -> None:
    done = start("--shell", path=os.environ["PATH"])
    assert done.returncode == CANNOT
    assert "a terminal, for --shell" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--keep", "--suite", "all"], ["--shell", "--jobs", "2"], ["--jobs", "0"], ["--suite", "sarge"]],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_meant_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2


def test_a_machine_that_is_looked_into_is_the_only_one() -> None:
    assert parse(["--keep"]).jobs == parse(["--shell"]).jobs == 1
    assert parse([]).jobs is None


@pytest.mark.parametrize(
    ("processors", "gigabytes", "jobs"), [(2, 8, 2), (8, 8, 2), (8, 16, 4), (2, 64, 2), (1, 2, 1), (4, 3, 1)]
)
def test_there_are_as_many_machines_as_cores_and_memory_carry(processors: int, gigabytes: int, jobs: int) -> None:
    assert jobs_for(processors, gigabytes * 1024**3) == jobs


def test_versions_are_those_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGNET_LAB_CACHE", str(tmp_path))
    assert versions("trixie") == "kernel none"
    status = tmp_path / "trixie-abc.tree/var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    entries = {
        "linux-image-6.12.1-cloud-amd64": "6.12.1-1",
        "linux-image-cloud-amd64": "6.12.1-1",
        "systemd": "257.1-1",
    }
    status.write_text(
        "\n\n".join(f"Package: {name}\nStatus: ok\n continued: x\nVersion: {it}" for name, it in entries.items())
    )
    assert versions("trixie") == "kernel 6.12.1-cloud-amd64, systemd 257.1-1"
    assert versions("bookworm") == "kernel none"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3601, "60 min 1 s")])
def test_times_are_said_as_a_person_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_console_is_joined_to_the_terminal_until_it_is_left() -> None:
    # A short path: a socket's name has to fit into 108 bytes.
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder) / "console"
        server.bind(str(path))
        server.listen()
        server.settimeout(20)
        ours, theirs = pty.openpty()
        command = [sys.executable, str(CHECKOUT / "tests/lab/console.py"), str(path)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            console, _ = server.accept()
            with console:
                console.settimeout(20)
                # Once this is shown, the terminal waits for keys.
                console.sendall(b"from the machine")
                said = b""
                while b"from the machine" not in said:
                    said += os.read(ours, 100)
                os.write(ours, b"\x03")
                # As it is typed: no Enter is waited for, and Ctrl-C is for the machine.
                assert console.recv(100) == b"\x03"
                os.write(ours, b"\x1d")
                assert process.wait(timeout=20) == 0
        os.close(ours)
        os.close(theirs)


def check(path: Path, *suite: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHECK), str(path), *suite], capture_output=True, text=True)


@pytest.mark.parametrize("suite", SUITES)
def test_continuous_integration_misses_a_scenario_that_did_not_run(tmp_path: Path, suite: str) -> None:
    names = [f"test_x[{one.id}]" for one in scenarios(suite)]
    done = check(junit(tmp_path / "whole.xml", names), suite)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(names)} of {len(names)} scenarios" in done.stdout
    done = check(junit(tmp_path / "less.xml", names[1:]), suite)
    assert done.returncode == 1
    assert f"no test of scenario {scenarios(suite)[0].id}" in done.stderr
    done = check(junit(tmp_path / "skipped.xml", names, office="skipped"), suite)
    assert done.returncode == 1


def test_continuous_integration_asks_for_every_example_on_every_suite() -> None:
    for suite, modes in (("bookworm", MODES), ("trixie", MODES), ("forky", MODES[:1])):
        found = [(one.mode, one.example) for one in scenarios(suite)]
        assert sorted(found) == sorted((mode, example) for mode in modes for example in examples())


def test_the_document_names_every_option_and_variable_and_no_module_that_is_not_there() -> None:
    document = (CHECKOUT / "docs/lab.md").read_text()
    usage = start("--help", path="").stdout
    options = set(re.findall(r"--[a-z]+", usage)) - {"--help"}
    assert len(options) >= 6
    sources = {path: path.read_text() for path in (CHECKOUT / "tests/lab").glob("*.py") if path.stat().st_size}
    variables = {name for text in sources.values() for name in re.findall(r"WGNET_LAB_[A-Z]+", text)}
    modules = {path.name for path in sources}
    assert [name for name in sorted(options | variables) if f"`{name}" not in document] == []
    assert [name for name in set(re.findall(r"`([a-z_]+\.py)`", document)) if name not in modules] == []
    assert variables >= set(re.findall(r"WGNET_LAB_[A-Z]+", document))
