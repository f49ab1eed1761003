"""What is read back of files and profiles: what wgnet writes is understood, what a person wrote is left out."""

from __future__ import annotations

import ipaddress

import pytest
from example_trees import examples, read_fleet, under
from live_sample import secrets_of, wanted_of

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.configured import metrics_of_network, routes_of_network, rules_of_network
from wgnet.live.profile import policy_rules
from wgnet.live.state import PolicyRule, Route
from wgnet.managers.networkd import Networkd
from wgnet.managers.networkmanager import describe
from wgnet.managers.nm_settings import DbusSettings, to_dbus
from wgnet.managers.templates import Templates
from wgnet.syntax.spec import Manager

EDITED = """\
[Route]
Destination=10.1.0.0/24
Metric=2000

[Route]
Destination=10.2.0.0/24
Table=vpn

[Route]
Destination=10.3.0.1/24

[Route]
Gateway=10.0.0.1

[RoutingPolicyRule]
Family=ipv6
Table=77
Priority=100

[RoutingPolicyRule]
Table=77

[RoutingPolicyRule]
From=somewhere
Priority=1
"""


@pytest.mark.parametrize("example", sorted(examples()))
def test_what_is_written_is_read(example: str) -> None:
    """Every rule, and every route but those that the kernel makes of addresses, as they are to be in the kernel."""
    texts = {path.name: under(Manager.NETWORKD, path.read_text())[0] for path in examples()[example]}
    fleet, _ = read_fleet(texts)
    networkd = Networkd(Templates())
    for name in fleet.host_names():
        plan = fleet.plan_host(name)
        for interface, wanted in zip(plan.interfaces, wanted_of(plan), strict=True):
            _, network = networkd.render(interface, secrets_of(interface), Diagnostics())
            text = network.content.decode()
            assert rules_of_network(text) == wanted.rules
            routes = routes_of_network(text, interface.interface)
            assert routes <= wanted.routes
            connected = {address.address.network for address in interface.addresses}
            assert {route.destination for route in wanted.routes - routes} <= connected
            # An address alone has no route.
            assert metrics_of_network(text) == {
                str(each.address): interface.metric
                for each in interface.addresses
                if each.prefix_route and each.address.network.num_addresses > 1
            }


@pytest.mark.parametrize("example", sorted(examples()))
def test_what_a_profile_asks_for_is_read(example: str) -> None:
    texts = {path.name: under(Manager.NETWORKMANAGER, path.read_text())[0] for path in examples()[example]}
    fleet, _ = read_fleet(texts)
    for name in fleet.host_names():
        plan = fleet.plan_host(name)
        for interface, wanted in zip(plan.interfaces, wanted_of(plan), strict=True):
            settings = to_dbus(describe(interface, secrets_of(interface)), secrets=False)
            assert policy_rules(settings) == wanted.rules


def test_what_a_person_wrote_is_left_out() -> None:
    """A section of one's own, names of tables, addresses with host bits: none of it is an error of `apply --force`."""
    assert routes_of_network(EDITED, "wg0") == {Route(ipaddress.ip_network("10.1.0.0/24"), 254, 2000, "wg0")}
    assert rules_of_network(EDITED) == {PolicyRule(6, 100, table=77)}
    edited: DbusSettings = {"ipv4": {"routing-rules": ("aa{sv}", [{"table": ("u", 7)}, {"family": ("i", 2)}])}}
    assert policy_rules(edited) == frozenset()
