"""The manual pages say what the program does: every key, option, default and code, and nothing else."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from wgnet.checks.run import check_fleet, check_topology
from wgnet.cli import statusjson
from wgnet.cli.commands import plan
from wgnet.cli.parser import build_parser
from wgnet.diagnostics.codes import CODES
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.model.resolve import resolve_topology
from wgnet.plan.derive import Fleet
from wgnet.syntax import format as table
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.types import Key

CHECKOUT = Path(__file__).parent.parent.parent
MAN = CHECKOUT / "man"
PAGES = ("wgnet.1", "wgnet-topology.5", "wgnet-diagnostics.7")


def page(name: str) -> str:
    return (MAN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_clean(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(MAN / name)], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("name", PAGES)
def test_page_refers_to_the_others(name: str) -> None:
    others = [other.rsplit(".", 1) for other in PAGES if other != name]
    assert [other for other in others if f".Xr {' '.join(other)}" not in page(name)] == []


# --- wgnet-diagnostics(7) --------------------------------------------------------------------------------------------


def test_the_page_of_diagnostics_is_the_one_that_the_table_makes() -> None:
    made = subprocess.run([sys.executable, str(MAN / "diagnostics.py")], capture_output=True, text=True, check=True)
    assert made.stdout == page("wgnet-diagnostics.7"), "run: python man/diagnostics.py > man/wgnet-diagnostics.7"


def test_the_page_of_diagnostics_has_every_code() -> None:
    assert re.findall(r"^\.It Sy (WG\d{4})", page("wgnet-diagnostics.7"), re.MULTILINE) == list(CODES)


# --- wgnet-topology(5) -----------------------------------------------------------------------------------------------

SECTIONS: dict[str, dict[str, Key]] = {
    "TOP OF THE FILE": table.TOP,
    "NETWORK": table.NETWORK.keys,
    "DNS": table.DNS.keys,
    "HOSTS": table.HOST.keys,
    "PRIVATE KEYS": table.PRIVATE_KEY.keys,
    "PEERING": table.RULE.keys,
    "EXPECTATIONS": table.EXPECT.keys,
}


def section(text: str, title: str) -> str:
    """Return what stands under a heading, up to the next one."""
    found = re.search(rf"^\.S[hs] {re.escape(title)}\n(.*?)(?=^\.S[hs] |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section '{title}'"
    return found.group(1)


def items(text: str) -> Iterator[tuple[str, str]]:
    """Yield the heads and bodies of a list's items."""
    parts = re.split(r"^\.It (.*)\n", text.split("\n.El")[0], flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


KEYS = [(title, key) for title, keys in SECTIONS.items() for key in keys.values()]


@pytest.mark.parametrize("title", SECTIONS)
def test_section_lists_the_keys_of_the_table_in_its_order(title: str) -> None:
    heads = [head.split()[1] for head, _ in items(section(page("wgnet-topology.5"), title))]
    assert heads == list(SECTIONS[title])


@pytest.mark.parametrize(("title", "key"), KEYS, ids=[f"{title}-{key.name}" for title, key in KEYS])
def test_key_has_its_type_default_and_meaning(title: str, key: Key) -> None:
    head, body = next(
        (head, body)
        for head, body in items(section(page("wgnet-topology.5"), title))
        if head.split()[:2] == ["Cm", key.name]
    )
    assert head == f"Cm {key.name} Pq {key.type.name}"
    stated = re.findall(r"^Default: (.*)\.$", body, re.MULTILINE)
    assert stated == ([key.default] if key.default else [])
    assert body.startswith("Required.\n") is key.required
    assert body.replace("Required.", "").strip()


def test_the_limits_in_the_page_are_the_programs() -> None:
    from wgnet.model.topology import DEFAULT_MARK
    from wgnet.plan.derive import PRIORITY_LAST
    from wgnet.routing.links import MAX_LINKS
    from wgnet.syntax.events import MAX_BYTES

    text = page("wgnet-topology.5")
    assert f"at most {MAX_LINKS:,} links" in text
    assert f"at most {MAX_BYTES // 2**20} MiB" in text
    assert f"{PRIORITY_LAST}: not from all fwmark {DEFAULT_MARK:#x} lookup {DEFAULT_MARK}" in text
    assert f"{PRIORITY_LAST - 1}: from all lookup main suppress_prefixlength 0" in text


TOPOLOGIES = [
    block
    for block in re.findall(
        r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", page("wgnet-topology.5"), re.MULTILINE | re.DOTALL
    )
    if block.startswith("wgnet: 1")
]


def test_there_are_examples() -> None:
    assert len(TOPOLOGIES) >= 4


@pytest.mark.parametrize("text", TOPOLOGIES, ids=lambda text: re.search(r"name: (\S+)", text).group(1))  # type: ignore[union-attr]
def test_example_has_no_problem_but_the_keys_that_are_yet_to_be_made(text: str) -> None:
    diagnostics = Diagnostics()
    spec = parse_specification(text.encode(), "example.yaml", diagnostics)
    assert spec is not None
    routing = check_topology(resolve_topology(spec, diagnostics), diagnostics, missing_keys=Severity.NOTE)
    assert routing is not None
    check_fleet(Fleet((routing,)), diagnostics)
    assert [d.message for d in diagnostics if d.severity is not Severity.NOTE] == []


# --- wgnet(1) --------------------------------------------------------------------------------------------------------


def commands(parser: argparse.ArgumentParser, name: str = "wgnet") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command that can be run, with its words."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not subparsers:
        yield name, parser
    for action in subparsers:
        for word, below in action.choices.items():
            yield from commands(below, f"{name} {word}")


COMMANDS = dict(commands(build_parser()))


def options_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the options and operands of a parser as the manual writes them, and what they take."""
    found: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.dest == "files":
            continue
        if action.help is argparse.SUPPRESS:
            continue  # for systemd's units, not for people
        taken = "" if action.nargs == 0 else str(action.metavar)
        found[", ".join(action.option_strings) or taken] = taken
    return found


def options_in(text: str) -> dict[str, str]:
    """Return the options and operands that a section of the manual lists."""
    found: dict[str, str] = {}
    for head, body in items(text):
        assert body.strip(), head
        if not head.startswith(("Fl ", "Ar ")):
            continue
        taken = re.search(r"Ar (\S+)$", head)
        names = [f"-{name}" for name in re.findall(r"Fl (\S+)", head)]
        found[", ".join(names) or head.removeprefix("Ar ")] = taken.group(1) if taken else ""
    return found


def shared(parser: argparse.ArgumentParser, text: str) -> dict[str, str]:
    """Return the options that the section of a command includes by name, which must be those that it has."""
    own = options_of(parser)
    result: dict[str, str] = {}
    for title, sign, words in (
        ("Common options", "--root", "common options"),
        ("Key store options", "--keys", "key store options"),
    ):
        included = any(sign in name for name in own)
        assert (f"the {words}" in text) is included
        if included:
            result |= options_in(section(page("wgnet.1"), title))
    return result


def test_every_command_has_a_section_and_no_other_has() -> None:
    titles = re.findall(r"^\.Ss (wgnet .*)$", page("wgnet.1"), re.MULTILINE)
    assert titles == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_section_of_a_command_lists_its_options(name: str) -> None:
    text = section(page("wgnet.1"), name)
    own = options_in(text)
    included = shared(COMMANDS[name], text)
    assert own.keys() & included.keys() == set()
    assert own | included == options_of(COMMANDS[name])


def test_options_of_the_program_itself() -> None:
    listed = options_in(section(page("wgnet.1"), "OPTIONS"))
    assert listed.pop("-h, --help") == ""
    assert listed == options_of(build_parser())


@pytest.mark.parametrize("name", COMMANDS)
def test_choices_of_an_option_stand_in_the_manual(name: str) -> None:
    text = page("wgnet.1")
    bodies = dict(items(section(text, name))) | dict(items(section(text, "Common options")))
    bodies |= dict(items(section(text, "OPTIONS")))
    for action in COMMANDS[name]._actions:
        if action.choices is None:
            continue
        body = next(body for head, body in bodies.items() if f"Fl -{action.dest.replace('_', '-')} " in head + " ")
        if body == "As above.\n":
            body = next(body for head, body in items(section(text, "OPTIONS")) if "Fl -color" in head)
        missing = [choice for choice in action.choices if not re.search(rf"^\.Cm {choice}\b", body, re.MULTILINE)]
        assert missing == [], action.dest


def test_exit_statuses_are_those_of_the_help() -> None:
    from wgnet.cli.parser import EXIT_STATUS

    told = re.findall(r"^ +(\d+) ", EXIT_STATUS, re.MULTILINE)
    listed = [head for head, _ in items(section(page("wgnet.1"), "EXIT STATUS"))]
    assert told
    assert [status for status in told if status not in listed] == []


@pytest.mark.parametrize(("heading", "module"), [("plan", plan), ("status", statusjson)])
def test_the_json_of_a_command_is_described(heading: str, module: ModuleType) -> None:
    """Each key that the module's own description has, which stands beside the code that makes it."""
    shape = (module.__doc__ or "").partition("{")[2].rpartition("}")[0]
    keys = set(re.findall(r'"([a-z_]+)"(?!\|)[:,)\]} ]', re.sub(r'"[a-z-]+"(\|("[a-z-]+"|\.\.\.))+', "", shape)))
    described = page("wgnet.1").partition(f".It Cm {heading} --format json")[2].partition(".It Cm")[0]
    assert len(keys) > 10
    assert sorted(keys - {"version"} - set(re.findall(r"[a-z_]+", described))) == []
