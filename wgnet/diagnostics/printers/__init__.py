"""Diagnostics -> text, in one of four formats; one module a format, imported when it is asked for.

`full` shows the source, `concise` is a line each, `json` is for programs, `github` annotates a pull request.
Every printer is handed the diagnostics in order and gives pieces of text. None may open a file, decide about
colour, or let a control character or a secret of the source through.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from wgnet.diagnostics.diagnostic import Diagnostics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["FORMATS", "format_diagnostics", "print_diagnostics"]

#: The names that `--format` and `--diagnostics` take.
FORMATS = ("full", "concise", "json", "github")


def format_diagnostics(diagnostics: Diagnostics, output_format: str, *, color: bool = False) -> Iterator[str]:
    """Yield the text of all diagnostics, by place and each once, in pieces that end with a line.

    Raises ValueError for a format that is not in `FORMATS`. `color` is for `full` and `concise` alone.
    """
    if output_format not in FORMATS:
        raise ValueError(f"unknown format of diagnostics: {output_format}")
    printer = importlib.import_module(f"wgnet.diagnostics.printers.{output_format}")
    pieces: Iterator[str] = printer.format_all(diagnostics.sorted(), diagnostics.sources, color=color)
    return pieces


def print_diagnostics(diagnostics: Diagnostics, output_format: str, stream: TextIO, color: bool = False) -> None:
    """Write all diagnostics to `stream` in one of `FORMATS`.

    A character that the stream's encoding lacks is written as an escape. Raises OSError as the stream does.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for piece in format_diagnostics(diagnostics, output_format, color=color):
        stream.write(piece.encode(encoding, "backslashreplace").decode(encoding))
