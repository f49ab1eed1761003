"""The import dialogue's window: rows of `summary` on a screen, and two buttons. The one module that knows GTK.

Stage: desktop. Input: a file; output: what the worker did, and an exit status. Every text comes from `summary` and is
shown as it is, never as markup; what is typed as a private key is never shown, and leaves by the worker's pipe alone.
"""

from __future__ import annotations

import base64
import json
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict
from itertools import takewhile
from typing import Any

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gtk", "3.0")
gi.require_version("Atk", "1.0")
from gi.repository import Atk, Gdk, Gio, GLib, Gtk, Pango  # noqa: E402 - versions come before

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED  # noqa: E402
from wgnet.desktop.opened import Opened, open_topology  # noqa: E402
from wgnet.desktop.summary import (  # noqa: E402
    EXIT_INTERNAL,
    STOPPED,
    Problem,
    Row,
    describe_change,
    describe_outcome,
    describe_problems,
    key_problem,
)

__all__ = ["APPLICATION", "ImportDialog", "choose_file"]

#: What the desktop knows the program by: the names of its .desktop file and of its icon.
APPLICATION = "org.example.wgnet"
_ICON = "wgnet"
_STYLE = b"""
.wgnet-title { font-weight: bold; font-size: 120%; }
.wgnet-row-title { font-weight: bold; }
.wgnet-loud { border-left: 4px solid #c64600; padding-left: 8px; }
"""
_PAGES = {Gdk.KEY_Page_Up: Gtk.ScrollType.PAGE_BACKWARD, Gdk.KEY_Page_Down: Gtk.ScrollType.PAGE_FORWARD}
_SPACE = 12
#: As wide as a line of text is pleasant to read, and no wider than the smallest screens.
_WIDTH, _HEIGHT = 560, 620
_NARROW = 24


def choose_file() -> str | None:
    """Ask for a file; return its path, None where none was chosen."""
    chooser = Gtk.FileChooserNative.new("Open a network", None, Gtk.FileChooserAction.OPEN, "_Open", "_Cancel")
    for name, patterns in (("Networks (*.wgnet.yaml)", ("*.wgnet.yaml",)), ("YAML files", ("*.yaml", "*.yml"))):
        kind = Gtk.FileFilter()
        kind.set_name(name)
        for pattern in patterns:
            kind.add_pattern(pattern)
        chooser.add_filter(kind)
    answer = chooser.run()
    path: str | None = chooser.get_filename() if answer == Gtk.ResponseType.ACCEPT else None
    chooser.destroy()
    return path


