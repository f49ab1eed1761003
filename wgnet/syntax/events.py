"""Stage one: bytes -> nodes with places.

Reads PyYAML's events (the C loader's parser), never its constructors: nothing is guessed, nothing recurses, a key may
not stand twice, and what an alias stands for is counted. Reports what is wrong with the text; never raises for it.
"""

from __future__ import annotations

import re
from itertools import islice

import yaml

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.span import Span
from wgnet.syntax.nodes import List, Mapping, Mark, Node, Scalar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The largest document, in bytes. 100,000 hosts take about a quarter of it.
MAX_BYTES = 64 * 1024 * 1024
#: The deepest nesting; the format itself needs 6.
MAX_DEPTH = 32
#: How many nodes all aliases of a document may stand for together.
MAX_ALIASED_NODES = 100_000
#: How many problems of the text itself are reported before the reading ends.
MAX_REPORTED = 200
#: How many places of one kind of bad character are reported.
MAX_CHARACTERS_REPORTED = 20

# YAML 1.1 takes U+0085, U+2028 and U+2029 for line breaks, editors do not: refused, so that lines are counted alike.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Apart from the pattern: one character beyond U+00FF in it takes as long to compile as a small file to check.
_WIDE = ("\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff")
_TAB_INDENT = re.compile(r"^ *(\t+)[ \t]*[^\s#]", re.MULTILINE)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Stop(Exception):  # noqa: N818 - no error, but the end of the reading
    """Ends the reading of a text that has been reported as bad."""


def parse_nodes(data: bytes, file: str, diagnostics: Diagnostics) -> Node | None:
    """Parse the text of one topology file into its root node.

    Return None when a diagnostic says why there is none. `file` is the name that the spans bear.
    """
    text = _decode(data, file, diagnostics)
    if text is None:
        return None
    diagnostics.sources[file] = text
    try:
        return _Parser(text, file, diagnostics).parse()
    except _Stop:
        return None
    except yaml.YAMLError as error:
        _report_yaml_error(error, text, file, diagnostics)
        return None


def _decode(data: bytes, file: str, diagnostics: Diagnostics) -> str | None:
    if len(data) > MAX_BYTES:
        diagnostics.report(
            codes.TOO_LARGE,
            f"the file has {len(data):,} bytes, expected at most {MAX_BYTES:,}",
            Span(file, 1, 1, 1, 1),
            help="split the network into several files",
        )
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The error counts from behind a byte order mark; its own copy of the bytes has none.
        before = error.object[: error.start].decode("utf-8", "replace")
        diagnostics.sources[file] = data.decode("utf-8-sig", "replace")
        diagnostics.report(
            codes.NOT_UTF8,
            f"byte 0x{error.object[error.start]:02x} is not UTF-8",
            _place(before, len(before), file),
            help="save the file as UTF-8",
        )
        return None
    bad = [match.start() for match in islice(_CONTROL.finditer(text), MAX_CHARACTERS_REPORTED)]
    bad += [text.index(character) for character in _WIDE if character in text]
    # JSON may be indented with tabs, and YAML reads it: between brackets indentation means nothing.
    tabs = [] if text.lstrip().startswith("{") else list(islice(_TAB_INDENT.finditer(text), MAX_CHARACTERS_REPORTED))
    if not bad and not tabs:
        return text
    diagnostics.sources[file] = text
    for index in sorted(bad):
        diagnostics.report(
            codes.CONTROL_CHARACTER,
            f"character U+{ord(text[index]):04X} may not stand in a topology file",
            _place(text, index, file),
        )
    for match in tabs:
        diagnostics.report(
            codes.TAB,
            "a tab may not indent a line",
            _place(text, match.start(1), file, len(match.group(1))),
            help="indent with spaces",
        )
    return None


def _place(text: str, index: int, file: str, width: int = 1) -> Span:
    line = text.count("\n", 0, index) + 1
    column = index - (text.rfind("\n", 0, index) + 1) + 1
    return Span(file, line, column, line, column + width)


