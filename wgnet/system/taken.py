"""Interfaces of networks that a run is not about: with files named, only their networks may be touched.

Stage: system. Input: a target, and what is wgnet's on this machine; output: diagnostics. A host has one interface of a
network, so who takes its name takes all of it away: the files, the profile, the sessions. Must not change anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.system.manifest import Manifest
from wgnet.system.outcome import report_other_network
from wgnet.system.snapshot import Owned
from wgnet.system.target import Target, keyfile_path

__all__ = ["report_taken", "report_taken_interfaces"]


def report_taken_interfaces(
    target: Target, manifest: Manifest, owned: Iterable[Owned], diagnostics: Diagnostics
) -> bool:
    """Report each interface of a target that another network has; return whether there is one.

    NetworkManager's among them that `wgnet render --system` wrote: `manifest` is of these, and `owned` of all others.
    """
    names = [(each.network, each.name) for each in target.interfaces]
    theirs = [(each.network, each.interface) for each in owned]
    theirs += [
        (entry.network, name) for _, name in names if (entry := manifest.entries.get(keyfile_path(name))) is not None
    ]
    return report_taken(target.networks, names, theirs, diagnostics)


def report_taken(
    networks: frozenset[str] | None,
    wanted: Iterable[tuple[str, str]],
    owned: Iterable[tuple[str, str]],
    diagnostics: Diagnostics,
) -> bool:
    """Report what is `wanted` and `owned` by another network than `networks`: (network, interface) each.

    `networks` None stands for all. Returns whether anything was reported.
    """
    if networks is None:
        return False
    theirs = list(owned)
    found = {
        (network, other, name): None
        for network, name in wanted
        for other, taken in theirs
        if taken == name and other not in networks
    }
    for network, other, name in found:
        report_other_network(f"the interface '{name}'", network, other, diagnostics)
    return bool(found)
