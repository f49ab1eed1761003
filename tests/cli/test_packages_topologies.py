"""`wgnet render --system` over topologies that several packages bring: what is wrong with one is that one's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.command import PROGRAM, Result, environment, wgnet_here
from realparsers import require_root

from wgnet.managers.networkmanager import profile_uuid

KEYS = (
    "lp/qXJlJu0ZUNgPqO1hPhNzmqHZ0SlhwaUAhqMEISR8=",
    "xeWmdxiLjgebpcItF1ouRo0ntrgFekquRJZQO+vsQVs=",
)


def topology(network: str, number: int, *, interface: str | None = None, own: str = "", more: str = "") -> str:
    """Return a network of this host, `edge`, and a hub; `own` is written of `edge`, `more` after the hub."""
    return (
        f"wgnet: 1\nnetwork: {{name: {network}, interface: {interface or network}, subnets: [10.{number}.0.0/24],"
        f" listen-port: 51{number}}}\n"
        f"peering: {{hub: fra}}\nhosts:\n  edge: {{addresses: [10.{number}.0.2]{own}}}\n"
        f'  fra: {{addresses: [10.{number}.0.1], endpoint: 192.0.2.1, public-key: "{KEYS[0]}"}}\n{more}'
    )


KEY = f', public-key: "{KEYS[1]}"'


class Image:
    """A root with topologies of packages and of an administrator."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("etc/wgnet", "usr/lib/wgnet"):
            (root / folder).mkdir(parents=True)
        (root / "etc/wgnet/host").write_text("edge\n")

    def put(self, name: str, text: str, folder: str = "usr/lib/wgnet") -> Path:
        path = self.root / folder / f"{name}.yaml"
        path.write_text(text)
        return path

    def render(self, *options: str) -> Result:
        return wgnet_here("render", "--system", "--root", self.root, "--diagnostics", "concise", *options)

    @property
    def files(self) -> dict[str, str]:
        folder = self.root / "etc/systemd/network"
        return {path.name: path.read_text() for path in sorted(folder.glob("*"))} if folder.is_dir() else {}

    @property
    def interfaces(self) -> list[str]:
        return [name.removeprefix("50-wgnet-").removesuffix(".netdev") for name in self.files if name.endswith("v")]


@pytest.fixture
def image(tmp_path: Path) -> Image:
    made = Image(tmp_path / "image")
    made.put("alpha", topology("alpha", 81, own=KEY))
    made.put("beta", topology("beta", 82, own=KEY))
    done = made.render()
    assert (done.status, made.interfaces) == (0, ["alpha", "beta"]), done.err
    return made


@pytest.mark.parametrize(
    "broken",
    [
        "wgnet: 1\nnetwork: [",
        "",
        "wgnet: 1\nnetwork: {name: beta}\n",
        topology("beta", 82, own=KEY).replace("hub: fra", "hub: nobody"),
        topology("beta", 82, own=KEY).replace("10.82.0.1]", "10.99.0.1]"),
        topology("beta", 82, own=f"{KEY}, manager-version: 1, manager: networkmanager"),
    ],
    ids=["no YAML", "masked", "no host", "no such hub", "outside", "too old a manager"],
)
def test_a_broken_topology_keeps_its_last_good_files_and_lets_others_change(image: Image, broken: str) -> None:
    before = image.files
    image.put("beta", broken)
    image.put("alpha", topology("alpha", 91, own=KEY))
    image.put("gamma", topology("gamma", 83, own=KEY))
    done = image.render()
    assert image.interfaces == (["alpha", "beta", "gamma"] if broken else ["alpha", "gamma"])
    assert "10.91.0.2/24" in image.files["50-wgnet-alpha.network"]
    if not broken:  # an empty file masks, on purpose
        assert (done.status, "error" in done.err) == (0, False)
        return
    assert done.status == 1
    assert "beta.yaml" in done.err
    assert "left as it was: 'beta'" in done.out
    for name in ("50-wgnet-beta.netdev", "50-wgnet-beta.network"):
        assert image.files[name] == before[name]
    # Its package goes, and a mended one comes.
    (image.root / "usr/lib/wgnet/beta.yaml").unlink()
    assert (image.render().status, image.interfaces) == (0, ["alpha", "gamma"])
    image.put("beta", topology("beta", 92, own=KEY))
    assert (image.render().status, image.interfaces) == (0, ["alpha", "beta", "gamma"])


