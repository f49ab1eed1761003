"""Which host a command is about: `--host`, what this boot was told, /etc/wgnet/host, or the short host name."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from wgnet.cli.context import Context
from wgnet.diagnostics import codes
from wgnet.diagnostics.words import system_reason
from wgnet.system.rootpath import path_below

#: How much is read of the file that names the host, in bytes: a line.
MAX_NAME = 4096
#: The credential (systemd.system-credentials(7)) and the kernel's parameter that name the host for one boot.
OVERRIDE = "wgnet.host"
_SYSTEM_CREDENTIALS = "/run/credentials/@system"


def this_host(context: Context, given: Sequence[str]) -> str | None:
    """Return the name of the host that a command is about, or None after reporting that there is none.

    Below another root the machine's own name says nothing; in a chroot, where packages are installed into an image, the
    running machine is another one, and the name is the one that /etc/hostname gives.
    """
    if given:
        return given[0]
    own = str(context.root) == "/"
    elsewhere = own and _is_chroot()
    if own and not elsewhere and (told := _override()):
        return told
    path = context.root / "etc/wgnet/host"
    try:
        if name := _first_line(path_below(str(context.root), "etc/wgnet/host")):
            return name
    except OSError as error:
        context.diagnostics.report(codes.UNKNOWN_HOST_ARGUMENT, f"'{path}' cannot be read: {system_reason(error)}")
        return None
    name = _image_name() if elsewhere else socket.gethostname() if own else ""
    if name:
        return name.partition(".")[0]
    context.diagnostics.report(
        codes.UNKNOWN_HOST_ARGUMENT,
        "which host is this? there is no /etc/hostname in this chroot"
        if own
        else f"which host is '{context.root}'? the name of this machine says nothing about another root",
        help=(f"name it in '{path}'", "name it with --host"),
    )
    return None


def name_of_machine(context: Context) -> str | None:
    """Return the name of this machine, or None, and report nothing."""
    return this_host(Context(options=context.options, output=context.output), getattr(context.options, "host", ()))


def _first_line(path: str) -> str:
    """Return the first line of a file, empty where there is none. Raises `OSError`."""
    try:
        # Opening a pipe that nobody writes to would wait for ever; reading one is the end of the file at once.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as stream:
            text = stream.read(MAX_NAME).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
    return text.split("\n", 1)[0].strip()


def _override() -> str:
    """Return the name that a credential or the kernel's command line gives this machine, empty where none does."""
    for folder in (os.environ.get("CREDENTIALS_DIRECTORY"), _SYSTEM_CREDENTIALS):
        if folder:
            try:
                if name := _first_line(f"{folder}/{OVERRIDE}"):
                    return name
            except OSError:  # the system's credentials are root's
                continue
    # In a container it is the command line of the machine that the container runs on.
    if os.path.exists("/run/systemd/container"):
        return ""
    try:
        words = _first_line("/proc/cmdline").split()
    except OSError:
        return ""
    return next((value for name, _, value in (word.partition("=") for word in words) if name == OVERRIDE), "")


def _is_chroot() -> bool:
    """Tell whether the root is another than that of the first process; without /proc it is taken for one.

    A service with mounts of its own is in none: what is mounted on its root is the same.
    """
    try:
        return _mounted_root("self") != _mounted_root("1")
    except OSError:
        return True


def _mounted_root(process: str) -> list[bytes]:
    """Return the device and the folder in it that are a process's root; nothing where no mount begins there."""
    root: list[bytes] = []
    with open(f"/proc/{process}/mountinfo", "rb") as stream:
        for line in stream:
            _, _, device, folder, place, *_ = line.split(b" ")
            if place == b"/":
                root = [device, folder]
    return root


def _image_name() -> str:
    """Return what /etc/hostname says, empty where it says nothing."""
    try:
        name = _first_line("/etc/hostname")
    except OSError:
        return ""
    return "" if name.startswith("#") else name


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
