"""The import dialogue's window under orders, so that a test sees what a person sees and does what a person does.

Run as a program by the distribution's own interpreter: the arguments are those of `wgnet-import-dialog`; one line of
JSON on standard input for each order, one on standard output for each answer. Orders: `look` (everything on the
screen), `choose` (a host), `type` (into the private key's field), `click` (a button), `walk` (the order of Tab).
Keys of the keyboard come from the X server.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gi

gi.require_version("Gtk", "3.0")
from gi.repository import GLib, Gtk  # noqa: E402 - versions come before

from wgnet.desktop.dialog import ImportDialog  # noqa: E402
from wgnet.desktop.main import _parser  # noqa: E402

MOST_STOPS = 20


class Orders:
    """What may be asked of a window."""

    def __init__(self, dialog: ImportDialog) -> None:
        self.dialog = dialog

    def look(self) -> dict[str, Any]:
        """Return all that can be seen: texts, fields, buttons, where they are, and what has the focus."""
        window = self.dialog.window
        width, height = window.get_size()
        minimum, _ = window.get_preferred_size()
        focus = window.get_focus()
        return {
            "texts": [each.get_text() for each in shown(window, Gtk.Label)],
            "busy": self.dialog.doing.get_text(),
            "host": self.dialog.hosts.get_active_id(),
            "hosts_shown": self.dialog.host_box.get_visible(),
            "key_shown": self.dialog.key_box.get_visible(),
            "key_on_screen": self.dialog.key.get_layout().get_text() if self.dialog.key_box.get_visible() else "",
            "buttons": {
                each.get_label().replace("_", ""): {
                    "sensitive": each.get_sensitive(),
                    "inside": self.inside(each),
                    "name": each.get_accessible().get_name(),
                }
                for each in shown(window, Gtk.Button)
                if each.get_label()
            },
            "size": [width, height],
            "minimum": [minimum.width, minimum.height],
            "scrolled": self.dialog.scrolled.get_vadjustment().get_value(),
            "focus": name_of(focus),
            "unnamed": [
                type(each).__name__
                for kind in (Gtk.Button, Gtk.Entry, Gtk.ComboBox, Gtk.ScrolledWindow)
                for each in shown(window, kind)
                if not is_part(each) and not name_of(each)
            ],
            "loud": [
                each.get_children()[0].get_children()[-1].get_text()
                for each in self.dialog.rows.get_children()
                if each.get_style_context().has_class("wgnet-loud")
            ],
        }

    def inside(self, widget: Any) -> bool:
        """Whether a widget lies in the window as a whole."""
        x, y = widget.translate_coordinates(self.dialog.window, 0, 0)
        width, height = self.dialog.window.get_size()
        size = widget.get_allocation()
        return x >= 0 and y >= 0 and x + size.width <= width and y + size.height <= height

    def resize(self, width: int, height: int) -> None:
        """Make the window as large as a small screen."""
        self.dialog.window.resize(width, height)

    def choose(self, name: str) -> None:
        """Choose a host."""
        self.dialog.hosts.set_active_id(name)

    def type(self, text: str) -> None:
        """Type a private key."""
        self.dialog.key.set_text(text)

    def click(self, label: str) -> None:
        """Click a button."""
        [button] = [
            each for each in shown(self.dialog.window, Gtk.Button) if (each.get_label() or "").replace("_", "") == label
        ]
        button.clicked()

    def walk(self) -> list[str]:
        """Return what Tab goes through, until it begins again."""
        window, stops = self.dialog.window, []
        for _ in range(MOST_STOPS):
            window.child_focus(Gtk.DirectionType.TAB_FORWARD)
            name = name_of(window.get_focus())
            if name in stops:
                break
            stops.append(name)
        return stops


def shown(widget: Any, kind: Any) -> list[Any]:
    """Return the widgets of a kind that are on the screen."""
    if not widget.get_visible():
        return []
    found = [widget] if isinstance(widget, kind) else []
    if isinstance(widget, Gtk.Container):
        parts: list[Any] = []
        widget.forall(parts.append)
        for part in parts:
            found += shown(part, kind)
    return found


def is_part(widget: Any) -> bool:
    """Whether a button is a part of a combo box."""
    return isinstance(widget, Gtk.Button) and widget.get_ancestor(Gtk.ComboBox) is not None


def name_of(widget: Any) -> str:
    """Return what a screen reader calls a widget: its name, or that of what labels it."""
    if widget is None:
        return ""
    if is_part(widget):
        widget = widget.get_ancestor(Gtk.ComboBox)
    accessible = widget.get_accessible()
    relations = accessible.ref_relation_set()
    for number in range(relations.get_n_relations()):
        relation = relations.get_relation(number)
        if relation.get_relation_type().value_nick == "labelled-by":
            return " ".join(each.get_name() or "" for each in relation.get_target())
    return accessible.get_name() or ""


def main() -> None:
    """Show a window and obey."""
    options = _parser().parse_args(sys.argv[1:])
    Gtk.init([])
    dialog = ImportDialog(options.file, host=options.host, keys=options.keys, passphrase_file=options.passphrase_file)
    orders = Orders(dialog)

    def obey(*_: Any) -> bool:
        line = sys.stdin.readline()
        if not line:
            Gtk.main_quit()
            return False
        order = json.loads(line)
        print(json.dumps(getattr(orders, order["do"])(*order["with"])), flush=True)
        return True

    GLib.io_add_watch(sys.stdin.fileno(), GLib.PRIORITY_DEFAULT_IDLE, GLib.IOCondition.IN | GLib.IOCondition.HUP, obey)
    status = dialog.run()
    print(json.dumps({"ended": status}), flush=True)


if __name__ == "__main__":
    main()
