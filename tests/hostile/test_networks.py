"""Networks that look sound and are not: what the kernel would do with them must be what `check` says of them."""

from __future__ import annotations

import pytest
from helpers import codes_of, place_of, places, plan_of, problems, text_of

from wgnet.plan.derive import PRIORITY_OWN_PACKETS
from wgnet.plan.types import Action

# --- isolation -------------------------------------------------------------------------------------------------------


def test_prefixes_inside_each_other_push_no_refusal_behind_other_rules() -> None:
    """What comes after the rule for the table main (32766) is never asked."""
    hosts = "\n".join(
        f"  s{number}: {{addresses: [10.80.0.{number + 10}], advertise: [64.0.0.0/{number + 2}]}}"
        for number in range(24)
    )
    kept_apart = ", ".join(f"s{number}" for number in range(0, 24, 2))
    others = ", ".join(f"s{number}" for number in range(1, 24, 2))
    plan = plan_of(
        text_of("network: {name: o, subnets: [10.80.0.0/24]}\n")
        + f"peering: [{{hub: fra, spokes: [{kept_apart}], isolate: true}}, {{hub: fra, spokes: [{others}]}}]\n"
        + f"hosts:\n  fra: {{addresses: [10.80.0.1], endpoint: fra.example}}\n{hosts}\n",
        "fra",
    )
    priorities = [rule.priority for rule in plan.rules]
    assert len(set(priorities)) > PRIORITY_OWN_PACKETS - 32600  # more than there is room for behind the first
    assert 0 < min(priorities) <= max(priorities) < PRIORITY_OWN_PACKETS
    assert any(rule.action is Action.PROHIBIT for rule in plan.rules)


def test_an_isolating_hub_whose_spokes_have_no_prefix_has_no_rule() -> None:
    plan = plan_of(
        text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        peering: {hub: fra, spokes: [one, two], isolate: true}
        hosts:
          fra: {addresses: [10.80.0.1], endpoint: fra.example}
          one: {manager: external}
          two: {manager: external}
    """),
        "fra",
    )
    assert plan.rules == ()


PROVIDER = text_of("""
    network: {name: o, subnets: [10.80.0.0/24]}
    peering: {hub: provider, isolate: true}
    hosts:
      provider: {manager: external, addresses: [10.80.0.1], endpoint: provider.example, advertise: [0.0.0.0/0]}
      one: {addresses: [10.80.0.2], exit-node: provider, bypass: ["::/0"]}
      two: {addresses: [10.80.0.3], exit-node: provider, bypass: ["::/0"]}
    expect: [{from: one, to: two, reachable: false}]
""")


def test_an_external_hub_must_refuse_by_itself_what_its_spokes_would_take() -> None:
    (found,) = problems(PROVIDER)
    assert (found.code.name, found.severity.value) == ("WG4001", "warning")
    assert places(found) == [place_of(PROVIDER, "true"), place_of(PROVIDER, "external")]
    around = PROVIDER.replace("0.0.0.0/0]", "10.0.0.0/8]").replace('exit-node: provider, bypass: ["::/0"]', "mtu: 1400")
    assert codes_of(around) == ["WG4001"]


@pytest.mark.parametrize(
    "change",
    [
        ("isolate: true", "isolate: false"),
        ("manager: external, ", ""),
        # AllowedIPs name single hosts, none of them another spoke.
        ('exit-node: provider, bypass: ["::/0"]', "mtu: 1400"),
    ],
)
def test_hubs_that_need_not(change: tuple[str, str]) -> None:
    assert codes_of(PROVIDER.replace(*change).split("expect:")[0]) == []


# --- several networks on one host ------------------------------------------------------------------------------------

OUTER = text_of("""
    network: {name: outer, subnets: [10.1.0.0/16]}
    peering: {hub: fra}
    hosts:
      fra: {addresses: [10.1.0.1], endpoint: 192.0.2.1}
      lap: {addresses: [10.1.0.2]}
""")
INNER = text_of("""
    network: {name: inner, subnets: [10.2.0.0/16], listen-port: 51821}
    peering: {hub: ber}
    hosts:
      ber: {addresses: [10.2.0.1], endpoint: 192.0.2.2, advertise: [0.0.0.0/0, 172.16.0.0/12]}
      lap: {addresses: [10.2.0.2], bypass: []}
""")
EXIT = INNER.replace("bypass: []", "exit-node: ber")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (OUTER.replace("192.0.2.1", "10.2.0.1"), INNER.replace("192.0.2.2", "10.1.0.1")),
        # A whole network behind the other's hub.
        (OUTER.replace("192.0.2.1", "172.16.0.9"), INNER.replace("192.0.2.2", "10.1.0.1")),
        # The exit node is reached through a network whose own packets have no other way than the exit node.
        (OUTER, EXIT.replace("192.0.2.2", "10.1.0.1")),
    ],
)
def test_tunnels_that_carry_each_other_in_a_ring(outer: str, inner: str) -> None:
    found = [one for one in problems(outer, inner) if one.code.name != "WG3023"]
    assert [one.code.name for one in found] == ["WG3003"]
    assert "'lap'" in found[0].message
    first = "172.16.0.9" if "172.16.0.9" in outer else "10.2.0.1" if "endpoint: 10.2.0.1" in outer else "192.0.2.1"
    assert places(found[0])[0] == place_of(outer, first)
    assert places(found[0])[1] == place_of(inner, "10.1.0.1")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (OUTER, INNER),
        (OUTER, EXIT),
        # A tunnel in a tunnel is none in itself.
        (OUTER, INNER.replace("192.0.2.2", "10.1.0.1")),
        (OUTER.replace("192.0.2.1", "10.2.0.1"), INNER),
        # The exit node's own way is kept out of it.
        (OUTER, EXIT.replace("192.0.2.2", "10.1.0.1").replace("exit-node: ber", "exit-node: ber, bypass: [192.0.2.1]")),
        # Where both have an exit node, the tunnels' own packets enter neither.
        (
            OUTER.replace("endpoint: 192.0.2.1", "endpoint: 192.0.2.1, advertise: [0.0.0.0/0]").replace(
                "addresses: [10.1.0.2]", "addresses: [10.1.0.2], exit-node: fra, firewall-mark: 7000"
            ),
            EXIT.replace("192.0.2.2", "10.1.0.1"),
        ),
        # Its routes are where nobody looks for the way of a tunnel's packets.
        (
            OUTER.replace("192.0.2.1", "10.2.0.1"),
            INNER.replace("192.0.2.2", "10.1.0.1").replace("bypass: []", "table: 100"),
        ),
        # A name may be anything.
        (OUTER.replace("192.0.2.1", "fra.example"), EXIT.replace("192.0.2.2", "10.1.0.1")),
    ],
)
def test_tunnels_that_do_not(outer: str, inner: str) -> None:
    assert [code for code in codes_of(outer, inner) if code != "WG3023"] == []
