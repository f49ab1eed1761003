"""The printers: an example to the byte, aligned carets, nothing for a thief or a terminal."""

from __future__ import annotations

import io
import json
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label, Severity
from wgnet.diagnostics.escape import cells, escape, mask_source, mask_text
from wgnet.diagnostics.printers import FORMATS, format_diagnostics, print_diagnostics
from wgnet.diagnostics.span import Span

SECRET = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

# The form is an interface: people know it by heart.
OFFICE_BLOCK = """\
error[WG3003]: endpoint of 'fra' lies inside what the tunnel routes
  --> office.yaml:14:15
   |
14 |     endpoint: 192.168.10.5
   |               ^^^^^^^^^^^^ packets to this address would enter the tunnel they carry
   |
  ::: office.yaml:15:17
15 |     advertise: [192.168.10.0/24]
   |                 --------------- because fra advertises this
  help: use an address outside 192.168.10.0/24, or set `site-endpoint`
"""


def span(line: int, column: int, end: int, file: str = "office.yaml", end_line: int | None = None) -> Span:
    return Span(file, line, column, end_line or line, end)


def office() -> Diagnostics:
    diagnostics = Diagnostics()
    diagnostics.sources["office.yaml"] = "\n" * 13 + "    endpoint: 192.168.10.5\n    advertise: [192.168.10.0/24]\n"
    diagnostics.report(
        codes.ENDPOINT_LOOP,
        "endpoint of 'fra' lies inside what the tunnel routes",
        Label(span(14, 15, 27), "packets to this address would enter the tunnel they carry"),
        Label(span(15, 17, 32), "because fra advertises this"),
        help="use an address outside 192.168.10.0/24, or set `site-endpoint`",
    )
    return diagnostics


def one(text: str, at: Span, message: str = "wrong", label: str = "", code: codes.Code = codes.BAD_KEY) -> Diagnostics:
    diagnostics = Diagnostics()
    diagnostics.sources[at.file] = text
    diagnostics.report(code, "wrong", Label(at, label))
    return diagnostics


def shown(diagnostics: Diagnostics, output_format: str = "full", color: bool = False) -> str:
    return "".join(format_diagnostics(diagnostics, output_format, color=color))


def excerpt(diagnostics: Diagnostics) -> tuple[str, str]:
    """Return the source line and the line of carets of a single diagnostic, without the gutter."""
    lines = shown(diagnostics).splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(r" *\d+ \|", line))
    return lines[at].partition("|")[2][1:], lines[at + 1].partition("|")[2][1:]


# --- full ----------


def test_example_of_the_contract_to_the_byte() -> None:
    assert shown(office()) == OFFICE_BLOCK + "\n1 error\n"


