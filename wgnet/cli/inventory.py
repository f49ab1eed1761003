"""The topologies as Ansible's inventory: hosts, groups, variables.

Input: a fleet. Output: plain data in the shape that Ansible's inventory scripts print, and diagnostics where a key that
is meant for Ansible cannot be one. No secret of WireGuard's is in it: keys are public ones, and the user's own (`x-`)
keys are what the user wrote into a file that every host may read.

    {"_meta": {"hostvars": {NAME: {VARIABLES}}},
     "all": {"children": [GROUP], "vars": {"wgnet_inventory_version": 1}},
     GROUP: {"hosts": [NAME]}}

Hosts are those that `wgnet render` writes files for. Groups are those of the topologies, `-` and `.` in their names
`_`, and `wgnet_network_NETWORK`, `wgnet_manager_MANAGER`, `wgnet_hubs`, `wgnet_spokes_of_HUB`; those of managers and
hubs are there without a host, too. Of every host:

    "wgnet_host": its name, "wgnet_manager": that of its first network,
    "wgnet_addresses": its addresses in all networks, without prefix lengths,
    "wgnet_endpoint": the first `endpoint` of the first network that has one, or null,
    "wgnet_networks": {NETWORK: {"file" (null: standard input), "interface", "manager", "manager_version" (or null),
        "addresses": ["10.80.0.1/24"], "public_key" (or null), "endpoints", "listen_port" (0: the kernel's choice),
        "site" (or null), "advertise", "hub": bool}}

and its own keys, of `defaults` too: the entries of `x-ansible` as they are (`ansible_host`, say), any other `x-a-key`
as `x_a_key`. An interface: only ever added to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.model.topology import Host, Topology
from wgnet.plan.derive import Fleet
from wgnet.syntax.nodes import Mapping, Node
from wgnet.syntax.own import own_keys, plain_value
from wgnet.syntax.spec import HostSpec, Manager

__all__ = ["VERSION", "Inventory"]

VERSION = 1

_ANSIBLE = "x-ansible"
#: Names that are groups to Ansible, or keys of the shape.
_RESERVED = {"all", "ungrouped", "_meta"}
#: What Ansible takes for a password, whatever the connection: `ansible_ssh_pass`, `ansible_become_password`.
_PASSWORD = re.compile(r"ansible_(?:\w+_)?(?:pass|password|passwd|passphrase)", re.IGNORECASE)


class _View:
    """One topology as the inventory shows it: the hosts that files are made for, and what `x-` keys say of each."""

    def __init__(self, fleet: Fleet, topology: Topology, diagnostics: Diagnostics) -> None:
        self.topology = topology
        self.hosts = {
            host.name: host
            for host in topology.hosts
            if any(planner.routing.topology is topology for planner, _ in fleet.appearances(host.name))
        }
        # Once for each place where they stand: a group's are those of many hosts, and so would be what is wrong there.
        self._own = {name: _own_variables(host.spec, diagnostics) for name, host in self.hosts.items()}
        self._layers = [
            ({host.name for host in topology.groups.get(group, ())}, _own_variables(spec, diagnostics))
            for group, spec in topology.spec.defaults.items()
        ]

    def own_variables(self, name: str) -> dict[str, Any]:
        """Return a host's own variables: those of `defaults`, a later group over an earlier, then those of the host."""
        found: dict[str, Any] = {}
        for members, variables in self._layers:
            if name in members:
                found.update(variables)
        return {**found, **self._own[name]}


class Inventory:
    """The inventory of a fleet; what cannot be in it is in `diagnostics`."""

    def __init__(self, fleet: Fleet, diagnostics: Diagnostics) -> None:
        self._names = fleet.host_names()
        self._views = [_View(fleet, routing.topology, diagnostics) for routing in fleet.routings]

    def whole(self) -> dict[str, Any]:
        """Return all groups, hosts and variables."""
        groups = _groups(self._views, set(self._names))
        return {
            "_meta": {"hostvars": {name: self.of_host(name) for name in self._names}},
            "all": {"children": ["ungrouped", *groups], "vars": {"wgnet_inventory_version": VERSION}},
            **{group: {"hosts": members} for group, members in groups.items()},
        }

    def of_host(self, name: str) -> dict[str, Any]:
        """Return the variables of a host. Of several files that say one thing of it the last one counts."""
        views = [view for view in self._views if name in view.hosts]
        hosts = [view.hosts[name] for view in views]
        own: dict[str, Any] = {}
        for view in views:
            own.update(view.own_variables(name))
        endpoints = [str(endpoint) for host in hosts for endpoint in host.endpoint]
        return {
            **own,
            "wgnet_host": name,
            "wgnet_manager": hosts[0].manager.value,
            "wgnet_addresses": list(dict.fromkeys(str(each.ip) for host in hosts for each in host.addresses)),
            "wgnet_endpoint": endpoints[0] if endpoints else None,
            "wgnet_networks": {view.topology.name: _network(view.topology, view.hosts[name]) for view in views},
        }


