"""The live state of this host, asked of wg(8), ip(8), nft(8), resolvectl(1) and /proc/sys.

Stage: system. Output: a `LiveState`. Must not change anything, nor ask for the routes of other interfaces where that
can be helped: they may be the Internet's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from wgnet.live.device import NotADumpError, parse_dump
from wgnet.live.state import (
    LiveDns,
    LiveState,
    NotUnderstoodError,
    PolicyRule,
    Route,
    parse_dns,
    parse_links,
    parse_routes,
    parse_rules,
    parse_tables,
)
from wgnet.system.programs import ProgramError, find_program, run_program

__all__ = ["LiveError", "has_resolved", "read_public_state", "read_routes", "read_rules", "read_ruleset", "read_state"]

_PARAMETERS = Path("/proc/sys/net")
_RESOLVED = Path("/run/systemd/resolve/io.systemd.Resolve")
_PACKAGES = {"wg": "wireguard-tools", "ip": "iproute2"}
#: With more interfaces than this, all routes at once cost less than two processes for each.
_ASKED_ONE_BY_ONE = 8
_REFUSED = ("Operation not permitted", "Permission denied", "must be root")


class LiveError(Exception):
    """The live state cannot be read. `help` is the way out, None where there is none. No secret is in it."""

    def __init__(self, message: str, way_out: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = way_out


def read_state(names: Collection[str] | None = None) -> LiveState:
    """Return this network namespace's state: of these interfaces, or of every WireGuard one.

    An interface that is not there is no error. Raises `LiveError`.
    """
    return _read_state(names, wholly=True)


def read_public_state(names: Collection[str]) -> LiveState:
    """Return what everybody may see of these interfaces: all but what wg(8) and nft(8) tell. Raises `LiveError`."""
    return _read_state(names, wholly=False)


def _read_state(names: Collection[str] | None, *, wholly: bool) -> LiveState:
    with ThreadPoolExecutor(max_workers=4) as pool:

        def ask(name: str, *arguments: str) -> Future[str]:
            return pool.submit(_run, name, arguments)

        dump = ask("wg", "show", "all", "dump") if wholly else None
        links = ask("ip", "-j", "-d", "address", "show")
        rules = _ask_rules(ask)
        tables = pool.submit(_tables) if wholly else None
        try:
            devices = {} if dump is None else parse_dump(dump.result())
            found = parse_links(links.result(), _forwarding)
            asked = [name for name in found if name in (devices if names is None else names)]
            routes = _ask_routes(ask, asked)
            dns = pool.submit(_dns, bool(asked))
            return LiveState(
                devices=devices,
                links={name: found[name] for name in asked},
                routes=frozenset(route for route in _routes(routes) if route.device in asked),
                rules=frozenset(_rules(rules)),
                forwarding=_versions("ipv4/ip_forward", "ipv6/conf/all/forwarding"),
                source_valid_mark=_parameter("ipv4/conf/all/src_valid_mark") == "1",
                tables=None if tables is None else tables.result(),
                dns=dns.result(),
                devices_known=wholly,
            )
        except (NotADumpError, NotUnderstoodError) as error:
            raise LiveError(str(error)) from None


def read_routes(name: str) -> frozenset[Route]:
    """Return the routes by one interface, of every table but `local`. Raises `LiveError`."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            return frozenset(_routes(_ask_routes(lambda tool, *words: pool.submit(_run, tool, words), [name])))
        except NotUnderstoodError as error:
            raise LiveError(str(error)) from None


def read_rules() -> frozenset[PolicyRule]:
    """Return all policy rules but the kernel's own. Raises `LiveError`."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            return frozenset(_rules(_ask_rules(lambda tool, *words: pool.submit(_run, tool, words))))
        except NotUnderstoodError as error:
            raise LiveError(str(error)) from None


def read_ruleset() -> str | None:
    """Return all rules of nftables as `nft -j list ruleset` prints them, None without nft(8). Raises `LiveError`."""
    return None if find_program("nft") is None else _run("nft", ["-j", "list", "ruleset"])


def has_resolved() -> bool:
    """Return whether systemd-resolved runs: its socket stays behind when it ends."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as stream:
            stream.connect(str(_RESOLVED))
    except OSError:
        return False
    return True


def _run(name: str, arguments: Sequence[str]) -> str:
    try:
        return run_program(name, arguments, missing=_PACKAGES.get(name, ""))
    except ProgramError as error:
        text = str(error)
        if any(refused in text for refused in _REFUSED):
            raise LiveError(
                f"'{name}' is not allowed to read the live state", "run it as root (CAP_NET_ADMIN)"
            ) from None
        raise LiveError(text) from None


def _ip_versions() -> tuple[int, ...]:
    # Without IPv6 in the kernel, asking for it is an error.
    return (4, 6) if (_PARAMETERS / "ipv6").is_dir() else (4,)


def _ask_routes(ask: Callable[..., Future[str]], names: Sequence[str]) -> list[tuple[int, str | None, Future[str]]]:
    return [
        (version, device, ask("ip", f"-{version}", "-N", "-j", "route", "show", "table", "all", *words))
        for version in _ip_versions()
        for device, words in _filters(names)
    ]


def _filters(names: Sequence[str]) -> Iterator[tuple[str | None, tuple[str, ...]]]:
    """Yield what to ask of ip-route(8): each interface's routes, or everybody's."""
    if len(names) > _ASKED_ONE_BY_ONE:
        yield None, ()
    else:
        for name in names:
            yield name, ("dev", name)


def _routes(answers: Sequence[tuple[int, str | None, Future[str]]]) -> Iterator[Route]:
    for version, device, answer in answers:
        try:
            text = answer.result()
        except LiveError as error:
            if device is not None and "Cannot find device" in error.message:
                continue  # It went while we looked.
            raise
        yield from parse_routes(text, version, device)


def _ask_rules(ask: Callable[..., Future[str]]) -> dict[int, Future[str]]:
    return {version: ask("ip", f"-{version}", "-N", "-j", "rule", "show") for version in _ip_versions()}


def _rules(answers: Mapping[int, Future[str]]) -> Iterator[PolicyRule]:
    for version, answer in answers.items():
        yield from parse_rules(answer.result(), version)


def _tables() -> frozenset[str] | None:
    """Return wgnet's tables; None without nft(8), or in a kernel that has no nftables, which nft then says."""
    if find_program("nft") is None:
        return None
    try:
        return parse_tables(_run("nft", ["-j", "list", "tables"]))
    except LiveError as error:
        if error.help is not None:
            raise
        return None


def _dns(asked: bool) -> dict[str, LiveDns] | None:
    """Return what systemd-resolved has by link; None where it does not run or does not answer."""
    # resolvectl(1) would have the bus start it.
    if not has_resolved() or find_program("resolvectl") is None:
        return None
    if not asked:
        return {}
    try:
        return parse_dns(*(_run("resolvectl", [what]) for what in ("dns", "domain", "default-route")))
    except LiveError:
        # DNS is not worth the rest.
        return None


# --- kernel parameters -----------------------------------------------------------------------------------------------


def _forwarding(name: str) -> frozenset[int]:
    return _versions(f"ipv4/conf/{name}/forwarding", f"ipv6/conf/{name}/forwarding")


def _versions(four: str, six: str) -> frozenset[int]:
    return frozenset(version for version, path in ((4, four), (6, six)) if _parameter(path) not in ("", "0"))


def _parameter(path: str) -> str:
    """Return a kernel parameter; "" where there is none such, as of IPv6 in a kernel without it."""
    try:
        return (_PARAMETERS / path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
