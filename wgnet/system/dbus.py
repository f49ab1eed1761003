"""The system's D-Bus: calls that are sent, waited for, and answered in plain data.

Stage: system. Input: destination, path, interface, member, a signature and plain values; output: the values of the
reply. The only module that knows the D-Bus library, of which it uses the messages alone: its connections stay open
after they are closed (0.2.3), log what they cannot handle, and bring an event loop that a program that does one thing
after another has no use for. The socket is this module's own.

Plain data: a variant is a pair of its signature and its value, as in `wgnet.managers.nm_settings`, a struct a tuple,
an array of bytes `bytes`, other arrays lists, of dict entries dicts. A reply has the very form of what can be sent.

Bodies hold private keys. So no error of the library leaves this module, neither as a cause nor as a context, and what
another service says of a call is cleared of everything that has the form of a key.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import re
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from wgnet.keys.types import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ["Bus", "DBusCallError", "DBusError", "NoBusError", "Signal", "from_json", "to_json"]

#: The standard's place, and the older name that a link stands for; D-Bus specification, "System message bus".
_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket"
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_PROPERTIES = "org.freedesktop.DBus.Properties"
#: What dbus-send(1) and sd-bus wait for a reply, in seconds.
_TIMEOUT_S = 25.0
_CONNECT_TIMEOUT_S = 10.0
#: D-Bus specification, "Message Format": the fixed part of a header, and the most that a message may have.
_HEADER_BYTES = 16
_MOST_BYTES = 1 << 27
#: A line of the authentication is short; whoever sends more is no message bus.
_MOST_AUTH_BYTES = 16384
#: A WireGuard key in base64.
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
#: Signals that nobody asked for yet; the oldest go first.
_MOST_SIGNALS = 1000
#: A text that goes on for longer says nothing more to a person.
_MOST_TEXT = 1000

_TIMED_OUT = "org.freedesktop.DBus.Error.Timeout"
#: The call may have been carried out, or not.
_UNANSWERED = frozenset(
    {
        _TIMED_OUT,
        "org.freedesktop.DBus.Error.NoReply",
        "org.freedesktop.DBus.Error.TimedOut",
        "org.freedesktop.DBus.Error.Disconnected",
    }
)


class DBusError(Exception):
    """A call over D-Bus failed. The text holds nothing that was sent."""


class NoBusError(DBusError):
    """There is no bus to talk to, or not any more. A call under way may have been carried out, or not."""


class DBusCallError(DBusError):
    """A service answered with an error, or not in time.

    `name` is the error's (`org.freedesktop.DBus.Error.NoReply`), `message` its text, which may be empty, and `member`
    the method that was called.
    """

    def __init__(self, name: str, message: str, member: str) -> None:
        self.name = name
        self.message = message
        self.member = member
        super().__init__(name, message, member)

    def __str__(self) -> str:
        return f"{self.member}: {self.name}: {self.message}"

    @property
    def unanswered(self) -> bool:
        """Whether the call may have been carried out all the same: nobody answered, or not in time."""
        return self.name in _UNANSWERED


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What a service told everybody, or whoever listens."""

    path: str
    interface: str
    member: str
    values: list[Any] = field(repr=False)


