"""Readers of single values: text -> value, strictly by the key's type, never by YAML's guess.

Each reader takes a scalar's text and returns the value or raises `Bad`, which the decoder turns into a diagnostic at
the scalar's place. No reader does I/O.
"""

from __future__ import annotations

import ipaddress
import re

from wgnet.diagnostics import codes
from wgnet.diagnostics.codes import Code
from wgnet.keys.base64 import KeyProblem, check_key
from wgnet.syntax.spec import Address, Endpoint, HostAddress, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_HOST = re.compile(r"(?:(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
# What the kernel (15 bytes, no '/' or space), networkd (no ':' or '%', not all digits), wg-quick
# ([a-zA-Z0-9_=+.-]{1,15}) and NetworkManager all take; a leading '-' reads as an option in too many tools.
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_=+.-]{0,14}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,30}\$?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


class Bad(Exception):  # noqa: N818 - a user's mistake, carried from a reader to the decoder, and no error of ours
    """What is wrong with a text. `message` and `help` never quote a secret."""

    def __init__(self, code: Code, message: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


def read_integer(text: str, code: Code, what: str, low: int, high: int) -> int:
    """Read a plain decimal number without sign, leading zero or exponent."""
    if not _DECIMAL.fullmatch(text) or not low <= int(text) <= high:
        raise Bad(code, f"expected {what} ({low} to {high}), found '{text}'")
    return int(text)


def read_boolean(text: str) -> bool:
    """Read `true` or `false`, nothing else."""
    if text == "true":
        return True
    if text == "false":
        return False
    hint = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower())
    if text.lower() in ("true", "false"):
        hint = text.lower()
    raise Bad(codes.BAD_BOOLEAN, f"expected true or false, found '{text}'", f"write '{hint}'" if hint else None)


def read_version(text: str) -> int:
    """Read the version of the format."""
    if text != "1":
        raise Bad(codes.BAD_FORMAT_VERSION, f"expected format version 1, found '{text}'")
    return 1


def read_address(text: str) -> Address:
    """Read a plain IPv4 or IPv6 address, without prefix length, brackets or zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Bad(codes.BAD_ADDRESS, f"expected an IP address, found '{text}'") from None
    if "%" in text:
        raise Bad(codes.BAD_ADDRESS, f"expected an IP address without a zone, found '{text}'")
    return address


def _refuse_mapped(address: Address, text: str, code: Code) -> None:
    """Refuse ::ffff:a.b.c.d, an IPv4 address in the API of sockets that no packet bears (RFC 4291, 2.5.5.2)."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None:
        raise Bad(code, f"'{text}' is an IPv4 address in the form of IPv6", f"write '{mapped}'")


def _unicast(address: Address, text: str) -> None:
    _refuse_mapped(address, text, codes.BAD_ADDRESS)
    if address.is_unspecified:
        # networkd takes 0.0.0.0/N and ::/N for "allocate one".
        raise Bad(codes.BAD_ADDRESS, f"'{text}' is the unspecified address")
    if address.is_multicast:
        raise Bad(codes.BAD_ADDRESS, f"'{text}' is a multicast address")
    if address.is_loopback:
        raise Bad(codes.BAD_ADDRESS, f"'{text}' is a loopback address")
    if address.version == 4 and int(address) >> 24 in (0, 255):
        raise Bad(codes.BAD_ADDRESS, f"'{text}' is no address that a host can have")


def read_host_address(text: str) -> HostAddress:
    """Read a host's tunnel address, with or without a prefix length."""
    plain, slash, length_text = text.partition("/")
    address = read_address(plain)
    _unicast(address, plain)
    if not slash:
        return HostAddress(address, None)
    if not _DECIMAL.fullmatch(length_text) or not 1 <= int(length_text) <= address.max_prefixlen:
        raise Bad(codes.BAD_PREFIX, f"expected a prefix length (1 to {address.max_prefixlen}), found '{length_text}'")
    return HostAddress(address, int(length_text))


def read_prefix(text: str) -> Prefix:
    """Read a masked prefix; a bare address is one host's."""
    plain, slash, length_text = text.partition("/")
    try:
        address = read_address(plain)
    except Bad:
        raise Bad(codes.BAD_PREFIX, f"expected an IP prefix, found '{text}'") from None
    if slash and (not _DECIMAL.fullmatch(length_text) or int(length_text) > address.max_prefixlen):
        raise Bad(codes.BAD_PREFIX, f"expected a prefix length (0 to {address.max_prefixlen}), found '{length_text}'")
    prefix = ipaddress.ip_network(text, strict=False)
    if prefix.network_address != address:
        raise Bad(codes.HOST_BITS, f"'{text}' has bits beyond its prefix length", f"write '{prefix}'")
    if prefix.is_multicast and prefix.prefixlen:
        raise Bad(codes.BAD_PREFIX, f"'{text}' is multicast")
    return prefix


