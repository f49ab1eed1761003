"""wg-quick files as administrators write them, each beside the topology of the same network.

In corpus/, NAME.conf is written by hand and knows nothing of wgnet; it is for the host `me` of NAME.yaml. NAME is the
interface, the network and, with `.conf`, the file's name. No secret stands in a file: `PrivateKey = @me` and
`PresharedKey = @me-PEER` are filled in from seeds. In: the files. Out: entries, and what wgnet renders for `me`. Starts
no process, opens nothing but the corpus and a folder for the key store that it removes again.

What the kernel has of the two is compared in held.py.
"""

from __future__ import annotations

import ipaddress
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from example_keys import master_secret, private_key
from example_trees import read_fleet, render

from wgnet.keys.derive import derive_preshared_key
from wgnet.managers.artifact import Artifact
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager

Address: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Prefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

CORPUS = Path(__file__).parent / "corpus"
#: The host that is compared.
HOST = "me"
#: The managers that are held against wg-quick.
MANAGERS = (Manager.NETWORKD, Manager.NETWORKMANAGER)
#: What the names in endpoints resolve to, one address each, so that no resolver has a choice; for /etc/hosts.
NAMES = {
    "hub.example.net": "198.51.100.1",
    "hamburg.example.net": "198.51.100.40",
    "six.example.net": "2001:db8:100::6",
}
#: Where the host is to stand: its addresses, and the prefixes that it reaches by routes with an MTU of their own.
UNDERLAY = ("192.168.77.2/24", "2001:db8:77::2/64")
GATEWAYS = ("192.168.77.1", "2001:db8:77::1")
NARROW = {"203.0.113.0/24": 1492}


@dataclass(frozen=True)
class ConfPeer:
    """A [Peer] section. `keepalive` counts seconds, 0 is off; `preshared` says whether there is a preshared key."""

    public_key: str
    allowed_ips: frozenset[Prefix]
    endpoint: str | None
    keepalive: int
    preshared: bool


@dataclass(frozen=True)
class Conf:
    """A wg-quick file as wg(8) and wg-quick(8) read it. None is what the file does not say; `table` "auto" too."""

    addresses: tuple[Address, ...]
    listen_port: int | None
    mtu: int | None
    table: str
    mark: int
    dns: tuple[str, ...]
    peers: tuple[ConfPeer, ...]

    @property
    def own_prefixes(self) -> frozenset[Prefix]:
        """Return the prefixes of the addresses."""
        return frozenset(address.network for address in self.addresses)

    @property
    def allowed_ips(self) -> frozenset[Prefix]:
        """Return the AllowedIPs of all peers."""
        return frozenset(prefix for peer in self.peers for prefix in peer.allowed_ips)

    @property
    def defaults(self) -> frozenset[Prefix]:
        """Return the default routes among AllowedIPs."""
        return frozenset(prefix for prefix in self.allowed_ips if not prefix.prefixlen)

    @property
    def table_number(self) -> int | None:
        """Return the number that `Table` has, or None where it has none."""
        return int(self.table) if self.table.isdecimal() else None

    def versions(self) -> frozenset[int]:
        """Return the IP versions of the addresses."""
        return frozenset(address.version for address in self.addresses)


@dataclass(frozen=True)
class Entry:
    """One configuration: as a wg-quick file with its keys, and as a topology. `covers` are keys of `FEATURES`."""

    name: str
    description: str
    conf: str
    topology: str

    @property
    def interface(self) -> str:
        """Return the interface's name."""
        return self.name

    @cached_property
    def parsed(self) -> Conf:
        """Return what the wg-quick file says."""
        return parse_conf(self.conf)

    @property
    def covers(self) -> frozenset[str]:
        """Return the features that the configuration has."""
        return frozenset(name for name, has in FEATURES.items() if has(self))

    def plan(self, manager: Manager) -> InterfacePlan:
        """Return wgnet's plan of the host under a manager."""
        fleet, _ = read_fleet({f"{self.name}.yaml": topology_under(self, manager)})
        (plan,) = fleet.plan_host(HOST).interfaces
        return plan


def entries() -> list[Entry]:
    """Return the corpus, in the order of the names."""
    return [
        Entry(
            name=path.stem,
            description=path.read_text().split("\n", 1)[0].removeprefix("# "),
            conf=fill(path.stem, path.read_text()),
            topology=path.with_suffix(".yaml").read_text(),
        )
        for path in sorted(CORPUS.glob("*.conf"))
    ]


def fill(network: str, conf: str) -> str:
    """Return a wg-quick file of the corpus with the keys in their places."""

    def secret(match: re.Match[str]) -> str:
        me = private_key(network, HOST)
        _, _, peer = match[2].partition("-")
        if not peer:
            return f"{match[1]}{me.reveal()}"
        other = private_key(network, peer).public()
        return f"{match[1]}{derive_preshared_key(master_secret(network), str(me.public()), str(other)).reveal()}"

    return re.sub(r"(?im)^((?:private|preshared)key\s*=\s*)@(\S+)$", secret, conf)


