"""Nodes with places: what the text says, before anyone knows what it means.

Input and output of no stage by itself: `events.py` makes nodes, `decode.py` reads them. Every scalar is text; no node
holds a guess of YAML's about its type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wgnet.diagnostics.span import Span


class Mark(Protocol):
    """The part of PyYAML's mark that is used: all count from 0, in characters."""

    line: int
    column: int
    index: int


@dataclass(slots=True, eq=False)
class Node:
    """A scalar, a list or a mapping, and where it stands."""

    file: str
    start: Mark
    end: Mark

    #: What a diagnostic calls a node of this kind.
    kind = "a value"

    @property
    def span(self) -> Span:
        """The node's place; made on demand, since most nodes are never spoken of."""
        return Span(self.file, self.start.line + 1, self.start.column + 1, self.end.line + 1, self.end.column + 1)


@dataclass(slots=True, eq=False)
class Scalar(Node):
    """A scalar's text. `plain` is false for a quoted or block scalar, which is never null."""

    text: str
    plain: bool

    kind = "a single value"

    @property
    def is_null(self) -> bool:
        """Whether nothing was written: an empty plain scalar, `~` or `null`."""
        return self.plain and self.text in ("", "~", "null")


@dataclass(slots=True, eq=False)
class List(Node):
    """A list and whether it is written in brackets."""

    items: list[Node]
    flow: bool

    kind = "a list"


@dataclass(slots=True, eq=False)
class Mapping(Node):
    """A mapping's entries in their order; a key stands in it once."""

    entries: list[tuple[Scalar, Node]]
    flow: bool

    kind = "a mapping"

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
