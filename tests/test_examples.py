"""Every example is sound, proves what it says, and gives nothing away; together they show the whole format."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_keys import EXAMPLES, fill, next_private_key, private_key
from example_trees import examples

from wgnet.cli.main import main
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.model.resolve import resolve_topology
from wgnet.model.topology import Topology
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.events import parse_nodes
from wgnet.syntax.format import DEFAULTS, HOST, TOP
from wgnet.syntax.nodes import List, Mapping, Node, Scalar
from wgnet.syntax.types import ChoiceType, Key, ListType, MapType, SectionType, Type, UnionType

FILES = sorted(EXAMPLES.glob("*.yaml"))
DOCUMENTATION = [
    ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def name_of(path: Path) -> str:
    return path.stem


def topology_of(path: Path) -> Topology:
    diagnostics = Diagnostics()
    specification = parse_specification(path.read_bytes(), path.name, diagnostics)
    assert specification is not None
    topology = resolve_topology(specification, diagnostics)
    assert len(diagnostics) == 0
    return topology


@pytest.mark.parametrize("name", examples())
def test_check_finds_nothing_to_say(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--strict", "--diagnostics", "concise", *map(str, examples()[name])]) == 0
    said = capsys.readouterr()
    # That a host is between two keys is no problem, and is told.
    rotating = [
        host.name for path in examples()[name] for host in topology_of(path).hosts if host.next_public_key is not None
    ]
    lines = said.out.splitlines()
    assert len(lines) == len(rotating)
    for line, host in zip(lines, rotating, strict=True):
        assert f"note[WG5007] '{host}' is between two keys" in line
    assert said.err == ""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_expectation_can_fail(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text()
    before, found, lines = text.partition("\nexpect:\n")
    assert found, "an example proves its point"
    expectations = [line for line in lines.split("\n") if line.startswith("  - {")]
    assert expectations
    for line in expectations:
        turned = line.replace(", reachable: false}", "}") if "reachable" in line else line[:-1] + ", reachable: false}"
        assert turned != line
        changed = tmp_path / path.name
        changed.write_text(f"{before}\nexpect:\n{turned}\n")
        assert main(["check", "--format", "concise", str(changed)]) == 1
        assert "error[WG3016]" in capsys.readouterr().out


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_keys_are_those_of_the_seed(path: Path) -> None:
    topology = topology_of(path)
    for host in topology.hosts:
        assert host.public_key == private_key(topology.name, host.name).public()
        if host.next_public_key is not None:
            assert host.next_public_key == next_private_key(topology.name, host.name).public()
    assert fill(path.read_text()) == path.read_text()


def test_no_key_is_used_twice() -> None:
    keys = [
        key
        for path in FILES
        for host in topology_of(path).hosts
        for key in (host.public_key, host.next_public_key)
        if key is not None
    ]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_endpoints_are_nobody_s(path: Path) -> None:
    topology = topology_of(path)
    endpoints = [one for host in topology.hosts for one in (*host.endpoint, *host.site_endpoint)]
    endpoints += [one for rule in topology.rules for given in rule.endpoint.values() for one in given]
    for endpoint in endpoints:
        if endpoint.address is None:
            assert endpoint.host.endswith(".example.net")
        else:
            assert any(endpoint.address in prefix for prefix in DOCUMENTATION)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_text_is_fit_to_read(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert text.isascii() or "é" in text
    assert max(len(line) for line in text.split("\n") if "public-key" not in line) <= 120
    assert not re.search(r"[ \t]$", text, re.MULTILINE)


# --- the whole format ------------------------------------------------------------------------------------------------


def section_name(section: SectionType) -> str:
    """Return the name that a section's keys go by: what `defaults` says is said of hosts."""
    return HOST.name if section is DEFAULTS else section.name


def all_of(kind: Type) -> Iterator[str]:
    """Yield every key and every word that a type knows."""
    if isinstance(kind, SectionType):
        for key in kind.keys.values():
            yield f"{section_name(kind)}: {key.name}"
            yield from all_of(key.type)
    elif isinstance(kind, ListType):
        yield from all_of(kind.item)
    elif isinstance(kind, MapType):
        yield from all_of(kind.value)
    elif isinstance(kind, UnionType):
        for option in kind.options:
            yield from all_of(option)
    elif isinstance(kind, ChoiceType):
        for word in kind.choices:
            yield f"{kind.name}: {word}"


def used_in(kind: Type, node: Node) -> Iterator[str]:
    """Yield every key and word of a type that a node uses."""
    if isinstance(kind, UnionType):
        chosen = kind.pick(node)
        assert chosen is not None
        yield from used_in(chosen, node)
    elif isinstance(kind, SectionType) and isinstance(node, Mapping):
        for name, value in node.entries:
            if name.text in kind.keys:
                yield f"{section_name(kind)}: {name.text}"
                yield from used_in(kind.keys[name.text].type, value)
    elif isinstance(kind, ListType):
        for item in node.items if isinstance(node, List) else [node]:
            yield from used_in(kind.item, item)
    elif isinstance(kind, MapType) and isinstance(node, Mapping):
        for _, value in node.entries:
            yield from used_in(kind.value, value)
    elif isinstance(kind, ChoiceType) and isinstance(node, Scalar):
        yield f"{kind.name}: {node.text}"


def test_together_the_examples_use_the_whole_format() -> None:
    whole = SectionType("the file", TOP, dict, {})
    used = set()
    for path in FILES:
        root = parse_nodes(path.read_bytes(), path.name, Diagnostics())
        assert root is not None
        used |= set(used_in(whole, root))
    assert sorted(set(all_of(whole)) - used) == []


def test_a_key_that_no_example_uses_would_be_missed() -> None:
    section = SectionType("s", {"new": Key(name="new", type=DEFAULTS, doc="")}, dict, {})
    assert "s: new" in set(all_of(section))
