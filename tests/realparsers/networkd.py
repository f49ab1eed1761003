"""The real systemd-networkd as a linter for a host's rendered files.

Input: a tree with etc/systemd/network. Output: what networkd says against the files, and what it does with them.
Two daemons run over each tree at the same time: one reads the .netdev files (their links cannot be made where the
kernel has no WireGuard, and need not), the other brings the .network files to bear on stand-in links.

Out of reach where the kernel has no WireGuard: a peer that is dropped for one bad value shows as a mild warning about
that value only; an endpoint without a port is taken as port 0, and two peers with the same prefix or key are accepted,
without a word. `audit_netdev` reads the files a second time, strictly, for these.
"""

from __future__ import annotations

import base64
import binascii
import concurrent.futures
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realparsers.sandbox import SandboxError, accounts, enter, is_root, root_of

_FOLDER = "etc/systemd/network"

#: Warnings that come of the sandbox or of the kernel, and say nothing about the files.
_NOISE = tuple(
    re.compile(pattern)
    for pattern in (
        # The kernel has no WireGuard or no VRF.
        r"\S+: (?:netdev could not be created|Failed to create netdev): Operation not supported$",
        # Roots are folders here, and no mount points.
        r"Failed to detect if root is network filesystem, ",
        # There is no manager of units, no resolved and no cgroup.
        r"Failed to bind to (?:metrics|systemd-resolved hook) varlink socket, ignoring: ",
        r"Failed to update cgroup map: ",
        # Only root may go over the kernel's limit.
        r"Failed to increase receive buffer size for .*, ignoring: Operation not permitted$",
        # No network, so no name resolves where the kernel has WireGuard.
        r"\S+: Failed to resolve host ",
    )
)
_LINE = re.compile(r"<(?P<level>\d+)>(?P<text>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Networkd:
    """What networkd did with a tree.

    `messages` are its complaints, empty for a good tree. `addresses`, `routes` and `rules` are what then stood in the
    kernel, as iproute2's JSON has it: of .network files only, since AllowedIPs need WireGuard in the kernel.
    """

    messages: tuple[str, ...]
    addresses: tuple[dict[str, Any], ...]
    routes: tuple[dict[str, Any], ...]
    rules: tuple[dict[str, Any], ...]


def run_networkd(tree: Path, *, version: str = "installed") -> Networkd:
    """Run networkd over the files of `tree` (its etc and run) and return its complaints and its effects.

    Folders of the tree count as 0755, as the packages make them; files keep owner and mode. Raises SandboxError where
    the tree has nothing for networkd, or networkd does not start.
    """
    tree = tree.resolve()
    own = _files(tree)
    netdevs = {name: _netdev(tree / name.lstrip("/")) for name in own if name.endswith(".netdev")}
    wireguard = [name for name, (_, kind) in netdevs.items() if kind == "wireguard"]
    others = {link for link, kind in netdevs.values() if kind != "wireguard"}
    matched = {name: _matched(tree / name.lstrip("/")) for name in own if name.endswith(".network")}
    if not own:
        raise SandboxError(f"nothing for networkd below {tree}")
    # A stand-in needs a name that the kernel takes; networkd tells of others while it reads the .netdev.
    wanted = {*(link for names in matched.values() for link in names), *(netdevs[name][0] for name in wireguard)}
    links = sorted({link for link in wanted if _standable(link)} - others)
    answer = enter(
        {
            "what": "networkd",
            "root": str(root_of(version)),
            "tree": str(tree),
            "accounts": accounts(),
            "files": own,
            "wireguard": wireguard,
            "netdevs": sorted(link for link, _ in netdevs.values() if link),
            "links": links,
            "user": _user(),
        }
    )
    if answer["files"] is None or answer["links"] is None or not answer["files"]["ready"]:
        log = "" if answer["files"] is None else answer["files"]["log"]
        raise SandboxError(f"networkd did not start:\n{log}")
    messages = [f"'{name}' is not read by networkd" for name in _strangers(tree)]
    messages += _unreadable_without_root(tree, own)
    messages += _complaints(answer["files"]["log"], ())
    messages += _complaints(answer["links"]["log"], messages)
    messages += _unloaded(answer, own, netdevs, matched, others)
    return Networkd(
        messages=tuple(dict.fromkeys(messages)),
        addresses=tuple(answer["links"]["addresses"]),
        routes=tuple(answer["links"]["routes"]),
        rules=tuple(answer["links"]["rules"]),
    )


def lint_networkd(tree: Path, *, version: str = "installed") -> list[str]:
    """Return what the real networkd says against a tree's files; empty means that it read and used each of them.

    See the module for what networkd never says, and `audit_netdev` for that.
    """
    return list(run_networkd(tree, version=version).messages)


def lint_networkd_many(trees: Sequence[Path], *, version: str = "installed") -> dict[Path, list[str]]:
    """Lint many trees, as many at a time as there are processors; the order of `trees` is kept.

    Each has daemons of its own: hosts share file and interface names, and renaming would test other files.
    """
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return dict(zip(trees, pool.map(lambda tree: lint_networkd(tree, version=version), trees), strict=True))


def _files(tree: Path) -> list[str]:
    """Return the paths, as on the host, of the files that networkd is to read."""
    folder = tree / _FOLDER
    found = [*folder.glob("*.netdev"), *folder.glob("*.network"), *folder.glob("*.d/*.conf")]
    found += (tree / "etc/systemd").glob("networkd.conf")
    found += (tree / "etc/systemd/networkd.conf.d").glob("*.conf")
    return sorted(f"/{path.relative_to(tree)}" for path in found if not path.is_symlink() and path.stat().st_size)


def _strangers(tree: Path) -> list[str]:
    folder = tree / _FOLDER
    return sorted(
        f"/{path.relative_to(tree)}"
        for path in folder.glob("*")
        if path.is_file() and path.suffix not in (".netdev", ".network", ".link")
    )


def sections(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Split a unit-like file into its sections in order, each with its keys and values in order."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and line.endswith("]"):
            found.append((line[1:-1], []))
        elif found:
            key, _, value = line.partition("=")
            found[-1][1].append((key.strip(), value.strip()))
    return found


def _netdev(path: Path) -> tuple[str, str]:
    """Return the name and kind that a .netdev gives its link, "" for none."""
    values = {key: value for name, keys in sections(_read(path)) if name == "NetDev" for key, value in keys}
    return values.get("Name", ""), values.get("Kind", "")


def _matched(path: Path) -> list[str]:
    """Return the names of links that a .network asks for, without patterns."""
    return [
        name
        for section, keys in sections(_read(path))
        if section == "Match"
        for key, value in keys
        if key == "Name"
        for name in value.split()
        if not set(name) & set("*?[!")
    ]


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if os.access(path, os.R_OK) else ""


def _standable(link: str) -> bool:
    return 0 < len(link.encode()) < 16 and link not in (".", "..", "lo") and not re.search(r"[/\s:%]", link)


def _user() -> list[int] | None:
    """Return the numbers that networkd drops to, or None where it cannot."""
    if not is_root():
        return None
    import pwd

    try:
        entry = pwd.getpwnam("systemd-network")
    except KeyError as error:
        raise SandboxError("this machine has no user 'systemd-network'") from error
    return [entry.pw_uid, entry.pw_gid]


def _unreadable_without_root(tree: Path, own: list[str]) -> list[str]:
    """Judge by the mode alone, where networkd runs as the user that owns the files."""
    if is_root():
        return []
    closed = [name for name in own if not (tree / name.lstrip("/")).stat().st_mode & 0o044]
    return [f"{name}: mode lets nobody but its owner read it, networkd drops root" for name in closed]


def _complaints(log: str, known: Sequence[str]) -> list[str]:
    """Pick what is said against the files out of a debug log: warnings and worse, and whatever names a line."""
    found = []
    for line in log.splitlines():
        match = _LINE.match(line)
        text = match["text"] if match else line
        level = int(match["level"]) & 7 if match else 0
        pointed = re.match(r"/(?:etc|run)/systemd/\S+:\d+: ", text) is not None
        failed = re.match(r"\S+: State changed: \S+ -> failed", text) is not None
        denied = text.startswith("Failed to open") and text.endswith("Permission denied")
        if (level <= 4 or pointed or failed or denied) and not any(noise.match(text) for noise in _NOISE):
            found.append(text)
    return [text for text in found if text not in known]


def _unloaded(
    answer: dict[str, Any],
    own: list[str],
    netdevs: dict[str, tuple[str, str]],
    matched: dict[str, list[str]],
    others: set[str],
) -> list[str]:
    """Demand proof that networkd opened each file, made a netdev of each .netdev, and used each .network."""
    opened = {*answer["files"]["opened"], *answer["links"]["opened"]}
    log, links = answer["files"]["log"], answer["links"]["log"]
    found = [f"{name}: networkd never opened it" for name in own if name not in opened]
    for name, (link, kind) in netdevs.items():
        # Up to 256 by link, since 257 by file.
        proofs = (f'>{link}: loaded "{kind}"', f">{name}: Successfully loaded.")
        if not any(proof in log for proof in proofs):
            found.append(f"{name}: networkd made no netdev of it")
    for name, names in matched.items():
        # The kernel may be without the links of other kinds, such as VRFs: then their files can only be read.
        # What a file leaves alone is used as well.
        used = (f": Configuring with {name}.", *(f"{link}: Unmanaging interface." for link in names))
        if not any(proof in links for proof in used) and not (names and others.issuperset(names)):
            found.append(f"{name}: networkd used it for no link")
    for name, (link, kind) in netdevs.items():
        if kind == "wireguard" and _standable(link) and f">{link}: Configuring with " not in links:
            found.append(f"{name}: no .network file is for '{link}'")
    return found


def audit_netdev(path: Path) -> list[str]:
    """Return what networkd would lose of a .netdev without saying so: a strict second reading, by the man page.

    Source: systemd.netdev(5) and wg(8) for the forms; `wireguard.c` of systemd for what is lost.
    """
    found: list[str] = []
    prefixes: dict[str, int] = {}
    keys: set[str] = set()
    number = 0
    for section, pairs in sections(path.read_text()):
        values = dict(pairs)
        for key in ("PrivateKey", "PublicKey", "PresharedKey"):
            if key in values and not _is_key(values[key]):
                found.append(f"[{section}] {number or ''}{key}= is no canonical key")
        if section == "WireGuard":
            port = values.get("ListenPort")
            if port is not None and not (port.isdecimal() and 0 < int(port) < 65536):
                found.append(f"ListenPort={port} is refused")
            for key in ("FirewallMark", "RouteMetric"):
                if key in values and not re.fullmatch(r"0|[1-9][0-9]*", values[key]):
                    found.append(f"{key}={values[key]} is not plain decimal")
        if section != "WireGuardPeer":
            continue
        number += 1
        public = values.get("PublicKey", "")
        if not public:
            found.append(f"peer {number} has no PublicKey=")
        if public in keys:
            found.append(f"peer {number} repeats a public key: only the first one's AllowedIPs survive")
        keys.add(public)
        endpoint = values.get("Endpoint")
        if endpoint is not None and not _is_endpoint(endpoint):
            found.append(f"peer {number}: Endpoint={endpoint} would lose the peer or its port")
        keepalive = values.get("PersistentKeepalive")
        if keepalive is not None and keepalive != "off" and not re.fullmatch(r"0|[1-9][0-9]{0,4}", keepalive):
            found.append(f"peer {number}: PersistentKeepalive={keepalive} would lose the peer")
        for key, value in pairs:
            if key != "AllowedIPs":
                continue
            for word in re.split(r"[,\s]+", value):
                try:
                    prefix = str(ipaddress.ip_network(word))
                except ValueError:
                    found.append(f"peer {number}: AllowedIPs={word} is no exact prefix")
                    continue
                first = prefixes.setdefault(prefix, number)
                if first != number:
                    found.append(f"peer {number}: {prefix} is peer {first}'s, which wins")
    return found


def _is_key(text: str) -> bool:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return len(data) == 32 and base64.b64encode(data).decode() == text


def _is_endpoint(text: str) -> bool:
    match = re.fullmatch(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>[1-9][0-9]{0,4})", text)
    if match is None or int(match["port"]) > 65535:
        return False
    try:
        if match["six"]:
            ipaddress.IPv6Address(match["six"])
        elif re.fullmatch(r"[0-9.]+", match["name"]):
            ipaddress.IPv4Address(match["name"])
    except ValueError:
        return False
    return True
