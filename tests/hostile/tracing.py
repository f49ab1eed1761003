"""A child process that is stopped at each of its system calls, to be killed there or to have the call fail.

ptrace(2) by hand: a run costs a fork and no start of an interpreter, so that a test can try every call there is.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

_TRACEME, _SYSCALL, _SETOPTIONS, _POKEUSER, _SYSCALL_INFO = 0, 24, 0x4200, 6, 0x420E
_TRACESYSGOOD, _EXITKILL = 1, 0x100000
#: struct user of x86-64: where orig_rax and rax are (sys/user.h).
_ORIG_RAX, _RAX = 15 * 8, 10 * 8

#: The calls that change a disk or may fail on one, by their x86-64 numbers (asm/unistd_64.h).
CALLS = {
    0: "read",
    1: "write",
    73: "flock",
    74: "fsync",
    91: "fchmod",
    93: "fchown",
    217: "getdents64",
    257: "openat",
    258: "mkdirat",
    262: "newfstatat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    266: "symlinkat",
    267: "readlinkat",
    268: "fchmodat",
    306: "syncfs",
    280: "utimensat",
    316: "renameat2",
}
#: Those among them that change nothing; what a killed run leaves is the same before and after one.
_READING = {"read", "getdents64", "newfstatat", "readlinkat"}
_OPENAT, _O_CREAT = 257, os.O_CREAT

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info of linux/ptrace.h, as it is at the entry of a call."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
        ("rest", ctypes.c_uint64 * 2),
    )


@dataclass(frozen=True)
class Ending:
    """How a child ended: its status, or None when it was killed; the name of the call that was hit, '' for none."""

    status: int | None
    call: str


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace request {request}: {os.strerror(number)}")


def _fork(action: Callable[[], int], *, traced: bool) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            if traced:
                _ptrace(_TRACEME, 0)
                os.kill(os.getpid(), signal.SIGSTOP)
            status = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def in_child(action: Callable[[], int]) -> int:
    """Run an action in a child, untraced; return its status."""
    return os.waitstatus_to_exitcode(os.waitpid(_fork(action, traced=False), 0)[1])


def start_child(action: Callable[[], int]) -> int:
    """Start an action in a child; return its process id."""
    return _fork(action, traced=False)


def trace(action: Callable[[], int], number: int, fail: int | None = None) -> Ending:
    """Run an action in a child, and hit its system call `number`, which counts from 1.

    The child is killed before the call, of those that change a disk: a kill at any other call leaves what a kill at
    the next of these does. With `fail`, an errno, all of `CALLS` count, and the call fails.
    """
    assert platform.machine() == "x86_64", "the numbers of the calls are those of x86-64"
    pid = _fork(action, traced=True)
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, 0, _TRACESYSGOOD | _EXITKILL)
    count, hit, failing = 0, "", False
    info = _Info()
    forward = 0
    while True:
        _ptrace(_SYSCALL, pid, 0, forward)
        forward = 0
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return Ending(os.waitstatus_to_exitcode(status), hit)
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            forward = os.WSTOPSIG(status)
            continue
        _ptrace(_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op == 2:
            if failing:
                assert fail is not None
                _ptrace(_POKEUSER, pid, _RAX, -fail & 0xFFFFFFFFFFFFFFFF)
                failing = False
            continue
        if info.nr not in CALLS:
            continue
        if fail is None:
            if CALLS[info.nr] in _READING or (info.nr == _OPENAT and not info.arguments[2] & _O_CREAT):
                continue
            count += 1
            if count == number:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return Ending(None, CALLS[info.nr])
        else:
            count += 1
            if count == number:
                _ptrace(_POKEUSER, pid, _ORIG_RAX, 0xFFFFFFFFFFFFFFFF)
                hit, failing = CALLS[info.nr], True