class Bus:
    """A connection to a message bus, for one thread. Closing it closes its socket, and a with statement does."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket: socket.socket | None = connection
        self._received = bytearray()
        self._serial = 0
        self._signals: deque[Signal] = deque(maxlen=_MOST_SIGNALS)

    @classmethod
    def system(cls) -> Self:
        """Connect to the system's bus, or to `$DBUS_SYSTEM_BUS_ADDRESS`. Raises `NoBusError`."""
        return cls.connect(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS)

    @classmethod
    def connect(cls, address: str) -> Self:
        """Connect to the first bus of an address, which is as in the D-Bus specification. Raises `NoBusError`.

        Only `unix:path=` and `unix:abstract=` are known.
        """
        reason = "its address names no socket"
        for name in _sockets(address):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                connection.settimeout(_CONNECT_TIMEOUT_S)
                connection.connect(name)
                _authenticate(connection)
                bus = cls(connection)
                bus.call(*_BUS, "Hello", timeout=_CONNECT_TIMEOUT_S)
            except OSError as error:
                reason = error.strerror or "no answer in time"
            except DBusError as error:
                reason = str(error)
            else:
                return bus
            connection.close()
        raise NoBusError(f"no connection to D-Bus: {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the bus then forgets its name. A second time does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._received.clear()

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        timeout: float = _TIMEOUT_S,
        auto_start: bool = True,
        interactive: bool = False,
    ) -> list[Any]:
        """Call a method and return the values of its reply.

        `timeout` is in seconds, for all of it. Without `auto_start` the bus starts no service for it. `interactive`
        lets the service ask a person for an authorization, which takes as long as the person does.

        Raises `DBusCallError` for an error of the service and where the time is over, `NoBusError` where the connection
        is lost, and `ValueError`, which quotes nothing, for values that do not go with the signature.
        """
        flags = (0 if auto_start else 2) | (4 if interactive else 0)
        self._serial += 1
        data = _to_bytes(destination, path, interface, member, signature, body, flags, self._serial)
        reply = self._exchange(data, time.monotonic() + timeout)
        if reply is None:
            raise DBusCallError(_TIMED_OUT, f"no reply within {timeout:g} s", member)
        if reply.error is not None:
            text = reply.values[0] if reply.values and isinstance(reply.values[0], str) else ""
            raise DBusCallError(reply.error, _KEY.sub(HIDDEN, text)[:_MOST_TEXT], member)
        return reply.values

    def get(self, destination: str, path: str, interface: str, name: str, *, timeout: float = _TIMEOUT_S) -> Any:
        """Return the value of a property, without its signature. Raises as `call` does."""
        [(_, value)] = self.call(destination, path, _PROPERTIES, "Get", "ss", (interface, name), timeout=timeout)
        return value

    def get_all(self, destination: str, path: str, interface: str, *, timeout: float = _TIMEOUT_S) -> dict[str, Any]:
        """Return the values of all properties of an interface, without their signatures. Raises as `call` does."""
        [found] = self.call(destination, path, _PROPERTIES, "GetAll", "s", (interface,), timeout=timeout)
        return {name: value for name, (_, value) in found.items()}

    def name_has_owner(self, name: str) -> bool:
        """Tell whether a service runs; none is started. Raises as `call` does."""
        return bool(self.call(*_BUS, "NameHasOwner", "s", (name,))[0])

    def listen(self, sender: str, interface: str, member: str, path: str = "") -> None:
        """Keep, from now on, the signals that match, for `next_signal`. Raises as `call` does."""
        rule = f"type='signal',sender='{sender}',interface='{interface}',member='{member}'"
        if path:
            rule += f",path='{path}'"
        self.call(*_BUS, "AddMatch", "s", (rule,))

    def next_signal(self, timeout: float) -> Signal | None:
        """Return the next signal of those that are listened for, or None after `timeout` seconds.

        Raises `NoBusError` where the connection is lost.
        """
        until = time.monotonic() + timeout
        try:
            while not self._signals:
                self._take(until)
        except TimeoutError:
            return None
        return self._signals.popleft()

    def _exchange(self, data: bytes, until: float) -> _Reply | None:
        """Send a call and return its reply, or None where the time is over. Late replies are dropped."""
        try:
            self._send(data, until)
            while True:
                reply = self._take(until)
                if reply is not None and reply.serial == self._serial:
                    return reply
        except TimeoutError:
            return None

    def _take(self, until: float) -> _Reply | None:
        """Receive one message; return it where it is a reply, keep it where it is a signal."""
        message = _from_bytes(self._receive(until))
        if isinstance(message, Signal):
            self._signals.append(message)
            return None
        return message

    def _send(self, data: bytes, until: float) -> None:
        connection = self._connection(until)
        try:
            connection.sendall(data)
            return
        except TimeoutError:
            # What was sent in part can only be followed by its rest.
            self.close()
            raise
        except OSError:
            self.close()
        raise NoBusError("the connection to D-Bus was lost")

    def _receive(self, until: float) -> bytes:
        """Return one message. After `TimeoutError` what came of it is kept, and the next call goes on."""
        self._fill(_HEADER_BYTES, until)
        size = _size(self._received)
        if size > _MOST_BYTES:
            self.close()
            raise NoBusError("the bus sent what is no message")
        self._fill(size, until)
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _fill(self, size: int, until: float) -> None:
        while len(self._received) < size:
            connection = self._connection(until)
            try:
                data = connection.recv(max(65536, size - len(self._received)))
            except TimeoutError:
                raise
            except OSError:
                # Reset by a bus that ended.
                data = b""
            if not data:
                self.close()
                raise NoBusError("the connection to D-Bus was lost")
            self._received += data

    def _connection(self, until: float) -> socket.socket:
        if self._socket is None:
            raise NoBusError("the connection to D-Bus is closed")
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._socket


