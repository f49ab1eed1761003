"""What all tests share: how hard the property tests look, and whether the golden trees are written anew."""

from __future__ import annotations

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
