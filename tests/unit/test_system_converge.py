"""The order in which a machine goes to its target. The steps are stood in for; the lab runs them (test_apply.py)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.device import DeviceSettings, LiveDevice
from wgnet.live.drift import Drift
from wgnet.live.state import PolicyRule, Route
from wgnet.managers.artifact import Artifact
from wgnet.syntax.spec import Manager
from wgnet.system import apply as apply_module
from wgnet.system import converge as converge_module
from wgnet.system.converge import Converger
from wgnet.system.networkd import Networkd
from wgnet.system.outcome import WriteReport
from wgnet.system.profiles import Profiles
from wgnet.system.snapshot import Owned, Snapshot
from wgnet.system.target import InterfaceTarget, Target

UUID = "5f3b8a52-35c1-4d51-8d0e-77a4f9d5ad01"
NETDEV = "/etc/systemd/network/50-wgnet-wg0.netdev"
MINE = {
    Manager.NETWORKMANAGER: Owned(interface="wg0", network="corp", manager=Manager.NETWORKMANAGER, uuid=UUID),
    Manager.NETWORKD: Owned(interface="wg0", network="corp", manager=Manager.NETWORKD),
}
DUMP = f"wg0\t{'k' * 42}A=\t{'l' * 42}A=\t51820\toff\n"


class World:
    """A machine with one interface, wg0, which is there for as long as NetworkManager's profile of it is."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.links = {"wg0"}

    def read_devices(self) -> dict[str, LiveDevice]:
        return {name: LiveDevice.empty(name) for name in self.links}

    def remove_profile(self, _nm: object, uuid: str) -> None:
        self.called.append(f"remove {uuid}")
        self.links.discard("wg0")

    def reload(self) -> None:
        self.called.append("reload")
        self.links.add("wg0")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    for module in (converge_module, apply_module):
        monkeypatch.setattr(module, "read_devices", found.read_devices)
        monkeypatch.setattr(module, "link_exists", lambda name: name in found.links)
    monkeypatch.setattr(converge_module, "remove_profile", found.remove_profile)
    monkeypatch.setattr(converge_module, "NetworkManagerDaemon", lambda _: None)
    monkeypatch.setattr(converge_module, "set_device", lambda *_: found.called.append("set"))
    monkeypatch.setattr(converge_module, "write_system", lambda *_, **__: WriteReport(written=(NETDEV,)))
    monkeypatch.setattr(converge_module, "mtu_of", lambda _: None)
    monkeypatch.setattr(converge_module, "set_metrics", lambda *_: None)
    monkeypatch.setattr(converge_module, "wrong_metrics", lambda *_: {})
    monkeypatch.setattr(Networkd, "reload", found.reload)
    return found


def test_networkd_makes_anew_what_was_networkmanagers(world: World, tmp_path: Path) -> None:
    """Let live, the device would go with the profile, and networkd would not make it again."""
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    mine = InterfaceTarget(
        network="corp", name="wg0", manager=Manager.NETWORKD, device=device, mtu=1420, active=True, settings=None
    )
    Converger(
        bus=None,  # type: ignore[arg-type]
        target=Target(artifacts=(Artifact(path=NETDEV, network="corp", content=b""),), interfaces=(mine,)),
        owned=(MINE[Manager.NETWORKMANAGER],),
        artifacts=(),
        configured={},
        diagnostics=Diagnostics(),
        root=tmp_path,
    ).run()
    assert world.called == [f"remove {UUID}", "reload"]
    assert not Networkd(None, tmp_path).has_let_go("wg0")  # type: ignore[arg-type]


