"""What the lab's tests share: one machine at a time, and in it the scenario that a test is about."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.image import SUITES, LabError, make_image, missing_tools
from lab.machine import Machine
from lab.network import HOSTS
from lab.running import Running
from lab.scenarios import MODES, Scenario, modes, scenarios

#: What a host is asked after a failure.
JOURNAL = r"""exec 2>&1
set +e
systemctl --failed --plain --no-legend
for command in "ip -details address" "ip rule" "ip -6 rule" "ip route show table all" "ip -6 route show table all"; do
    printf '\n$ %s\n' "$command"; $command
done
printf '\n$ wg show\n'; wg show
printf '\n$ journalctl\n'; journalctl --boot --no-pager --output=short-monotonic
"""
#: The modules that every suite runs every day.
_EVERY_DAY = ("test_bring_up", "test_apply")
_LAB = pytest.StashKey["Lab"]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect the lab's tests with `--lab` alone: they are no part of a run without it, rather than skipped in it."""
    return None if config.getoption("--lab") else True


def chosen_suites(config: pytest.Config) -> tuple[str, ...]:
    """Return the suites that the command line asks for."""
    suite = config.getoption("--suite")
    return SUITES if suite == "all" else (suite,)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test its scenarios, or its suites. What shares a world is known by these names (schedule.py)."""
    config = metafunc.config
    suites = chosen_suites(config)
    if "scenario" in metafunc.fixturenames:
        wanted = metafunc.definition.get_closest_marker("scenario_of")
        found = [one for suite in suites for one in scenarios(suite, nightly=config.getoption("--nightly"))]
        if wanted is not None:
            examples = wanted.args
            only = wanted.kwargs.get("modes", MODES)
            every = [one for suite in suites for one in scenarios(suite, nightly=True)]
            assert any(one.example in examples and one.mode in only for one in every), metafunc.definition.nodeid
            found = [one for one in found if one.example in examples and one.mode in only]
        params = [pytest.param(one, id=one.id) for one in found]
        metafunc.parametrize("scenario", params, scope="session")
    elif {"suite", "mode"} <= {*metafunc.fixturenames}:
        # A test that makes a scenario of its own has it in every mode that the examples are in.
        nightly = config.getoption("--nightly")
        pairs = [(suite, mode) for suite in suites for mode in modes(suite, nightly=nightly)]
        named = [pytest.param(suite, mode, id=f"{suite}-{mode}") for suite, mode in pairs]
        metafunc.parametrize(("suite", "mode"), named, scope="session")
    elif {"suite", "hub_manager"} <= {*metafunc.fixturenames}:
        both = [(suite, manager) for suite in suites for manager in ("networkd", "networkmanager")]
        named = [pytest.param(suite, manager, id=f"{suite}-{manager}") for suite, manager in both]
        metafunc.parametrize(("suite", "hub_manager"), named, scope="session")
    elif "suite" in metafunc.fixturenames:
        metafunc.parametrize("suite", suites, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep suites together, and in a suite the scenarios: a machine is booted once, a world built once.

    What has no scenario takes longest, so it comes first: no worker is to begin it when the others are at their end.
    """

    def place(item: pytest.Item) -> tuple[int, str]:
        callspec = getattr(item, "callspec", None)
        if callspec is None:
            return (len(SUITES), "")
        scenario = callspec.params.get("scenario")
        suite = scenario.suite if scenario is not None else callspec.params.get("suite")
        if suite is None:
            return (len(SUITES), "")
        return (SUITES.index(suite), scenario.id if scenario is not None else "")

    # What has no scenario on a suite is no test there; pytest would call it skipped.
    without = {item for item in items if _has_no_scenario(item)}
    if without:
        config.hook.pytest_deselected(items=list(without))
        items[:] = [item for item in items if item not in without]
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if not config.getoption("--nightly"):
        # The newest suite has its examples brought up every day; all else that is proven there is proven at night.
        newest = SUITES.index(SUITES[-1])
        spared = [
            item
            for item in ours
            if (place(item)[0] == newest and item.path.stem not in _EVERY_DAY)
            or any(not any(name in item.name for name in mark.args) for mark in item.iter_markers("every_day"))
        ]
        if spared:
            config.hook.pytest_deselected(items=spared)
            items[:] = [item for item in items if item not in set(spared)]
            ours = [item for item in ours if item not in set(spared)]
    ordered = sorted(ours, key=place)
    places = [number for number, item in enumerate(items) if item in set(ours)]
    for number, item in zip(places, ordered, strict=True):
        items[number] = item


