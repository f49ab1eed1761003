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
  3  there are changes (diff --exit-code)
  6  could not start, nothing was touched
  70 an internal error
"""

_COLORS = ("auto", "always", "never")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in lines of the width of the terminal, with room for the commands' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=_width())


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


def _show(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("host", metavar="HOST", help="the host")
    parser.add_argument(
        "--format", choices=("table", "json", "hosts"), default="table", metavar="FORMAT", help="table, json or hosts"
    )


def _diff(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("old", metavar="OLD", help="the topology file before")
    parser.add_argument("new", metavar="NEW", help="the topology file after")
    parser.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    parser.add_argument("--exit-code", action="store_true", help="exit with 3 if anything changes")


def _keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(prog="wgnet keys", dest="action", metavar="ACTION", required=True, title="actions")
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
    "show": ("show one host's derived plan", _show),
    "diff": ("show what changes between two topologies", _diff),
    "keys": ("make, show and hand out keys", _keys),
    "schema": ("print the JSON Schema of the topology file", _schema),
    "explain": ("explain a diagnostic: what it means, an example, the way out", _explain),
    "init": ("write a commented first topology", _init),
}
_KEY_ACTIONS: _Commands = {
    "generate": ("make the keys that are missing, and write the public ones into the topology", _keys_generate),
    "show": ("list the hosts' keys, secrets masked", _keys_show),
    "export": ("write one host's part of the key store, to be carried there", _keys_export),
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
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
