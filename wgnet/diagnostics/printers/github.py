"""The format for GitHub Actions: workflow commands, which it shows as annotations of the changed lines.

Source: "Workflow commands for GitHub Actions" and the toolkit's `command.ts`, whose escapes these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from wgnet.diagnostics.diagnostic import Diagnostic, Severity
from wgnet.diagnostics.escape import escape, present

_COMMAND = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def format_all(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], *, color: bool) -> Iterator[str]:
    """Yield one workflow command for each diagnostic."""
    del sources, color
    for diagnostic in diagnostics:
        properties: dict[str, str] = {}
        if diagnostic.primary is not None:
            span = diagnostic.primary.span
            properties |= {"file": escape(span.file), "line": str(span.line), "endLine": str(span.end_line)}
            # GitHub refuses columns of an annotation over several lines.
            if span.end_line == span.line:
                properties |= {"col": str(span.column), "endColumn": str(span.end_column)}
        properties["title"] = diagnostic.code.name
        listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        yield f"::{_COMMAND[diagnostic.severity]} {listed}::{'%0A'.join(map(_data, _lines(diagnostic)))}\n"


def _lines(diagnostic: Diagnostic) -> Iterator[str]:
    yield present(diagnostic.message)
    if diagnostic.primary is not None and diagnostic.primary.message:
        yield present(diagnostic.primary.message)
    for label in diagnostic.secondary:
        place = escape(str(label.span))
        yield f"{place}: {present(label.message)}" if label.message else place
    for text in diagnostic.help:
        yield f"help: {present(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