def _has_no_scenario(item: pytest.Item) -> bool:
    """Whether a test is about scenarios of which the chosen suites have none today."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and not isinstance(callspec.params.get("scenario", None), Scenario | None)


class Lab:
    """The machines of this process: one at a time, of the suite that was asked for last."""

    def __init__(self, logs: Path, folder: Path, stays: bool = False) -> None:
        """Write logs below `logs` and keys below `folder`; `stays`: what failed is to be looked at in the machine."""
        self.logs = logs
        self.stays = stays
        self.folder = folder
        self._machine: Machine | None = None
        self._running: Running | None = None
        self._failed: dict[Scenario, Exception] = {}

    def machine(self, suite: str) -> Machine:
        """Return the machine of a suite, with no scenario in it."""
        self.end_scenario()
        if self._machine is None or self._machine.suite != suite:
            self.end()
            worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
            self._machine = Machine(make_image(suite), self.logs / f"{suite}-{worker}")
        return self._machine

    def scenario(self, scenario: Scenario) -> Running:
        """Return a scenario that runs, booted unless it is the one that runs already.

        One that did not come up once is not tried again for each of its tests: they fail as the first did.
        """
        if scenario in self._failed:
            raise self._failed[scenario]
        if self._running is None or self._running.scenario != scenario:
            machine = self.machine(scenario.suite)
            try:
                self._running = Running(machine, scenario, self.folder)
            except Exception as error:
                self._failed[scenario] = error
                self.write_journals(scenario.id)
                if not self.stays:
                    self.end()
                raise
        return self._running

    def write_journals(self, name: str) -> None:
        """Write to the logs what every host of the scenario that runs now says of itself. It raises nothing."""
        if self._machine is None:
            return
        try:
            hosts = self._machine.run(f"mkdir -p {HOSTS}; ls {HOSTS}").stdout.split()
            scripts = [(f"host:{host}", JOURNAL) for host in hosts]
            results = self._machine.run_many(scripts, timeout=120, check=False)
        except (LabError, OSError):
            # The machine itself is gone; what comes next gets another.
            self.end()
            return
        folder = self.logs / "failed" / name
        folder.mkdir(parents=True, exist_ok=True)
        for host, result in zip(hosts, results, strict=True):
            (folder / f"{host}.log").write_text(result.stdout + result.stderr)

    def end_scenario(self) -> None:
        """Take the scenario away, if one runs."""
        if self._running is not None:
            running, self._running = self._running, None
            try:
                running.close()
            except (LabError, AssertionError):
                # What a broken scenario leaves behind must not meet the next one.
                self.end()

    def shell(self) -> None:
        """Give the person at the terminal a shell in the machine that runs, if one does."""
        if self._machine is not None:
            self._machine.shell()

    def leave(self) -> None:
        """Leave the machine that runs, if one does, as it is, and say how to reach it."""
        if self._machine is not None:
            print("", *self._machine.leave(), sep="\n")
            self._machine = None

    def end(self) -> None:
        """End the machine."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None
        self._running = None


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab of this process."""
    missing = missing_tools()
    if missing:
        pytest.exit("the lab needs " + ", and ".join(missing), returncode=2)
    option = request.config.getoption
    keep, shell = option("--lab-keep"), option("--lab-shell")
    found = Lab(Path(option("--lab-logs")), tmp_path_factory.mktemp("lab"), stays=keep or shell)
    request.config.stash[_LAB] = found
    yield found
    del request.config.stash[_LAB]
    if shell or keep:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        capture.suspend(in_=True)
        try:
            if shell:
                found.shell()
            if keep:
                found.leave()
        finally:
            capture.resume()
    found.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Keep the journals of the hosts of a test that failed: the next scenario takes their machine."""
    report: pytest.TestReport = (yield).get_result()
    lab = item.config.stash.get(_LAB, None)
    if lab is not None and report.when == "call" and report.failed:
        callspec = getattr(item, "callspec", None)
        scenario = callspec.params.get("scenario") if callspec is not None else None
        lab.write_journals(scenario.id if scenario is not None else re.sub(r"[^\w.-]+", "-", item.name).strip("-"))
        if scenario is None and not lab.stays:
            # Its own scenario is still in the machine, where the next one wants to be.
            lab.end()


@pytest.fixture
def running(lab: Lab, scenario: Scenario) -> Running:
    """The scenario of this test, which earlier tests may have used; it is left as it was found."""
    return lab.scenario(scenario)


@pytest.fixture
def machine(lab: Lab, suite: str) -> Machine:
    """The machine of this test's suite, with no scenario in it."""
    return lab.machine(suite)
