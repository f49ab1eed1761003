"""Every diagnostic code is drawn somewhere, explained, and has a test that fails without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import wgnet
from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import CODES, Code
from wgnet.diagnostics.explanations import explain

PACKAGE = Path(wgnet.__file__).parent
TESTS = Path(__file__).parent.parent
ATTRIBUTES = {name: value for name, value in vars(codes).items() if isinstance(value, Code)}
NOT_DRAWING = {PACKAGE / "diagnostics" / "codes.py"}


def sources() -> str:
    """Return the text of all modules that may draw a code."""
    paths = [path for path in PACKAGE.rglob("*.py") if path not in NOT_DRAWING and "explanations" not in path.parts]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def test_every_code_has_one_name() -> None:
    assert sorted(code.name for code in ATTRIBUTES.values()) == sorted(CODES)


SOURCES = sources()


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_code_is_drawn(name: str) -> None:
    assert re.search(rf"\bcodes\.{name}\b", SOURCES)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_code_has_a_fixture(name: str) -> None:
    code = ATTRIBUTES[name]
    page = explain(code.name)
    assert page is not None
    if page.example_files():
        return  # run by tests/diagnostics
    named = re.compile(rf"\b(?:{name}|{code.name})\b")
    # This folder and the explanations' own test look at all codes alike.
    files = [path for path in TESTS.rglob("test_*.py") if path.parent.name not in ("consistency",)]
    files = [path for path in files if path.name != "test_explanations.py"]
    assert any(named.search(path.read_text(encoding="utf-8")) for path in files), f"no test draws {code.name}"
