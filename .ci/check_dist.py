"""Check that a built sdist and wheel carry the templates and the manual pages of the checkout."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def main(checkout: str, dist: str) -> int:
    """Return 0 where both carry everything, else 1 after naming what is missing."""
    listed = subprocess.run(
        ["git", "-C", checkout, "ls-files", "templates", "man"], check=True, capture_output=True, text=True
    ).stdout.split()
    templates = [name for name in listed if name.startswith("templates/")]
    pages = [name for name in listed if name.startswith("man/") and name[-2:] in (".1", ".5", ".7", ".8")]
    (sdist,) = Path(dist).glob("*.tar.gz")
    (wheel,) = Path(dist).glob("*.whl")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name.partition(".data/data/")[2] or name for name in archive.namelist()}
    missing = [f"sdist: {name}" for name in (*templates, *pages) if name not in in_sdist]
    missing += [f"wheel: {name}" for name in templates if f"wgnet/{name}" not in in_wheel]
    for page in pages:
        name = Path(page).name
        if f"share/man/man{name[-1]}/{name}" not in in_wheel:
            missing.append(f"wheel: share/man/man{name[-1]}/{name}")
    if not templates or not pages:
        missing.append(f"checkout: {len(templates)} templates, {len(pages)} manual pages")
    for line in missing:
        print(f"missing in {line}", file=sys.stderr)
    print(f"{sdist.name}, {wheel.name}: {len(templates)} templates, {len(pages)} manual pages")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
