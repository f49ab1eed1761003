"""A terminal at a machine's console: `python3 tests/lab/console.py SOCKET`, as root.

Input: the path of the socket at which qemu offers the console. It relays bytes and knows nothing of what runs there.
Standard library alone: it reaches a machine that the tests have left running.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from pathlib import Path

_LEAVE = b"\x1d"
#: For the machine, as a command: enters a host as `Machine.run` does, or a namespace.
ENTER = """\
#!/bin/bash
# enter NODE [COMMAND...]: run a shell or a command on a host or another node of the lab's world.
folder=/sys/fs/cgroup/system.slice
if [ $# = 0 ]; then
    echo "hosts: $(cd $folder; echo lab-*.service/supervisor | sed 's,^lab-,,; s, lab-, ,g; s,.service/supervisor,,g')"
    echo "others: $(ip netns list | sed 's/ .*//' | grep -v '^host-' | tr '\\n' ' ')"
    exit
fi
node=$1
shift
[ $# = 0 ] && set -- bash
supervisor=$folder/lab-$node.service/supervisor/cgroup.procs
if [ -e "$supervisor" ]; then
    read -r process < "$supervisor"
    for child in $(cat "/proc/$process/task/$process/children"); do
        # The container's first process is the one that is 1 in there.
        if grep -q '^NSpid:.*[[:space:]]1$' "/proc/$child/status"; then
            exec nsenter --all --target "$child" -- "$@"
        fi
    done
fi
exec ip netns exec "$node" "$@"
"""


def attach(path: Path) -> None:
    """Join the terminal of this process to a console until Ctrl-] is typed or the machine ends.

    Raises OSError where nobody listens, and termios.error where standard input is no terminal.
    """
    before = termios.tcgetattr(sys.stdin)
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(path))
        print("lab: Ctrl-] leaves; `enter` lists the hosts, `enter HOST` is a shell on one; press Enter for a prompt")
        try:
            tty.setraw(sys.stdin)
            while True:
                ready, _, _ = select.select([sys.stdin, console], [], [])
                if sys.stdin in ready:
                    typed = os.read(sys.stdin.fileno(), 1024)
                    if not typed or _LEAVE in typed:
                        break
                    console.sendall(typed)
                if console in ready:
                    said = console.recv(4096)
                    if not said:
                        break
                    os.write(sys.stdout.fileno(), said)
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
            print()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: console.py SOCKET")
    attach(Path(sys.argv[1]))
