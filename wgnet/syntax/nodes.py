"""Nodes with places: what the text says, before anyone knows what it means.

Input and output of no stage by itself: `events.py` makes nodes, `decode.py` reads them. Every scalar is text; no node
holds a guess of YAML's about its type.
"""

from __future__ import annotations

from wgnet.diagnostics.span import Span


class Mark:
    """The part of PyYAML's mark that is used: all count from 0, in characters."""

    line: int
    column: int
    index: int


class Node:
    """A scalar, a list or a mapping, and where it stands."""

    __slots__ = ("end", "file", "start")

    #: What a diagnostic calls a node of this kind.
    kind = "a value"

    def __init__(self, file: str, start: Mark, end: Mark) -> None:
        self.file = file
        self.start = start
        self.end = end

    @property
    def span(self) -> Span:
        """The node's place; made on demand, since most nodes are never spoken of."""
        return Span(self.file, self.start.line + 1, self.start.column + 1, self.end.line + 1, self.end.column + 1)


class Scalar(Node):
    """A scalar's text. `plain` is false for a quoted or block scalar, which is never null."""

    __slots__ = ("plain", "text")

    kind = "a single value"

    def __init__(self, file: str, start: Mark, end: Mark, text: str, plain: bool) -> None:
        self.file = file
        self.start = start
        self.end = end
        self.text = text
        self.plain = plain

    @property
    def is_null(self) -> bool:
        """Whether nothing was written: an empty plain scalar, `~` or `null`."""
        return self.plain and self.text in ("", "~", "null")


class List(Node):
    """A list and whether it is written in brackets."""

    __slots__ = ("flow", "items")

    kind = "a list"

    def __init__(self, file: str, start: Mark, end: Mark, items: list[Node], flow: bool) -> None:
        super().__init__(file, start, end)
        self.items = items
        self.flow = flow


class Mapping(Node):
    """A mapping's entries in their order; a key stands in it once."""

    __slots__ = ("entries", "flow")

    kind = "a mapping"

    def __init__(self, file: str, start: Mark, end: Mark, entries: list[tuple[Scalar, Node]], flow: bool) -> None:
        super().__init__(file, start, end)
        self.entries = entries
        self.flow = flow

    def get(self, name: str) -> Node | None:
        """Return the value of the key `name`, or None."""
        for key, value in self.entries:
            if key.text == name:
                return value
        return None

    def key(self, name: str) -> Scalar | None:
        """Return the key `name` itself, for its place, or None."""
        for key, _ in self.entries:
            if key.text == name:
                return key
        return None
