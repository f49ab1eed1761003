"""The command line's grammar. One function a command adds its options; nothing here does the work."""

from __future__ import annotations

import argparse

from wgnet import __version__
from wgnet.diagnostics.printers import FORMATS

EXIT_STATUS = """\
exit status:
  0  done, and nothing to report
  1  the topology has errors
  2  usage
  3  changes pending or drift (with --exit-code)
  4  apply failed and everything was put back
  5  apply failed and could not be put back
  6  could not start, nothing was touched
  70 an internal error
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help in lines of the width of the terminal, with room for the commands' names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def _files() -> argparse.ArgumentParser:
    """Return the options of commands that take topology files as arguments."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "files", nargs="*", metavar="FILE", help="topology files, - for standard input (default: the system's)"
    )
    return parent


def _common() -> argparse.ArgumentParser:
    """Return the options that every command with a topology has."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("common options")
    group.add_argument(
        "-f",
        "--file",
        action="append",
        default=[],
        metavar="FILE",
        dest="more_files",
        help="a topology file; repeatable",
    )
    group.add_argument("--root", default="/", metavar="DIR", help="put every system path under DIR")
    group.add_argument("--strict", action="store_true", help="warnings are errors")
    group.add_argument(
        "--diagnostics", choices=FORMATS, default="full", metavar="FORMAT", help="how: full, concise, json or github"
    )
    # Also before the command; here it must not undo what was said there.
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=argparse.SUPPRESS,
        metavar="WHEN",
        help="auto, always or never",
    )
    return parent


def _keys() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("keys")
    group.add_argument("--keys", metavar="DIR", help="the key store")
    group.add_argument(
        "--passphrase-file", metavar="FILE", help="read the key store's passphrase from FILE's first line, not a prompt"
    )
    return parent


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="wgnet",
        description="One YAML file describes a WireGuard network; systemd-networkd and NetworkManager run it.",
        epilog=EXIT_STATUS,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wgnet {__version__}")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", metavar="WHEN", help="auto, always or never"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    files, common, keys = _files(), _common(), _keys()

    def add(
        name: str,
        help: str,  # noqa: A002
        *parents: argparse.ArgumentParser,
        epilog: str = "",
    ) -> argparse.ArgumentParser:
        description = help[0].upper() + help[1:] + "."
        return commands.add_parser(
            name,
            help=help,
            description=description,
            epilog=epilog,
            parents=list(parents),
            formatter_class=_Help,
            allow_abbrev=False,
        )

    check = add("check", "validate topologies, derive everything, prove what they expect", files, common)
    check.add_argument(
        "--format", choices=FORMATS, default=None, metavar="FORMAT", help="full (the default), concise, json or github"
    )

    render = add(
        "render",
        "write every host's files",
        files,
        common,
        keys,
        epilog="example: wgnet render office.yaml --keys keys",
    )
    where = render.add_mutually_exclusive_group()
    where.add_argument(
        "-o", "--output", default=None, metavar="DIR", help="the folder to write below (default: rendered)"
    )
    where.add_argument("--stdout", action="store_true", help="print instead of writing, secrets masked")
    where.add_argument("--system", action="store_true", help="write this host's files in place: no daemon, no network")
    render.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="this host alone (--system: this machine's name)"
    )
    render.add_argument("--runtime", action="store_true", help="with --system: write below /run")
    render.add_argument(
        "--force", action="store_true", help="replace files that were changed by hand; they are kept beside"
    )
    render.add_argument("--show-secrets", action="store_true", help="with --stdout: do not mask secrets")

    show = add("show", "show one host's derived plan", common)
    show.add_argument("host", metavar="HOST", help="the host")
    show.add_argument(
        "--format", choices=("table", "json", "hosts"), default="table", metavar="FORMAT", help="table, json or hosts"
    )

    diff = add("diff", "show what changes between two topologies", common)
    diff.add_argument("old", metavar="OLD", help="the topology file before")
    diff.add_argument("new", metavar="NEW", help="the topology file after")
    diff.add_argument("--format", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    diff.add_argument("--exit-code", action="store_true", help="exit with 3 if anything changes")

    _add_keys(add("keys", "make, show and hand out keys"), files, common, keys)

    add("schema", "print the JSON Schema of the topology file")

    explain = add("explain", "explain a diagnostic: what it means, an example, the way out")
    explain.add_argument("code", nargs="?", metavar="CODE", help="such as WG3003; without it, list all codes")

    init = add("init", "write a commented first topology")
    init.add_argument(
        "target", nargs="?", default="office.yaml", metavar="FILE", help="default office.yaml; - prints it"
    )
    return parser


def _add_keys(
    keys_parser: argparse.ArgumentParser,
    files: argparse.ArgumentParser,
    common: argparse.ArgumentParser,
    keys: argparse.ArgumentParser,
) -> None:
    actions = keys_parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")

    def add(name: str, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:  # noqa: A002
        description = help[0].upper() + help[1:] + "."
        return actions.add_parser(
            name, help=help, description=description, parents=list(parents), formatter_class=_Help, allow_abbrev=False
        )

    generate = add(
        "generate", "make the keys that are missing, and write the public ones into the topology", files, common, keys
    )
    generate.add_argument("--host", action="append", default=[], metavar="NAME", help="for this host alone")
    generate.add_argument("--encrypt", action="store_true", help="encrypt the key store's new files under a passphrase")
    show = add("show", "list the hosts' keys, secrets masked", files, common, keys)
    show.add_argument("--host", action="append", default=[], metavar="NAME", help="this host alone")
    show.add_argument("--show-secrets", action="store_true", help="do not mask secrets")
    show.add_argument("--format", choices=("table", "json"), default="table", metavar="FORMAT", help="table or json")
    export = add("export", "write one host's part of the key store, to be carried there", common, keys)
    export.add_argument("host", metavar="HOST", help="the host")
    export.add_argument("-o", "--output", metavar="DIR", help="the folder to write to, for the host's /etc/wgnet")
    export.add_argument("--show-secrets", action="store_true", help="without -o: print the secrets unmasked")
