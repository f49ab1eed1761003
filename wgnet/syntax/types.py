"""The types of the format's values: how a node of each is decoded, and what its JSON Schema is.

A type's `decode` returns the value, or `INVALID` after it has reported why not; it never raises for bad input and goes
on as far as it can, so that one run shows every problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.record import record
from wgnet.syntax.nodes import List, Mapping, Node, Scalar
from wgnet.syntax.values import Bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    Schema = dict[str, Any]


class _Invalid:
    """The value of what could not be decoded."""

    def __repr__(self) -> str:
        return "INVALID"

    def __bool__(self) -> bool:
        return False


INVALID: Final = _Invalid()

# A pasted private key must not come back in a message, whatever key it was pasted at.
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


#: How many words a mistyped one is compared with, and how much of it.
MAX_COMPARED = 1000
MAX_WORD = 253


def shown(text: str) -> str:
    """Return `text` as a message may quote it: short, and with anything like a WireGuard key masked."""
    text = _KEY_LIKE.sub("****", text)
    return text if len(text) <= 320 else text[:300] + "…"


def suggest(word: str, possible: Sequence[str]) -> str | None:
    """Return help that names what `word` was probably meant to be, or None."""
    import difflib  # takes longer to import than most topologies to check

    if len(possible) > MAX_COMPARED:  # each comparison takes microseconds: a network may have 100,000 hosts
        possible = [one for one in possible if one[:1] == word[:1] and abs(len(one) - len(word)) < 3][:MAX_COMPARED]
    near = difflib.get_close_matches(word[:MAX_WORD], possible, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else None


@record(kw_only=False)
class Type:
    """A type of value: `name` is what messages and the manual call it. No value is of this one, the others' root."""

    name: str

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Return the value of `node`, or INVALID after reporting why there is none."""
        return wrong_type(node, self.name, diagnostics)

    def schema(self) -> Schema:
        """Return the JSON Schema of the values."""
        return {"not": {}}


def wrong_type(node: Node, expected: str, diagnostics: Diagnostics) -> Any:
    """Report a node of the wrong kind and return INVALID."""
    found = "nothing" if isinstance(node, Scalar) and node.is_null else node.kind
    diagnostics.report(codes.WRONG_TYPE, f"expected {expected}, found {found}", node.span)
    return INVALID


@record(kw_only=False)
class ScalarType(Type):
    """A single value, read from its text by `read`, which raises `Bad`."""

    read: Callable[[str], Any]
    json: Schema

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Read the scalar's text."""
        if not isinstance(node, Scalar) or node.is_null:
            return wrong_type(node, self.name, diagnostics)
        try:
            return self.read(node.text)
        except Bad as error:
            diagnostics.report(error.code, shown(error.message), node.span, help=error.help or ())
            return INVALID

    def schema(self) -> Schema:
        """Return the schema that the table gives."""
        return dict(self.json)


@record(kw_only=False)
class ChoiceType(Type):
    """One of a few words."""

    choices: dict[str, Any]

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Look the word up."""
        if not isinstance(node, Scalar) or node.is_null:
            return wrong_type(node, self.name, diagnostics)
        if node.text in self.choices:
            return self.choices[node.text]
        words = ", ".join(f"'{word}'" for word in self.choices)
        diagnostics.report(
            codes.BAD_CHOICE,
            shown(f"expected one of {words}, found '{node.text}'"),
            node.span,
            help=suggest(node.text.lower(), list(self.choices)) or (),
        )
        return INVALID

    def schema(self) -> Schema:
        """Return an enumeration."""
        return {"enum": list(self.choices)}


@record(kw_only=False)
class ListType(Type):
    """A list; with `single`, one value without brackets will do too. An item may not stand twice if `unique`."""

    item: Type
    single: bool = False
    empty: bool = False
    unique: bool = True

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Decode every item, and report each that stands twice."""
        if self.single and isinstance(node, Scalar) and not node.is_null:
            value = self.item.decode(node, diagnostics)
            return INVALID if value is INVALID else (value,)
        if not isinstance(node, List):
            return wrong_type(node, self.name, diagnostics)
        if not node.items and not self.empty:
            diagnostics.report(codes.EMPTY_VALUE, f"expected {self.name}, found an empty list", node.span)
            return INVALID
        values = [self.item.decode(item, diagnostics) for item in node.items]
        if INVALID in values:
            return INVALID
        if self.unique and len(values) > 1:
            self._check_unique(node, values, diagnostics)
        return tuple(values)

    def _check_unique(self, node: List, values: list[Any], diagnostics: Diagnostics) -> None:
        first: dict[Any, Node] = {}
        for item, value in zip(node.items, values, strict=True):
            if value in first:
                diagnostics.report(
                    codes.REPEATED_ITEM,
                    shown(f"'{item.text if isinstance(item, Scalar) else value}' stands twice in one list"),
                    Label(item.span, "again here"),
                    Label(first[value].span, "first here"),
                )
            else:
                first[value] = item

    def schema(self) -> Schema:
        """Return an array, or one value where that will do."""
        array: Schema = {"type": "array", "items": self.item.schema()}
        if not self.empty:
            array["minItems"] = 1
        if self.unique:
            array["uniqueItems"] = True
        return {"anyOf": [self.item.schema(), array]} if self.single else array


