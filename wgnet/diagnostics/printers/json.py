r"""The format for programs, version 1. The shape is an interface: keys may be added, none changed or removed.

    {"version": 1,
     "diagnostics": [
       {"code": "WG3003",
        "severity": "error",                  # or "warning", "note"
        "title": "an endpoint lies ...",      # of the code, always the same
        "message": "endpoint of 'fra' ...",   # of this diagnostic
        "file": "office.yaml",                # null where the diagnostic has no place; so is "range"
        "range": {"start": {"line": 14, "column": 15}, "end": {"line": 14, "column": 27}},
        "label": "packets to this ...",       # what is to be said about the place; may be empty
        "secondary": [{"file": ..., "range": ..., "label": ...}],
        "help": ["use an address ..."]}],
     "errors": 1, "warnings": 0, "notes": 0}

Lines and columns count from 1, columns in characters, ends are exclusive. Diagnostics come in the order of
their places. Control characters stand in the strings as visible escapes, as in the other formats (`\x1b` as
four characters); the document is pure ASCII and holds nothing of the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wgnet.diagnostics.diagnostic import Diagnostic, Label, Severity
from wgnet.diagnostics.escape import escape, present
from wgnet.diagnostics.printers.style import count_by_severity

VERSION = 1


def format_all(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], *, color: bool) -> Iterator[str]:
    """Yield one JSON document; without diagnostics its list is empty."""
    del sources, color
    counts = count_by_severity(diagnostics)
    document = {
        "version": VERSION,
        "diagnostics": [_as_dict(diagnostic) for diagnostic in diagnostics],
        "errors": counts[Severity.ERROR],
        "warnings": counts[Severity.WARNING],
        "notes": counts[Severity.NOTE],
    }
    yield json.dumps(document, indent=2) + "\n"


def _as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "code": diagnostic.code.name,
        "severity": diagnostic.severity.value,
        "title": diagnostic.code.title,
        "message": present(diagnostic.message),
        **_place(diagnostic.primary),
        "secondary": [_place(label) for label in diagnostic.secondary],
        "help": [present(text) for text in diagnostic.help],
    }


def _place(label: Label | None) -> dict[str, Any]:
    if label is None:
        return {"file": None, "range": None, "label": ""}
    span = label.span
    return {
        "file": escape(span.file),
        "range": {
            "start": {"line": span.line, "column": span.column},
            "end": {"line": span.end_line, "column": span.end_column},
        },
        "label": present(label.message),
    }