def read_subnet(text: str) -> Prefix:
    """Read a network's subnet: a masked prefix that hosts can have addresses in."""
    if "/" not in text:
        raise Bad(codes.BAD_PREFIX, f"expected a subnet with its prefix length, found '{text}'")
    prefix = read_prefix(text)
    if prefix.prefixlen == 0 or prefix.is_loopback or (prefix.version == 4 and int(prefix.network_address) >> 24 == 0):
        raise Bad(codes.BAD_PREFIX, f"'{text}' is no subnet that hosts can have addresses in")
    return prefix


def read_public_key(text: str) -> str:
    """Read a WireGuard public key; the text itself is the value. The diagnostic never quotes it."""
    problem = check_key(text)
    if problem is None:
        return text
    if problem is KeyProblem.ZERO:
        raise Bad(codes.ZERO_KEY, "the key is all zero, which no host can have")
    if problem is KeyProblem.NOT_CANONICAL:
        raise Bad(
            codes.KEY_NOT_CANONICAL,
            "the key is not canonical base64: its last character has bits that wg(8) refuses",
            "copy the key again from `wg pubkey`",
        )
    raise Bad(codes.BAD_KEY, f"expected a key of 44 base64 characters, found {len(text)} characters that are none")


def read_port(text: str) -> int:
    """Read a UDP port."""
    return read_integer(text, codes.BAD_PORT, "a port", 1, 65535)


def read_listen_port(text: str) -> int:
    """Read a listen port; `auto`, the kernel's choice, is 0."""
    if text == "auto":
        return 0
    if text == "0":
        raise Bad(codes.BAD_PORT, "expected a port (1 to 65535) or 'auto', found '0'", "write 'auto'")
    return read_port(text)


def read_mtu(text: str) -> int:
    """Read an MTU in bytes."""
    return read_integer(text, codes.BAD_MTU, "an MTU", 576, 65535)


def read_mark(text: str) -> int:
    """Read a firewall mark, decimal or hexadecimal; it is also a table's number, so the kernel's own are refused."""
    if re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", text):
        value = int(text, 16)
    else:
        value = read_integer(text, codes.BAD_MARK, "a firewall mark", 1, 2**32 - 1)
    if value == 0 or 253 <= value <= 255:
        raise Bad(codes.BAD_MARK, f"firewall mark '{text}' cannot number a routing table", "choose one from 256 on")
    return value


def read_table(text: str) -> int:
    """Read a routing table: `main` is 254, `off` 0."""
    if text == "main":
        return 254
    if text == "off":
        return 0
    if not _DECIMAL.fullmatch(text) or not 1 <= int(text) <= 2**32 - 1 or int(text) == 255:
        raise Bad(codes.BAD_TABLE, f"expected 'main', 'off' or a table's number, found '{text}'")
    return int(text)


def read_metric(text: str) -> int:
    """Read a route's metric; 0 is left out, since IPv6 and NetworkManager read it as "the default"."""
    return read_integer(text, codes.BAD_METRIC, "a metric", 1, 2**32 - 1)


def read_keepalive(text: str) -> int:
    """Read a keepalive interval in seconds; `off` is 0."""
    return 0 if text == "off" else read_integer(text, codes.BAD_KEEPALIVE, "seconds or 'off'", 0, 65535)


def read_manager_version(text: str) -> tuple[int, ...]:
    """Read a version such as 252, 257.13 or 1.42.4 into its numbers."""
    if not re.fullmatch(r"(?:0|[1-9][0-9]{0,4})(?:\.(?:0|[1-9][0-9]{0,4})){0,2}", text):
        raise Bad(codes.BAD_MANAGER_VERSION, f"expected a version such as '252' or '1.42', found '{text}'")
    return tuple(int(part) for part in text.split("."))


def read_network_name(text: str) -> str:
    """Read a network's name, which becomes part of file names."""
    if not _NETWORK.fullmatch(text):
        raise Bad(
            codes.BAD_NAME,
            f"expected a network's name (letters, digits, '_', '.', '-', at most 63), found '{text}'",
        )
    return text


def read_host_name(text: str) -> str:
    """Read a host name by RFC 1123."""
    if len(text) > 253 or not _HOST.fullmatch(text):
        raise Bad(
            codes.BAD_NAME,
            f"expected a host name (letters, digits, '-' and '.', RFC 1123), found '{text}'",
        )
    if _is_address(text):  # `expect` and /etc/hosts could not tell it from the address
        raise Bad(codes.BAD_NAME, f"expected a host name, found the address '{text}'")
    return text


def read_interface(text: str) -> str:
    """Read an interface name that the kernel, networkd, NetworkManager and wg-quick all take."""
    problem = interface_problem(text)
    if problem:
        raise Bad(codes.BAD_INTERFACE, f"'{text}' is no interface name: {problem}")
    return text


def interface_problem(text: str) -> str | None:
    """Say why `text` cannot name an interface, or return None."""
    if len(text.encode()) > 15:
        return "it has more than 15 bytes"
    if not _INTERFACE.fullmatch(text):
        return "expected letters, digits and '_=+.-'"
    if text.isdigit():
        return "systemd-networkd takes a number for an index"
    if text in ("all", "default", ".", "..", "lo"):
        return "the name has a meaning of its own"
    return None


def read_endpoint(text: str) -> Endpoint:
    """Read `host[:port]` or `[v6][:port]`."""

    def bad(why: str, help: str | None = None) -> Bad:  # noqa: A002
        return Bad(codes.BAD_ENDPOINT, f"'{text}' is no endpoint: {why}", help)

    host, colon, port_text = text, "", ""
    address: Address | None = None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise bad("expected '[ADDRESS]' or '[ADDRESS]:PORT'")
        colon, port_text = rest[:1], rest[1:]
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise bad("expected an IPv6 address in the brackets") from None
        if "%" in host:
            raise bad("systemd-networkd takes no zone in an endpoint")
        host = str(address)
    elif text.count(":") > 1:
        raise bad("an IPv6 address needs brackets", f"write '[{text}]'" if _is_address(text) else None)
    else:
        host, colon, port_text = text.partition(":")
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            name = host.removesuffix(".")
            if len(name) > 253 or not _HOST.fullmatch(name):
                raise bad("expected an address or a host name") from None
            # The C library reads such a name as an address, in hexadecimal too (inet_aton(3)).
            if re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", name.rpartition(".")[2]):
                raise bad("expected an IPv4 address or a host name") from None
    port: int | None = None
    if colon:
        try:
            port = read_port(port_text)
        except Bad as error:
            raise bad(error.message) from None
    if address is not None:
        _refuse_mapped(address, text, codes.BAD_ENDPOINT)
    if address is not None and (address.is_unspecified or address.is_multicast or int(address) == 2**32 - 1):
        raise bad("no peer can be reached at this address")
    return Endpoint(host, port, address)


def _is_address(text: str) -> bool:
    try:
        read_address(text)
    except Bad:
        return False
    return True


def read_text(text: str) -> str:
    """Read a line of text for people."""
    if len(text) > 256 or not text.isprintable():
        raise Bad(codes.BAD_TEXT, "expected one line of at most 256 printable characters")
    return text


def read_path(text: str) -> str:
    """Read an absolute, normalised path that a manager can read secrets from."""
    parts = text.split("/")
    if not text.startswith("/") or len(text) > 1024 or not text.isprintable():
        raise Bad(codes.BAD_PATH, f"expected an absolute path, found '{text}'")
    if text.endswith("/") or any(part in ("", ".", "..") for part in parts[1:]):
        raise Bad(codes.BAD_PATH, f"expected a path without '.', '..' or empty parts, found '{text}'")
    if any(character in text for character in "\\\"'%$;#") or text != text.strip() or "  " in text:
        raise Bad(codes.BAD_PATH, f"'{text}' has characters that unit files and keyfiles read otherwise")
    if parts[1] in ("dev", "proc", "sys"):
        raise Bad(codes.BAD_PATH, f"systemd-networkd reads no secret below '/{parts[1]}'")
    return text


def read_credential(text: str) -> str:
    """Read the name of a systemd credential."""
    if not _CREDENTIAL.fullmatch(text) or text in (".", ".."):
        raise Bad(codes.BAD_CREDENTIAL, f"expected a credential's name, found '{text}'")
    return text


def read_search_domain(text: str) -> str:
    """Read a search domain; `~` in front routes it without searching it, `~.` routes everything."""
    if text == "~.":
        return text
    name = text.removeprefix("~").removesuffix(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(part.replace("_", "a")) for part in name.split(".")):
        raise Bad(codes.BAD_DOMAIN, f"expected a DNS domain, found '{text}'")
    return text.removesuffix(".")


def read_user(text: str) -> str:
    """Read a user's name."""
    if not _USER.fullmatch(text):
        raise Bad(codes.BAD_USER, f"expected a user's name, found '{text}'")
    return text


def read_zone(text: str) -> str:
    """Read the name of a firewalld zone."""
    if not _ZONE.fullmatch(text):
        raise Bad(codes.BAD_NAME, f"expected a firewalld zone, found '{text}'")
    return text


def read_site(text: str) -> str:
    """Read the name of a site."""
    if not _NETWORK.fullmatch(text):
        raise Bad(codes.BAD_NAME, f"expected a site's name (letters, digits, '_', '.', '-'), found '{text}'")
    return text


def read_destination(text: str) -> Any:
    """Read where an expectation goes to: an address, or the name of a host or group."""
    return read_address(text) if _is_address(text) else read_host_name(text)
