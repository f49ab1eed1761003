"""Edits a topology's text in place: only what is to change changes; comments, order and layout stay.

Input: the text, the node to edit, what to write. Output: the new text. No I/O; the caller reads the result as a proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from wgnet.record import record
from wgnet.syntax.nodes import Mapping


@record(kw_only=False)
class Insertion:
    """Text to put in before the character with this index, and how many characters from there it replaces."""

    index: int
    text: str
    length: int = 0


def insert_entry(text: str, mapping: Mapping, key: str, value: str, after: str) -> Insertion:
    """Return the insertion that adds `key: value` to a mapping, behind the entry `after` where its line allows.

    `value` is YAML already. The mapping has not got the key. Raises ValueError for an empty block mapping, which
    YAML cannot write.
    """
    if mapping.flow:
        if not mapping.entries[0][0].plain if mapping.entries else text.lstrip().startswith("{"):
            key = f'"{key}"'  # JSON stays JSON
        if not mapping.entries:
            return Insertion(mapping.start.index + 1, f"{key}: {value}")
        # An alias's node stands elsewhere.
        ends = {one.text: entry.end.index for one, entry in mapping.entries if entry.start.index >= one.end.index}
        if after in ends:
            return Insertion(ends[after], f", {key}: {value}")
        return Insertion(mapping.start.index + 1, f"{key}: {value}, ")
    if not mapping.entries:
        raise ValueError("an empty block mapping")
    newline = "\r\n" if "\r\n" in text else "\n"
    first = mapping.entries[0][0]
    indent = " " * first.start.column
    for entry_key, entry_value in mapping.entries:
        if entry_key.text != after or entry_value.start.index < entry_key.end.index:
            continue  # not there, or an alias, whose node stands elsewhere
        end = text.find("\n", entry_value.end.index)
        if end == -1:
            rest, end = text[entry_value.end.index :], len(text)
            line = f"{newline}{indent}{key}: {value}"
        else:
            rest, end = text[entry_value.end.index : end], end + 1
            line = f"{indent}{key}: {value}{newline}"
        if re.fullmatch(r"[ \t]*(#.*)?\r?", rest):
            return Insertion(end, line)
    return Insertion(first.start.index, f"{key}: {value}{newline}{indent}")


def replace_value(mapping: Mapping, key: str, value: str) -> Insertion | None:
    """Return the replacement of an entry's value by `value`, which is YAML already.

    None where there is no such entry, or its value is an alias, which stands elsewhere.
    """
    for entry_key, entry_value in mapping.entries:
        if entry_key.text == key and entry_value.start.index >= entry_key.end.index:
            return Insertion(entry_value.start.index, value, entry_value.end.index - entry_value.start.index)
    return None


def remove_entry(text: str, mapping: Mapping, key: str) -> Insertion | None:
    """Return the removal of an entry with a value on its own line: in block style with its line, comment included.

    None where there is no such entry, its value is an alias, or more stands there than can be removed safely.
    """
    for number, (entry_key, entry_value) in enumerate(mapping.entries):
        start, end = entry_key.start.index, entry_value.end.index
        if entry_key.text != key or entry_value.start.index < entry_key.end.index:
            continue
        if not mapping.flow:
            line_start = text.rfind("\n", 0, start) + 1
            line_end = text.find("\n", end)
            line_end = len(text) if line_end == -1 else line_end + 1
            before, rest = text[line_start:start], text[end:line_end]
            if before.strip(" ") or not re.fullmatch(r"[ \t]*(#.*)?\r?\n?", rest) or len(mapping.entries) == 1:
                return None
            return Insertion(line_start, "", line_end - line_start)
        # In flow style the comma before it goes too, or the one behind it, where it is the first.
        if number:
            before = text[:start].rstrip()
            return Insertion(len(before) - 1, "", end - len(before) + 1) if before.endswith(",") else None
        comma = re.compile(r"\s*,\s*").match(text, end)
        return Insertion(start, "", (end if comma is None else comma.end()) - start)
    return None


def apply_insertions(text: str, insertions: Iterable[Insertion]) -> str:
    """Return the text with all insertions made; each index is of the text as it was."""
    for insertion in sorted(insertions, key=lambda one: one.index, reverse=True):
        text = text[: insertion.index] + insertion.text + text[insertion.index + insertion.length :]
    return text
