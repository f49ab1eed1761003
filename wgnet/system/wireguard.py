"""WireGuard devices of this host, read and set by wg(8).

Stage: system. Input: changes from `wgnet.live.changes`; output: a device as it is to be, and devices as they are. One
call sets as many peers as go into it: `wg set` names only what changes, and so costs nobody else a packet, which
`wg syncconf` does, for it replaces every peer's AllowedIPs. Must not decide what is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from wgnet.keys.types import Secret
from wgnet.live.changes import DeviceChange, PeerChange
from wgnet.live.device import LiveDevice, NotADumpError, parse_dump
from wgnet.system.programs import ProgramError, memory_file, run_program

__all__ = ["DEVNULL", "free_ports", "read_devices", "set_device", "set_peers"]

#: Reading a key from it takes the key away.
DEVNULL = "/dev/null"
_PACKAGE = "wireguard-tools"
#: Characters of arguments in one call; Linux takes 2 MiB with the environment, and 128 KiB in one argument.
_ARGUMENTS = 500_000
#: Prefixes in one `allowed-ips` argument, of at most 44 characters each.
_PREFIXES = 2_500
#: Secrets in one call: each is an open file.
_SECRETS = 200


def read_devices() -> dict[str, LiveDevice]:
    """Return this network namespace's WireGuard devices by name. Raises `ProgramError`."""
    try:
        return parse_dump(run_program("wg", ["show", "all", "dump"], missing=_PACKAGE))
    except NotADumpError as error:
        raise ProgramError(str(error)) from None


def set_device(change: DeviceChange, addresses: Mapping[str, str] | None = None) -> None:
    """Make a change. `addresses` are the resolved endpoints by what was configured. Raises `ProgramError`."""
    first: list[str] = []
    secrets: list[Secret] = []
    if change.private_key is not None:
        first += ["private-key", _Call.PLACE]
        secrets.append(change.private_key)
    if change.listen_port is not None:
        first += ["listen-port", str(change.listen_port)]
    if change.firewall_mark is not None:
        first += ["fwmark", str(change.firewall_mark)]
    _run(change.name, change.peers, addresses or {}, first, secrets)
    if change.kicked:
        _run(change.name, change.kicked, {}, [], [])


def free_ports(wanted: Mapping[str, int], live: Mapping[str, LiveDevice]) -> None:
    """Take listen ports off devices that are to have others, where one of `wanted` (by name) is to have them now.

    The kernel gives no port to two of them, so two that exchange theirs would never get there. Raises `ProgramError`.
    """
    for name, device in live.items():
        others = {port for other, port in wanted.items() if other != name}
        if device.listen_port in others - {0} and wanted.get(name, device.listen_port) != device.listen_port:
            run_program("wg", ["set", name, "listen-port", "0"], missing=_PACKAGE)


def set_peers(name: str, peers: Sequence[PeerChange], addresses: Mapping[str, str] | None = None) -> None:
    """Change peers of a device and nothing else of it. Raises `ProgramError`."""
    _run(name, peers, addresses or {}, [], [])


@dataclass(slots=True)
class _Call:
    """The arguments of one call, with a place for each secret's path."""

    PLACE = "\0"

    words: list[str] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    #: Characters in `words`, but for the few of the device's own.
    size: int = 0


def _run(
    name: str, peers: Sequence[PeerChange], addresses: Mapping[str, str], first: list[str], secrets: list[Secret]
) -> None:
    for call in _calls(peers, addresses, first, secrets):
        descriptors = [memory_file(f"{secret.reveal()}\n") for secret in call.secrets]
        try:
            paths = iter(descriptors)
            words = [f"/dev/fd/{next(paths)}" if word == _Call.PLACE else word for word in call.words]
            run_program("wg", ["set", name, *words], inherited=descriptors, missing=_PACKAGE)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
    for change in peers:
        if _is_long(change):
            _add_configuration(name, change)


def _calls(
    peers: Sequence[PeerChange], addresses: Mapping[str, str], first: list[str], secrets: list[Secret]
) -> Iterator[_Call]:
    call = _Call(list(first), list(secrets))
    for peer in peers:
        words, own = _peer(peer, addresses)
        size = sum(len(word) + 1 for word in words)
        if call.words and (call.size + size > _ARGUMENTS or len(call.secrets) + len(own) > _SECRETS):
            yield call
            call = _Call()
        call.words += words
        call.secrets += own
        call.size += size
    if call.words:
        yield call


def _peer(change: PeerChange, addresses: Mapping[str, str]) -> tuple[list[str], list[Secret]]:
    """Return the words that set a peer, and the secrets that go to the places in them."""
    words = ["peer", change.public_key]
    secrets: list[Secret] = []
    if change.remove:
        return [*words, "remove"], []
    if change.preshared_key is not None:
        words += ["preshared-key", _Call.PLACE]
        secrets.append(change.preshared_key)
    elif change.clear_preshared_key:
        words += ["preshared-key", DEVNULL]
    endpoint = None if change.endpoint is None else addresses.get(change.endpoint, change.endpoint)
    if endpoint:
        words += ["endpoint", endpoint]
    if change.persistent_keepalive is not None:
        words += ["persistent-keepalive", str(change.persistent_keepalive)]
    if change.allowed_ips is not None and not _is_long(change):
        words += ["allowed-ips", ",".join(sorted(map(str, change.allowed_ips)))]
    return words, secrets


def _is_long(change: PeerChange) -> bool:
    return change.allowed_ips is not None and len(change.allowed_ips) > _PREFIXES


def _add_configuration(name: str, change: PeerChange) -> None:
    """Give a peer more prefixes than an argument takes: `wg addconf` replaces those of the peers that it reads."""
    lines = ["[Peer]", f"PublicKey = {change.public_key}"]
    lines += [f"AllowedIPs = {prefix}" for prefix in sorted(map(str, change.allowed_ips or ()))]
    descriptor = memory_file("".join(f"{line}\n" for line in lines))
    try:
        run_program("wg", ["addconf", name, f"/dev/fd/{descriptor}"], inherited=[descriptor], missing=_PACKAGE)
    finally:
        os.close(descriptor)
