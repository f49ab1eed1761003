"""The plan of a host, a paragraph of the manual's "Meaning" after the other, written out by hand from its text."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from helpers import allowed, codes_of, peers_of, plan_hosts, plan_of, text_of

from wgnet.plan.derive import reverse_zones
from wgnet.plan.types import Action, InterfacePlan, PolicyRulePlan
from wgnet.syntax.spec import Manager, SecretSource

A, B, C = (f"{letter * 42}A=" for letter in "abc")


def routes(plan: InterfacePlan) -> list[str]:
    return [f"{route.destination} {route.table} {route.metric}" for route in plan.routes]


def rules(plan: InterfacePlan) -> list[str]:
    """Return the rules as ip-rule(8) prints them, behind the IP version."""
    return [f"{rule.version} {_rule(rule)}" for rule in plan.rules]


def _rule(rule: PolicyRulePlan) -> str:
    return " ".join(
        part
        for part in (
            f"{rule.priority}:",
            "not" if rule.invert else "",
            f"from {rule.source or 'all'}",
            f"to {rule.destination}" if rule.destination else "",
            f"fwmark {rule.firewall_mark}" if rule.firewall_mark is not None else "",
            f"iif {rule.incoming_interface}" if rule.incoming_interface else "",
            f"lookup {rule.table}" if rule.action is Action.LOOKUP else "prohibit",
            f"suppress_prefixlength {rule.suppress_prefix_length}" if rule.suppress_prefix_length is not None else "",
        )
        if part
    )


# --- Links, Endpoints, Keepalive -------------------------------------------------------------------------------------

OFFICE = text_of(f"""
    network: {{name: office, subnets: [10.80.0.0/24, "fd42:80::/64"]}}
    hosts:
      fra:
        addresses: [10.80.0.1, "fd42:80::1"]
        public-key: {A}
        endpoint: [fra.example.net, "192.0.2.1:5"]
      nyc: {{addresses: [10.80.0.2, "fd42:80::2"], public-key: {B}, next-public-key: {C}, endpoint: nyc.example.net}}
      roam: {{addresses: [10.80.0.3]}}
      phone: {{addresses: [10.80.0.4], manager: wg-quick}}
""")


def test_peers_are_in_the_order_of_the_file_with_their_keys_and_endpoints() -> None:
    fra = plan_of(OFFICE, "fra")
    assert [peer.name for peer in fra.peers] == ["nyc", "roam", "phone"]
    nyc = peers_of(fra)["nyc"]
    assert (nyc.public_key, nyc.next_public_key, nyc.preshared_key) == (B, C, None)
    assert [str(endpoint) for endpoint in nyc.endpoints] == ["nyc.example.net:51820"]
    seen_by_nyc = plan_of(OFFICE, "nyc").peers[0]
    assert [str(endpoint) for endpoint in seen_by_nyc.endpoints] == ["fra.example.net:51820", "192.0.2.1:5"]
    assert peers_of(fra)["roam"].endpoints == ()


def test_who_sends_keepalives() -> None:
    def keepalives(host: str, text: str = OFFICE) -> dict[str, int]:
        return {peer.name: peer.persistent_keepalive for peer in plan_of(text, host).peers}

    assert keepalives("roam") == {"fra": 25, "nyc": 25}  # no endpoint of its own, to peers that have one
    assert keepalives("fra") == {"nyc": 0, "roam": 0, "phone": 0}  # no one else
    assert keepalives("phone") == {"fra": 0, "nyc": 0}  # and phones do not either,
    told = OFFICE.replace("[10.80.0.4],", "[10.80.0.4], keepalive: 60,")
    assert keepalives("phone", told) == {"fra": 60, "nyc": 60}  # unless told to
    off = OFFICE.replace("[10.80.0.3]", "[10.80.0.3], keepalive: off")
    assert keepalives("roam", off) == {"fra": 0, "nyc": 0}


def test_keepalive_of_a_rule_is_for_both_ends() -> None:
    text = OFFICE.replace("hosts:", "peering: [{mesh: all}, {link: [fra, roam], keepalive: 15}]\nhosts:")
    assert peers_of(plan_of(text, "fra"))["roam"].persistent_keepalive == 15
    assert peers_of(plan_of(text, "roam"))["fra"].persistent_keepalive == 15
    assert peers_of(plan_of(text, "roam"))["nyc"].persistent_keepalive == 25


def test_inside_a_site_the_site_endpoint_counts() -> None:
    text = text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        hosts:
          a: {addresses: [10.80.0.1], endpoint: a.example, site: x, site-endpoint: 192.168.1.1}
          b: {addresses: [10.80.0.2], site: x}
          c: {addresses: [10.80.0.3], site: y}
    """)
    assert [str(one) for one in peers_of(plan_of(text, "b"))["a"].endpoints] == ["192.168.1.1:51820"]
    assert [str(one) for one in peers_of(plan_of(text, "c"))["a"].endpoints] == ["a.example:51820"]