def test_while_one_cannot_be_read_what_it_may_have_written_stays(image: Image) -> None:
    """Its text does not say which network it was; another that really went stays with it until it is mended."""
    (image.root / "usr/lib/wgnet/alpha.yaml").unlink()
    image.put("beta", "wgnet: [")
    done = image.render()
    assert (done.status, image.interfaces) == (1, ["alpha", "beta"])
    assert "left as it was: 'alpha' and 'beta'" in done.out
    image.put("beta", topology("beta", 82, own=KEY).replace("hub: fra", "hub: nobody"))
    assert (image.render().status, image.interfaces) == (1, ["beta"])


def test_of_two_that_contradict_each_other_the_one_that_is_there_stays(image: Image) -> None:
    before = image.files
    image.put("aaa", topology("aaa", 84, own=KEY, interface="beta"))
    done = image.render()
    assert (done.status, image.files) == (1, before)
    assert "aaa.yaml" in done.err
    # Nothing of its was written, so nothing of its is left.
    assert "left as it was" not in done.out


def test_the_administrators_file_wins(image: Image) -> None:
    image.put("zzz", topology("zzz", 84, own=KEY, interface="beta"), "etc/wgnet")
    done = image.render()
    assert (done.status, image.interfaces) == (1, ["alpha", "beta"])
    assert "10.84.0.2/24" in image.files["50-wgnet-beta.network"]
    image.put("beta", "", "etc/wgnet")
    assert (image.render().status, image.interfaces) == (0, ["alpha", "beta"])


def test_a_file_that_a_person_changed_stands_in_its_own_networks_way_alone(image: Image) -> None:
    mine = image.root / "etc/systemd/network/50-wgnet-beta.network"
    mine.write_text("# mine\n")
    image.put("alpha", topology("alpha", 91, own=KEY))
    (image.root / "etc/systemd/network/50-wgnet-beta.netdev").unlink()
    done = image.render()
    assert done.status == 1
    assert "error[WG6002]" in done.err
    assert "10.91.0.2/24" in image.files["50-wgnet-alpha.network"]
    assert mine.read_text() == "# mine\n"
    # All of a network, or nothing of it.
    assert "50-wgnet-beta.netdev" not in image.files
    assert (image.render("--force").status, image.interfaces) == (0, ["alpha", "beta"])


def test_warnings_are_errors_of_their_own_network_too(image: Image) -> None:
    image.put("gamma", topology("gamma", 83, own=KEY, more="unknown-key: 1\n"))
    loud = topology("gamma", 83, own=KEY).replace("10.83.0.0/24", "8.8.8.0/24").replace("10.83.0", "8.8.8")
    image.put("gamma", loud)
    lenient = image.render()
    assert (lenient.status, image.interfaces) == (0, ["alpha", "beta", "gamma"])
    assert "warning" in lenient.err
    image.put("alpha", topology("alpha", 91, own=KEY))
    strict = image.render("--strict")
    assert (strict.status, image.interfaces) == (1, ["alpha", "beta", "gamma"])
    assert "10.91.0.2/24" in image.files["50-wgnet-alpha.network"]


