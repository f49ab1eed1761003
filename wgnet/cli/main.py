"""The entry point: parse the command line, run one command, print the diagnostics, return the exit status."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from wgnet.cli.parser import build_parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from wgnet.cli.context import Context

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130

Command = Callable[["Context"], int]


def run() -> None:
    """Run the process's command line and exit."""
    # A run builds millions of small objects and ends: collecting cycles on the way costs a third of its time.
    gc.disable()
    status = main(sys.argv[1:])
    gc.freeze()  # nor is there anything to collect at the end
    if status == EXIT_INTERRUPTED:
        # Die of the signal, so that a shell's loop stops too.
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    sys.exit(status)


def main(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit status, wgnet(1). Never raises but for argparse's own SystemExit."""
    try:
        options = build_parser(arguments).parse_args(arguments)
        from wgnet.cli.context import Context

        context = Context.of(options)
        try:
            return context.finish(_command(options)(context))
        except Exception as error:
            return context.output.finish(_report_bug(error, context))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _command(options: argparse.Namespace) -> Command:
    """Import the module of the command, and nothing of the others."""
    command: Command = import_module(f"wgnet.cli.commands.{options.command}").run
    return command


def _report_bug(error: Exception, context: Context) -> int:
    """Say where a bug struck, without the exception's text, which could hold anything."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = " <- ".join(f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in reversed(frames[-6:]))
    with contextlib.suppress(Exception):
        context.print_diagnostics()
    context.output.error(f"wgnet: internal error: {type(error).__name__} at {where}")
    context.output.error("This is a bug in wgnet. Please report it with the line above and the command that you ran.")
    return EXIT_INTERNAL