def test_disabled_hosts_have_no_plan_and_no_peer() -> None:
    fleet = plan_hosts(OFFICE.replace("[10.80.0.3]", "[10.80.0.3], disabled: true"))
    assert fleet.host_names() == ["fra", "nyc", "phone"]
    assert "roam" not in peers_of(fleet.plan_host("fra").interfaces[0])
    assert fleet.plan_host("roam").interfaces == ()


# --- Paths, AllowedIPs -----------------------------------------------------------------------------------------------


def test_allowed_ips_of_direct_peers_are_their_own_addresses() -> None:
    assert allowed(plan_of(OFFICE, "fra")) == {
        "nyc": "10.80.0.2/32, fd42:80::2/128",
        "roam": "10.80.0.3/32",
        "phone": "10.80.0.4/32",
    }


HUB = text_of("""
    network: {name: o, subnets: [10.80.0.0/24]}
    peering: {hub: hub}
    hosts:
      hub: {addresses: [10.80.0.1], endpoint: hub.example, advertise: [10.1.0.0/16]}
      a: {addresses: [10.80.0.2], advertise: [10.2.0.0/16]}
      b: {addresses: [10.80.0.3], advertise: [10.3.0.0/16, 10.3.4.0/24]}
""")


def test_a_relay_to_all_others_gets_the_subnets_whole() -> None:
    assert allowed(plan_of(HUB, "a")) == {"hub": "10.1.0.0/16, 10.3.0.0/16, 10.3.4.0/24, 10.80.0.0/24"}
    assert allowed(plan_of(HUB, "hub")) == {
        "a": "10.2.0.0/16, 10.80.0.2/32",
        "b": "10.3.0.0/16, 10.3.4.0/24, 10.80.0.3/32",
    }


def test_a_new_spoke_changes_its_hub_and_no_other_spoke() -> None:
    more = HUB + "  c: {addresses: [10.80.0.4]}\n"
    assert allowed(plan_of(more, "a")) == allowed(plan_of(HUB, "a"))
    assert allowed(plan_of(more, "hub")) == {**allowed(plan_of(HUB, "hub")), "c": "10.80.0.4/32"}


def test_of_equally_short_paths_the_earlier_hub_relays() -> None:
    text = text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        peering: {hub: [z, y]}
        hosts:
          y: {addresses: [10.80.0.1], endpoint: y.example}
          z: {addresses: [10.80.0.2], endpoint: z.example}
          a: {addresses: [10.80.0.3]}
          b: {addresses: [10.80.0.4], advertise: [10.4.0.0/16]}
    """)
    assert allowed(plan_of(text, "a")) == {"y": "10.80.0.1/32", "z": "10.4.0.0/16, 10.80.0.0/24"}


def test_only_hosts_with_forward_relay() -> None:
    text = text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        peering: [{link: [a, r]}, {link: [r, b]}, {link: [a, s]}, {link: [s, b]}]
        hosts:
          a: {addresses: [10.80.0.1], endpoint: a.example}
          b: {addresses: [10.80.0.2], endpoint: b.example}
          r: {addresses: [10.80.0.3]}
          s: {addresses: [10.80.0.4], forward: true}
    """)
    # s is the one relay to all that are no direct peers.
    assert allowed(plan_of(text, "a")) == {"r": "10.80.0.3/32", "s": "10.80.0.0/24"}
    assert 4 in plan_of(text, "s").forwarding
    assert plan_of(text, "r").forwarding == frozenset()


