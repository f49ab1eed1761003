"""The real NetworkManager as a linter for keyfiles: by `nmcli --offline`, and by the daemon on a bus of its own.

Input: a keyfile, or a host's rendered tree. Output: what NetworkManager drops, changes or says. It drops most mistakes
without a word (a preshared key without flags, an endpoint without a port, keys it does not know), so that what it
writes back is compared with what it read.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realparsers.sandbox import SandboxError, accounts, enter, is_root, require_root, root_of, run_command

_CONNECTIONS = "etc/NetworkManager/system-connections"

#: Values that NetworkManager leaves out when it writes a profile, since they are what their absence means.
#: Source: nm-settings-nmcli(5), and what nmcli 1.42 to 1.58 write.
_DEFAULTS = {
    ("connection", "autoconnect"): "true",
    ("connection", "autoconnect-priority"): "0",
    ("connection", "autoconnect-retries"): "-1",
    ("connection", "metered"): "0",
    ("connection", "permissions"): "",
    ("wireguard", "private-key-flags"): "0",
    ("wireguard", "fwmark"): "0",
    ("wireguard", "listen-port"): "0",
    ("wireguard", "mtu"): "0",
    ("wireguard", "peer-routes"): "true",
    ("wireguard", "ip4-auto-default-route"): "-1",
    ("wireguard", "ip6-auto-default-route"): "-1",
    ("wireguard-peer", "persistent-keepalive"): "0",
    ("ip", "dns-priority"): "0",
    ("ip", "ignore-auto-dns"): "false",
    ("ip", "ignore-auto-routes"): "false",
    ("ip", "may-fail"): "true",
    ("ip", "never-default"): "false",
    ("ip", "route-metric"): "-1",
    ("ip", "route-table"): "0",
    ("ip", "routed-dns"): "-1",
    ("ip", "forwarding"): "2",
}
_SECRETS = ("private-key", "preshared-key")

Keyfile = dict[str, dict[str, str]]


def parse_keyfile(text: str) -> Keyfile:
    """Split a keyfile into groups of keys; a later key replaces an earlier, as GLib has it."""
    groups: Keyfile = {}
    group: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = groups.setdefault(line[1:-1], {})
        else:
            key, _, value = line.partition("=")
            group[key.strip()] = value.strip()
    return groups


def lint_keyfile(path: Path, version: str = "installed") -> list[str]:
    """Return what is wrong with a keyfile's place, owner and mode, and what NetworkManager drops or changes of it.

    Never returns a secret. Not seen here: whether the kernel takes it; nmcli opens no device.
    """
    return _placing(path) + _round_trip(path.read_text(), version)


def _placing(path: Path) -> list[str]:
    found = []
    status = path.lstat()
    if path.suffix != ".nmconnection":
        found.append(f"name '{path.name}' does not end in '.nmconnection'")
    if not stat.S_ISREG(status.st_mode):
        found.append("not a regular file")
    if stat.S_IMODE(status.st_mode) != 0o600:
        found.append(f"mode is {stat.S_IMODE(status.st_mode):04o}, expected 0600")
    if is_root() and (status.st_uid, status.st_gid) != (0, 0):
        found.append(f"owner is {status.st_uid}:{status.st_gid}, expected root:root")
    return found


def _round_trip(text: str, version: str) -> list[str]:
    command = ["nmcli", "--offline", "connection", "modify", "connection.autoconnect", "no"]
    if root_of(version) == Path("/"):
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False
        )
        status, written, errors = done.returncode, done.stdout, done.stderr
    else:
        status, written, errors = run_command(command, version=version, text=text)
    if status != 0:
        return [_masked(line, text) for line in errors.splitlines() if line.strip()] or [f"nmcli: exit status {status}"]
    before, after = parse_keyfile(text), parse_keyfile(written)
    found = [_masked(line, text) for line in errors.splitlines() if line.strip()]
    for group, keys in before.items():
        for key, value in keys.items():
            if (group, key) == ("connection", "autoconnect"):
                # The one thing that was changed on purpose.
                if value not in ("true", "false"):
                    found.append(f"[{group}] {key}={value} is no boolean")
                continue
            back = after.get(group, {}).get(key)
            shown = "***" if key in _SECRETS else value
            if back is None:
                if _DEFAULTS.get((_setting(group), key)) != value:
                    found.append(f"[{group}] {key}={shown} is dropped")
            elif _normal(key, back) != _normal(key, value):
                found.append(f"[{group}] {key}={shown} becomes {'***' if key in _SECRETS else back}")
    return found


def _setting(group: str) -> str:
    if group.startswith("wireguard-peer."):
        return "wireguard-peer"
    return "ip" if group in ("ipv4", "ipv6") else group


def _normal(key: str, value: str) -> object:
    """Return what two spellings of the same value have in common."""
    if key in ("allowed-ips", "dns", "dns-search", "dns-options", "permissions"):
        # The trailing separator is optional; AllowedIPs are a set.
        words = [word for word in re.split(r"[;,]", value) if word]
        return sorted(words) if key == "allowed-ips" else words
    if re.fullmatch(r"route\d+_options", key):
        return sorted(value.split(","))
    if re.fullmatch(r"route\d+", key):
        return re.sub(r",(?:0\.0\.0\.0|::)?(?=,|$)", ",", value).rstrip(",")
    if key == "uuid":
        return value.lower()
    return value


def _masked(line: str, text: str) -> str:
    for keys in parse_keyfile(text).values():
        for name in _SECRETS:
            if keys.get(name):
                line = line.replace(keys[name], "***")
    return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A WireGuard profile as the daemon understood it: D-Bus settings without their types, secrets filled in."""

    settings: dict[str, dict[str, Any]]

    def __repr__(self) -> str:
        return f"<Profile {self.settings['connection']['id']}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What NetworkManager made of a tree: profiles by their path on the host, and complaints, none for a good tree."""

    profiles: dict[str, Profile]
    messages: tuple[str, ...]


