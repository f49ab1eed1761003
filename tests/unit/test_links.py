"""Which pairs of hosts are peers: mesh, hub and link rules, their strength, sites, external and disabled hosts."""

from __future__ import annotations

import pytest
from helpers import codes_of, routing_of, text_of

from wgnet.model.topology import RuleKind
from wgnet.routing.links import endpoint_towards

NET = "network: {name: o, subnets: [10.80.0.0/24]}\n"


def links_of(peering: str, **hosts: str) -> set[str]:
    """Return the links as texts such as `a-b`, and the silent pairs as `a/b`; hosts are given by their keys."""
    lines = "".join(
        f"  {name}: {{addresses: [10.80.0.{n}]{keys and ', '}{keys}}}\n"
        for n, (name, keys) in enumerate(hosts.items(), 1)
    )
    routing = routing_of(text_of(f"{NET}peering: {peering}\nhosts:\n{lines}"))
    links = routing.links
    found = set()
    for one, host in enumerate(links.hosts):
        for two in links.rules[one]:
            assert one in links.rules[two], "a link has two ends"
            assert links.masks[one] >> two & 1
            assert one != two
            found.add("-".join(sorted((host.name, links.hosts[two].name))))
        assert links.masks[one].bit_count() == len(links.rules[one])
    found.update("/".join(sorted((links.hosts[one].name, links.hosts[two].name))) for one, two, _ in links.silent)
    return found


E = "endpoint: e.example"


@pytest.mark.parametrize(
    ("peering", "hosts", "links"),
    [
        # every pair of a mesh, but those that cannot shake hands
        ("mesh", {"a": E, "b": E, "c": E}, {"a-b", "a-c", "b-c"}),
        ("mesh", {"a": E, "b": "", "c": ""}, {"a-b", "a-c"}),
        ("mesh", {"a": "", "b": ""}, set()),
        ("[{mesh: [a, b]}, {mesh: [b, c]}]", {"a": E, "b": E, "c": E}, {"a-b", "b-c"}),
        # every spoke with each hub, and the hubs with each other
        ("{hub: a}", {"a": E, "b": "", "c": ""}, {"a-b", "a-c"}),
        ("{hub: [a, b]}", {"a": E, "b": E, "c": "", "d": ""}, {"a-b", "a-c", "a-d", "b-c", "b-d"}),
        ("[{hub: a, spokes: [b]}]", {"a": E, "b": "", "c": ""}, {"a-b"}),
        # a hub's or link's pair without an endpoint is told, not left out
        ("{hub: a}", {"a": "", "b": "", "c": E}, {"a/b", "a-c"}),
        ("[{link: [a, b]}]", {"a": "", "b": ""}, {"a/b"}),
        ("[{link: [a, b], endpoint: {b: x.example}}]", {"a": "", "b": ""}, {"a-b"}),
        # a site-endpoint counts between hosts of one site
        ("mesh", {"a": "site: x, site-endpoint: 10.1.0.1", "b": "site: x", "c": "site: y", "d": ""}, {"a-b"}),
        ("{hub: a}", {"a": "site: x, site-endpoint: 10.1.0.1", "b": "site: x", "c": "site: y"}, {"a-b", "a/c"}),
        ("[{link: [a, b]}]", {"a": "site: x", "b": "site: x, site-endpoint: 10.1.0.1"}, {"a-b"}),
        ("[{link: [a, b]}]", {"a": "", "b": "site-endpoint: 10.1.0.1"}, {"a/b"}),
        # two external hosts are linked only by an explicit link
        ("mesh", {"a": f"{E}, manager: external", "b": f"{E}, manager: external", "c": ""}, {"a-c", "b-c"}),
        ("{hub: a}", {"a": f"{E}, manager: external", "b": "manager: external", "c": ""}, {"a-c"}),
        ("{hub: [a, b]}", {"a": f"{E}, manager: external", "b": f"{E}, manager: external"}, set()),
        ("[{link: [a, b]}]", {"a": f"{E}, manager: external", "b": "manager: external"}, {"a-b"}),
        ("mesh", {"a": "manager: external, site: x, site-endpoint: x.lan", "b": "manager: external, site: x"}, set()),
        # nobody peers with a disabled host
        ("mesh", {"a": E, "b": f"{E}, disabled: true", "c": E}, {"a-c"}),
        ("{hub: a}", {"a": f"{E}, disabled: true", "b": E, "c": E}, set()),
        ("[{link: [a, b]}, {link: [b, c]}]", {"a": f"{E}, disabled: true", "b": "", "c": E}, {"b-c"}),
    ],
)  # fmt: skip
def test_links(peering: str, hosts: dict[str, str], links: set[str]) -> None:
    assert links_of(peering, **hosts) == links


