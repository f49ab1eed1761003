"""Which peers `wgnet refresh` tries elsewhere, where, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import plan_of
from hypothesis import given
from hypothesis import strategies as st

from wgnet.live.changes import PeerChange
from wgnet.live.device import LiveDevice, LivePeer
from wgnet.live.refresh import (
    PATIENCE_S,
    STALE_S,
    Condition,
    DeviceMemory,
    PeerMemory,
    Refreshment,
    condition_of,
    find_candidates,
    observe,
    refresh_endpoints,
    refresh_keys,
    wanting_peers,
)
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Prefix

NOW = 1_800_000_000
A = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="
B = "lpIRNd1S7ubJMO6Slv8QGkddst2BxyxwuOfrCDtyRxc="
C = "PIobfPZ6qbsFqL4/I2pPMSmNCh5SHLXGmumJTZc8fh0="
D = "AyVNvBFxSvFn6QF5DypJCHllCtS+pXqYK0g4hWeHIg8="
HERE = "lp/qXJlJu0ZUNgPqO1hPhNzmqHZ0SlhwaUAhqMEISR8="

TEXT = f"""\
wgnet: 1
network: {{name: office, subnets: [10.80.0.0/24]}}
hosts:
  here: {{addresses: [10.80.0.1], public-key: {HERE}}}
  many: {{addresses: [10.80.0.2], public-key: {A}, endpoint: [192.0.2.1, many.example, "[2001:db8::1]:99"]}}
  one: {{addresses: [10.80.0.3], public-key: {B}, endpoint: 192.0.2.9}}
  rotating: {{addresses: [10.80.0.4], public-key: {C}, next-public-key: {D}, endpoint: 192.0.2.7}}
