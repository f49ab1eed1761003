"""A message bus and NetworkManager in namespaces of their own, kept running for whoever holds the other end.

Run by `bus.py` as a program, with one JSON object on standard input: `root` (of the version), `work` (a folder that
both sides see: `bus`, `connections`, `etc`, `lib`), `accounts`. Then one line of JSON for each order on standard
input, and one for each answer on standard output. It ends all with the end of its standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import inside

_PR_SET_PDEATHSIG = 1
_DEADLINE_S = 30.0
_BUS = "unix:path=/run/dbus/system_bus_socket"
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Host:
    """The two daemons, each of which can be killed and started again."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._root: str = request["root"]
        self._work: str = request["work"]
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        base = self._root.rstrip("/")
        inside._enter_namespaces()
        # What both sides see is hidden soon by what is mounted over it.
        work = os.open(self._work, os.O_PATH | os.O_DIRECTORY)
        empty = f"{self._work}/empty"
        os.makedirs(empty)
        inside._furnish(self._root, empty, request["accounts"])
        inside._mount("tmpfs", f"{base}/var", "tmpfs", 0, "mode=755")
        os.symlink("/run", f"{base}/var/run")
        for own, place in (
            ("bus", "run/dbus"),
            ("connections", "etc/NetworkManager/system-connections"),
            ("conf", "etc/NetworkManager/conf.d"),
            ("lib", "var/lib/NetworkManager"),
        ):
            os.makedirs(f"{base}/{place}")
            inside._mount(f"/proc/self/fd/{work}/{own}", f"{base}/{place}", "", inside._MS_BIND)
        for name, text in request["files"].items():
            os.makedirs(os.path.dirname(f"{base}{name}"), exist_ok=True)
            with open(f"{base}{name}", "w") as file:
                file.write(text)
        self._log = f"{self._work}/log"

    def start(self, name: str) -> None:
        """Start a daemon and wait until it serves."""
        command = {
            "bus": ["dbus-daemon", "--config-file=/etc/wgnet-bus.conf", "--nofork", "--nopidfile"],
            "NetworkManager": ["NetworkManager", "--no-daemon", "--debug"],
            "polkit": ["/usr/lib/polkit-1/polkitd", "--no-debug"],
        }[name]
        log = f"{self._log}/{name}"
        with open(log, "ab") as out:
            start = out.tell()
            self._children[name] = subprocess.Popen(
                ["chroot", self._root, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DBUS_SYSTEM_BUS_ADDRESS": _BUS},
                preexec_fn=_die_with_parent,
            )
        deadline = time.monotonic() + _DEADLINE_S
        while not self._serves(name, log, start):
            if self._children[name].poll() is not None or time.monotonic() > deadline:
                with open(log, errors="replace") as file:
                    raise RuntimeError(f"{name} did not start: {file.read()[-2000:]}")
            time.sleep(0.02)

    def _serves(self, name: str, log: str, start: int) -> bool:
        if name == "bus":
            return os.path.exists(f"{self._work}/bus/system_bus_socket")
        if name == "polkit":
            # `call` of the other side tells when it has its name.
            return True
        with open(log, "rb") as file:
            file.seek(start)
            return b"manager: startup complete" in file.read()

    def kill(self, name: str) -> None:
        """End a daemon without a last word."""
        child = self._children.pop(name)
        child.kill()
        child.wait()
        if name == "bus":
            os.unlink(f"{self._work}/bus/system_bus_socket")

    def run(self, command: list[str]) -> dict[str, Any]:
        """Run a program beside the daemons."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    def pause(self, name: str) -> None:
        """Stop a daemon where it is."""
        self._children[name].send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let a stopped daemon go on."""
        self._children[name].send_signal(signal.SIGCONT)


def main() -> None:
    """Serve orders until there are no more."""
    host = Host(json.loads(sys.stdin.readline()))
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"value": getattr(host, order["do"])(*order["with"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
