"""From the bytes of a file to its specification: every mistake of text and shape, with its place."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network

import pytest
from helpers import place_of, places

from wgnet.diagnostics.diagnostic import Diagnostic, Diagnostics
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.spec import Endpoint, HostAddress, Manager, SecretSource, Specification

OFFICE = """\
wgnet: 1
network: {name: office, subnets: [10.80.0.0/24]}
hosts:
  fra:
    addresses: [10.80.0.1]
    endpoint: fra.example.net
  nyc: {addresses: [10.80.0.2]}
"""


def decode(text: str | bytes) -> tuple[Specification | None, list[Diagnostic]]:
    diagnostics = Diagnostics()
    spec = parse_specification(text.encode() if isinstance(text, str) else text, "t.yaml", diagnostics)
    return spec, diagnostics.sorted()


def good(text: str | bytes) -> Specification:
    spec, diagnostics = decode(text)
    assert spec is not None
    assert [one.message for one in diagnostics] == []
    return spec


def only(text: str | bytes) -> Diagnostic:
    _, diagnostics = decode(text)
    assert len(diagnostics) == 1, [one.message for one in diagnostics]
    return diagnostics[0]


def at_fra(line: str) -> str:
    return OFFICE.replace("  fra:\n", f"  fra:\n    {line}\n")


def with_top(lines: str) -> str:
    return OFFICE.replace("hosts:\n", f"{lines}\nhosts:\n")


# --- places and messages ---------------------------------------------------------------------------------------------

SHAPES = [
    # (text with the expected place in brackets, code, message, help)
    (at_fra("⟦keep-alive⟧: 25"), "WG2001", "unknown key 'keep-alive' in a host", "did you mean 'keepalive'?"),
    (at_fra("⟦Listen_Port⟧: 5"), "WG2001", "unknown key 'Listen_Port' in a host", "did you mean 'listen-port'?"),
    (with_top("⟦peers⟧: x"), "WG2001", "unknown key 'peers' in the file", "did you mean 'peering'?"),
    (at_fra("⟦1⟧: x"), "WG2001", "unknown key '1' in a host", None),
    (at_fra("⟦true⟧: x"), "WG2001", "unknown key 'true' in a host", None),
    (at_fra("? ⟦[⟧a]\n    : x"), "WG2003", "expected a key, found a list", None),
    (at_fra("listen-port:⟦⟧"), "WG2003", "expected a port or 'auto', found nothing", None),
    (at_fra("listen-port: ⟦~⟧"), "WG2003", "expected a port or 'auto', found nothing", None),
    (at_fra("listen-port: ⟦null⟧"), "WG2003", "expected a port or 'auto', found nothing", None),
    (at_fra("listen-port: ⟦'null'⟧"), "WG2014", "expected a port (1 to 65535), found 'null'", None),
    (at_fra("listen-port: ⟦''⟧"), "WG2014", "expected a port (1 to 65535), found ''", None),
    (at_fra("listen-port: ⟦[5]⟧"), "WG2003", "expected a port or 'auto', found a list", None),
    (at_fra("listen-port: ⟦{a: 5}⟧"), "WG2003", "expected a port or 'auto', found a mapping", None),
    (at_fra("forward: ⟦no⟧"), "WG2024", "expected true or false, found 'no'", "write 'false'"),
    (at_fra("advertise: ⟦10.1.0.0/16⟧"), "WG2003", "expected a list of IP prefixes, found a single value", None),
    (at_fra("site-endpoint: ⟦[]⟧"), "WG2004", "expected an endpoint or a list of them, found an empty list", None),
    (at_fra("manager: ⟦NetworkManager⟧"), "WG2025", None, "did you mean 'networkmanager'?"),
    (at_fra("manager: ⟦wgquick⟧"), "WG2025", None, "did you mean 'wg-quick'?"),
    (
        at_fra("manager: ⟦netplan⟧"),
        "WG2025",
        "expected one of 'networkd', 'networkmanager', 'wg-quick', 'external', found 'netplan'",
        None,
    ),
    (
        at_fra("private-key: {file: /a/b, ⟦credential⟧: b}"),
        "WG2035",
        "'credential' and 'file' exclude each other",
        None,
    ),
    (
        at_fra("private-key: ⟦{}⟧"),
        "WG2002",
        "expected one of 'file', 'credential', 'agent' in where the private key is",
        None,
    ),
    (at_fra("private-key: {agent: ⟦false⟧}"), "WG2024", "expected true, found 'false'", None),
    (
        with_top("defaults: {all: {⟦addresses⟧: [10.80.0.9]}}"),
        "WG2001",
        "key 'addresses' may not stand in defaults",
        "it is each host's own: set it at the host",
    ),
    (with_top("peering: ⟦hub⟧"), "WG2025", "expected one of 'mesh', found 'hub'", None),
    (with_top("peering: ⟦[]⟧"), "WG2004", "expected a list of peering rules, found an empty list", None),
    (with_top("peering: [⟦{isolate}⟧]").replace("{isolate}", "{keepalive: 5}"), "WG2002", None, None),
    (with_top("peering: [{mesh: all, ⟦isolate⟧: true}]"), "WG2035", "'isolate' goes with 'hub' alone", None),
    (
        with_top("peering: [{hub: fra, ⟦preshared-key⟧: true}]"),
        "WG2035",
        "'preshared-key' goes with 'link' alone",
        None,
    ),
    (
        with_top("peering: [{link: [fra, nyc], allowed-ips: ⟦all⟧}]"),
        "WG2025",
        "expected one of 'any', found 'all'",
        None,
    ),
    (
        with_top("expect: ⟦{from: fra, to: nyc}⟧"),
        "WG2003",
        "expected a list of expectations, found a mapping",
        None,
    ),
    (with_top("expect: [⟦{from: fra}⟧]"), "WG2002", "key 'to' is missing in an expectation", None),
    (with_top("groups: ⟦[fra]⟧"), "WG2003", "expected a mapping from group to members, found a list", None),
    (with_top("groups: {eu: ⟦fra⟧}"), "WG2003", "expected a list of hosts and groups, found a single value", None),
    (OFFICE.replace("wgnet: 1", "wgnet: ⟦2⟧"), "WG2020", "expected format version 1, found '2'", None),
    (
        OFFICE.replace("{name: office, subnets: [10.80.0.0/24]}", "⟦{subnets: [10.80.0.0/24]}⟧"),
        "WG2002",
        "key 'name' is missing in the section 'network'",
        None,
    ),
    (
        OFFICE.replace("{addresses: [10.80.0.2]}", "⟦10.80.0.2⟧"),
        "WG2003",
        "expected a host, found a single value",
        None,
    ),
    (
        OFFICE.replace("[10.80.0.2]", "[10.80.0.2, ⟦10.80.0.2⟧]"),
        "WG2036",
        "'10.80.0.2' stands twice in one list",
        None,
    ),
    (OFFICE.replace("  nyc:", "  ⟦fra⟧:"), "WG1002", "key 'fra' stands twice", "remove one of them"),
    (
        OFFICE.replace("  nyc: {", "  nyc: {⟦<<⟧: {}, "),
        "WG1010",
        "the merge key '<<' is not part of the format",
        "give several hosts the same settings with `defaults`",
    ),
    (at_fra("mtu: ⟦!⟧!int 1400"), "WG1012", "tag 'tag:yaml.org,2002:int' is not part of the format", None),
    (at_fra("site: ⟦*nobody⟧"), "WG1011", "alias '*nobody' has no anchor", None),
    (at_fra("x-a: &a [⟦*a⟧]"), "WG1011", "alias '*a' stands inside what it names", None),
    (at_fra("⟦\t⟧mtu: 5"), "WG1007", "a tab may not indent a line", "indent with spaces"),
    (at_fra("site: a⟦\x07⟧b"), "WG1009", "character U+0007 may not stand in a topology file", None),
    (at_fra("site: a⟦\u2028⟧b"), "WG1009", "character U+2028 may not stand in a topology file", None),
    (at_fra("site: ⟦\x00⟧"), "WG1009", "character U+0000 may not stand in a topology file", None),
    (
        f"{OFFICE}⟦-⟧--\n{OFFICE}",
        "WG1006",
        "a second document begins here, expected one",
        "put each network into a file of its own",
    ),
    (OFFICE.replace("/24]}\nhosts", "/24]\n⟦h⟧osts"), "WG1001", None, None),
    (f"{OFFICE}x-deep: {'[' * 31}⟦[⟧{'[' * 8}{']' * 40}\n", "WG1004", "nested more than 32 levels deep", None),
]


@pytest.mark.parametrize(("marked", "code", "message", "help_text"), SHAPES)
def test_shape(marked: str, code: str, message: str | None, help_text: str | None) -> None:
    before, inside, _ = re.split("[⟦⟧]", marked)
    found = only(re.sub("[⟦⟧]", "", marked))
    assert found.code.name == code
    assert message in (None, found.message)
    assert help_text is None or found.help == (help_text,)
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert places(found)[0] == f"{line}:{column}-{column + len(inside)}"


def test_both_places_of_a_key_that_stands_twice() -> None:
    text = OFFICE.replace("  nyc:", "  fra:")
    assert places(only(text)) == [place_of(text, "fra", 3), place_of(text, "fra", 1)]


def test_all_problems_come_in_one_run() -> None:
    text = """\