def test_an_interface_that_is_renamed_goes_before_it_comes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have one listen port: while the old one is there, the new one does not come up."""
    device = DeviceSettings(name="wg7", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    mine = InterfaceTarget(network="corp", name="wg7", manager=Manager.NETWORKD, device=device, mtu=1420, active=True)

    def delete(name: str) -> None:
        world.called.append(f"delete {name}")
        world.links.discard(name)

    def reload(_: object) -> None:
        world.called.append("reload")
        world.links.add("wg7")

    monkeypatch.setattr(converge_module, "delete_link", delete)
    monkeypatch.setattr(Networkd, "reload", reload)
    Converger(
        bus=None,  # type: ignore[arg-type]
        target=Target(artifacts=(), interfaces=(mine,)),
        owned=(MINE[Manager.NETWORKD],),
        artifacts=(),
        configured={},
        diagnostics=Diagnostics(),
        root=tmp_path,
    ).run()
    assert world.called == ["delete wg0", "reload"]


@pytest.mark.parametrize(
    ("network", "manager", "port", "gone"),
    [
        ("corp", Manager.NETWORKD, 5, True),
        ("corp", Manager.NETWORKD, 6, True),
        ("corp", Manager.NETWORKMANAGER, 5, False),
        ("firm", Manager.NETWORKMANAGER, 5, True),
        ("firm", Manager.NETWORKD, 5, True),
        ("firm", Manager.NETWORKD, 6, False),
    ],
)
def test_a_profile_in_the_way_of_another_interface_goes_first(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    manager: Manager,
    port: int,
    gone: bool,
) -> None:
    """One that changes its manager and its name at once, or its network's name: the listen port is the same."""
    device = DeviceSettings(name="wg7", private_key=None, public_keys=(), listen_port=port, firewall_mark=0)
    mine = InterfaceTarget(network=network, name="wg7", manager=manager, device=device, mtu=1420, active=True)
    monkeypatch.setattr(
        converge_module, "read_devices", lambda: {"wg0": replace(LiveDevice.empty("wg0"), listen_port=5)}
    )
    monkeypatch.setattr(Networkd, "reload", lambda _: world.links.add("wg7"))
    monkeypatch.setattr(Networkd, "is_running", lambda _: True)
    monkeypatch.setattr(converge_module, "free_ports", lambda *_: world.called.append("come"))
    target = Target(artifacts=(), interfaces=(mine,))
    _converger(tmp_path, target, owned=(MINE[Manager.NETWORKMANAGER],)).run()
    assert world.called == ([f"remove {UUID}", "come"] if gone else ["come"])


@pytest.mark.parametrize("runs", [True, False])
def test_a_profile_of_a_networkmanager_that_is_no_more_is_nobodys_to_ask_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    class Daemon:
        def __init__(self, _: object) -> None: ...

        def is_running(self) -> bool:
            return runs

    world.links.clear()
    monkeypatch.setattr(converge_module, "NetworkManagerDaemon", Daemon)
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    mine = InterfaceTarget(network="corp", name="wg0", manager=Manager.NETWORKD, device=device, mtu=1420, active=True)
    target = Target(artifacts=(), interfaces=(mine,))
    _converger(tmp_path, target, owned=(MINE[Manager.NETWORKMANAGER],)).run()
    assert world.called == ([f"remove {UUID}", "reload"] if runs else ["reload"])


def test_so_does_the_way_back(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot(
        artifacts=(Artifact(path=NETDEV, network="corp", content=b""),),
        dump=DUMP,
        mtus={"wg0": 1420},
        owned=(MINE[Manager.NETWORKD],),
        made=(MINE[Manager.NETWORKMANAGER],),
        configured={},
        replaced={},
        parameters={},
        profiles={UUID: None},
    )
    monkeypatch.setattr(Profiles, "restore", lambda *_: world.called.append("profiles"))
    monkeypatch.setattr(Converger, "drop_left", lambda _: world.called.append("drop left"))

    def settle(_: object, finish: Callable[[], None], when_nobody_is_at_work: Callable[[list[str]], None]) -> list[str]:
        when_nobody_is_at_work([])
        return []

    monkeypatch.setattr(apply_module, "_settle", settle)
    assert apply_module._restore(snapshot, None, Diagnostics(), tmp_path, repeats=False) == []  # type: ignore[arg-type]
    assert world.called == [f"remove {UUID}", "reload", "profiles", "drop left"]


CONF = "/etc/NetworkManager/conf.d/50-wgnet-wg0.conf"
UNMANAGED = "/etc/systemd/network/05-wgnet-wg0.network"


@pytest.mark.parametrize("way", ["written", "removed"])
@pytest.mark.parametrize("runs", [True, False])
def test_networkmanager_hears_of_an_interface_before_it_comes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool, way: str
) -> None:
    """Or it would take the interface first; and where it does not run it is not started."""

    class Daemon:
        def __init__(self, _: object) -> None: ...

        def is_running(self) -> bool:
            return runs

        def reload_configuration(self) -> None:
            world.called.append("tell NetworkManager")

    monkeypatch.setattr(converge_module, "NetworkManagerDaemon", Daemon)
    monkeypatch.setattr(converge_module, "write_system", lambda *_, **__: WriteReport(**{way: (CONF, NETDEV)}))
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    mine = InterfaceTarget(network="corp", name="wg0", manager=Manager.NETWORKD, device=device, mtu=1420, active=True)
    world.links.clear()
    _converger(tmp_path, Target(artifacts=(), interfaces=(mine,))).run()
    assert world.called == [*(["tell NetworkManager"] if runs else []), "reload"]