def _report_yaml_error(error: yaml.YAMLError, text: str, file: str, diagnostics: Diagnostics) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "not valid YAML").lower()
    if mark is None:
        diagnostics.report(codes.YAML_SYNTAX, problem, Span(file, 1, 1, 1, 1))
        return
    span = _point(file, mark)
    if text[mark.index : mark.index + 1] == "\t":
        diagnostics.report(codes.TAB, "a tab may not stand here", span, help="indent with spaces")
        return
    context_mark = getattr(error, "context_mark", None)
    also: tuple[Label, ...] = ()
    context = getattr(error, "context", None)
    if context and context_mark is not None and (context_mark.line, context_mark.column) != (mark.line, mark.column):
        also = (Label(_point(file, context_mark), str(context)),)
    diagnostics.report(codes.YAML_SYNTAX, problem, span, *also)


class _Parser:
    """Builds the nodes of one document from events, with a stack of its own."""

    def __init__(self, text: str, file: str, diagnostics: Diagnostics) -> None:
        self.text = text
        self.file = file
        self.diagnostics = diagnostics
        self.anchors: dict[str, Node | None] = {}
        self.open_anchors: list[tuple[Node, str]] = []
        self.sizes: dict[int, tuple[int, int]] = {}
        self.aliased = 0
        self.reported_before = len(diagnostics)
        #: Where the last scalar, alias or bracket ended.
        self.last_end: Mark | None = None

    def parse(self) -> Node | None:
        """Read all events; return the root node of the only document."""
        loader = _Loader(self.text)
        root: Node | None = None
        # Each open collection with its keys so far, and the key that waits for its value.
        stack: list[tuple[List | Mapping, dict[str, Scalar]]] = []
        pending: list[Scalar | None] = []
        documents = 0
        file = self.file
        get_event = loader.get_event
        try:
            while True:
                event = get_event()
                kind = type(event)
                if kind is yaml.ScalarEvent:
                    node: Node = Scalar(file, event.start_mark, event.end_mark, event.value, event.implicit[0])
                    self.last_end = event.end_mark
                    if event.tag is not None:
                        self.tag(event, node)
                    if event.anchor is not None:
                        self.anchors[event.anchor] = node
                elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                    stack.append((self.open(event, len(stack) + 1), {}))
                    pending.append(None)
                    continue
                elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                    node, _ = stack.pop()
                    pending.pop()
                    self.close(node, event)
                elif kind is yaml.AliasEvent:
                    node = self.alias(event, len(stack))
                    self.last_end = event.end_mark
                elif kind is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        self.diagnostics.report(
                            codes.SEVERAL_DOCUMENTS,
                            "a second document begins here, expected one",
                            _point(file, event.start_mark),
                            help="put each network into a file of its own",
                        )
                        raise _Stop
                    continue
                elif kind is yaml.StreamEndEvent:
                    break
                else:
                    continue
                if not stack:
                    root = node
                    continue
                parent, keys = stack[-1]
                if isinstance(parent, List):
                    parent.items.append(node)
                    continue
                key = pending[-1]
                if key is None:
                    pending[-1] = self.key(node)
                else:
                    pending[-1] = None
                    self.enter(parent, keys, key, node)
        finally:
            loader.dispose()
        if root is None or (isinstance(root, Scalar) and root.is_null):
            self.diagnostics.report(
                codes.EMPTY_DOCUMENT,
                "the file is empty, expected a topology",
                Span(file, 1, 1, 1, 1),
                help="begin with `wgnet init`",
            )
            return None
        return root

    def open(self, event: Any, depth: int) -> List | Mapping:
        """Return the collection that an event begins, as yet empty."""
        kind = Mapping if type(event) is yaml.MappingStartEvent else List
        node = kind(self.file, event.start_mark, event.end_mark, [], bool(event.flow_style))
        if event.tag is not None:
            self.tag(event, node)
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # known, but not to be used before it is whole
            self.open_anchors.append((node, event.anchor))
        if depth > MAX_DEPTH:
            place = _point(self.file, event.start_mark)
            self.diagnostics.report(codes.NESTING, f"nested more than {MAX_DEPTH} levels deep", place)
            raise _Stop
        return node

    def close(self, node: List | Mapping, event: Any) -> None:
        """Set where a collection ends; in block style its last item, since the end event follows blank lines.

        The item itself may be an alias, whose node stands elsewhere.
        """
        if node.flow:
            self.last_end = event.end_mark
        node.end = self.last_end or node.end
        if self.open_anchors and self.open_anchors[-1][0] is node:
            self.anchors[self.open_anchors.pop()[1]] = node

    def key(self, node: Node) -> Scalar:
        """Return `node` as a key; anything but a single value cannot be one."""
        if isinstance(node, Scalar):
            return node
        self.diagnostics.report(codes.WRONG_TYPE, f"expected a key, found {node.kind}", _point(node.file, node.start))
        raise _Stop

    def enter(self, parent: Mapping, keys: dict[str, Scalar], key: Scalar, value: Node) -> None:
        """Put an entry into a mapping; the first of two equal keys stays."""
        name = key.text
        if name in keys:
            self.diagnostics.report(
                codes.DUPLICATE_KEY,
                f"key '{name}' stands twice",
                Label(key.span, "again here"),
                Label(keys[name].span, "first here"),
                help="remove one of them",
            )
            self.count_problems(codes.DUPLICATE_KEY, key)
            return
        if name == "<<" and key.plain:
            self.diagnostics.report(
                codes.MERGE_KEY,
                "the merge key '<<' is not part of the format",
                key.span,
                help="give several hosts the same settings with `defaults`",
            )
            self.count_problems(codes.MERGE_KEY, key)
            return
        keys[name] = key
        parent.entries.append((key, value))

    def tag(self, event: Any, node: Node) -> None:
        """Report an explicit tag, `!` alone excepted, which means nothing."""
        if event.tag == "!":
            return
        self.diagnostics.report(
            codes.TAG,
            f"tag '{event.tag}' is not part of the format",
            _point(node.file, event.start_mark),
            help="remove the tag: a value is read by its key's type",
        )
        self.count_problems(codes.TAG, node)

    def count_problems(self, code: Code, node: Node) -> None:
        """End the reading of a text that has too many problems: it is no topology, and each takes time to show."""
        if len(self.diagnostics) - self.reported_before >= MAX_REPORTED:
            self.diagnostics.report(
                code,
                f"more than {MAX_REPORTED} problems in the text, the rest was not read",
                _point(node.file, node.start),
            )
            raise _Stop

    def alias(self, event: Any, depth: int) -> Node:
        """Return the node that an alias stands for, and count what that makes the document grow."""
        anchor = event.anchor
        place = Span(
            self.file,
            event.start_mark.line + 1,
            event.start_mark.column + 1,
            event.end_mark.line + 1,
            event.end_mark.column + 1,
        )
        node = self.anchors.get(anchor)
        if node is None:
            inside = anchor in self.anchors
            self.diagnostics.report(
                codes.UNKNOWN_ALIAS,
                f"alias '*{anchor}' stands inside what it names" if inside else f"alias '*{anchor}' has no anchor",
                place,
            )
            raise _Stop
        size, height = self.measure(node)
        self.aliased += size
        if self.aliased > MAX_ALIASED_NODES:
            self.diagnostics.report(
                codes.ALIAS_BOMB,
                f"the aliases up to here stand for more than {MAX_ALIASED_NODES:,} values",
                place,
                help="give several hosts the same settings with `defaults`",
            )
            raise _Stop
        if depth + height > MAX_DEPTH:
            self.diagnostics.report(codes.NESTING, f"nested more than {MAX_DEPTH} levels deep", place)
            raise _Stop
        return node

    def measure(self, node: Node) -> tuple[int, int]:
        """Return how many nodes `node` stands for, aliases expanded, and how deep it goes."""
        known = self.sizes.get(id(node))
        if known is not None:
            return known
        children: list[Node] = []
        if isinstance(node, List):
            children = node.items
        elif isinstance(node, Mapping):
            children = [value for _, value in node.entries]
        size, height = 1, 0
        for child in children:  # no deeper than MAX_DEPTH, since each alias was measured when it was met
            child_size, child_height = self.measure(child)
            size += child_size
            height = max(height, child_height + 1)
        self.sizes[id(node)] = (size, height)
        return size, height


def _point(file: str, mark: Mark) -> Span:
    return Span(file, mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 2)
