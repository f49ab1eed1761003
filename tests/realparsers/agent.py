"""A secret agent of NetworkManager's for tests: what a desktop's own is, without the desktop.

Input: a bus, and the number of the user whose agent it is. Output: which keys it was given to keep, by profile, and
every call in order. It answers with what it keeps; where it keeps nothing and may ask the user, with what the test says
the user types. As a program (`agent.py FOLDER`) it is the agent of whoever starts it, on the system's bus: FOLDER/calls
is what it was asked, and its keyring; FOLDER/typed has what the user types. Interface:
org.freedesktop.NetworkManager.SecretAgent, the same from 1.36 to 1.58.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

_NAME = "org.freedesktop.NetworkManager"
#: NMSecretAgentGetSecretsFlags: the agent may ask the user.
ALLOW_INTERACTION = 0x1
_DEADLINE_S = 20.0


class SecretAgent:
    """An agent in a process of its own, which is the user's; a context manager that ends it.

    `typed` is the private key that the user types when asked, None for one who cancels. `keeps` is what it kept when it
    ran before, by UUID of the profile: a keyring outlives a session.
    """

    def __init__(
        self, address: str, user: int, *, typed: str | None = None, keeps: dict[str, str] | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wgnet-agent-", dir="/tmp"))
        os.chown(self._folder, user, user)
        self._calls = self._folder / "calls"
        for uuid, key in (keeps or {}).items():
            _note(self._folder / "before", {"do": "save", "uuid": uuid, "key": key})
        self._process = os.fork()
        if self._process == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                asyncio.run(_serve(address, self._folder, typed))
                status = 0
            finally:
                os._exit(status)
        until = time.monotonic() + _DEADLINE_S
        while not self.calls:
            ended, _ = os.waitpid(self._process, os.WNOHANG)
            assert not ended, "NetworkManager did not take the agent"
            assert time.monotonic() < until, "the agent did not register"
            time.sleep(0.02)

    def __enter__(self) -> SecretAgent:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        shutil.rmtree(self._folder)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What it was asked, in order: `do`, `uuid`, `key`, `asking`; the first is that it was registered."""
        return _read(self._calls)

    @property
    def kept(self) -> dict[str, str]:
        """The private keys that it keeps, by UUID of the profile."""
        return _kept(self._folder)


def _read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _kept(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for call in (*_read(folder / "before"), *_read(folder / "calls")):
        if call["do"] == "save":
            found.pop(call["uuid"], None)
            if call["key"]:
                found[call["uuid"]] = call["key"]
        elif call["do"] == "delete":
            found.pop(call["uuid"], None)
    return found


async def _serve(address: str, folder: Path, typed: str | None) -> None:
    """Be the agent, until killed."""
    bus = await MessageBus(bus_address=address).connect()
    bus.add_message_handler(lambda message: _answer(message, folder, typed))
    reply = await bus.call(
        Message(
            destination=_NAME,
            path=f"/{_NAME.replace('.', '/')}/AgentManager",
            interface=f"{_NAME}.AgentManager",
            member="RegisterWithCapabilities",
            signature="su",
            body=["org.example.wgnet.agent", 0],
        )
    )
    assert reply is not None
    assert reply.message_type is MessageType.METHOD_RETURN, f"{reply.error_name}: {reply.body}"
    _note(folder / "calls", {"do": "register", "uuid": "", "key": ""})
    await asyncio.get_running_loop().create_future()


def _answer(message: Message, folder: Path, typed: str | None) -> Message | None:
    """Do what NetworkManager asks; None for what is another's."""
    if message.message_type is not MessageType.METHOD_CALL or message.interface != f"{_NAME}.SecretAgent":
        return None
    if message.member == "CancelGetSecrets":
        return Message.new_method_return(message)
    connection = message.body[0]
    uuid = connection["connection"]["uuid"].value
    flags = message.body[4] if message.member == "GetSecrets" else 0
    sent = connection.get("wireguard", {}).get("private-key")
    kept = _kept(folder).get(uuid)
    _note(
        folder / "calls",
        {
            "do": message.member.removesuffix("Secrets").lower(),
            "uuid": uuid,
            "key": "" if sent is None else sent.value,
            "asking": bool(flags & ALLOW_INTERACTION),
        },
    )
    if message.member != "GetSecrets":
        return Message.new_method_return(message)
    if kept is None and flags & ALLOW_INTERACTION:
        if typed is None:
            return Message.new_error(message, f"{_NAME}.SecretAgent.UserCanceled", "the user does not want to")
        kept = typed
    if kept is None:
        return Message.new_error(message, f"{_NAME}.SecretAgent.NoSecrets", "there is no key for it")
    return Message.new_method_return(message, "a{sa{sv}}", [{"wireguard": {"private-key": Variant("s", kept)}}])


def _note(log: Path, call: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(f"{json.dumps(call)}\n")


if __name__ == "__main__":
    keyring = Path(sys.argv[1])
    answer = keyring / "typed"
    asyncio.run(
        _serve("unix:path=/run/dbus/system_bus_socket", keyring, answer.read_text() if answer.exists() else None)
    )
