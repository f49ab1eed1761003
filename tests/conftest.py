"""What all tests share: how hard the property tests look, and whether the golden trees are written anew."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_CALM = {
    # A busy machine is not a failure; large networks are slow to draw.
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("default", max_examples=40, **_CALM)  # type: ignore[arg-type]
settings.register_profile("thorough", max_examples=2000, **_CALM)  # type: ignore[arg-type]
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is rendered")
    group = parser.getgroup("lab", "the lab: every example on real kernels (docs/lab.md)")
    group.addoption("--lab", action="store_true", help="run the tests that boot machines; needs root and qemu")
    group.addoption(
        "--suite",
        choices=("bookworm", "trixie", "forky", "all"),
        default="bookworm",
        help="the Debian suite of the lab's machines (default: bookworm)",
    )
    group.addoption("--nightly", action="store_true", help="with the scenarios that are too long for every day")
    group.addoption("--faults", type=int, help="how many faults of each kind, spread over all that there can be")
    group.addoption("--lab-shell", action="store_true", help="a shell in the machine when the tests are done")
    group.addoption("--lab-keep", action="store_true", help="leave the machine running when the tests are done")
    group.addoption(
        "--lab-logs", default="lab-logs", metavar="DIR", help="where consoles and journals go (default: lab-logs)"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--lab") and config.option.tbstyle == "auto":
        # The long style prints arguments, and with them the keys that a script is given.
        config.option.tbstyle = "short"
    config.addinivalue_line("markers", "every_day(*parts): without --nightly only with one of these in a test's name")
    config.addinivalue_line(
        "markers", "scenario_of(*examples, modes=...): the examples that a test of the lab is about"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a world of the lab in one worker of pytest-xdist, whatever `--dist` says."""
    if not config.getoption("--lab"):
        return None
    from lab.schedule import LabScheduling

    return LabScheduling(config, log)
