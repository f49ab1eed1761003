"""The real NetworkManager on a message bus of its own, for tests that talk to it for longer than one question.

Input: a version, and how it is configured. Output: a bus address that clients of this process can connect to, the
folder of its keyfiles, and orders to kill and start it. Network and mounts are its own; nothing outside is changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from realparsers.sandbox import SandboxError, accounts, root_of

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
no-auto-default=*
dns=none
rc-manager=unmanaged
[logging]
level=INFO
"""
#: A person on the inside, who is not root.
USER, USER_NUMBER = "alice", 54321
_POLKIT_USER = 54322


class BusHost:
    """One bus with one NetworkManager; a context manager that ends both.

    `authorization` is `main.auth-polkit` of NetworkManager.conf(5). `connections` is the folder of the keyfiles.
    """

    def __init__(self, version: str, *, authorization: str = "true", files: dict[str, str] | None = None) -> None:
        # Other users connect too, so it cannot lie in pytest's folder, which is closed to them.
        self._work = Path(tempfile.mkdtemp(prefix="wgnet-bus-", dir="/tmp"))
        self._work.chmod(0o755)
        for name in ("bus", "connections", "conf", "lib", "log"):
            (self._work / name).mkdir()
        (self._work / "bus").chmod(0o755)
        self.connections = self._work / "connections"
        self.address = f"unix:path={self._work}/bus/system_bus_socket"
        users = accounts()
        for name, number in (("polkitd", _POLKIT_USER), (USER, USER_NUMBER)):
            users["passwd"] += f"{name}:x:{number}:{number}::/:/usr/sbin/nologin\n"
            users["group"] += f"{name}:x:{number}:\n"
        request = {
            "root": str(root_of(version)),
            "work": str(self._work),
            "accounts": users,
            "files": {
                "/etc/wgnet-bus.conf": _BUS_CONFIGURATION,
                "/etc/NetworkManager/NetworkManager.conf": (
                    _NM_CONFIGURATION.replace("[main]\n", f"[main]\nauth-polkit={authorization}\n")
                ),
                **(files or {}),
            },
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("inside_bus.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._ask(request)
            self.start("bus")
            self.start("NetworkManager")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> BusHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the daemons, and remove what they wrote."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(30)
        self._process.stdout.close()  # type: ignore[union-attr]
        self._process.stderr.close()  # type: ignore[union-attr]
        shutil.rmtree(self._work)

    def start(self, name: str) -> None:
        """Start `bus`, `NetworkManager` or `polkit`, and wait until it serves."""
        self._order("start", name)

    def kill(self, name: str) -> None:
        """Kill a daemon."""
        self._order("kill", name)

    def pause(self, name: str) -> None:
        """Stop a daemon where it is."""
        self._order("pause", name)

    def go_on(self, name: str) -> None:
        """Let a stopped daemon go on."""
        self._order("go_on", name)

    def run(self, *command: str) -> str:
        """Run a program in the daemons' network and return its output. Raises SandboxError where it fails."""
        done = self._order("run", list(command))
        if done["status"]:
            raise SandboxError(f"{command[0]}: {done['stderr']}")
        return str(done["stdout"])

    def log(self, name: str = "NetworkManager") -> str:
        """Return what a daemon has said."""
        return (self._work / "log" / name).read_text(errors="replace")

    def keyfiles(self) -> dict[str, bytes]:
        """Return the keyfiles by name."""
        return {path.name: path.read_bytes() for path in sorted(self.connections.iterdir())}

    def put(self, name: str, content: bytes) -> str:
        """Write a keyfile as root's alone, unknown to NetworkManager yet; return its path on the inside."""
        path = self.connections / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        return f"/etc/NetworkManager/system-connections/{name}"

    def _order(self, do: str, *arguments: Any) -> Any:
        answer = self._ask({"do": do, "with": arguments})
        if "error" in answer:
            raise SandboxError(answer["error"])
        return answer["value"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SandboxError(f"the namespaces are gone: {self._process.stderr.read()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