def load_keyfiles(tree: Path, *, version: str = "installed") -> Loaded:
    """Start the real NetworkManager over a tree's keyfiles; return the profiles that it read, and its complaints.

    It keeps owner and mode of the files, and judges them. A test that is not root's ends here. Raises SandboxError
    where NetworkManager does not start.
    """
    require_root("NetworkManager starts as root only")
    answer = enter(
        {
            "what": "networkmanager",
            "root": str(root_of(version)),
            "tree": str(tree.resolve()),
            "accounts": accounts(),
        }
    )
    if not answer["ready"]:
        raise SandboxError(f"NetworkManager did not start:\n{answer['log']}")
    profiles = {}
    for name, parts in answer["profiles"].items():
        settings = _plain(parts["settings"])
        secrets = _plain(parts["secrets"])
        peers = {peer["public-key"]: peer for peer in secrets.pop("peers", [])}
        settings["wireguard"].update(secrets)
        for peer in settings["wireguard"].get("peers", []):
            peer.update(peers.get(peer["public-key"], {}))
        profiles[name] = Profile(settings=settings)
    wanted = sorted(f"/{path.relative_to(tree)}" for path in (tree / _CONNECTIONS).glob("*"))
    messages = [f"{name}: NetworkManager did not load it" for name in wanted if name not in profiles]
    for line in answer["log"].splitlines():
        match = re.match(r"<(?:warn|error)>\s+\[[\d.]+\] (.*)", line)
        if match and re.match(r"keyfile|settings|load|config", match[1]):
            messages.append(match[1])
    return Loaded(profiles=profiles, messages=tuple(dict.fromkeys(messages)))


def _plain(value: Any) -> Any:
    """Take the type names out of busctl's JSON."""
    if isinstance(value, dict):
        if set(value) == {"type", "data"} and isinstance(value["type"], str):
            return _plain(value["data"])
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