class ImportDialog:
    """One window about one file. `status` is the exit status of the program when it has been closed."""

    def __init__(
        self, path: str, *, host: str | None = None, keys: str | None = None, passphrase_file: str | None = None
    ) -> None:
        self.status = EXIT_NOT_STARTED
        self._opened: Opened = open_topology(path, host)
        self._keys = keys
        self._passphrase_file = passphrase_file
        self._host = self._opened.choice.chosen
        self._worker: Any = None
        self._planner: Any = None
        #: Counts requests: an answer to an earlier one, about another host, is late.
        self._asked = 0
        self._closing = False
        self._publics: tuple[str, ...] = ()
        #: How many loud rows stand before all others.
        self._lead = 0
        self._build()
        self._show_host()

    def run(self) -> int:
        """Show the window until it is closed; return the exit status."""
        self.window.show_all()
        self._refresh_visibility()
        self.add.grab_focus() if self.add.get_sensitive() else self.cancel.grab_focus()
        Gtk.main()
        return self.status

    # --- the window --------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        provider = Gtk.CssProvider()
        provider.load_from_data(_STYLE)
        self.window = Gtk.Window(title="Add a network", icon_name=_ICON)
        self.window.set_default_size(_WIDTH, _HEIGHT)
        self.window.get_accessible().set_role(Atk.Role.DIALOG)
        self.window.connect("delete-event", self._on_close)
        self.window.connect("key-press-event", self._on_key)
        Gtk.StyleContext.add_provider_for_screen(
            self.window.get_screen(), provider, Gtk.STYLE_PROVIDER_PRIORITY_APPLICATION
        )
        outside = Gtk.Box(orientation=Gtk.Orientation.VERTICAL)
        self.window.add(outside)
        # All but the buttons scrolls: a small screen, or large letters, leave room for nothing else.
        self.scrolled = Gtk.ScrolledWindow(hscrollbar_policy=Gtk.PolicyType.NEVER, vexpand=True)
        self.scrolled.get_accessible().set_name("What will be added")
        outside.pack_start(self.scrolled, True, True, 0)
        inside = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=_SPACE, border_width=_SPACE)
        self.scrolled.add(inside)
        self.title = _label("", "wgnet-title")
        inside.pack_start(self.title, False, False, 0)
        self._build_host(inside)
        self.rows = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=_SPACE)
        inside.pack_start(self.rows, False, False, 0)
        self._build_key(inside)
        outside.pack_start(Gtk.Separator(), False, False, 0)
        self._build_buttons(outside)

    def _build_host(self, inside: Any) -> None:
        hosts = self._opened.choice.hosts
        self.host_box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=4)
        label = _label("This computer _is:", "wgnet-row-title", mnemonic=True)
        self.hosts = Gtk.ComboBoxText()
        for name, text in hosts:
            self.hosts.append(name, text)
        for cell in self.hosts.get_cells():
            # A long description must not make the window wide.
            cell.set_property("ellipsize", Pango.EllipsizeMode.END)
        if self._host is not None:
            self.hosts.set_active_id(self._host)
        label.set_mnemonic_widget(self.hosts)
        self.hosts.connect("changed", self._on_host)
        self.host_box.pack_start(label, False, False, 0)
        self.host_box.pack_start(self.hosts, False, False, 0)
        inside.pack_start(self.host_box, False, False, 0)

    def _build_key(self, inside: Any) -> None:
        self.key_box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=4)
        label = _label("Private _key, if it was given to you:", "wgnet-row-title", mnemonic=True)
        self.key = Gtk.Entry(visibility=False, input_purpose=Gtk.InputPurpose.PASSWORD, width_chars=_NARROW)
        self.key.set_activates_default(True)
        self.key.connect("changed", self._on_key_typed)
        label.set_mnemonic_widget(self.key)
        self.key_said = _label("")
        _relate(self.key, Atk.RelationType.DESCRIBED_BY, self.key_said)
        for each in (label, self.key, self.key_said):
            self.key_box.pack_start(each, False, False, 0)
        inside.pack_start(self.key_box, False, False, 0)

    def _build_buttons(self, outside: Any) -> None:
        line = Gtk.Box(spacing=_SPACE, border_width=_SPACE)
        self.spinner = Gtk.Spinner()
        self.doing = _label("")
        self.doing.set_ellipsize(Pango.EllipsizeMode.END)
        self.doing.set_line_wrap(False)
        self.doing.set_width_chars(0)
        self.cancel = Gtk.Button(label="_Cancel", use_underline=True)
        self.cancel.connect("clicked", self._on_cancel)
        self.add = Gtk.Button(label="_Add", use_underline=True, can_default=True)
        self.add.connect("clicked", self._on_add)
        line.pack_start(self.spinner, False, False, 0)
        line.pack_start(self.doing, True, True, 0)
        line.pack_start(self.cancel, False, False, 0)
        line.pack_start(self.add, False, False, 0)
        outside.pack_start(line, False, False, 0)
        self.window.set_default(self.add)

    def _show(self, title: str, rows: Iterable[Row]) -> None:
        self.title.set_text(title)
        for child in self.rows.get_children():
            child.destroy()
        for row in rows:
            self._append(row)

    def _append(self, row: Row, place: int = -1) -> None:
        widget = _row(row)
        self.rows.pack_start(widget, False, False, 0)
        self.rows.reorder_child(widget, place)
        widget.show_all()

    # --- a host and what adding it would do --------------------------------------------------------------------------

    def _show_host(self) -> None:
        summary = self._opened.summary(self._host)
        self._publics = summary.publics
        self._lead = sum(1 for _ in takewhile(lambda row: row.loud, summary.rows))
        self._wants_key = summary.wants_key
        self._possible = summary.possible
        self._show(summary.title, summary.rows)
        self._refresh_visibility()
        if summary.possible:
            self._end_planner()
            self._planner = self._ask("plan", self._on_planned)

    def _refresh_visibility(self) -> None:
        busy = self._worker is not None
        self.host_box.set_visible(len(self._opened.choice.hosts) > 0)
        self.key_box.set_visible(self._wants_key)
        said = key_problem(self.key.get_text().strip(), self._publics)
        self.key_said.set_text(said)
        self.key_said.set_visible(bool(said))
        self.add.set_sensitive(self._possible and not busy and not said)
        self.hosts.set_sensitive(not busy)
        self.key.set_sensitive(not busy)

    def _on_host(self, combo: Any) -> None:
        self._host = combo.get_active_id()
        self._show_host()

    def _on_key_typed(self, _: Any) -> None:
        self._refresh_visibility()

    # --- the worker --------------------------------------------------------------------------------------------------

    def _ask(self, do: str, then: Any) -> Any:
        """Have a worker do something; call `then` with its answer, unless something else has been asked since."""
        self._asked += 1
        asked = self._asked
        request = {
            "do": do,
            "path": self._opened.path,
            "topology": base64.b64encode(self._opened.data).decode(),
            "host": self._host,
            "keys": self._keys,
            "passphrase_file": self._passphrase_file,
            "private_key": self.key.get_text().strip(),
        }
        # -P: the current folder, where downloads may lie, has no modules of this program.
        worker = Gio.Subprocess.new(
            [sys.executable, "-P", "-m", "wgnet.desktop.worker"],
            Gio.SubprocessFlags.STDIN_PIPE | Gio.SubprocessFlags.STDOUT_PIPE,
        )

        def ended(process: Any, result: Any) -> None:
            try:
                _, text, _ = process.communicate_utf8_finish(result)
                answer = json.loads(text)
            except (GLib.Error, ValueError, TypeError):
                # Asked to end, it answers as soon as it has begun to change anything.
                stopped = process.get_if_signaled() and process.get_term_sig() == signal.SIGTERM
                status = EXIT_NOT_STARTED if stopped else EXIT_INTERNAL
                problems = [asdict(STOPPED)] if stopped else []
                answer = {"status": status, "problems": problems, "steps": [], "polkit": ""}
            if asked == self._asked:
                then(answer)

        worker.communicate_utf8_async(json.dumps(request), None, ended)
        return worker

    def _end_planner(self) -> None:
        if self._planner is not None:
            self._planner.force_exit()
            self._planner = None

    def _on_planned(self, answer: dict[str, Any]) -> None:
        change = [describe_change(answer["steps"], answer["polkit"])] if answer["status"] == EXIT_DONE else []
        problems = describe_problems(_problems(answer))
        # What stands in the way must be seen without scrolling, and yet hide nothing like "all traffic".
        for row in reversed([*(each for each in problems if each.loud), *change]):
            self._append(row, self._lead)
        for row in problems:
            if not row.loud:
                self._append(row)

    def _on_add(self, _: Any) -> None:
        if not self.add.get_sensitive():
            return
        self._worker = self._ask("apply", self._on_added)
        self.spinner.start()
        self.doing.set_text("Adding it …")
        self.cancel.set_label("_Stop")
        self._refresh_visibility()
        self.cancel.grab_focus()

    def _on_added(self, answer: dict[str, Any]) -> None:
        self._worker = None
        self.status = int(answer["status"])
        self.spinner.stop()
        self.doing.set_text("")
        self.cancel.set_label("_Close")
        title, rows = describe_outcome(self._opened.network, self.status, _problems(answer))
        self._show(title, rows)
        done = self.status == EXIT_DONE
        if done:
            self.key.set_text("")
            self._wants_key = False
        self._refresh_visibility()
        self.host_box.set_visible(not done and self.host_box.get_visible())
        self.add.set_visible(not done)
        self.add.set_label("_Try again")
        self.cancel.grab_focus()
        # A screen reader says the new headline.
        self.title.get_accessible().emit("visible-data-changed")
        if self._closing:
            self._quit()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _on_cancel(self, _: Any) -> None:
        if self._worker is None:
            self._quit()
        else:
            # It puts back what it has done, and answers.
            self.doing.set_text("Putting everything back …")
            self._worker.send_signal(signal.SIGTERM)

    def _on_close(self, *_: Any) -> bool:
        if self._worker is not None:
            self._closing = True
        self._on_cancel(None)
        return True

    def _on_key(self, _: Any, event: Any) -> bool:
        if event.keyval == Gdk.KEY_Escape:
            self._on_cancel(None)
            return True
        page = _PAGES.get(event.keyval)
        if page is not None:
            # Also from the buttons, which are outside of what scrolls.
            self.scrolled.emit("scroll-child", page, False)
        return page is not None

    def _quit(self) -> None:
        self.key.set_text("")
        self._asked += 1
        self._end_planner()
        self.window.destroy()
        Gtk.main_quit()


