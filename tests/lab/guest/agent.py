#!/usr/bin/python3
"""The lab's agent: runs scripts inside the machine for the tests outside, several at a time.

Over the virtio serial port that it is given come lines of JSON, and go the answers, in any order:

    {"id": 1, "script": "ip link", "input": "", "timeout": 60, "enter": null | "netns:NAME" | "host:NAME"}
    {"id": 1, "status": 0, "stdout": "...", "stderr": "..."}

A script is run by bash. `enter` runs it in a named network namespace, or wholly inside the container of a host. A
status of 124 is a script that took too long. It knows nothing of WireGuard. Standard library alone: it lives in the
image, of whichever suite.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

#: How long a host that was just started may take until its first process is there.
BOOT_SECONDS = 20
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}

_WRITING = threading.Lock()


def leader(host):
    """Return the process id of a container's first process, or None while there is none."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        folder = f"/sys/fs/cgroup/system.slice/lab-{host}.service"
        with open(f"{folder}/supervisor/cgroup.procs") as file:
            supervisor = int(file.read().split()[0])
        with open(f"/proc/{supervisor}/task/{supervisor}/children") as file:
            for child in file.read().split():
                # nspawn's own helper dies soon; the leader is the one whose first process id is 1 in its namespace.
                with open(f"/proc/{child}/status") as status:
                    for line in status:
                        if line.startswith("NSpid:") and line.split()[-1] == "1":
                            return int(child)
    return None


def command(request):
    """Return the argument list of a request."""
    kind, _, name = (request.get("enter") or "").partition(":")
    shell = ["/bin/bash", "-euo", "pipefail", "-c", request["script"]]
    if kind == "netns":
        return ["/usr/sbin/ip", "netns", "exec", name, *shell]
    if kind == "host":
        process = leader(name)
        limit = time.monotonic() + BOOT_SECONDS
        while process is None and time.monotonic() < limit:
            time.sleep(0.1)
            process = leader(name)
        if process is None:
            return ["/bin/bash", "-c", 'echo "$0: no such host is running" >&2; exit 125', name]
        return ["/usr/bin/nsenter", "--all", "--target", str(process), "--", *shell]
    return shell


def handle(port, request):
    """Run one request and write its answer."""
    answer = {"id": request["id"]}
    try:
        # Files, not pipes: a daemon that a script leaves behind would hold a pipe open for ever.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(request.get("input", "").encode())
            given.seek(0)
            process = subprocess.Popen(
                command(request),
                stdin=given,
                stdout=out,
                stderr=err,
                start_new_session=True,
                cwd="/",
                env=ENVIRONMENT,
            )
            try:
                answer["status"] = process.wait(timeout=request.get("timeout", 60))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                answer["status"] = 124
            for name, file in (("stdout", out), ("stderr", err)):
                file.seek(0)
                answer[name] = file.read().decode(errors="replace")
    except Exception as error:  # the agent must outlive whatever it is asked for
        answer.update(status=126, stdout="", stderr=f"{type(error).__name__}: {error}")
    send(port, answer)


def send(port, message):
    """Write one message whole."""
    with _WRITING:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(port, data) :]


def main():
    """Serve until the port closes."""
    port = os.open(sys.argv[1], os.O_RDWR)
    with open("/proc/uptime") as file:
        send(port, {"id": 0, "hello": float(file.read().split()[0])})
    pending = b""
    while True:
        chunk = os.read(port, 1 << 16)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            threading.Thread(target=handle, args=(port, json.loads(line)), daemon=True).start()


if __name__ == "__main__":
    main()
