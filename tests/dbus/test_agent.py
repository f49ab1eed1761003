"""Private keys that the user's secret agent keeps: how they get there, and that no later change loses them."""

from __future__ import annotations

import os
import time

from realparsers.agent import SecretAgent
from realparsers.bus import USER, USER_NUMBER, BusHost

from wgnet.cli.main import main
from wgnet.diagnostics import codes
from wgnet.keys.types import PrivateKey
from wgnet.live.profile import with_key_for_agent
from wgnet.managers.nm_settings import DbusSettings
from wgnet.system.keystore import KeyStore
from wgnet.system.nm import NetworkManagerDaemon

from .test_user_apply import Desk, _everything_at_hand, allowing, desk, office  # noqa: F401 - fixtures

UUID = "11111111-2222-3333-4444-555555555555"
PEER = "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs="
KEY = PrivateKey(bytes(range(32)))
OTHER = PrivateKey(bytes(range(1, 33)))


def profile(*, preshared: bool, mtu: int = 1420) -> DbusSettings:
    """Return a profile whose private key is an agent's."""
    peer: dict[str, tuple[str, object]] = {"public-key": ("s", PEER)}
    if preshared:
        peer |= {"preshared-key": ("s", OTHER.reveal()), "preshared-key-flags": ("u", 0)}
    return {
        "connection": {
            "id": ("s", "office"),
            "uuid": ("s", UUID),
            "type": ("s", "wireguard"),
            "interface-name": ("s", "office"),
            "autoconnect": ("b", False),
        },
        "wireguard": {"private-key-flags": ("u", 1), "mtu": ("u", mtu), "peers": ("aa{sv}", [peer])},
        "ipv4": {"method": ("s", "disabled")},
        "ipv6": {"method": ("s", "disabled")},
    }


def soon(agent: SecretAgent, kept: dict[str, str]) -> bool:
    """Whether an agent keeps these keys within a few seconds."""
    until = time.monotonic() + 5
    while agent.kept != kept and time.monotonic() < until:
        time.sleep(0.05)
    return agent.kept == kept


# --- NetworkManager, of each version ---------------------------------------------------------------------------------


def test_the_key_that_an_agent_keeps_is_told_each_time(daemon: BusHost, nm: NetworkManagerDaemon) -> None:
    path = nm.add(profile(preshared=False))
    assert nm.agents_key(path) is None
    nm.delete(path)
    for preshared in (False, True):
        with SecretAgent(daemon.address, 0) as agent:
            path = nm.add(with_key_for_agent(profile(preshared=preshared), KEY))
            assert soon(agent, {UUID: KEY.reveal()})
            # What NetworkManager remembers itself stands between.
            assert [nm.agents_key(path) for _ in range(4)] == [KEY] * 4
            assert "private-key" not in nm.settings_with_secrets(path)["wireguard"]
            nm.delete(path)
            assert soon(agent, {})


def test_a_change_that_leaves_the_key_out_makes_the_agent_forget_it(daemon: BusHost, nm: NetworkManagerDaemon) -> None:
    with SecretAgent(daemon.address, 0) as agent:
        path = nm.add(with_key_for_agent(profile(preshared=True), KEY))
        nm.update(path, with_key_for_agent(profile(preshared=True, mtu=1380), nm.agents_key(path)))
        assert soon(agent, {UUID: KEY.reveal()})
        nm.update(path, profile(preshared=True, mtu=1390))
        assert soon(agent, {})


def test_a_profile_that_has_its_key_itself_is_no_agents(daemon: BusHost, nm: NetworkManagerDaemon) -> None:
    with SecretAgent(daemon.address, 0) as agent:
        body = profile(preshared=False)
        body["wireguard"] |= {"private-key": ("s", KEY.reveal()), "private-key-flags": ("u", 0)}
        path = nm.add(body)
        assert nm.agents_key(path) is None
        assert with_key_for_agent(body, OTHER) is body
        assert all(call["do"] != "get" for call in agent.calls)


# --- a user's apply -----------------------------------------------------------------------------------------------