# --- pieces ----------------------------------------------------------------------------------------------------------


def _problems(answer: dict[str, Any]) -> list[Problem]:
    return [Problem(**{**each, "help": tuple(each["help"])}) for each in answer["problems"]]


def _label(text: str, style: str | None = None, *, mnemonic: bool = False) -> Any:
    label = Gtk.Label(xalign=0, wrap=True, wrap_mode=Pango.WrapMode.WORD_CHAR, width_chars=_NARROW)
    label.set_max_width_chars(_NARROW)
    label.set_hexpand(True)
    if mnemonic:
        label.set_text_with_mnemonic(text)
    else:
        label.set_text(text)
    if style is not None:
        label.get_style_context().add_class(style)
    return label


def _row(row: Row) -> Any:
    """Return a title and its lines; a screen reader reads them together."""
    box = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=2)
    title = _label(row.title, "wgnet-row-title")
    text = _label(row.text)
    _relate(text, Atk.RelationType.LABELLED_BY, title)
    head = Gtk.Box(spacing=6)
    if row.loud:
        box.get_style_context().add_class("wgnet-loud")
        icon = Gtk.Image.new_from_icon_name("dialog-warning-symbolic", Gtk.IconSize.BUTTON)
        icon.get_accessible().set_name("Attention")
        head.pack_start(icon, False, False, 0)
    head.pack_start(title, True, True, 0)
    box.pack_start(head, False, False, 0)
    box.pack_start(text, False, False, 0)
    return box


def _relate(widget: Any, relation: Any, other: Any) -> None:
    widget.get_accessible().add_relationship(relation, other.get_accessible())
