"""Whatever is given to wgnet draws diagnostics, and never an exception."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from example_keys import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from property.networks import flow
from wgnet.checks.run import check_fleet, check_topology
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.printers import format_diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.format import TOP
from wgnet.syntax.types import ChoiceType, ListType, MapType, SectionType, Type, UnionType

# The sixty shops would only make it slow.
TEXTS = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.yaml")) if path.stem != "two-hubs"]
#: A try costs little here.
_MANY = settings(max_examples=5 * settings.default.max_examples)  # type: ignore[union-attr]
#: Characters that turn the reading direction (Unicode's bidirectional classes).
_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
_MANAGERS = Managers(Templates())


def digest(data: bytes) -> Diagnostics:
    """Take bytes through every stage that their diagnostics allow."""
    diagnostics = Diagnostics()
    specification = parse_specification(data, "hostile.yaml", diagnostics)
    if specification is not None:
        topology = resolve_topology(specification, diagnostics)
        routing = check_topology(topology, diagnostics, missing_keys=Severity.NOTE)
        if routing is not None and not diagnostics.has_errors:
            fleet = Fleet((routing,))
            check_fleet(fleet, diagnostics)
            for name in fleet.host_names():
                for plan in fleet.plan_host(name).interfaces:
                    _MANAGERS.check(plan, diagnostics)
                    if not diagnostics.has_errors and plan.host.public_key is not None:
                        _MANAGERS.render(plan, InterfaceSecrets(), diagnostics)
    else:
        assert diagnostics.has_errors
    for style in ("full", "concise", "json", "github"):
        # A file's control characters reach no terminal.
        text = "".join(format_diagnostics(diagnostics, style))
        for character in set(text) - {"\n"}:
            assert unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
            assert unicodedata.bidirectional(character) not in _TURNS
    return diagnostics


@_MANY
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    digest(data)


@_MANY
@given(st.text(max_size=400))
def test_any_text(text: str) -> None:
    digest(text.encode("utf-8", "surrogatepass"))


_SPACES = (
    b"\t",
    b"\n",
    b"  ",
    b": ",
    b"- ",
    b"? ",
    b"&a ",
    b"!!int ",
    b"---\n",
    b"%YAML 1.1\n",
    b"|\n",
    b"\x00",
    b"\xff",
)
_WORDS = rb"""[ ] { } *a <<: ' " # all 0.0.0.0/0 ::/0 true off auto 1e3 ~ null mesh hub any 0 -1 4294967295""".split()
_SNIPPETS = st.sampled_from((*_SPACES, *_WORDS, b"\x1b[31m", "\u2028\u202e".encode()))


@st.composite
def mutants(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Draw an example in which some bytes were cut out, put in, doubled or moved."""
    data = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data = data[:start] + data[end:]
        elif kind == 1:
            data = data[:start] + draw(st.one_of(_SNIPPETS, st.binary(max_size=3))) + data[end:]
        elif kind == 2:
            data = data[:end] + data[start:end] + data[end:]
        else:
            place = draw(st.integers(0, len(data)))
            data = data[:place] + data[start:end] + data[place:]
    return data


@_MANY
@given(mutants())
def test_examples_with_slips(data: bytes) -> None:
    digest(data)


_TEXTS = [
    "a",
    "b",
    "c",
    "all",
    "mesh",
    "any",
    "true",
    "false",
    "off",
    "auto",
    "main",
    "1",
    "25",
    "252",
    "1.42",
    "1280",
    "networkd",
    "networkmanager",
    "wg-quick",
    "external",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.0/24",
    "fd00::1",
    "fd00::/64",
    "0.0.0.0/0",
    "::/0",
    "a.example.net",
    "[fd00::9]:1",
    "192.0.2.1:51820",
    "~.",
    "x.example.net",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=",
    "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
]
_LEAVES = st.one_of(st.sampled_from(_TEXTS), st.integers(-1, 2**33), st.booleans(), st.text(max_size=5))
_NAMES = st.sampled_from(("a", "b", "c", "all", "x-own", "d.e"))


def values(kind: Type, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return what may stand for a type: mostly of its shape, sometimes anything."""
    if depth > 6:
        return _LEAVES
    shape: st.SearchStrategy[Any] = _LEAVES
    if isinstance(kind, SectionType):
        shape = st.fixed_dictionaries(
            {key.name: values(key.type, depth + 1) for key in kind.keys.values() if key.required},
            optional={key.name: values(key.type, depth + 1) for key in kind.keys.values() if not key.required},
        )
    elif isinstance(kind, ListType):
        shape = st.lists(values(kind.item, depth + 1), max_size=4)
    elif isinstance(kind, MapType):
        shape = st.dictionaries(_NAMES, values(kind.value, depth + 1), max_size=4)
    elif isinstance(kind, UnionType):
        shape = st.one_of([values(option, depth + 1) for option in kind.options])
    elif isinstance(kind, ChoiceType):
        shape = st.sampled_from(sorted(kind.choices))
    return st.one_of(shape, shape, shape, _LEAVES) if depth else shape


_TREES = values(SectionType("the file", {**TOP}, dict, {}))


@_MANY
@given(_TREES)
def test_trees_of_the_format_s_keys(tree: dict[str, Any]) -> None:
    tree["wgnet"] = 1
    digest(flow(tree).encode("utf-8", "surrogatepass"))
