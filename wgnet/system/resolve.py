"""Endpoints that are configured by name, as addresses: what a live device takes.

Stage: system. Input: a change with names in it; output: addresses by what was configured, and a warning for each name
that nobody knows now. Names are asked for in a process of their own, since a resolver may take its time and cannot be
interrupted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.changes import DeviceChange
from wgnet.system.programs import ProgramError, run_program

__all__ = ["resolve_endpoints", "resolve_name"]

#: Seconds for one name. Packets flow meanwhile, over every session that there is.
_PATIENCE_S = 5.0


def resolve_name(name: str, *, patience: float = _PATIENCE_S) -> list[str]:
    """Return the addresses of a name, the preferred first (RFC 6724); none where nobody knows it in time."""
    try:
        text = run_program("getent", ["ahosts", name], timeout=patience)
    except ProgramError:
        return []
    return list(dict.fromkeys(_addresses(line.split()[0] for line in text.splitlines() if line.strip())))


def _addresses(words: Iterable[str]) -> Iterable[str]:
    for word in words:
        try:
            yield str(ipaddress.ip_address(word))
        except ValueError:
            continue  # a scope (fe80::1%eth0), which no endpoint can have


def resolve_endpoints(change: DeviceChange, diagnostics: Diagnostics) -> dict[str, str]:
    """Return `ADDRESS:PORT` for each endpoint of a change that has a name, and "" for one that is not known now."""
    found: dict[str, str] = {}
    for peer in change.peers:
        if peer.endpoint is None or peer.endpoint in found:
            continue
        name, _, port = peer.endpoint.rpartition(":")
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            addresses = resolve_name(name)
            if not addresses:
                found[peer.endpoint] = ""
                diagnostics.report(
                    codes.ENDPOINT_UNKNOWN,
                    f"'{name}', where '{peer.name}' is reached, has no address now",
                    help="`wgnet refresh` sets it when it has one; so does a packet from the peer",
                )
                continue
            address = addresses[0]
            found[peer.endpoint] = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return found