wgnet: 3
network:
  name: a/b
  subnets: [10.80.0.1/24, nonsense]
  mtu: 100
groups: {"b c": [fra]}
defaults: {all: {keepalive: never}}
peering: [{hub: fra, mesh: all}]
hosts:
  fra:
    addresses: [10.80.0.300]
    public-key: short
    unknown: 1
  nyc: 5
expect: [{from: fra}]
extra: 1
"""
    _, found = decode(text)
    assert [(one.code.name, one.primary.span.line) for one in found if one.primary] == [
        ("WG2020", 1), ("WG2017", 3), ("WG2012", 4), ("WG2011", 4), ("WG2015", 5), ("WG2017", 6), ("WG2021", 7),
        ("WG2035", 8), ("WG2010", 11), ("WG2013", 12), ("WG2001", 13), ("WG2003", 14), ("WG2002", 15), ("WG2001", 16),
    ]  # fmt: skip


def test_a_bad_value_leaves_the_rest_to_be_checked() -> None:
    spec, found = decode(at_fra("mtu: 1"))
    assert [one.code.name for one in found] == ["WG2015"]
    assert spec is not None
    assert spec.hosts["fra"].mtu is None
    assert "mtu" in spec.hosts["fra"].nodes
    assert spec.hosts["fra"].endpoint == (Endpoint("fra.example.net", None, None),)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n...\n", "~\n", "null\n", "\ufeff"])
def test_empty(text: str) -> None:
    assert only(text).code.name == "WG1013"


@pytest.mark.parametrize("text", ["text\n", "[a, b]\n", "- a\n", "5\n", '"wgnet: 1"\n'])
def test_no_mapping(text: str) -> None:
    found = only(text)
    assert found.code.name == "WG2003"
    assert found.help == ("begin with `wgnet init`",)


def test_missing_keys_of_the_file() -> None:
    _, found = decode("x-note: nothing\n")
    assert [one.message for one in found] == [
        f"key '{name}' is missing in the file" for name in ("hosts", "network", "wgnet")
    ]


@pytest.mark.parametrize("hosts", ["hosts: {}", "hosts: {x-note: nobody}"])
def test_no_hosts(hosts: str) -> None:
    text = f"wgnet: 1\nnetwork: {{name: office, subnets: [10.80.0.0/24]}}\n{hosts}\n"
    assert only(text).code.name == "WG2004"


# --- x- keys, aliases, unions ----------------------------------------------------------------------------------------


def test_keys_of_the_user_may_stand_anywhere_and_hold_anything() -> None:
    text = """\
