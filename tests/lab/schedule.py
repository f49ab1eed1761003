"""How pytest-xdist shares the lab's tests out: what uses the same world goes to the same worker.

Input: the names of tests. Output: groups of them, each for one worker. xdist's own `loadgroup` is not used: it marks
groups in the names of tests, which has no effect with pytest 9.2, and then every worker boots every scenario.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from lab.image import SUITES
from lab.report import scenario_of
from lab.scenarios import scenarios


class LabScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Give out groups in the order in which they are collected, each to a worker that has little left to do."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        # Else the groups with most tests come first; the lab has put those first that take longest.
        config.option.loadscopereorder = False
        self._known = [one.id for suite in SUITES for one in scenarios(suite, nightly=True)]

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid, self._known)


def group_of(nodeid: str, known: list[str]) -> str:
    """Return the group of a test: its scenario, else its module and suite; outside the lab it is one of its own."""
    module, _, name = nodeid.partition("::")
    if "lab" not in module.split("/")[:-1]:
        return nodeid
    suite = next((suite for suite in SUITES if f"[{suite}" in name), "")
    return scenario_of(name, known) or f"{module} {suite}"