# --- the connection --------------------------------------------------------------------------------------------------


def _sockets(address: str) -> Iterator[str]:
    """Yield the names of the sockets of an address; D-Bus specification, "Server Addresses"."""
    for each in address.split(";"):
        transport, _, text = each.strip().partition(":")
        options = dict(part.partition("=")[::2] for part in text.split(","))
        if transport == "unix" and options.get("path"):
            yield unquote(options["path"])
        elif transport == "unix" and options.get("abstract"):
            yield "\0" + unquote(options["abstract"])


def _authenticate(connection: socket.socket) -> None:
    """Say who this is, as the kernel vouches; D-Bus specification, "Authentication Protocol"."""
    user = str(os.geteuid()).encode().hex()
    connection.sendall(f"\0AUTH EXTERNAL {user}\r\n".encode())
    line = b""
    while not line.endswith(b"\r\n"):
        data = connection.recv(4096)
        if not data or len(line) > _MOST_AUTH_BYTES:
            raise NoBusError("the bus ended the conversation")
        line += data
    if not line.startswith(b"OK "):
        raise NoBusError("the bus refused this user")
    connection.sendall(b"BEGIN\r\n")


def _size(header: bytes | bytearray) -> int:
    """Return the size of a message by the fixed part of its header; an absurd one for what is none."""
    order = {ord("l"): "<", ord("B"): ">"}.get(header[0])
    if order is None:
        return _MOST_BYTES + 1
    body, _, fields = struct.unpack_from(f"{order}III", header, 4)
    return int(_HEADER_BYTES + fields + -fields % 8 + body)


# --- messages --------------------------------------------------------------------------------------------------------


class _Reply:
    """What came back for a call; `error` is the error's name, or None."""

    __slots__ = ("error", "serial", "values")

    def __init__(self, serial: int, error: str | None, values: list[Any]) -> None:
        self.serial = serial
        self.error = error
        self.values = values


def _to_bytes(
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str,
    body: Sequence[object],
    flags: int,
    serial: int,
) -> bytes:
    """Return the bytes of a call. Raises `ValueError`, which says only where it goes."""
    from dbus_next.constants import MessageFlag
    from dbus_next.message import Message

    data = None
    try:
        message: Any = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=[_wrap(kind, value) for kind, value in zip(_types(signature), body, strict=True)],
            flags=MessageFlag(flags),
            serial=serial,
        )
        data = bytes(message._marshall())
    except Exception:
        # Of whatever kind: its text may quote a value, and so may those that it was raised from. What is raised below
        # knows of none of them.
        data = None
    if data is None:
        raise ValueError(f"{member}: the values do not go with the signature '{signature}'")
    return data


def _from_bytes(data: bytes) -> _Reply | Signal | None:
    """Return a reply or a signal, or None for a call. Raises `NoBusError` for what is no message."""
    from dbus_next._private import unmarshaller
    from dbus_next.constants import MessageType

    library: Any = unmarshaller
    found: _Reply | Signal | None = None
    understood = False
    try:
        message = library.Unmarshaller(io.BytesIO(data)).unmarshall()
        types = message.signature_tree.types
        values = [_unwrap(kind, value) for kind, value in zip(types, message.body, strict=True)]
        if message.message_type is MessageType.SIGNAL:
            found = Signal(path=message.path, interface=message.interface, member=message.member, values=values)
        elif message.message_type is not MessageType.METHOD_CALL:
            error = message.error_name if message.message_type is MessageType.ERROR else None
            found = _Reply(message.reply_serial, error, values)
        understood = True
    except Exception:
        # Of whatever kind, as above.
        understood = False
    if not understood:
        raise NoBusError("the bus sent what is no message")
    return found


