"""Names and defaults: groups, `defaults` by group, what a host inherits, rules with their names resolved."""

from __future__ import annotations

import time
from ipaddress import ip_interface

import pytest
from helpers import codes_of, resolve, text_of

from wgnet.model.topology import Host, RuleKind
from wgnet.syntax.spec import Endpoint, Manager, SecretSource


def host_of(text: str, name: str = "fra") -> Host:
    topology, diagnostics = resolve(text)
    assert [one.message for one in diagnostics] == []
    return topology.by_name[name]


def names(hosts: tuple[Host, ...]) -> list[str]:
    return [host.name for host in hosts]


PLAIN = """
network: {name: office, subnets: [10.80.0.0/24, "fd42:80::/48"]}
hosts:
  fra: {addresses: [10.80.0.1, "fd42:80::1", 10.80.0.9/32], endpoint: fra.example.net}
  nyc: {}
"""


def test_what_nobody_wrote() -> None:
    fra = host_of(text_of(PLAIN))
    assert (fra.manager, fra.manager_version, fra.description) == (Manager.NETWORKD, None, None)
    assert fra.addresses == (ip_interface("10.80.0.1/24"), ip_interface("fd42:80::1/48"), ip_interface("10.80.0.9/32"))
    assert fra.private_key == SecretSource("file", "/etc/wgnet/office.key")
    assert fra.endpoint == (Endpoint("fra.example.net", 51820, None),)
    assert (fra.listen_port, fra.interface, fra.mtu, fra.table, fra.metric) == (51820, "office", None, 254, 2000)
    assert (fra.firewall_mark, fra.dns, fra.autoconnect, fra.keepalive, fra.accept) == (None, None, True, None, None)
    assert (fra.forward, fra.masquerade, fra.disabled, fra.exit_node, fra.bypass) == (False, False, False, None, ())


def test_the_network_gives_defaults_and_a_host_overrides_them() -> None:
    text = text_of("""
        network:
          {name: office, interface: wg0, subnets: [10.80.0.0/24], listen-port: 5000, mtu: 1400,
           dns: {servers: [10.80.0.1]}}
        hosts:
          fra: {}
          nyc:
            {interface: wg9, listen-port: 6000, mtu: 1380, dns: {search: [a.example]},
             endpoint: [n.example, "m.example:7"]}
          sgp: {listen-port: auto, endpoint: "s.example:8"}
    """)
    fra, nyc, sgp = (host_of(text, name) for name in ("fra", "nyc", "sgp"))
    assert (fra.interface, fra.listen_port, fra.mtu) == ("wg0", 5000, 1400)
    assert fra.dns is not None
    assert [str(server) for server in fra.dns.servers] == ["10.80.0.1"]
    assert (nyc.interface, nyc.listen_port, nyc.mtu) == ("wg9", 6000, 1380)
    assert nyc.dns is not None
    assert (nyc.dns.servers, nyc.dns.search) == ((), ("a.example",))  # replaces the network's, does not add to it
    assert [str(endpoint) for endpoint in nyc.endpoint] == ["n.example:6000", "m.example:7"]
    assert (sgp.listen_port, str(sgp.endpoint[0])) == (0, "s.example:8")


def test_a_later_group_wins_over_an_earlier_and_the_host_over_all() -> None:
    text = text_of("""
        network: {name: office, subnets: [10.80.0.0/24]}
        groups: {b: [fra, nyc], a: [fra], outer: [a, sgp]}
        defaults:
          all: {mtu: 1300, metric: 1, site: everywhere, forward: true}
          a: {mtu: 1301, metric: 2}
          b: {mtu: 1302}
          outer: {keepalive: 9}
        hosts:
          fra: {metric: 3, forward: false}
          nyc: {}
          sgp: {}
    """)
    found = {
        name: (host.mtu, host.metric, host.site, host.forward, host.keepalive)
        for name in ("fra", "nyc", "sgp")
        for host in (host_of(text, name),)
    }
    assert found == {
        "fra": (1302, 3, "everywhere", False, 9),
        "nyc": (1302, 1, "everywhere", True, None),
        "sgp": (1300, 1, "everywhere", True, 9),
    }


