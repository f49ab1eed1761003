"""The format for people: every diagnostic with excerpts of the source, carets, labels and the way out.

The form is rustc's. A blank line parts two diagnostics, and a line of counts ends them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostic, Label
from wgnet.diagnostics.escape import cells, escape, escape_excerpt, mask_source, present
from wgnet.diagnostics.printers.style import Style, summary
from wgnet.diagnostics.span import Span

#: How many characters of a source line are shown at most; a longer one is cut around the span.
MAX_EXCERPT = 160
_LEAD = 60
_ELLIPSIS = "..."
# How far beyond what is shown a line is read to recognise a secret that the cut would halve.
_MARGIN = 256

_LINE_BREAK = re.compile(r"\r\n?|\n")


def format_all(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], *, color: bool) -> Iterator[str]:
    """Yield each diagnostic with its excerpts, and the counts at the end."""
    style = Style(color)
    lines = _Lines(sources)
    for diagnostic in diagnostics:
        yield "\n".join(_block(diagnostic, lines, style)) + "\n\n"
    if diagnostics:
        yield summary(diagnostics) + "\n"


class _Lines:
    """The sources' lines, split once a file however many diagnostics point into it."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources
        self._split: dict[str, list[str]] = {}

    def get(self, span: Span) -> str | None:
        """Return the line where a span begins, or None where there is no such text."""
        lines = self._split.get(span.file)
        if lines is None:
            text = self._sources.get(span.file)
            lines = [] if text is None else _LINE_BREAK.split(text)
            self._split[span.file] = lines
        return lines[span.line - 1] if 0 < span.line <= len(lines) else None


def _block(diagnostic: Diagnostic, lines: _Lines, style: Style) -> Iterator[str]:
    head = style.severity(diagnostic.severity, f"{diagnostic.severity.value}[{diagnostic.code}]")
    yield head + style.bold(f": {present(diagnostic.message)}")
    labels = [] if diagnostic.primary is None else [diagnostic.primary]
    labels += diagnostic.secondary
    width = max((len(str(label.span.line)) for label in labels), default=0)
    pad = " " * max(width, 2)
    # Whoever pastes a private key may paste it where a public one goes.
    everything = diagnostic.code is codes.PRIVATE_KEY_IN_TOPOLOGY
    for label in labels:
        primary = label is diagnostic.primary
        excerpt = _excerpt(label, lines, everything=everything)
        yield from _place(label, pad, excerpt is None, style, primary=primary)
        if excerpt is None:
            continue
        source, offset, length = excerpt
        bar = style.gutter(f"{pad} |")
        if primary:
            yield bar
        number = style.gutter(f"{label.span.line:>{len(pad)}} |")
        yield f"{number} {source}".rstrip() if source else number
        mark = ("^" if primary else "-") * length
        text = present(label.message)
        marked = f"{mark} {text}" if text else mark
        marked = style.severity(diagnostic.severity, marked) if primary else style.gutter(marked)
        yield f"{bar} {' ' * offset}{marked}"
        if primary and diagnostic.secondary:
            yield bar
    for text in diagnostic.help:
        yield f"{pad}{style.bold('help')}: {present(text)}"


def _place(label: Label, pad: str, bare: bool, style: Style, *, primary: bool) -> Iterator[str]:
    line = f"{pad}{style.gutter('-->' if primary else ':::')} {escape(str(label.span))}"
    # Without an excerpt there is no caret to carry the label.
    yield f"{line}: {present(label.message)}" if bare and label.message else line


def _excerpt(label: Label, lines: _Lines, *, everything: bool) -> tuple[str, int, int] | None:
    """Return the line to show, the cells before the mark, and the mark's length; None without a source."""
    span = label.span
    line = lines.get(span)
    if line is None:
        return None
    start = min(max(span.column - 1, 0), len(line))
    end = span.end_column - 1 if span.end_line == span.line else len(line)
    low, high = _window(len(line), start)
    end = min(max(end, start), high)
    # Mask before cutting, so that half a key does not pass for something short.
    margin = max(0, low - _MARGIN)
    shown = mask_source(line[margin : high + _MARGIN], everything=everything)[low - margin : high - margin]
    before = (_ELLIPSIS if low else "") + escape_excerpt(shown[: start - low])
    marked = escape_excerpt(shown[start - low : end - low])
    after = escape_excerpt(shown[end - low :]) + (_ELLIPSIS if high < len(line) else "")
    return before + marked + after, cells(before), max(1, cells(marked))


def _window(length: int, start: int) -> tuple[int, int]:
    if length <= MAX_EXCERPT:
        return 0, length
    low = max(0, min(start - _LEAD, length - MAX_EXCERPT))
    return low, low + MAX_EXCERPT
