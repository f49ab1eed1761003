"""The lab in one command: looks for what it needs, makes the images, runs the tests suite by suite, and counts.

Input: a command line. Output: pytest's own, JUnit files and logs in a folder, a table, and the exit status: 0 where
every test ran and passed, 1 where one did not or a scenario is missing, 2 where the lab cannot run here. It drives
pytest and boots nothing itself. What is imported at the top is in the standard library: it also has to start under a
Python that has nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lab.image import SUITES, LabError, cache_folder, make_image, missing_tools
from lab.report import SuiteReport, duration, read_cases, table

if TYPE_CHECKING:
    from lab.scenarios import Scenario

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OK, FAILED, CANNOT = 0, 1, 2
#: What the tests import; `wgnet` may be the checkout's or an installed one.
_MODULES = ("pytest", "xdist", "yaml", "jinja2", "cryptography", "wgnet")
_ENVIRONMENT = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'"
#: Bytes of memory for each machine: it may take 6 GB, and usually takes 1.5.
_MEMORY = 4_000_000_000
#: The packages whose versions say what a suite is.
_PACKAGES = {"systemd": "systemd", "network-manager": "NetworkManager", "wireguard-tools": "wireguard-tools"}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options; a mistake in it exits with 2."""
    parser = argparse.ArgumentParser(
        prog="tests/lab/run",
        description="Boot real Debian systems and prove in them what wgnet renders (docs/lab.md).",
        epilog="$WGNET_LAB_PACKAGES names a folder with wgnet's Debian packages by suite; else those are built.",
    )
    parser.add_argument(
        "--suite", choices=(*SUITES, "all"), default=SUITES[0], help=f"the Debian suite (default: {SUITES[0]})"
    )
    parser.add_argument("-k", metavar="EXPR", help="only tests whose names match, as in pytest")
    parser.add_argument("--nightly", action="store_true", help="with the scenarios that are too long for every day")
    parser.add_argument("--faults", type=int, metavar="N", help="how many faults of each kind into `wgnet apply`")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="machines at a time (default: one a core, and one for each 4 GB of memory)",
    )
    parser.add_argument(
        "--logs", type=Path, default=Path("lab-logs"), metavar="DIR", help="results and logs (default: lab-logs)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="stop at the first failure, leave the machine running, say how to reach it"
    )
    parser.add_argument(
        "--shell", action="store_true", help="stop at the first failure, and give a shell in the machine at the end"
    )
    options = parser.parse_args(arguments)
    if options.keep or options.shell:
        if options.suite == "all" or options.jobs not in (None, 1):
            parser.error("--keep and --shell are for one suite and one machine")
        options.jobs = 1
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs: expected at least 1")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the lab as the command line says and return the exit status.

    Starts anew in the checkout's virtual environment where this Python lacks the tests' modules.
    """
    options = parse(arguments)
    missing = missing_tools()
    lacking = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if lacking:
        python = CHECKOUT / ".venv" / "bin" / "python"
        # The environment's own Python, if it is this one, would only start anew for ever.
        if not missing and python.exists() and Path(sys.prefix) != python.parent.parent:
            os.execv(python, [str(python), str(Path(__file__).with_name("run")), *arguments])
        if not python.exists() or Path(sys.prefix) == python.parent.parent:
            missing.append(f"Python's {', '.join(lacking)} (in the checkout: {_ENVIRONMENT})")
    if options.shell and not sys.stdin.isatty():
        missing.append("a terminal, for --shell")
    if missing:
        print("the lab cannot run here. Missing:", *(f"  {line}" for line in missing), sep="\n", file=sys.stderr)
        return CANNOT
    suites = SUITES if options.suite == "all" else (options.suite,)
    try:
        make_images(suites)
    except LabError as error:
        print(f"the lab cannot run here: {error}", file=sys.stderr)
        return CANNOT
    jobs = options.jobs or jobs_for(
        len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    )
    logs = options.logs.resolve()
    logs.mkdir(parents=True, exist_ok=True)
    # What failed another time would look like today's.
    shutil.rmtree(logs / "failed", ignore_errors=True)
    reports = []
    for suite in suites:
        print(f"\n=== {suite}: the tests, with {jobs} machine{'s' if jobs > 1 else ''} at a time", flush=True)
        report, interrupted = run_suite(suite, options, jobs, logs)
        reports.append(report)
        if interrupted:
            break
    status = conclude(reports)
    print(f"results and logs: {logs}")
    return FAILED if len(reports) < len(suites) else status


def jobs_for(processors: int, memory: int) -> int:
    """Return how many machines a computer carries at a time; `memory` in bytes."""
    return max(1, min(processors, memory // _MEMORY))


def make_images(suites: Iterable[str]) -> None:
    """Make the images that are not there yet, two at a time, and say how long each took. Raises LabError."""

    def make(suite: str) -> None:
        started = time.monotonic()
        make_image(suite)
        print(f"lab: image of {suite}: {duration(time.monotonic() - started)}", flush=True)

    # One waits for the mirror while another unpacks.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for made in [pool.submit(make, suite) for suite in suites]:
            made.result()


def run_suite(suite: str, options: argparse.Namespace, jobs: int, logs: Path) -> tuple[SuiteReport, bool]:
    """Run pytest for one suite; return what came of it, and whether a person interrupted it."""
    # Not at the top: these need what only the tests' Python has.
    from lab.scenarios import MODES, scenarios

    results = logs / f"results-{suite}.xml"
    results.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", "tests/lab", "--lab", f"--suite={suite}"),
        *(f"--lab-logs={logs}", f"--junitxml={results}", "-o", f"junit_suite_name={suite}"),
        *(["-n", str(jobs)] if jobs > 1 else []),
        *(["-k", options.k] if options.k else []),
        *(["--nightly"] if options.nightly else []),
        *([f"--faults={options.faults}"] if options.faults else []),
        *(["--lab-keep"] if options.keep else []),
        *(["--lab-shell"] if options.shell else []),
        *(["--maxfail=1"] if options.keep or options.shell else []),
    ]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=CHECKOUT) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            # The terminal has told pytest, too; it ends its machines.
            process.wait()
            status = 130
    seconds = time.monotonic() - started
    every = {one.id: one.mode for one in scenarios(suite, nightly=True)}
    cases = read_cases(results, suite, MODES, every)
    wanted = scenarios(suite, nightly=options.nightly)
    ran = {case.scenario for case in cases}
    report = SuiteReport(
        suite=suite,
        modes=MODES,
        cases=cases,
        # Who chooses tests by name wants those, and no more.
        expected=() if options.k else tuple(one.id for one in wanted),
        seconds=seconds,
        versions=versions(suite),
        left_out=left_out([one for one in wanted if one.id in ran]),
        status=status,
    )
    return report, status in (2, 130)


def left_out(ran: Iterable[Scenario]) -> tuple[str, ...]:
    """Return what the examples say and the lab's hosts cannot have, each once, with the modes that it is true of."""
    from lab.scenarios import prepare

    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for scenario in ran:
            for line in prepare(scenario, Path(folder)).adapted:
                found.setdefault(line, []).append(scenario.mode)
    return tuple(f"{line} ({', '.join(dict.fromkeys(modes))})" for line, modes in found.items())


def versions(suite: str) -> str:
    """Return what a suite's image has: the kernel and the managers, with Debian's versions."""
    installed: dict[str, str] = {}
    for status in cache_folder().glob(f"{suite}-*.tree/var/lib/dpkg/status"):
        for entry in status.read_text(errors="replace").split("\n\n"):
            fields = dict(line.partition(": ")[::2] for line in entry.splitlines() if not line.startswith(" "))
            installed[fields.get("Package", "")] = fields.get("Version", "")
    kernels = [name.removeprefix("linux-image-") for name in installed if name.startswith("linux-image-")]
    kernel = max((name for name in kernels if name[:1].isdigit()), default="none")
    named = [f"{name} {installed[package]}" for package, name in _PACKAGES.items() if package in installed]
    return ", ".join([f"kernel {kernel}", *named])


def conclude(reports: Sequence[SuiteReport]) -> int:
    """Print the table and what is wrong, and return the exit status."""
    print("\n=== the lab\n", table(reports), sep="\n")
    problems = [line for report in reports for line in report.problems()]
    if not reports:
        problems.append("no suite ran")
    if problems:
        print("", *problems, sep="\n")
    print("\nthe lab FAILED" if problems else "\nthe lab passed", flush=True)
    return FAILED if problems else OK
