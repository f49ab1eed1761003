"""The one description of a NetworkManager profile, which both its keyfile and its D-Bus settings come from.

Stage: managers. A profile is settings, a setting is properties, a property has its D-Bus type and one value. Output:
the a{sa{sv}} that AddConnection2() and Update2() take, as plain data. Must not know any D-Bus library, nor a plan.

Names and types: nm-settings-dbus(5), and where it errs libnm-core-impl/nm-setting-*.c; the same in 1.36 and 1.58.
"""

from __future__ import annotations

import sys

from wgnet.keys.types import PresharedKey, PrivateKey, Secret
from wgnet.record import field, record
from wgnet.syntax.spec import Address, Interface, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

#: A D-Bus variant as plain data: its signature and its value.
Variant: TypeAlias = tuple[str, object]
#: a{sa{sv}}: setting -> property -> variant.
DbusSettings: TypeAlias = dict[str, dict[str, Variant]]

#: Where a secret is: NM_SETTING_SECRET_FLAG_NONE keeps it in the profile, AGENT_OWNED with the user's agent.
SECRET_IN_PROFILE = 0
SECRET_WITH_AGENT = 1

# Of Linux; the module `socket` would cost every command its import.
_AF_INET, _AF_INET6 = 2, 10
#: FR_ACT_PROHIBIT of linux/fib_rules.h.
_ACTION_PROHIBIT = 8
_ALL_BITS = 0xFFFFFFFF


@record(kw_only=False)
class Choice:
    """A value of an enumeration: D-Bus has its number, a keyfile its nick."""

    number: int
    nick: str


@record(kw_only=False)
class IpAddress:
    """An item of `address-data`, or `addressN`."""

    interface: Interface

    def to_dbus(self) -> dict[str, Variant]:
        """Return the item as an a{sv}."""
        return {"address": ("s", str(self.interface.ip)), "prefix": ("u", self.interface.network.prefixlen)}


@record()
class Route:
    """An item of `route-data`, or `routeN`; `table` None is the setting's own."""

    destination: Prefix
    metric: int
    table: int | None

    def to_dbus(self) -> dict[str, Variant]:
        """Return the item as an a{sv}."""
        item: dict[str, Variant] = {
            "dest": ("s", str(self.destination.network_address)),
            "prefix": ("u", self.destination.prefixlen),
            "metric": ("u", self.metric),
        }
        if self.table is not None:
            item["table"] = ("u", self.table)
        return item


@record()
class Rule:
    """An item of `routing-rules`, or `routing-ruleN`. Without `table` it prohibits; a prefix of length 0 is None."""

    version: int
    priority: int
    table: int | None
    source: Prefix | None = None
    destination: Prefix | None = None
    incoming_interface: str | None = None
    firewall_mark: int | None = None
    invert: bool = False
    suppress_prefix_length: int | None = None

    def to_dbus(self) -> dict[str, Variant]:
        """Return the item as an a{sv}."""
        item: dict[str, Variant] = {
            "family": ("i", _AF_INET if self.version == 4 else _AF_INET6),
            "priority": ("u", self.priority),
        }
        for name, prefix in (("from", self.source), ("to", self.destination)):
            if prefix is not None:
                item[name] = ("s", str(prefix.network_address))
                item[f"{name}-len"] = ("y", prefix.prefixlen)
        if self.incoming_interface is not None:
            item["iifname"] = ("s", self.incoming_interface)
        if self.firewall_mark is not None:
            item |= {"fwmark": ("u", self.firewall_mark), "fwmask": ("u", _ALL_BITS)}
        if self.invert:
            item["invert"] = ("b", True)
        if self.suppress_prefix_length is not None:
            # The manual page has it with one p.
            item["suppress-prefixlength"] = ("i", self.suppress_prefix_length)
        if self.table is not None:
            item["table"] = ("u", self.table)
        else:
            item["action"] = ("y", _ACTION_PROHIBIT)
        return item


