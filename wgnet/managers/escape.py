r"""Values made fit for the files they go to, so that no value adds a line, a key or a section.

Stage: managers. Input: a value that the decoder took; output: its text in one format. What cannot stand in a line at
all is a bug of an earlier stage, and raises ValueError without quoting the value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["keyfile_list", "keyfile_value", "nft_identifier", "nft_string", "single_line", "unit_name", "unit_value"]

# systemd's read_line() ends a line at \n, \r and \0; GKeyFile at \n. No other control character has a use either.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TRAILING_BACKSLASHES = re.compile(r"\\*\Z")
_NOT_IN_UNIT_NAME = re.compile(rb"[^A-Za-z0-9:_.]")
_NOT_IN_IDENTIFIER = re.compile(rb"[^A-Za-z0-9]")


def single_line(text: str) -> str:
    """Return `text` unchanged. Raises ValueError where it has control characters, thus more than one line."""
    if _CONTROL.search(text):
        raise ValueError("a value has control characters, which the decoder lets none have")
    return text


def unit_value(text: str) -> str:
    r"""Return a value of .netdev and .network files, which read it as it stands up to the end of the line.

    There are no quotes and no specifiers in the keys that take free text (config_parse_string() of systemd), but a
    line that ends in an odd backslash goes on in the next: a space after it, which the parser strips, ends the line.
    """
    single_line(text)
    backslashes = _TRAILING_BACKSLASHES.search(text)
    return text + " " if backslashes is not None and len(backslashes.group()) % 2 else text


def keyfile_value(text: str) -> str:
    r"""Return a string of a GKeyFile: backslashes doubled, a space at either end as `\s`."""
    body = single_line(text).replace("\\", "\\\\")
    inner = body.strip(" ")
    if inner == body:
        return body
    if not inner:
        return "\\s" * len(body)
    leading = len(body) - len(body.lstrip(" "))
    return "\\s" * leading + inner + "\\s" * (len(body) - len(inner) - leading)


def keyfile_list(items: Iterable[str]) -> str:
    r"""Return a list of strings of a GKeyFile: each ends in `;`, and one inside an item is `\;`."""
    return "".join([keyfile_value(item).replace(";", "\\;") + ";" for item in items])


def unit_name(text: str) -> str:
    r"""Return `text` as part of a unit's name, as systemd-escape(1) does: `wg-0` is `wg\x2d0`."""
    raw = single_line(text).encode()
    escaped = _NOT_IN_UNIT_NAME.sub(lambda match: b"\\x%02x" % match.group()[0], raw)
    # A leading dot would hide the file.
    return (b"\\x2e" + escaped[1:] if escaped.startswith(b".") else escaped).decode("ascii")


def nft_identifier(text: str) -> str:
    """Return `text` as part of a name in nft(8): whatever is neither a letter nor a digit as `_` and two hex digits."""
    return _NOT_IN_IDENTIFIER.sub(lambda match: b"_%02x" % match.group()[0], single_line(text).encode()).decode("ascii")


def nft_string(text: str) -> str:
    """Return a quoted string of nft(8). Raises ValueError for a quote, backslash or `*`, which it cannot escape."""
    if any(character in single_line(text) for character in '"\\*'):
        raise ValueError("a value has characters that nft has no escape for")
    return f'"{text}"'
