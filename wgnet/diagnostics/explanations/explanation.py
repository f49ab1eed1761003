"""A page about one diagnostic code, and the topology that most pages change in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.escape import escape

#: What an example may be: a file, one that is no text, one that is too large to stand here, or several by name.
Source = str | bytes | Callable[[], bytes] | Mapping[str, str]

#: The file name of an example that consists of one file.
FILE_NAME = "office.yaml"

FRA_KEY = "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
NYC_KEY = "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
SGP_KEY = "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="
TOK_KEY = "/oYJ9PhB3it9Y/QxUr7u/WqmRspYrvoFFsFwuI8GLAM="
OTHER_KEY = "X/0e2xzaSLlUVIZZ7c/ewFMnnjd0yTF1TM8c7yjFvDY="

#: A sound topology of two hosts.
OFFICE = f"""\
wgnet: 1
network:
  name: office
  subnets: [10.80.0.0/24]
hosts:
  fra:
    addresses: [10.80.0.1]
    public-key: "{FRA_KEY}"
    endpoint: fra.example.net
  nyc:
    addresses: [10.80.0.2]
    public-key: "{NYC_KEY}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a code means, and how to get rid of it.

    `example` draws the code and `fixed` is the same topology mended; where no topology can draw the code both are
    None and `way_out` says what to do.
    """

    code: Code
    meaning: str
    example: Source | None = None
    fixed: Source | None = None
    way_out: str = ""

    def example_files(self) -> dict[str, bytes]:
        """Return the files of the example by name, as they are on a disk; empty without an example."""
        return _files(self.example)

    def fixed_files(self) -> dict[str, bytes]:
        """Return the files of the mended example by name; empty without one."""
        return _files(self.fixed)

    def example_text(self) -> str:
        """Return the example as it can be shown; empty when there is none, or none that a person would read."""
        return _text(self.example)

    def fixed_text(self) -> str:
        """Return the mended example as it can be shown; empty when there is none."""
        return _text(self.fixed)


def change(text: str, *changes: tuple[str, str]) -> str:
    """Return `text` with each old piece replaced by its new one; raises ValueError unless a piece stands there once."""
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times in the text, expected once")
        text = text.replace(old, new)
    return text


def _files(source: Source | None) -> dict[str, bytes]:
    if source is None:
        return {}
    if isinstance(source, str):
        return {FILE_NAME: source.encode()}
    if isinstance(source, bytes):
        return {FILE_NAME: source}
    if isinstance(source, Mapping):
        return {name: text.encode() for name, text in source.items()}
    return {FILE_NAME: source()}


def _text(source: Source | None) -> str:
    if source is None or callable(source):
        return ""
    if isinstance(source, Mapping):
        return "\n".join(f"# {name}\n{_visible(text)}" for name, text in source.items())
    return _visible(source.decode(errors="backslashreplace") if isinstance(source, bytes) else source)


def _visible(text: str) -> str:
    return "".join(f"{escape(line)}\n" for line in text.removesuffix("\n").split("\n"))
