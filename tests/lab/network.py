"""A world that runs: its wires, its namespaces, and a booted system for each of the topology's hosts.

Input: a `Machine`, a `World`, and the files of each host. A host is a systemd-nspawn container over the machine's own
root, with its own systemd, bus, /etc and network; it boots from files alone, there is no wgnet on it. NAT boxes,
routers and plain hosts are network namespaces. It derives nothing: what files a host has is for the caller.
"""

from __future__ import annotations

import hashlib
import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence

from lab.image import ENABLEMENT, LabError
from lab.machine import File, Machine, Result
from lab.wiring import build_script, destroy_script, ports_script
from lab.world import World

#: Where the hosts' own files lie in the machine: in memory.
HOSTS = "/run/lab"
_BOOT_LIMIT = 600
#: A container has a new name at each boot: nspawn, since systemd 256, refuses to start one whose name has anything left
#: in its folder, as a container that was killed leaves it; where that lies differs between versions.
_BOOTS = itertools.count(1)
_NSPAWN = "/run/systemd/nspawn"


class Network:
    """A world in a machine. `boot` starts hosts, `close` takes everything away, for the next world to find nothing."""

    def __init__(self, machine: Machine, world: World) -> None:
        """Build the wires and every node that is not a host."""
        self.machine = machine
        self.world = world
        self._known: set[str] = set()
        machine.run(build_script(world), timeout=240)

    def node(self, name: str) -> str:
        """Return what `Machine.run` calls a node of the world."""
        kind = "host" if self.world.nodes[name].kind == "host" else "netns"
        return f"{kind}:{name}"

    def run(self, name: str, script: str, *, timeout: float = 60, check: bool = True) -> Result:
        """Run a script on a node of the world."""
        return self.machine.run(script, node=self.node(name), timeout=timeout, check=check)

    def run_many(self, scripts: Sequence[tuple[str, str]], *, timeout: float = 60, check: bool = True) -> list[Result]:
        """Run scripts, (name, script) each, side by side."""
        return self.machine.run_many(
            [(self.node(name), script) for name, script in scripts], timeout=timeout, check=check
        )

    def install(self, host: str, enabled: str, files: Iterable[File], units: Mapping[str, str] = {}) -> None:
        """Make a host's disk: the machine's own root, and above it `files`.

        `enabled` is the manager whose units Debian would have enabled: "networkd" or "networkmanager"; `units` are
        those that an administrator enables, and the files that they come from.
        """
        folder = f"{HOSTS}/{host}"
        machine_id = hashlib.sha256(host.encode()).hexdigest()[:32]
        making = (
            f"mkdir -p {folder}/upper {folder}/work {folder}/root\n"
            f"mount -t overlay lab-{host} -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root\n"
            f"cp -a {ENABLEMENT}/{enabled}/. {folder}/root/\n"
            # A machine id that exists: without, systemd would apply its presets, as at a first boot.
            f"echo {machine_id} > {folder}/root/etc/machine-id\n"
            f"rm -f {folder}/root/etc/systemd/system/multi-user.target.wants/wgnet-lab-agent.service\n"
        )
        self._known.add(host)
        more = [
            File(f"/etc/systemd/system/multi-user.target.wants/{unit}", b"", target=f"/lib/systemd/system/{source}")
            for unit, source in units.items()
        ]
        self.machine.put([*files, *more], root=f"{folder}/root", first=making)

    def boot(self, hosts: Sequence[str], credentials: Mapping[str, Mapping[str, str]] = {}) -> list[str]:
        """Boot hosts from their disks, side by side, and wait until systemd says that it is done.

        `credentials` are systemd's, by host and name. Returns what is not as it should be: the units that failed.
        """
        starting = []
        for host in hosts:
            moving = [f"link set {port.name} netns host-{host}" for port in self.world.nodes[host].ports]
            given = credentials.get(host, {})
            for name, secret in given.items():
                self.machine.run(f"umask 077; cat > {HOSTS}/{host}/{name}", given=secret)
            command = [
                *("systemd-run", "--quiet", f"--unit=lab-{host}"),
                *("--property=Delegate=yes", "--property=TasksMax=infinity"),
                # Its own sysctls of the network are a host's own.
                *("--setenv=SYSTEMD_NSPAWN_API_VFS_WRITABLE=network", "--setenv=SYSTEMD_LOG_LEVEL=warning"),
                # nspawn's own filter of system calls, a tenth of a boot; what services have of their own stays.
                *("--setenv=SYSTEMD_SECCOMP=0", "--"),
                *("systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--boot", "--console=read-only"),
                # Without BPF, as in most containers: networkd's watch on sysctls alone takes two seconds to load here.
                *("--capability=all", "--drop-capability=CAP_BPF"),
                *(f"--machine=boot{next(_BOOTS)}", f"--hostname={host}", f"--directory={HOSTS}/{host}/root"),
                # nspawn itself would wait for udev to have looked at each port that it is to take.
                f"--network-namespace-path=/run/netns/host-{host}",
                *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
                *(f"--load-credential={name}:{HOSTS}/{host}/{name}" for name in given),
            ]
            batch = "\n".join((f"netns add host-{host}", *moving))
            starting.append(f"{ports_script(self.world, host)}\nip -batch - <<'E'\n{batch}\nE\n{shlex.join(command)}")
        self.machine.run("\n".join(starting), timeout=_BOOT_LIMIT)
        waiting = (
            # Nothing ever comes there: it sleeps without a process.
            "exec 9<> <(:)\n"
            "until [ -e /run/systemd/private ]; do read -rt 0.2 -u 9 || true; done\n"
            "state=$(systemctl is-system-running --wait) || true\n"
            '[ "$state" = running ] || { echo "$state:"; systemctl --failed --plain --no-legend; }'
        )
        results = self.run_many([(host, waiting) for host in hosts], timeout=_BOOT_LIMIT, check=False)
        for host, result in zip(hosts, results, strict=True):
            if result.status:
                said = self.machine.run(f"journalctl -b -q --no-pager -o cat -n 30 -u lab-{host}", check=False).stdout
                raise LabError(f"{host} did not boot (status {result.status}): {result.stderr}\n{said}")
        return [
            f"{host}: {result.stdout.strip()}" for host, result in zip(hosts, results, strict=True) if result.stdout
        ]

    def power_off(self, host: str) -> None:
        """Take a host's power away. Its disk stays, what it had in memory is gone."""
        self.machine.run(_kill([host]))

    def close(self) -> None:
        """Take every host and every wire away. A machine that ended, as after a test that failed, took them with it."""
        if self.machine.ended:
            return
        if self._known:
            roots = " ".join(f"{HOSTS}/{host}/root" for host in self._known)
            self.machine.run(
                f"{_kill(self._known)}\numount {roots}\n"
                # What killed containers left: no container of ours lives any more.
                "mapfile -t mounts </proc/self/mounts\n"
                'for line in "${mounts[@]}"; do\n'
                f"  read -r _ at _ <<<$line; case $at in {_NSPAWN}/?*) umount $at ;; esac\n"
                "done\n"
                f"rm -rf --one-file-system {HOSTS}/* {_NSPAWN}/*",
                timeout=300,
            )
        self._known.clear()
        self.machine.run(destroy_script(self.world), timeout=240)


def _kill(hosts: Iterable[str]) -> str:
    """Return the script that ends hosts at once, and waits until systemd has forgotten them."""
    names = list(hosts)
    units = " ".join(f"lab-{host}.service" for host in names)
    return "\n".join(
        (
            f"systemctl kill --kill-whom=all --signal=KILL {units} 2>/dev/null || true",
            # "deactivating" is not yet gone: the next container of that name would be put into the old one's cgroup.
            'alive() { (systemctl is-active "$@" || true) | grep -v -x -e inactive -e failed >/dev/null; }',
            f"while alive {units}; do sleep 0.05; done",
            f"systemctl reset-failed {units} 2>/dev/null || true",
            f"for host in {' '.join(names)}; do",
            "if [ -e /run/netns/host-$host ]; then ip netns delete host-$host; fi",
            "done",
        )
    )
