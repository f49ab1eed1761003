"""Make wgnet-diagnostics(7): `python man/diagnostics.py > man/wgnet-diagnostics.7`.

Input: the table of codes and their pages. Output: mdoc on stdout. The committed page equals it; a test holds the two
together.
"""

from __future__ import annotations

import io
import re
import sys

from wgnet.checks.run import check_topology
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.explanations import Explanation, explain, explain_all
from wgnet.diagnostics.printers import print_diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.model.resolve import resolve_topology
from wgnet.syntax.decode import parse_specification

#: The date in the page's foot: of the last change to its own words.
DATE = "November 22, 2026"

_SECTIONS = {
    "1": "The text and its YAML",
    "2": "The shape of a value",
    "3": "The meaning across the network",
    "4": "What a manager cannot express",
    "5": "Keys",
    "6": "The system: files, folders, templates",
}

_HEAD = rf""".\" Made by man/diagnostics.py from the table of codes. Edit wgnet/diagnostics/explanations instead.
.Dd {DATE}
.Dt WGNET-DIAGNOSTICS 7
.Os wgnet
.Sh NAME
.Nm wgnet-diagnostics
.Nd the diagnostics of wgnet, by their codes
.Sh DESCRIPTION
Every problem that
.Xr wgnet 1
reports has a code, a severity, a message, and usually a place in a file and a way out.
All problems of the files that were read are reported in one run.
.Bd -literal -offset indent
@EXAMPLE@
.Ed
.Pp
An
.Em error
keeps files from being made, a
.Em warning
tells of something that is probably not meant, a
.Em note
of something that is yet to be done.
A code is never reused and never changes its meaning.
.Ql wgnet explain CODE
shows what stands here, with a topology that draws the code and the same one mended.
"""

_TAIL = r""".Sh SEE ALSO
.Xr wgnet 1 ,
.Xr wgnet-topology 5
"""


def make_page() -> str:
    """Return the whole manual page."""
    parts = [_HEAD.replace("@EXAMPLE@", _example())]
    section = ""
    for page in explain_all():
        digit = page.code.name[2]
        if digit != section:
            if section:
                parts.append(".El\n")
            section = digit
            parts.append(f".Sh WG{digit}XXX: {_SECTIONS[digit].upper()}\n.Bl -tag -width Ds\n")
        parts.append(_item(page))
    parts.append(".El\n")
    parts.append(_TAIL)
    return "".join(parts)


def _example() -> str:
    """Return what `wgnet check` prints for the example of WG3001."""
    page = explain("WG3001")
    assert page is not None
    diagnostics = Diagnostics()
    for name, data in page.example_files().items():
        specification = parse_specification(data, name, diagnostics)
        assert specification is not None
        check_topology(resolve_topology(specification, diagnostics), diagnostics, missing_keys=Severity.NOTE)
    text = io.StringIO()
    print_diagnostics(diagnostics, "full", text, False)
    return "\n".join(_text(line) for line in text.getvalue().rstrip("\n").split("\n")[:-2]).rstrip("\n")


def _item(page: Explanation) -> str:
    severity = "" if page.code.severity is Severity.ERROR else f" Pq {page.code.severity.value}"
    lines = [f".It Sy {page.code.name}{severity}", f"{_text(page.code.title[:1].upper() + page.code.title[1:])}."]
    for paragraph in (page.meaning, page.way_out):
        if paragraph:
            lines.append(".Pp")
            # A sentence a line, so that the formatter sets the space between them.
            lines += [_text(sentence) for sentence in re.split(r"(?<=[.?!]) +(?=[A-Z`'])", paragraph)]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Return a line of running text for mdoc: what stands in backticks is bold, and nothing of it is a request."""
    text = text.replace("\\", r"\e")
    text = re.sub(r"`([^`]*)`", lambda match: r"\fB" + match.group(1).replace("-", r"\-") + r"\fR", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    sys.stdout.write(make_page())