def test_a_version_of_another_manager_in_defaults_is_not_meant() -> None:
    text = text_of("""
        network: {name: office, subnets: [10.80.0.0/24]}
        groups: {laptops: [nyc]}
        defaults: {all: {manager-version: 252}, laptops: {manager: networkmanager}}
        hosts:
          fra: {}
          nyc: {}
          phone: {manager: wg-quick}
    """)
    assert host_of(text, "fra").manager_version == (252,)
    assert host_of(text, "nyc").manager_version is None
    assert host_of(text, "phone").manager_version is None


def test_groups_nest_and_have_each_host_once_in_order() -> None:
    text = text_of("""
        network: {name: office, subnets: [10.80.0.0/24]}
        groups:
          outer: [c, inner, a]
          inner: [b, c, innermost]
          innermost: [a]
          everyone: [all]
          nobody: []
        hosts: {a: {}, b: {}, c: {}}
    """)
    topology, diagnostics = resolve(text)
    assert not diagnostics.items
    assert {name: names(members) for name, members in topology.groups.items()} == {
        "outer": ["c", "b", "a"],
        "inner": ["b", "c", "a"],
        "innermost": ["a"],
        "everyone": ["a", "b", "c"],
        "nobody": [],
        "all": ["a", "b", "c"],
    }


@pytest.mark.parametrize(
    "groups", ["a: [a]", "a: [b], b: [a]", "a: [b], b: [c], c: [a]", "z: [a], a: [fra, b], b: [a]"]
)
def test_a_group_in_itself_ends_and_is_told(groups: str) -> None:
    text = text_of(f"network: {{name: o, subnets: [10.80.0.0/24]}}\ngroups: {{{groups}}}\nhosts: {{fra: {{}}}}\n")
    _, diagnostics = resolve(text)
    assert {one.code.name for one in diagnostics} == {"WG3022"}


