"""The disk of the lab's machine: a minimal Debian of one suite, and in it what the lab needs.

Input: a suite. Output: a folder with `disk.img`, `vmlinuz` and `initrd`, cached below `$WGNET_LAB_CACHE` (else
`~/.cache/wgnet-lab`) under the hash of the recipe, so that a changed recipe makes a new one. It starts no machine and
knows no topology. Needs root, debootstrap and mkfs.ext4; see `missing_tools`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUITES = ("bookworm", "trixie", "forky")
GUEST = Path(__file__).resolve().parent / "guest"

_MIRROR = "http://deb.debian.org/debian"
#: libpam-systemd is named so that polkitd is configured; python3-* are what Debian's package of wgnet would depend on.
_PACKAGES = (
    "ansible-core",
    "dbus",
    "firewalld",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "netplan.io",
    "network-manager",
    "nftables",
    "openssh-server",
    "polkitd",
    "procps",
    "python3-cffi-backend",  # what provides virtual packages, which debootstrap does not resolve
    "python3-cryptography",
    "python3-dbus-next",
    "python3-jinja2",
    "python3-yaml",
    "systemd",
    "systemd-container",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
    "wireguard-tools",
)
#: What a booting container would spend most of its time on, and no test looks at. Everything that has to do with the
#: network, with sysctl, with names and with the bus is left as Debian ships it.
_MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@.service",
    "netplan-configure.service",  # what its generator is up to Debian 13; netplan's own scenario calls it
    "polkit.service",  # the bus starts it for NetworkManager; who is about users unmasks it
    "proc-sys-fs-binfmt_misc.automount",
    "run-lock.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-initctl.socket",
    "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-sysext.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-creds.socket",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-importd.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-logind-varlink.socket",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-udev-load-credentials.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
    "tmp.mount",
)
#: Shipped enabled; a host of the lab enables the manager that it has (`MANAGER_UNITS`).
_DISABLED = (
    "NetworkManager-dispatcher.service",
    "NetworkManager-wait-online.service",
    "NetworkManager.service",
    "firewalld.service",
    "netplan-ovs-cleanup.service",
    "nftables.service",
    "ssh.service",
    "ssh.socket",
    "sshd-keygen.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-pstore.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "wpa_supplicant.service",
)
#: What `systemctl enable` is asked for on a host under each manager. resolved stands beside both.
MANAGER_UNITS = {
    "networkd": ("systemd-networkd.service", "systemd-resolved.service"),
    "networkmanager": ("NetworkManager.service", "systemd-resolved.service"),
}
#: Where the enablement of MANAGER_UNITS lies in the image, one tree each, to be copied over a host's `/`.
ENABLEMENT = "/usr/share/wgnet-lab"


class LabError(Exception):
    """The lab itself cannot go on: a tool is missing, the image cannot be built, the machine does not boot."""


@dataclass(frozen=True)
class Image:
    """The files that a machine boots from. Read only: a machine writes to a throwaway layer above `disk`."""

    suite: str
    disk: Path
    kernel: Path
    initrd: Path


def missing_tools() -> list[str]:
    """Return what the lab needs and this machine lacks, with the Debian package that has it, for a person to read."""
    found = []
    for tool, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("debootstrap", "debootstrap"),
        ("mkfs.ext4", "e2fsprogs"),
    ):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            found.append(f"{tool} (Debian: apt install {package})")
    if os.geteuid() != 0:
        found.append("root, for debootstrap")
    return found


def cache_folder() -> Path:
    """Return the folder of the images; it need not exist."""
    named = os.environ.get("WGNET_LAB_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "wgnet-lab"


def make_image(suite: str, say: object = print) -> Image:
    """Return the image of a suite, built unless it lies in the cache already.

    `say` takes lines for a person. Raises LabError with the end of the log where debootstrap fails.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    base = cache / f"{suite}-{_digest([suite, _MIRROR, *_PACKAGES])}.tree"
    final = cache / f"{suite}-{_recipe(suite)}"
    with _locked(cache / f"{suite}.lock"):
        if not base.exists():
            _call(say, f"lab: debootstrap of {suite}, once")
            _remove_old(cache, f"{suite}-", "")
            _debootstrap(suite, base)
        if not final.exists():
            _remove_old(cache, f"{suite}-", base.name)
            with _staged(final) as folder:
                _customise(base)
                for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
                    shutil.copyfile(max((base / "boot").glob(pattern)), folder / name)
                disk = folder / "disk.img"
                with disk.open("wb") as file:
                    file.truncate(3 << 30)
                _run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", "-d", str(base), str(disk)])
    return Image(suite, final / "disk.img", final / "vmlinuz", final / "initrd")


