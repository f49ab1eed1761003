"""A NetworkManager profile as the groups of its keyfile, nm-settings-keyfile(5).

Stage: managers. Input: the description of a profile; output: groups of keys and values, escaped, for a template to
lay out. The spelling is the one in which NetworkManager itself writes a profile, where it reads no other in 1.36.
"""

from __future__ import annotations

from collections.abc import Iterator

from wgnet.keys.types import Secret
from wgnet.managers.escape import keyfile_list, keyfile_value, single_line
from wgnet.managers.nm_settings import (
    SECRET_IN_PROFILE,
    Choice,
    IpAddress,
    Peer,
    Property,
    Route,
    Rule,
    Settings,
)
from wgnet.record import record
from wgnet.syntax.spec import Prefix


@record(kw_only=False)
class Group:
    """One group: its name, the comment above it, and what stands in it as text. It may hold a key."""

    name: str
    comment: str
    entries: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"<Group {self.name}>"


def to_groups(settings: Settings) -> list[Group]:
    """Return the groups of a profile's keyfile in their order, the peers after the setting that they belong to."""
    groups = []
    for setting in settings.settings:
        peers: list[Group] = []
        entries: list[tuple[str, str]] = []
        for each in setting.properties:
            if each.name == "peers" and isinstance(each.value, tuple):
                peers += [_peer(peer) for peer in each.value if isinstance(peer, Peer)]
            else:
                entries += _entries(each)
        groups.append(Group(setting.name, "", tuple(entries)))
        groups += peers
    return groups


def _entries(each: Property) -> Iterator[tuple[str, str]]:
    value = each.value
    if isinstance(value, bool):
        yield each.name, "true" if value else "false"
    elif isinstance(value, int):
        yield each.name, str(value)
    elif isinstance(value, Choice):
        yield each.name, value.nick
    elif isinstance(value, Secret):
        yield each.name, value.reveal()
    elif isinstance(value, str):
        yield each.name, keyfile_value(value)
    elif each.name in ("address-data", "route-data", "routing-rules"):
        for number, item in enumerate(value, 1):
            if isinstance(item, IpAddress):
                yield f"address{number}", str(item.interface)
            elif isinstance(item, Route):
                yield f"route{number}", f"{item.destination},,{item.metric}"
                if item.table is not None:
                    yield f"route{number}_options", f"table={item.table}"
            elif isinstance(item, Rule):
                yield f"routing-rule{number}", keyfile_value(rule_text(item))
    else:
        yield each.name, keyfile_list(str(item) for item in value)


def _peer(peer: Peer) -> Group:
    entries: list[tuple[str, str]] = []
    if peer.endpoint is not None:
        entries.append(("endpoint", keyfile_value(peer.endpoint)))
    if peer.preshared_key is not None:
        entries += [
            ("preshared-key", peer.preshared_key.reveal()),
            # Without it NetworkManager takes the flags for 4, and leaves the preshared key out in silence.
            ("preshared-key-flags", str(SECRET_IN_PROFILE)),
        ]
    if peer.persistent_keepalive:
        entries.append(("persistent-keepalive", str(peer.persistent_keepalive)))
    if peer.allowed_ips:
        entries.append(("allowed-ips", keyfile_list(peer.allowed_ips)))
    return Group(f"wireguard-peer.{single_line(peer.public_key)}", single_line(peer.comment), tuple(entries))


def rule_text(rule: Rule) -> str:
    """Return a rule in the words of nm_ip_routing_rule_to_string(), which from_string() reads since 1.18."""
    words = ["priority", str(rule.priority)]
    if rule.invert:
        words.append("not")
    if rule.source is not None:
        words += ["from", _rule_prefix(rule.source)]
    elif rule.destination is None:
        words += ["from", "0.0.0.0/0" if rule.version == 4 else "::/0"]
    if rule.destination is not None:
        words += ["to", _rule_prefix(rule.destination)]
    if rule.firewall_mark is not None:
        words += ["fwmark", f"0x{rule.firewall_mark:x}"]
    if rule.incoming_interface is not None:
        words += ["iif", rule.incoming_interface]
    if rule.suppress_prefix_length is not None:
        words += ["suppress_prefixlength", str(rule.suppress_prefix_length)]
    words += ["type", "prohibit"] if rule.table is None else ["table", str(rule.table)]
    return " ".join(words)


def _rule_prefix(prefix: Prefix) -> str:
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)
