"""The JSON Schema and the decoder: what is sound for one is sound for the other, shape by shape."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml
from helpers import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from wgnet.cli.commands.init import FIRST_TOPOLOGY
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.explanations import explain_all
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.format import DEFAULTS, HOST, NETWORK, RULE, TOP
from wgnet.syntax.schema import build_schema
from wgnet.syntax.types import Key

SCHEMA = build_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = sorted((REPOSITORY / "examples").rglob("*.yaml"))


class _Loader(yaml.SafeLoader):
    """YAML as an editor reads it: the core schema of YAML 1.2, in which `no` and 52:54 are texts."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def decodes(text: str) -> bool:
    diagnostics = Diagnostics()
    parse_specification(text.encode(), "t.yaml", diagnostics)
    return not diagnostics.has_errors


def validates(data: Any) -> bool:
    return bool(VALIDATOR.is_valid(data))


def agree(data: Any) -> None:
    text = json.dumps(data)
    assert decodes(text) == validates(data), text


OFFICE: dict[str, Any] = {
    "wgnet": 1,
    "network": {"name": "office", "subnets": ["10.80.0.0/24"]},
    "hosts": {"fra": {"addresses": ["10.80.0.1"]}, "nyc": {"addresses": ["10.80.0.2"]}},
}


def with_host(**keys: Any) -> dict[str, Any]:
    return {**OFFICE, "hosts": {"fra": {name.replace("_", "-"): value for name, value in keys.items()}}}


def with_top(**keys: Any) -> dict[str, Any]:
    return {**OFFICE, **keys}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_every_key_is_in_it_and_described() -> None:
    for section, schema in (
        (TOP, SCHEMA),
        (NETWORK.keys, SCHEMA["properties"]["network"]),
        (HOST.keys, SCHEMA["properties"]["hosts"]["additionalProperties"]),
        (DEFAULTS.keys, SCHEMA["properties"]["defaults"]["additionalProperties"]),
        (RULE.keys, SCHEMA["properties"]["peering"]["anyOf"][1]),
    ):
        assert set(schema["properties"]) == set(section)
        assert all(schema["properties"][name]["description"] == key.doc for name, key in section.items())
        assert schema["additionalProperties"] is False


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_validate(path: Any) -> None:
    VALIDATOR.validate(yaml.load(path.read_bytes(), _Loader))


def test_there_are_examples() -> None:
    assert EXAMPLES


def test_the_first_topology_validates() -> None:
    VALIDATOR.validate(yaml.load(FIRST_TOPOLOGY, _Loader))


PAGES = [page for page in explain_all() if isinstance(page.fixed, str)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.code.name)
def test_mended_examples_of_the_pages_validate(page: Any) -> None:
    for data in page.fixed_files().values():
        VALIDATOR.validate(yaml.load(data, _Loader))


#: What only a text's form or the whole network shows, the schema need not know.
SHAPE = {"WG2001", "WG2002", "WG2003", "WG2004", "WG2014", "WG2015", "WG2020", "WG2021", "WG2022", "WG2023", "WG2024",
         "WG2025", "WG2034", "WG2035", "WG2036"}  # fmt: skip


@pytest.mark.parametrize(
    "page",
    [page for page in explain_all() if page.code.name in SHAPE and isinstance(page.example, str)],
    ids=lambda page: page.code.name,
)
def test_examples_of_bad_shape_do_not_validate(page: Any) -> None:
    for data in page.example_files().values():
        assert not validates(yaml.load(data, _Loader))


