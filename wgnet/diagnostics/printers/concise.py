"""The format for editors and grep: a line for each diagnostic, `office.yaml:14:15: error[WG3003] message`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from wgnet.diagnostics.diagnostic import Diagnostic
from wgnet.diagnostics.escape import escape, present
from wgnet.diagnostics.printers.style import Style


def format_all(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], *, color: bool) -> Iterator[str]:
    """Yield exactly one line for each diagnostic; one without a place begins with its severity."""
    del sources
    style = Style(color)
    for diagnostic in diagnostics:
        place = "" if diagnostic.primary is None else f"{escape(str(diagnostic.primary.span))}: "
        kind = style.severity(diagnostic.severity, f"{diagnostic.severity.value}[{diagnostic.code}]")
        yield f"{place}{kind} {present(diagnostic.message)}\n"