def test_no_prefix_stands_at_two_peers() -> None:
    for host in ("hub", "a", "b"):
        prefixes = [prefix for peer in plan_of(HUB, host).peers for prefix in peer.allowed_ips]
        assert len(prefixes) == len(set(prefixes))


# --- Isolation -------------------------------------------------------------------------------------------------------

ISOLATED = HUB.replace("{hub: hub}", "[{hub: hub, spokes: [a, b], isolate: true}, {link: [hub, far]}]").replace(
    "hosts:", "hosts:\n  far: {addresses: [10.80.0.9], endpoint: far.example}"
)


def test_isolation_takes_the_spokes_from_each_other_and_leaves_the_rest() -> None:
    assert allowed(plan_of(ISOLATED, "a")) == {"hub": "10.1.0.0/16, 10.80.0.1/32, 10.80.0.9/32"}
    assert allowed(plan_of(ISOLATED, "far"))["hub"].startswith("10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16")


def test_the_hub_itself_refuses_what_goes_from_spoke_to_spoke() -> None:
    hub = plan_of(ISOLATED, "hub")
    prohibits = [rule for rule in hub.rules if rule.action is Action.PROHIBIT]
    assert {str(rule.destination) for rule in prohibits} == {"10.2.0.0/15", "10.80.0.2/31"}
    assert {rule.incoming_interface for rule in hub.rules} == {"o"}
    # What the host beyond sends to the spokes is looked up before anything is refused.
    lookups = [rule for rule in hub.rules if rule.action is Action.LOOKUP]
    assert {str(rule.source) for rule in lookups} == {"10.80.0.9/32"}
    assert {rule.destination for rule in lookups} == {rule.destination for rule in prohibits}
    assert max(rule.priority for rule in lookups) < min(rule.priority for rule in prohibits)
    for other in ("a", "b", "far"):
        assert plan_of(ISOLATED, other).rules == ()


# --- Routes ----------------------------------------------------------------------------------------------------------


def test_routes_are_what_the_own_prefix_does_not_cover() -> None:
    a = plan_of(HUB, "a")
    assert [str(one.address) for one in a.addresses] == ["10.80.0.2/24"]
    assert all(one.prefix_route for one in a.addresses)
    assert routes(a) == ["10.1.0.0/16 254 2000", "10.3.0.0/16 254 2000", "10.3.4.0/24 254 2000"]


def test_an_address_of_full_length_covers_nobody() -> None:
    text = HUB.replace("10.80.0.2]", "10.80.0.2/32]").replace("advertise: [10.1.0.0/16]", "mtu: 1400")
    assert routes(plan_of(text, "a")) == ["10.3.0.0/16 254 2000", "10.3.4.0/24 254 2000", "10.80.0.0/24 254 2000"]


def test_metric_and_table() -> None:
    text = HUB.replace("a: {", "a: {metric: 50, table: 100, ")
    a = plan_of(text, "a")
    assert [one.prefix_route for one in a.addresses] == [False]  # the network's own prefix goes to the table too
    assert routes(a) == [
        "10.1.0.0/16 100 50",
        "10.3.0.0/16 100 50",
        "10.3.4.0/24 100 50",
        "10.80.0.0/24 100 50",
    ]
    off = plan_of(HUB.replace("a: {", "a: {table: off, "), "a")
    assert (off.routes, off.rules, [one.prefix_route for one in off.addresses]) == ((), (), [False])


