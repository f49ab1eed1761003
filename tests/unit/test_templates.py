"""Templates: the package's and a person's own, and values that can add nothing to a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wgnet
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.managers.escape import (
    keyfile_list,
    keyfile_value,
    nft_identifier,
    nft_string,
    single_line,
    unit_name,
    unit_value,
)
from wgnet.managers.templates import TemplateProblem, Templates

SECRET = "sx/iE5U7CYgtDiS3LSJmiWSWIaqvG33ApNzv9X8CPYg="
HEADER = "# Written by wgnet from the network 'office' for the host 'fra'. "
NAMES = st.text("abcXYZ019_=+.-", min_size=1, max_size=15)
LINES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40)


def own(folder: Path, text: str | bytes, name: str = "header.j2") -> Templates:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Templates(folder)


def problem(templates: Templates, name: str = "header.j2") -> TemplateProblem:
    with pytest.raises(TemplateProblem) as caught:
        templates.render(name, network="office", host="fra", secret=SECRET)
    return caught.value


# --- templates


def test_package_templates_are_found(tmp_path: Path) -> None:
    assert Templates().render("header.j2", network="office", host="fra").startswith(HEADER)
    assert Templates(tmp_path / "absent").render("header.j2", network="office", host="fra").startswith(HEADER)


def test_package_templates_of_an_installed_package_are_found(tmp_path: Path) -> None:
    package = Path(wgnet.__file__).parent
    installed = tmp_path / "wgnet"
    shutil.copytree(package, installed, ignore=shutil.ignore_patterns("__pycache__"))
    # A checkout has beside the package what the wheel carries inside of it; the wheel itself has nothing beside.
    if not (installed / "templates").exists():
        shutil.copytree(package.parent / "templates", installed / "templates")
    (installed / "templates/header.j2").write_text("installed {{ host }}")
    code = "from wgnet.managers.templates import Templates; print(Templates().render('header.j2', host='fra'))"
    done = subprocess.run([sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(tmp_path)}, capture_output=True)
    assert done.stdout == b"installed fra\n", done.stderr


def test_own_template_replaces_one_file_alone(tmp_path: Path) -> None:
    templates = own(tmp_path, "# {{ network }}: ours\n")
    text = templates.render(
        "extras/masquerade.nft.j2", network="office", host="fra", table="t", name='"w"', matches=[""]
    )
    assert text.startswith("# office: ours\n")
    assert "table inet t {" in text


def test_jinja_is_imported_only_when_a_file_is_rendered() -> None:
    code = "import sys; from wgnet.managers.templates import Templates; Templates(); print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(wgnet.__file__).parents[1])
    assert done.stdout == b"False\n", done.stderr


def test_mistake_in_the_package_is_a_bug() -> None:
    with pytest.raises(Exception, match="'network' is undefined") as caught:
        Templates().render("header.j2", host="fra")
    assert not isinstance(caught.value, TemplateProblem)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\n{{ host }\n", 2, "cannot be rendered: unexpected '}'"),
        ("a\n\n{{ hots }}\n", 3, "cannot be rendered: 'hots' is undefined"),
        ("{% if host %}\n", 1, "cannot be rendered: Unexpected end of template"),
        ("\n{{ 1 / 0 }}\n", 2, "cannot be rendered: division by zero"),
        ("\n{{ host + 1 }}\n", 2, "cannot be rendered: can only concatenate str"),
        ("\n{% include 'absent.j2' %}\n", 2, "there is no template 'absent.j2'"),
        ("{% include '../secret.j2' %}\n", 1, "there is no template '../secret.j2'"),
        ("{{ host.__class__.__mro__ }}\n", 1, "access to attribute '__class__' of 'str' object is unsafe"),
        (b"a\n\xff\n", 0, "expected UTF-8"),
    ],
)
def test_mistake_in_an_own_template_has_its_place(tmp_path: Path, text: str | bytes, line: int, said: str) -> None:
    (tmp_path / "secret.j2").write_text("outside")
    folder = tmp_path / "templates"
    found = problem(own(folder, text))
    assert (found.file, found.line) == (str(folder / "header.j2"), line)
    assert said in found.message
    assert not found.message.endswith(".")
    # The frames of the first exception hold the values, secrets among them.
    assert line == 0 or found.__context__ is None
    diagnostics = Diagnostics()
    found.report(diagnostics)
    (item,) = diagnostics
    assert item.code is codes.TEMPLATE
    if line:
        assert item.primary is not None
        assert (item.primary.span.file, item.primary.span.line) == (found.file, line)
        assert diagnostics.sources[found.file] == text
    else:
        assert found.file in item.message


def test_mistake_behind_an_own_template_is_told_of_the_own(tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    templates = own(folder, "\n{% include 'networkd/netdev.j2' %}\n", "extras/sysctl.j2")
    found = problem(templates, "extras/sysctl.j2")
    assert (found.file, found.line) == (str(folder / "extras/sysctl.j2"), 2)


def test_message_about_an_own_template_hides_secrets(tmp_path: Path) -> None:
    found = problem(own(tmp_path, "{{ {}[secret] }}"))
    assert SECRET not in found.message
    assert "****" in found.message
    assert SECRET not in repr(found)


def test_own_template_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "header.j2").symlink_to(tmp_path / "absent")
    assert problem(Templates(tmp_path)).message == "points to a file that does not exist"
    (tmp_path / "header.j2").unlink()
    (tmp_path / "header.j2").mkdir()
    assert problem(Templates(tmp_path)).message == "cannot be read: is a directory"


def test_layout_keeps_lines_as_they_stand(tmp_path: Path) -> None:
    templates = own(tmp_path, "a\n  {% if host %}\n<{{ host }}>\n  {% endif %}\n\n", "x.j2")
    assert templates.render("x.j2", host="a & b", name="taken too") == "a\n<a & b>\n\n"


# --- values


@given(LINES)
def test_single_line_is_the_value(text: str) -> None:
    assert single_line(text) == text


@pytest.mark.parametrize("escape", [single_line, unit_value, keyfile_value, unit_name, nft_identifier, nft_string])
@pytest.mark.parametrize("character", [chr(point) for point in (*range(32), 127)])
def test_no_value_adds_a_line(escape: object, character: str) -> None:
    assert callable(escape)
    with pytest.raises(ValueError, match="control characters") as caught:
        escape(f"{SECRET}{character}")
    assert SECRET not in str(caught.value)


@given(LINES)
def test_unit_value_reads_back(text: str) -> None:
    value = unit_value(text)
    # systemd joins a line with the next where a backslash that is not itself escaped ends it.
    escaped = False
    for character in value:
        escaped = character == "\\" and not escaped
    assert not escaped
    assert value.strip() == text.strip()


@given(LINES)
def test_keyfile_value_reads_back(text: str) -> None:
    value = keyfile_value(text)
    assert value == value.strip(" ")
    assert unescape(value) == text


@given(st.lists(LINES, max_size=4))
def test_keyfile_list_reads_back(items: list[str]) -> None:
    found, piece = [], ""
    pairs = iter(keyfile_list(items))
    for character in pairs:
        if character == "\\":
            piece += character + next(pairs)
        elif character == ";":
            found.append(unescape(piece.replace("\\;", ";")))
            piece = ""
        else:
            piece += character
    assert (found, piece) == (items, "")


def unescape(value: str) -> str:
    """Undo a GKeyFile's escapes: `\\s` is a space, `\\\\` a backslash; no other is expected."""
    text = ""
    characters = iter(value)
    for character in characters:
        text += {"s": " ", "\\": "\\"}[next(characters)] if character == "\\" else character
    return text


def test_unit_name_is_that_of_systemd_escape() -> None:
    names = ["wg0", "wg-0", "a.b", ".a", "..", "a=b", "a+b_c", "x y", "é", "a:b", "a/b".replace("/", "-")]
    done = subprocess.run(["systemd-escape", *names], capture_output=True, text=True, check=True)
    assert [unit_name(name) for name in names] == done.stdout.split()


@given(NAMES, NAMES)
def test_nft_identifier_is_injective(first: str, second: str) -> None:
    assert (nft_identifier(first) == nft_identifier(second)) == (first == second)
    assert all(character.isalnum() or character == "_" for character in nft_identifier(first))


@pytest.mark.parametrize("text", ['a"', "a\\", "wg*"])
def test_nft_string_refuses_what_it_cannot_escape(text: str) -> None:
    assert nft_string("wg-0.=+") == '"wg-0.=+"'
    with pytest.raises(ValueError, match="no escape"):
        nft_string(text)
