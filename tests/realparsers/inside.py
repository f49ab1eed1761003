"""The part of the harness that runs inside the namespaces: start a daemon among a host's files, and tell what it did.

Input: a JSON request on standard input. Output: a JSON answer on standard output. It is started by `sandbox.py` as
the first process of a PID namespace with its own mount namespace, with `python3 -I -S`: it must not import anything
but the standard library, and it dies with everything that it started.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_IN_OPEN, _IN_NONBLOCK = 0x20, 0o4000

#: No start was seen to need more; a machine under load may.
_DEADLINE_S = 20.0
#: Silence after which nothing more is expected, when not all that was expected has come.
_QUIET_S = 0.6


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _check(
        _LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()),
        f"mount {kind} on {target}",
    )


def _enter_namespaces() -> None:
    """Give this process its own network and mount namespaces, with the loopback link up."""
    _check(_LIBC.unshare(_CLONE_NEWNS | _CLONE_NEWNET), "unshare")
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, struct.pack("16sH22x", b"lo", 0x41))


def _devices(base: str) -> None:
    if base:
        _mount("/dev", f"{base}/dev", "", _MS_BIND | _MS_REC)
        _mount("proc", f"{base}/proc", "proc")


def _furnish(root: str, tree: str, accounts: dict[str, str]) -> None:
    """Make `root` a host: /etc with the tree's files, an empty /run, /sys read-only so that none waits for udev."""
    base = root.rstrip("/")
    _devices(base)
    _mount("sysfs", f"{base}/sys", "sysfs", _MS_RDONLY)
    for folder in ("etc", "run"):
        _mount("tmpfs", f"{base}/{folder}", "tmpfs", 0, "mode=755")
    for name, content in accounts.items():
        with open(f"{base}/etc/{name}", "w") as file:
            file.write(content)
    os.makedirs(f"{base}/etc/systemd/network", exist_ok=True)
    for folder in ("etc", "run"):
        if os.path.isdir(f"{tree}/{folder}"):
            # Owners and modes of files are what is to be judged.
            subprocess.run(["cp", "-a", f"{tree}/{folder}/.", f"{base}/{folder}"], check=True)
            # Folders are the packages' on a real host, and the renderer's here.
            for path, _, _ in os.walk(f"{base}/{folder}"):
                os.chmod(path, 0o755)


class _Opened:
    """Tells which of some files were opened, by inotify: an open that fails is none."""

    def __init__(self, base: str, names: list[str]) -> None:
        self._fd = _check(_LIBC.inotify_init1(_IN_NONBLOCK), "inotify_init1")
        self._names: dict[int, str] = {}
        for name in names:
            watch = _check(_LIBC.inotify_add_watch(self._fd, f"{base}{name}".encode(), _IN_OPEN), name)
            self._names[watch] = name

    def read(self) -> set[str]:
        found: set[str] = set()
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                watch, _, _, length = struct.unpack_from("iIII", data, at)
                at += 16 + length
                if watch in self._names:
                    found.add(self._names[watch])


def _tun(name: str) -> int:
    """Create a link without ARP that has carrier while the result stays open: the nearest to WireGuard."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def _json_of(*command: str) -> list[Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []


def _networkd(request: dict[str, Any], with_links: bool) -> dict[str, Any]:
    """Run networkd once over the files; with `with_links`, with a stand-in link for each WireGuard interface.

    Without, the .netdev files are read. With, they are left out, since a link of another kind than its .netdev's would
    be refused, and the .network files are brought to bear on the stand-ins.
    """
    _enter_namespaces()
    root = request["root"]
    base = root.rstrip("/")
    _furnish(root, request["tree"], request["accounts"])
    files = request["files"]
    if with_links:
        for name in request["wireguard"]:
            os.unlink(base + name)
        files = [name for name in files if name not in request["wireguard"]]
        held = [_tun(name) for name in request["links"]]
    else:
        held = []
    state = f"{base}/run/systemd/netif"
    os.makedirs(state, exist_ok=True)
    if request["user"] is not None:
        os.chown(state, *request["user"])
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(f"{base}/run/wgnet-notify")
    os.chmod(f"{base}/run/wgnet-notify", 0o777)
    opened = _Opened(base, files)
    reader, writer = os.pipe()
    daemon = os.fork()
    if daemon == 0:
        os.dup2(writer, 2)
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.chroot(root)
        os.chdir("/")
        os.execve(
            "/usr/lib/systemd/systemd-networkd" if base else "/lib/systemd/systemd-networkd",
            ["systemd-networkd"],
            {
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "NOTIFY_SOCKET": "/run/wgnet-notify",
                "SYSTEMD_LOG_LEVEL": "debug",
                "SYSTEMD_LOG_TARGET": "console-prefixed",
                "SYSTEMD_LOG_COLOR": "0",
            },
        )
    os.close(writer)
    # What ends the waiting: each link configured, failed or unmanaged; each .netdev created or refused by the kernel.
    if with_links:
        missing = set(request["links"])
        ending = re.compile(r"<\d+>(?P<name>\S+): State changed: \S+ -> (?:configured|failed|unmanaged)\b")
    else:
        missing = set(request["netdevs"])
        ending = re.compile(
            r"<\d+>(?P<name>\S+): (?:netdev could not be created|Failed to create netdev|netdev ready|Created)\b"
        )
    ready, text, seen = False, b"", 0
    last = time.monotonic()
    deadline = last + _DEADLINE_S
    while time.monotonic() < deadline and not (ready and not missing):
        found, _, _ = select.select([reader, notify], [], [], 0.1)
        if notify in found and b"READY=1" in notify.recv(65536):
            ready = True
        if reader in found:
            data = os.read(reader, 65536)
            if not data:
                break
            text += data
            last = time.monotonic()
            whole = text.rfind(b"\n") + 1
            for line in text[seen:whole].decode(errors="replace").splitlines():
                if match := ending.match(line):
                    missing.discard(match["name"])
            seen = whole
        elif ready and time.monotonic() - last > _QUIET_S:
            break
    answer = {
        "ready": ready,
        "opened": sorted(opened.read()),
        "unfinished": sorted(missing),
        "addresses": _json_of("ip", "-j", "address", "show") if with_links else [],
        "routes": [],
        "rules": [],
    }
    if with_links:
        for family in ("-4", "-6"):
            answer["routes"] += _json_of("ip", "-j", family, "route", "show", "table", "all")
            answer["rules"] += _json_of("ip", "-j", family, "rule", "show")
    os.kill(daemon, signal.SIGKILL)
    while data := os.read(reader, 65536):
        text += data
    os.waitpid(daemon, 0)
    for fd in held:
        os.close(fd)
    return answer | {"log": text.decode(errors="replace")}


def _both(request: dict[str, Any]) -> dict[str, Any]:
    """Run networkd without and with links at the same time; return both answers."""
    pipes = []
    for with_links in (False, True):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                json.dump(_networkd(request, with_links), out)
            os._exit(0)
        os.close(writer)
        pipes.append(reader)
    answers = []
    for reader in pipes:
        with os.fdopen(reader) as source:
            answers.append(json.loads(source.read() or "null"))
    return dict(zip(("files", "links"), answers, strict=True))


_BUS = "unix:path=/run/dbus/system_bus_socket"
_BUS_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
<allow user="*"/></policy></busconfig>
"""
_NM_CONFIGURATION = """\
[main]
plugins=keyfile
auth-polkit=false
no-auto-default=*
dns=none
rc-manager=unmanaged
[logging]
level=INFO
"""


