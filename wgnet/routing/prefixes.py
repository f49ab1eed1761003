"""Sets of prefixes: order, cover, longest match. Pure functions over `ipaddress`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from wgnet.syntax.spec import Address, Interface, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic, TypeVar

    _T = TypeVar("_T")

    class _Typed(Generic[_T]):
        __slots__ = ()
else:
    _T = object

    class _Typed:
        """What stands in for a generic class as the program runs."""

        __slots__ = ()
        __class_getitem__ = classmethod(lambda cls, _: cls)


DEFAULT_ROUTES: dict[int, Prefix] = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


def sort_key(prefix: Prefix) -> tuple[int, int, int]:
    """Return the key of the order in which prefixes are written: IPv4 first, then by address, the wider first."""
    return (prefix.version, int(prefix.network_address), prefix.prefixlen)


def sort_prefixes(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """Return the prefixes in their order, each once."""
    return tuple(sorted(set(prefixes), key=sort_key))


def contains(outer: Prefix, inner: Prefix) -> bool:
    """Whether every address of `inner` is in `outer`; prefixes of two IP versions contain nothing of each other."""
    return (
        outer.version == inner.version
        and outer.prefixlen <= inner.prefixlen
        and int(inner.network_address) >> (outer.max_prefixlen - outer.prefixlen)
        == int(outer.network_address) >> (outer.max_prefixlen - outer.prefixlen)
    )


def covered(prefix: Prefix, by: Iterable[Prefix]) -> bool:
    """Whether one of `by` contains the prefix."""
    return any(contains(outer, prefix) for outer in by)


def overlap(one: Prefix, two: Prefix) -> bool:
    """Whether two prefixes have an address in common."""
    return contains(one, two) or contains(two, one)


def host_prefix(address: Address | Interface) -> Prefix:
    """Return the /32 or /128 of an address."""
    # From the number: parsing the text again takes three times as long.
    number = int(address)
    return ipaddress.IPv4Network((number, 32)) if address.version == 4 else ipaddress.IPv6Network((number, 128))


def collapse(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """Return the fewest prefixes with the same addresses."""
    prefixes = set(prefixes)
    four = ipaddress.collapse_addresses(p for p in prefixes if isinstance(p, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(p for p in prefixes if isinstance(p, ipaddress.IPv6Network))
    return (*four, *six)


class PrefixMap(_Typed[_T]):
    """Maps prefixes to values and finds the value of the longest prefix that contains an address."""

    __slots__ = ("_lengths", "_values")

    def __init__(self, entries: Iterable[tuple[Prefix, _T]] = ()) -> None:
        self._values: dict[tuple[int, int, int], tuple[Prefix, _T]] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        for prefix, value in entries:
            self.add(prefix, value)

    def add(self, prefix: Prefix, value: _T) -> None:
        """Set the value of a prefix; a later one replaces an earlier."""
        length = prefix.prefixlen
        lengths = self._lengths[prefix.version]
        if length not in lengths:
            lengths.append(length)
            lengths.sort(reverse=True)
        shifted = int(prefix.network_address) >> (prefix.max_prefixlen - length)
        self._values[prefix.version, length, shifted] = (prefix, value)

    def find(self, target: Address | Prefix) -> tuple[Prefix, _T] | None:
        """Return the longest prefix that contains the address (or the whole prefix) and its value, or None."""
        if isinstance(target, ipaddress.IPv4Network | ipaddress.IPv6Network):
            number, longest = int(target.network_address), target.prefixlen
        else:
            number, longest = int(target), int(target.max_prefixlen)
        for length in self._lengths[target.version]:
            if length <= longest:
                found = self._values.get((target.version, length, number >> (target.max_prefixlen - length)))
                if found is not None:
                    return found
        return None