@pytest.mark.parametrize("runs", [True, False])
def test_networkd_hears_of_networkmanagers_interface_if_it_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    monkeypatch.setattr(Networkd, "is_running", lambda _: runs)
    monkeypatch.setattr(converge_module, "write_system", lambda *_, **__: WriteReport(written=(UNMANAGED,)))
    _converger(tmp_path, Target(artifacts=(), interfaces=())).run()
    assert world.called == (["reload"] if runs else [])


@pytest.mark.parametrize(("there", "repeats", "reloads"), [(True, False, 0), (False, False, 1), (True, True, 1)])
def test_networkd_reads_files_that_are_right_where_nobody_may_have_read_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, repeats: bool, reloads: int
) -> None:
    """An interface that is missing comes by no other way; nor does what a run that ended in the middle had written."""
    monkeypatch.setattr(converge_module, "write_system", lambda *_, **__: WriteReport(unchanged=(NETDEV,)))
    monkeypatch.setattr(converge_module, "device_change", lambda *_: None)
    called: list[list[str]] = []
    monkeypatch.setattr(converge_module, "run_program", lambda _, words, **__: called.append(words))
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    mine = InterfaceTarget(network="corp", name="wg0", manager=Manager.NETWORKD, device=device, mtu=1420, active=True)
    unit = Artifact(path="/etc/systemd/system/wgnet-masquerade-wg0.service", network="corp", content=b"x")
    if not there:
        world.links.clear()
    converger = _converger(tmp_path, Target(artifacts=(unit,), interfaces=(mine,)), artifacts=(unit,), repeats=repeats)
    converger.run()
    assert world.called == ["reload"] * reloads
    again = [["daemon-reload"], ["restart", "wgnet-masquerade-wg0.service"]]
    assert called == (again if repeats else [["start", "wgnet-masquerade-wg0.service"]])