def test_a_host_takes_nothing_of_what_its_own_site_advertises() -> None:
    text = text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        hosts:
          gw: {addresses: [10.80.0.1], endpoint: gw.example, site: x, advertise: [192.168.1.0/24]}
          in: {addresses: [10.80.0.2], endpoint: in.example, site: x}
          out: {addresses: [10.80.0.3], endpoint: out.example, site: y}
    """)
    assert allowed(plan_of(text, "in"))["gw"] == "10.80.0.1/32"
    assert routes(plan_of(text, "in")) == []
    assert allowed(plan_of(text, "out"))["gw"] == "10.80.0.1/32, 192.168.1.0/24"
    assert routes(plan_of(text, "out")) == ["192.168.1.0/24 254 2000"]


def test_accept_narrows_what_is_taken() -> None:
    def taken(accept: str) -> str:
        return allowed(plan_of(HUB.replace("a: {", f"a: {{accept: {accept}, "), "a"))["hub"]

    assert taken("[]") == "10.80.0.0/24"
    assert taken("[10.3.0.0/16]") == "10.3.0.0/16, 10.3.4.0/24, 10.80.0.0/24"
    assert taken("[10.3.4.0/24]") == "10.3.4.0/24, 10.80.0.0/24"
    assert taken("[10.3.9.0/24]") == "10.3.9.0/24, 10.80.0.0/24"  # the accepted part of a wider one
    assert taken("[10.0.0.0/8]") == "10.1.0.0/16, 10.3.0.0/16, 10.3.4.0/24, 10.80.0.0/24"


def test_a_subnet_may_contain_the_networks_own() -> None:
    text = HUB.replace("[10.1.0.0/16]", "[10.80.0.0/16]")
    assert codes_of(text) == []
    assert "10.80.0.0/16 254 2000" in routes(plan_of(text, "a"))


# --- Exit node -------------------------------------------------------------------------------------------------------

EXIT = text_of("""
    network: {name: o, subnets: [10.80.0.0/24, "fd42:80::/64"]}
    hosts:
      gw: {addresses: [10.80.0.1, "fd42:80::1"], endpoint: gw.example, advertise: [0.0.0.0/0, "::/0"], masquerade: true}
      a: {addresses: [10.80.0.2, "fd42:80::2"], exit-node: gw, bypass: [192.0.2.0/24]}
      b: {addresses: [10.80.0.3, "fd42:80::3"], endpoint: b.example}
