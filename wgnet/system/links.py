"""Network interfaces of this host: whether they are there, MTU, addresses' metrics; the end of links, routes and rules.

Stage: system. Must not make an interface: that is the managers' part.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Mapping

from wgnet.live.state import PolicyRule, Route
from wgnet.system.live import read_routes, read_rules
from wgnet.system.programs import ProgramError, run_program

__all__ = [
    "delete_link",
    "delete_route",
    "delete_rule",
    "is_up",
    "link_exists",
    "mtu_of",
    "set_metrics",
    "set_mtu",
    "set_up",
    "wrong_metrics",
]

#: linux/sockios.h
_SIOCGIFFLAGS, _SIOCGIFMTU = 0x8913, 0x8921
_IFF_UP = 1


def delete_link(name: str) -> None:
    """Delete a network interface; one that is gone is no error. Raises `ProgramError`."""
    if link_exists(name):
        run_program("ip", ["link", "delete", "dev", name], missing="iproute2")


def set_mtu(name: str, mtu: int) -> None:
    """Set an interface's MTU. Raises `ProgramError`."""
    run_program("ip", ["link", "set", "dev", name, "mtu", str(mtu)], missing="iproute2")


def set_up(name: str) -> None:
    """Bring an interface up. Raises `ProgramError`."""
    run_program("ip", ["link", "set", "dev", name, "up"], missing="iproute2")


def is_up(name: str) -> bool:
    """Return whether an interface is there, and is not down."""
    flags = _ask(_SIOCGIFFLAGS, name, "H")
    return flags is not None and bool(flags & _IFF_UP)


def link_exists(name: str) -> bool:
    """Return whether this network namespace has an interface of that name."""
    # Not /sys/class/net: what is mounted there may be another namespace's.
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def mtu_of(name: str) -> int | None:
    """Return an interface's MTU, None where there is none such."""
    return _ask(_SIOCGIFMTU, name, "i")


def _ask(request: int, name: str, form: str) -> int | None:
    """Return the number that an ioctl of netdevice(7) answers with, None where there is no such interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, request, struct.pack("16si", name.encode(), 0))
        except OSError:
            return None
    number: int = struct.unpack_from(form, answer, 16)[0]
    return number


def delete_route(route: Route) -> None:
    """Take away a route by an interface; one that is gone by then is none. Raises `ProgramError`, `LiveError`."""
    words = ["table", str(route.table), "metric", str(route.metric), "proto", str(route.protocol)]
    try:
        run_program(
            "ip",
            [f"-{route.destination.version}", "route", "del", str(route.destination), "dev", str(route.device), *words],
        )
    except ProgramError:
        if route in read_routes(str(route.device)):
            raise


def delete_rule(rule: PolicyRule) -> None:
    """Take away a policy rule; one that is gone by then is none. Raises `ProgramError`, `LiveError`.

    One that cannot be told from another by what the kernel looks at stays.
    """
    rules = read_rules()
    if rule not in rules or any(_would_be_taken(other, rule) for other in rules - {rule}):
        return
    try:
        run_program("ip", [f"-{rule.version}", "rule", "del", *_rule_words(rule)])
    except ProgramError:
        if rule in read_rules():
            raise


def _would_be_taken(other: PolicyRule, rule: PolicyRule) -> bool:
    """Whether the kernel may take another rule for the one that it is told: what is not named is not compared.

    Nor is `not`, ever: rule_find() of Linux' net/core/fib_rules.c.
    """
    told = [
        name
        for name in ("table", "source", "destination", "incoming_interface", "firewall_mark", "suppress_prefix_length")
        if getattr(rule, name) is not None
    ]
    same = ("version", "priority", "action", "protocol", *told)
    return all(getattr(other, name) == getattr(rule, name) for name in same)


def _rule_words(rule: PolicyRule) -> list[str]:
    words = ["priority", str(rule.priority), *(["not"] if rule.invert else []), "from", str(rule.source or "all")]
    words += [] if rule.destination is None else ["to", str(rule.destination)]
    words += [] if rule.incoming_interface is None else ["iif", rule.incoming_interface]
    words += [] if rule.firewall_mark is None else ["fwmark", str(rule.firewall_mark)]
    words += [rule.action] if rule.table is None else ["lookup", str(rule.table)]
    if rule.suppress_prefix_length is not None:
        words += ["suppress_prefixlength", str(rule.suppress_prefix_length)]
    return [*words, "protocol", str(rule.protocol)]


def wrong_metrics(name: str, metrics: Mapping[str, int]) -> dict[str, int]:
    """Return the addresses, as `ADDRESS/LENGTH`, whose prefix's route has another metric than wanted, with that.

    Addresses that the interface has not are left to the manager. Raises `ProgramError`.
    """
    text = run_program("ip", ["-j", "address", "show", "dev", name], missing="iproute2")
    try:
        found = {
            f"{item['local']}/{item['prefixlen']}": item.get("metric", 0)
            for link in json.loads(text or "[]")
            for item in link.get("addr_info", ())
            if "local" in item
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProgramError("the output of `ip -j address` was not understood") from None
    return {address: metric for address, metric in metrics.items() if found.get(address, metric) != metric}


def set_metrics(name: str, metrics: Mapping[str, int]) -> None:
    """Give addresses that an interface has the metrics of their prefixes' routes. Raises `ProgramError`."""
    for address, metric in wrong_metrics(name, metrics).items():
        # The kernel changes the route in place: no packet misses it (ip-address(8); Linux 4.18).
        run_program("ip", ["address", "change", address, "dev", name, "metric", str(metric)])
