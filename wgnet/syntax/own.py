"""The user's own keys, those that begin with `x-`: nodes -> plain values, for programs that read what wgnet does not.

Input: mappings of a topology; output: text, numbers, true, false, null, lists and objects, as JSON has them. Nothing is
checked and nothing is guessed: of plain scalars only what JSON, too, would take for more than text is more (`22`,
`true`, `null`); `no`, `0777`, `1e3` and all that is quoted is text.
"""

from __future__ import annotations

import re

from wgnet.syntax.nodes import List, Mapping, Node, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PREFIX", "own_keys", "plain_value"]

PREFIX = "x-"

#: As many digits as a 64-bit number has at most: what reads JSON may have no more.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_WORDS = {"true": True, "false": False}


def own_keys(mapping: Mapping) -> list[tuple[Scalar, Node]]:
    """Return the user's own entries of a mapping, in their order."""
    return [(key, value) for key, value in mapping.entries if key.text.startswith(PREFIX)]


def plain_value(node: Node) -> Any:
    """Return what a node says, as JSON has it."""
    if isinstance(node, Mapping):
        return {key.text: plain_value(value) for key, value in node.entries}
    if isinstance(node, List):
        return [plain_value(item) for item in node.items]
    assert isinstance(node, Scalar)
    if node.is_null:
        return None
    if not node.plain:
        return node.text
    if node.text in _WORDS:
        return _WORDS[node.text]
    return int(node.text) if _NUMBER.fullmatch(node.text) else node.text