def topology(place: Desk) -> str:
    """Return a network with keys and preshared keys; the key store beside it is the user's."""
    place.file.write_text(
        office(f"private-key: {{agent: true}}, permissions: [{USER}], autoconnect: false", keys=False, psk=True)
    )
    store = place.folder / "keys"
    assert main(["keys", "generate", str(place.file), "--keys", str(store)]) == 0
    for path in (store, *store.rglob("*")):
        os.chown(path, USER_NUMBER, USER_NUMBER)
    return place.file.read_text()


def with_mtu(text: str, mtu: int) -> str:
    """Return the network with another MTU of the laptop's."""
    return text.replace("autoconnect: false", f"autoconnect: false, mtu: {mtu}")


def test_a_key_goes_from_the_store_to_the_agent_and_stays_there(
    desk: Desk,  # noqa: F811
) -> None:
    first = topology(desk)
    keys = ("--keys", str(desk.folder / "keys"))
    with SecretAgent(desk.host.address, USER_NUMBER) as agent:
        status, said = desk.on("apply", first, *keys)
        assert status == 0, said
        assert codes.NO_AGENT.name not in said
        [(uuid, key)] = agent.kept.items()
        assert key not in desk.keyfile
        assert key not in said
        assert desk.keyfile.count("private-key-flags=1") == 1
        assert desk.keyfile.count("preshared-key=") == 1
        status, said = desk.on("apply", first, *keys)
        assert (status, "nothing to do" in said) == (0, True), said

        # Changed without the store, by a profile that has preshared keys: they must not push the private one out.
        status, said = desk.on("apply", with_mtu(first, 1380))
        assert status == 0, said
        assert "mtu=1380" in desk.keyfile
        assert agent.kept == {uuid: key}
        before = agent.kept

    # Another session, another start of NetworkManager: the keyring is what is left.
    desk.host.kill("NetworkManager")
    desk.host.start("NetworkManager")
    with SecretAgent(desk.host.address, USER_NUMBER, keeps=before) as agent:
        status, said = desk.on("apply", with_mtu(first, 1370))
        assert status == 0, said
        assert "mtu=1370" in desk.keyfile
        assert f"uuid={uuid}" in desk.keyfile
        assert agent.kept == before

        # One that cannot be brought up here is put back, and so is its key.
        status, said = desk.on("apply", with_mtu(first, 1360).replace("autoconnect: false, ", ""))
        assert status == 4, said
        assert agent.kept == before
        assert "mtu=1370" in desk.keyfile

        status, said = desk.wgnet("remove", "office")
        assert status == 0, said
        assert soon(agent, {})


def test_another_key_in_the_agent_is_replaced_by_the_hosts(desk: Desk) -> None:  # noqa: F811
    text = topology(desk)
    keys = ("--keys", str(desk.folder / "keys"))
    assert desk.on("apply", text)[0] == 6
    assert desk.on("apply", text, *keys)[0] == 0
    uuid = next(line for line in desk.keyfile.splitlines() if line.startswith("uuid=")).removeprefix("uuid=")
    with SecretAgent(desk.host.address, USER_NUMBER, keeps={uuid: OTHER.reveal()}) as agent:
        status, said = desk.on("plan", text, *keys)
        assert "wireguard.private-key" in said
        status, said = desk.on("apply", text, *keys)
        assert status == 0, said
        assert list(agent.kept) == [uuid]
        assert agent.kept[uuid] not in (OTHER.reveal(), "")


def test_preshared_keys_are_there_though_the_agent_lacks_the_private_one(desk: Desk) -> None:  # noqa: F811
    """NetworkManager then tells no secret at all: what it does not tell is not missing."""
    text = topology(desk)
    store = KeyStore(desk.folder / "keys")
    store.host_path("office", "laptop").unlink()
    with SecretAgent(desk.host.address, USER_NUMBER) as agent:
        for mtu in (1380, 1370):
            status, said = desk.on("apply", with_mtu(text, mtu), "--keys", str(desk.folder / "keys"))
            assert status == 0, said
            assert desk.keyfile.count("preshared-key=") == 1
            assert f"mtu={mtu}\n" in desk.keyfile
        assert agent.kept == {}


def test_a_key_that_nobody_keeps_is_said(desk: Desk) -> None:  # noqa: F811
    status, said = desk.on("apply", topology(desk), "--keys", str(desk.folder / "keys"))
    assert (status, codes.NO_AGENT.name in said) == (0, True), said
    assert "private-key=" not in desk.keyfile.replace("wireguard-peer", "")
