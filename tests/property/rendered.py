"""The files of a drafted network's hosts, and the world that they make."""

from __future__ import annotations

import hashlib

from property.files import device_of_files
from property.networks import Draft, private_key
from property.sound import checked
from property.walk import World
from property.worlds import device_of_plan, keys, nearby
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.types import MasterSecret, PresharedKey
from wgnet.managers.base import InterfaceSecrets
from wgnet.managers.dispatch import Managers
from wgnet.managers.templates import Templates
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.routing.allowed_ips import Routing
from wgnet.syntax.spec import Manager

MASTER = MasterSecret(hashlib.sha256(b"wgnet property master").digest())
_MANAGERS = Managers(Templates())

Files = dict[str, bytes]


def preshared_keys(plan: InterfacePlan) -> dict[str, PresharedKey]:
    """Return the derived keys of an interface's links."""
    assert plan.host.public_key is not None
    return {
        peer.public_key: derive_preshared_key(MASTER, plan.host.public_key, peer.public_key)
        for peer in plan.peers
        if peer.preshared_key == "derived"
    }


def files_of(draft: Draft) -> tuple[Routing, Diagnostics, dict[str, Files]]:
    """Return the files of every host that has some; a host that its manager cannot have is networkd's from then on."""
    routing, diagnostics = checked(draft)
    fleet = Fleet((routing,))
    files: dict[str, Files] = {}
    for name in fleet.host_names():
        (plan,) = fleet.plan_host(name).interfaces
        said = Diagnostics()
        _MANAGERS.check(plan, said)
        if said.has_errors:
            errors = {item.code for item in said if item.severity is Severity.ERROR}
            assert errors <= {codes.MANAGER_CANNOT, codes.VERSION_CANNOT}
            del draft.hosts[name]["manager"]
            return files_of(draft)
        secrets = InterfaceSecrets(private_key=private_key(name), preshared_keys=preshared_keys(plan))
        artifacts = _MANAGERS.render(plan, secrets, said, deliver_keys=True)
        assert not said.has_errors
        files[name] = {item.path: item.content for item in artifacts if item.target is None}
    return routing, diagnostics, files


def world_of_files(draft: Draft) -> tuple[World, Routing, Diagnostics]:
    """Return the world of what was rendered; an external host is as its owner would have it by the plan."""
    routing, diagnostics, files = files_of(draft)
    fleet = Fleet((routing,))
    devices = {name: device_of_files(content) for name, content in files.items()}
    planner = fleet._planners[0]
    for host in routing.topology.hosts:
        if host.disabled:
            continue
        plan = planner.plan_interface(host)
        if host.manager is Manager.EXTERNAL:
            devices[host.name] = device_of_plan(plan)
        elif host.manager is Manager.WG_QUICK:
            # What it forwards is the system's own business: wg-quick has no word for it.
            devices[host.name].forwards = set(plan.forwarding)
    return World(devices, keys(routing.topology), nearby(routing.topology)), routing, diagnostics
