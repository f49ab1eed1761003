"""Places in a topology file."""

from __future__ import annotations

from wgnet.record import record


@record(kw_only=False)
class Span:
    """A stretch of text in one file.

    Lines and columns count from 1, columns in characters; the end is exclusive. A span over several lines is
    shown by its first line.
    """

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"