FOUR = """
hosts:
  a: {addresses: [10.80.0.1], endpoint: a.example}
  b: {addresses: [10.80.0.2], endpoint: b.example}
  c: {addresses: [10.80.0.3], endpoint: c.example}
"""


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_link_beats_hub_beats_mesh_in_any_order(order: list[int]) -> None:
    rules = ["{mesh: all, keepalive: 1}", "{hub: a, spokes: [b, c], keepalive: 2}", "{link: [a, b], keepalive: 3}"]
    routing = routing_of(text_of(f"{NET}peering: [{', '.join(rules[number] for number in order)}]\n{FOUR}"))
    a, b, c = (routing.topology.by_name[name] for name in "abc")
    kinds = {}
    for one, two in ((a, b), (a, c), (b, c)):
        rule, same = routing.links.rule(one, two), routing.links.rule(two, one)
        assert rule is same is not None
        kinds[one.name + two.name] = (rule.kind, rule.keepalive)
    assert kinds == {"ab": (RuleKind.LINK, 3), "ac": (RuleKind.HUB, 2), "bc": (RuleKind.MESH, 1)}


def test_of_two_rules_of_one_kind_the_earlier_governs() -> None:
    routing = routing_of(
        text_of(f"{NET}peering: [{{mesh: [a, b], keepalive: 1}}, {{mesh: all, keepalive: 2}}]\n{FOUR}")
    )
    a, b, c = (routing.topology.by_name[name] for name in "abc")
    rules = [routing.links.rule(a, b), routing.links.rule(b, c)]
    assert [rule and rule.keepalive for rule in rules] == [1, 2]


def test_which_endpoint_a_peer_uses() -> None:
    routing = routing_of(
        text_of(f"""
        {NET.strip()}
        peering:
          - mesh: all
          - link: [a, c]
            endpoint: {{a: [10.9.0.1, 10.9.0.2], c: "10.9.0.3:7"}}
        hosts:
          a: {{addresses: [10.80.0.1], endpoint: [a.example, a2.example], site: x, site-endpoint: "192.168.1.1:9"}}
          b: {{addresses: [10.80.0.2], site: x}}
          c: {{addresses: [10.80.0.3], site: x}}
          d: {{addresses: [10.80.0.4], site: y}}
    """)
    )
    by_name = routing.topology.by_name

    def towards(host: str, peer: str) -> list[str]:
        rule = routing.links.rule(by_name[host], by_name[peer])
        assert rule is not None
        return [str(endpoint) for endpoint in endpoint_towards(by_name[host], by_name[peer], rule)]

    assert towards("a", "d") == ["a.example:51820", "a2.example:51820"]
    assert towards("a", "b") == ["192.168.1.1:9"]
    assert towards("a", "c") == ["10.9.0.1:51820", "10.9.0.2:51820"]
    assert towards("c", "a") == ["10.9.0.3:7"]
    assert towards("b", "a") == []


def test_a_pair_that_a_mesh_leaves_out_is_relayed() -> None:
    text = text_of(f"""
        {NET.strip()}
        hosts:
          r: {{addresses: [10.80.0.1], endpoint: r.example, forward: true}}
          a: {{addresses: [10.80.0.2]}}
          b: {{addresses: [10.80.0.3]}}
        expect: [{{from: a, to: b, via: [r]}}]
    """)
    assert codes_of(text) == []


def test_a_silent_pair_that_another_rule_links_is_no_error() -> None:
    text = text_of(f"""
        {NET.strip()}
        peering: [{{hub: a}}, {{link: [a, b], endpoint: {{b: b.example}}}}]
        hosts:
          a: {{addresses: [10.80.0.2]}}
          b: {{addresses: [10.80.0.3]}}
    """)
    assert codes_of(text) == []


def test_relays_come_first_hubs_in_the_order_of_peering_then_by_name() -> None:
    routing = routing_of(
        text_of(f"""
        {NET.strip()}
        peering: [{{hub: [z, m], spokes: all}}, {{hub: b, spokes: all}}]
        hosts:
          a: {{addresses: [10.80.0.1], endpoint: e.example}}
          m: {{addresses: [10.80.0.2], endpoint: e.example}}
          y: {{addresses: [10.80.0.3], endpoint: e.example, forward: true}}
          c: {{addresses: [10.80.0.4], endpoint: e.example, forward: true}}
          b: {{addresses: [10.80.0.5], endpoint: e.example}}
          z: {{addresses: [10.80.0.6], endpoint: e.example}}
          n: {{addresses: [10.80.0.7], endpoint: e.example}}
    """)
    )
    assert [host.name for host in routing.links.hosts] == ["z", "m", "b", "c", "y", "a", "n"]
    assert routing.links.relays == 5
