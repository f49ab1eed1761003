"""The command line's grammar. One function a command adds its options; nothing here does the work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from wgnet import __version__
from wgnet.diagnostics.printers import FORMATS

EXIT_STATUS = """\
exit status:
  0  done, and nothing to report
  1  the topology has errors
  2  the command line could not be understood
  3  there are changes (diff, plan, status with --exit-code)
  4  apply failed, and everything was put back
  5  apply failed, and could not be put back
  6  could not start, nothing was touched
  70 an internal error
"""

_COLORS = ("auto", "always", "never")
#: A day, in seconds: longer than anybody waits for a confirmation.
_MOST_TIME = 86_400


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in lines of the width of the terminal, with room for the commands' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=_width())


class _AnyOrder(argparse.ArgumentParser):
    """Takes operands before, between and behind options, also where the first one is not the last of its kind."""

    _inside = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse as argparse does, but intermixed, which calls this again."""
        if self._inside:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


def _width() -> int:
    """Return how wide help may be, as argparse reckons it, but without shutil, which imports four compressors."""
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 0
    return (columns or 80) - 2


def _place(text: str) -> str:
    """Take a path. An empty one, of a shell's variable that is not set, would be another place than was meant."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, found nothing")
    return text


# --- options that several commands share ---


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="topology files, - for standard input (default: the system's)"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command with a topology has."""
    group = parser.add_argument_group("common options")
    group.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        dest="more_files",
        help="a topology file; repeatable",
    )
    group.add_argument("--root", type=_place, default="/", metavar="DIR", help="put every system path under DIR")
    group.add_argument("--strict", action="store_true", help="warnings are errors")
    group.add_argument(
        "--diagnostics", choices=FORMATS, default="full", metavar="FORMAT", help="how: full, concise, json or github"
    )
    # Also before the command; here it must not undo what was said there.
    group.add_argument(
        "--color", choices=_COLORS, default=argparse.SUPPRESS, metavar="WHEN", help="auto, always or never"
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("keys")
    group.add_argument("--keys", type=_place, metavar="DIR", help="the key store")
    group.add_argument(
        "--passphrase-file",
        type=_place,
        metavar="FILE",
        help="read the key store's passphrase from FILE's first line, not a prompt",
    )


# --- the commands ---


def _check(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    _add_common(parser)
    parser.add_argument(
        "--format", choices=FORMATS, default=None, metavar="FORMAT", help="full (the default), concise, json or github"
    )


def _render(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    _add_common(parser)
    _add_store(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o", "--output", type=_place, default=None, metavar="DIR", help="the folder to write below (default: rendered)"
    )
    where.add_argument("--stdout", action="store_true", help="print instead of writing, secrets masked")
    where.add_argument("--system", action="store_true", help="write this host's files in place: no daemon, no network")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="this host alone (--system: this machine's name)"
    )
    parser.add_argument("--runtime", action="store_true", help="with --system: write below /run")
    parser.add_argument(
        "--force", action="store_true", help="replace files that were changed by hand; they are kept beside"
    )
    parser.add_argument("--show-secrets", action="store_true", help="with --stdout: do not mask secrets")
    parser.epilog = "example: wgnet render office.yaml --keys keys"


def _machine(parser: argparse.ArgumentParser) -> None:
    """Add what commands have that plan this machine."""
    _add_files(parser)
    _add_common(parser)
    _add_store(parser)
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="the host that this machine is")


def _plan(parser: argparse.ArgumentParser) -> None:
    _machine(parser)
    parser.add_argument(
        "-o", "--output", type=_place, metavar="DIR", help="compare with what `render -o DIR` wrote, for every host"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 if anything would change")


def _apply(parser: argparse.ArgumentParser) -> None:
    _machine(parser)
    _add_change(parser)


def _add_change(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--confirm",
        type=_duration,
        metavar="TIME",
        help="go back after TIME (60s, 5m) unless `wgnet confirm` comes before",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that were changed by hand; they are kept beside"
    )


def _duration(text: str) -> float:
    """Take a span of time, in seconds unless it ends with s, m or h."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in "smh" and text else (text, "s")
    if not (number.isascii() and number.isdigit()) or not 1 <= int(number) <= _MOST_TIME:
        raise argparse.ArgumentTypeError(f"expected a time such as 60s or 5m, found '{text}'")
    seconds = int(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    if seconds > _MOST_TIME:
        raise argparse.ArgumentTypeError(f"expected at most a day, found '{text}'")
    return float(seconds)


def _confirm(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)


def _rollback(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    # For systemd: by the units that watch over an apply.
    parser.add_argument("--armed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--boot", action="store_true", help=argparse.SUPPRESS)


def _remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="the network's name")
    _add_common(parser)
    _add_change(parser)


def _status(parser: argparse.ArgumentParser) -> None:
    _machine(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_pause,
        const=2.0,
        metavar="SECONDS",
        help="show it again and again, every 2 seconds unless told otherwise",
    )
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 if anything is not as planned")


def _pause(text: str) -> float:
    """Take a number of seconds between 0.1 and a day."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= _MOST_TIME:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, found '{text}'; name files before it")
    return seconds


def _refresh(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    _add_common(parser)
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="this machine's name")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--for",
        type=_duration,
        default=0.0,
        metavar="TIME",
        help="while keys are rotated look again every second, for TIME (25s)",
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing of peers that cannot be helped")
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")


def _show(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("host", metavar="HOST", help="the host")
    parser.add_argument(
        "--format", choices=("table", "json", "hosts"), default="table", metavar="FORMAT", help="table, json or hosts"
    )


def _inventory(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    _add_common(parser)
    # The names are those that Ansible calls an inventory script with.
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="all groups, hosts and their variables")
    what.add_argument("--host", metavar="NAME", help="the variables of this host")


def _diff(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("old", metavar="OLD", help="the topology file before")
    parser.add_argument("new", metavar="NEW", help="the topology file after")
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 if anything changes")


def _keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        prog="wgnet keys", dest="action", metavar="ACTION", required=True, title="actions", parser_class=_AnyOrder
    )
    for name, (summary, add_options) in _KEY_ACTIONS.items():
        add_options(_subparser(actions, name, summary))


def _keys_generate(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    _add_common(parser)
    _add_store(parser)
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="for this host alone")
    parser.add_argument("--encrypt", action="store_true", help="encrypt the key store's new files under a passphrase")


def _keys_show(parser: argparse.ArgumentParser) -> None:
    _add_files(parser)
    _add_common(parser)
    _add_store(parser)
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="this host alone")
    parser.add_argument("--show-secrets", action="store_true", help="do not mask secrets")
    parser.add_argument("--format", choices=("table", "json"), default="table", metavar="FORMAT", help="table or json")


def _keys_export(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    _add_store(parser)
    parser.add_argument("host", metavar="HOST", help="the host")
    parser.add_argument(
        "-o", "--output", type=_place, metavar="DIR", help="the folder to write to, for the host's /etc/wgnet"
    )
    parser.add_argument("--show-secrets", action="store_true", help="without -o: print the secrets unmasked")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", metavar="FORMAT", help="without -o: text or json"
    )


def _keys_rotate(parser: argparse.ArgumentParser) -> None:
    _add_step(parser)
    _add_files(parser)
    _add_common(parser)
    _add_store(parser)
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="this host alone")
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")