def topology_under(entry: Entry, manager: Manager) -> str:
    """Return the topology with the host under a manager; what stands there in the file is a placeholder."""
    text, count = re.subn(r"(?m)^    manager: networkd$", f"    manager: {manager.value}", entry.topology)
    assert count == 1, f"{entry.name}.yaml names one manager, that of '{HOST}'"
    return text


def render_under(entry: Entry, manager: Manager) -> list[Artifact]:
    """Return every file that wgnet makes for the host under a manager, with its keys."""
    with tempfile.TemporaryDirectory() as folder:
        text = topology_under(entry, manager)
        tree = render({f"{entry.name}.yaml": text}, Path(folder), only=frozenset({HOST}))
    assert tree.said[HOST] == [], f"{entry.name}: {tree.said[HOST]}"
    return tree.files[HOST]


# --- reading a wg-quick file -----------------------------------------------------------------------------------------


def parse_conf(text: str) -> Conf:
    """Read a wg-quick file by the grammar of wg(8) and wg-quick(8): keys in any case, lists in several lines."""
    interface: dict[str, list[str]] = {}
    peers: list[dict[str, list[str]]] = []
    current = interface
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.lower() == "[interface]":
            current = interface
        elif line.lower() == "[peer]":
            current = {}
            peers.append(current)
        elif line:
            key, equals, value = line.partition("=")
            assert equals, f"a line that is neither section nor key: {line.split()[0]}"
            current.setdefault(key.strip().lower(), []).append(value.strip())
    number = _one(interface, "fwmark") or "off"
    port, mtu = _one(interface, "listenport"), _one(interface, "mtu")
    return Conf(
        addresses=tuple(ipaddress.ip_interface(word) for word in _words(interface, "address")),
        listen_port=None if port is None else int(port),
        mtu=None if mtu is None else int(mtu),
        table=_one(interface, "table") or "auto",
        mark=0 if number == "off" else int(number, 0),
        dns=tuple(_words(interface, "dns")),
        peers=tuple(map(_peer, peers)),
    )


def _peer(keys: dict[str, list[str]]) -> ConfPeer:
    keepalive = _one(keys, "persistentkeepalive") or "off"
    (public_key,) = keys["publickey"]
    return ConfPeer(
        public_key=public_key,
        # wg(8) masks host bits.
        allowed_ips=frozenset(ipaddress.ip_network(word, strict=False) for word in _words(keys, "allowedips")),
        endpoint=_one(keys, "endpoint"),
        keepalive=0 if keepalive == "off" else int(keepalive),
        preshared="presharedkey" in keys,
    )


def _one(keys: dict[str, list[str]], name: str) -> str | None:
    values = keys.get(name, [])
    assert len(values) < 2, f"{name} stands twice"
    return values[0] if values else None


def _words(keys: dict[str, list[str]], name: str) -> Iterator[str]:
    for value in keys.get(name, []):
        yield from filter(None, map(str.strip, value.split(",")))


# --- what is covered -------------------------------------------------------------------------------------------------


def contains(outer: Prefix, inner: Prefix) -> bool:
    """Whether every address of `inner` is in `outer`."""
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _nests(entry: Entry, *, at_one_peer: bool) -> bool:
    peers = entry.parsed.peers
    return any(
        contains(wide, narrow) and wide != narrow and wide.prefixlen
        for one in peers
        for two in peers
        if (one is two) is at_one_peer
        for wide in one.allowed_ips
        for narrow in two.allowed_ips
    )


def _covered(prefix: Prefix, entry: Entry) -> bool:
    return any(contains(own, prefix) for own in entry.parsed.own_prefixes if own.prefixlen < own.max_prefixlen)


def _addresses_of_length(entry: Entry, *lengths: int) -> bool:
    return any(address.network.prefixlen in lengths for address in entry.parsed.addresses)


def _endpoint(entry: Entry, pattern: str) -> bool:
    return any(peer.endpoint and re.match(pattern, peer.endpoint) for peer in entry.parsed.peers)


def _default(entry: Entry, *versions: int) -> bool:
    return {prefix.version for prefix in entry.parsed.defaults} == set(versions) and entry.parsed.table == "auto"


def _count_versions(entry: Entry, version: int) -> int:
    return sum(address.version == version for address in entry.parsed.addresses)


