"""Brings one host its part: reads topologies and keys here, has them applied there, and confirms over a new connection.

What runs on the host is the module of the same name, which also tells the options.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

_MODULE = "wgnet.fleet.host"
#: What is said here; the module hears of the rest.
_OWN = ("keys", "networks", "passphrase_file", "program")
_PAUSE_S = 2
#: The module's own default of `confirm`.
_CONFIRM_S = 60
#: Seconds after the time is over for wgnet to go back, until the host is looked for once more.
_GOES_BACK_S = 10


class ActionModule(ActionBase):
    """The action."""

    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Do what the module's `state` says."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = {name: value for name, value in self._task.args.items() if name not in _OWN}
        if arguments.get("state", "applied") != "applied":
            return {**result, **self._execute(arguments, task_vars)}
        networks = self._task.args.get("networks") or {}
        name = arguments.get("name")
        if not name or not networks:
            raise AnsibleActionFail("expected `name` and `networks`: is this host from wgnet's inventory?")
        arguments["topologies"] = [
            {"network": network, "content": self._topology(network, of_network.get("file"))}
            for network, of_network in networks.items()
        ]
        arguments["secrets"] = [
            {"network": network, **{key: each[key] for key in ("path", "mode", "owner", "group", "content")}}
            for network, of_network in networks.items()
            for each in self._secrets(name, of_network["file"])
        ]
        result.update(self._execute(arguments, task_vars))
        if result.pop("unreachable", False):
            # The connection went down with the change, which may be made and waiting all the same.
            result.update(changed=True, failed=False, pending=int(arguments.get("confirm", _CONFIRM_S)))
        if result.get("failed") or not result.get("pending"):
            return result
        return self._confirm(result, arguments, task_vars)

    def _execute(self, arguments: dict[str, Any], task_vars: Any, module: str = _MODULE) -> dict[str, Any]:
        """Run a module on the host; `unreachable` is in what it returns where there is no connection."""
        try:
            found: dict[str, Any] = self._execute_module(module, arguments, task_vars=task_vars)
        except AnsibleConnectionFailure:
            found = {"unreachable": True}
        return found

    # --- what is read here -------------------------------------------------------------------------------------------

    def _topology(self, network: str, file: str | None) -> str:
        if not file:
            raise AnsibleActionFail(f"the topology of '{network}' came from standard input; name its file")
        try:
            with open(file, encoding="utf-8") as stream:
                return stream.read()
        except OSError as error:
            raise AnsibleActionFail(f"'{file}' cannot be read: {error.strerror}") from None

    def _secrets(self, name: str, file: str) -> list[dict[str, str]]:
        """Return the files with the host's own secrets; they are held in memory alone."""
        keys = self._task.args.get("keys")
        if not keys:
            return []
        program = self._task.args.get("program") or "wgnet"
        command = [
            *(shlex.split(program) if isinstance(program, str) else program),
            "keys",
            "export",
            name,
            "-f",
            file,
            "--keys",
            os.path.expanduser(keys),
        ]
        if self._task.args.get("passphrase_file"):
            command += ["--passphrase-file", os.path.expanduser(self._task.args["passphrase_file"])]
        command += ["--format", "json", "--show-secrets", "--diagnostics", "concise"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except OSError as error:
            raise AnsibleActionFail(f"{command[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise AnsibleActionFail(f"`wgnet keys export {name}` ended with status {done.returncode}: {done.stderr}")
        files: list[dict[str, str]] = json.loads(done.stdout)["files"]
        return files

    # --- what is confirmed -------------------------------------------------------------------------------------------

    def _confirm(self, result: dict[str, Any], arguments: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        """Confirm the change over a connection that is made anew: only that shows that the host can be reached."""
        deadline = time.monotonic() + result["pending"]
        asked = {key: arguments[key] for key in ("command", "verify") if key in arguments}
        while True:
            self._disconnect()
            settled = self._execute({**asked, "state": "confirmed"}, task_vars)
            if not settled.get("unreachable"):
                break
            if time.monotonic() >= deadline:
                return self._lost(result, task_vars)
            time.sleep(_PAUSE_S)
        if settled.get("failed"):
            return {**result, **settled, "changed": False, "pending": 0}
        return {**result, "pending": 0}

    def _lost(self, result: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        time.sleep(_GOES_BACK_S)
        self._disconnect()
        answer = self._execute({}, task_vars, module="ansible.builtin.ping")
        back = not answer.get("unreachable") and not answer.get("failed")
        found = "it is reached again" if back else "it is still not reached"
        message = f"after the change the host could not be reached anew, so it went back by itself; {found}"
        return {**result, "failed": True, "changed": not back, "pending": 0, "msg": message}

    def _disconnect(self) -> None:
        """End the connection, the one that ssh keeps for later ones too."""
        try:
            if getattr(self._connection, "transport", "") != "local":
                self._connection.reset()
        except AnsibleError:
            self._connection.close()
