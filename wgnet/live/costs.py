"""What a change costs in sessions, said before it is made.

Stage: live. Input: a live device and its settings; output: costs, each with its reason. What is not named here costs
nothing: peers, AllowedIPs, endpoints, keepalives, preshared keys, addresses and routes change under way. Measured on
systemd-networkd 252, 257 and 262 and NetworkManager 1.42, 1.52 and 1.58. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wgnet.live.changes import device_change
from wgnet.live.device import DeviceSettings, LiveDevice
from wgnet.syntax.spec import Manager

__all__ = ["Cost", "Maker", "device_costs", "link_costs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What becomes of sessions of an interface. `peers` are hosts' names, none for all of them."""

    interface: str
    reason: str
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Who makes an interface, and for which network."""

    network: str
    manager: Manager


def link_costs(before: Mapping[str, Maker], after: Mapping[str, Maker]) -> Iterator[Cost]:
    """Yield what becomes of interfaces that are there before and do not stay; both go by the interface's name."""
    for name, maker in before.items():
        new = after.get(name)
        renamed = next((other for other, each in after.items() if other not in before and each == maker), None)
        if new is not None and new.manager is maker.manager:
            continue
        if new is not None:
            reason = "another manager makes the interface anew, and every session begins again"
        elif renamed is None:
            reason = "the interface goes, and every session with it"
        elif maker.manager is Manager.NETWORKMANAGER:
            continue  # told of its profile
        else:
            reason = f"the interface becomes '{renamed}': it is made anew, and every session begins again"
        yield Cost(interface=name, reason=reason)


def device_costs(live: LiveDevice | None, wanted: DeviceSettings) -> Iterator[Cost]:
    """Yield what it costs to turn a device into the wanted one; `live` None is one that is not there yet."""
    if live is None:
        return
    change = device_change(live, wanted)
    if change.private_key is not None:
        yield Cost(
            interface=live.name,
            reason=(
                "a new private key is another identity: every session ends, and begins again when the peer knows the "
                "new public key (`wgnet keys rotate` changes keys without that)"
            ),
        )
    if change.listen_port is not None:
        learned = tuple(peer.name for peer in change.kicked)
        yield Cost(
            interface=live.name,
            peers=learned,
            reason=(
                f"the listen port changes from {live.listen_port} to {change.listen_port}: packets are lost until the "
                "peer has heard from the new one, some milliseconds as a rule, and 15 s where it cannot be reached"
            ),
        )
    anew = tuple(
        sorted(
            peer.name
            for peer in change.peers
            if not peer.new and not peer.remove and (peer.preshared_key is not None or peer.clear_preshared_key)
        )
    )
    if anew:
        yield Cost(
            interface=live.name,
            peers=anew,
            reason=(
                "the preshared key changes: the session goes on until its next handshake, within two minutes, and "
                "breaks off then unless the other end has changed as well"
            ),
        )
