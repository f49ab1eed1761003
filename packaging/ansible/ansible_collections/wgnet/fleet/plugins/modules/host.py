#!/usr/bin/python
"""Runs on the host: puts its part into place, has wgnet apply it, confirms it, or puts everything back.

Beside what wgnet itself puts back (interfaces, routes, what it wrote) this puts back what it brought: topologies and
keys in /etc/wgnet. Where nobody confirms, a timer does, and after a reboot a unit; both ask what wgnet has done.
"""

from __future__ import annotations

DOCUMENTATION = """
module: host
short_description: Bring a host its topologies and its own keys, and apply them
description:
  - Reads the topologies and, with O(keys), the host's own keys on the controller, and no other host's.
  - Puts them into C(/etc/wgnet) on the host, runs C(wgnet apply --confirm), connects anew and runs C(wgnet confirm).
  - What fails, or cannot be confirmed, is put back, the files in C(/etc/wgnet) too.
  - With C(--check) nothing is changed, and with C(--diff) what C(wgnet plan) says is shown. Secrets are masked.
author: the authors of wgnet
options:
  state:
    description:
      - V(applied) brings, applies and confirms.
      - V(rolled_back) goes back to the state before the last run of this module that changed something.
      - V(confirmed) confirms what waits for it. V(applied) does that by itself.
    choices: [applied, confirmed, rolled_back]
    default: applied
    type: str
  name:
    description: The host's name in the topologies.
    type: str
  networks:
    description: The host's networks as C(wgnet inventory) has them.
    type: dict
  keys:
    description:
      - The key store on the controller, relative to where Ansible runs.
      - Without it hosts have keys that they made themselves.
    type: path
  passphrase_file:
    description: The file on the controller with the passphrase of the key store.
    type: path
  program:
    description: How C(wgnet) is called on the controller.
    type: list
    elements: str
    default: [wgnet]
  command:
    description: How C(wgnet) is called on the host.
    type: list
    elements: str
    default: [wgnet]
  confirm:
    description: Seconds until a change is rolled back that could not be confirmed. With 0 none has to be.
    type: int
    default: 60
  verify:
    description: A shell command on the host that has to succeed before a change is confirmed.
    type: str
    default: ""
  force:
    description: Replace files of wgnet's that were changed by hand on the host.
    type: bool
    default: false
  topologies:
    description: Made of O(networks).
    type: list
    elements: dict
    default: []
    suboptions:
      network: {description: The network., type: str, required: true}
      content: {description: The file's text., type: str, required: true}
  secrets:
    description: Made of O(keys).
    type: list
    elements: dict
    default: []
    suboptions:
      network: {description: The network., type: str, required: true}
      path: {description: Where it lies., type: path, required: true}
      mode: {description: Its mode., type: str, required: true}
      owner: {description: Its owner., type: str, required: true}
      group: {description: Its group., type: str, required: true}
      content: {description: What is in it., type: str, required: true}
attributes:
  check_mode:
    support: full
    description: Shows what would change.
  diff_mode:
    support: full
    description: Shows what C(wgnet plan) says.
"""

EXAMPLES = """
- name: Apply the topology
  wgnet.fleet.host:
    name: "{{ wgnet_host }}"
    networks: "{{ wgnet_networks }}"
    keys: keys
"""

RETURN = """
plan:
  description: What C(wgnet plan) said, secrets masked.
  returned: when the state is applied
  type: list
  elements: str
files:
  description: The files of the host's part that differed.
  returned: when the state is applied
  type: list
  elements: str
pending:
  description: Seconds that the change waits to be confirmed.
  returned: when the state is applied
  type: int
"""

import contextlib
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