@functools.lru_cache(maxsize=256)
def _types(signature: str) -> tuple[Any, ...]:
    """Return the complete types of a signature. Raises `ValueError`."""
    from dbus_next import signature as library

    tree: Any = library.SignatureTree
    return tuple(tree(signature).types)


def _wrap(kind: Any, value: Any) -> Any:
    """Return a plain value in the library's form, by the type that it is sent as. Raises `ValueError` and others."""
    code = kind.token
    if code == "v":
        from dbus_next import signature as library

        signature, inner = value
        [inner_kind] = _types(signature)
        variant: Any = library.Variant
        return variant(inner_kind, _wrap(inner_kind, inner))
    if code == "(":
        return [_wrap(child, each) for child, each in zip(kind.children, value, strict=True)]
    if code == "a":
        return _wrap_array(kind.children[0], value)
    if code in "sog" and "\0" in value:
        # The library would send it, and the bus would hang up.
        raise ValueError
    if code in "ynqiuxth" and isinstance(value, bool):
        # The library takes True for 1.
        raise ValueError
    return value


def _wrap_array(item: Any, value: Any) -> Any:
    code = item.token
    if code == "{":
        key, inner = item.children
        return {_wrap(key, name): _wrap(inner, each) for name, each in value.items()}
    if code == "y":
        # The library verifies that these are bytes.
        return value
    if not isinstance(value, list | tuple):
        raise ValueError
    return [_wrap(item, each) for each in value]


def _unwrap(kind: Any, value: Any) -> Any:
    """Return a value of the library in plain form."""
    code = kind.token
    if code == "v":
        return value.signature, _unwrap(value.type, value.value)
    if code == "(":
        return tuple(_unwrap(child, each) for child, each in zip(kind.children, value, strict=True))
    if code != "a":
        return value
    [item] = kind.children
    code = item.token
    if code == "{":
        return {key: _unwrap(item.children[1], each) for key, each in value.items()}
    return value if code == "y" else [_unwrap(item, each) for each in value]


# --- plain data in JSON ----------------------------------------------------------------------------------------------


def to_json(signature: str, value: object) -> Any:
    """Return a plain value of one complete type in what JSON can hold. Raises `ValueError`, which quotes nothing."""
    return _converted(signature, value, _to_json)


def from_json(signature: str, data: object) -> Any:
    """Return the plain value that `to_json` made `data` of. Raises `ValueError`, which quotes nothing."""
    return _converted(signature, data, _from_json)


def _converted(signature: str, value: object, convert: Callable[[Any, Any], Any]) -> Any:
    with contextlib.suppress(Exception):
        [kind] = _types(signature)
        return convert(kind, value)
    raise ValueError(f"the value does not go with the signature '{signature}'")


def _to_json(kind: Any, value: Any) -> Any:
    code = kind.token
    if code == "v":
        signature, inner = value
        [inner_kind] = _types(signature)
        return [signature, _to_json(inner_kind, inner)]
    if code == "(":
        return [_to_json(child, each) for child, each in zip(kind.children, value, strict=True)]
    if code != "a":
        return value
    [item] = kind.children
    code = item.token
    if code == "{":
        return {key: _to_json(item.children[1], each) for key, each in value.items()}
    return base64.b64encode(value).decode() if code == "y" else [_to_json(item, each) for each in value]


def _from_json(kind: Any, data: Any) -> Any:
    code = kind.token
    if code == "v":
        signature, inner = data
        [inner_kind] = _types(signature)
        return signature, _from_json(inner_kind, inner)
    if code == "(":
        return tuple(_from_json(child, each) for child, each in zip(kind.children, data, strict=True))
    if code != "a":
        return data
    [item] = kind.children
    code = item.token
    if code == "{":
        return {key: _from_json(item.children[1], each) for key, each in data.items()}
    return base64.b64decode(data, validate=True) if code == "y" else [_from_json(item, each) for each in data]
