"""How bad a diagnostic is."""

from __future__ import annotations

import enum


class Severity(enum.Enum):
    """An error stops what was asked for; a warning does not, unless `--strict`; a note only tells."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"
