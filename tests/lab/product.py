"""wgnet itself on a booted host: as an administrator has it there, run by the guest's own Python and libraries.

Input: a scenario that runs. Output: wgnet below `FOLDER` on its hosts, and the command that runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import wgnet
from lab.machine import File
from lab.running import Running

FOLDER = "/opt/wgnet"
#: Runs wgnet on a host where `install_product` put it.
WGNET = f"PYTHONPATH={FOLDER} python3 -m wgnet"


@cache
def product_files() -> tuple[File, ...]:
    """Return the package and its templates, as a checkout has them beside each other."""
    package = Path(wgnet.__file__).parent
    templates = package / "templates" if (package / "templates").is_dir() else package.parent / "templates"
    found = [
        (f"{FOLDER}/wgnet/{path.relative_to(package)}", path)
        for path in sorted(package.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    ]
    found += [
        (f"{FOLDER}/templates/{path.relative_to(templates)}", path)
        for path in sorted(templates.rglob("*"))
        if path.is_file()
    ]
    return tuple(File(place, path.read_bytes(), 0o644) for place, path in found)


def install_product(running: Running, hosts: Iterable[str], topologies: Mapping[str, str] | None = None) -> None:
    """Put wgnet on hosts, and topologies (texts by file name) into their /etc/wgnet."""
    texts = [File(f"/etc/wgnet/{name}", text.encode(), 0o644) for name, text in (topologies or {}).items()]
    for host in hosts:
        running.machine.put([*product_files(), *texts], node=running.network.node(host))
        # Compiled once, as a package's installation does: it is half of what a start takes under emulation.
        script = f"install -d -m 755 /etc/wgnet; echo {host} >/etc/wgnet/host; python3 -m compileall -q {FOLDER}/wgnet"
        running.network.run(host, script)
