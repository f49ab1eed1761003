"""What the lab brings up: every example, in three modes, on every suite.

Input: the examples, and the files that wgnet makes of them. Output: scenarios, and for each the plans, files and
managers of all its hosts. Pure but for the key store that rendering wants; it starts nothing.

In mode `networkd` and `networkmanager` every host has that manager; in mode `mixed` the managers alternate, wg-quick
among them, and wgnet is told the suite's versions. There a host that its manager cannot express gets another; what an
example says that a lab's host cannot have is taken out, and stands in `Prepared.adapted`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from example_keys import given_preshared_key, private_key
from example_trees import examples, read_fleet, store_of

from lab.image import SUITES
from wgnet.cli.planjson import plan_to_json
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.plan.derive import Fleet
from wgnet.plan.types import HostPlan
from wgnet.syntax.spec import Manager, SecretSource
from wgnet.system.keystore import KeyStore
from wgnet.system.secrets import SecretFinder

MODES = ("networkd", "networkmanager", "mixed")
#: What each suite has: systemd's version and NetworkManager's.
VERSIONS = {"bookworm": ("252", "1.42"), "trixie": ("257", "1.52"), "forky": ("262", "1.58")}
#: Since systemd 256 a credential can be the private key.
_CREDENTIALS_SINCE = 256
#: Of sixty shops these are systems of their own; all of them are in the nightly run.
FEW = {"two-hubs": frozenset(("ams", "lon", "shop01", "shop02", "shop60"))}
_ROTATION = (Manager.WG_QUICK, Manager.NETWORKMANAGER, Manager.NETWORKD)


class _PlainDumper(yaml.SafeDumper):
    """Writes every scalar as it was read: `off` is a word here, as it is for wgnet."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  PyYAML's own name for it


@dataclass(frozen=True)
class Scenario:
    """One example in one mode on one suite. `whole`: all hosts, where a few stand for the rest otherwise."""

    suite: str
    example: str
    mode: str
    whole: bool = False

    @property
    def id(self) -> str:
        """Its name in test ids."""
        return "-".join((self.suite, self.mode, self.example, *(["whole"] if self.whole else [])))


@dataclass
class Prepared:
    """A scenario as it is rendered: plans, files and managers by host, and what the example had to leave out.

    `texts` are the topologies that it is rendered from, by file name.
    """

    scenario: Scenario
    fleet: Fleet
    hosts: tuple[str, ...]
    managers: dict[str, Manager]
    plans: dict[str, HostPlan] = field(default_factory=dict)
    json: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, list[Artifact]] = field(default_factory=dict)
    credentials: dict[str, dict[str, str]] = field(default_factory=dict)
    adapted: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)


def modes(suite: str, *, nightly: bool = False) -> tuple[str, ...]:
    """Return the modes that a suite is run in; forky has networkd alone unless `nightly`."""
    return MODES if nightly or suite != SUITES[-1] else MODES[:1]


def scenarios(suite: str, *, nightly: bool = False) -> list[Scenario]:
    """Return the scenarios of a suite."""
    found = [Scenario(suite, example, mode) for mode in modes(suite, nightly=nightly) for example in examples()]
    if nightly:
        found += [Scenario(suite, example, "networkd", whole=True) for example in FEW]
    return found


def prepare(scenario: Scenario, folder: Path, edit: Callable[[dict[str, Any]], None] | None = None) -> Prepared:
    """Render a scenario's hosts; `folder` takes the key store, `edit` changes each file of the example beforehand."""
    data = {path.name: yaml.load(path.read_text(), Loader=yaml.BaseLoader) for path in examples()[scenario.example]}
    if edit is not None:
        for text in data.values():
            edit(text)
    found = []
    for shift in range(len(_ROTATION)) if scenario.mode == "mixed" else (0,):
        prepared = _prepare(data, scenario, folder, dict(_managers(data, scenario, shift)))
        found.append(prepared)
        if any(prepared.managers[host] is Manager.WG_QUICK for host in prepared.hosts):
            return prepared
    # No host of it can be wg-quick's.
    return found[0]


def prepare_texts(
    data: Mapping[str, Any], scenario: Scenario, folder: Path, managers: Mapping[str, Manager]
) -> Prepared:
    """Render hosts of a test's own topologies, by file name; `folder` takes the key store."""
    return _prepare(data, scenario, folder, dict(managers))


def _prepare(data: Mapping[str, Any], scenario: Scenario, folder: Path, managers: dict[str, Manager]) -> Prepared:
    """Render with these managers, and where one cannot express a host of mixed ones, with the rarer of the others."""
    adapted: list[str] = []
    tried: set[str] = set()
    while True:
        texts = dict(_adapt(data, managers, scenario, adapted))
        refused = _render(texts, managers, scenario, folder, adapted)
        if isinstance(refused, Prepared):
            return refused
        for host in refused:
            assert scenario.mode == "mixed", f"{scenario.id}: {refused}"
            assert host not in tried, f"{scenario.id}: {refused}"
            tried.add(host)
            others = list(managers.values())
            managers[host] = min(_ROTATION[1:], key=others.count)


