"""wgnet's topologies as an inventory: what `wgnet inventory --list` says, and variables made of it."""

from __future__ import annotations

DOCUMENTATION = """
name: topology
short_description: The hosts of wgnet's topologies
description:
  - Reads what C(wgnet inventory --list) says of topology files. Hosts, groups and variables are told in wgnet(1).
  - "Its file is YAML and has C(plugin: wgnet.fleet.topology)."
author: the authors of wgnet
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [wgnet.fleet.topology]
  topologies:
    description:
      - Topology files, relative to the inventory's file.
      - Without any C(wgnet) reads those of this system.
    type: list
    elements: str
    default: []
  program:
    description: How C(wgnet) is called here.
    type: list
    elements: str
    default: [wgnet]
"""

EXAMPLES = """
plugin: wgnet.fleet.topology
topologies: [office.yaml]
# Reach hosts through the tunnel, where the topology says nothing else.
compose:
  ansible_host: ansible_host | default(wgnet_addresses[0])
"""

import json
import os
import subprocess
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable


class InventoryModule(BaseInventoryPlugin, Constructable):
    """The inventory plugin."""

    NAME = "wgnet.fleet.topology"

    def verify_file(self, path: str) -> bool:
        """Whether a file may be one of this plugin's."""
        return bool(super().verify_file(path)) and path.endswith((".yaml", ".yml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Enter what wgnet says into the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        shown = self._read(os.path.dirname(os.path.abspath(path)))
        variables = shown.pop("_meta")["hostvars"]
        for name, value in shown.pop("all").get("vars", {}).items():
            inventory.set_variable("all", name, value)
        for group, content in shown.items():
            inventory.add_group(group)
            for host in content["hosts"]:
                inventory.add_host(host, group=group)
        strict = self.get_option("strict")
        for host, of_host in variables.items():
            inventory.add_host(host)
            for name, value in of_host.items():
                inventory.set_variable(host, name, value)
            known = inventory.get_host(host).get_vars()
            self._set_composite_vars(self.get_option("compose"), known, host, strict=strict)
            known = inventory.get_host(host).get_vars()
            self._add_host_to_composed_groups(self.get_option("groups"), known, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, host, strict=strict)

    def _read(self, folder: str) -> dict[str, Any]:
        command = [*self.get_option("program"), "inventory", "--list", *self.get_option("topologies")]
        try:
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except OSError as error:
            raise AnsibleParserError(f"{command[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise AnsibleParserError(f"`wgnet inventory` ended with status {done.returncode}:\n{done.stderr}")
        if done.stderr:
            self.display.warning(done.stderr)
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown
