"""The readers of single values: what each takes, what it refuses, and with which code."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.syntax import values
from wgnet.syntax.spec import Endpoint, HostAddress
from wgnet.syntax.values import Bad

KEY = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="
FULL_WIDTH_ONE = "\uff11"
ARABIC_ONE = "\u0661"

#: Texts that no reader takes but those for free text: empty, quotes in the value, line ends, blanks, controls, NUL.
NOBODY_TAKES = ["", '""', "''", "a\n", "1\n", "10.0.0.1\n", "\n", "a\nb", " 1", "1 ", "\x00", "a\x00", "\u200b1", "\t1"]

NUMBERS_NOBODY_TAKES = [
    "-1", "+1", "1.0", "1e3", "0x10", "0o17", "0777", "007", "52:54", "1_000", "no", "~", "1,5",
    FULL_WIDTH_ONE, ARABIC_ONE, "\u00b2", "99999999999999999999", "9" * 5000,
]  # fmt: skip


GOOD: list[tuple[Callable[[str], Any], str, Any]] = [
    (values.read_boolean, "true", True),
    (values.read_boolean, "false", False),
    (values.read_version, "1", 1),
    (values.read_address, "10.1.2.3", ip_address("10.1.2.3")),
    (values.read_address, "FD42:80:0::A", ip_address("fd42:80::a")),
    (values.read_address, "::1", ip_address("::1")),
    (values.read_host_address, "10.80.0.1", HostAddress(ip_address("10.80.0.1"), None)),
    (values.read_host_address, "10.80.0.1/16", HostAddress(ip_address("10.80.0.1"), 16)),
    (values.read_host_address, "FD42:80::1/64", HostAddress(ip_address("fd42:80::1"), 64)),
    (values.read_host_address, "fd42:80::1/128", HostAddress(ip_address("fd42:80::1"), 128)),
    (values.read_prefix, "10.80.0.0/24", ip_network("10.80.0.0/24")),
    (values.read_prefix, "10.80.0.1", ip_network("10.80.0.1/32")),
    (values.read_prefix, "0.0.0.0/0", ip_network("0.0.0.0/0")),
    (values.read_prefix, "::/0", ip_network("::/0")),
    (values.read_prefix, "FD42:80:0::/64", ip_network("fd42:80::/64")),
    (values.read_subnet, "10.0.0.0/8", ip_network("10.0.0.0/8")),
    (values.read_subnet, "10.0.0.1/32", ip_network("10.0.0.1/32")),
    (values.read_public_key, KEY, KEY),
    (values.read_port, "1", 1),
    (values.read_port, "65535", 65535),
    (values.read_listen_port, "auto", 0),
    (values.read_listen_port, "51820", 51820),
    (values.read_mtu, "576", 576),
    (values.read_mtu, "65535", 65535),
    (values.read_mark, "51820", 51820),
    (values.read_mark, "0xCa6c", 0xCA6C),
    (values.read_mark, "0xffffffff", 2**32 - 1),
    (values.read_mark, "4294967295", 2**32 - 1),
    (values.read_mark, "252", 252),
    (values.read_mark, "256", 256),
    (values.read_table, "main", 254),
    (values.read_table, "off", 0),
    (values.read_table, "100", 100),
    (values.read_table, "4294967295", 2**32 - 1),
    (values.read_metric, "1", 1),
    (values.read_metric, "4294967295", 2**32 - 1),
    (values.read_keepalive, "off", 0),
    (values.read_keepalive, "0", 0),
    (values.read_keepalive, "65535", 65535),
    (values.read_manager_version, "252", (252,)),
    (values.read_manager_version, "257.13", (257, 13)),
    (values.read_manager_version, "1.42.4", (1, 42, 4)),
    (values.read_manager_version, "1.0", (1, 0)),
    (values.read_network_name, "office", "office"),
    (values.read_network_name, "0777", "0777"),
    (values.read_network_name, "a.b_c-d", "a.b_c-d"),
    (values.read_network_name, "n" * 63, "n" * 63),
    (values.read_host_name, "no", "no"),
    (values.read_host_name, "true", "true"),
    (values.read_host_name, "0777", "0777"),
    (values.read_host_name, "1e3", "1e3"),
    (values.read_host_name, "Fra.Example-1.net", "Fra.Example-1.net"),
    (values.read_host_name, "l" * 63, "l" * 63),
    (values.read_host_name, ".".join(["l" * 62] * 4), ".".join(["l" * 62] * 4)),
    (values.read_interface, "wg0", "wg0"),
    (values.read_interface, "0wg", "0wg"),
    (values.read_interface, "a" * 15, "a" * 15),
    (values.read_interface, "wg_=+.-", "wg_=+.-"),
    (values.read_endpoint, "fra.example.net", Endpoint("fra.example.net", None, None)),
    (values.read_endpoint, "fra.example.net.:5", Endpoint("fra.example.net.", 5, None)),
    (values.read_endpoint, "192.0.2.1:51820", Endpoint("192.0.2.1", 51820, ip_address("192.0.2.1"))),
    (values.read_endpoint, "192.0.2.1", Endpoint("192.0.2.1", None, ip_address("192.0.2.1"))),
    (values.read_endpoint, "[::1]:5", Endpoint("::1", 5, ip_address("::1"))),
    (values.read_endpoint, "[2001:DB8:0::1]", Endpoint("2001:db8::1", None, ip_address("2001:db8::1"))),
    (values.read_text, "", ""),
    (values.read_text, 'the "hub" in Köln, 50 %', 'the "hub" in Köln, 50 %'),
    (values.read_text, "x" * 256, "x" * 256),
    (values.read_path, "/etc/wgnet/office.key", "/etc/wgnet/office.key"),
    (values.read_path, "/srv/my keys/ü.key", "/srv/my keys/ü.key"),
    (values.read_credential, "network.wireguard.office:1", "network.wireguard.office:1"),
    (values.read_credential, "c" * 255, "c" * 255),
    (values.read_search_domain, "corp.example.com", "corp.example.com"),
    (values.read_search_domain, "~corp.example.com.", "~corp.example.com"),
    (values.read_search_domain, "~.", "~."),
    (values.read_search_domain, "_tcp.example", "_tcp.example"),
    (values.read_user, "alice", "alice"),
    (values.read_user, "_svc.a-b@corp", "_svc.a-b@corp"),
    (values.read_user, "machine$", "machine$"),
    (values.read_zone, "trusted", "trusted"),
    (values.read_site, "frankfurt", "frankfurt"),
    (values.read_destination, "10.1.2.3", ip_address("10.1.2.3")),
    (values.read_destination, "FD42::1", ip_address("fd42::1")),
    (values.read_destination, "fra", "fra"),
    (values.read_destination, "10", "10"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "text", "value"), GOOD, ids=lambda one: getattr(one, "__name__", repr(one)[:40]))
def test_good(read: Callable[[str], Any], text: str, value: Any) -> None:
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def _bad(read: Callable[[str], Any], code: Code, *texts: str) -> list[tuple[Callable[[str], Any], str, Code]]:
    return [(read, text, code) for text in texts]


_ADDRESSES = (
    "10.1.2", "10.1.2.3.4", "010.1.2.3", "10.1.2.256", "1.2.3.4/24", "[::1]", "fe80::1%eth0", "fd42:::1", "0x7f.1",
    "16909060", f"{FULL_WIDTH_ONE}0.1.2.3", "10.1.2.3 ", "fd42::g", ":", "fra", "1::2::3",
)  # fmt: skip

BAD: list[tuple[Callable[[str], Any], str, Code]] = [
    *_bad(values.read_boolean, codes.BAD_BOOLEAN, "True", "TRUE", "yes", "no", "on", "off", "1", "0", "y", "ｔｒｕｅ"),
    *_bad(values.read_version, codes.BAD_FORMAT_VERSION, "2", "0", "1.0", "01", "+1", "0x1", FULL_WIDTH_ONE, "one"),
    *_bad(values.read_address, codes.BAD_ADDRESS, *_ADDRESSES),
    *_bad(
        values.read_host_address, codes.BAD_ADDRESS, "0.0.0.0", "::", "224.0.0.1", "ff02::1", "127.0.0.1", "::1",
        "0.1.2.3", "255.255.255.255", "255.0.0.1", "::ffff:10.80.0.1", "/24", "fe80::1%eth0/64",
    ),
    *_bad(
        values.read_host_address, codes.BAD_PREFIX, "10.80.0.1/", "10.80.0.1/0", "10.80.0.1/33", "10.80.0.1/024",
        "10.80.0.1/+24", "10.80.0.1/255.255.255.0", "10.80.0.1/24/8", "10.80.0.1/2４", "fd42::1/129", "10.80.0.1/24\n",
    ),
    *_bad(
        values.read_prefix, codes.BAD_PREFIX, "10.80.0.0/", "10.80.0.0/33", "10.80.0.0/08", "/8", "10.80.0/24",
        "010.80.0.0/24", "10.80.0.0/255.255.255.0", "10.80.0.0/0.0.0.255", "fd42::/129", "fd42::/-1", "any", "default",
        "224.0.0.0/4", "ff00::/8", "fe80::%eth0/64", "10.80.0.0/24\n", f"10.80.0.0/{FULL_WIDTH_ONE}6",
    ),
    *_bad(values.read_prefix, codes.HOST_BITS, "10.80.0.1/24", "fd42:80::1/64", "1.0.0.0/0", "::1/0"),
    *_bad(values.read_subnet, codes.BAD_PREFIX, "10.80.0.1", "0.0.0.0/0", "::/0", "127.0.0.0/8", "0.0.0.0/8", "::1/128",
    ),
    *_bad(values.read_subnet, codes.HOST_BITS, "10.80.0.1/24"),
    *_bad(
        values.read_public_key, codes.BAD_KEY, KEY[:-1], f"{KEY}=", f"{KEY}\n", f" {KEY}", KEY.replace("+", "-"),
        "k" * 44, f"{KEY[:-2]}==", base64.b64encode(b"short").decode(), KEY.replace("x", "\uff58", 1), '""',
    ),
    *_bad(values.read_public_key, codes.KEY_NOT_CANONICAL, f"{KEY[:-2]}t=", f"{KEY[:-2]}u=", f"{KEY[:-2]}v="),
    *_bad(values.read_public_key, codes.ZERO_KEY, "A" * 43 + "="),
    *_bad(values.read_port, codes.BAD_PORT, "0", "65536", "auto", "http", *NUMBERS_NOBODY_TAKES),
    *_bad(values.read_listen_port, codes.BAD_PORT, "0", "65536", "Auto", "any", *NUMBERS_NOBODY_TAKES),
    *_bad(values.read_mtu, codes.BAD_MTU, "0", "575", "65536", "auto", *NUMBERS_NOBODY_TAKES),
    *_bad(
        values.read_mark, codes.BAD_MARK, "0", "0x0", "253", "254", "255", "0xfe", "4294967296", "0x100000000", "0X10",
        "0x", "0xg", "off", *(text for text in NUMBERS_NOBODY_TAKES if text != "0x10"),
    ),
    *_bad(values.read_table, codes.BAD_TABLE, "0", "255", "4294967296", "auto", "local", "Main", *NUMBERS_NOBODY_TAKES),
    *_bad(values.read_metric, codes.BAD_METRIC, "0", "4294967296", *NUMBERS_NOBODY_TAKES),
    *_bad(values.read_keepalive, codes.BAD_KEEPALIVE, "65536", "Off", "25s", "true", *NUMBERS_NOBODY_TAKES),
    *_bad(
        values.read_manager_version, codes.BAD_MANAGER_VERSION, "v252", "252-1", "252~rc1", "1.", ".1", "1..2",
        "1.2.3.4", "01.2", "1.042", "100000", "-1", "+1", "1e3", FULL_WIDTH_ONE, "latest", "252\n",
    ),
    *_bad(
        values.read_network_name, codes.BAD_NAME, ".office", "-office", "_office", "a/b", "../etc", "a b", "n" * 64,
        "bür", "a:b", "a%b", "office\n",
    ),
    *_bad(
        values.read_host_name, codes.BAD_NAME, "-a", "a-", "a.-b", "a..b", ".a", "a.", "a_b", "l" * 64, "a/b", "a b",
        "bücher", "a:b", "*", "..", ".".join(["l" * 63] * 4), "fra\n", f"host{FULL_WIDTH_ONE}", "1.2.3.4",
    ),
    *_bad(
        values.read_interface, codes.BAD_INTERFACE, "a" * 16, "wg 0", "wg/0", "wg:0", "wg%d", "-wg", ".wg", "..", ".",
        "all", "default", "lo", "0", "51820", "wgü", "wg0\n", "ü" * 8,
    ),
    *_bad(
        values.read_endpoint, codes.BAD_ENDPOINT, ":51820", "fra:", "fra:0", "fra:65536", "fra:+1", "fra:080",
        f"fra:{FULL_WIDTH_ONE}", "2001:db8::1", "2001:db8::1:51820", "[2001:db8::1", "[2001:db8::1]51820", "[]:5",
        "[2001:db8::1]:", "[192.0.2.1]:5", "[fra]:5", "[fe80::1%eth0]:5", "192.0.2", "192.0.2.256", "010.1.2.3:5",
        "1.2.3.4.5", "0x7f000001", "0X7F.0x1:5", "5",
        "a_b.example", "-a", "http://fra", "fra/24", "0.0.0.0:5", "[::]:5", "224.0.0.1", "[ff02::1]:5",
        "255.255.255.255", "[::ffff:192.0.2.1]:5", ".", "..", "l" * 64, "fra:51820\n", "fra\n:5",
    ),
    *_bad(values.read_text, codes.BAD_TEXT, "a\nb", "a\x1b[31m", "x" * 257, "\u202eabc", "a\tb", "\x00", "\u2028"),
    *_bad(
        values.read_path, codes.BAD_PATH, "key", "./key", "~/key", "/", "/etc/", "//etc/key", "/etc//key", "/etc/./key",
        "/etc/../key", "/dev/null", "/proc/1/environ", "/sys/key", "/a\nb", "/a;b", "/a#b", "/a%b", '/a"b', "/a'b",
        "/a\\b", "/a$b", "/a ", "/a  b", "/" + "x" * 1024,
    ),
    *_bad(values.read_credential, codes.BAD_CREDENTIAL, "a/b", ".", "..", "a b", "c" * 256, "ü", "a\n"),
    *_bad(
        values.read_search_domain, codes.BAD_DOMAIN, ".", "~", "~~a", "a..b", ".a", "-a", "a-", "a b", "*.a", "a/b",
        "l" * 64, "bücher.example", "example.com\n", ".".join(["l" * 63] * 4 + ["l"]),
    ),
    *_bad(values.read_user, codes.BAD_USER, "1alice", "-a", "a b", "a:b", "a;b", "$", "a" * 33, "ü", "alice\n", "a$$"),
    *_bad(values.read_zone, codes.BAD_NAME, "a b", "a/b", "z" * 65, "ü", "trusted\n"),
    *_bad(values.read_site, codes.BAD_NAME, "a b", "a/b", ".a", "s" * 64, "ü", "frankfurt\n"),
    *_bad(values.read_destination, codes.BAD_NAME, "fe80::1%eth0", "10.0.0.0/8", "010.1.2.3/8", "a_b", "fra\n"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "text", "code"), BAD, ids=lambda one: getattr(one, "__name__", repr(one)[:40]))
def test_bad(read: Callable[[str], Any], text: str, code: Code) -> None:
    with pytest.raises(Bad) as caught:
        read(text)
    assert caught.value.code is code
    assert caught.value.message
    assert not caught.value.message.endswith(".")


READERS = {
    name: read
    for name, read in inspect.getmembers(values, inspect.isfunction)
    if name.startswith("read_") and name != "read_integer"
}


def test_every_reader_is_in_both_tables() -> None:
    assert {read.__name__ for read, _, _ in GOOD} == {read.__name__ for read, _, _ in BAD} == set(READERS)


@pytest.mark.parametrize("name", sorted(set(READERS) - {"read_text"}))
@pytest.mark.parametrize("text", NOBODY_TAKES, ids=repr)
def test_what_nobody_takes(name: str, text: str) -> None:
    with pytest.raises(Bad):
        READERS[name](text)


@pytest.mark.parametrize(
    ("read", "text", "help_text"),
    [
        (values.read_boolean, "no", "write 'false'"),
        (values.read_boolean, "On", "write 'true'"),
        (values.read_boolean, "TRUE", "write 'true'"),
        (values.read_boolean, "2", None),
        (values.read_listen_port, "0", "write 'auto'"),
        (values.read_prefix, "10.80.0.1/24", "write '10.80.0.0/24'"),
        (values.read_prefix, "fd42::1/64", "write 'fd42::/64'"),
        (values.read_endpoint, "2001:db8::1", "write '[2001:db8::1]'"),
        (values.read_endpoint, "fe80::1%eth0", None),
        (values.read_endpoint, "a:b:c", None),
        (values.read_endpoint, "[::ffff:192.0.2.1]:5", "write '192.0.2.1'"),
        (values.read_host_address, "::ffff:10.80.0.1", "write '10.80.0.1'"),
        (values.read_mark, "254", "choose one from 256 on"),
    ],
)
def test_help(read: Callable[[str], Any], text: str, help_text: str | None) -> None:
    with pytest.raises(Bad) as caught:
        read(text)
    assert caught.value.help == help_text


@pytest.mark.parametrize("text", [KEY[:-1], f"{KEY}x", f"{KEY[:-2]}t=", f" {KEY}"])
def test_a_rejected_key_is_not_quoted(text: str) -> None:
    with pytest.raises(Bad) as caught:
        values.read_public_key(text)
    assert KEY[:8] not in f"{caught.value.message}{caught.value.help}"


def test_an_endpoint_is_written_as_wg_reads_it() -> None:
    for text in ("fra.example.net:5", "192.0.2.1", "[2001:db8::1]:5", "[2001:db8::1]"):
        assert str(values.read_endpoint(text)) == text
