"""A screen without a monitor, and the import dialogue on it, run by the distribution's own interpreter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from realparsers.bus import USER_NUMBER
from realparsers.needs import SYSTEM_PYTHON, needs, needs_module
from realparsers.sandbox import require_root

import wgnet
from wgnet.managers.templates import package_folder

_DEADLINE_S = 60.0
_INSIDE = Path(__file__).with_name("inside_dialog.py")


class Window:
    """One dialogue on a screen, in a process of somebody's."""

    def __init__(self, command: list[str], user: int, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            user=user,
            group=user,
            extra_groups=[],
            cwd="/",
        )

    def do(self, order: str, *values: object) -> Any:
        """Give an order; return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps({'do': order, 'with': values})}\n")
        self._process.stdin.flush()
        return self._answer()

    def look(self, until: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Return what is on the screen, as soon as it is as wanted."""
        deadline = time.monotonic() + _DEADLINE_S
        while not until(found := self.do("look")):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return dict(found)

    def wait_for(self, text: str) -> dict[str, Any]:
        """Return what is on the screen once a text stands there."""
        return self.look(lambda found: any(text in each for each in found["texts"]))

    def press(self, *keys: str) -> None:
        """Press keys of the keyboard, as xdotool(1) names them."""
        # There is no window manager that would give the window the keyboard.
        found = subprocess.run(
            ["xdotool", "search", "--sync", "--onlyvisible", "--name", "Add a network", "windowfocus", "--sync"],
            env=self._environment,
            check=True,
            timeout=_DEADLINE_S,
        )
        assert found.returncode == 0
        subprocess.run(["xdotool", "key", *keys], env=self._environment, check=True, timeout=_DEADLINE_S)

    @property
    def ended(self) -> int:
        """The exit status with which it was closed."""
        return int(self._answer()["ended"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the dialogue ended without a word"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


class Screen:
    """An X server, and a folder that everybody may read, with the package and files to open."""

    def __init__(self, display: str, folder: Path) -> None:
        self.display = display
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        """Write a file that can be opened."""
        path = self.folder / name
        path.write_text(text)
        return path

    def environment(self, bus: str = "") -> dict[str, str]:
        """Return the environment of a program on the screen."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "DISPLAY": self.display,
            "GDK_BACKEND": "x11",
            # There is no session bus to be found, and none is wanted.
            "NO_AT_BRIDGE": "1",
            "GSETTINGS_BACKEND": "memory",
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(self.folder / "package"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DBUS_SYSTEM_BUS_ADDRESS": bus or f"unix:path={self.folder}/none",
        }

    def run(self, *command: str) -> str:
        """Run a program that looks at the screen; return what it says."""
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=True, timeout=_DEADLINE_S
        )
        return done.stdout

    @contextmanager
    def program(self, user: int, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
        """Run `wgnet-import-dialog` itself as a user."""
        with subprocess.Popen(
            [SYSTEM_PYTHON, "-P", "-m", "wgnet.desktop.main", *map(str, arguments)],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
            group=user,
            extra_groups=[],
            cwd="/",
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def dialog(self, path: Path, *options: str, bus: str = "", user: int = USER_NUMBER) -> Iterator[Window]:
        """Open a file as a user who is not root; `bus` is the address of the system's bus, none without."""
        environment = self.environment(bus)
        command = [SYSTEM_PYTHON, "-P", str(self.folder / _INSIDE.name), *options, str(path)]
        window = Window(command, user, environment)
        try:
            yield window
        finally:
            window.close()


@pytest.fixture(scope="session")
def screen() -> Iterator[Screen]:
    """A small screen."""
    require_root("the dialogue is run as another user")
    for program in ("Xvfb", "xdotool"):
        needs(program)
    needs_module("Gtk", "3.0")
    for name in ("jinja2", "yaml", "cryptography", "dbus_next"):
        needs_module(name)
    folder = Path(tempfile.mkdtemp(prefix="wgnet-screen-", dir="/tmp"))
    try:
        package = folder / "package" / "wgnet"
        source = Path(wgnet.__file__).parent
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "templates"))
        shutil.copytree(package_folder(), package / "templates")
        shutil.copy(_INSIDE, folder)
        (folder / "home").mkdir()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(folder / "home", USER_NUMBER, USER_NUMBER)
        reader, writer = os.pipe()
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writer), "-screen", "0", "800x700x24", "-nolisten", "tcp"],
            pass_fds=(writer,),
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        try:
            with open(reader, encoding="ascii") as pipe:
                number = pipe.readline().strip()
            assert number, "Xvfb did not start"
            yield Screen(f":{number}", folder)
        finally:
            server.terminate()
            server.wait()
    finally:
        shutil.rmtree(folder)
