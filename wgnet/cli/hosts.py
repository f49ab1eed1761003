"""Which host a command is about: `--host`, else /etc/wgnet/host, else this machine's short host name."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from wgnet.cli.context import Context
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import system_reason

#: How much is read of the file that names the host, in bytes: a line.
MAX_NAME = 4096


def this_host(context: Context, given: Sequence[str]) -> str | None:
    """Return the name of the host that a command is about, or None after reporting that there is none.

    Below another root the machine's own name says nothing, so one of the first two must.
    """
    if given:
        return given[0]
    path = context.root / "etc/wgnet/host"
    try:
        # Opening a pipe that nobody writes to would wait for ever; reading one is the end of the file at once.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as stream:
            text = stream.read(MAX_NAME).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        context.diagnostics.report(codes.UNKNOWN_HOST_ARGUMENT, f"'{path}' cannot be read: {system_reason(error)}")
        return None
    if text:
        return text.split("\n", 1)[0].strip()
    if str(context.root) == "/":
        return socket.gethostname().partition(".")[0]
    context.diagnostics.report(
        codes.UNKNOWN_HOST_ARGUMENT,
        f"which host is '{context.root}'? the name of this machine says nothing about another root",
        help=(f"name it in '{path}'", "name it with --host"),
    )
    return None


def report_unknown_host(context: Context, name: str, known: Sequence[str], *ways_out: str) -> None:
    """Report the name of a host that is not among those that files are made for."""
    from wgnet.syntax.types import suggest

    near = suggest(name, known)
    ways = ways_out or ("check the name: disabled and external hosts have no files, no plan and no keys",)
    context.diagnostics.report(
        codes.UNKNOWN_HOST_ARGUMENT,
        f"there is no host '{name}' that files are made for",
        help=[near] if near else ways,
    )
