"""How a device comes to a changed profile where nobody may use wg(8): what NetworkManager itself is asked to do.

Stage: live. Input: settings of a profile, and what the device was given; output: a `Way`, with what it costs. Who is
root sets peers, keys and ports of the device itself, and loses no session (`costs.py`); a user can have
NetworkManager reapply IP settings, or activate the connection anew. Runs nothing. No text holds a secret.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from wgnet.live.profile import (
    configured_endpoints,
    differences,
    has_preshared_keys,
    ip_differs,
    secrets_differ,
    without_secrets,
)
from wgnet.managers.nm_settings import DbusSettings

__all__ = ["ChosenWay", "Way", "belongs_to", "way_of_device"]

#: Of a device and of nothing else; where it keeps its private key is the profile's alone.
_DEVICE = {
    "peers": "peers",
    "listen-port": "the listen port",
    "fwmark": "the firewall mark",
    "mtu": "the MTU",
}


class Way(enum.Enum):
    """What NetworkManager is to do with a device that is up."""

    NOTHING = "nothing"
    REAPPLY = "reapply"
    ACTIVATE = "activate"


@dataclass(frozen=True, slots=True)
class ChosenWay:
    """A way, and what makes it that one: words for a person, in order."""

    way: Way
    because: tuple[str, ...] = ()

    @property
    def cost(self) -> str | None:
        """What it costs in sessions, None for nothing."""
        if self.way is Way.ACTIVATE:
            return (
                f"{_listed(self.because)} can be changed by a user only by activating the connection anew: every "
                "session ends and begins again, within 15 s; `wgnet apply` as root does it without"
            )
        if self.way is Way.REAPPLY and "endpoints" in self.because:
            return (
                "NetworkManager sets configured endpoints again with addresses, routes and DNS: a peer that has moved "
                "since is sent to where it was, until it speaks again"
            )
        return None


def way_of_device(
    wanted: DbusSettings, applied: DbusSettings, former: DbusSettings | None = None, *, damaged: bool = False
) -> ChosenWay:
    """Return what a device that was given `applied` needs to become `wanted`.

    `former` is the profile until now with its secrets, None where nobody told them. With `damaged` the kernel does not
    have what it was given.
    """
    names = differences(without_secrets(wanted), without_secrets(applied))
    because = [words for name, words in _DEVICE.items() if ("wireguard", name) in names]
    if ("connection", "interface-name") in names:
        because.append("the interface's name")
    if former is not None and secrets_differ(wanted, former):
        because.append("keys")
    if damaged:
        because.append("what the kernel lacks")
    ip = ip_differs(wanted, applied)
    if ip and not because and (has_preshared_keys(applied) or has_preshared_keys(wanted)):
        # To reapply takes the preshared keys off, and only wg(8) could set them again.
        because.append("addresses, routes and DNS beside preshared keys")
    if because:
        return ChosenWay(Way.ACTIVATE, tuple(because))
    if not ip:
        return ChosenWay(Way.NOTHING)
    return ChosenWay(Way.REAPPLY, ("endpoints",) if any(configured_endpoints(wanted).values()) else ())


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def belongs_to(settings: DbusSettings, user: str | None) -> bool:
    """Tell whether a profile is one user's alone: polkit lets that user change it. `user` None: anybody's name."""
    value = settings.get("connection", {}).get("permissions", ("as", []))[1]
    names = [each.removeprefix("user:").removesuffix(":") for each in value] if isinstance(value, list) else []
    return len(names) == 1 and user in (None, names[0])
