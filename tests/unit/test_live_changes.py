"""What is set of a live device: the least that makes it the wanted one, and nothing of peers that are right already."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgnet.keys.types import PresharedKey, PrivateKey
from wgnet.live.changes import DeviceChange, PeerChange, device_change, follow_rotation, restored_device
from wgnet.live.configured import endpoints_of_netdev, metrics_of_network, names_of_netdev
from wgnet.live.costs import Maker, device_costs, link_costs
from wgnet.live.device import DeviceSettings, LiveDevice, LivePeer, PeerSettings
from wgnet.syntax.spec import Manager, Prefix

KEYS = {name: PrivateKey(bytes([8 * number]) * 32).public() for number, name in enumerate("abcdefgh", 1)}
PSK = PresharedKey(b"\7" * 32)


def prefixes(*texts: str) -> frozenset[Prefix]:
    return frozenset(map(ipaddress.ip_network, texts))


def live_peer(name: str, *allowed: str, endpoint: str | None = None, handshake: int = 0) -> LivePeer:
    return LivePeer(
        public_key=KEYS[name],
        preshared_key=None,
        endpoint=endpoint,
        allowed_ips=prefixes(*allowed),
        latest_handshake=handshake,
        received=0,
        sent=0,
        persistent_keepalive=0,
    )


def device(*peers: LivePeer) -> LiveDevice:
    return LiveDevice(
        name="wg0",
        private_key=PrivateKey(b"\1" * 32),
        public_key="x",
        listen_port=51820,
        firewall_mark=0,
        peers={peer.public_key: peer for peer in peers},
    )


def peer(name: str, *allowed: str, endpoint: str | None = None, other: str | None = None) -> PeerSettings:
    return PeerSettings(
        name=name,
        public_key=KEYS[name],
        preshared_key=None,
        endpoint=endpoint,
        allowed_ips=prefixes(*allowed),
        persistent_keepalive=0,
        other_key=None if other is None else KEYS[other],
    )


def settings(*peers: PeerSettings, port: int = 51820) -> DeviceSettings:
    return DeviceSettings(
        name="wg0",
        private_key=PrivateKey(b"\1" * 32),
        public_keys=("x",),
        listen_port=port,
        firewall_mark=0,
        peers={each.public_key: each for each in peers},
    )


def names(change: DeviceChange) -> list[str]:
    return [each.name for each in change.peers]


def test_a_device_that_is_right_is_not_touched() -> None:
    change = device_change(device(live_peer("a", "10.0.0.1/32")), settings(peer("a", "10.0.0.1/32")))
    assert not change
    assert change.peers == ()


def test_a_new_peer_does_not_touch_the_others() -> None:
    change = device_change(device(live_peer("a", "10.0.0.1/32")), settings(peer("a", "10.0.0.1/32"), peer("b", "::/0")))
    assert names(change) == ["b"]
    assert change.peers[0].new


def test_a_peer_that_is_not_wanted_goes_last() -> None:
    change = device_change(device(live_peer("a", "10.0.0.1/32")), settings(peer("b", "10.0.0.1/32")))
    assert [(each.public_key, each.remove) for each in change.peers] == [(KEYS["b"], False), (KEYS["a"], True)]


def test_an_endpoint_that_roamed_is_left_where_it_is() -> None:
    live = device(live_peer("a", endpoint="192.0.2.9:40000", handshake=1000))
    same = settings(peer("a", endpoint="192.0.2.1:51820"))
    assert not device_change(live, same, {KEYS["a"]: "192.0.2.1:51820"})
    # Nor where nobody knows what was configured.
    assert not device_change(live, same)
    assert device_change(live, same, {KEYS["a"]: "192.0.2.7:51820"}).peers[0].endpoint == "192.0.2.1:51820"
    assert device_change(device(live_peer("a")), same).peers[0].endpoint == "192.0.2.1:51820"


@pytest.mark.parametrize(
    ("endpoint", "others", "heard", "is_set"),
    [
        ("192.0.2.1:51820", (), {}, True),
        ("[2001:db8::1]:51820", ("192.0.2.1:51820",), {}, True),
        # It spoke, if only to begin a handshake: that is where it is.
        ("192.0.2.1:51820", (), {"latest_handshake": 1000}, False),
        ("192.0.2.1:51820", (), {"received": 148}, False),
        # `wgnet refresh` tries one after the other.
        ("192.0.2.1:51820", ("192.0.2.9:40000",), {}, False),
        # Who knows what a name stood for.
        ("vpn.example:51820", (), {}, False),
        ("192.0.2.1:51820", ("vpn.example:51820",), {}, False),
    ],
)
def test_an_endpoint_of_nobody_is_set_right(
    endpoint: str, others: tuple[str, ...], heard: dict[str, int], is_set: bool
) -> None:
    """As NetworkManager leaves one that is restarted while a profile changes: of a configuration that is gone."""
    live = device(replace(live_peer("a", endpoint="192.0.2.9:40000"), **heard))
    wanted = settings(replace(peer("a", endpoint=endpoint), other_endpoints=others))
    change = device_change(live, wanted, {KEYS["a"]: endpoint})
    assert [each.endpoint for each in change.peers] == ([endpoint] if is_set else [])


def test_a_preshared_key_is_set_changed_and_cleared() -> None:
    with_key = replace(live_peer("a"), preshared_key=PSK)
    assert device_change(device(with_key), settings(peer("a"))).peers[0].clear_preshared_key
    wanted = replace(peer("a"), preshared_key=PSK)
    assert device_change(device(live_peer("a")), settings(wanted)).peers[0].preshared_key == PSK
    unknown = replace(peer("a"), preshared_key_known=False)
    assert not device_change(device(with_key), settings(unknown))


def test_a_prefix_goes_to_its_new_peer_before_the_old_one_loses_it() -> None:
    live = device(live_peer("a", "10.0.0.1/32", "10.9.0.0/24"), live_peer("b", "10.0.0.2/32"))
    wanted = settings(peer("a", "10.0.0.1/32"), peer("b", "10.0.0.2/32", "10.9.0.0/24"))
    assert names(device_change(live, wanted)) == ["b", "a"]


def test_a_new_port_makes_itself_known_at_once_and_keepalives_go_back() -> None:
    live = device(live_peer("a", endpoint="192.0.2.1:1"), live_peer("b"))
    change = device_change(live, settings(peer("a"), peer("b"), port=5000))
    assert change.listen_port == 5000
    assert [(each.name, each.persistent_keepalive) for each in change.peers] == [("a", 1)]
    assert [(each.name, each.persistent_keepalive) for each in change.kicked] == [("a", 0)]


def test_after_a_new_private_key_this_side_speaks_first() -> None:
    live = device(
        live_peer("a", endpoint="192.0.2.1:1"),
        replace(live_peer("b", endpoint="192.0.2.2:1"), persistent_keepalive=25),
        live_peer("c"),
    )
    wanted = settings(peer("a"), replace(peer("b"), persistent_keepalive=25), peer("c"))
    change = device_change(live, replace(wanted, private_key=PrivateKey(b"\2" * 32)))
    assert change.private_key == PrivateKey(b"\2" * 32)
    # One that is on already is switched off first, or no packet would leave.
    assert {each.name: each.persistent_keepalive for each in change.peers} == {"a": 1, "b": 0}
    assert {each.name: each.persistent_keepalive for each in change.kicked} == {"a": 0, "b": 25}


def test_allowed_ips_follow_the_key_that_shook_hands_last() -> None:
    wanted = settings(peer("a", "10.0.0.1/32", other="b"), peer("b", other="a"))
    live = device(live_peer("a", "10.0.0.1/32", handshake=10), live_peer("b", handshake=20))
    moved = follow_rotation(wanted, live)
    assert moved.peers[KEYS["b"]].allowed_ips == prefixes("10.0.0.1/32")
    assert moved.peers[KEYS["a"]].allowed_ips == frozenset()
    # The one that is to have them stands before the one that has.
    assert names(device_change(live, wanted)) == ["b", "a"]
    still = device(live_peer("a", "10.0.0.1/32", handshake=20), live_peer("b", handshake=10))
    assert not device_change(still, wanted)


def test_a_former_state_is_a_state_to_go_to() -> None:
    before = device(live_peer("a", "10.0.0.1/32", endpoint="192.0.2.1:7"))
    assert not device_change(before, restored_device(before))
    assert names(device_change(device(), restored_device(before))) == [KEYS["a"]]


NAMES = st.lists(st.sampled_from("abcd"), unique=True)
ALLOWED = st.frozensets(st.sampled_from(["10.0.0.1/32", "10.0.0.2/32", "10.1.0.0/16", "fd00::/64"]))


def owned(chosen: Iterable[tuple[str, frozenset[str]]]) -> list[tuple[str, list[str]]]:
    """Give each prefix to the first who wants it: no prefix stands at two peers."""
    taken: set[str] = set()
    found = []
    for name, allowed in chosen:
        found.append((name, sorted(allowed - taken)))
        taken |= allowed
    return found


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), ALLOWED), unique_by=lambda pair: pair[0]),
    st.lists(st.tuples(st.sampled_from("abcd"), ALLOWED), unique_by=lambda pair: pair[0]),
)
def test_making_the_change_leaves_nothing_to_change(
    before: list[tuple[str, frozenset[str]]], after: list[tuple[str, frozenset[str]]]
) -> None:
    live = device(*(live_peer(name, *allowed) for name, allowed in owned(before)))
    wanted = settings(*(peer(name, *allowed) for name, allowed in owned(after)))
    made = kernel(live, device_change(live, wanted))
    assert not device_change(made, wanted)
    untouched = {key for key in live.peers if key in wanted.peers and live.peers[key] == made.peers[key]}
    assert untouched.isdisjoint(each.public_key for each in device_change(live, wanted).peers)


def kernel(live: LiveDevice, change: DeviceChange) -> LiveDevice:
    """Do what the kernel does: a prefix that is given to a peer is taken from whoever has it."""
    peers = dict(live.peers)
    for each in change.peers:
        if each.remove:
            del peers[each.public_key]
            continue
        found = peers.get(each.public_key) or replace(live_peer("a"), public_key=each.public_key)
        if each.allowed_ips is not None:
            for key, other in peers.items():
                peers[key] = replace(other, allowed_ips=other.allowed_ips - each.allowed_ips)
            found = replace(found, allowed_ips=each.allowed_ips)
        peers[each.public_key] = found
    return replace(live, peers=peers)


# --- beside it -------------------------------------------------------------------------------------------------------


def test_endpoints_are_read_from_a_netdev() -> None:
    text = (
        "# Written by wgnet\n[NetDev]\nName=wg0\n\n[WireGuard]\nPrivateKeyFile=/k\n\n"
        "[WireGuardPeer]\n# a\nPublicKey=A=\nEndpoint=a.example:51820\n\n[WireGuardPeer]\n# b\nPublicKey=B=\n"
    )
    assert endpoints_of_netdev(text) == {"A=": "a.example:51820", "B=": None}
    assert endpoints_of_netdev("") == {}
    assert names_of_netdev(text) == {"A=": "a", "B=": "b"}


def test_metrics_are_read_from_a_network() -> None:
    text = (
        "[Match]\nName=wg0\n\n[Address]\nAddress=10.80.0.1/24\nRouteMetric=2000\n\n[Address]\nAddress=fd42:80::1/128\n"
        "\n[Route]\nDestination=10.0.0.0/8\nMetric=7\n"
    )
    assert metrics_of_network(text) == {"10.80.0.1/24": 2000}
    assert metrics_of_network("") == {}


def test_costs_are_those_of_identity_alone() -> None:
    live = device(live_peer("a", "10.0.0.1/32", endpoint="192.0.2.1:1"))
    cheap = settings(peer("a", "10.0.0.2/32", endpoint="192.0.2.3:3"), peer("b", "10.0.0.9/32"))
    assert list(device_costs(live, cheap)) == []
    assert list(device_costs(None, cheap)) == []
    [cost] = device_costs(live, settings(peer("a", "10.0.0.1/32"), port=5000))
    assert cost.peers == ("a",)
    assert "51820 to 5000" in cost.reason
    [cost] = device_costs(live, replace(settings(peer("a", "10.0.0.1/32")), private_key=PrivateKey(b"\2" * 32)))
    assert cost.peers == ()
    assert "private key" in cost.reason
    [cost] = device_costs(live, settings(replace(peer("a", "10.0.0.1/32"), preshared_key=PSK)))
    assert cost.peers == ("a",)
    assert "preshared key" in cost.reason


def test_a_change_of_nothing_is_false() -> None:
    assert not DeviceChange(name="wg0")
    assert DeviceChange(name="wg0", firewall_mark=0)
    assert DeviceChange(name="wg0", peers=(PeerChange(name="a", public_key="A"),))


SERVER = Maker(network="corp", manager=Manager.NETWORKD)
DESKTOP = Maker(network="corp", manager=Manager.NETWORKMANAGER)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"wg0": SERVER}, {"wg0": SERVER, "wg1": SERVER}, None),
        ({}, {"wg0": SERVER}, None),
        ({"wg0": SERVER}, {"wg0": replace(SERVER, network="other")}, None),
        ({"wg0": SERVER}, {"wg0": DESKTOP}, "another manager"),
        ({"wg0": SERVER}, {"wg1": SERVER}, "becomes 'wg1'"),
        ({"wg0": SERVER}, {"wg1": replace(SERVER, network="other")}, "goes"),
        # Its profile says that, if it is active.
        ({"wg0": DESKTOP}, {"wg1": DESKTOP}, None),
        ({"wg0": DESKTOP}, {}, "goes"),
    ],
)
def test_an_interface_that_does_not_stay_costs_every_session(
    before: dict[str, Maker], after: dict[str, Maker], reason: str | None
) -> None:
    found = list(link_costs(before, after))
    assert [(cost.interface, cost.peers) for cost in found] == ([] if reason is None else [("wg0", ())])
    assert all(str(reason) in cost.reason for cost in found)