FOLDER = "/etc/wgnet"
#: What is kept to go back to; root's alone, since keys are in it.
STATE = "/var/lib/wgnet/fleet"
SHIPPED = f"{STATE}/shipped.json"
#: wgnet's own (FILES in wgnet(1)): there while a change is not settled, and the state before the last one.
ARMED = "/var/lib/wgnet/apply/armed"
SNAPSHOT = "/var/lib/wgnet/apply/snapshot.json"
TIMER = "wgnet-fleet"
BOOT_UNIT = "/etc/systemd/system/wgnet-fleet-boot.service"
BOOT_LINK = "/etc/systemd/system/sysinit.target.wants/wgnet-fleet-boot.service"
#: Seconds that wgnet gives itself for a change, and some more.
LIMIT_S = 330
#: The exit status of the script that shows wgnet another /etc/wgnet, where it could not.
NO_VIEW = 90

PUT_BACK = f"""\
#!/bin/sh
# Written by the Ansible module wgnet.fleet.host. Puts the files back that it changed in {FOLDER}, where wgnet has put
# back what they made. "now": without asking. "boot": without waiting.
cd {STATE} || exit 0
# The timer and a run that is told of its failure may come at one moment.
exec 9>lock
flock 9
[ -e index ] || exit 0
if [ "$1" != now ]; then
    [ -e pending ] || exit 0
    left=300
    while [ -e {ARMED} ] && [ "$1" != boot ] && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
    before=$(cat pending)
    after=$(sha256sum {SNAPSHOT} 2>/dev/null)
    if [ ! -e {ARMED} ] && [ -n "$after" ] && [ "${{after%% *}}" != "$before" ]; then
        # wgnet keeps the state before a change that was confirmed, and forgets that of one that was rolled back:
        # somebody confirmed it by hand.
        rm -f pending {BOOT_LINK} {BOOT_UNIT}
        exit 0
    fi
fi
while read -r number path; do
    if [ -e "files/$number" ]; then
        cp -a -- "files/$number" "$path.wgnet-fleet" && mv -f -- "$path.wgnet-fleet" "$path"
    else
        rm -f -- "$path"
    fi
done <index
rm -f index
rm -rf files applied pending {BOOT_LINK} {BOOT_UNIT}
"""

BOOT = f"""\
[Unit]
Description=Put back the topologies of a change that was not confirmed
ConditionPathExists={STATE}/pending
DefaultDependencies=no
After=local-fs.target wgnet-rollback.service
Before=systemd-networkd.service NetworkManager.service network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh {STATE}/put-back boot

[Install]
WantedBy=sysinit.target
"""


class File:
    """One file as it is to be."""

    def __init__(self, path: str, content: str, mode: str = "0644", owner: str = "root", group: str = "root") -> None:
        self.path = path
        self.content = content.encode()
        self.mode = int(mode, 8)
        self.uid = pwd.getpwnam(owner).pw_uid
        try:
            self.gid = grp.getgrnam(group).gr_gid
        except KeyError:  # systemd-networkd is not here
            self.gid, self.mode = 0, self.mode & 0o700

    def differs(self) -> bool:
        """Whether another file, or none, stands there."""
        try:
            status = os.lstat(self.path)
            if not stat.S_ISREG(status.st_mode):
                return True
            with open(self.path, "rb") as stream:
                content = stream.read(len(self.content) + 1)
        except FileNotFoundError:
            return True
        there = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, content)
        return there != (self.mode, self.uid, self.gid, self.content)

    def write(self, path: str | None = None) -> None:
        """Write it, here or at another path, in one step; nobody else may read it for a moment either."""
        path = path or self.path
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        new = f"{path}.wgnet-fleet"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(self.content)
            os.fchown(descriptor, self.uid, self.gid)
            os.fchmod(descriptor, self.mode)
            stream.flush()
            os.fsync(descriptor)
        os.replace(new, path)


