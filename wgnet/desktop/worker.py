"""What the import dialogue has done in a process of its own: `wgnet plan` and `wgnet apply` of a user, for a program.

Stage: desktop. Input: one JSON object on standard input; output: one on standard output. A process, because a change
may wait for a person whom polkit or the keyring asks, and because it is ended by a signal, after which it puts
everything back. Knows no toolkit. Secrets come in by the pipe alone, and never go out.

    {"do": "plan" or "apply", "path", "topology" (base64), "host", "keys", "passphrase_file", "private_key"}
    {"status", "problems": [{"severity", "code", "message", "place", "help"}], "steps": [...], "polkit"}

`status` is wgnet's exit status, `steps` are plan's words, and `polkit` is what it says to the change: yes, auth or no.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, Context
from wgnet.cli.inputs import parse_fleet
from wgnet.cli.machine import MachinePlan, not_planned, open_bus
from wgnet.cli.user import apply_as_user, compare_as_user, plan_as_user
from wgnet.desktop.opened import context_of
from wgnet.desktop.summary import EXIT_INTERNAL, REPORT, Problem, problems_of
from wgnet.diagnostics import codes
from wgnet.diagnostics.severity import Severity
from wgnet.keys.types import PrivateKey
from wgnet.live.user_profile import belongs_to
from wgnet.managers.nm_settings import to_dbus
from wgnet.plan.derive import Fleet
from wgnet.system.dbus import Bus
from wgnet.system.live import LiveError
from wgnet.system.nm import NetworkManagerDaemon, NmError
from wgnet.system.user_state import user_name

__all__ = ["answer", "main"]


def main() -> None:
    """Answer the request on standard input."""
    text = sys.stdin.read()
    if not text:
        return  # whoever asks has gone
    try:
        said = json.dumps(answer(json.loads(text)))
    except Exception as error:
        said = json.dumps(_bug(error))
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(said)
        sys.stdout.flush()
        return
    # The interpreter would complain of the pipe once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request says; return what came of it."""
    context = context_of(request["path"], request["host"], request.get("keys"), request.get("passphrase_file"))
    found: dict[str, Any] = {"steps": [], "polkit": ""}
    fleet = parse_fleet(
        base64.b64decode(request["topology"]), request["path"], context.diagnostics, missing_keys=Severity.ERROR
    )
    status = context.status()
    if fleet is not None:
        given = PrivateKey.parse(request.get("private_key") or "")
        status = _answer(context, fleet, request["do"], given if isinstance(given, PrivateKey) else None, found)
    problems = [asdict(each) for each in problems_of(context.diagnostics)]
    return {"status": status, "problems": problems, **found}


def _bug(error: Exception) -> dict[str, Any]:
    """Return where a bug struck, without the exception's text, which could hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " <- ".join(f"{Path(each.filename).name}:{each.lineno}" for each in reversed(frames[-6:]))
    problem = Problem(
        severity="error", code="", message=f"this is a bug in wgnet: {type(error).__name__} at {where}", help=(REPORT,)
    )
    return {"status": EXIT_INTERNAL, "problems": [asdict(problem)], "steps": [], "polkit": ""}


def _answer(context: Context, fleet: Fleet, do: str, given: PrivateKey | None, found: dict[str, Any]) -> int:
    if os.geteuid() == 0:
        context.diagnostics.report(
            codes.CANNOT_START,
            "this is root's session, and the dialogue adds what a user may; nothing was changed",
            help="run `wgnet apply` in a terminal",
        )
        return EXIT_NOT_STARTED
    bus = open_bus(context)
    if bus is None:
        return EXIT_NOT_STARTED
    with bus:
        if do == "apply":
            return apply_as_user(context, fleet, bus, given)
        plan = plan_as_user(context, fleet, bus, given)
        if plan is None:
            return not_planned(context)
        try:
            compared = compare_as_user(context, plan, bus)
        except LiveError as error:
            context.diagnostics.report(codes.CANNOT_START, str(error))
            return EXIT_NOT_STARTED
        if compared is None:
            return EXIT_NOT_STARTED
        found["steps"] = compared[2]
        found["polkit"] = _polkit(plan, bus)
    return EXIT_DONE


def _polkit(plan: MachinePlan, bus: Bus) -> str:
    """Return what polkit says to a change of these profiles, "" where it says nothing."""
    settings = [each.settings for each in plan.target.interfaces if each.settings is not None]
    own = all(belongs_to(to_dbus(each, secrets=False), user_name()) for each in settings)
    try:
        return NetworkManagerDaemon(bus).permission(f"settings.modify.{'own' if own else 'system'}")
    except NmError:
        return ""


if __name__ == "__main__":
    main()
