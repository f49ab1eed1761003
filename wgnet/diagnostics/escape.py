r"""Making foreign text fit to be shown: escapes, widths, and the masking of secrets.

Input: text from a file, a message or a file name. Output: text without anything that a terminal would obey or
that turns the reading direction, and without anything that could be a private or preshared key. Must not know
any format.
"""

from __future__ import annotations

import re
import unicodedata

#: What a tab becomes in an excerpt; a fixed width keeps carets aligned whatever stands before it.
TAB = "    "
#: The longest text of a message, label or help that is shown whole.
MAX_TEXT = 2000

# C0, C1 and DEL drive terminals; bidi controls, line separators, zero-width and tag characters make a text
# look like another (CVE-2021-42574); lone surrogates cannot be written out. U+200C and U+200D stay: Persian
# and emoji need them.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

# 44 characters are a key; a few less or more are one that was mistyped.
_RUN = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")
# A path such as /home/someone/projects/network is base64 by its letters alone, but no key consists of words.
_WORDS = re.compile(
    r"/?(?:[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*|[0-9]{1,8})(?:/(?:[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*|[0-9]{1,8}))*/?"
)
# What must stand right before a run that may be shown. `re` wants look-behinds of one width, so the text
# before is matched.
_PUBLIC_IN_SOURCE = re.compile(r"(?<![\w-])(?:next-)?public-key[\"']?\s*:\s*(?:&[^\s,\[\]{}]+\s+)?[\"']?\Z")
_PUBLIC_IN_TEXT = re.compile(r"(?<![\w-])(?:next[- ])?public[- ]key:?\s*[\"'`]?\Z")
_CONTEXT = 128
# A value beside one of these is never shown, in whatever form: no such key takes a secret, but people try.
_SECRET_NAME = re.compile(
    r"(?i)(?<![a-z0-9])(?:private[-_ ]?key|pre-?shared[-_ ]?key|psk|pass(?:word|wd|phrase)?|secret)"
    r"[\"']?\s*[:=]\s*(?:[&!][^\s,]*\s+)?"
)
_NO_SECRET = re.compile(r"(?:[\[{*|>#]|(?:true|false|null|~)\s*(?:[,}\]#]|\Z))")
_BLOCK_SCALAR_END = re.compile(r"\s+#|\s*\Z")
_FLOW_SCALAR_END = re.compile(r"\s+#|\s*[,}\]]|\s*\Z")


def escape(text: str) -> str:
    r"""Return `text` with every unsafe character as a visible escape: `\n`, `\x1b`, `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda match: _visible(match.group()), text)


def escape_excerpt(text: str) -> str:
    """Return a stretch of a source line, escaped, its tabs as spaces."""
    return escape(text.replace("\t", TAB))


def _visible(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    point = ord(char)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def cells(text: str) -> int:
    """Return how many terminal cells an escaped text takes; source: Unicode's East_Asian_Width (UAX #11)."""
    if text.isascii():
        return len(text)
    return sum(_cell(char) for char in text)


def _cell(char: str) -> int:
    if unicodedata.east_asian_width(char) in "WF":
        return 2
    return 0 if unicodedata.category(char) in ("Mn", "Me", "Cf") else 1


def shorten(text: str) -> str:
    """Return `text`, without its middle when it is longer than `MAX_TEXT`: it may quote a huge value."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}...{text[-half:]}"


def present(text: str) -> str:
    """Return a message, label or help as it may be shown: masked, shortened, escaped."""
    return escape(shorten(mask_text(text)))


def mask_text(text: str) -> str:
    """Return a message with all that has about the shape of a key as stars, unless it is called a public key."""
    return _mask_runs(text, _PUBLIC_IN_TEXT, "")


def mask_source(line: str, *, everything: bool = False) -> str:
    """Return a source line of the same length with possible secrets as stars.

    Those are long base64 runs that are not the value of `public-key` or `next-public-key` (or all runs, with
    `everything`), and any scalar beside a name like `private-key`.
    """
    return _mask_runs(_mask_named(line), None if everything else _PUBLIC_IN_SOURCE, "/")


def _mask_runs(text: str, public: re.Pattern[str] | None, words_begin: str) -> str:
    """Mask long runs, except after `public`, and except words that begin with `words_begin`."""

    def stars(match: re.Match[str]) -> str:
        run, start = match.group(), match.start()
        if public is not None and public.search(text, max(0, start - _CONTEXT), start):
            return run
        if run.startswith(words_begin) and _WORDS.fullmatch(run):
            return run
        return "*" * len(run)

    return _RUN.sub(stars, text)


def _mask_named(line: str) -> str:
    pieces: list[str] = []
    done = 0
    for match in _SECRET_NAME.finditer(line):
        start = match.end()
        if start < done or start >= len(line) or _NO_SECRET.match(line, start):
            continue
        end = _scalar_end(line, start, flow="{" in line[: match.start()])
        pieces += (line[done:start], "*" * (end - start))
        done = end
    return "".join((*pieces, line[done:]))


def _scalar_end(line: str, start: int, *, flow: bool) -> int:
    quote = line[start]
    if quote in "\"'":
        end = line.find(quote, start + 1)
        return len(line) if end < 0 else end + 1
    match = (_FLOW_SCALAR_END if flow else _BLOCK_SCALAR_END).search(line, start)
    return match.start() if match else len(line)
