"""One question to a DNS server, and its answer: the addresses of a name (RFC 1035, 3596).

Stage: live. Input: a name, or the bytes of a message; output: the bytes of a question, or addresses. Opens no socket.
An answer may come from anybody: whatever its bytes are, the outcome is addresses or None.

That these are a hundred lines of wgnet's own, and no library, is on purpose. A question has to leave by a socket that
bears the tunnel's firewall mark, so that it does not enter the dead tunnel that it is asked for; no resolver of the
system does that. And a library that every distribution would have to bring into a service of root's, for one question
without DNSSEC, EDNS, transfers or TCP, is more to trust and not less.
"""

from __future__ import annotations

import ipaddress
import struct

__all__ = ["QUESTION_TYPES", "read_answer", "write_question"]

#: By IP version: A and AAAA.
QUESTION_TYPES = {4: 1, 6: 28}
_CNAME, _INTERNET = 5, 1
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _RECURSION_DESIRED, _CODE = 0x8000, 0x0100, 0x000F
_POINTER = 0xC0
#: Of a name, RFC 1035 3.1; and of a label.
_MOST_BYTES, _MOST_LABEL = 255, 63
#: A sane message has a few; each costs a walk over the rest.
_MOST_RECORDS = 256


def write_question(number: int, name: str, version: int) -> bytes | None:
    """Return the question for a name's addresses of an IP version, or None for a name that no question can have.

    `number` (16 bits) is found in the answer again.
    """
    try:
        labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    except UnicodeEncodeError:
        return None
    if not all(0 < len(label) <= _MOST_LABEL for label in labels) or sum(len(one) + 1 for one in labels) >= _MOST_BYTES:
        return None
    question = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    head = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
    return head + question + struct.pack("!HH", QUESTION_TYPES[version], _INTERNET)


def read_answer(message: bytes, question: bytes, version: int) -> list[str] | None:
    """Return the addresses in an answer to `question`, in its order; none where the name has none.

    None for what is no answer to it, or one that says that the server could not tell. An answer that was cut off gives
    the addresses that are in it.
    """
    try:
        return _read(message, question, version)
    except (struct.error, IndexError, ValueError):
        return None


def _read(message: bytes, question: bytes, version: int) -> list[str] | None:
    number, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if number != _HEADER.unpack_from(question)[0] or not flags & _RESPONSE or questions != 1:
        return None
    asked, place = _name(message, _HEADER.size)
    wanted, end = _name(question, _HEADER.size)
    if asked != wanted or message[place : place + 4] != question[end : end + 4]:
        return None
    code = flags & _CODE
    if code:
        return [] if code == 3 else None  # NXDOMAIN; else a server that failed or refused
    place += 4
    names = {wanted}
    found: list[str] = []
    for _ in range(min(answers, _MOST_RECORDS)):
        if place >= len(message):
            break  # cut off
        owner, place = _name(message, place)
        kind, network, _, length = _RECORD.unpack_from(message, place)
        place += _RECORD.size
        data = message[place : place + length]
        if network == _INTERNET and owner in names and len(data) == length:
            if kind == _CNAME:
                names.add(_name(message, place)[0])
            elif kind == QUESTION_TYPES[version]:
                address = ipaddress.ip_address(data)
                if address.version == version:
                    found.append(str(address))
        place += length
    return list(dict.fromkeys(found))


def _name(message: bytes, place: int) -> tuple[tuple[bytes, ...], int]:
    """Return a name's labels in lower case, and the place behind it. Raises IndexError or ValueError."""
    labels: list[bytes] = []
    end = None
    size = 0
    while length := message[place]:
        if length & _POINTER == _POINTER:
            target = (length & ~_POINTER) << 8 | message[place + 1]
            end = place + 2 if end is None else end
            if target >= place:
                raise ValueError("a pointer that leads on")  # so that no walk is endless
            place = target
            continue
        if length > _MOST_LABEL:
            raise ValueError("not a label")
        label = message[place + 1 : place + 1 + length]
        size += length + 1
        if len(label) != length or size > _MOST_BYTES:
            raise ValueError("not a name")
        labels.append(label.lower())
        place += length + 1
    return tuple(labels), place + 1 if end is None else end
