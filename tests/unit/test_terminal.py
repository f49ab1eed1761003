"""Colour, streams that break, and progress: what happens at the edge of the process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap

import pytest

from wgnet.cli.terminal import EXIT_OUTPUT, EXIT_PIPE, Output, Progress, is_terminal, wants_color
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream whose writes fail, as a pipe without a reader or a full disk does."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error
        self.attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise self._error


@pytest.mark.parametrize(
    ("choice", "environ", "terminal", "wanted"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"TERM": "xterm"}, True, True),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_decision_about_colour(choice: str, environ: dict[str, str], terminal: bool, wanted: bool) -> None:
    assert wants_color(choice, Terminal() if terminal else io.StringIO(), environ) is wanted


def test_closed_or_absent_stream_is_no_terminal() -> None:
    stream = Terminal()
    stream.isatty = lambda: (_ for _ in ()).throw(ValueError("closed"))  # type: ignore[method-assign]
    assert not is_terminal(stream)
    assert not is_terminal(None)
    assert not wants_color("auto", None, {})


def test_results_and_diagnostics_go_their_ways() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(stdout=out, stderr=err, environ={})
    diagnostics = Diagnostics()
    diagnostics.report(codes.BAD_PORT, "wrong")
    output.line("result")
    output.diagnostics(diagnostics, "concise")
    assert (out.getvalue(), err.getvalue()) == ("result\n", "error[WG2014] wrong\n")
    output.diagnostics(diagnostics, "concise", result=True)
    assert out.getvalue() == "result\nerror[WG2014] wrong\n"
    assert output.finish(1) == 1


def test_each_stream_has_its_own_colour() -> None:
    out, err = io.StringIO(), Terminal()
    output = Output(stdout=out, stderr=err, environ={})
    diagnostics = Diagnostics()
    diagnostics.report(codes.BAD_PORT, "wrong")
    output.diagnostics(diagnostics)
    output.diagnostics(diagnostics, result=True)
    assert "\x1b[" in err.getvalue()
    assert "\x1b[" not in out.getvalue()


def test_reader_that_goes_away_stops_nothing() -> None:
    out, err = Broken(BrokenPipeError(32, "Broken pipe")), io.StringIO()
    output = Output(stdout=out, stderr=err, environ={})
    output.line("a")
    output.line("b")
    assert output.closed
    assert out.attempts == 1
    assert (output.finish(0), output.finish(4)) == (EXIT_PIPE, 4)
    assert err.getvalue() == ""


def test_full_disk_is_told() -> None:
    err = io.StringIO()
    output = Output(stdout=Broken(OSError(28, "No space left on device")), stderr=err, environ={})
    output.line("a")
    assert not output.closed
    assert output.finish(0) == EXIT_OUTPUT
    assert err.getvalue() == "wgnet: cannot write to standard output: No space left on device\n"


def test_missing_streams_swallow() -> None:
    output = Output(stdout=None, stderr=None, environ={})
    output.line("a")
    output.error("b")
    assert output.finish(0) == 0


PROGRAM = """
    import sys
    from wgnet.cli.terminal import Output
    output = Output.of_process()
    for number in range(100_000):
        output.line(f"line {number} \\u20ac")
    output.error("the work went on")
    sys.exit(output.finish(0))
"""


def run(redirection: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = f'"$0" -c "$1" {redirection}; echo "status $?" >&2'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        check=False,
    )


def test_real_pipe_that_closes() -> None:
    done = run("| head -n 1; exit ${PIPESTATUS[0]}")
    assert done.stdout == "line 0 €\n"
    assert done.stderr == "the work went on\n"
    assert done.returncode == EXIT_PIPE


def test_real_full_device() -> None:
    done = run("> /dev/full")
    assert done.stderr == (
        f"the work went on\nwgnet: cannot write to standard output: No space left on device\nstatus {EXIT_OUTPUT}\n"
    )


def test_real_closed_streams() -> None:
    assert run(">&-").stderr == "the work went on\nstatus 0\n"


def test_encoding_that_lacks_a_character() -> None:
    done = run("| head -n 1", PYTHONIOENCODING="ascii")
    assert done.stdout == "line 0 \\u20ac\n"


# --- progress ----------


def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "DELAY", 0.0)
    monkeypatch.setattr(Progress, "INTERVAL", 0.0)


def test_progress_shows_and_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)
    err = Terminal()
    output = Output(stdout=io.StringIO(), stderr=err, environ={})
    with output.progress("rendering") as progress:
        progress.update(1, 3)
        progress.update(2, 3)
    assert err.getvalue() == "\r\x1b[Krendering 1/3\r\x1b[Krendering 2/3\r\x1b[K"


def test_progress_makes_way_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)
    err = Terminal()
    output = Output(stdout=io.StringIO(), stderr=err, environ={})
    with output.progress("rendering") as progress:
        progress.update(1, 3)
        output.error("note")
    assert err.getvalue() == "\r\x1b[Krendering 1/3\r\x1b[Knote\n"


@pytest.mark.parametrize(("stream", "environ"), [(io.StringIO(), {}), (Terminal(), {"TERM": "dumb"}), (None, {})])
def test_progress_is_silent_when_redirected(
    stream: io.StringIO | None, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager(monkeypatch)
    with Output(stdout=None, stderr=stream, environ=environ).progress("rendering") as progress:
        progress.update(1, 3)
    assert stream is None or stream.getvalue() == ""


def test_progress_of_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("wgnet.cli.terminal.time.monotonic", lambda: now[0])
    err = Terminal()
    progress = Progress(err, "rendering")
    now[0] += Progress.DELAY / 2
    progress.update(1, 3)
    assert err.getvalue() == ""
    now[0] += Progress.DELAY
    for step in range(100):
        progress.update(step, 100)
    assert err.getvalue() == "\r\x1b[Krendering 0/100"
    now[0] += Progress.INTERVAL
    progress.update(100, 100)
    assert err.getvalue().endswith("\r\x1b[Krendering 100/100")


def test_progress_survives_a_broken_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    eager(monkeypatch)
    stream = Broken(BrokenPipeError(32, "Broken pipe"))
    with Progress(stream, "rendering") as progress:
        progress.update(1, 2)
        progress.update(2, 2)
    assert stream.attempts == 1
