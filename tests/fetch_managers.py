"""Fetch other Debian suites' systemd-networkd and NetworkManager for the tests with the real parsers.

Input: the machine's own apt sources, from which the mirror is taken. Output: one unpacked tree a suite below a cache
folder (`$WGNET_MANAGERS`, else `~/.cache/wgnet-managers`), complete with its own loader and libraries, so that a
daemon runs in it by chroot. Packages are verified by apt against the machine's keyring, unpacked, and never
configured: no maintainer script runs, and nothing outside the cache folder is touched.

Usage: python3 tests/fetch_managers.py [--force] [SUITE...]

Ubuntu's versions (systemd 249, NetworkManager 1.36) cannot be had from Debian's mirrors; `realparsers.since` tells by
a table which keys they do not know.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: The suites beside the machine's own. `sid` has what forky has, or what it will have in days.
SUITES = ("trixie", "sid")

#: What the harness starts in a tree; apt adds what these need.
PACKAGES = (
    "systemd",
    "network-manager",
    "wireguard-tools",
    "dbus-daemon",
    "dbus-bin",
)

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def cache_folder() -> Path:
    """Return the folder that holds one tree a suite; it need not exist."""
    named = os.environ.get("WGNET_MANAGERS")
    return Path(named) if named else Path.home() / ".cache" / "wgnet-managers"


def suite_root(suite: str) -> Path | None:
    """Return the root of a suite's tree, or None where it was not fetched completely."""
    root = cache_folder() / suite
    return root if (root / ".complete").exists() else None


def _mirror() -> str:
    """Return the address of the Debian archive that this machine's own main component comes from."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    own = _own_codename()
    for line in listing.splitlines():
        release, component, uri = line.split("|", 2)
        if release == own and component == "main":
            return uri
    raise SystemExit(f"no apt source for the main component of '{own}' on this machine")


def _own_codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise SystemExit("this machine's /etc/os-release names no Debian release")


def _configuration(work: Path, suite: str, mirror: str) -> Path:
    """Write an apt configuration that shares nothing with the machine's but its transport settings."""
    for folder in ("state/lists/partial", "cache/archives/partial", "empty"):
        (work / folder).mkdir(parents=True)
    (work / "status").write_text("")
    (work / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n")
    path = work / "apt.conf"
    path.write_text(
        # The machine's hooks would clean its own caches, or refresh catalogues for minutes.
        "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n#clear DPkg::Pre-Install-Pkgs;\n"
        f'Dir::Etc::sourcelist "{work}/sources.list";\nDir::Etc::sourceparts "{work}/empty";\n'
        f'Dir::Etc::preferences "{work}/empty/none";\nDir::Etc::preferencesparts "{work}/empty";\n'
        f'Dir::State "{work}/state";\nDir::State::status "{work}/status";\nDir::Cache "{work}/cache";\n'
        'APT::Sandbox::User "root";\nAPT::Install-Recommends "false";\nAcquire::Languages "none";\n'
        # A mirror may be frozen at a date; what it holds is still signed.
        'Acquire::Check-Valid-Until "false";\nAcquire::Retries "3";\n'
        # Nothing is installed: the machine's own dpkg must never hear of these.
        'APT::Get::Download-Only "true";\n'
    )
    return path


def fetch(suite: str, mirror: str) -> Path:
    """Download and unpack one suite; return the root of its tree.

    Raises subprocess.CalledProcessError where apt or dpkg fails.
    """
    started = time.monotonic()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{suite}-", dir=cache) as folder:
        work = Path(folder)
        apt = ["apt-get", "-c", str(_configuration(work, suite, mirror)), "-qq"]
        subprocess.run([*apt, "update"], check=True, stdout=sys.stderr)
        subprocess.run([*apt, "-y", "install", *PACKAGES], check=True, stdout=sys.stderr)
        root = work / "root"
        root.mkdir(mode=0o755)
        # Every suite here has a merged /usr; packages may still ship paths below the old folders.
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        for archive in sorted((work / "cache/archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
        # Mount points for the sandbox, whatever the packages bring.
        for name in ("dev", "etc", "proc", "run", "sys", "tmp", "var"):
            (root / name).mkdir(exist_ok=True)
        for name in ("usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(root / name, ignore_errors=True)
        # The sandbox enters the tree as an unprivileged user.
        root.chmod(0o755)
        (root / ".complete").write_text(f"{suite}\n")
        target = cache / suite
        if target.exists():
            shutil.rmtree(target)
        root.rename(target)
    print(f"{suite}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return target


def main(arguments: list[str] | None = None) -> int:
    """Fetch the named suites, or all, that are not there yet."""
    parser = argparse.ArgumentParser(description="fetch other suites' network managers for the tests")
    parser.add_argument("--force", action="store_true", help="fetch again what is there")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"default: {' '.join(SUITES)}")
    options = parser.parse_args(arguments)
    wanted = options.suites or list(SUITES)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with open(cache_folder() / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [suite for suite in wanted if options.force or suite_root(suite) is None]
        if missing:
            mirror = _mirror()
            with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
                for done in [pool.submit(fetch, suite, mirror) for suite in missing]:
                    done.result()
    for suite in wanted:
        print(suite_root(suite))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