def _add_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "step",
        nargs="?",
        metavar="STEP",
        help="prepare, switch or finish (default: say where each host stands and what comes next)",
    )


def _schema(parser: argparse.ArgumentParser) -> None:
    """`schema` has no options."""


def _explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", nargs="?", metavar="CODE", help="such as WG3003; without it, list all codes")


def _init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", default="office.yaml", metavar="FILE", help="default office.yaml; - prints it"
    )


_Commands = dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]]

_COMMANDS: _Commands = {
    "check": ("validate topologies, derive everything, prove what they expect", _check),
    "render": ("write every host's files", _render),
    "plan": ("show what apply would change on this machine", _plan),
    "apply": ("make this machine so, verified, or as it was", _apply),
    "confirm": ("keep a change that `apply --confirm` has made", _confirm),
    "rollback": ("go back to the state before the last apply", _rollback),
    "remove": ("take a network off this machine", _remove),
    "status": ("show this machine's live state beside its topology", _status),
    "refresh": ("try other endpoints of peers that do not answer, and follow keys that are rotated", _refresh),
    "show": ("show one host's derived plan", _show),
    "inventory": ("print the topologies as an inventory for Ansible", _inventory),
    "diff": ("show what changes between two topologies", _diff),
    "keys": ("make, show, hand out and rotate keys", _keys),
    "schema": ("print the JSON Schema of the topology file", _schema),
    "explain": ("explain a diagnostic: what it means, an example, the way out", _explain),
    "init": ("write a commented first topology", _init),
}
_KEY_ACTIONS: _Commands = {
    "generate": ("make the keys that are missing, and write the public ones into the topology", _keys_generate),
    "show": ("list the hosts' keys, secrets masked", _keys_show),
    "export": ("write one host's part of the key store, to be carried there", _keys_export),
    "rotate": ("change hosts' keys step by step, while every host still talks with every other", _keys_rotate),
}


def build_parser(arguments: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    With `arguments` only those commands get their options that are named in them: making all takes as long as checking
    a small file.
    """
    parser = argparse.ArgumentParser(
        prog="wgnet",
        description="One YAML file describes a WireGuard network; systemd-networkd and NetworkManager run it.",
        epilog=EXIT_STATUS,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wgnet {__version__}")
    parser.add_argument("--color", choices=_COLORS, default="auto", metavar="WHEN", help="auto, always or never")
    commands = parser.add_subparsers(prog="wgnet", dest="command", metavar="COMMAND", required=True, title="commands")
    for name, (summary, add_options) in _COMMANDS.items():
        subparser = _subparser(commands, name, summary)
        if arguments is None or name in arguments:
            add_options(subparser)
    return parser


def _subparser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser] | argparse._SubParsersAction[_AnyOrder],
    name: str,
    summary: str,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
