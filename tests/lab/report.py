"""What a run of the lab comes to: counts by suite and manager mode, and what is wrong with it as a whole.

Input: pytest's JUnit files, and the names of the scenarios that there are. Output: a table, and problems for a person
to read. Pure but for reading these files, and of the standard library alone. It must not know what a scenario is.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["passed", "failed", "not run"]
#: The row of tests that are not of one mode: corpora, and the lab's tests of itself.
OTHERS = "others"
#: A test's parameters.
_PARAMETERS = re.compile(r"\[(.*)\]$", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """A test as it went; `mode` is OTHERS and `scenario` None where it has none."""

    name: str
    mode: str
    scenario: str | None
    outcome: Outcome


@dataclass(frozen=True)
class SuiteReport:
    """A suite's run.

    `expected`: the scenarios that had to run; `seconds`: by the clock, without making the image; `left_out`: what the
    examples say and the lab's hosts cannot have; `status`: pytest's own exit status.
    """

    suite: str
    modes: tuple[str, ...]
    cases: tuple[Case, ...]
    expected: tuple[str, ...]
    seconds: float
    versions: str = ""
    left_out: tuple[str, ...] = ()
    status: int = 0

    @property
    def scenarios(self) -> frozenset[str]:
        """The scenarios of which at least one test ran."""
        return frozenset(case.scenario for case in self.cases if case.scenario and case.outcome != "not run")

    def problems(self) -> list[str]:
        """Return why this run is not one that passed; empty when it is."""
        found = []
        if not any(case.outcome != "not run" for case in self.cases):
            found.append("no test ran")
        missing = [name for name in self.expected if name not in self.scenarios]
        if missing:
            found.append(f"{len(missing)} of {len(self.expected)} scenarios did not run: {', '.join(missing)}")
        found += [f"{case.outcome}: {case.name}" for case in self.cases if case.outcome != "passed"]
        if self.status and not found:
            found.append(f"pytest ended with status {self.status}")
        return [f"{self.suite}: {line}" for line in found]


def read_cases(path: Path, suite: str, modes: Sequence[str], known: Mapping[str, str]) -> tuple[Case, ...]:
    """Return the tests of a JUnit file; `known` gives the mode of each scenario by its name.

    A file that is not there has none: pytest was ended before it could write it.
    """
    if not path.exists():
        return ()
    found = []
    for element in ElementTree.parse(path).iter("testcase"):
        name = element.get("name", "")
        scenario = scenario_of(name, known)
        beginning = [mode for mode in modes if _parameters(name).startswith(f"-{suite}-{mode}-")]
        mode = known[scenario] if scenario else beginning[0] if beginning else OTHERS
        outcome: Outcome = "passed"
        if element.find("failure") is not None or element.find("error") is not None:
            outcome = "failed"
        elif element.find("skipped") is not None:
            outcome = "not run"
        where = element.get("classname", "").rpartition(".")[2]
        found.append(Case(f"{where}::{name}" if where else name, mode, scenario, outcome))
    return tuple(found)


def scenario_of(name: str, known: Iterable[str]) -> str | None:
    """Return the scenario that a test's name says it is about, None if none."""
    parameters = _parameters(name)
    # The longest one: "two-hubs-whole" is not "two-hubs".
    return max((one for one in known if f"-{one}-" in parameters), key=len, default=None)


def _parameters(name: str) -> str:
    match = _PARAMETERS.search(name)
    return f"-{match.group(1)}-" if match else ""


def table(reports: Iterable[SuiteReport]) -> str:
    """Return the counts by suite and mode, with a line for each suite that has its time and its versions."""
    rows: list[tuple[str, ...]] = [("suite", "manager", "scenarios", "tests", "passed", "failed", "not run")]
    lines, left_out = [], []
    for report in reports:
        for mode in (*report.modes, OTHERS):
            cases = [case for case in report.cases if case.mode == mode]
            if cases:
                rows.append((report.suite, mode, *_counts(cases)))
        rows.append((report.suite, "all", *_counts(report.cases)))
        lines.append(f"{report.suite}: {duration(report.seconds)}; {report.versions or 'no image'}")
        left_out += [f"{report.suite}: {line}" for line in report.left_out]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join(cell.ljust(width) if number < 2 else cell.rjust(width) for number, (cell, width) in enumerate(cells))
        for cells in (zip(row, widths, strict=True) for row in rows)
    ]
    text += ["", *lines]
    if left_out:
        text += ["", "What the examples say and a host of the lab cannot have:", *left_out]
    return "\n".join(text)


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _counts(cases: Sequence[Case]) -> tuple[str, ...]:
    outcomes = [case.outcome for case in cases]
    scenarios = {case.scenario for case in cases if case.scenario and case.outcome != "not run"}
    return (
        str(len(scenarios)),
        str(len(cases)),
        *(str(outcomes.count(outcome)) for outcome in ("passed", "failed", "not run")),
    )