@record(kw_only=False)
class MapType(Type):
    """A mapping from names of the user's choice to values of one type."""

    key: Type
    value: Type
    empty: bool = True

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Decode every entry; a bad one is left out after it has been reported."""
        if not isinstance(node, Mapping):
            if isinstance(node, Scalar) and node.is_null and self.empty:
                return {}
            return wrong_type(node, self.name, diagnostics)
        if not self.empty and all(key.text.startswith("x-") for key, _ in node.entries):
            diagnostics.report(codes.EMPTY_VALUE, f"expected {self.name}, found an empty mapping", node.span)
            return INVALID
        result = {}
        for key_node, value_node in node.entries:
            if key_node.text.startswith("x-"):
                continue
            key = self.key.decode(key_node, diagnostics)
            value = self.value.decode(value_node, diagnostics)
            if key is not INVALID and value is not INVALID:
                result[key] = value
        return result

    def schema(self) -> Schema:
        """Return an object of any names, those that begin with `x-` apart."""
        schema: Schema = {
            "type": ["object", "null"] if self.empty else "object",
            "patternProperties": {"^x-": {}},
            "additionalProperties": self.value.schema(),
        }
        if not self.empty:
            schema["minProperties"] = 1
        return schema


@record(kw_only=False)
class UnionType(Type):
    """A value that may be of several kinds of node; `pick` chooses the type by the node."""

    options: tuple[Type, ...]
    pick: Callable[[Node], Type | None]

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Decode by the type that fits the node's kind."""
        chosen = self.pick(node)
        if chosen is None:
            return wrong_type(node, self.name, diagnostics)
        return chosen.decode(node, diagnostics)

    def schema(self) -> Schema:
        """Return any of the options."""
        return {"anyOf": [option.schema() for option in self.options]}


@record()
class Key:
    """One key of a section: a row of the table that decoder, schema and manual share."""

    name: str
    type: Type
    doc: str
    default: str = ""
    required: bool = False

    @property
    def field(self) -> str:
        """The name of the specification's field."""
        return "from_" if self.name == "from" else self.name.replace("-", "_")


@record(kw_only=False)
class SectionType(Type):
    """A mapping with known keys that becomes `build(node=…, nodes=…, **fields)`.

    `elsewhere` names keys that people look for here and where they do stand. With `exclusive`, just one of these keys
    must be given; `requires` names for a key the one that it goes with. A `lenient` section is built without the values
    that were bad: they are in `nodes`, but None, so that the rest can still be checked in the same run.
    """

    keys: dict[str, Key]
    build: Callable[..., Any]
    elsewhere: dict[str, tuple[Code, str]]
    exclusive: tuple[str, ...] = ()
    requires: dict[str, str] | None = None
    lenient: bool = False

    def decode(self, node: Node, diagnostics: Diagnostics) -> Any:
        """Decode every key; INVALID when a required one is missing or any is bad, unless lenient."""
        if not isinstance(node, Mapping):
            return wrong_type(node, self.name, diagnostics)
        fields: dict[str, Any] = {}
        nodes: dict[str, Node] = {}
        good = True
        for key_node, value_node in node.entries:
            name = key_node.text
            key = self.keys.get(name)
            if key is None:
                if not name.startswith("x-"):
                    self._unknown(key_node, diagnostics)
                    good = False
                continue
            nodes[name] = value_node
            value = key.type.decode(value_node, diagnostics)
            if value is INVALID:
                good = False
            else:
                fields[key.field] = value
        good &= self._check_presence(node, nodes, diagnostics)
        return self.build(node=node, nodes=nodes, **fields) if good or self.lenient else INVALID

    def _unknown(self, key_node: Scalar, diagnostics: Diagnostics) -> None:
        name = key_node.text
        if name in self.elsewhere:
            code, help_text = self.elsewhere[name]
            diagnostics.report(code, f"key '{name}' may not stand in {self.name}", key_node.span, help=help_text)
            return
        names = list(self.keys)
        help_text = suggest(name.lower().replace("_", "-"), names) or "expected one of " + ", ".join(names)
        diagnostics.report(
            codes.UNKNOWN_KEY, shown(f"unknown key '{name}' in {self.name}"), key_node.span, help=help_text
        )

    def _check_presence(self, node: Mapping, nodes: dict[str, Node], diagnostics: Diagnostics) -> bool:
        good = True
        place = node.span
        for key in self.keys.values():
            if key.required and key.name not in nodes:
                diagnostics.report(codes.MISSING_KEY, f"key '{key.name}' is missing in {self.name}", place)
                good = False
        if self.exclusive:
            given = [name for name in self.exclusive if name in nodes]
            words = ", ".join(f"'{name}'" for name in self.exclusive)
            if not given:
                diagnostics.report(codes.MISSING_KEY, f"expected one of {words} in {self.name}", place)
                good = False
            for name in given[1:]:
                diagnostics.report(
                    codes.CONFLICTING_KEYS,
                    f"'{name}' and '{given[0]}' exclude each other",
                    Label(_key_span(node, name)),
                    Label(_key_span(node, given[0])),
                )
                good = False
        for name, other in (self.requires or {}).items():
            if name in nodes and other not in nodes:
                diagnostics.report(codes.CONFLICTING_KEYS, f"'{name}' goes with '{other}' alone", _key_span(node, name))
                good = False
        return good

    def schema(self) -> Schema:
        """Return an object with these keys and `x-` keys."""
        properties = {key.name: {**key.type.schema(), "description": key.doc} for key in self.keys.values()}
        schema: Schema = {
            "type": "object",
            "properties": properties,
            "patternProperties": {"^x-": {}},
            "additionalProperties": False,
        }
        required = [key.name for key in self.keys.values() if key.required]
        if required:
            schema["required"] = required
        if self.exclusive:
            schema["oneOf"] = [{"required": [name]} for name in self.exclusive]
        if self.requires:
            schema["dependentRequired"] = {name: [other] for name, other in self.requires.items()}
        return schema


def _key_span(node: Mapping, name: str) -> Any:
    key = node.key(name)
    return node.span if key is None else key.span