def _networkmanager(request: dict[str, Any]) -> dict[str, Any]:
    """Run NetworkManager once over the files, and read every profile back over its own bus."""
    _enter_namespaces()
    root = request["root"]
    base = root.rstrip("/")
    _furnish(root, request["tree"], request["accounts"])
    _mount("tmpfs", f"{base}/var", "tmpfs", 0, "mode=755")
    os.symlink("/run", f"{base}/var/run")
    for folder in ("run/dbus", "var/lib/NetworkManager", "etc/NetworkManager"):
        os.makedirs(f"{base}/{folder}", exist_ok=True)
    texts = {
        "etc/wgnet-bus.conf": _BUS_CONFIGURATION,
        "etc/NetworkManager/NetworkManager.conf": _NM_CONFIGURATION,
        # Nothing is to be activated: the kernel may lack WireGuard.
        "var/lib/NetworkManager/NetworkManager.state": "[main]\nNetworkingEnabled=false\n",
    }
    for name, text in texts.items():
        if not os.path.exists(f"{base}/{name}"):
            with open(f"{base}/{name}", "w") as file:
                file.write(text)
    inside = ["chroot", root]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DBUS_SYSTEM_BUS_ADDRESS": _BUS,
    }
    subprocess.run([*inside, "dbus-daemon", "--config-file=/etc/wgnet-bus.conf", "--fork"], check=True, env=environment)
    daemon = subprocess.Popen(
        [*inside, "NetworkManager", "--no-daemon", "--debug"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    assert daemon.stdout is not None
    text, deadline = b"", time.monotonic() + _DEADLINE_S
    while b"manager: startup complete" not in text and time.monotonic() < deadline:
        found, _, _ = select.select([daemon.stdout], [], [], 0.1)
        if found:
            data = os.read(daemon.stdout.fileno(), 65536)
            if not data:
                break
            text += data
    answer: dict[str, Any] = {"log": text.decode(errors="replace"), "ready": False, "profiles": {}}
    if b"manager: startup complete" not in text:
        return answer

    name = "org.freedesktop.NetworkManager"

    def ask(verb: str, path: str, interface: str, *arguments: str) -> Any:
        done = subprocess.run(
            [
                *inside,
                "busctl",
                f"--address={_BUS}",
                "--json=short",
                verb,
                name,
                path,
                f"{name}.{interface}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        return json.loads(done.stdout)["data"]

    answer["ready"] = True
    settings = "Settings.Connection"
    for path in ask("call", "/org/freedesktop/NetworkManager/Settings", "Settings", "ListConnections")[0]:
        file_name = ask("get-property", path, settings, "Filename")
        profile = ask("call", path, settings, "GetSettings")[0]
        if profile["connection"]["type"]["data"] != "wireguard":
            continue
        try:
            secrets = ask("call", path, settings, "GetSecrets", "s", "wireguard")[0]
        except subprocess.CalledProcessError:
            # What an agent keeps is not in the file; with no secret in it, 1.56 makes an error of the question.
            if not profile["wireguard"].get("private-key-flags", {"data": 0})["data"] & 1:
                raise
            secrets = {}
        answer["profiles"][file_name] = {"settings": profile, "secrets": secrets.get("wireguard", {})}
    daemon.kill()
    rest, _ = daemon.communicate()
    answer["log"] += rest.decode(errors="replace")
    return answer


def _command(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command among the files; return its status and output."""
    _enter_namespaces()
    if request["tree"] is None:
        _devices(request["root"].rstrip("/"))
    else:
        _furnish(request["root"], request["tree"], request["accounts"])
    done = subprocess.run(
        ["chroot", request["root"], *request["command"]],
        input=request["input"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **request["environment"]},
    )
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def main() -> None:
    """Read the request, serve it, write the answer."""
    request = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = {"networkd": _both, "networkmanager": _networkmanager, "command": _command}[request["what"]](request)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    assert shutil.which("ip"), "iproute2 is missing"
    main()