def _managers(data: Mapping[str, Any], scenario: Scenario, shift: int) -> Iterator[tuple[str, Manager]]:
    """Give every host its manager, of mixed ones the one after the last host's, beginning at `shift`."""
    hosts = {name: host.get("manager") for text in data.values() for name, host in text["hosts"].items()}
    for number, (name, written) in enumerate(hosts.items(), shift):
        if written == "external":
            yield name, Manager.EXTERNAL
        elif scenario.mode == "mixed":
            yield name, Manager.WG_QUICK if written == "wg-quick" else _ROTATION[number % len(_ROTATION)]
        else:
            yield name, Manager(scenario.mode)


def _adapt(
    data: Mapping[str, Any], managers: Mapping[str, Manager], scenario: Scenario, adapted: list[str]
) -> Iterator[tuple[str, str]]:
    """Give the texts with every host under its manager."""
    adapted.clear()
    systemd, networkmanager = VERSIONS[scenario.suite]
    credentials = {
        host for host, manager in managers.items()
        if manager is Manager.NETWORKD and int(systemd) >= _CREDENTIALS_SINCE
    }  # fmt: skip
    versions = {Manager.NETWORKD: systemd, Manager.NETWORKMANAGER: networkmanager}
    for name, original in data.items():
        text = copy.deepcopy(original)
        reading = set(text["hosts"]) if "'credential'" in str(original) else set()
        for group in text.get("defaults", {}).values():
            group.pop("manager", None)
            group.pop("manager-version", None)
            _take_out(
                group, "private-key", "credential", f"{name}: defaults", adapted, keep=credentials >= {*text["hosts"]}
            )
        for host, spec in text["hosts"].items():
            spec.pop("manager-version", None)
            spec["manager"] = managers[host].value
            if managers[host] in versions and (scenario.mode == "mixed" or host in credentials & reading):
                spec["manager-version"] = versions[managers[host]]
            # A connection of one user wants that user's session, and an agent in it.
            _take_out(spec, "private-key", "agent", f"{name}: {host}", adapted)
            if spec.pop("permissions", None):
                adapted.append(f"{name}: {host}: permissions taken out")
        for rule in text["peering"] if isinstance(text.get("peering"), list) else []:
            source = rule.get("preshared-key")
            if isinstance(source, dict) and "credential" in source and not credentials >= set(rule.get("link", ())):
                rule["preshared-key"] = "true"
                adapted.append(f"{name}: {rule['link']}: a derived preshared key instead of a credential")
        yield name, yaml.dump(text, Dumper=_PlainDumper, sort_keys=False, width=1000)


def _take_out(spec: dict[str, Any], key: str, kind: str, where: str, adapted: list[str], *, keep: bool = False) -> None:
    if not keep and isinstance(spec.get(key), dict) and kind in spec[key]:
        del spec[key]
        adapted.append(f"{where}: {key} in a file instead of {kind}")


def _render(
    texts: Mapping[str, str], managers: dict[str, Manager], scenario: Scenario, folder: Path, adapted: list[str]
) -> Prepared | dict[str, list[str]]:
    """Render all hosts, or return those that their manager cannot express, with the reasons."""
    fleet, diagnostics = read_fleet(texts)
    assert not diagnostics.has_errors, [item.message for item in diagnostics.sorted()]
    few = None if scenario.whole else FEW.get(scenario.example)
    names = tuple(
        name for name in fleet.host_names() if managers[name] is not Manager.EXTERNAL and (few is None or name in few)
    )
    prepared = Prepared(scenario, fleet, names, managers, adapted=tuple(adapted), texts=dict(texts))
    store = folder / f"{scenario.id}.keys"
    if not store.exists():
        store_of(fleet, store)
    dispatch = Managers(Templates())
    refused: dict[str, list[str]] = {}
    for name in names:
        plan = fleet.plan_host(name)
        root = folder / f"{scenario.id}.roots" / name
        secrets = SecretFinder(store=KeyStore(store), root=root)
        said = Diagnostics()
        files: list[Artifact] = []
        for interface in plan.interfaces:
            files += _given_keys(interface, root, prepared)
            dispatch.check(interface, said)
            if not said.has_errors:
                files += dispatch.render(interface, secrets.find(interface, said), said, deliver_keys=True)
        errors = [item.message for item in said.sorted() if item.severity is Severity.ERROR]
        if errors:
            refused[name] = errors
        prepared.plans[name] = plan
        prepared.json[name] = plan_to_json(plan)
        prepared.files[name] = files
    return refused or prepared


def _given_keys(interface: Any, root: Path, prepared: Prepared) -> list[Artifact]:
    """Put the secrets that somebody else gave where the host's administrator would have put them."""
    found = []
    host = interface.host.name
    credentials = prepared.credentials.setdefault(host, {})
    if interface.private_key.kind == "credential":
        credentials[interface.private_key.name] = private_key(interface.network, host).reveal()
    for peer in interface.secured_peers:
        source = peer.preshared_key
        if not isinstance(source, SecretSource):
            continue
        secret = given_preshared_key(source.name)
        if source.kind == "credential":
            credentials[source.name] = secret
        else:
            path = root / source.name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secret + "\n")
            found.append(
                Artifact(
                    path=source.name,
                    network=interface.network,
                    content=path.read_bytes(),
                    mode=0o640,
                    group="systemd-network",
                    secret=True,
                )
            )
    return found