@record()
class Peer:
    """An item of `peers`, or a group `wireguard-peer.KEY`. `comment` is for a keyfile's readers alone."""

    comment: str = field(compare=False)
    public_key: str
    endpoint: str | None
    preshared_key: PresharedKey | None
    persistent_keepalive: int
    allowed_ips: tuple[str, ...]

    def to_dbus(self, secrets: bool) -> dict[str, Variant]:
        """Return the item as an a{sv}; NetworkManager ignores what has a wrong type here, so the types are exact."""
        item: dict[str, Variant] = {"public-key": ("s", self.public_key)}
        if self.endpoint is not None:
            item["endpoint"] = ("s", self.endpoint)
        if self.preshared_key is not None:
            if secrets:
                item["preshared-key"] = ("s", self.preshared_key.reveal())
            # A new peer has the flags 4, "not required", and a key with these is neither kept nor used.
            item["preshared-key-flags"] = ("u", SECRET_IN_PROFILE)
        if self.persistent_keepalive:
            item["persistent-keepalive"] = ("u", self.persistent_keepalive)
        if self.allowed_ips:
            item["allowed-ips"] = ("as", list(self.allowed_ips))
        return item


Scalar: TypeAlias = bool | int | str | Choice | PrivateKey
Items: TypeAlias = (
    tuple[str, ...]
    | tuple[Address, ...]
    | tuple[IpAddress, ...]
    | tuple[Route, ...]
    | tuple[Rule, ...]
    | tuple[Peer, ...]
)


@record(kw_only=False)
class Property:
    """One property: its name on D-Bus, its D-Bus type, its value."""

    name: str
    signature: str
    value: Scalar | Items


@record(kw_only=False)
class Setting:
    """One setting, in the order in which its properties are written."""

    name: str
    properties: tuple[Property, ...]

    def get(self, name: str) -> Scalar | Items | None:
        """Return the value of a property, or None where it is not set."""
        return next((each.value for each in self.properties if each.name == name), None)


@record(kw_only=False)
class Settings:
    """One connection profile."""

    settings: tuple[Setting, ...]

    def __getitem__(self, name: str) -> Setting:
        return next(setting for setting in self.settings if setting.name == name)

    @property
    def uuid(self) -> str:
        """The profile's UUID, by which it is found again."""
        return str(self["connection"].get("uuid"))

    @property
    def has_secrets(self) -> bool:
        """Whether the profile holds any key."""
        peers = self["wireguard"].get("peers")
        return self["wireguard"].get("private-key") is not None or (
            isinstance(peers, tuple) and any(isinstance(peer, Peer) and peer.preshared_key for peer in peers)
        )


def to_dbus(settings: Settings, *, secrets: bool = True) -> DbusSettings:
    """Return a profile as the a{sa{sv}} of Settings.AddConnection2() and Connection.Update2().

    The result holds the keys in plain, unless `secrets` is false. Update2() replaces all secrets of a profile when it
    is sent any, and keeps them when it is sent none: send all of them, or none.
    """
    return {
        setting.name: {
            each.name: (each.signature, _dbus_value(each.value, secrets))
            for each in setting.properties
            if secrets or not isinstance(each.value, Secret)
        }
        for setting in settings.settings
    }


def _dbus_value(value: Scalar | Items, secrets: bool) -> object:
    if isinstance(value, tuple):
        return [_dbus_item(item, secrets) for item in value]
    if isinstance(value, Choice):
        return value.number
    return value.reveal() if isinstance(value, Secret) else value


def _dbus_item(item: str | Address | IpAddress | Route | Rule | Peer, secrets: bool) -> object:
    if isinstance(item, str):
        return item
    if isinstance(item, Peer):
        return item.to_dbus(secrets)
    if isinstance(item, IpAddress | Route | Rule):
        return item.to_dbus()
    # `dns`: an in_addr as the number that its bytes are in memory, an in6_addr as bytes. `dns-data`, which takes text,
    # came with 1.42, and a strict parser refuses what it does not know.
    return int.from_bytes(item.packed, sys.byteorder) if item.version == 4 else item.packed
