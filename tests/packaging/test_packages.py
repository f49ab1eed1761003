"""The packages' sources agree with the program, and their scripts do what they say, without building anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import wgnet.desktop
from wgnet import __version__
from wgnet.managers.artifact import Artifact
from wgnet.system.manifest import Entry, Manifest

CHECKOUT = Path(__file__).parent.parent.parent
PACKAGING = CHECKOUT / "packaging"
DEBIAN = PACKAGING / "debian"
SPEC = PACKAGING / "rpm" / "wgnet.spec"
PKGBUILD = PACKAGING / "arch" / "PKGBUILD"
METAINFO = PACKAGING / "desktop" / "org.example.wgnet.metainfo.xml"
SCRIPTS = [
    PACKAGING / "build",
    PACKAGING / "chroot.sh",
    PACKAGING / "hooks" / "render-system",
    PKGBUILD,
    PACKAGING / "arch" / "wgnet.install",
    *sorted(DEBIAN.glob("wgnet*.p*[mt]")),
    CHECKOUT / ".ci" / "packaging",
    CHECKOUT / ".ci" / "completions",
]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
    )


# --- versions ---


def test_versions_are_the_program_s() -> None:
    assert re.match(rf"wgnet \({re.escape(__version__)}-\d+\) unstable;", read(DEBIAN / "changelog"))
    assert f"\nVersion:        {__version__}\n" in read(SPEC)
    assert f" - {__version__}-1\n" in read(SPEC).partition("%changelog")[2]
    assert f"\npkgver={__version__}\n" in read(PKGBUILD)
    release = ElementTree.parse(METAINFO).find("releases/release")
    assert release is not None
    assert release.get("version") == __version__


def test_changelog_is_what_dpkg_reads() -> None:
    done = run("dpkg-parsechangelog", "-l", DEBIAN / "changelog", "-S", "Version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{__version__}-")


# --- what belongs to the packages ---

UNITS = sorted(path.name for path in (PACKAGING / "systemd").iterdir())
PAGES = sorted(path.name for path in (CHECKOUT / "man").glob("*.[1-9]"))
DESKTOP = sorted(path for path in (PACKAGING / "desktop").rglob("*") if path.is_file())


def test_units_are_all_shipped() -> None:
    assert "wgnet-refresh.timer" in UNITS
    assert all(name.startswith("wgnet-") and name.endswith((".service", ".timer")) for name in UNITS)
    assert "for file in packaging/systemd/*; do" in read(DEBIAN / "rules")
    assert "packaging/systemd/* %{buildroot}%{_unitdir}/" in read(SPEC)
    assert '"$pkgdir/usr/lib/systemd/system" packaging/systemd/*' in read(PKGBUILD)


def test_units_are_enabled_by_no_package() -> None:
    installs = re.findall(r"dh_installsystemd .*", read(DEBIAN / "rules"))
    assert len(installs) == 2
    assert all("--no-enable --no-start" in each for each in installs)
    for script in (
        *DEBIAN.glob("wgnet*.p*"),
        PACKAGING / "hooks" / "render-system",
        PACKAGING / "arch" / "wgnet.install",
    ):
        assert not re.search(r"systemctl.* (enable|start)|deb-systemd-invoke (start|restart)", read(script))


@pytest.mark.parametrize("name", PAGES)
def test_manual_pages_are_in_the_wheel_and_the_lists(name: str) -> None:
    assert f'"man/{name}"' in read(CHECKOUT / "pyproject.toml"), "the packages take the pages from the wheel"
    assert f"%{{_mandir}}/man{name[-1]}/{name}*" in read(SPEC)
    assert "usr/share/man" in read(DEBIAN / "wgnet.install").splitlines()


@pytest.mark.parametrize("path", DESKTOP, ids=lambda path: path.name)
def test_desktop_files_are_in_every_package(path: Path) -> None:
    folder = path.relative_to(PACKAGING / "desktop").parts[0]
    name = path.name if folder != "icons" else "icons/hicolor"
    lists = (DEBIAN / "wgnet-desktop.install", DEBIAN / "wgnet-desktop.manpages")
    assert any(f"packaging/desktop/{name}" in read(each) for each in lists)
    assert path.name in read(SPEC)
    assert f"packaging/desktop/{name}" in read(PKGBUILD)


def test_collection_is_where_ansible_looks() -> None:
    collection = "ansible_collections/wgnet/fleet"
    place = f"share/ansible/collections/{collection}"
    assert f"packaging/ansible/{collection}/* usr/{place}" in read(DEBIAN / "wgnet.install").splitlines()
    spec = read(SPEC)
    assert f"%global collection %{{_datadir}}/{place.removeprefix('share/')}\n" in spec
    assert f"cp -a packaging/ansible/{collection}/* %{{buildroot}}%{{collection}}/\n" in spec
    assert "\n%{_datadir}/ansible/\n" in spec.partition("%files\n")[2].partition("%files desktop")[0]
    build = read(PKGBUILD).partition("package_wgnet()")[2].partition("package_wgnet-desktop()")[0]
    assert f'"$pkgdir/usr/{place}"' in build
    assert f'cp -r packaging/ansible/{collection}/* "$collection/"' in build


def test_templates_are_in_the_wheel() -> None:
    assert '"templates" = "wgnet/templates"' in read(CHECKOUT / "pyproject.toml")


def test_libraries_are_what_the_packages_ask_for() -> None:
    listed = re.search(r"^dependencies = \[(.*)\]$", read(CHECKOUT / "pyproject.toml"), re.MULTILINE)
    assert listed
    names = sorted(re.findall(r'"([a-z0-9-]+)', listed[1]))
    assert names == ["cryptography", "dbus-next", "jinja2", "pyyaml"]
    arch = {"jinja2": "python-jinja", "pyyaml": "python-yaml"}
    debian = {"pyyaml": "python3-yaml"}
    depends = re.search(r"package_wgnet\(\) \{\n    depends=\((.*)\)", read(PKGBUILD))
    assert depends
    assert depends[1].split() == ["python", *sorted(arch.get(name, f"python-{name}") for name in names)]
    for name in names:
        assert f" {debian.get(name, f'python3-{name}')} <!nocheck>," in read(DEBIAN / "control")
        assert f"BuildRequires:  python3-{name}\n" in read(SPEC)


def test_entry_points_are_the_packages_programs() -> None:
    scripts = read(CHECKOUT / "pyproject.toml").partition("[project.scripts]\n")[2].partition("\n\n")[0]
    programs = re.findall(r"^(\S+) =", scripts, re.MULTILINE)
    lists = "\n".join(read(path) for path in DEBIAN.glob("wgnet*.install")).splitlines()
    assert sorted(line for line in lists if line.startswith("usr/bin/")) == sorted(
        f"usr/bin/{each}" for each in programs
    )
    assert all(f"\n%{{_bindir}}/{each}\n" in read(SPEC) for each in programs)


# --- what is read by others ---


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path: Path) -> None:
    shell = "sh" if read(path).startswith("#!/bin/sh") else "bash"
    done = run(shell, "-n", path)
    assert (done.returncode, done.stderr) == (0, "")


def test_desktop_s_files_agree() -> None:
    component = ElementTree.parse(METAINFO).getroot()
    launchable = component.findtext("launchable")
    assert launchable == f"{component.findtext('id')}.desktop"
    entry = dict(line.split("=", 1) for line in read(PACKAGING / "desktop" / launchable).splitlines() if "=" in line)
    assert entry["Exec"] == f"{component.findtext('provides/binary')} %f"
    mime = ElementTree.parse(PACKAGING / "desktop" / "wgnet.xml").getroot()
    space = "{http://www.freedesktop.org/standards/shared-mime-info}"
    kind = mime.find(f"{space}mime-type")
    assert kind is not None
    assert entry["MimeType"] == f"{kind.get('type')};" == f"{component.findtext('provides/mediatype')};"
    pattern = kind.find(f"{space}glob")
    icon = kind.find(f"{space}icon")
    assert pattern is not None and icon is not None
    assert pattern.get("pattern") == "*.wgnet.yaml"
    icons = PACKAGING / "desktop" / "icons" / "hicolor" / "scalable"
    assert (icons / "mimetypes" / f"{icon.get('name')}.svg").is_file()
    assert (icons / "apps" / f"{entry['Icon']}.svg").is_file()
    dialogue = read(Path(wgnet.desktop.__file__).with_name("dialog.py"))
    assert f'\nAPPLICATION = "{launchable.removesuffix(".desktop")}"\n' in dialogue


def test_dialogue_s_page_has_its_options() -> None:
    done = run(sys.executable, "-m", "wgnet.desktop.main", "--help", PYTHONPATH=os.pathsep.join(sys.path))
    assert done.returncode == 0, done.stderr
    page = read(PACKAGING / "desktop" / "wgnet-import-dialog.1")
    assert set(re.findall(r"--([a-z-]+)", done.stdout)) == set(re.findall(r"Fl (?:h , )?-([a-z-]+)", page))
    lint = run("mandoc", "-T", "lint", "-W", "warning", PACKAGING / "desktop" / "wgnet-import-dialog.1")
    assert (lint.returncode, lint.stdout) == (0, "")


# --- the hook ---


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a folder with a `wgnet` that says how it was called, and fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "wgnet"
    program.write_text('#!/bin/sh\necho "called: $*"\nexit 1\n')
    program.chmod(0o755)
    return folder


def hook(root: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return run("sh", PACKAGING / "hooks" / "render-system", DPKG_ROOT=str(root), PATH=path)


def test_hook_has_nothing_to_do_without_a_topology(tmp_path: Path, programs: Path) -> None:
    done = hook(tmp_path / "root", programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("folder", ["etc/wgnet", "run/wgnet", "usr/local/lib/wgnet", "usr/lib/wgnet"])
def test_hook_renders_and_never_fails(tmp_path: Path, programs: Path, folder: str) -> None:
    root = tmp_path / "root"
    (root / folder).mkdir(parents=True)
    (root / folder / "office.yaml").symlink_to("/dev/null")
    done = hook(root, programs)
    assert (done.returncode, done.stdout) == (0, f"called: render --system --root {root}/\n")
    assert "wgnet render --system" in done.stderr


def test_hook_renders_when_the_last_topology_has_gone(tmp_path: Path, programs: Path) -> None:
    root = tmp_path / "root"
    state = root / "var/lib/wgnet"
    state.mkdir(parents=True)
    (state / "manifest.json").write_bytes(Manifest().to_bytes())
    assert hook(root, programs).stdout == ""
    (state / "manifest.json").write_bytes(Manifest(entries={"etc/x": Entry(network="office")}).to_bytes())
    assert hook(root, programs).stdout == f"called: render --system --root {root}/\n"


# --- removing and purging, below a root ---


def artifact(path: str, content: bytes = b"written\n", *, target: str | None = None) -> Artifact:
    return Artifact(path=f"/{path}", network="office", content=content, target=target)


def written(root: Path, *artifacts: Artifact, folders: tuple[str, ...] = ()) -> None:
    """Write files as `wgnet render --system` does, with their manifest."""
    entries = {}
    for each in artifacts:
        path = each.path.removeprefix("/")
        entries[path] = Entry.of(each)
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if each.target is not None:
            place.symlink_to(each.target)
        else:
            place.write_bytes(each.content)
    state = root / "var/lib/wgnet"
    state.mkdir(parents=True)
    manifest = Manifest(entries=entries, folders=dict.fromkeys(folders))
    (state / "manifest.json").write_bytes(manifest.to_bytes())


def purge(root: Path, action: str = "purge") -> subprocess.CompletedProcess[str]:
    return run("sh", DEBIAN / "wgnet.postrm", action, DPKG_ROOT=str(root))


def test_purge_takes_what_was_written_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    wants = "etc/systemd/system/multi-user.target.wants"
    written(
        root,
        artifact("etc/systemd/network/50-wgnet-wg0.netdev"),
        artifact("etc/systemd/network/50-wgnet-wg1.netdev", b"as it was\n"),
        artifact("etc/wgnet/nftables/wg0.nft"),
        artifact(f"{wants}/wgnet-masquerade-wg0.service", target="../wgnet-masquerade-wg0.service"),
        artifact(f"{wants}/theirs.service", target="../wgnet-mark-wg0.service"),
        folders=("etc/wgnet/nftables", "etc/systemd", "etc/systemd/network"),
    )
    network = root / "etc/systemd/network"
    (network / "50-wgnet-wg1.netdev").write_text("changed by hand\n")
    (network / "20-wired.network").write_text("theirs\n")
    (root / wants / "theirs.service").unlink()
    (root / wants / "theirs.service").symlink_to("../theirs.service")
    done = purge(root)
    assert done.returncode == 0, done.stderr
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink())
    assert left == [
        "etc/systemd/network/20-wired.network",
        "etc/systemd/network/50-wgnet-wg1.netdev",
        f"{wants}/theirs.service",
    ]
    assert f"left, since it was changed by hand: {network}/50-wgnet-wg1.netdev" in done.stderr
    assert not (root / "var/lib/wgnet").exists()
    assert not (root / "etc/wgnet").exists()


def test_purge_leaves_keys_and_says_so(tmp_path: Path) -> None:
    root = tmp_path / "root"
    written(root, artifact("etc/systemd/network/50-wgnet-wg0.netdev"))
    (root / "etc/wgnet").mkdir()
    key = root / "etc/wgnet/office.key"
    key.write_text("a key\n")
    done = purge(root)
    assert (done.returncode, key.read_text()) == (0, "a key\n")
    assert f"{root}/etc/wgnet" in done.stderr
    assert not (root / "etc/systemd/network/50-wgnet-wg0.netdev").exists()


def test_removal_leaves_what_was_written(tmp_path: Path) -> None:
    root = tmp_path / "root"
    written(root, artifact("etc/systemd/network/50-wgnet-wg0.netdev"))
    done = purge(root, "remove")
    assert (done.returncode, done.stderr) == (0, "")
    assert (root / "etc/systemd/network/50-wgnet-wg0.netdev").read_text() == "written\n"
    assert (root / "var/lib/wgnet/manifest.json").exists()


def test_purge_goes_nowhere_by_a_manifest_s_dots(tmp_path: Path) -> None:
    root = tmp_path / "root"
    written(root, artifact("etc/inside"))
    outside = tmp_path / "outside"
    outside.write_text("written\n")
    manifest = root / "var/lib/wgnet/manifest.json"
    manifest.write_text(manifest.read_text().replace('"etc/inside"', '"etc/../../outside"'))
    assert purge(root).returncode == 0
    assert outside.exists()


def test_purge_takes_profiles_by_their_record(tmp_path: Path) -> None:
    from wgnet.syntax.spec import Manager
    from wgnet.system.profiles import write_record_file
    from wgnet.system.snapshot import Owned

    root = tmp_path / "root"
    uuid = "0b5e7a0c-91d4-5e0e-a1a8-5fd5a8f37ba5"
    profiles = root / "etc/NetworkManager/system-connections"
    profiles.mkdir(parents=True)
    (profiles / "office.nmconnection").write_text(f"[connection]\nid=office\nuuid={uuid}\n")
    (profiles / "home wifi.nmconnection").write_text("[connection]\nuuid=1b5e7a0c-91d4-5e0e-a1a8-5fd5a8f37ba5\n")
    owned = Owned(interface="wg0", network="office", manager=Manager.NETWORKMANAGER, uuid=uuid)
    write_record_file(root / "var/lib/wgnet/profiles.json", [owned])
    assert purge(root).returncode == 0
    assert [path.name for path in profiles.iterdir()] == ["home wifi.nmconnection"]


@pytest.mark.parametrize("action", ["remove", "upgrade"])
def test_removal_is_refused_while_a_change_waits(tmp_path: Path, action: str) -> None:
    root = tmp_path / "root"
    (root / "var/lib/wgnet/apply").mkdir(parents=True)
    command = ("sh", DEBIAN / "wgnet.prerm", action)
    assert run(*command, DPKG_ROOT=str(root)).returncode == 0
    (root / "var/lib/wgnet/apply/armed").touch()
    done = run(*command, DPKG_ROOT=str(root))
    assert done.returncode == (1 if action == "remove" else 0)
    assert ("wgnet confirm" in done.stderr) == (action == "remove")


# --- packaging/build ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "usage: packaging/build"),
        (("tar",), "unknown argument 'tar'"),
        (("deb", "rpm"), "one kind of package at a time"),
        (("deb", "--suite"), "--suite takes a value"),
        (("deb", "--suite", "sid"), "unknown suite 'sid'"),
        (("rpm", "--suite=trixie"), "built in bookworm alone"),
    ],
)
def test_build_refuses_what_it_does_not_know(arguments: tuple[str, ...], said: str) -> None:
    done = run("bash", PACKAGING / "build", *arguments, HOME="/nowhere")
    assert done.returncode == 2
    assert said in done.stderr


def test_build_names_the_tools_that_are_missing(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "cat"):
        found = run("sh", "-c", f"command -v {name}").stdout.strip()
        (tmp_path / name).symlink_to(found)
    done = run(tmp_path / "bash", PACKAGING / "build", "deb", HOME="/nowhere", PATH=str(tmp_path))
    assert done.returncode == 6
    assert "debootstrap (Debian's package debootstrap)" in done.stderr