BOTH_WAYS = [
    with_host(),
    with_host(x_note={"any": [1, None]}),
    with_host(endpoint="a"),
    with_host(endpoint=["a", "b"]),
    with_host(endpoint=[]),
    with_host(endpoint={}),
    with_host(endpoint=["a", "a"]),
    with_host(addresses=[]),
    with_host(addresses="10.80.0.1"),
    with_host(addresses=["10.80.0.1", "10.80.0.1"]),
    with_host(advertise=[]),
    with_host(listen_port="auto"),
    with_host(listen_port=0),
    with_host(listen_port=65535),
    with_host(listen_port=65536),
    with_host(mtu=575),
    with_host(mtu=576),
    with_host(table="main"),
    with_host(table="off"),
    with_host(table="x"),
    with_host(table=100),
    with_host(table=0),
    with_host(firewall_mark="0x10"),
    with_host(firewall_mark=0),
    with_host(metric=0),
    with_host(metric=1),
    with_host(keepalive="off"),
    with_host(keepalive=65536),
    with_host(forward="yes"),
    with_host(forward=1),
    with_host(forward=None),
    with_host(manager="wg-quick"),
    with_host(manager="wgquick"),
    with_host(private_key={"file": "/a/b"}),
    with_host(private_key={"agent": True}),
    with_host(private_key={"agent": False}),
    with_host(private_key={}),
    with_host(private_key={"file": "/a/b", "credential": "c"}),
    with_host(private_key="x"),
    with_host(dns={}),
    with_host(dns={"servers": ["10.80.0.1"], "search": []}),
    with_host(dns={"server": []}),
    with_host(dns=[]),
    with_host(keep_alive=5),
    with_host(disabled="true "),
    with_host(autoconnect=False),
    with_host(public_key="short"),
    with_host(permissions=["alice"]),
    with_host(permissions="alice"),
    with_host(manager_version="252"),
    with_host(manager_version=[252]),
    with_top(extra=1),
    with_top(**{"x-extra": 1}),
    with_top(wgnet=2),
    with_top(hosts={}),
    with_top(hosts=None),
    with_top(hosts=[]),
    with_top(hosts={"a": None}),
    with_top(groups=None),
    with_top(groups={}),
    with_top(groups={"g": []}),
    with_top(groups={"g": "fra"}),
    with_top(groups={"x-g": 5}),
    with_top(groups=[]),
    with_top(defaults=None),
    with_top(defaults={"all": {"mtu": 1400}}),
    with_top(defaults={"all": {"addresses": ["10.80.0.3"]}}),
    with_top(defaults={"x-a": 7, "all": {}}),
    with_top(peering="mesh"),
    with_top(peering="hub"),
    with_top(peering=[]),
    with_top(peering={}),
    with_top(peering={"hub": "fra"}),
    with_top(peering={"hub": ["fra", "nyc"], "isolate": True}),
    with_top(peering={"hub": "fra", "mesh": "all"}),
    with_top(peering=[{"mesh": ["fra", "nyc"], "keepalive": 5}]),
    with_top(peering=[{"mesh": "all", "isolate": True}]),
    with_top(peering=[{"mesh": "all", "spokes": "all"}]),
    with_top(peering=[{"link": ["fra", "nyc"], "preshared-key": True}]),
    with_top(peering=[{"link": ["fra", "nyc"], "preshared-key": {}}]),
    with_top(peering=[{"link": ["fra", "nyc"], "preshared-key": {"file": "/a/b"}}]),
    with_top(peering=[{"link": "fra"}]),
    with_top(peering=[{"link": ["fra", "nyc"], "endpoint": {"fra": "a", "nyc": ["b"]}}]),
    with_top(peering=[{"link": ["fra", "nyc"], "endpoint": "a"}]),
    with_top(peering=[{"link": ["fra", "nyc"], "allowed-ips": "any"}]),
    with_top(peering=[{"link": ["fra", "nyc"], "allowed-ips": "all"}]),
    with_top(peering=[{"hub": "fra", "endpoint": {}}]),
    with_top(peering=None),
    with_top(peering=[None]),
    with_top(expect=[]),
    with_top(expect=[{"from": "fra", "to": "nyc"}]),
    with_top(expect=[{"from": "fra"}]),
    with_top(expect=[{"from": "fra", "to": "nyc", "via": []}]),
    with_top(expect=[{"from": "fra", "to": "nyc", "via": "fra"}]),
    with_top(expect={}),
    with_top(expect=None),
    with_top(expect=[{"from": "fra", "to": "nyc", "reachable": "no"}]),
    with_top(network={"name": "a"}),
    with_top(network=None),
    with_top(network={"name": "a", "subnets": []}),
    with_top(network={"name": "a", "subnets": ["10.80.0.0/24"], "mtu": None}),
    {},
    [],
    5,
    None,
    "text",
    {"wgnet": 1},
]


@pytest.mark.parametrize("data", BOTH_WAYS, ids=lambda data: json.dumps(data)[:80])
def test_schema_and_decoder_agree(data: Any) -> None:
    agree(data)


_KEYS = sorted(HOST.keys)
# Of each kind one that is good somewhere; strings whose form is checked are left to the decoder's own tests.
_VALUES = st.one_of(
    st.none(), st.booleans(), st.sampled_from([1, 25, 1400, 2000, 51820]), st.just([]), st.just({}),
    st.sampled_from(["auto", "off", "main", "networkd", "external"]), st.just({"agent": True}), st.just({"x-a": 1}),
)  # fmt: skip
#: Where any number or word is a text to the decoder, which reads by the key's type; the schema asks for a string.
_TEXTS = {"description", "site", "zone", "exit-node", "interface", "endpoint", "site-endpoint", "manager-version"}


@given(
    st.dictionaries(
        st.sampled_from([*_KEYS, "x-mine", "nonsense"]).filter(lambda key: key not in _TEXTS), _VALUES, max_size=4
    )
)
def test_schema_and_decoder_agree_on_hosts_drawn_at_random(host: dict[str, Any]) -> None:
    agree({**OFFICE, "hosts": {"fra": host}})


def test_every_type_of_key_has_a_schema() -> None:
    keys: list[Key] = [*TOP.values(), *NETWORK.keys.values(), *HOST.keys.values(), *RULE.keys.values()]
    assert all(key.type.schema() for key in keys)