def _network(topology: Topology, host: Host) -> dict[str, Any]:
    return {
        # Whoever reads it may stand in another folder.
        "file": None if topology.file == "<stdin>" else os.path.abspath(topology.file),  # noqa: PTH100
        "interface": host.interface,
        "manager": host.manager.value,
        "manager_version": ".".join(map(str, host.manager_version)) if host.manager_version else None,
        "addresses": [str(address) for address in host.addresses],
        "public_key": host.public_key,
        "endpoints": [str(endpoint) for endpoint in host.endpoint],
        "listen_port": host.listen_port,
        "site": host.site,
        "advertise": [str(prefix) for prefix in host.advertise],
        "hub": any(host in rule.hubs for rule in topology.rules),
    }


# --- groups ----------------------------------------------------------------------------------------------------------


def _groups(views: list[_View], names: set[str]) -> dict[str, list[str]]:
    """Return the groups with their hosts, in the order of the files; groups of one name in several files are one."""
    # Plays name these whether there are such hosts or not.
    managers = [_word("wgnet_manager_", manager.value) for manager in Manager if manager is not Manager.EXTERNAL]
    found: dict[str, dict[str, None]] = {group: {} for group in (*managers, "wgnet_hubs")}
    always = frozenset(found)

    def add(group: str, hosts: Iterable[Host]) -> None:
        found.setdefault(group, {}).update((host.name, None) for host in hosts if view.hosts.get(host.name) is host)

    for view in views:
        topology = view.topology
        add(_word("wgnet_network_", topology.name), topology.hosts)
        for host in topology.hosts:
            add(_word("wgnet_manager_", host.manager.value), [host])
        for rule in topology.rules:
            add("wgnet_hubs", rule.hubs)
            for hub in rule.hubs:
                add(_word("wgnet_spokes_of_", hub.name), rule.spokes)
        for group, hosts in topology.groups.items():
            if group != "all":
                add(_group_name(group, names), hosts)
    return {group: list(members) for group, members in found.items() if members or group in always}


def _group_name(group: str, hosts: set[str]) -> str:
    """Return what a topology's group is called: Ansible takes letters, digits and `_`, and no host's name."""
    word = _word("", group)
    if word in _RESERVED or word in hosts or word.startswith("wgnet_") or word[0].isdigit():
        return f"group_{word}"
    return word


def _word(prefix: str, name: str) -> str:
    return prefix + re.sub(r"[^A-Za-z0-9_]", "_", name)


# --- the user's own keys ---------------------------------------------------------------------------------------------


def _own_variables(spec: HostSpec, diagnostics: Diagnostics) -> dict[str, Any]:
    """Return what the `x-` keys of a host, or of one group's defaults, say."""
    found: dict[str, Any] = {}
    for key, value in own_keys(spec.node):
        if key.text == _ANSIBLE:
            found.update(_for_ansible(value, diagnostics))
        else:
            found[_word("", key.text)] = plain_value(value)
    return found


def _for_ansible(node: Node, diagnostics: Diagnostics) -> dict[str, Any]:
    """Return the variables that `x-ansible` gives; a password is reported, whose place is another."""
    if not isinstance(node, Mapping):
        diagnostics.report(
            codes.WRONG_TYPE,
            f"expected variables for Ansible (a mapping), found {node.kind}",
            node.span,
            help="write x-ansible: {ansible_host: 192.0.2.1}",
        )
        return {}
    found = {}
    for key, value in node.entries:
        name = _word("", key.text)
        if _PASSWORD.fullmatch(name):
            diagnostics.report(
                codes.PASSWORD_IN_TOPOLOGY,
                f"'{key.text}' is a password, and a topology is a file that every host is given",
                key.span,
                help="give it to Ansible alone, in a vault: group_vars/all/vault.yml",
            )
            continue
        found[name] = plain_value(value)
    return found
