"""What the properties found once, each as small as it got."""

from __future__ import annotations

import ipaddress

import pytest

from property.networks import Draft, public_key
from property.sound import routing_of
from property.worlds import world_of_plans
from wgnet.routing.trace import Tracer


def draft_of(rules: list[dict[str, object]], **hosts: dict[str, object]) -> Draft:
    draft = Draft(subnets=["10.80.0.0/24"], rules=rules)
    for number, (name, keys) in enumerate(hosts.items()):
        draft.hosts[name] = {"addresses": [f"10.80.0.{number + 1}"], "public-key": public_key(name), **keys}
    return draft


HUB = {"endpoint": "hub.example.net"}
AROUND = {"advertise": ["10.0.0.0/8"]}
OFFER = {"advertise": ["0.0.0.0/0"]}


@pytest.mark.parametrize(
    "draft",
    [
        draft_of([{"hub": ["hub"]}], hub=HUB, office=AROUND, laptop={}),
        draft_of([{"hub": ["hub"]}], hub={**HUB, "exit-node": "office"}, office=OFFER, laptop={}),
        draft_of(
            [{"link": ["hub", "branch"]}, {"link": ["branch", "office"]}],
            hub={**HUB, "forward": True},
            branch={"forward": True, "endpoint": "branch.example.net"},
            office=AROUND,
        ),
    ],
    ids=["subnet around the network", "exit node of the hub", "subnet around the network behind a relay"],
)
def test_packet_to_an_address_that_nobody_has_does_not_bounce(draft: Draft) -> None:
    routing = routing_of(draft)
    world, tracer = world_of_plans(routing), Tracer(routing)
    target = ipaddress.ip_address("10.80.0.250")
    for number, name in enumerate(draft.hosts):
        sender = ipaddress.ip_address(f"10.80.0.{number + 1}")
        assert world.walk(name, sender, target).end == "dropped"
        assert not tracer.trace(routing.topology.by_name[name], sender, target).delivered


ISOLATED = [{"hub": ["hub"], "spokes": ["alice", "bob"], "isolate": True}]


@pytest.mark.parametrize("office", [AROUND, OFFER], ids=["subnet around the network", "exit node of the hub"])
def test_isolation_holds_beside_a_wide_prefix_of_another_peer(office: dict[str, object]) -> None:
    hub = {**HUB, "exit-node": "office"} if office is OFFER else HUB
    draft = draft_of([*ISOLATED, {"link": ["hub", "office"]}], hub=hub, alice={}, bob={}, office=office)
    routing = routing_of(draft)
    device = world_of_plans(routing).devices["hub"]
    alice, bob, far = map(ipaddress.ip_address, ("10.80.0.2", "10.80.0.3", "10.80.0.4"))
    assert device.refuses(alice, bob)
    assert not device.refuses(alice, far)
    assert not device.refuses(far, bob)


def test_isolation_lets_others_through_to_what_lies_inside_a_spoke_s_subnet() -> None:
    draft = draft_of([*ISOLATED, {"link": ["hub", "office"]}], hub=HUB, alice=AROUND, bob={}, office={})
    routing = routing_of(draft)
    world = world_of_plans(routing)
    behind, office = ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("10.80.0.4")
    assert world.walk("alice", behind, office).hosts == ("alice", "hub", "office")
    assert world.devices["hub"].refuses(behind, ipaddress.ip_address("10.80.0.3"))


def test_spokes_of_two_isolating_rules_of_one_hub_reach_each_other() -> None:
    draft = draft_of(
        [*ISOLATED, {"hub": ["hub"], "spokes": ["carol", "dave"], "isolate": True}],
        hub=HUB,
        alice={},
        bob={},
        carol={},
        dave={},
    )
    world = world_of_plans(routing_of(draft))
    alice, carol, dave = (ipaddress.ip_address(f"10.80.0.{number}") for number in (2, 4, 5))
    assert world.walk("alice", alice, carol).hosts == ("alice", "hub", "carol")
    assert not world.walk("carol", carol, dave).delivered


def test_trace_knows_that_an_own_prefix_leads_into_the_tunnel() -> None:
    draft = draft_of([{"link": ["exit", "laptop"]}], exit={**HUB, **OFFER}, laptop={"exit-node": "exit"})
    routing = routing_of(draft)
    sender, target = ipaddress.ip_address("10.80.0.2"), ipaddress.ip_address("10.80.0.250")
    assert not Tracer(routing).trace(routing.topology.by_name["laptop"], sender, target).delivered
    beyond = ipaddress.ip_address("198.51.100.1")
    assert Tracer(routing).trace(routing.topology.by_name["laptop"], sender, beyond).delivered


def test_exit_node_takes_the_versions_that_it_offers() -> None:
    draft = draft_of([{"link": ["laptop", "exit"]}], laptop={"exit-node": "exit"}, exit={**HUB, **OFFER})
    draft.hosts["exit"]["manager"] = "external"
    del draft.hosts["exit"]["addresses"]
    routing = routing_of(draft)
    sender, beyond = ipaddress.ip_address("10.80.0.1"), ipaddress.ip_address("198.51.100.1")
    assert Tracer(routing).trace(routing.topology.by_name["laptop"], sender, beyond).delivered
