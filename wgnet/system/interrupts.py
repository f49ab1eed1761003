"""Signals that would end the process in the middle of a change.

Stage: system. Must be used in the main thread: signal(7) handlers of Python live there alone.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["InterruptedApplyError", "signals_as_errors", "signals_ignored"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class InterruptedApplyError(Exception):
    """A signal asked the run to end."""


@contextlib.contextmanager
def signals_as_errors() -> Iterator[None]:
    """Let what would end the process end the block with an `InterruptedApplyError`, once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise InterruptedApplyError

    before = {each: signal.signal(each, stop) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Let the block go on to its end, whatever signal comes."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
