"""What a firewall drops for certain, in rules that nft(8) itself loaded and printed; silence wherever it may not."""

from __future__ import annotations

import ipaddress
import json
import subprocess

import pytest
from example_trees import examples, read_fleet

from wgnet.live.firewall import find_dropped
from wgnet.live.ruleset import NotARulesetError, Packet, Ruleset, parse_ruleset
from wgnet.plan.types import InterfacePlan

NET = ipaddress.ip_network
LISTEN = Packet(version=4, others=frozenset(("lo", "wg0")), udp_port=51820)
RELAY = Packet(
    version=4,
    incoming="wg0",
    outgoing="wg0",
    sources=(NET("10.80.0.0/24"),),
    destinations=(NET("10.80.0.0/24"),),
)
GATEWAY = Packet(version=4, incoming="wg0", others=frozenset(("lo", "wg0")), destinations=(NET("192.168.10.0/24"),))


def load(text: str) -> Ruleset:
    """Load rules into a network namespace of their own, and read them back as the program does."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-euc", "nft -f -; nft -j list ruleset"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return parse_ruleset(done.stdout)


def dropped(text: str, hook: str, packet: Packet) -> bool:
    return load(text).dropping(hook, packet) is not None


def chain(rules: str, hook: str = "input", policy: str = "drop", more: str = "") -> str:
    lines = "\n".join(rules.split(";"))
    return (
        f"table inet filter {{\n{more}\nchain base {{\n"
        f"type filter hook {hook} priority filter; policy {policy};\n{lines}\n}}\n}}\n"
    )


USUAL = 'ct state established,related accept;ct state invalid drop;iifname "lo" accept;tcp dport 22 accept'
SUB = "chain sub {\nRULE\n}"


@pytest.mark.parametrize(
    "rules",
    [
        "",
        USUAL,
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        "udp dport 53 accept",
        "udp dport { 53, 51821 } accept",
        "udp dport 50000-51819 accept",
        "udp dport != 51820 accept",
        "udp dport < 51820 accept",
        "udp dport @ports accept",
        "udp dport vmap { 53 : accept, 51820 : drop }",
        'iifname "wg0" accept',
        "meta l4proto tcp accept",
        "ip protocol icmp accept",
        "ip6 nexthdr icmpv6 accept",
        "meta nfproto ipv6 accept",
        "meta l4proto { tcp, icmp } th dport 51820 accept",
        'counter;log prefix "in ";meta mark set 7',
        "jump sub",
        "goto sub",
        "udp dport 51820 jump sub",
        "meta nfproto ipv4 drop;accept",
        "reject with icmpx type admin-prohibited;accept",
        'log prefix "no " drop;udp dport 51820 accept',
        "meta l4proto . th dport { tcp . 51820, udp . 53 } accept",
        # Nobody translates a destination here.
        "ct status dnat accept",
        # For some of its packets earlier, for the rest at the end.
        "ip saddr 192.0.2.0/24 drop",
        "limit rate 1/second drop",
    ],
)
def test_what_is_surely_not_let_in_is_named(rules: str) -> None:
    """Whoever sends it, through whatever interface it comes."""
    more = "set ports { type inet_service; flags interval; elements = { 22, 51821-51830 }; }\n"
    text = chain(rules, more=more + SUB.replace("RULE", "tcp dport 51820 accept"))
    found = load(text).dropping("input", LISTEN)
    assert found is not None
    assert (found.family, found.table, found.name, found.policy) == ("inet", "filter", "base", "drop")


@pytest.mark.parametrize(
    "rules",
    [
        "accept",
        f"{USUAL};udp dport 51820 accept",
        "udp dport { 53, 51820 } counter accept",
        "udp dport 51820-51830 accept",
        "udp dport >= 51820 accept",
        "th dport 51820 accept",
        "udp dport @ports accept",
        "udp dport vmap { 53 : drop, 51820 : accept }",
        "udp dport vmap { 53 : drop, 51820 : jump sub }",
        "meta l4proto udp accept",
        "ip protocol udp accept",
        "ct state new accept",
        "jump sub",
        "udp dport 51820 goto sub",
        "meta l4proto . th dport { tcp . 22, udp . 51820 } accept",
        # It may be so.
        'iifname "eth0" accept',
        'iifname "e*" accept',
        'iifname { "eth0", "eth1" } udp dport 51820 accept',
        "ip saddr 192.0.2.0/24 udp dport 51820 accept",
        "meta mark 7 accept",
        "limit rate 1/second accept",
        "udp sport 51820 accept",
        "meta skuid 0 accept",
        "fib daddr type local accept",
        "ip dscp cs0 accept",
        "udp dport @changing accept",
    ],
)
def test_what_may_be_let_in_is_not_named(rules: str) -> None:
    """One rule that could take it is enough for silence."""
    more = "set ports { type inet_service; flags interval; elements = { 22, 51820-51830 }; }\n"
    more += "set changing { type inet_service; flags dynamic, timeout; timeout 1h; }\n"
    assert not dropped(chain(rules, more=more + SUB.replace("RULE", "udp dport 51820 accept")), "input", LISTEN)


def test_a_chain_that_accepts_does_not_save_what_another_drops() -> None:
    """Every chain of a hook is asked; a chain for another IP version, hook or purpose is not."""
    first = chain("accept")
    second = first.replace("filter {", "later {", 1).replace("priority filter", "priority 10").replace("accept\n", "\n")
    found = load(first + second).dropping("input", LISTEN)
    assert found is not None
    assert found.table == "later"
    six = second.replace("table inet", "table ip6")
    assert load(first + six).dropping("input", LISTEN) is None
    assert load(chain("", hook="output")).dropping("input", LISTEN) is None
    assert load("").dropping("input", LISTEN) is None


def test_a_translated_destination_may_come_by_another_rule() -> None:
    """With a rule of DNAT somewhere, `ct status dnat` may be true of the packet."""
    nat = (
        "table ip nat {\nchain pre {\ntype nat hook prerouting priority dstnat\nudp dport 443 redirect to 51820\n}\n}\n"
    )
    assert not dropped(chain("ct status dnat accept") + nat, "input", LISTEN)


@pytest.mark.parametrize(
    ("rules", "relay", "gateway"),
    [
        ("", True, True),
        ("ct state established accept", True, True),
        ('iifname "wg0" accept', False, False),
        ('iifname "wg0" oifname "wg0" accept', False, True),
        ('iifname "wg0" oifname "eth0" accept', True, False),
        ('iifname "docker0" accept;oifname "docker0" ct state established accept', True, True),
        ("ip saddr 10.80.0.0/24 accept", False, False),
        ("ip daddr 192.168.10.0/24 accept", True, False),
        ("ip daddr 192.168.0.0/16 accept", True, False),
        ("ip daddr 192.168.10.5 accept", True, False),
        ("ip daddr { 10.80.0.0/16, 10.9.0.0/16 } accept", False, True),
        ("ip6 daddr fd00::/8 accept", True, True),
        ('iifname "wg*" accept', False, False),
    ],
)
def test_forwarding(rules: str, relay: bool, gateway: bool) -> None:
    """Between peers both interfaces are known, to a network behind only one; addresses are as far as AllowedIPs go."""
    ruleset = load(chain(rules, hook="forward"))
    assert (ruleset.dropping("forward", RELAY) is not None) is relay
    found = ruleset.dropping("forward", GATEWAY)
    assert (found is not None) is gateway


FIREWALLD = """
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES {
    iifname "eth0" goto filter_IN_public
    goto filter_IN_public
  }
  chain filter_FORWARD_ZONES {
    iifname "eth0" goto filter_FWD_public
    goto filter_FWD_public
  }
  chain filter_IN_public {
    jump filter_IN_public_pre
    jump filter_IN_public_allow
    jump filter_IN_public_post
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_IN_public_pre { }
  chain filter_IN_public_allow {
    tcp dport 22 accept
    ip6 daddr fe80::/64 udp dport 546 accept
  }
  chain filter_IN_public_post { }
  chain filter_FWD_public {
    jump filter_FWD_public_allow
    reject with icmpx admin-prohibited
  }
  chain filter_FWD_public_allow {
    oifname "eth0" accept
  }
}
"""


def test_firewalld_and_its_default_zone() -> None:
    """Its zone drops what no service of it is for; `firewall-cmd --add-port` is enough."""
    ruleset = load(FIREWALLD)
    found = ruleset.dropping("input", LISTEN)
    assert found is not None
    assert (found.table, found.name, found.policy) == ("firewalld", "filter_INPUT", "accept")
    relay = ruleset.dropping("forward", RELAY)
    assert relay is not None
    assert relay.name == "filter_FORWARD"
    # Out of eth0 it may go.
    assert ruleset.dropping("forward", GATEWAY) is None
    assert not dropped(FIREWALLD.replace("tcp dport 22 accept", "udp dport 51820 accept"), "input", LISTEN)


DOCKER = """
table ip filter {
  chain DOCKER-USER { counter return; }
  chain DOCKER-FORWARD { iifname "docker0" counter accept; }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    counter jump DOCKER-USER
    counter jump DOCKER-FORWARD
  }
}
"""


def test_dockers_policy_drops_what_a_hub_forwards() -> None:
    """Of IPv4 alone, for it says nothing of IPv6."""
    plan = hub()
    found = find_dropped(plan, load(DOCKER))
    assert [(each.need, each.versions) for each in found] == [
        ("forward IPv4 and IPv6 from wg0 to wg0", (4,)),
        ("forward between wg0 and 192.168.10.0/24", (4,)),
    ]
    assert str(found[0]) == (
        "wg0: the firewall does not forward IPv4 and IPv6 from wg0 to wg0: "
        "chain FORWARD (hook forward) of table ip filter drops it (IPv4)"
    )
    assert find_dropped(plan, load(DOCKER.replace("counter return", 'iifname "wg0" accept'))) == []


def hub() -> InterfacePlan:
    fleet, _ = read_fleet({path.name: path.read_text() for path in examples()["office"]})
    return fleet.plan_host("fra").interfaces[0]


def test_the_needs_of_a_hub() -> None:
    """A spoke needs nothing let in or forwarded; a hub by name is called by either IP version."""
    closed = chain("", policy="drop") + chain("", hook="forward").replace("filter {", "second {", 1)
    ruleset = load(closed)
    assert [(each.need, each.chain.hook) for each in find_dropped(hub(), ruleset)] == [
        ("let in UDP port 51820", "input"),
        ("forward IPv4 and IPv6 from wg0 to wg0", "forward"),
        ("forward between wg0 and 192.168.10.0/24", "forward"),
    ]
    fleet, _ = read_fleet({path.name: path.read_text() for path in examples()["office"]})
    assert find_dropped(fleet.plan_host("laptop").interfaces[0], ruleset) == []
    assert find_dropped(hub(), load(chain("meta nfproto ipv6 accept"))) == []
    # One that is called by an IPv4 address alone is not helped by that.
    assert [each.need for each in find_dropped(fleet.plan_host("nyc").interfaces[0], ruleset)] == [
        "let in UDP port 51820"
    ]
    assert len(find_dropped(fleet.plan_host("nyc").interfaces[0], load(chain("meta nfproto ipv6 accept")))) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": [{"chain": {"name": "c"}}]}', '{"nftables": 1}'])
def test_another_text_is_no_ruleset(text: str) -> None:
    """What cannot be read is said to be so, and is no reason for silence."""
    with pytest.raises(NotARulesetError):
        parse_ruleset(text)


@pytest.mark.parametrize(
    ("statement", "drops"),
    [
        ({"xt": None}, False),
        ({"xt": {"type": "match", "name": "conntrack"}}, True),
        ({"xt": {"type": "target", "name": "LOG"}}, True),
        ({"xt": {"type": "target", "name": "REJECT"}}, True),
        ({"xt": {"type": "target", "name": "MIRROR"}}, False),
        ({"something new": 1}, False),
        ({"match": {"op": "==", "left": {"meta": {"key": "new"}}, "right": [1]}}, True),
    ],
)
def test_extensions_of_iptables_and_what_is_new(statement: dict[str, object], drops: bool) -> None:
    """What is not understood may accept; of iptables' extensions some are known to do nothing, or to drop."""
    base = {"family": "ip", "table": "t", "name": "c", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}
    rule = {"family": "ip", "table": "t", "chain": "c", "expr": [statement]}
    ruleset = parse_ruleset(json.dumps({"nftables": [{"chain": base}, {"rule": rule}]}))
    assert (ruleset.dropping("input", LISTEN) is not None) is drops
