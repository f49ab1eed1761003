"""What each diagnostic code means: the pages of `wgnet explain` and of wgnet-diagnostics(7).

A page has a topology that draws the code and the same one mended, wherever a topology can draw it; tests run both
through `wgnet check`. One module for each thousand of codes, imported when one of its pages is asked for; no other
module may import this package at its start, since nobody who does not ask should pay for the texts.
"""

from __future__ import annotations

import importlib

from wgnet.diagnostics.codes import CODES, Code
from wgnet.diagnostics.explanations.explanation import Explanation

__all__ = ["Explanation", "explain", "explain_all"]

# The first digit of a code's number, and the module with its pages.
_MODULES = {"1": "text", "2": "shape", "3": "meaning", "4": "managers", "5": "keys", "6": "system"}


def explain(name: str) -> Explanation | None:
    """Return the page of a code by its name, in any case and with or without the letters; None for no such code."""
    digits = name.strip().upper().removeprefix("WG")
    code = CODES.get(f"WG{digits}")
    return None if code is None else _pages(digits[0])[code]


def explain_all() -> list[Explanation]:
    """Return every page, in the order of the table of codes."""
    return [_pages(code.name[2])[code] for code in CODES.values()]


def _pages(thousand: str) -> dict[Code, Explanation]:
    module = importlib.import_module(f"{__name__}.{_MODULES[thousand]}")
    return {page.code: page for page in module.PAGES}
