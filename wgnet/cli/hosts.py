"""Which host this machine is: `--host`, else /etc/wgnet/host, else the short host name."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from wgnet.cli.context import Context
from wgnet.diagnostics import codes


def this_host(context: Context, given: Sequence[str]) -> str | None:
    """Return the name of the host that a command is about, or None after reporting that there is none.

    Below another root the machine's own name says nothing, so one of the first two must.
    """
    if given:
        return given[0]
    path = context.root / "etc/wgnet/host"
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        context.diagnostics.report(codes.UNKNOWN_HOST_ARGUMENT, f"'{path}' cannot be read: {reason}")
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