wgnet: 1
x-top: {deep: [1, {a: ~}]}
network: {name: office, subnets: [10.80.0.0/24], x-note: [], dns: {x-a: 1}}
groups: {x-comment: not a list, eu: [fra]}
defaults: {x-all: 5, eu: {x-b: ~}}
peering: [{mesh: all, x-why: because}]
hosts:
  x-template: &base {addresses: [10.80.0.1], x-owner: alice}
  fra: *base
expect: [{from: fra, to: fra, x-ticket: 7}]
"""
    spec = good(text)
    assert list(spec.hosts) == list(spec.host_keys) == ["fra"]
    assert spec.groups == {"eu": ("fra",)}
    assert list(spec.defaults) == ["eu"]


def test_a_key_of_the_user_may_not_stand_twice_either() -> None:
    assert only(at_fra("x-a: 1\n    x-a: 2")).code.name == "WG1002"


def test_aliases_stand_for_what_they_name() -> None:
    text = """\
wgnet: 1
network: {name: &n office, subnets: &s [10.80.0.0/24], interface: *n}
hosts:
  fra: {addresses: [&a 10.80.0.1], site: *n, advertise: &lan [10.1.0.0/16]}
  nyc: {addresses: [10.80.0.2], accept: *lan, bypass: *lan}