def test_groups_that_contain_each_other_are_told_once_and_have_the_same_hosts() -> None:
    topology, diagnostics = resolve(
        text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        groups: {outer: [c], a: [fra, b], b: [c], c: [a, nyc], alone: [alone, fra]}
        hosts: {fra: {}, nyc: {}}
    """)
    )
    assert [one.message for one in diagnostics] == [
        "group 'a' contains itself: a -> b -> c -> a",
        "group 'alone' contains itself: alone -> alone",
    ]
    assert {name: names(members) for name, members in topology.groups.items() if name != "all"} == {
        "outer": ["fra", "nyc"],
        "a": ["fra", "nyc"],
        "b": ["fra", "nyc"],
        "c": ["fra", "nyc"],
        "alone": ["fra"],
    }


@pytest.mark.parametrize("size", [3000])
def test_groups_of_groups_of_groups_take_no_longer_than_to_read(size: int) -> None:
    links = [f"  g{number}: [g{number + 1}, g{min(size, number + 2)}]" for number in range(size - 1)]
    hosts = "network: {name: o, subnets: [10.80.0.0/24]}\nhosts: {fra: {}}\n"
    start = time.monotonic()
    for end, code in (
        (f"  g{size - 1}: [g{size}]\n  g{size}: [fra]", []),
        (f"  g{size - 1}: [g0]\n  g{size}: [fra]", ["WG3022"]),
    ):
        topology, diagnostics = resolve(text_of(hosts) + "\n".join(["groups:", *links, end, ""]))
        assert [one.code.name for one in diagnostics] == code
        assert names(topology.groups["g0"]) == ["fra"]
        assert all(len(one.message) < 200 for one in diagnostics)
    assert time.monotonic() - start < 5


def test_the_default_is_a_mesh_of_all() -> None:
    topology, _ = resolve(text_of(PLAIN))
    (rule,) = topology.rules
    assert (rule.kind, names(rule.members), rule.place) == (RuleKind.MESH, ["fra", "nyc"], None)


HOSTS = "network: {name: o, subnets: [10.80.0.0/24]}\nhosts: {a: {}, b: {}, c: {}, d: {}, e: {disabled: true}}\n"


@pytest.mark.parametrize(
    ("rules", "spokes"),
    [
        ("{hub: a}", ["b", "c", "d"]),
        ("[{hub: a}, {mesh: [b, c]}]", ["d"]),
        ("[{hub: a}, {link: [a, b]}]", ["b", "c", "d"]),  # link rules do not count
        ("[{hub: a}, {hub: b, spokes: [c]}]", ["d"]),
        ("[{hub: a, spokes: [all]}]", ["b", "c", "d"]),
        ("[{hub: [a, b]}]", ["c", "d"]),
        ("[{hub: a, spokes: b}]", ["b"]),
    ],
)
def test_spokes(rules: str, spokes: list[str]) -> None:
    topology, diagnostics = resolve(text_of(f"peering: {rules}\n{HOSTS}"))
    assert not diagnostics.items
    assert names(topology.rules[0].spokes) == spokes


def test_hubs_forward_unless_told_not_to() -> None:
    topology, _ = resolve(text_of(f"peering: {{hub: [a, b]}}\n{HOSTS.replace('b: {}', 'b: {forward: false}')}"))
    assert [host.name for host in topology.hosts if host.forward] == ["a"]


def test_preshared_keys_of_links() -> None:
    text = text_of("""
        network: {name: o, subnets: [10.80.0.0/24], preshared-keys: true}
        peering:
          - mesh: [a, b, c]
          - link: [a, b]
            preshared-key: false
          - link: [a, c]
            preshared-key: {file: /etc/wgnet/ac.psk}
          - link: [b, c]
        hosts: {a: {}, b: {}, c: {}}
    """)
    topology, _ = resolve(text)
    assert [rule.preshared_key for rule in topology.rules] == [
        True,
        False,
        SecretSource("file", "/etc/wgnet/ac.psk"),
        True,
    ]


def test_a_host_that_is_a_note_of_the_user_is_explained() -> None:
    _, diagnostics = resolve(
        text_of("network: {name: o, subnets: [10.80.0.0/24]}\npeering: {hub: x-ray}\nhosts: {x-ray: {}, a: {}}")
    )
    (one,) = diagnostics
    assert one.message == "there is no host or group 'x-ray'"
    assert one.help == ("choose another name: keys that begin with 'x-' are your own, and not read",)


def test_offers_are_apart_from_subnets() -> None:
    fra = host_of(
        text_of(
            'network: {name: o, subnets: [10.80.0.0/24]}\nhosts: {fra: {advertise: [10.1.0.0/16, 0.0.0.0/0, "::/0"]}}'
        )
    )
    assert [str(prefix) for prefix in fra.advertise] == ["10.1.0.0/16"]
    assert fra.offers == {4, 6}


def test_places_of_what_defaults_gave() -> None:
    topology, _ = resolve(
        text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        defaults: {all: {mtu: 1300}}
        hosts: {fra: {metric: 5}}
    """)
    )
    fra = topology.by_name["fra"]
    assert str(fra.place("mtu")) == "t.yaml:3:23"
    assert str(fra.place("metric")) == "t.yaml:4:23"
    assert fra.place("table") == fra.span


def test_names_that_yaml_would_take_for_something_else() -> None:
    text = text_of("""
        network: {name: o, subnets: [10.80.0.0/24]}
        groups: {yes: [no, 1e3]}
        peering: [{mesh: [yes, 0777]}]
        hosts:
          no: {addresses: [10.80.0.1], endpoint: a.example}
          1e3: {addresses: [10.80.0.2], endpoint: b.example}
          0777: {addresses: [10.80.0.3]}
          true: {addresses: [10.80.0.4], disabled: true}
    """)
    assert codes_of(text) == []
    topology, _ = resolve(text)
    assert names(topology.rules[0].members) == ["no", "1e3", "0777"]
