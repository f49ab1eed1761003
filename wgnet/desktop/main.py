"""The program `wgnet-import-dialog`: its command line, and what is said where there is no desktop.

Stage: desktop. Input: arguments; output: an exit status, wgnet-import-dialog(1). Loads GTK when it is needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wgnet import __version__

__all__ = ["main", "run"]

_EXIT_NOT_STARTED = 6


def run() -> None:
    """Run the process's command line and exit."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Show the dialogue; return the exit status. Raises nothing but argparse's own SystemExit."""
    options = _parser().parse_args(arguments)
    try:
        import gi

        # Where GTK 4 is there too, its newer Gdk would be taken.
        gi.require_version("Gdk", "3.0")
        gi.require_version("Gtk", "3.0")
        from gi.repository import Gdk, GLib, Gtk
    except (ImportError, ValueError):
        return _refuse(
            "it needs GTK 3 for Python: Debian's python3-gi and gir1.2-gtk-3.0, Fedora's python3-gobject and gtk3"
        )
    # The desktop finds the .desktop file, and the icon in it, by this name.
    from wgnet.desktop.dialog import APPLICATION, ImportDialog, choose_file

    GLib.set_prgname(APPLICATION)
    Gdk.set_program_class(APPLICATION)
    GLib.set_application_name("wgnet")
    if not Gtk.init_check(None)[0]:
        return _refuse("there is no screen here; `wgnet apply FILE` does the same in a terminal")
    if os.geteuid() == 0:
        return _refuse("this is root's session, and it adds what a user may: use `wgnet apply FILE`")
    file = options.file or choose_file()
    if file is None:
        return _EXIT_NOT_STARTED
    return ImportDialog(
        str(Path(file).absolute()), host=options.host, keys=options.keys, passphrase_file=options.passphrase_file
    ).run()


def _refuse(why: str) -> int:
    if sys.stderr is not None:
        print(f"wgnet-import-dialog: {why}", file=sys.stderr)
    return _EXIT_NOT_STARTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wgnet-import-dialog",
        description="Show what a topology will add to this computer's networks, and add it.",
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="the topology; without it, it is asked for")
    parser.add_argument("--host", metavar="NAME", help="the host that this computer is")
    parser.add_argument("--keys", metavar="DIR", help="the key store, for keys that are not in the keyring yet")
    parser.add_argument(
        "--passphrase-file", metavar="FILE", help="read the key store's passphrase from FILE's first line"
    )
    parser.add_argument("--version", action="version", version=f"wgnet-import-dialog {__version__}")
    return parser


if __name__ == "__main__":
    run()