def _call(say: object, line: str) -> None:
    if callable(say):
        say(line)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _recipe(suite: str) -> str:
    # What is in the image: the other programs there are put on a host by the tests that run them.
    guest = [f"{name}\0{(GUEST / name).read_text()}" for name in ("agent.py", "wgnet-lab-agent.service")]
    own = Path(__file__).read_text()
    return _digest([suite, own, *guest])


def _debootstrap(suite: str, base: Path) -> None:
    """Unpack and configure the suite below `base`."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if keyring.exists():
        command.append(f"--keyring={keyring}")
    with _staged(base) as folder:
        command += [suite, str(folder), os.environ.get("WGNET_LAB_MIRROR", _MIRROR)]
        # debootstrap has no script for a suite that is younger than itself; all of Debian's lead to this one.
        script = Path("/usr/share/debootstrap/scripts/sid")
        if not script.with_name(suite).exists():
            command.append(str(script))
        _run(command)


def _customise(tree: Path) -> None:
    """Put the lab's agent in, and take out what would cost time. Doing it twice does no harm."""
    (tree / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
    shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
    for unit in _DISABLED:
        _run(["systemctl", f"--root={tree}", "--quiet", "disable", unit], fails=True)
    units = tree / "etc/systemd/system"
    for masked in _MASKED:
        (units / masked).unlink(missing_ok=True)
        (units / masked).symlink_to("/dev/null")
    # Unit generators are for machines with consoles, swap, encrypted disks and init scripts: a process each.
    generators = tree / "etc/systemd/system-generators"
    generators.mkdir(exist_ok=True)
    for generator in (tree / "usr/lib/systemd/system-generators").iterdir():
        (generators / generator.name).unlink(missing_ok=True)
        (generators / generator.name).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    shutil.rmtree(tree / ENABLEMENT.lstrip("/"), ignore_errors=True)
    for manager, wanted in MANAGER_UNITS.items():
        with _enabled(tree, wanted) as links:
            for link in links:
                place = tree / ENABLEMENT.lstrip("/") / manager / link.relative_to(tree)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(link.readlink())
    agent = tree / "usr/local/sbin/wgnet-lab-agent"
    shutil.copyfile(GUEST / "agent.py", agent)
    agent.chmod(0o755)
    service = units / "wgnet-lab-agent.service"
    shutil.copyfile(GUEST / service.name, service)
    wanted_by = units / "multi-user.target.wants" / service.name
    wanted_by.parent.mkdir(exist_ok=True)
    wanted_by.unlink(missing_ok=True)
    wanted_by.symlink_to(f"/etc/systemd/system/{service.name}")
    (tree / "etc/hostname").write_text("lab\n")
    # What resolved wants, on every host of the lab.
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (tree / "etc/machine-id").write_text("")
    _run(["chroot", str(tree), "passwd", "--delete", "root"])


@contextlib.contextmanager
def _enabled(tree: Path, units: tuple[str, ...]) -> Iterator[list[Path]]:
    """Enable units, give the links that this makes, and disable them again."""
    folder = tree / "etc/systemd/system"
    before = set(folder.rglob("*"))
    for unit in units:
        _run(["systemctl", f"--root={tree}", "--quiet", "enable", unit])
    # "Also=" brings units that wait for the network; no host of the lab has a use for the waiting.
    made = [path for path in folder.rglob("*") if path.is_symlink() and path not in before]
    yield [path for path in made if "wait-online" not in path.name]
    for link in made:
        link.unlink()


def _run(command: list[str], fails: bool = False) -> None:
    # An environment of its own: what a caller's Python or locale is set to must not reach the packages' scripts.
    environment = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    environment |= {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode and not fails:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        for log in cache_folder().glob(".new-*/debootstrap/debootstrap.log"):
            end += "\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"{command[0]} failed with status {done.returncode}:\n{end}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _staged(final: Path) -> Iterator[Path]:
    """Give a new folder beside `final` that takes its name when all went well."""
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
    folder.chmod(0o755)
    try:
        yield folder
        folder.rename(final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _remove_old(cache: Path, prefix: str, keep: str) -> None:
    for path in cache.glob(f"{prefix}*"):
        if path.is_dir() and path.name != keep:
            shutil.rmtree(path)