#: What the corpus has to cover, by name: whether an entry has it.
FEATURES: dict[str, Callable[[Entry], bool]] = {
    "IPv4 alone": lambda e: e.parsed.versions() == {4},
    "IPv6 alone": lambda e: e.parsed.versions() == {6},
    "both families": lambda e: e.parsed.versions() == {4, 6},
    "one peer": lambda e: len(e.parsed.peers) == 1,
    "several peers": lambda e: 1 < len(e.parsed.peers) < 10,
    "sixty peers": lambda e: len(e.parsed.peers) >= 60,
    "a hundred AllowedIPs": lambda e: any(len(peer.allowed_ips) >= 100 for peer in e.parsed.peers),
    "hub": lambda e: "{hub: me}" in e.topology,
    "spoke": lambda e: "{hub: hub}" in e.topology,
    "mesh": lambda e: "peering:" not in e.topology and len(e.parsed.peers) > 1,
    "site to site": lambda e: e.topology.count("    advertise:") > 1 or "site:" in e.topology,
    "several sites": lambda e: e.topology.count("    advertise:") > 2,
    "AllowedIPs that are the own subnet": lambda e: bool(e.parsed.allowed_ips & e.parsed.own_prefixes),
    "AllowedIPs inside the own prefix": lambda e: any(
        _covered(prefix, e) and prefix.prefixlen < prefix.max_prefixlen and prefix not in e.parsed.own_prefixes
        for prefix in e.parsed.allowed_ips
    ),
    "AllowedIPs wider than the own prefix": lambda e: any(
        contains(prefix, own) and prefix != own and prefix.prefixlen > 0
        for prefix in e.parsed.allowed_ips
        for own in e.parsed.own_prefixes
    ),
    "AllowedIPs outside the own prefix": lambda e: any(
        prefix.prefixlen and not _covered(prefix, e) for prefix in e.parsed.allowed_ips
    ),
    "overlapping prefixes at two peers": lambda e: _nests(e, at_one_peer=False),
    "overlapping prefixes at one peer": lambda e: _nests(e, at_one_peer=True),
    "IPv4 default route": lambda e: _default(e, 4),
    "IPv6 default route": lambda e: _default(e, 6),
    "default routes of both families": lambda e: _default(e, 4, 6),
    "default route, FwMark given": lambda e: bool(e.parsed.defaults) and bool(e.parsed.mark),
    "default route, FwMark not given": lambda e: bool(e.parsed.defaults) and not e.parsed.mark,
    "default route beside other peers": lambda e: bool(e.parsed.defaults) and len(e.parsed.peers) > 1,
    "several exit nodes to choose from": lambda e: e.topology.count("0.0.0.0/0") > 1 and "bypass" not in e.topology,
    "halves instead of a default route": lambda e: ipaddress.ip_network("0.0.0.0/1") in e.parsed.allowed_ips,
    "Table = off": lambda e: e.parsed.table == "off",
    "Table = off with default route": lambda e: e.parsed.table == "off" and bool(e.parsed.defaults),
    "Table = N": lambda e: e.parsed.table_number is not None,
    "Table = N with default route": lambda e: e.parsed.table_number is not None and bool(e.parsed.defaults),
    "Table = auto": lambda e: re.search(r"(?m)^Table = auto$", e.conf) is not None,
    "FwMark without default route": lambda e: bool(e.parsed.mark) and not e.parsed.defaults,
    "MTU given": lambda e: e.parsed.mtu is not None,
    "MTU not given": lambda e: e.parsed.mtu is None,
    "MTU 1280": lambda e: e.parsed.mtu == 1280,
    "MTU 9000": lambda e: e.parsed.mtu == 9000,
    "endpoint behind a narrow line": lambda e: _endpoint(e, r"203\.0\.113\."),
    "ListenPort given": lambda e: e.parsed.listen_port is not None,
    "ListenPort not given": lambda e: e.parsed.listen_port is None,
    "keepalive": lambda e: any(peer.keepalive for peer in e.parsed.peers),
    "no keepalive": lambda e: not any(peer.keepalive for peer in e.parsed.peers),
    "preshared keys": lambda e: all(peer.preshared for peer in e.parsed.peers),
    "a preshared key at one peer of several": lambda e: len({peer.preshared for peer in e.parsed.peers}) == 2,
    "IPv4 endpoint": lambda e: _endpoint(e, r"\d+\."),
    "IPv6 endpoint": lambda e: _endpoint(e, r"\["),
    "endpoint by name": lambda e: _endpoint(e, r"[a-z]"),
    "endpoint inside the own LAN": lambda e: _endpoint(e, r"192\.168\.77\."),
    "peers without endpoint": lambda e: any(peer.endpoint is None for peer in e.parsed.peers),
    "several addresses of a family": lambda e: _count_versions(e, 4) > 1 and _count_versions(e, 6) > 1,
    "/31 or /127": lambda e: _addresses_of_length(e, 31, 127),
    "/32": lambda e: any(one.version == 4 and one.network.prefixlen == 32 for one in e.parsed.addresses),
    "/128": lambda e: _addresses_of_length(e, 128),
    "DNS": lambda e: bool(e.parsed.dns),
    "host bits in AllowedIPs": lambda e: "10.8.0.1/24, fd08::1/64, 192.168.1.1/24" in e.conf,
    "a host that is left out": lambda e: "disabled: true" in e.topology,
    "a part of what is advertised": lambda e: "accept:" in e.topology,
    "a link for a routing protocol": lambda e: "allowed-ips: any" in e.topology,
    "an external peer": lambda e: "manager: external" in e.topology,
}
