"""The machine, step by step, from whatever it is to a target.

Stage: system. Input: a `Target`, and which interfaces were wgnet's before; output: the machine, changed. Each step
looks at what is there and does what is missing, so a run after one that was killed anywhere goes on to the end. What is
right already is not touched, above all the sessions of peers that stay. Must not verify, or put anything back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.live.changes import DeviceChange, device_change
from wgnet.live.configured import metrics_of_network, routes_of_network
from wgnet.live.device import LiveDevice
from wgnet.live.drift import Drift
from wgnet.live.state import STATIC, PolicyRule, Route
from wgnet.managers.artifact import Artifact
from wgnet.syntax.spec import Manager
from wgnet.system.dbus import Bus
from wgnet.system.install import write_system
from wgnet.system.links import (
    delete_link,
    delete_route,
    delete_rule,
    link_exists,
    mtu_of,
    set_metrics,
    set_mtu,
    set_up,
    wrong_metrics,
)
from wgnet.system.live import read_routes, read_rules
from wgnet.system.networkd import Networkd, netdev_path, policy_rules
from wgnet.system.nm import NetworkManagerDaemon
from wgnet.system.nm_apply import remove_profile
from wgnet.system.outcome import WriteReport
from wgnet.system.programs import ProgramError, run_program
from wgnet.system.resolve import resolve_endpoints
from wgnet.system.snapshot import Owned
from wgnet.system.target import InterfaceTarget, Target, parameters_of, units_of
from wgnet.system.wireguard import free_ports, read_devices, set_device

__all__ = ["Converger", "NotWrittenError"]

#: Seconds for a manager to make an interface.
_APPEARS_S = 20.0
_PAUSE_S = 0.05
#: What the .network of an interface is for: where somebody else took it away, networkd believes that it is there.
_OF_NETWORK = ("address", "route", "rule")


class NotWrittenError(Exception):
    """The files could not be written; why is among the diagnostics."""


@dataclass(slots=True, kw_only=True)
class Converger:
    """One run to a target.

    `owned` are the interfaces of the networks concerned that are wgnet's now; `artifacts` the files that stand.
    `configured` are the endpoints that devices were configured with so far, by interface and public key. With `force`
    files that were changed by hand are replaced. A run that `repeats` goes to where an earlier one did not arrive:
    files that are right by now may have been read by nobody.
    """

    bus: Bus
    target: Target
    owned: Sequence[Owned]
    artifacts: Sequence[Artifact]
    configured: Mapping[str, Mapping[str, str | None]]
    diagnostics: Diagnostics
    root: Path = Path("/")
    force: bool = False
    repeats: bool = False
    #: Values for kernel parameters that the target does not speak of, below /proc/sys.
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: Policy rules of NetworkManager's profiles as they are to be, by network. The kernel has no rule twice, and marks
    #: theirs as it marks networkd's.
    profile_rules: Mapping[str, frozenset[PolicyRule]] = field(default_factory=dict)
    _networkd: Networkd = field(init=False)
    _reload: bool = field(init=False)

    def __post_init__(self) -> None:
        self._networkd = Networkd(self.bus, self.root)
        self._reload = self.repeats

    def run(self) -> WriteReport:
        """Go to the target. Raises `DBusError`, `NmError`, `ProgramError`, `OSError` and `NotWrittenError`."""
        self._take_over()
        live = read_devices()
        gone = self._gone()
        self._let_go(live)
        self._stop_units()
        report = self._write_files()
        self._start_units()
        for name in gone:
            self._reload |= self._networkd.take_back(name)
        for each in self.target.of(Manager.NETWORKD):
            if each.name not in live:
                # Left from a device that somebody deleted: networkd would not make it again.
                self._networkd.take_back(each.name)
                # Nor does it by itself where its file has not changed.
                self._reload = True
        # What goes is gone before another comes: of an interface with another name the listen port is the same.
        for name in gone:
            delete_link(name)
        self._tell_networkmanager(report)
        free_ports({each.name: each.device.listen_port for each in self.target.interfaces}, live)
        self._set_devices(live)
        if self._reload or _touches_networkd(report):
            self._reload_networkd()
        if gone:
            self._drop_rules_of_gone()
        self._await_links()
        self.finish()
        return report

    def finish(self) -> None:
        """Set what no manager sets, or sets back. Raises `ProgramError`."""
        self._set_mtus()
        self._set_metrics()

    def set_again(self, drift: Sequence[Drift]) -> None:
        """Undo what somebody did: take away what is too much, bring links up, and have networkd set its own anew.

        Raises `DBusError`, and what `drop_left` does.
        """
        self.drop_left()
        _drop([each.extra for each in drift if each.extra is not None])
        self.set_links_up([each.interface for each in drift if each.aspect == "link" and each.found == "down"])
        names = {each.interface for each in drift if each.aspect in _OF_NETWORK}
        dns = {each.interface for each in drift if each.aspect == "dns"}
        for each in self.target.of(Manager.NETWORKD):
            if each.name in names and link_exists(each.name):
                self._networkd.reconfigure(each.name)
            if each.name in dns and link_exists(each.name):
                # What somebody told systemd-resolved goes before what networkd does.
                run_program("resolvectl", ["revert", each.name], missing="systemd-resolved")

    def set_links_up(self, names: Sequence[str]) -> None:
        """Bring links up that somebody took down: with them went routes. Raises `DBusError`, `ProgramError`."""
        ours = {each.name for each in self.target.of(Manager.NETWORKD)}
        for name in names:
            set_up(name)
            if name in ours:
                self._networkd.reconfigure(name)

    def _gone(self) -> list[str]:
        """Return networkd's interfaces that are wgnet's and not in the target."""
        stay = {each.name for each in self.target.of(Manager.NETWORKD)}
        found = [each.interface for each in self.owned if each.manager is Manager.NETWORKD]
        return [name for name in dict.fromkeys(found) if name not in stay]

    def _take_over(self) -> None:
        """Take interfaces away from NetworkManager that are networkd's from now on, or in the way of what is to come.

        First of all: who removes the profile later removes the device that networkd has taken for its own by then; and
        of one with another name the listen port is the same.
        """
        ours = self.target.of(Manager.NETWORKD)
        names, networks = {each.name for each in ours}, {each.network for each in ours}
        stay = {each.network for each in self.target.of(Manager.NETWORKMANAGER)}
        ports = {each.device.listen_port for each in self.target.interfaces} - {0}
        live = read_devices()
        daemon = NetworkManagerDaemon(self.bus)
        for owned in self.owned:
            device = live.get(owned.interface)
            gone = owned.network not in stay and (
                owned.network in networks or (device is not None and device.listen_port in ports)
            )
            if owned.uuid is None or not (owned.interface in names or gone):
                continue
            # Without either it is a file that is left of a NetworkManager that is no more: see `Profiles`.
            if link_exists(owned.interface) or daemon.is_running():
                remove_profile(daemon, owned.uuid)

    # --- what managers are told of files ------------------------------------------------------------------------------

    def _tell_networkmanager(self, report: WriteReport) -> None:
        """Have NetworkManager read which interfaces are not for it, before they come, or are not any more, once gone.

        One that is there it would take for its own at once, and begin with taking the addresses away.
        """
        if any("/NetworkManager/conf.d/" in path for path in (*report.written, *report.removed)):
            daemon = NetworkManagerDaemon(self.bus)
            if daemon.is_running():
                daemon.reload_configuration()

    def _reload_networkd(self) -> None:
        """Have networkd read its files: where no interface is for it, only if it runs."""
        if self.target.of(Manager.NETWORKD) or self._networkd.is_running():
            self._networkd.reload()

    # --- systemd-networkd's devices ----------------------------------------------------------------------------------

    def _let_go(self, live: Mapping[str, LiveDevice]) -> None:
        """Take the devices that live on, and whose .netdev changes, out of networkd's hands before the file changes."""
        standing = {artifact.path: artifact.content for artifact in self.artifacts}
        wanted = {artifact.path: artifact.content for artifact in self.target.artifacts}
        letting = False
        for each in self.target.of(Manager.NETWORKD):
            path = f"/{netdev_path(each.name)}"
            device = live.get(each.name)
            if device is None or self._networkd.has_let_go(each.name):
                continue
            if standing.get(path) != wanted.get(path) or self._change(device, each):
                self._networkd.let_go(each.name)
                letting = True
        if letting:
            self._networkd.reload()

    def _change(self, device: LiveDevice, each: InterfaceTarget) -> DeviceChange:
        return device_change(device, each.device, self.configured.get(each.name))

    def _set_devices(self, live: Mapping[str, LiveDevice]) -> None:
        for each in self.target.of(Manager.NETWORKD):
            device = live.get(each.name)
            if device is not None and (change := self._change(device, each)):
                set_device(change, resolve_endpoints(change, self.diagnostics))

    def _await_links(self) -> None:
        """Wait until networkd has made what is new. Raises `ProgramError`."""
        until = time.monotonic() + _APPEARS_S
        for each in self.target.of(Manager.NETWORKD):
            while not link_exists(each.name):
                if time.monotonic() >= until:
                    raise ProgramError(f"systemd-networkd did not make the interface '{each.name}'")
                time.sleep(_PAUSE_S)

    def _set_mtus(self) -> None:
        """Set what no manager sets: networkd leaves an MTU that its files speak of no longer as it is."""
        for each in self.target.of(Manager.NETWORKD):
            if mtu_of(each.name) not in (None, each.mtu):
                set_mtu(each.name, each.mtu)

    def _set_metrics(self) -> None:
        """Set the metrics of addresses that stay: networkd takes an address with another metric for the same."""
        for name, metrics in self._metrics():
            set_metrics(name, metrics)

    def unfinished(self) -> list[str]:
        """Return what networkd left or set back, a text each, as one that was restarted does.

        Raises `ProgramError`, `LiveError`.
        """
        metrics = [
            f"{name}: {address}: expected the metric {metric}"
            for name, metrics in self._metrics()
            for address, metric in wrong_metrics(name, metrics).items()
        ]
        routes = [f"{route.device}: expected no route {route}" for route in self._left_routes()]
        return metrics + routes + [f"expected no rule {rule}" for rule in self._left_rules()]

    def _metrics(self) -> Iterator[tuple[str, dict[str, int]]]:
        for name, _, text in self._networks():
            yield name, metrics_of_network(text)

    def drop_left(self) -> None:
        """Take away the routes and rules that links' files asked for until now and networkd leaves.

        Raises `ProgramError`, `LiveError`.

        From 257 on it takes its own for somebody else's when it sets a link anew, or is started again, and leaves these
        where it was told to (`ManageForeignRoutes=no`, `ManageForeignRoutingPolicyRules=no`, networkd.conf(5)).
        """
        _drop([*self._left_routes(), *self._left_rules()])

    def _left_routes(self) -> list[Route]:
        found: list[Route] = []
        for name, before, after in self._networks():
            if gone := routes_of_network(before, name) - routes_of_network(after, name):
                left = [route for route in read_routes(name) if route in gone and route.protocol == STATIC]
                found += sorted(left, key=str)
        return found

    def _left_rules(self) -> list[PolicyRule]:
        """Return rules that are the host's, of links that stay and of links that go."""
        return self._still_there(self._gone_rules().difference(*self.profile_rules.values()))

    def _gone_rules(self) -> frozenset[PolicyRule]:
        networks = self.target.networks
        stay = [each for each in self.artifacts if networks is not None and each.network not in networks]
        return policy_rules(self.artifacts) - policy_rules([*self.target.artifacts, *stay])

    @staticmethod
    def _still_there(gone: frozenset[PolicyRule]) -> list[PolicyRule]:
        if not gone:
            return []
        return sorted((rule for rule in read_rules() if rule in gone and rule.protocol == STATIC), key=str)

    def _drop_rules_of_gone(self) -> None:
        """Take away the rules of links that are gone, which networkd leaves until it sets another link.

        Also those that NetworkManager makes anew after this: of one that it found there networkd would take it for its
        own later, and take it away.
        """
        from_networkd = {each.network for each in self.owned if each.manager is Manager.NETWORKD}
        stay = [rules for network, rules in self.profile_rules.items() if network not in from_networkd]
        _drop(self._still_there(self._gone_rules().difference(*stay)))

    def _networks(self) -> Iterator[tuple[str, str, str]]:
        """Yield networkd's links that are there, with the text of the .network as it stood, and as it is to be."""
        standing, wanted = (
            {artifact.path: artifact.content.decode(errors="replace") for artifact in artifacts}
            for artifacts in (self.artifacts, self.target.artifacts)
        )
        for each in self.target.of(Manager.NETWORKD):
            path = f"/{netdev_path(each.name).removesuffix('.netdev')}.network"
            if link_exists(each.name):
                yield each.name, standing.get(path, ""), wanted.get(path, "")

    # --- files, units, kernel parameters -----------------------------------------------------------------------------

    def _write_files(self) -> WriteReport:
        report = write_system(
            self.root,
            self.target.artifacts,
            networks=self.target.networks,
            runtime=False,
            force=self.force,
            diagnostics=self.diagnostics,
            disowned=self.target.disowned,
        )
        if report is None:
            raise NotWrittenError
        return report

    def _stop_units(self) -> None:
        """Stop services that are to go while their files are there: stopping takes their tables away."""
        stays = units_of(self.target.artifacts)
        networks = self.target.networks
        mine = [each for each in self.artifacts if networks is None or each.network in networks]
        going = sorted(units_of(mine).keys() - stays.keys())
        if going:
            run_program("systemctl", ["stop", *going])

    def _start_units(self) -> None:
        """Start services that are new, and start those again whose files have changed; then set kernel parameters."""
        before, after = units_of(self.artifacts), units_of(self.target.artifacts)
        changed = [name for name in after if self.repeats or _contents(before.get(name, ())) != _contents(after[name])]
        if changed or before.keys() - after.keys():
            run_program("systemctl", ["daemon-reload"])
        # Those that keep router advertisements come before the parameters that would end them.
        for name in sorted(changed, key=lambda unit: not unit.startswith("wgnet-accept-ra")):
            run_program("systemctl", ["restart", name])
        idle = [name for name in after if name not in changed]
        if idle:
            # One that somebody stopped; a start of what runs does nothing.
            run_program("systemctl", ["start", *idle])
        for name, value in {**self.parameters, **parameters_of(self.target.artifacts)}.items():
            self._set_parameter(name, value)

    def _set_parameter(self, name: str, value: str) -> None:
        path = self.root / "proc/sys" / name
        try:
            if path.read_text(encoding="ascii").strip() == value:
                return
            # Of /proc: opened for writing and nothing else, never made.
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # a kernel without that IP version
        try:
            os.write(descriptor, f"{value}\n".encode())
        finally:
            os.close(descriptor)


def _contents(artifacts: Sequence[Artifact]) -> list[tuple[str, bytes]]:
    return [(artifact.path, artifact.content) for artifact in artifacts]


def _drop(left: Sequence[Route | PolicyRule]) -> None:
    # Rules that say more first: the kernel takes what is not said for anything.
    for each in sorted(left, key=lambda one: -len(str(one))):
        if isinstance(each, Route):
            delete_route(each)
        else:
            delete_rule(each)


def _touches_networkd(report: WriteReport) -> bool:
    return any("/systemd/network/" in path for path in (*report.written, *report.removed))