"""
    spec = good(text)
    assert spec.network.interface == "office"
    assert spec.hosts["fra"].site == "office"
    assert spec.hosts["nyc"].accept == spec.hosts["nyc"].bypass == (ip_network("10.1.0.0/16"),)


def test_a_block_that_ends_with_an_alias_ends_there() -> None:
    text = """\
wgnet: 1
network: {name: office, subnets: &s [10.80.0.0/24]}
hosts:
  fra:
    advertise:
      - 10.1.0.0/16
      - &b 10.2.0.0/16
  nyc:
    addresses:
      - 10.80.0.2
      - *b
expect:
  - from: fra
    to: *b
"""
    spec, _ = decode(text)
    assert spec is not None
    node = spec.hosts["nyc"].nodes["addresses"]
    assert (node.span.line, node.span.end_line, node.span.end_column) == (10, 11, 11)
    assert spec.hosts["nyc"].node.span.end_line == 11


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("endpoint: a.example", "endpoint", (Endpoint("a.example", None, None),)),
        ("endpoint: [a.example, 'b:5']", "endpoint", (Endpoint("a.example", None, None), Endpoint("b", 5, None))),
        (
            "endpoint:\n      - a.example\n      - b:5",
            "endpoint",
            (Endpoint("a.example", None, None), Endpoint("b", 5, None)),
        ),
        ("advertise: []", "advertise", ()),
        ("permissions: []", "permissions", ()),
        ("private-key: {file: /k/a}", "private_key", SecretSource("file", "/k/a")),
        ("private-key: {credential: a.b}", "private_key", SecretSource("credential", "a.b")),
        ("private-key: {agent: true}", "private_key", SecretSource("agent", "")),
        ("manager: wg-quick", "manager", Manager.WG_QUICK),
        ("listen-port: auto", "listen_port", 0),
        ("listen-port: '51820'", "listen_port", 51820),
        ("table: off", "table", 0),
        ("table: main", "table", 254),
        ("firewall-mark: 0x10", "firewall_mark", 16),
        ("site: no", "site", "no"),
        ("site: 0777", "site", "0777"),
        ("description: 52:54", "description", "52:54"),
        ("exit-node: true", "exit_node", "true"),
        ("manager-version: 1.40", "manager_version", (1, 40)),
        ("description: >-\n      folded\n      text", "description", "folded text"),
    ],
)
def test_values_are_read_by_the_type_of_their_key(line: str, field: str, value: object) -> None:
    text = at_fra(line)
    if field == "endpoint":
        text = text.replace("    endpoint: fra.example.net\n", "")
    assert getattr(good(text).hosts["fra"], field) == value


@pytest.mark.parametrize(
    ("peering", "number"),
    [("peering: mesh", None), ("peering: {hub: fra}", 1), ("peering: [{hub: fra}, {link: [fra, nyc]}]", 2)],
)
def test_peering_in_its_three_forms(peering: str, number: int | None) -> None:
    spec = good(with_top(peering))
    assert (None if spec.peering is None else len(spec.peering)) == number


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("true", True),
        ("false", False),
        ("{file: /k/psk}", SecretSource("file", "/k/psk")),
        ("{credential: psk}", SecretSource("credential", "psk")),
    ],
)
def test_preshared_key_in_its_forms(given: str, value: object) -> None:
    spec = good(with_top(f"peering: [{{link: [fra, nyc], preshared-key: {given}}}]"))
    assert spec.peering is not None
    assert spec.peering[0].preshared_key == value


def test_preshared_key_as_a_list_is_none() -> None:
    found = only(with_top("peering: [{link: [fra, nyc], preshared-key: [a]}]"))
    assert (found.code.name, found.message) == (
        "WG2003",
        "expected true, false, {file: PATH} or {credential: NAME}, found a list",
    )


@pytest.mark.parametrize("section", ["groups:", "defaults:", "groups: ~"])
def test_a_section_may_be_empty(section: str) -> None:
    good(with_top(section))


def test_names_as_keys_need_no_quotes() -> None:
    spec = good(
        "wgnet: 1\nnetwork: {name: 1, subnets: [10.80.0.0/24]}\nhosts: {no: {}, 0777: {}, 1: {}, true: {}, '5': {}}\n"
    )
    assert list(spec.hosts) == ["no", "0777", "1", "true", "5"]
    assert spec.network.name == "1"


# --- secrets ---------------------------------------------------------------------------------------------------------

SECRET = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="


@pytest.mark.parametrize(
    "line",
    [
        f'private-key: "{SECRET}"', f"endpoint: {SECRET}", f"site: {SECRET}", f"manager: {SECRET}", f"mtu: {SECRET}",
        f"addresses: ['{SECRET}']", f"{SECRET}: 1", f"listen-port: {SECRET}", f"zone: {SECRET}", f"exit-node: {SECRET}",
        f"permissions: ['{SECRET}', '{SECRET}']", f"private-key: {{file: '{SECRET}'}}", f"advertise: ['{SECRET}']",
        f"public-key: {SECRET[:-1]}", f"public-key: {SECRET}x",
    ],
)  # fmt: skip
def test_a_key_that_was_pasted_is_never_quoted(line: str) -> None:
    text = at_fra(line).replace("    endpoint: fra.example.net\n", "").replace("    addresses: [10.80.0.1]\n", "")
    _, found = decode(text)
    assert found
    for one in found:
        assert SECRET[:12] not in " ".join([one.message, *one.help, *(label.message for label in one.secondary)])


def test_a_private_key_in_the_file_draws_its_own_code() -> None:
    text = at_fra(f"private-key: {SECRET}")
    found = only(text)
    assert found.code.name == "WG2034"
    assert places(found) == [place_of(text, SECRET)]


# --- encodings and styles --------------------------------------------------------------------------------------------


def test_line_ends_and_byte_order_mark_change_nothing() -> None:
    plain = good(OFFICE)
    for data in (
        OFFICE.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + OFFICE.encode(),
        OFFICE.rstrip("\n").encode(),
        f"---\n{OFFICE}...\n".encode(),
        f"# comment\n\n{OFFICE}\n# end".encode(),
        OFFICE.replace("\n", "  # comment\n").encode(),
    ):
        assert good(data) == plain


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_places_do_not_depend_on_line_ends_and_byte_order_mark(mark: bytes, newline: bytes) -> None:
    text = at_fra("mtu: 1  # zu klein: ü€😀").encode()
    found = only(mark + text.replace(b"\n", newline))
    assert places(found) == ["5:10-11"]


def test_columns_count_characters_not_bytes() -> None:
    text = OFFICE.replace("{addresses: [10.80.0.2]}", '{description: "ü€😀", mtu: 123}')
    assert places(only(text)) == [place_of(text, "123")] == ["7:34-37"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_place_of_a_byte_that_is_not_utf8(mark: bytes) -> None:
    found = only(mark + OFFICE.encode().replace(b"fra.example", b"fr\xc3\xa4\xff.example"))
    assert found.message == "byte 0xff is not UTF-8"
    assert places(found) == ["6:18-19"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "latin-1"])
def test_other_encodings(encoding: str) -> None:
    _, found = decode(at_fra("site: ü").encode(encoding))
    assert {one.code.name for one in found} <= {"WG1008", "WG1009"}
    assert found


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json(indent: str | int | None) -> None:
    data = {
        "wgnet": 1,
        "network": {"name": "office", "subnets": ["10.80.0.0/24"], "preshared-keys": True},
        "hosts": {
            "fra": {"addresses": ["10.80.0.1"], "endpoint": ["a.b"], "listen-port": 51820},
            "nyc": {"addresses": ["10.80.0.2/24"], "forward": False, "description": 'ü "q" \\ /'},
        },
    }
    spec = good(json.dumps(data, indent=indent))
    assert spec.network.preshared_keys is True
    assert spec.hosts["fra"].listen_port == 51820
    assert spec.hosts["nyc"].addresses == (HostAddress(ip_address("10.80.0.2"), 24),)
    assert spec.hosts["nyc"].description == 'ü "q" \\ /'


def test_json_with_an_error_has_its_place() -> None:
    text = json.dumps(
        {"wgnet": 1, "network": {"name": "office", "subnets": ["10.80.0.0/99"]}, "hosts": {"a": {}}}, indent=1
    )
    assert places(only(text)) == [place_of(text, '"10.80.0.0/99"')]


def test_several_bad_characters_and_tabs_are_all_reported_up_to_a_limit() -> None:
    _, found = decode("wgnet: 1\x00\n\ta: b\n" + "x: \x01\n" * 100)
    assert [one.code.name for one in found].count("WG1009") == 20
    assert [one.code.name for one in found].count("WG1007") == 1


def test_a_text_of_nothing_but_problems_is_not_read_to_its_end() -> None:
    _, found = decode(OFFICE + "x-a: 1\n" * 5000)
    assert len(found) == 201
    assert "the rest was not read" in found[-1].message
    assert {one.code.name for one in found} == {"WG1002"}
