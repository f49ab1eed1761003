"""wgnet held against wg-quick on real kernels: for each file of the corpus, the same state under every manager."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pytest

from lab.corpus import MANAGERS, Entry, entries
from lab.held import MEANT, judge
from lab.machine import Machine
from lab.side_by_side import QUICK, CorpusError, States, bring_up
from lab.state import LiveState
from wgnet.syntax.spec import Manager

ENTRIES = entries()


class _Lab(Protocol):
    """What conftest.py gives: one machine at a time."""

    def machine(self, suite: str) -> Machine:
        """Return the machine of a suite."""


@pytest.fixture(scope="session")
def states(lab: _Lab, suite: str) -> States:
    """What the kernels of a suite have of every entry; all entries are brought up at once, for the first test."""
    return bring_up(lab.machine(suite), ENTRIES)


def state(states: Mapping[tuple[Manager, str], LiveState | CorpusError], manager: Manager, entry: Entry) -> LiveState:
    """Return a state; a configuration that did not come up fails here, with what was said."""
    found = states[manager, entry.name]
    if isinstance(found, CorpusError):
        raise found
    return found


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.value)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_kernel_has_what_wg_quick_gives_it(states: States, entry: Entry, manager: Manager) -> None:
    verdict = judge(entry, state(states, QUICK, entry), state(states, manager, entry), manager)
    assert verdict.unexplained == ()


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.value)
def test_every_meant_difference_occurs(states: States, manager: Manager) -> None:
    used = {
        name
        for entry in ENTRIES
        for name in judge(entry, state(states, QUICK, entry), state(states, manager, entry), manager).used
    }
    assert [row.name for row in MEANT if manager in row.managers and row.name not in used] == []
