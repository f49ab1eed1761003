"""The pages of `wgnet explain`: one for every code, and examples that draw what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from wgnet.cli.inputs import read_fleet
from wgnet.diagnostics.codes import CODES
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.explanations import Explanation, explain, explain_all
from wgnet.diagnostics.explanations.explanation import OFFICE, change
from wgnet.diagnostics.severity import Severity
from wgnet.managers.dispatch import check_plans
from wgnet.model.resolve import resolve_topology
from wgnet.syntax.decode import parse_specification

PAGES = explain_all()
# `check` draws none of these: they are about files that are not there or not read, or keys that `inventory` reads.
WITHOUT_EXAMPLE = {"WG1020", "WG1021", "WG1022", "WG2037"}


def name_of(page: Explanation) -> str:
    return page.code.name


def test_every_code_has_one_page() -> None:
    assert [page.code.name for page in PAGES] == list(CODES)
    assert all(explain(name).code is code for name, code in CODES.items())  # type: ignore[union-attr]


def test_no_page_without_a_code() -> None:
    from wgnet.diagnostics.explanations import keys, managers, meaning, shape, system, text

    pages = [page for module in (text, shape, meaning, managers, keys, system) for page in module.PAGES]
    assert len(pages) == len(CODES)


@pytest.mark.parametrize("name", ["WG3003", "wg3003", "3003", " Wg3003 "])
def test_name_of_a_code_in_any_form(name: str) -> None:
    page = explain(name)
    assert page is not None
    assert page.code.name == "WG3003"


@pytest.mark.parametrize("name", ["", "WG", "WG9999", "WG0", "x", "WG30030", "WGWG3003"])
def test_no_such_code(name: str) -> None:
    assert explain(name) is None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_is_whole(page: Explanation) -> None:
    sentences = re.findall(r"[.?!](?:\s|$)", page.meaning)
    assert 1 <= len(sentences) <= 5
    assert page.meaning.endswith(".")
    assert "  " not in page.meaning
    assert not page.way_out or page.way_out.endswith(".")
    drawn_by_a_file = page.code.name[2] in "1234" and page.code.name not in WITHOUT_EXAMPLE
    assert bool(page.example_files()) is bool(page.fixed_files()) is drawn_by_a_file
    assert page.example_files() or page.way_out
    assert page.example_files() != page.fixed_files() or not drawn_by_a_file


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_shown_is_safe_for_a_terminal(page: Explanation) -> None:
    for text in (page.example_text(), page.fixed_text(), page.meaning, page.way_out):
        assert text.replace("\n", "").isprintable()
    for source, text in ((page.example, page.example_text()), (page.fixed, page.fixed_text())):
        assert bool(text) is (source is not None and not callable(source))
    assert page.way_out or not callable(page.example)


def draw(files: dict[str, bytes]) -> Diagnostics:
    diagnostics = Diagnostics()
    for name, data in files.items():
        specification = parse_specification(data, name, diagnostics)
        if specification is not None and not diagnostics.has_errors:
            resolve_topology(specification, diagnostics)
    return diagnostics


@pytest.mark.parametrize("page", [page for page in PAGES if page.code.name[2] in "12"], ids=name_of)
def test_example_of_text_and_shape_draws_its_code_alone(page: Explanation) -> None:
    if page.example is None:
        assert page.code.name in WITHOUT_EXAMPLE
        return
    assert {diagnostic.code for diagnostic in draw(page.example_files())} == {page.code}


@pytest.mark.parametrize("page", [page for page in PAGES if page.fixed is not None], ids=name_of)
def test_mended_example_is_sound_in_itself(page: Explanation) -> None:
    assert [diagnostic.message for diagnostic in draw(page.fixed_files())] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.code.name[2] in "34"], ids=name_of)
def test_example_of_the_meaning_has_no_error_of_shape(page: Explanation) -> None:
    assert all(diagnostic.code is page.code for diagnostic in draw(page.example_files()))


def check(files: dict[str, bytes], folder: Path) -> Diagnostics:
    """Do with the files what `wgnet check` does; their hosts have all keys."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    diagnostics = Diagnostics()
    fleet = read_fleet([str(folder / name) for name in files], diagnostics, missing_keys=Severity.ERROR)
    if fleet is not None:
        check_plans(fleet, diagnostics)
    return diagnostics


@pytest.mark.parametrize("page", [page for page in PAGES if page.example is not None], ids=name_of)
def test_example_draws_exactly_its_code_in_check(page: Explanation, tmp_path: Path) -> None:
    found = check(page.example_files(), tmp_path)
    assert {diagnostic.code.name for diagnostic in found} == {page.code.name}
    assert {diagnostic.severity for diagnostic in found} == {page.code.severity}


@pytest.mark.parametrize("page", [page for page in PAGES if page.fixed is not None], ids=name_of)
def test_mended_example_draws_nothing_in_check(page: Explanation, tmp_path: Path) -> None:
    assert [diagnostic.message for diagnostic in check(page.fixed_files(), tmp_path)] == []


def test_change_refuses_what_it_cannot_find() -> None:
    with pytest.raises(ValueError, match="0 times"):
        change(OFFICE, ("absent", "x"))
    with pytest.raises(ValueError, match="2 times"):
        change(OFFICE, ("addresses", "x"))


def test_nobody_loads_the_texts_who_does_not_ask() -> None:
    program = (
        "import sys, wgnet.cli.terminal, wgnet.syntax.decode\n"
        "import wgnet.diagnostics.explanations as e; e.explain('WG3003')\n"
        "print(*sorted(m.rpartition('.')[2] for m in sys.modules if '.explanations.' in m or '.printers.' in m))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=None)
    assert done.stdout.split() == ["explanation", "meaning"]