class Host:
    """The host that this runs on."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.command: list[str] = module.params["command"]

    def wgnet(self, *arguments: str) -> tuple[int, str, str]:
        """Run wgnet; return its status, output and diagnostics, which have no secret."""
        found: tuple[int, str, str] = self.module.run_command([*self.command, *arguments])
        return found

    def fail(self, message: str, **more: Any) -> None:
        """End with a failure."""
        self.module.fail_json(msg=message, changed=False, pending=0, **more)

    # --- applied -----------------------------------------------------------------------------------------------------

    def apply(self) -> None:
        """Bring the part, and apply it."""
        module = self.module
        wanted = self.wanted()
        if not module.check_mode and os.path.exists(f"{STATE}/pending"):
            self.settle_earlier()
        gone = self.gone()
        changing = [each for each in wanted if each.differs()]
        status, plan, said = self.preview(changing, gone)
        if status not in (0, 3, NO_VIEW):
            self.fail(f"wgnet plan ended with status {status}: {said.strip()}", plan=plan.splitlines())
        files = [f"{'~' if os.path.lexists(each.path) else '+'} {each.path}" for each in changing]
        files += [f"- {path}" for path in gone]
        shown = [line for line in files if not line.endswith(SHIPPED)]
        text = "".join(f"{line}\n" for line in shown)
        if status == NO_VIEW:
            text += "(wgnet plan cannot be shown here before the files are in place)\n"
        elif status == 3:
            text += plan
        result: dict[str, Any] = {
            "changed": bool(files) or status == 3,
            "plan": plan.splitlines() if status != NO_VIEW else [],
            "files": shown,
            "pending": 0,
            "diff": {"prepared": text} if text else {},
        }
        if module.check_mode or not result["changed"]:
            module.exit_json(**result)
        self.stage(changing, gone)
        # Also where nothing is to be done: files that were carried here by hand become wgnet's by it.
        result["pending"] = self.apply_staged()
        if not result["pending"]:
            self.settle()
        module.exit_json(**result)

    def wanted(self) -> list[File]:
        """Return the files of the host's part."""
        params = self.module.params
        topologies, secrets = params["topologies"], params["secrets"]
        files = [File(f"{FOLDER}/{each['network']}.yaml", each["content"]) for each in topologies]
        files += [File(each["path"], each["content"], each["mode"], each["owner"], each["group"]) for each in secrets]
        files.append(File(f"{FOLDER}/host", f"{params['name']}\n"))
        shipped = {each["network"]: [f"{FOLDER}/{each['network']}.yaml"] for each in topologies}
        for each in secrets:
            shipped[each["network"]].append(each["path"])
        # A run without the key store forgets none of what one with it has brought.
        for network, paths in self.shipped().items():
            if network in shipped:
                shipped[network] = list(dict.fromkeys([*shipped[network], *paths]))
        files.append(File(SHIPPED, json.dumps(shipped, indent=2, sort_keys=True) + "\n", mode="0600"))
        return files

    @staticmethod
    def shipped() -> dict[str, list[str]]:
        """Return what earlier runs brought, by network."""
        try:
            with open(SHIPPED, encoding="utf-8") as stream:
                found: dict[str, list[str]] = json.load(stream)
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def gone(self) -> list[str]:
        """Return files of networks that the host has left."""
        present = {each["network"] for each in self.module.params["topologies"]}
        gone = [paths for network, paths in self.shipped().items() if network not in present]
        return sorted(path for paths in gone for path in paths if os.path.lexists(path))

    def preview(self, changing: list[File], gone: list[str]) -> tuple[int, str, str]:
        """Return what wgnet plans with the part in place, without putting it there.

        wgnet runs in a mount namespace of its own, in which another folder is /etc/wgnet. The status is NO_VIEW where
        that cannot be, as for a key that the topology has elsewhere.
        """
        paths = [path for path in (*(each.path for each in changing), *gone) if path != SHIPPED]
        if not paths:
            return self.wgnet("plan", "--exit-code")
        if not all(path.startswith(f"{FOLDER}/") for path in paths):
            return NO_VIEW, "", ""
        base = tempfile.mkdtemp(prefix="wgnet-fleet-", dir="/run")
        try:
            view = f"{base}/upper/wgnet"
            there = os.path.isdir(FOLDER)
            if there:
                shutil.copytree(FOLDER, view, symlinks=True)
            else:
                os.makedirs(view)
            os.mkdir(f"{base}/work")
            for each in changing:
                if each.path != SHIPPED:
                    each.write(view + each.path[len(FOLDER) :])
            for path in gone:
                os.unlink(view + path[len(FOLDER) :])
            mount = ["mount", "--bind", view, FOLDER]
            if not there:
                options = f"lowerdir=/etc,upperdir={base}/upper,workdir={base}/work"
                mount = ["mount", "-t", "overlay", "overlay", "-o", options, "/etc"]
            script = f'"$1" "$2" "$3" "$4" "$5" "$6" "$7" || exit {NO_VIEW}; shift 7; exec "$@"'
            if there:
                script = f'"$1" "$2" "$3" "$4" || exit {NO_VIEW}; shift 4; exec "$@"'
            command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh", *mount]
            found: tuple[int, str, str] = self.module.run_command([*command, *self.command, "plan", "--exit-code"])
            return found
        finally:
            shutil.rmtree(base, ignore_errors=True)

    # --- the change itself -------------------------------------------------------------------------------------------

    def stage(self, changing: list[File], gone: list[str]) -> None:
        """Keep what is there, see to it that it comes back, and put the new files into place."""
        os.makedirs(STATE, mode=0o700, exist_ok=True)
        os.chmod(STATE, 0o700)
        for name in ("applied", "index"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{STATE}/{name}")
        shutil.rmtree(f"{STATE}/files", ignore_errors=True)
        os.mkdir(f"{STATE}/files", mode=0o700)
        paths = [*(each.path for each in changing), *gone]
        for number, path in enumerate(paths):
            if os.path.lexists(path):
                self.check("cp", "-a", "--", path, f"{STATE}/files/{number}")
        File(f"{STATE}/put-back", PUT_BACK, mode="0700").write()
        File(f"{STATE}/index", "".join(f"{number} {path}\n" for number, path in enumerate(paths)), mode="0600").write()
        File(f"{STATE}/pending", _digest(SNAPSHOT), mode="0600").write()
        File(BOOT_UNIT, BOOT).write()
        os.makedirs(os.path.dirname(BOOT_LINK), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(BOOT_UNIT, BOOT_LINK)
        os.sync()
        self.watch(LIMIT_S)
        for each in changing:
            each.write()
        for path in gone:
            os.unlink(path)

    def watch(self, seconds: int) -> None:
        """Have the files put back in so many seconds, unless they are settled before."""
        self.module.run_command(["systemctl", "stop", f"{TIMER}.timer"])
        run = ["systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={seconds}s"]
        self.check(*run, "--timer-property=AccuracySec=100ms", "--", "/bin/sh", f"{STATE}/put-back")

    def apply_staged(self) -> int:
        """Run `wgnet apply`; return for how many seconds it waits to be confirmed."""
        seconds = self.module.params["confirm"]
        options = ["--confirm", f"{seconds}s"] if seconds else []
        options += ["--force"] if self.module.params["force"] else []
        status, out, said = self.wgnet("apply", *options)
        if status != 0:
            self.put_back()
            self.fail(
                f"wgnet apply ended with status {status}, and the topologies and keys are those of before: "
                f"{said.strip()}",
                stdout=out,
            )
        with open(f"{STATE}/pending", encoding="ascii") as stream:
            before = stream.read()
        if _digest(SNAPSHOT) != before:
            # Something has changed, and so there is something that `wgnet rollback` would go back to.
            File(f"{STATE}/applied", _digest(SNAPSHOT), mode="0600").write()
        if not os.path.exists(ARMED):
            return 0
        # Later than wgnet itself, since it is asked what it has done.
        self.watch(int(seconds) + 2)
        return int(seconds)

    def put_back(self) -> None:
        """Put the files back now."""
        self.check("/bin/sh", f"{STATE}/put-back", "now")
        self.module.run_command(["systemctl", "stop", f"{TIMER}.timer"])

    def settle(self) -> None:
        """Keep the files; what was there stays in reserve for `rolled_back`."""
        for path in (f"{STATE}/pending", BOOT_LINK, BOOT_UNIT):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.module.run_command(["systemctl", "stop", f"{TIMER}.timer"])

    def settle_earlier(self) -> None:
        """Settle what a run left that was cut off, once wgnet has settled its own."""
        if os.path.exists(ARMED):
            self.fail("an earlier change waits to be confirmed; confirm it on the host, or wait until it has gone back")
        self.check("/bin/sh", f"{STATE}/put-back")

    def check(self, *command: str) -> None:
        """Run a command that has to succeed."""
        self.module.run_command(list(command), check_rc=True)

    # --- confirmed, rolled_back --------------------------------------------------------------------------------------

    def confirm(self) -> None:
        """Confirm what waits for it, if the host's own test, too, finds it good."""
        verify = self.module.params["verify"]
        if verify:
            status, out, said = self.module.run_command(["/bin/sh", "-c", verify])
            if status != 0:
                back, _, why = self.wgnet("rollback")
                self.put_back()
                found = f"wgnet rollback ended with status {back}: {why.strip()}" if back else "it was rolled back"
                self.fail(f"the test of the change ended with status {status}, and {found}: {(out + said).strip()}")
        status, _, said = self.wgnet("confirm")
        if status != 0:
            self.check("/bin/sh", f"{STATE}/put-back")
            self.fail(f"the change cannot be confirmed any more, and was rolled back: {said.strip()}")
        self.settle()
        self.module.exit_json(changed=True)

    def roll_back(self) -> None:
        """Go back to what was before the last run that changed something; once."""
        if not os.path.exists(f"{STATE}/index"):
            self.module.exit_json(changed=False)
        applied = f"{STATE}/applied"
        live = os.path.exists(applied)
        if live:
            with open(applied, encoding="ascii") as stream:
                ours = stream.read() == _digest(SNAPSHOT)
            if not ours:
                self.fail("somebody else has applied something since, which would be lost; nothing was changed")
        if self.module.check_mode:
            self.module.exit_json(changed=True)
        if live:
            status, _, said = self.wgnet("rollback")
            if status != 0:
                self.fail(f"wgnet rollback ended with status {status}: {said.strip()}")
        self.put_back()
        self.module.exit_json(changed=True)


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return "none"


def main() -> None:
    """Do what `state` says."""
    of_network = {"network": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["applied", "confirmed", "rolled_back"], "default": "applied"},
            "name": {"type": "str"},
            # The action reads these on the controller; they are here for who checks tasks by the module alone.
            "networks": {"type": "dict"},
            "keys": {"type": "path", "no_log": False},
            "passphrase_file": {"type": "path", "no_log": False},
            "program": {"type": "list", "elements": "str", "default": ["wgnet"]},
            "command": {"type": "list", "elements": "str", "default": ["wgnet"]},
            "confirm": {"type": "int", "default": 60},
            "verify": {"type": "str", "default": ""},
            "force": {"type": "bool", "default": False},
            "topologies": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**of_network, "content": {"type": "str", "required": True}},
            },
            "secrets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    **of_network,
                    "path": {"type": "path", "required": True},
                    "mode": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                    "group": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True, "no_log": True},
                },
            },
        },
        supports_check_mode=True,
    )
    host = Host(module)
    if os.geteuid() != 0:
        host.fail("only root may change the host's networks: use `become`")
    {"applied": host.apply, "confirmed": host.confirm, "rolled_back": host.roll_back}[module.params["state"]]()


if __name__ == "__main__":
    main()
