"""wg, wg-quick, nft, systemd-sysctl and systemd-analyze as linters for one file each.

Input: a file. Output: what the real tool says against it, and what it would lose. Whatever could change the machine
runs in namespaces of its own.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from realparsers.networkd import sections
from realparsers.sandbox import is_root, run_command

#: Keys that wg-quick(8) takes for itself and strips; the rest is wg(8)'s.
_WG_QUICK_KEYS = {
    "address",
    "dns",
    "mtu",
    "table",
    "preup",
    "postup",
    "predown",
    "postdown",
    "saveconfig",
}
_KEY = re.compile(r"[A-Za-z0-9+/]{40,}=*")


def lint_wg_quick(path: Path, *, version: str = "installed") -> list[str]:
    """Return what is wrong with a wg-quick file: its name and mode, what `wg-quick strip` loses, what wg(8) refuses.

    wg reads it whole and stops only at the link, which does not exist; names are not resolved. `version` chooses wg;
    wg-quick is this machine's. Never returns a key. Hooks are not run.
    """
    found = []
    # As wg-quick itself takes it for an interface's name.
    if not re.fullmatch(r"[a-zA-Z0-9_=+.-]{1,15}\.conf", path.name):
        return [f"name '{path.name}' is no interface name of at most 15 characters and '.conf'"]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        found.append(f"mode is {mode:04o}, expected 0600")
    text = path.read_text()
    stripped, errors = _strip(path)
    found += errors
    if stripped is None:
        return found
    want = [(name, key.lower(), value) for name, pairs in sections(text) for key, value in pairs]
    have = [(name, key.lower(), value) for name, pairs in sections(stripped) for key, value in pairs]
    for name, key, value in want:
        shown = _KEY.sub("***", value)
        if name == "Interface" and key in _WG_QUICK_KEYS:
            found += _wg_quick_value(key, value)
            if (name, key, value) in have:
                found.append(f"[{name}] {key}={shown} is not taken by wg-quick")
        elif (name, key, value) not in have:
            found.append(f"[{name}] {key}={shown} is lost by wg-quick")
    # wg(8) resolves names while it reads, and there is no network here.
    literal = re.sub(r"(?im)^(\s*endpoint\s*=\s*)[a-z0-9.-]*[a-z][a-z0-9.-]*:", r"\g<1>192.0.2.1:", stripped)
    _, _, said = run_command(
        ["wg", "setconf", "wgnet-lint", "/dev/stdin"],
        version=version,
        text=literal,
        environment={"WG_ENDPOINT_RESOLUTION_RETRIES": "0"},
    )
    lines = [line for line in said.splitlines() if line.strip()]
    # The link does not exist: how the kernel says so differs.
    if lines and lines[-1].startswith("Unable to modify interface"):
        lines.pop()
    else:
        lines.append("wg read it no further")
    return found + [_KEY.sub("***", line) for line in lines]


def _strip(path: Path) -> tuple[str | None, list[str]]:
    # wg-quick asks for root before it reads; a user namespace's will do.
    user = [] if is_root() else ["unshare", "--user", "--map-root-user"]
    done = subprocess.run(
        [*user, "wg-quick", "strip", str(path.resolve())],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    errors = [_KEY.sub("***", line) for line in done.stderr.splitlines() if line.strip()]
    return (done.stdout if done.returncode == 0 else None), errors


def _wg_quick_value(key: str, value: str) -> list[str]:
    """Check what wg-quick passes on unread, and ip(8) would refuse only when the interface comes up."""
    words = [word.strip() for word in value.split(",")]
    if key == "address":
        return [f"Address={word} is no address" for word in words if not _is_interface(word)]
    if key == "mtu" and not (value.isdecimal() and 576 <= int(value) <= 65535):
        return [f"MTU={value} is none"]
    if key == "table" and not re.fullmatch(r"off|auto|\d+|[a-z][a-z0-9_-]*", value):
        return [f"Table={value} is none"]
    if key == "dns":
        return [f"DNS={word} is no server and no domain" for word in words if not _is_dns(word)]
    return []


def _is_interface(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def _is_dns(text: str) -> bool:
    if re.fullmatch(r"[0-9.]+", text) or ":" in text:
        return _is_interface(text) and "/" not in text
    return re.fullmatch(r"~?[A-Za-z0-9_.-]+", text) is not None


def lint_nft(path: Path) -> list[str]:
    """Return what nft says against a rule set, which the kernel checks in a network namespace and does not load."""
    status, _, errors = run_command(["nft", "-c", "-f", str(path.resolve())])
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines or ([f"nft: exit status {status}"] if status else [])


def lint_sysctl(path: Path) -> list[str]:
    """Return what is wrong with a sysctl.d file: its form, keys that this kernel lacks, values that it refuses.

    The real systemd-sysctl applies the file in a network namespace, so only net.* keys are let through; others are
    reported. A key of one interface stands for the same key of `default`.
    """
    found, lines = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        match = re.fullmatch(r"-?(?P<key>[a-zA-Z0-9_.\-/:@]+)\s*=\s*(?P<value>\S.*)", line)
        if match is None:
            found.append(f"{number}: expected 'key = value'")
            continue
        # A dot in an interface's name is written as a slash, or the other way round throughout.
        key = match["key"]
        parts = key.split("/") if _slashes_first(key) else [part.replace("/", ".") for part in key.split(".")]
        if parts[0] != "net":
            found.append(f"{number}: '{key}' is not a network's")
            continue
        if len(parts) == 5 and parts[2] in ("conf", "neigh") and parts[3] not in ("all", "default"):
            parts[3] = "default"
        if not Path("/proc/sys", *parts).exists():
            found.append(f"{number}: this kernel has no '{key}'")
            continue
        lines.append(f"{'/'.join(parts)} = {match['value']}")
    if lines:
        status, _, errors = run_command(
            ["/lib/systemd/systemd-sysctl", "--strict", "/dev/stdin"], text="\n".join(lines) + "\n"
        )
        said = [line for line in errors.splitlines() if line.strip()]
        found += said or ([f"systemd-sysctl: exit status {status}"] if status else [])
    return found


def _slashes_first(key: str) -> bool:
    return "/" in key and ("." not in key or key.index("/") < key.index("."))


def lint_unit(path: Path, *, absent: Sequence[str] = ()) -> list[str]:
    """Return what `systemd-analyze verify` says against a unit; programs in `absent` may be missing on this machine."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path.resolve())],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_COLOR": "0"},
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    missing = re.compile(r"Command (\S+) is not executable: No such file or directory")
    kept = [line for line in lines if not ((match := missing.search(line)) and match[1] in absent)]
    return kept or ([f"systemd-analyze: exit status {done.returncode}"] if done.returncode and not lines else [])
