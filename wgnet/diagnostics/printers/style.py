"""The colours of the printers, and the words that several of them use."""

from __future__ import annotations

from collections.abc import Iterable

from wgnet.diagnostics.diagnostic import Diagnostic, Severity
from wgnet.record import record

_SEVERITY = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}


@record(kw_only=False)
class Style:
    """Wraps text into SGR sequences (ECMA-48), or leaves it alone."""

    color: bool

    def severity(self, severity: Severity, text: str) -> str:
        """Return `text` in the colour of a severity."""
        return self._paint(f"1;{_SEVERITY[severity]}", text)

    def bold(self, text: str) -> str:
        """Return `text` in bold."""
        return self._paint("1", text)

    def gutter(self, text: str) -> str:
        """Return `text` in the colour of line numbers, arrows and secondary marks."""
        return self._paint("1;34", text)

    def _paint(self, sgr: str, text: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if self.color and text else text


def count_by_severity(diagnostics: Iterable[Diagnostic]) -> dict[Severity, int]:
    """Return how many diagnostics of each severity there are."""
    counts = dict.fromkeys(Severity, 0)
    for diagnostic in diagnostics:
        counts[diagnostic.severity] += 1
    return counts


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """Return the counts in words, such as `2 errors, 1 warning`; empty without diagnostics."""
    counts = count_by_severity(diagnostics)
    return ", ".join(f"{n} {severity.value}{'s' * (n != 1)}" for severity, n in counts.items() if n)