def test_the_first_topology_of_all_is_broken(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    image.put("alpha", "wgnet: [")
    assert (image.render().status, image.files) == (1, {})


def test_a_host_whose_key_is_yet_to_be_made_has_files_without_it(image: Image) -> None:
    """Its peers need its public key, which nobody has before the first boot."""
    image.put("beta", topology("beta", 82))
    done = image.render()
    assert done.status == 0, done.err
    assert image.interfaces == ["alpha", "beta"]
    other = topology("beta", 82).replace(f', public-key: "{KEYS[0]}"', KEY)
    image.put("beta", other.replace("edge:", "home:") + "  edge: {addresses: [10.82.0.3]}\n")
    assert image.render().status == 1  # `home` has no key, and is not this host


def test_links_of_an_image_are_read_as_it_reads_them(image: Image, tmp_path: Path) -> None:
    """Nothing of the machine that builds it comes into its files, nor into what is said of them."""
    secret = tmp_path / "secret"
    secret.write_text("of-the-builder: 1\n{# of-the-builder #}\n")
    (image.root / "srv").mkdir()
    (image.root / "srv/there.yaml").write_text(topology("alpha", 85, own=KEY))
    (image.root / "srv/host").write_text("edge\n")
    (image.root / "etc/wgnet/host").unlink()
    (image.root / "etc/wgnet/host").symlink_to("/srv/host")
    (image.root / "usr/lib/wgnet/alpha.yaml").unlink()
    (image.root / "usr/lib/wgnet/alpha.yaml").symlink_to("/srv/there.yaml")
    assert image.render().status == 0
    assert "10.85.0.2/24" in image.files["50-wgnet-alpha.network"]
    for place in (str(secret), os.path.relpath(secret, image.root / "usr/lib/wgnet"), "gamma.yaml"):
        link = image.root / "usr/lib/wgnet/gamma.yaml"
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        done = image.render()
        assert (done.status, image.interfaces) == (1, ["alpha", "beta"])
        assert "gamma.yaml' cannot be read" in done.err
        assert "of-the-builder" not in done.err
    link.unlink()
    templates = image.root / "etc/wgnet/templates/networkd"
    templates.mkdir(parents=True)
    (templates / "network.j2").symlink_to(secret)
    (image.root / "srv/there.yaml").write_text(topology("alpha", 86, own=KEY))
    done = image.render()
    assert (done.status, "points to a file that does not exist" in done.err) == (1, True), done.err
    assert not [text for text in image.files.values() if "of-the-builder" in text]
    # A folder of the system's that leads elsewhere, too.
    (image.root / "run").mkdir()
    (image.root / "run/wgnet").symlink_to(tmp_path)
    (tmp_path / "delta.yaml").write_text(topology("delta", 87, own=KEY))
    (templates / "network.j2").unlink()
    assert (image.render().status, image.interfaces) == (0, ["alpha", "beta"])


def test_a_topology_that_lies_elsewhere_by_a_link_is_not_edited(image: Image, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(topology("alpha", 81))
    (image.root / "srv").mkdir()
    # Whose key is not here: nothing would be edited for that alone.
    (image.root / "usr/lib/wgnet/beta.yaml").unlink()
    (image.root / "srv/alpha.yaml").write_text(topology("alpha", 81))
    there = image.root / str(outside).lstrip("/")
    there.parent.mkdir(parents=True)
    there.write_text(topology("alpha", 81))
    (image.root / "etc/wgnet/alpha.yaml").symlink_to(f"/srv/../..{outside}")
    wgnet_here("keys", "generate", "--root", image.root)
    assert outside.read_text() == topology("alpha", 81)
    (image.root / "etc/wgnet/alpha.yaml").unlink()
    (image.root / "etc/wgnet/alpha.yaml").symlink_to("/srv/alpha.yaml")
    wgnet_here("keys", "generate", "--root", image.root)
    assert (image.root / "srv/alpha.yaml").read_text() == topology("alpha", 81)
    # The administrator's own is, however the root was written down.
    for number, root in enumerate((f"{image.root}/", f"/{image.root}", f"{image.root}/etc/..", image.root), 81):
        (image.root / "etc/wgnet/alpha.yaml").unlink(missing_ok=True)
        (image.root / "etc/wgnet/alpha.yaml").write_text(topology("alpha", number))
        wgnet_here("keys", "generate", "--root", root)
        assert (image.root / "etc/wgnet/alpha.yaml").read_text() != topology("alpha", number)


# --- whose files are they? -------------------------------------------------------------------------------------------


def _inside(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace of its own."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(**variables),
    )


NAMED = "names.yaml"


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """A topology that does not have this machine, so that a command about it says what its name is."""
    (tmp_path / NAMED).write_text(topology("office", 81, own=KEY))
    return tmp_path


def _asked(folder: Path) -> str:
    return " ".join((*PROGRAM, "render", "--system", str(folder / NAMED), "--diagnostics", "concise"))


def test_the_kernels_command_line_names_the_host(names: Path) -> None:
    require_root("mounts")
    (names / "cmdline").write_text("root=/dev/vda quiet wgnet.host=booted-as splash\n")
    done = _inside(f'mount --bind "$1" /proc/cmdline; {_asked(names)}', str(names / "cmdline"))
    assert "there is no host 'booted-as'" in done.stderr
    # In a container that is another machine's command line.
    done = _inside(
        'mount --bind "$1" /proc/cmdline; mount -t tmpfs none /run; mkdir /run/systemd\n'
        f"echo lxc >/run/systemd/container; {_asked(names)}",
        str(names / "cmdline"),
    )
    assert "booted-as" not in done.stderr
    assert "there is no host" in done.stderr


def test_a_credential_names_the_host_before_all_but_the_command_line(names: Path) -> None:
    require_root("mounts")
    (names / "wgnet.host").write_text("told\n")
    (names / "cmdline").write_text("wgnet.host=booted-as\n")
    script = f'mount --bind "$1" /proc/cmdline; {_asked(names)}'
    done = _inside(script, str(names / "cmdline"), CREDENTIALS_DIRECTORY=str(names))
    assert "there is no host 'told'" in done.stderr
    done = _inside(f"{script} --host said", str(names / "cmdline"), CREDENTIALS_DIRECTORY=str(names))
    assert "there is no host 'said'" in done.stderr
    system = 'mount -t tmpfs none /run; mkdir -p /run/credentials/@system; cp "$1" /run/credentials/@system/wgnet.host'
    done = _inside(f"{system}; {_asked(names)}", str(names / "wgnet.host"))
    assert "there is no host 'told'" in done.stderr


def test_in_a_chroot_the_running_machines_name_says_nothing(names: Path) -> None:
    """A package that is installed into an image is installed on another machine than the one that builds it."""
    require_root("mounts")
    root = names / "chroot"
    root.mkdir()
    own = [
        f"/{name}" for name in os.listdir("/") if name not in ("etc", "proc", "tmp") and not os.path.islink(f"/{name}")
    ]
    links = [f"cp -a /{name} $root/" for name in os.listdir("/") if os.path.islink(f"/{name}")]
    binds = [f"mkdir -p $root{path}; mount --rbind {path} $root{path}" for path in own if os.path.isdir(path)]
    script = "\n".join(
        (
            'root="$1"; mount -t tmpfs none "$root"; mkdir "$root/etc" "$root/proc" "$root/tmp"',
            'mount -t proc none "$root/proc"; mount --rbind /tmp "$root/tmp"',
            *links,
            *binds,
            f'[ -z "$2" ] || echo "$2" >"$root/etc/hostname"; chroot "$root" {_asked(names)}',
        )
    )
    assert sys.executable.startswith((*own, "/tmp"))
    done = _inside(script, str(root), "image.example.net")
    assert "there is no host 'image'" in done.stderr, done.stderr
    done = _inside(script, str(root), "", CREDENTIALS_DIRECTORY=str(names))
    assert "error[WG6005]" in done.stderr, done.stderr
    assert "/etc/hostname" in done.stderr, done.stderr


PROFILES = {network: profile_uuid(network, "edge") for network in ("alpha", "gamma")}


@pytest.fixture
def applied(tmp_path: Path) -> Image:
    """Two networks of which `wgnet apply` made profiles; of one, gamma, the package goes. A person's profile beside."""
    made = Image(tmp_path / "image")
    made.put("alpha", topology("alpha", 81, own=f"{KEY}, manager: networkmanager"))
    folder = made.root / "etc/NetworkManager/system-connections"
    folder.mkdir(parents=True)
    for network, uuid in PROFILES.items():
        (folder / f"wgnet-{network}.nmconnection").write_text(f"[connection]\nid={network}\nuuid={uuid}\n")
    (folder / "wgnet-mine.nmconnection").write_text("[connection]\nid=mine\n")
    record = {uuid: {"network": network, "interface": network} for network, uuid in PROFILES.items()}
    (made.root / "var/lib/wgnet").mkdir(parents=True)
    (made.root / "var/lib/wgnet/profiles.json").write_text(json.dumps({"version": 1, "profiles": record}))
    return made


def profiles(image: Image) -> list[str]:
    return sorted(path.name for path in (image.root / "etc/NetworkManager/system-connections").iterdir())


def test_a_profile_goes_with_the_package_that_brought_its_network(applied: Image) -> None:
    done = applied.render()
    assert done.status == 0, done.err
    assert "removed: the profile 'gamma'" in done.out
    assert profiles(applied) == ["wgnet-alpha.nmconnection", "wgnet-mine.nmconnection"]
    assert "removed" not in applied.render().out
    # The last one, and nothing else of wgnet's is there.
    (applied.root / "usr/lib/wgnet/alpha.yaml").unlink()
    done = applied.render()
    assert (done.status, profiles(applied)) == (0, ["wgnet-mine.nmconnection"]), done.err
    assert not (applied.root / "var/lib/wgnet/profiles.json").exists()


def test_a_profile_stays_where_nobody_knows_what_its_topology_says(applied: Image) -> None:
    applied.put("gamma", "wgnet: 1\nnetwork: [")
    assert applied.render().status == 1
    assert profiles(applied) == ["wgnet-alpha.nmconnection", "wgnet-gamma.nmconnection", "wgnet-mine.nmconnection"]
