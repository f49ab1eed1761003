"""The ip rules of an isolating hub refuse just what the longest prefixes say, however they nest."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from wgnet.routing.isolation import order_refusals
from wgnet.routing.prefixes import PrefixMap

# Eight addresses in a row, and every prefix that has some of them: nested and neighbours as often as can be.
_ADDRESSES = [ipaddress.ip_address("10.0.0.0") + number for number in range(8)]
_PREFIXES = [ipaddress.ip_network(f"10.0.0.{start}/{32 - size}") for size in range(4) for start in range(0, 8, 2**size)]
_OWNERS = st.dictionaries(st.sampled_from(_PREFIXES), st.integers(0, 3))
_NEARBY = st.lists(st.sampled_from(_PREFIXES), max_size=2)


@given(_OWNERS, _NEARBY)
def test_rules_refuse_what_the_longest_prefixes_say(owners: dict[ipaddress.IPv4Network, int], nearby: list) -> None:
    rules = order_refusals(owners, nearby)
    senders, targets = PrefixMap(owners.items()), PrefixMap({**dict.fromkeys(nearby, 0), **owners}.items())
    for sender in _ADDRESSES:
        for target in _ADDRESSES:
            source, destination = senders.find(sender), targets.find(target)
            if source is None:
                continue  # nothing comes from what stands at no peer
            expected = destination is not None and bool(source[1] & destination[1])
            matching = [
                rule for rule in rules if target in rule.destination and (rule.source is None or sender in rule.source)
            ]
            first = [rule for rule in matching if rule.order == min(rule.order for rule in matching)]
            assert len({rule.refuses for rule in first}) <= 1
            assert (bool(first) and first[0].refuses) is expected


def test_flat_prefixes_need_two_orders_and_are_joined() -> None:
    spokes = {ipaddress.ip_network(f"10.0.0.{number}/32"): 1 for number in (2, 3)}
    other = ipaddress.ip_network("192.168.1.0/24")
    rules = order_refusals({**spokes, other: 0}, [])
    joined = ipaddress.ip_network("10.0.0.2/31")
    assert [(rule.order, rule.refuses, rule.source, rule.destination) for rule in rules] == [
        (0, False, other, joined),
        (1, True, None, joined),
    ]