def test_routes_that_networkd_leaves_are_taken_away_and_no_others(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the file asked for until now, and asks for no longer: the rest is somebody else's."""

    def network(*routes: str) -> bytes:
        return "".join(f"[Route]\nDestination={route}\nMetric=2000\n\n" for route in routes).encode()

    def of(destination: str, metric: int = 2000) -> Route:
        return Route(ipaddress.ip_network(destination), 254, metric, "wg0")

    kernel = {of("10.1.0.0/24"), of("10.2.0.0/24"), of("fd01::/64"), of("10.9.0.0/24"), of("10.3.0.0/24", 50)}
    kernel.add(replace(of("10.4.0.0/24"), protocol=3))  # a person's
    monkeypatch.setattr(converge_module, "read_routes", lambda _: frozenset(kernel))
    monkeypatch.setattr(converge_module, "delete_route", kernel.remove)
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    mine = InterfaceTarget(network="corp", name="wg0", manager=Manager.NETWORKD, device=device, mtu=1420, active=True)
    path = NETDEV.replace(".netdev", ".network")
    before = Artifact(
        path=path, network="corp", content=network("10.1.0.0/24", "fd01::/64", "10.3.0.0/24", "10.4.0.0/24")
    )
    after = Artifact(path=path, network="corp", content=network("10.2.0.0/24"))
    converger = _converger(tmp_path, Target(artifacts=(after,), interfaces=(mine,)), artifacts=(before,))
    assert converger.unfinished() == [
        "wg0: expected no route 10.1.0.0/24 dev wg0 metric 2000",
        "wg0: expected no route fd01::/64 dev wg0 metric 2000",
    ]
    converger.drop_left()
    assert kernel == {of("10.2.0.0/24"), of("10.9.0.0/24"), of("10.3.0.0/24", 50), of("10.4.0.0/24")}
    assert converger.unfinished() == []


def test_rules_that_networkd_leaves_are_taken_away_and_no_others(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of links that stay and of links that go; one that another network asks for, too, or a person made, stays."""

    def rule(priority: int) -> PolicyRule:
        return PolicyRule(4, priority, table=254, incoming_interface="wg0")

    def network(name: str, *priorities: int, corp: str = "corp") -> Artifact:
        section = "[RoutingPolicyRule]\nFamily=ipv4\nIncomingInterface=wg0\nTable=254\nPriority={}\n\n"
        text = "".join(section.format(each) for each in priorities)
        path = NETDEV.replace(".netdev", ".network").replace("wg0", name)
        return Artifact(path=path, network=corp, content=f"{text}[RoutingPolicyRule]\nFrom=of a person\n".encode())

    kernel = {*map(rule, (32001, 32002, 32003, 32004, 32006)), replace(rule(32005), protocol=3)}
    monkeypatch.setattr(converge_module, "read_rules", lambda: frozenset(kernel))
    monkeypatch.setattr(converge_module, "delete_rule", kernel.remove)
    before = (network("wg0", 32001, 32002, 32005), network("wg7", 32003), network("wg8", 32004, corp="other"))
    after = network("wg0", 32002)
    target = Target(artifacts=(after,), interfaces=(), networks=frozenset(("corp",)))
    converger = _converger(tmp_path, target, artifacts=before)
    assert converger.unfinished() == [
        "expected no rule IPv4 32001: from all iif wg0 lookup main",
        "expected no rule IPv4 32003: from all iif wg0 lookup main",
    ]
    converger.drop_left()
    assert kernel == {*map(rule, (32002, 32004, 32006)), replace(rule(32005), protocol=3)}
    assert converger.unfinished() == []


def test_rules_that_networkmanager_makes_as_networkd_had_them_stay(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells neither from the other: networkd's go before NetworkManager is asked, or it finds them there."""
    rule = PolicyRule(4, 32601, action="prohibit", incoming_interface="wg0")
    text = "[RoutingPolicyRule]\nFamily=ipv4\nIncomingInterface=wg0\nType=prohibit\nPriority=32601\n"
    network = Artifact(path=NETDEV.replace(".netdev", ".network"), network="corp", content=text.encode())
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    theirs = InterfaceTarget(
        network="corp", name="wg0", manager=Manager.NETWORKMANAGER, device=device, mtu=1420, active=True
    )
    kernel = {rule}
    monkeypatch.setattr(Networkd, "is_running", lambda _: True)
    monkeypatch.setattr(converge_module, "delete_link", world.links.discard)
    monkeypatch.setattr(converge_module, "read_rules", lambda: frozenset(kernel))
    monkeypatch.setattr(converge_module, "delete_rule", kernel.remove)
    target = Target(artifacts=(), interfaces=(theirs,), networks=frozenset(("corp",)))
    rules = {"corp": frozenset({rule})}
    converger = _converger(tmp_path, target, artifacts=(network,), owned=(MINE[Manager.NETWORKD],), profile_rules=rules)
    converger.run()
    assert kernel == set()
    kernel.add(rule)
    assert converger.unfinished() == []
    converger.drop_left()
    assert kernel == {rule}


def test_rules_of_a_profile_that_stays_are_not_taken_for_networkds(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks with exit nodes, one of each manager: networkd's goes, and both had one rule."""
    rule = PolicyRule(4, 32764, table=254, suppress_prefix_length=0)
    text = "[RoutingPolicyRule]\nFamily=ipv4\nSuppressPrefixLength=0\nTable=254\nPriority=32764\n"
    network = Artifact(path=NETDEV.replace(".netdev", ".network"), network="corp", content=text.encode())
    kernel = {rule}
    monkeypatch.setattr(Networkd, "is_running", lambda _: True)
    monkeypatch.setattr(converge_module, "delete_link", world.links.discard)
    monkeypatch.setattr(converge_module, "read_rules", lambda: frozenset(kernel))
    monkeypatch.setattr(converge_module, "delete_rule", kernel.discard)
    target = Target(artifacts=(), interfaces=())
    rules = {"firm": frozenset({rule})}
    converger = _converger(tmp_path, target, artifacts=(network,), owned=(MINE[Manager.NETWORKD],), profile_rules=rules)
    converger.run()
    converger.drop_left()
    assert (kernel, converger.unfinished()) == ({rule}, [])


def test_what_is_too_much_is_taken_away(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no file tells of, since an earlier run was ended: the rule that says more first, as the kernel guesses."""
    route = Route(ipaddress.ip_network("10.1.0.0/24"), 254, 2000, "wg0")
    less, more = (
        PolicyRule(4, 32001, table=254, destination=one) for one in (None, ipaddress.ip_network("10.0.0.0/8"))
    )
    for name in ("delete_route", "delete_rule"):
        monkeypatch.setattr(converge_module, name, world.called.append)
    monkeypatch.setattr(Networkd, "reconfigure", lambda _, name: world.called.append(f"set {name} again"))
    found = [
        Drift(interface="wg0", aspect=aspect, subject="", expected=None, found="it", extra=extra)
        for aspect, extra in (("rule", less), ("rule", more), ("route", route), ("address", None))
    ]
    _converger(tmp_path, Target(artifacts=(), interfaces=())).set_again(found)
    assert [each for each in world.called if each in (less, more)] == [more, less]
    assert route in world.called


def test_links_that_lost_what_networkd_gave_them_are_set_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only networkd's, and only those that are there."""
    monkeypatch.setattr(Networkd, "reconfigure", lambda _, name: world.called.append(f"set {name} again"))
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    made = [
        InterfaceTarget(network="corp", name=name, manager=manager, device=device, mtu=1420, active=True)
        for name, manager in (("wg0", Manager.NETWORKD), ("wg1", Manager.NETWORKMANAGER), ("wg2", Manager.NETWORKD))
    ]
    world.links = {"wg0", "wg1"}
    converger = _converger(tmp_path, Target(artifacts=(), interfaces=tuple(made)))

    def lost(*names: str, aspect: str = "address") -> list[Drift]:
        return [Drift(interface=name, aspect=aspect, subject="", expected="it", found=None) for name in names]

    converger.set_again([*lost("wg1", "wg2"), *lost("wg0", aspect="peer")])
    assert world.called == []
    converger.set_again(lost("wg0", "wg1", "wg2"))
    assert world.called == ["set wg0 again"]


def test_a_link_that_is_down_is_brought_up_and_dns_is_networkds_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: object, **_: object) -> None:
        world.called.append(f"{words}")

    monkeypatch.setattr(Networkd, "reconfigure", lambda _, name: world.called.append(f"set {name} again"))
    monkeypatch.setattr(converge_module, "set_up", lambda name: world.called.append(f"{name} up"))
    monkeypatch.setattr(converge_module, "run_program", run)
    device = DeviceSettings(name="wg0", private_key=None, public_keys=(), listen_port=5, firewall_mark=0)
    made = [
        InterfaceTarget(network="corp", name=name, manager=manager, device=device, mtu=1420, active=True)
        for name, manager in (("wg0", Manager.NETWORKD), ("wg1", Manager.NETWORKMANAGER))
    ]
    world.links = {"wg0", "wg1"}
    converger = _converger(tmp_path, Target(artifacts=(), interfaces=tuple(made)))
    down = [Drift(interface=name, aspect="link", subject="", expected="up", found="down") for name in ("wg0", "wg1")]
    converger.set_again(down)
    assert world.called == ["wg0 up", "set wg0 again", "wg1 up"]
    world.called.clear()
    dns = [Drift(interface=name, aspect="dns", subject="", expected="a", found="b") for name in ("wg0", "wg1")]
    converger.set_again(dns)
    assert world.called == ["('resolvectl', ['revert', 'wg0'])"]


def _converger(
    root: Path,
    target: Target,
    *,
    artifacts: tuple[Artifact, ...] = (),
    owned: tuple[Owned, ...] = (),
    repeats: bool = False,
    profile_rules: Mapping[str, frozenset[PolicyRule]] = MappingProxyType({}),
) -> Converger:
    return Converger(
        bus=None,  # type: ignore[arg-type]
        target=target,
        owned=owned,
        artifacts=artifacts,
        configured={},
        diagnostics=Diagnostics(),
        root=root,
        repeats=repeats,
        profile_rules=profile_rules,
    )
