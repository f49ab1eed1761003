"""The lab's machine: boots an image in qemu, without a network card, and runs scripts in it.

Input: an `Image`. The tests run outside and reach the guest's agent (guest/agent.py) over a virtio serial port. It
knows nothing of hosts or WireGuard; `network.py` builds these from scripts.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import io
import json
import os
import queue
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import console
from lab.image import Image, LabError

#: Software emulation by default: a hypervisor inside a virtual machine often starts, and then hangs.
_ACCELERATOR = "tcg,thread=multi"
#: The plainest processor is the fastest to emulate: with `max` the C library takes the vector instructions, which cost
#: half as much again (measured: 123 s of processor time against 83 s for the same boots). Without cx16, because
#: qemu 7.2 leaves nonsense in EFLAGS after cmpxchg16b: kernels from 6.12 on, whose allocator uses it, die of it.
_PROCESSOR = "qemu64,-cx16"
_BOOT_LIMIT = 400.0
#: What hardens a kernel, or looks for its own faults, costs under emulation, and no test is about it. norandmaps
#: halves all: where each process has its code at other addresses, qemu translates it again for each.
_KERNEL_LINE = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet panic=-1 systemd.show_status=false mitigations=off audit=0 lsm="
    " init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off kfence.sample_interval=0 nowatchdog"
    " rcupdate.rcu_expedited=1 norandmaps"
)


@dataclass(frozen=True)
class Result:
    """What a script left: its exit status (124 took too long, 125 no such host), and its output."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class File:
    """A file for the guest. `target` makes it a symbolic link, and then `content` is not looked at."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    target: str | None = None


class ScriptError(AssertionError):
    """A script that had to succeed failed."""


class Machine:
    """A running machine, with one processor as a rule: one for each core of ours. `close` ends it."""

    def __init__(self, image: Image, logs: Path, *, memory: int = 6144, processors: int | None = None) -> None:
        """Start the machine and wait until its agent answers. `memory` is in MiB.

        Its console goes to `logs`/console.log. Raises LabError when it does not come up.
        """
        logs.mkdir(parents=True, exist_ok=True)
        self.suite = image.suite
        self.logs = logs
        self._answers: dict[int, queue.SimpleQueue[dict[str, object]]] = {}
        self._next = 0
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        # Nobody but root: who reaches the console is root in the machine. A socket's path has to be short.
        self._folder = Path(tempfile.mkdtemp(prefix="wgnet-lab-"))
        self._console = self._folder / "console"
        log = logs / "console.log"
        processors = processors or int(os.environ.get("WGNET_LAB_CPUS", "1"))
        accelerator = os.environ.get("WGNET_LAB_ACCEL", _ACCELERATOR)
        command = [
            "qemu-system-x86_64",
            *("-machine", "q35", "-accel", accelerator),
            *("-cpu", "host" if accelerator.startswith("kvm") else _PROCESSOR),
            *("-m", str(memory), "-smp", str(processors)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-device", "virtio-rng-pci"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _KERNEL_LINE),
            *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe"),
            *("-chardev", f"socket,id=console,path={self._console},server=on,wait=off,logfile={log}"),
            *("-serial", "chardev:console"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,fd={theirs.fileno()}"),
            *("-device", "virtserialport,chardev=agent,name=org.wgnet.lab"),
        ]
        with (logs / "qemu.log").open("w") as said_by_qemu:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said_by_qemu,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        theirs.close()
        self._port = ours
        hello: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        self._answers[0] = hello
        threading.Thread(target=self._read, daemon=True).start()
        with contextlib.suppress(queue.Empty):
            if "hello" in hello.get(timeout=_BOOT_LIMIT):
                # udev would look at every port of every world, which costs more than to boot the hosts.
                self.run("udevadm settle --timeout=30; systemctl stop systemd-udevd.service 'systemd-udevd*.socket'")
                return
        self.close()
        said = (logs / "qemu.log").read_text(errors="replace")
        raise LabError(
            f"the machine of {image.suite} did not come up; qemu and its console's end:\n{said}{self.console()}"
        )

    def run(
        self, script: str, *, node: str | None = None, timeout: float = 60, check: bool = True, given: str = ""
    ) -> Result:
        """Run a bash script in the machine, or in `node` ("host:NAME", "netns:NAME"), with `given` as its input.

        `timeout` is in seconds. Raises ScriptError when `check` and it fails, LabError when the machine is gone.
        """
        answers: queue.SimpleQueue[dict[str, object]] = queue.SimpleQueue()
        with self._lock:
            self._next += 1
            number = self._next
            self._answers[number] = answers
        request = {"id": number, "script": script, "enter": node, "timeout": timeout, "input": given}
        data = json.dumps(request).encode() + b"\n"
        with self._lock:
            self._port.sendall(data)
        try:
            answer = answers.get(timeout=timeout + 120)
        except queue.Empty:
            answer = {}
        finally:
            del self._answers[number]
        if "status" not in answer:
            raise LabError(f"the machine of {self.suite} no longer answers; its console's end:\n{self.console()}")
        result = Result(int(str(answer["status"])), str(answer["stdout"]), str(answer["stderr"]))
        if check and result.status:
            where = f" in {node}" if node else ""
            raise ScriptError(f"status {result.status}{where} of: {script[:2000]}\n{result.stdout}{result.stderr}")
        return result

    def run_many(
        self, scripts: Sequence[tuple[str | None, str]], *, timeout: float = 60, check: bool = True
    ) -> list[Result]:
        """Run scripts (node, script) side by side in the machine and return their results in order."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, min(len(scripts), 16))) as pool:
            futures = [
                pool.submit(self.run, script, node=node, timeout=timeout, check=check) for node, script in scripts
            ]
        return [future.result() for future in futures]

    def put(self, files: Iterable[File], *, node: str | None = None, root: str = "/", first: str = "") -> None:
        """Write files below `root`, with their owners and modes, parents made as needed, after a script `first`."""
        packed = io.BytesIO()
        folders: set[str] = set()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for file in files:
                for parent in reversed(Path(file.path.lstrip("/")).parents):
                    if str(parent) != "." and str(parent) not in folders:
                        folders.add(str(parent))
                        entry = tarfile.TarInfo(str(parent))
                        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                        archive.addfile(entry)
                entry = tarfile.TarInfo(file.path.lstrip("/"))
                entry.mode, entry.uname, entry.gname = file.mode, file.owner, file.group
                entry.mtime = int(time.time())
                if file.target is not None:
                    entry.type, entry.linkname = tarfile.SYMTYPE, file.target
                    archive.addfile(entry)
                else:
                    entry.size = len(file.content)
                    archive.addfile(entry, io.BytesIO(file.content))
        unpack = f"tar -x -p --same-owner --no-overwrite-dir --keep-directory-symlink -C {shlex.quote(root)}"
        script = f"{first}\nbase64 -d | {unpack}"
        self.run(script, node=node, given=base64.b64encode(packed.getvalue()).decode())

    def console(self, lines: int = 40) -> str:
        """Return the end of the machine's console."""
        with contextlib.suppress(OSError):
            return "\n".join((self.logs / "console.log").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def shell(self) -> None:
        """Give the person at the terminal a shell in the machine; Ctrl-] leaves it. The machine goes on."""
        self._start_shell()
        console.attach(self._console)

    def leave(self) -> list[str]:
        """Leave the machine running, with a shell on its console; return how to reach and how to end it."""
        self._start_shell()
        script = Path(console.__file__)
        return [
            f"the machine of {self.suite} goes on; a shell in it, as root:",
            f"    python3 {script} {self._console}",
            "and the end of it:",
            f"    kill {self._process.pid}; rm -r {self._folder}",
        ]

    def _start_shell(self) -> None:
        self.put([File("/usr/local/bin/enter", console.ENTER.encode(), mode=0o755)])
        # It comes back where somebody ends it. Whoever comes in time sees no prompt before Enter.
        self.run(
            "systemctl is-active --quiet lab-shell || systemd-run --quiet --collect --unit=lab-shell -p Restart=always"
            " -p StandardInput=tty -p StandardOutput=tty -p StandardError=tty -p TTYPath=/dev/ttyS0 -p TTYReset=yes"
            " -E TERM=vt220 -E HOME=/root bash -l"
        )

    @property
    def ended(self) -> bool:
        """Whether the machine was closed."""
        return self._port.fileno() < 0

    def close(self) -> None:
        """End the machine at once. What is on its disk is gone."""
        self._process.kill()
        self._process.wait()
        self._port.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        pending = b""
        while True:
            try:
                chunk = self._port.recv(1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                # Whoever waits must not wait for a machine that is gone.
                for answers in list(self._answers.values()):
                    answers.put({})
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                waiting = self._answers.get(answer["id"])
                if waiting is not None:
                    waiting.put(answer)