""")


def test_a_default_route_is_taken_by_those_who_name_the_offerer() -> None:
    assert allowed(plan_of(EXIT, "a"))["gw"] == "0.0.0.0/0, 10.80.0.1/32, ::/0, fd42:80::1/128"
    assert allowed(plan_of(EXIT, "b"))["gw"] == "10.80.0.1/32, fd42:80::1/128"
    assert routes(plan_of(EXIT, "b")) == []


def test_policy_routing_of_an_exit_node() -> None:
    a = plan_of(EXIT, "a")
    assert (a.firewall_mark, a.default_versions, a.source_valid_mark, a.restore_mark) == (51820, {4, 6}, True, {4, 6})
    assert routes(a) == ["0.0.0.0/0 51820 2000", "::/0 51820 2000"]
    assert rules(a) == [
        "4 32763: from all to 192.0.2.0/24 lookup 254",
        "4 32764: from all lookup 254 suppress_prefixlength 0",
        "4 32765: not from all fwmark 51820 lookup 51820",
        "6 32764: from all lookup 254 suppress_prefixlength 0",
        "6 32765: not from all fwmark 51820 lookup 51820",
    ]
    assert [str(prefix) for prefix in a.bypass] == ["192.0.2.0/24"]
    assert plan_of(EXIT.replace(', "::/0"]', "]"), "a").restore_mark == {4}
    # Without the default route there is nothing that replies could be mistaken for.
    off = plan_of(EXIT.replace("exit-node: gw", "exit-node: gw, firewall-mark: 7, table: off"), "a")
    assert (off.firewall_mark, off.restore_mark) == (7, frozenset())
    for other in ("gw", "b"):
        plan = plan_of(EXIT, other)
        assert (plan.firewall_mark, plan.rules, plan.source_valid_mark) == (0, (), False)
        assert plan.default_versions == plan.restore_mark == frozenset()


def test_the_mark_is_also_the_number_of_the_table() -> None:
    a = plan_of(EXIT.replace("exit-node: gw", "exit-node: gw, firewall-mark: 0x309"), "a")
    assert a.firewall_mark == 777
    assert routes(a) == ["0.0.0.0/0 777 2000", "::/0 777 2000"]
    assert rules(a)[-1] == "6 32765: not from all fwmark 777 lookup 777"


def test_each_family_only_where_it_is_offered() -> None:
    text = EXIT.replace(', "::/0"]', "]").replace("bypass: [192.0.2.0/24]", 'bypass: ["::/0"]')
    a = plan_of(text, "a")
    assert a.default_versions == {4}
    assert routes(a) == ["0.0.0.0/0 51820 2000"]
    assert {rule.version for rule in a.rules} == {4}


def test_of_two_networks_with_an_exit_node_the_smaller_metric_comes_first() -> None:
    other = (
        EXIT.replace("name: o,", "name: p, listen-port: 5,")
        .replace("10.80", "10.81")
        .replace("fd42:80", "fd42:81")
        .replace("exit-node: gw", "exit-node: gw, firewall-mark: 777, metric: 100")
    )
    one, two = plan_hosts(EXIT, other).plan_host("a").interfaces

    def last(plan: InterfacePlan) -> int:
        return max(rule.priority for rule in plan.rules if rule.invert)

    assert last(two) < last(one)
    # The packets of either tunnel are looked up in main before any of them is sent into a tunnel.
    for plan, mark in ((one, 51820), (two, 777)):
        own = [rule for rule in plan.rules if rule.firewall_mark == mark and not rule.invert]
        assert {(rule.table, rule.version) for rule in own} == {(254, 4), (254, 6)}
        assert all(rule.priority < min(r.priority for r in (*one.rules, *two.rules) if r.invert) for rule in own)


# --- Masquerade, forwarding ------------------------------------------------------------------------------------------


def test_masquerade_and_forwarding() -> None:
    gw = plan_of(EXIT, "gw")
    assert gw.masquerade == {4, 6}
    assert gw.forwarding == {4, 6}
    assert plan_of(EXIT, "a").masquerade == frozenset()
    assert plan_of(EXIT, "a").forwarding == frozenset()
    assert plan_of(HUB, "hub").forwarding == {4}  # a hub, between its spokes
    assert plan_of(HUB, "a").forwarding == {4}  # between the tunnel and what it advertises


# --- DNS -------------------------------------------------------------------------------------------------------------


def dns_text(dns: str, a: str = "") -> str:
    return EXIT.replace('"fd42:80::/64"]}', f'"fd42:80::/64"], dns: {dns}}}').replace(
        ", exit-node: gw, bypass: [192.0.2.0/24]", a
    )


def test_servers_are_asked_for_the_search_domains_alone() -> None:
    dns = plan_of(dns_text('{servers: [10.80.0.1, "fd42:80::1"], search: [corp.example, ~lab.example]}'), "a").dns
    assert dns is not None
    assert [str(server) for server in dns.servers] == ["10.80.0.1", "fd42:80::1"]
    assert (dns.search, dns.everything, dns.reverse) == (("corp.example", "~lab.example"), False, ())


def test_without_search_servers_answer_for_reverse_names_alone() -> None:
    dns = plan_of(dns_text("{servers: [10.80.0.1]}"), "a").dns
    assert dns is not None
    assert dns.everything is False
    assert dns.reverse == ("0.80.10.in-addr.arpa", "0.0.0.0.0.0.0.0.0.8.0.0.2.4.d.f.ip6.arpa")


@pytest.mark.parametrize(("dns_of", "a"), [("search: [x.example]", ", exit-node: gw"), ("search: [~., x.example]", "")])
def test_everything_is_asked_with_an_exit_node_or_when_told_so(dns_of: str, a: str) -> None:
    dns = plan_of(dns_text(f"{{servers: [10.80.0.1], {dns_of}}}", a), "a").dns
    assert dns is not None
    assert (dns.everything, dns.search, dns.reverse) == (True, ("x.example",), ())


def test_the_owner_of_a_servers_address_gets_none_and_no_servers_are_none() -> None:
    assert plan_of(dns_text("{servers: [192.0.2.53, 10.80.0.1]}"), "gw").dns is None
    assert plan_of(dns_text("{search: [x.example]}"), "a").dns is None
    assert plan_of(EXIT, "a").dns is None


@pytest.mark.parametrize(
    ("subnet", "zones"),
    [
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("10.80.0.0/15", ["80.10.in-addr.arpa", "81.10.in-addr.arpa"]),
        ("10.80.4.0/24", ["4.80.10.in-addr.arpa"]),
        ("10.80.4.128/25", ["4.80.10.in-addr.arpa"]),
        ("10.80.4.7/32", ["4.80.10.in-addr.arpa"]),
        ("fd00::/8", ["d.f.ip6.arpa"]),
        ("fc00::/7", ["c.f.ip6.arpa", "d.f.ip6.arpa"]),
        ("fd42:80::/47", ["0.0.0.0.0.8.0.0.2.4.d.f.ip6.arpa", "1.0.0.0.0.8.0.0.2.4.d.f.ip6.arpa"]),
    ],
)
def test_reverse_zones(subnet: str, zones: list[str]) -> None:
    assert reverse_zones(ip_network(subnet)) == zones


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_where_the_keys_are() -> None:
    text = OFFICE.replace("name: office,", "name: office, preshared-keys: true,").replace(
        "hosts:",
        "peering:\n- mesh: all\n- {link: [fra, nyc], preshared-key: {file: /k/p}}\n"
        "- {link: [fra, roam], preshared-key: false}\nhosts:",
    )
    fra = plan_of(text, "fra")
    assert fra.private_key == SecretSource("file", "/etc/wgnet/office.key")
    assert {peer.name: peer.preshared_key for peer in fra.peers} == {
        "nyc": SecretSource("file", "/k/p"),
        "roam": None,
        "phone": "derived",
    }
    elsewhere = f"public-key: {A}\n    private-key: {{file: /srv/fra.key}}"
    moved = plan_of(OFFICE.replace(f"public-key: {A}", elsewhere), "fra")
    assert moved.private_key == SecretSource("file", "/srv/fra.key")


# --- External hosts, routing protocols -------------------------------------------------------------------------------


def test_a_commercial_provider() -> None:
    text = text_of(f"""
        network: {{name: vpn, subnets: [10.2.0.0/24]}}
        peering: [{{link: [me, provider], preshared-key: {{file: /etc/wgnet/p.psk}}}}]
        hosts:
          me: {{addresses: [10.2.0.2/32], exit-node: provider, bypass: ["::/0"]}}
          provider: {{manager: external, public-key: {A}, endpoint: "198.51.100.7:1637", advertise: [0.0.0.0/0]}}
    """)
    fleet = plan_hosts(text)
    assert fleet.host_names() == ["me"]
    (me,) = fleet.plan_host("me").interfaces
    assert allowed(me) == {"provider": "0.0.0.0/0"}
    peer = peers_of(me)["provider"]
    assert (str(peer.endpoints[0]), peer.persistent_keepalive) == ("198.51.100.7:1637", 25)
    assert peer.preshared_key == SecretSource("file", "/etc/wgnet/p.psk")


def test_any_takes_everything_and_makes_no_routes() -> None:
    text = text_of("""
        network: {name: bgp, subnets: [10.9.0.0/31]}
        peering: [{link: [a, b], allowed-ips: any}]
        hosts:
          a: {addresses: [10.9.0.0], endpoint: a.example}
          b: {addresses: [10.9.0.1]}
    """)
    for host, peer in (("a", "b"), ("b", "a")):
        plan = plan_of(text, host)
        assert allowed(plan) == {peer: "0.0.0.0/0, ::/0"}
        assert (plan.routes, plan.rules, plan.firewall_mark) == ((), (), 0)
        assert peers_of(plan)[peer].route_allowed_ips is False


def test_what_is_passed_on_as_it_was_written() -> None:
    text = OFFICE.replace(
        "    endpoint: [fra",
        "    mtu: 1380\n    listen-port: auto\n    interface: wg7\n    autoconnect: false\n"
        "    manager-version: 257\n    endpoint: ['x:1', fra",
    ).replace("fra.example.net", "'fra.example.net:5'")
    fra = plan_of(text, "fra")
    assert (fra.mtu, fra.listen_port, fra.interface, fra.autoconnect) == (1380, 0, "wg7", False)
    assert (fra.manager, fra.manager_version, fra.network) == (Manager.NETWORKD, (257,), "office")
    assert plan_of(OFFICE, "phone").manager is Manager.WG_QUICK
    assert (plan_of(OFFICE, "fra").mtu, plan_of(OFFICE, "fra").autoconnect) == (None, True)
