"""The two streams of a process: their colour, what happens when a reader goes away, and a line of progress.

Input: `--color`, the environment, the streams. Output: text on them. Results go to stdout, diagnostics to
stderr; nothing else may write to either. A pipe that closes never interrupts the work:
`wgnet render --system | head` must not stop half way.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.printers import print_diagnostics
from wgnet.record import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self, TextIO

#: What a shell reports of a program that SIGPIPE ended, as it does for git and coreutils: 128 + 13.
EXIT_PIPE = 141
#: The status when the result could not be written, to a full disk for example.
EXIT_OUTPUT = 70

_CLEAR_LINE = "\r\x1b[K"


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether `stream` is a terminal; a closed or absent one is not."""
    try:
        return stream is not None and stream.isatty()
    except (ValueError, OSError):
        return False


def wants_color(choice: str, stream: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Decide about colour on one stream.

    `choice` is what `--color` takes: `auto`, `always` or `never`; an explicit one wins over the environment.
    Source: https://no-color.org.
    """
    if choice == "always":
        return True
    if choice == "never" or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return is_terminal(stream)


@record(frozen=False)
class Output:
    """stdout and stderr of one run. A missing stream (`>&-`) swallows what is written to it."""

    stdout: TextIO | None
    stderr: TextIO | None
    color: str = "auto"
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    #: Whether the reader of stdout has gone: a loop that only prints may end.
    closed: bool = False
    _failure: OSError | None = None
    _error_closed: bool = False
    _progress: Progress | None = None

    @classmethod
    def of_process(cls, color: str = "auto") -> Self:
        """Return the output on this process's streams, which from now on escape what they cannot encode."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return cls(stdout=sys.stdout, stderr=sys.stderr, color=color)

    @property
    def stdout_color(self) -> bool:
        """Whether stdout takes colour."""
        return wants_color(self.color, self.stdout, self.environ)

    @property
    def stderr_color(self) -> bool:
        """Whether stderr takes colour."""
        return wants_color(self.color, self.stderr, self.environ)

    def write(self, text: str) -> None:
        """Write a part of the result to stdout."""
        self._clear_progress()
        stream = self.stdout
        if stream is None or self.closed or self._failure is not None:
            return
        try:
            stream.write(text)
        except OSError as error:
            self._lost(error)

    def line(self, text: str = "") -> None:
        """Write a line of the result to stdout, or several; what a terminal would obey in it is shown as escapes."""
        self.write(f"{_visible(text)}\n")

    def error(self, text: str) -> None:
        """Write a line to stderr, after what stdout was given so far."""
        self._clear_progress()
        self.flush()
        self._write_error(f"{_visible(text)}\n")

    def diagnostics(self, diagnostics: Diagnostics, output_format: str = "full", *, result: bool = False) -> None:
        """Print diagnostics to stderr, or to stdout where they are the result (`check`)."""
        text = io.StringIO()
        print_diagnostics(diagnostics, output_format, text, self.stdout_color if result else self.stderr_color)
        if result:
            self.write(text.getvalue())
        elif text.tell():
            self._clear_progress()
            self.flush()
            self._write_error(text.getvalue())

    def progress(self, what: str) -> Progress:
        """Return a progress line on stderr, to be used in a `with`; silent unless stderr is a terminal."""
        live = is_terminal(self.stderr) and self.environ.get("TERM") != "dumb"
        self._progress = Progress(self.stderr if live else None, what)
        return self._progress

    def flush(self) -> None:
        """Hand to the system what was written so far."""
        if self.stdout is None or self.closed or self._failure is not None:
            return
        try:
            self.stdout.flush()
        except OSError as error:
            self._lost(error)

    def finish(self, status: int) -> int:
        """Flush everything and return the process's exit status.

        That is `status`, except where a run that else went well could not deliver its result: 141 when the
        reader of stdout went away, as for programs that SIGPIPE ends, and 70 (with a line on stderr) after
        any other failure.
        """
        self._clear_progress()
        self.flush()
        if self.stderr is not None and not self._error_closed:
            try:
                self.stderr.flush()
            except OSError:
                self._error_closed = True
                _redirect_to_null(self.stderr)
        if self._failure is not None:
            self._write_error(f"wgnet: cannot write to standard output: {self._failure.strerror}\n")
            return status or EXIT_OUTPUT
        return EXIT_PIPE if self.closed and status == 0 else status

    def _lost(self, error: OSError) -> None:
        if error.errno == errno.EPIPE:
            self.closed = True
        else:
            self._failure = error
        if self.stdout is not None:
            _redirect_to_null(self.stdout)

    def _write_error(self, text: str) -> None:
        if self.stderr is None or self._error_closed:
            return
        try:
            self.stderr.write(text)
            self.stderr.flush()
        except OSError:
            self._error_closed = True
            _redirect_to_null(self.stderr)

    def _clear_progress(self) -> None:
        if self._progress is not None:
            self._progress.clear()


def _visible(text: str) -> str:
    """Escape each line of a text: a name from the command line or a folder may hold anything."""
    lines = text.split("\n")
    if all(map(str.isprintable, lines)):
        return text
    from wgnet.diagnostics.escape import escape  # its patterns take a while to compile

    return "\n".join(map(escape, lines))


def _redirect_to_null(stream: TextIO) -> None:
    """Point a broken stream at /dev/null, else the interpreter's own flush at exit prints a traceback."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)


class Progress:
    """A line such as `rendering 120/1000` that rewrites itself, gone at the end; silent without a stream."""

    #: Seconds between two writes; and work that takes less shows nothing at all.
    INTERVAL = 0.1
    DELAY = 0.3

    def __init__(self, stream: TextIO | None, what: str) -> None:
        self._stream = stream
        self._what = what
        self._next = time.monotonic() + self.DELAY
        self._shown = False

    def update(self, done: int, total: int) -> None:
        """Show that `done` of `total` parts are ready."""
        if self._stream is None:
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.INTERVAL
        width = self._width()
        self._write(f"{_CLEAR_LINE}{f'{self._what} {done}/{total}'[: max(width - 1, 0)]}")
        self._shown = True

    def clear(self) -> None:
        """Take the line away; a later update shows it again."""
        if self._shown:
            self._shown = False
            self._write(_CLEAR_LINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self._stream = None

    def _width(self) -> int:
        # Not shutil's function: importing shutil costs every command's start.
        try:
            return os.get_terminal_size(self._stream.fileno() if self._stream else 2).columns or 80
        except (OSError, ValueError):
            return 80

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None