def test_colour_adds_nothing_but_colour() -> None:
    colored = shown(office(), color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == shown(office())
    assert colored.startswith("\x1b[1;31merror[WG3003]\x1b[0m\x1b[1m: endpoint of 'fra'")
    assert "\x1b[1;34m14 |\x1b[0m" in colored
    assert colored.count("\x1b[0m") == len(re.findall(r"\x1b\[[1-9]", colored))


@pytest.mark.parametrize(("severity", "sgr"), [(Severity.ERROR, "31"), (Severity.WARNING, "33"), (Severity.NOTE, "36")])
def test_colour_of_each_severity(severity: Severity, sgr: str) -> None:
    diagnostics = Diagnostics()
    diagnostics.report(codes.NO_PUBLIC_KEY, "message", severity=severity)
    for output_format in ("full", "concise"):
        assert shown(diagnostics, output_format, color=True).startswith(f"\x1b[1;{sgr}m{severity.value}[WG5001]")


def test_line_numbers_are_right_aligned() -> None:
    diagnostics = Diagnostics()
    diagnostics.sources["a.yaml"] = "first: 1\n" * 1000
    diagnostics.report(
        codes.DUPLICATE_KEY, "twice", Label(span(1000, 1, 6, "a.yaml")), Label(span(1, 1, 6, "a.yaml"), "x")
    )
    assert shown(diagnostics).splitlines()[1:] == [
        "    --> a.yaml:1000:1",
        "     |",
        "1000 | first: 1",
        "     | ^^^^^",
        "     |",
        "    ::: a.yaml:1:1",
        "   1 | first: 1",
        "     | ----- x",
        "",
        "1 error",
    ]


def test_no_line_ends_in_a_space() -> None:
    text = shown(one("a:   \n\n", span(1, 4, 4)))
    assert all(line == line.rstrip() for line in text.splitlines())


def test_summary_counts_what_is_shown() -> None:
    diagnostics = Diagnostics()
    for message in ("one", "two", "two"):
        diagnostics.report(codes.BAD_PORT, message)
    diagnostics.report(codes.UNREACHABLE_PAIR, "three")
    diagnostics.report(codes.NO_PUBLIC_KEY, "four", severity=Severity.NOTE)
    assert shown(diagnostics).endswith("\n\n2 errors, 1 warning, 1 note\n")
    assert shown(Diagnostics()) == ""


def test_place_without_a_source_keeps_its_label() -> None:
    diagnostics = Diagnostics()
    diagnostics.report(codes.UNREADABLE, "cannot read 'a.yaml'", Label(span(1, 1, 1, "a.yaml"), "permission denied"))
    diagnostics.report(codes.KEY_STORE, "no key store")
    assert shown(diagnostics) == (
        "error[WG5002]: no key store\n\n"
        "error[WG1020]: cannot read 'a.yaml'\n  --> a.yaml:1:1: permission denied\n\n2 errors\n"
    )


@pytest.mark.parametrize(
    ("text", "at", "source", "marks"),
    [
        ("name: 東京x", span(1, 9, 10), "name: 東京x", "          ^"),
        ("name: 東京x", span(1, 7, 9), "name: 東京x", "      ^^^^"),
        ("na\u0308me: x", span(1, 8, 9), "na\u0308me: x", "      ^"),
        ("a:\t\tx", span(1, 5, 6), "a:        x", "          ^"),
        ("a: \x1b[31mx", span(1, 9, 10), r"a: \x1b[31mx", "           ^"),
        ("a: \u202ex", span(1, 4, 5), r"a: \u202ex", "   ^^^^^^"),
        ("a: \ud800x", span(1, 4, 5), r"a: \ud800x", "   ^^^^^^"),
        ("a: b", span(1, 5, 5), "a: b", "    ^"),
        ("a: b", span(1, 90, 95), "a: b", "    ^"),
        ("", span(1, 1, 1), "", "^"),
        ("a: [b,\nc]", span(1, 4, 3, end_line=2), "a: [b,", "   ^^^"),
        ("a: b\r\nc: d\re: f\n", span(3, 4, 5), "e: f", "   ^"),
    ],
)
def test_carets_stand_below_what_they_mark(text: str, at: Span, source: str, marks: str) -> None:
    assert excerpt(one(text, at)) == (source, marks)


@given(
    before=st.text(st.characters(blacklist_characters="\r\n"), max_size=300),
    inside=st.text(st.characters(blacklist_characters="\r\n"), min_size=1, max_size=20),
    after=st.text(st.characters(blacklist_characters="\r\n"), max_size=300),
)
def test_carets_are_aligned_for_any_text(before: str, inside: str, after: str) -> None:
    source, marks = excerpt(one(before + inside + after, span(1, len(before) + 1, len(before + inside) + 1)))
    wanted = escape(mask_source(before + inside + after)[len(before) :][: len(inside)].replace("\t", "    "))
    offset = len(marks) - len(marks.lstrip())
    # Walk to the offset in cells, then skip what combines with the character before.
    index = width = 0
    while width < offset:
        width += cells(source[index])
        index += 1
    assert width == offset
    candidates = [index + skip for skip in range(len(source) - index + 1) if cells(source[index : index + skip]) == 0]
    assert any(source[i:].startswith(wanted.rstrip()) for i in candidates)
    assert len(marks.strip()) == max(1, cells(wanted))


def test_long_line_is_cut_around_the_span_and_cheap() -> None:
    text = "x" * 500_000 + "HERE" + "y" * 500_000
    diagnostics = Diagnostics()
    diagnostics.sources["office.yaml"] = text
    for index in range(300):
        diagnostics.report(codes.BAD_NAME, f"wrong {index}", span(1, 500_001, 500_005))
    begin = time.perf_counter()
    printed = shown(diagnostics)
    assert time.perf_counter() - begin < 5
    assert max(map(len, printed.splitlines())) < 200
    # A run of letters as long as that could be a secret.
    spaced = "x " * 1000 + "HERE" + " y" * 1000
    source, marks = excerpt(one(spaced, span(1, 2001, 2005)))
    assert source.startswith("...") and source.endswith("...")
    assert source[len(marks) - 4 :].startswith("HERE")


def test_span_wider_than_the_excerpt() -> None:
    source, marks = excerpt(one("a: " + "b " * 500, span(1, 4, 1003)))
    assert source.endswith("...")
    assert len(marks) <= len(source)


# --- concise, github, json ----------


def test_concise_is_one_line_each() -> None:
    diagnostics = office()
    diagnostics.report(codes.KEY_STORE, "two\nlines", help="also\nthree")
    assert shown(diagnostics, "concise") == (
        "error[WG5002] two\\nlines\n"
        "office.yaml:14:15: error[WG3003] endpoint of 'fra' lies inside what the tunnel routes\n"
    )


def test_github_command() -> None:
    assert shown(office(), "github") == (
        "::error file=office.yaml,line=14,endLine=14,col=15,endColumn=27,title=WG3003::"
        "endpoint of 'fra' lies inside what the tunnel routes"
        "%0Apackets to this address would enter the tunnel they carry"
        "%0Aoffice.yaml:15:17: because fra advertises this"
        "%0Ahelp: use an address outside 192.168.10.0/24, or set `site-endpoint`\n"
    )


def test_github_escapes_and_severities() -> None:
    diagnostics = Diagnostics()
    diagnostics.report(codes.UNREACHABLE_PAIR, "50% :: x", Span("a,b:c%.yaml", 1, 2, 3, 4))
    diagnostics.report(codes.NO_PUBLIC_KEY, "y", severity=Severity.NOTE)
    assert shown(diagnostics, "github") == (
        "::notice title=WG5001::y\n::warning file=a%2Cb%3Ac%25.yaml,line=1,endLine=3,title=WG3013::50%25 :: x\n"
    )


def test_github_command_cannot_be_forged_by_a_message() -> None:
    diagnostics = Diagnostics()
    diagnostics.report(codes.BAD_NAME, "x\n::set-output name=a::b\r\n::error::z", Span("a\n::error::b", 1, 1, 1, 2))
    assert len(shown(diagnostics, "github").splitlines()) == 1


def test_json_shape() -> None:
    diagnostics = office()
    diagnostics.report(codes.NO_PUBLIC_KEY, "no place", severity=Severity.NOTE)
    placeless, loop = json.loads(shown(diagnostics, "json"))["diagnostics"]
    assert loop == {
        "code": "WG3003",
        "severity": "error",
        "title": codes.ENDPOINT_LOOP.title,
        "message": "endpoint of 'fra' lies inside what the tunnel routes",
        "file": "office.yaml",
        "range": {"start": {"line": 14, "column": 15}, "end": {"line": 14, "column": 27}},
        "label": "packets to this address would enter the tunnel they carry",
        "secondary": [
            {
                "file": "office.yaml",
                "range": {"start": {"line": 15, "column": 17}, "end": {"line": 15, "column": 32}},
                "label": "because fra advertises this",
            }
        ],
        "help": ["use an address outside 192.168.10.0/24, or set `site-endpoint`"],
    }
    assert (placeless["file"], placeless["range"], placeless["severity"]) == (None, None, "note")


def test_json_counts_and_is_whole_without_diagnostics() -> None:
    assert json.loads(shown(Diagnostics(), "json")) == {
        "version": 1,
        "diagnostics": [],
        "errors": 0,
        "warnings": 0,
        "notes": 0,
    }
    diagnostics = office()
    diagnostics.report(codes.UNREACHABLE_PAIR, "w")
    counts = json.loads(shown(diagnostics, "json"))
    assert (counts["errors"], counts["warnings"], counts["notes"]) == (1, 1, 0)


def test_unknown_format_is_a_bug() -> None:
    with pytest.raises(ValueError, match="xml"):
        format_diagnostics(Diagnostics(), "xml")


# --- what must never come through ----------

HOSTILE = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F)]))
HOSTILE += "".join(map(chr, [*range(0x2060, 0x2070), 0xFEFF, 0xD800, 0xDFFF, 0xFFFE, 0xE0001, 0xE0041]))