"""
FIRST, SECOND, THIRD, LAST = "192.0.2.1:51820", "203.0.113.5:51820", "203.0.113.6:51820", "[2001:db8::1]:99"
NAMES = {"many.example": ("203.0.113.5", "203.0.113.6")}


@pytest.fixture(scope="module")
def plan() -> InterfacePlan:
    return plan_of(TEXT, "here")


def peer(key: str = A, **values: object) -> LivePeer:
    base = LivePeer(
        public_key=key,
        preshared_key=None,
        endpoint=FIRST,
        allowed_ips=frozenset(),
        latest_handshake=NOW - 1000,
        received=5000,
        sent=5000,
        persistent_keepalive=0,
    )
    return replace(base, **values)  # type: ignore[arg-type]


def device(*peers: LivePeer, public_key: str = HERE) -> LiveDevice:
    return LiveDevice(
        name="wg0",
        private_key=None,
        public_key=public_key,
        listen_port=51820,
        firewall_mark=0,
        peers={each.public_key: each for each in peers},
    )


def remembered(**values: object) -> PeerMemory:
    base = PeerMemory(sent=5000, received=5000, heard_at=NOW - 900, heard_sent=5000)
    return replace(base, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("live", "memory", "condition"),
    [
        # A handshake that is young enough, whatever else.
        (peer(latest_handshake=NOW), None, Condition.FRESH),
        (peer(latest_handshake=NOW - STALE_S), None, Condition.FRESH),
        (peer(latest_handshake=NOW + 100), None, Condition.FRESH),
        (peer(latest_handshake=NOW - 200, endpoint=None), None, Condition.VAIN),
        (peer(latest_handshake=NOW - STALE_S - 25, persistent_keepalive=25), None, Condition.FRESH),
        # Silence is no sickness: nobody has spoken.
        (peer(), None, Condition.IDLE),
        (peer(), remembered(), Condition.IDLE),
        (peer(), remembered(stale_sent=5000), Condition.IDLE),
        # Somebody has, in vain.
        (peer(sent=5148), remembered(stale_sent=5000), Condition.VAIN),
        (peer(persistent_keepalive=25), None, Condition.VAIN),
        # Heard since the last look, though the clock says otherwise: it may have leapt.
        (peer(sent=9000, received=5001, persistent_keepalive=25), remembered(stale_sent=5000), Condition.FRESH),
        # Never: three attempts are 15 seconds.
        (peer(latest_handshake=0, received=0, sent=443), None, Condition.IDLE),
        (peer(latest_handshake=0, received=0, sent=444), None, Condition.VAIN),
        (peer(latest_handshake=0, received=0, sent=0, endpoint=None), None, Condition.VAIN),
        (peer(latest_handshake=0, received=0, sent=148), remembered(received=0, stale_sent=0), Condition.VAIN),
    ],
)
def test_condition_of_a_peer(live: LivePeer, memory: PeerMemory | None, condition: Condition) -> None:
    assert condition_of(live, memory, NOW) is condition


def test_a_stale_peer_without_a_route_to_its_endpoint_speaks_in_vain() -> None:
    assert condition_of(peer(), None, NOW, {FIRST}) is Condition.VAIN
    assert condition_of(peer(latest_handshake=NOW), None, NOW, {FIRST}) is Condition.FRESH


def test_counters_that_go_back_are_of_another_device() -> None:
    former = DeviceMemory(public_key=HERE, peers={A: remembered(stale_sent=4000, tried=(FIRST,))})
    conditions, memory = observe(device(peer(sent=10, received=10)), former, NOW)
    assert conditions == {A: Condition.IDLE}
    assert memory.peers[A] == PeerMemory(sent=10, received=10, heard_at=NOW, heard_sent=10, stale_sent=10)


def test_what_was_tried_is_forgotten_once_the_peer_answers() -> None:
    former = DeviceMemory(peers={A: remembered(stale_sent=5000, tried=(FIRST, SECOND))})
    _, memory = observe(device(peer(latest_handshake=NOW - 3, received=5100)), former, NOW)
    assert memory.peers[A] == PeerMemory(sent=5000, received=5100, heard_at=NOW, heard_sent=5000)


def test_candidates_are_all_addresses_of_all_endpoints_in_order(plan: InterfacePlan) -> None:
    (many,) = (each for each in plan.peers if each.name == "many")
    assert find_candidates(many, NAMES) == [FIRST, SECOND, THIRD, LAST]
    assert find_candidates(many, {}) == [FIRST, LAST]
    assert find_candidates(many, {"many.example": ("192.0.2.1", "2001:db8::7")}) == [
        FIRST,
        "[2001:db8::7]:51820",
        LAST,
    ]


def look(
    plan: InterfacePlan, live: LiveDevice, memory: DeviceMemory, now: int, unroutable: frozenset[str] = frozenset()
) -> tuple[list[Refreshment], DeviceMemory]:
    conditions, memory = observe(live, memory, now, unroutable)
    wanting = wanting_peers(plan, conditions, memory, now)
    return refresh_endpoints(live, wanting, memory, NAMES, now, unroutable)


def test_one_run_after_the_other_tries_one_endpoint_after_the_other_and_begins_anew(plan: InterfacePlan) -> None:
    live, memory, now = peer(persistent_keepalive=25), DeviceMemory(), NOW
    tried = []
    for _ in range(9):
        done, memory = look(plan, device(live), memory, now)
        if done:
            (each,) = done
            assert (each.what, each.change.public_key, each.before) == ("endpoint", A, live.endpoint)
            assert each.change == PeerChange(name="many", public_key=A, endpoint=each.after)
            tried.append(each.after)
            live = replace(live, endpoint=each.after)
        now += 30
    assert tried == [SECOND, THIRD, LAST, FIRST, SECOND, THIRD, LAST, FIRST, SECOND]


def test_an_endpoint_is_given_its_time(plan: InterfacePlan) -> None:
    live, memory, now = peer(persistent_keepalive=25), DeviceMemory(), NOW
    changes = []
    for _ in range(2 * PATIENCE_S + 1):
        done, memory = look(plan, device(live), memory, now)
        if done:
            changes.append(now)
            live = replace(live, endpoint=done[0].after)
        now += 1
    assert changes == [NOW, NOW + PATIENCE_S, NOW + 2 * PATIENCE_S]


def test_a_peer_that_has_roamed_and_gone_is_tried_where_it_is_configured(plan: InterfacePlan) -> None:
    live = peer(endpoint="198.51.100.77:4242", persistent_keepalive=25)
    done, _ = look(plan, device(live), DeviceMemory(), NOW)
    assert [each.after for each in done] == [FIRST]


def test_endpoints_without_a_route_come_only_where_there_is_no_other(plan: InterfacePlan) -> None:
    live = peer(persistent_keepalive=25)
    done, _ = look(plan, device(live), DeviceMemory(), NOW, frozenset((SECOND, THIRD)))
    assert [each.after for each in done] == [LAST]
    done, _ = look(plan, device(live), DeviceMemory(), NOW, frozenset((FIRST, SECOND, THIRD, LAST)))
    assert [each.after for each in done] == [SECOND]


@pytest.mark.parametrize("endpoint", ["192.0.2.9:51820", None])
def test_a_single_endpoint_is_only_set_where_it_is_not(plan: InterfacePlan, endpoint: str | None) -> None:
    done, _ = look(plan, device(peer(B, endpoint=endpoint, persistent_keepalive=25)), DeviceMemory(), NOW)
    assert [each.after for each in done] == ([] if endpoint else ["192.0.2.9:51820"])


def test_what_no_plan_has_is_left_alone(plan: InterfacePlan) -> None:
    done, _ = look(plan, device(peer(HERE, persistent_keepalive=25)), DeviceMemory(), NOW)
    assert done == []


times = st.integers(NOW - 400, NOW) | st.just(0)


@given(st.lists(st.tuples(times, st.integers(0, 600), st.integers(0, 600), st.sampled_from((0, 25))), max_size=6))
def test_a_peer_that_answers_is_never_named(looks: list[tuple[int, int, int, int]]) -> None:
    plan, memory, sent, received = plan_of(TEXT, "here"), DeviceMemory(), 0, 0
    for number, (handshake, more_sent, more_received, keepalive) in enumerate(looks):
        sent, received, now = sent + more_sent, received + more_received, NOW + 30 * number
        others = [
            peer(key, latest_handshake=handshake, sent=sent, received=received, persistent_keepalive=keepalive)
            for key in (B, C, D)
        ]
        live = device(peer(latest_handshake=now - 100, sent=sent, received=received), *others)
        conditions, observed = observe(live, memory, now)
        keys, kept = refresh_keys(plan, live, conditions, observed, now, memory.public_key)
        moved, memory = refresh_endpoints(live, wanting_peers(plan, conditions, kept, now), kept, NAMES, now)
        assert A not in {each.change.public_key for each in (*keys, *moved)}


# --- two keys ---


def turn(
    plan: InterfacePlan, here: LivePeer, there: LivePeer, memory: DeviceMemory | None = None, former: str | None = HERE
) -> list[Refreshment]:
    live = device(here, there)
    conditions, observed = observe(live, memory or DeviceMemory(), NOW)
    return refresh_keys(plan, live, conditions, observed, NOW, former)[0]


@pytest.fixture
def prefixes(plan: InterfacePlan) -> frozenset[Prefix]:
    return frozenset(next(each for each in plan.peers if each.name == "rotating").allowed_ips)


def test_allowed_ips_follow_the_last_handshake_in_either_direction(
    plan: InterfacePlan, prefixes: frozenset[Prefix]
) -> None:
    old = peer(C, latest_handshake=NOW - 50, allowed_ips=prefixes)
    new = peer(D, latest_handshake=NOW - 10)
    (each,) = turn(plan, old, new)
    assert (each.what, each.change.public_key, each.change.allowed_ips) == ("allowed-ips", D, prefixes)
    # The old key is not named: the kernel takes the prefixes from it as the new one gets them.
    back = turn(
        plan,
        replace(old, allowed_ips=frozenset(), latest_handshake=NOW),
        replace(new, allowed_ips=prefixes),
    )
    assert [(each.what, each.change.public_key) for each in back] == [("allowed-ips", C)]
    assert turn(plan, replace(old, allowed_ips=frozenset()), replace(new, allowed_ips=prefixes)) == []
    assert turn(plan, replace(old, latest_handshake=NOW), new) == []
    assert turn(plan, replace(old, latest_handshake=NOW), replace(new, latest_handshake=NOW)) == []


def test_a_peer_that_is_not_applied_yet_is_left_alone(plan: InterfacePlan, prefixes: frozenset[Prefix]) -> None:
    live = device(peer(C, allowed_ips=prefixes))
    conditions, memory = observe(live, DeviceMemory(), NOW)
    assert refresh_keys(plan, live, conditions, memory, NOW, HERE)[0] == []


def test_a_key_that_is_spoken_to_in_vain_has_the_other_asked(plan: InterfacePlan, prefixes: frozenset[Prefix]) -> None:
    old = peer(C, latest_handshake=NOW - 60, allowed_ips=prefixes, sent=5148)
    new = peer(D, latest_handshake=0, received=0, sent=0, endpoint=None)
    memory = DeviceMemory(
        public_key=HERE,
        peers={C: remembered(heard_at=NOW - 20), D: remembered(sent=0, received=0, heard_sent=0)},
    )
    (each,) = turn(plan, old, new, memory)
    assert (each.what, each.change.public_key, each.change.endpoint) == ("handshake", D, FIRST)
    assert each.restored is not None
    assert (each.change.persistent_keepalive, each.restored.persistent_keepalive) == (1, 0)
    # With a keepalive of its own it is switched off and on again.
    (each,) = turn(plan, old, replace(new, persistent_keepalive=25, endpoint=LAST), memory)
    assert each.restored is not None
    assert (each.change.persistent_keepalive, each.restored.persistent_keepalive) == (0, 25)
    assert each.change.endpoint is None
    # Not while the first may still answer, nor where nothing was asked of it.
    assert turn(plan, old, new, replace(memory, peers={**memory.peers, C: remembered(heard_at=NOW - 10)})) == []
    assert turn(plan, replace(old, sent=5100), new, memory) == []


def test_no_endpoint_of_a_key_is_tried_while_the_other_answers(plan: InterfacePlan) -> None:
    fresh = peer(C, latest_handshake=NOW - 5, persistent_keepalive=25)
    never = peer(D, latest_handshake=0, received=0, sent=100_000, persistent_keepalive=25)
    assert look(plan, device(fresh, never), DeviceMemory(), NOW)[0] == []


def test_after_a_new_key_of_ones_own_every_peer_hears_from_it(plan: InterfacePlan) -> None:
    old, new = peer(C, latest_handshake=NOW), peer(D, endpoint=None)
    assert turn(plan, old, new, former=None) == turn(plan, old, new) == []
    asked = turn(plan, old, new, former=A)
    assert [(each.what, each.change.public_key) for each in asked] == [("handshake", C)]
