"""The addresses of host names, found without asking through a tunnel that may be dead.

Stage: system. Input: names, the WireGuard interfaces, the mark of their packets; output: addresses. In this order:

1. /etc/hosts;
2. systemd-resolved, where it runs: asked for each of the other links alone, so that what it sends leaves there, and by
   the administrator's rules of DNS over TLS, DNSSEC and per-link domains;
3. without it, the servers of /etc/resolv.conf that no tunnel leads to, asked from a socket with the tunnels' mark,
   which keeps the question out of an exit node's tunnel as it keeps their own packets out;
4. whatever else the system asks (getent(1): nsswitch.conf, a local forwarder), in a process that is ended in time;
5. the addresses that were found last.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wgnet.live.dns import QUESTION_TYPES, read_answer, write_question
from wgnet.system.programs import ProgramError, run_program
from wgnet.system.resolve import resolve_name

__all__ = ["NameFinder", "find_unroutable"]

_HOSTS = Path("/etc/hosts")
_SERVERS = Path("/etc/resolv.conf")
_RESOLVED = Path("/run/systemd/resolve/io.systemd.Resolve")
#: The main tables, and where in a line the interface, the destination and its mask or length are.
_ROUTES = ((Path("/proc/net/route"), 0, 1, 7), (Path("/proc/net/ipv6_route"), 9, 0, 1))
#: Seconds for all names together; the timer's period is 30.
_PATIENCE_S = 18.0
#: Seconds for one server or link.
_TURN_S = 3.0
_AT_ONCE = 8
_SIZE = 1 << 16
#: Not more links are asked; those with a default route come first.
_MOST_LINKS = 12
_DNS_PORT = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class NameFinder:
    """Finds addresses. `tunnels` are the WireGuard interfaces of this host, `mark` their packets' (0: none)."""

    tunnels: Collection[str]
    mark: int
    hosts: Path = _HOSTS
    servers: Path = _SERVERS
    resolved: Path = _RESOLVED
    port: int = _DNS_PORT

    def find(self, names: Collection[str], known: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Return the addresses of the names that have any. `known` are those that were found last."""
        until = time.monotonic() + _PATIENCE_S
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            found = dict(zip(names, pool.map(lambda name: self._find(name, until), names), strict=True))
        return {
            name: tuple(addresses)
            for name in names
            if (addresses := list(dict.fromkeys(found[name])) or known.get(name))
        }

    def _find(self, name: str, until: float) -> Sequence[str]:
        written = list(self._in_hosts(name))
        if written:
            return written
        ways = (self._from_resolved,) if self._has_resolved() else (self._from_servers, self._from_system)
        for way in ways:
            if time.monotonic() < until and (addresses := way(name, until)):
                return addresses
        return ()

    def _in_hosts(self, name: str) -> Iterator[str]:
        try:
            lines = self.hosts.read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for line in lines:
            words = line.partition("#")[0].split()
            if name.lower().rstrip(".") in (word.lower() for word in words[1:]) and _is_address(words[0]):
                yield str(ipaddress.ip_address(words[0]))

    # --- systemd-resolved ---

    def _has_resolved(self) -> bool:
        """Whether resolved runs: its socket stays behind when it ends."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
                stream.settimeout(_TURN_S)
                stream.connect(str(self.resolved))
        except OSError:
            return False
        return True

    def _from_resolved(self, name: str, until: float) -> list[str]:
        """Ask link by link, and last without one: for servers that belong to none."""
        for index in (*self._links(), 0):
            left = until - time.monotonic()
            if left <= 0:
                break
            addresses = self._ask_resolved(name, index, min(left, _TURN_S))
            if addresses:
                return addresses
        return []

    def _links(self) -> list[int]:
        try:
            links = {name: index for index, name in socket.if_nameindex() if name not in self.tunnels and name != "lo"}
        except OSError:
            return []
        first = _default_links()
        return sorted(links.values(), key=lambda index: (all(links.get(n) != index for n in first), index))[
            :_MOST_LINKS
        ]

    def _ask_resolved(self, name: str, index: int, patience: float) -> list[str]:
        """Call io.systemd.Resolve.ResolveHostname (varlink: JSON, each message ended by a NUL)."""
        question = {"method": "io.systemd.Resolve.ResolveHostname", "parameters": {"name": name, "ifindex": index}}
        if not index:
            del question["parameters"]["ifindex"]  # type: ignore[attr-defined]
        data = b""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
                stream.settimeout(patience)
                stream.connect(str(self.resolved))
                stream.sendall(json.dumps(question).encode() + b"\0")
                while not data.endswith(b"\0") and len(data) < _SIZE:
                    chunk = stream.recv(_SIZE)
                    if not chunk:
                        break
                    data += chunk
            addresses = json.loads(data.rstrip(b"\0"))["parameters"]["addresses"]
            return [str(ipaddress.ip_address(bytes(each["address"]))) for each in addresses]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # an error of resolved's has no addresses

    # --- the servers of resolv.conf ---

    def _from_servers(self, name: str, until: float) -> list[str]:
        for server in self._outside_servers():
            left = until - time.monotonic()
            if left <= 0:
                break
            addresses = self._ask_server(server, name, min(left, _TURN_S))
            if addresses is not None:
                return addresses
        return []

    def _outside_servers(self) -> Iterator[str]:
        try:
            lines = self.servers.read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver" and _is_address(words[1]) and not self._is_inside(words[1]):
                yield words[1]

    def _is_inside(self, server: str) -> bool:
        """Whether packets to a server with the tunnels' mark would enter one; so too where nobody can tell."""
        mark = ["mark", str(self.mark)] if self.mark else []
        try:
            routes = json.loads(run_program("ip", ["-j", "route", "get", server, *mark], timeout=_TURN_S))
            return routes[0]["dev"] in self.tunnels
        except (ProgramError, ValueError, LookupError, TypeError):
            return True

    def _ask_server(self, server: str, name: str, patience: float) -> list[str] | None:
        """Return what a server says, or None where it does not: both IP versions are asked for at once."""
        questions = {}
        for version in QUESTION_TYPES:
            question = write_question(secrets.randbits(16), name, version)
            if question is None:
                return None
            questions[version] = question
        until = time.monotonic() + patience
        answers: dict[int, list[str]] = {}
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as stream:
                _set_mark(stream, self.mark)
                # Connected: the kernel drops what others send.
                stream.connect((server, self.port))
                for question in questions.values():
                    stream.send(question)
                while len(answers) < len(questions) and (left := until - time.monotonic()) > 0:
                    stream.settimeout(left)
                    message = stream.recv(_SIZE)
                    for version, question in questions.items():
                        found = read_answer(message, question, version)
                        if found is not None:
                            answers[version] = found
        except OSError:
            pass
        return [*answers.get(6, []), *answers.get(4, [])] if answers else None

    def _from_system(self, name: str, until: float) -> list[str]:
        return resolve_name(name, patience=max(0.1, until - time.monotonic()))


def find_unroutable(endpoints: Collection[str], mark: int) -> frozenset[str]:
    """Return those of `ADDRESS:PORT` or `[ADDRESS]:PORT` that this host has no route to. Nothing is sent."""
    return frozenset(each for each in endpoints if not _is_routable(each, mark))


def _is_routable(endpoint: str, mark: int) -> bool:
    address, _, port = endpoint.rpartition(":")
    address = address.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as stream:
            _set_mark(stream, mark)
            stream.connect((address, int(port)))
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _set_mark(stream: socket.socket, mark: int) -> None:
    if mark:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def _default_links() -> set[str]:
    """Return the links that a default route leads to, as far as the kernel's lists of the main tables show."""
    found: set[str] = set()
    for path, link, destination, length in _ROUTES:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > max(link, length) and not words[destination].strip("0") and not words[length].strip("0"):
                found.add(words[link])
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # no endpoint can have a scope