@pytest.mark.parametrize("output_format", FORMATS)
def test_control_characters_never_come_through(output_format: str) -> None:
    file = f"a{HOSTILE}.yaml"
    diagnostics = Diagnostics()
    diagnostics.sources[file] = f"key: x{HOSTILE}y"
    for index in range(1, len(HOSTILE) + 8):
        diagnostics.report(
            codes.BAD_TEXT,
            f"m{HOSTILE}",
            Label(Span(file, 1, index, 1, index + 1), f"l{HOSTILE}"),
            Label(Span(file, 2, 1, 2, 1), HOSTILE),
            help=HOSTILE,
        )
    text = shown(diagnostics, output_format)
    left = set(text) - {"\n"}
    assert not left & set(HOSTILE)
    assert all(unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp") for char in left)
    text.encode("utf-8")
    assert r"\x1b" in text


def test_stream_that_lacks_a_character() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1", newline="")
    print_diagnostics(one("a: é€", span(1, 4, 6)), "full", stream)
    stream.flush()
    assert "a: é\\u20ac".encode("latin-1") in raw.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        f"    private-key: {SECRET}",
        f'    private-key: "{SECRET}"  # mine',
        f"    public-key: x  # private: {SECRET}",
        f"  - {SECRET}",
        SECRET,
        f"hosts: {{fra: {{public-key: {PUBLIC}, private-key: {SECRET}}}}}",
        f'{{"public-key":"{PUBLIC}","preshared-key":"{SECRET}"}}',
        f"    preshared-key: {{file: {SECRET}}}",
        f"    x-public-key: {SECRET}",
        f"    not-public-key: {SECRET}",
        f"    public-key: [{SECRET}]",
        f"PrivateKey = {SECRET}",
        f"    private-key: {SECRET[:20]}-{SECRET[20:]}",
        f"    private-key: '{SECRET[:10]} {SECRET[10:]}'",
        f"    Private_Key: {SECRET[:30]}",
        f"    psk: &a {SECRET[:-1]}",
        f"    key: {SECRET[:-1]}",
        f"    key: {SECRET[:-4]}",
        f"    key: {SECRET[:-1]}A=",
    ],
)
def test_secret_in_an_excerpt_is_masked(line: str) -> None:
    masked = mask_source(line)
    assert len(masked) == len(line)
    assert PUBLIC in masked or PUBLIC not in line
    assert not any(SECRET[i : i + 8] in masked for i in range(len(SECRET) - 8))
    for column in (1, len(line) // 2, len(line)):
        text = shown(one(line, span(1, column, len(line) + 1)))
        assert not any(SECRET[i : i + 8] in text for i in range(len(SECRET) - 8))


@pytest.mark.parametrize(
    "line",
    [
        f"    public-key: {PUBLIC}",
        f'    "public-key": "{PUBLIC}"',
        f"    next-public-key: '{PUBLIC}'",
        f"{{public-key: {PUBLIC}, next-public-key: {PUBLIC}}}",
        f"    public-key: &k {PUBLIC}",
        f"    public-key: {PUBLIC[:-1]}",
        "    private-key: {file: /etc/wgnet/office.key}",
        "    private-key: {file: /home/someone/projects/infrastructure/wireguard/key}",
        "    private-key: {agent: true}",
        "    preshared-key: false",
        "  preshared-keys: true",
        "    preshared-key: *agreed",
        "    endpoint: a-rather-long-name-of-a-host-in-frankfurt.example.net",
    ],
)
def test_what_is_no_secret_is_shown(line: str) -> None:
    assert mask_source(line) == line


def test_private_key_in_the_place_of_a_public_one() -> None:
    line = f"    public-key: {SECRET}"
    assert SECRET in shown(one(line, span(1, 17, 61)))
    assert SECRET not in shown(one(line, span(1, 17, 61), code=codes.PRIVATE_KEY_IN_TOPOLOGY))


def test_cut_line_shows_no_half_of_a_secret() -> None:
    for shift in range(-60, 220):
        line = "a " * 200 + SECRET + " b" * 200
        text = shown(one(line, span(1, 401 + shift, 402 + shift)))
        assert not any(SECRET[i : i + 6] in text for i in range(len(SECRET) - 6)), shift


def test_colour_and_carets_survive_masking() -> None:
    source, marks = excerpt(one(f"private-key: {SECRET}", span(1, 14, 58)))
    assert source == "private-key: " + "*" * 44
    assert marks == " " * 13 + "^" * 44


@pytest.mark.parametrize("output_format", FORMATS)
def test_key_in_a_message_is_masked(output_format: str) -> None:
    diagnostics = Diagnostics()
    diagnostics.report(
        codes.BAD_CHOICE,
        f"unknown value '{SECRET}'",
        Label(span(1, 1, 2), f"found {SECRET}"),
        Label(span(2, 1, 2), SECRET),
        help=f"remove {SECRET}",
    )
    assert SECRET[:10] not in shown(diagnostics, output_format)


def test_message_may_name_a_public_key_and_a_path() -> None:
    assert mask_text(f"public key '{PUBLIC}' of 'fra'") == f"public key '{PUBLIC}' of 'fra'"
    assert mask_text(f"expected public-key: {PUBLIC}") == f"expected public-key: {PUBLIC}"
    for text in (
        "cannot read /home/someone/projects/infrastructure/wireguard/Topology",
        "cannot read 'projects/Infrastructure/2026/wireguard/network42/TOPOLOGY'",
        f"unknown key '{'k' * 50}'",
    ):
        assert mask_text(text) == text
    assert mask_text(f"public key of '{SECRET}'") == f"public key of '{'*' * 44}'"


@pytest.mark.parametrize(
    "value", [SECRET[:-1], SECRET[:-2], SECRET[:40], SECRET[1:], SECRET + "=", "A" + SECRET, "/" + SECRET, "5f" * 32]
)
def test_mistyped_key_in_a_message_is_masked(value: str) -> None:
    assert (
        mask_text(f"expected true or false, found '{value}'") == f"expected true or false, found '{'*' * len(value)}'"
    )


@pytest.mark.parametrize("output_format", FORMATS)
def test_huge_message_is_shortened(output_format: str) -> None:
    diagnostics = Diagnostics()
    diagnostics.report(codes.UNKNOWN_KEY, "unknown key '" + "k" * 1_000_000 + "' end")
    text = shown(diagnostics, output_format)
    assert len(text) < 6000
    assert "' end" in text
