"""wgnet's Debian package from a file, and packages that bring networks: on a host that runs, and in an image.

Input: a hub that runs, and a host with neither wgnet nor a file of it. Output: dpkg alone brings wgnet, a topology and
its files there and takes them away; a running machine follows as docs/packaging.md tells, others when they boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from example_keys import private_key

from lab.hub_and_edge import DISK, EDGE, HubAndEdge, topology
from lab.machine import File, Machine
from lab.packages import OtherPackage, Packages, other_package
from lab.pinging import until_answered

NETWORK = "acme"
#: What lies behind the hub; the first version of the package knows of the first alone.
BEHIND = ("192.168.90.0/24", "192.168.91.0/24")
BROKEN = b"wgnet: 1\nnetwork: {name: beta}\nhosts: [\n"
#: Everything of wgnet's that is rendered, with its content.
_FILES = "cd {}/etc; find . -name '*wgnet-*' -type f ! -name 'wgnet-lab*' | LC_ALL=C sort | xargs -r sha256sum"
#: Where a package, its hooks or wgnet may have left something; what is the lab's own does not count.
_LEFT = (
    "{ find /etc /run /var/lib /usr/bin /usr/lib/python3 /usr/lib/systemd /usr/lib/wgnet /usr/libexec /usr/share"
    " -name '*wgnet*' ! -name 'wgnet-lab*' 2>/dev/null || true; } | LC_ALL=C sort"
)


class Site(HubAndEdge):
    """The hub, and a host that is given packages."""

    def __init__(self, machine: Machine, suite: str, manager: str, folder: Path) -> None:
        data = topology(NETWORK, manager, key=True, hub={"advertise": list(BEHIND)})
        super().__init__(machine, suite, manager, folder, data, bare=True)

    def put(self, *files: File, root: str = "") -> None:
        """Write files on the host, or below a root in the machine that makes its image."""
        if root:
            self.machine.put(files, root=root)
        else:
            self.machine.put(files, node=self.network.node(EDGE))

    def package(self, version: str, *, behind: int) -> OtherPackage:
        """Return acme-vpn; its topology has so many subnets behind the hub, and cannot know the host's public key."""
        hub = {"advertise": list(BEHIND[:behind])}
        text = yaml.dump(topology(NETWORK, self.manager, key=False, hub=hub), sort_keys=False)
        return other_package("acme-vpn", version, {f"{NETWORK}.yaml": text.encode()})

    def install(self, package: OtherPackage) -> str:
        """Build a package on the host, install it there, and return what dpkg and the hook say."""
        self.put(*package.files)
        return self.run(f"{package.build}; exec 2>&1; dpkg -i {package.path}")

    def behind(self, number: int) -> str:
        """Return the address of a plain host in a subnet behind the hub."""
        address = self.running.world.nodes[f"behind-fra-{number}"].ports[0].address(4)
        assert address is not None
        return address

    def reaches(self, number: int) -> None:
        self.run(until_answered(self.behind(number), 40))

    def files(self) -> str:
        """Return everything of wgnet's that is rendered, with its content."""
        return self.run(_FILES.format(""))

    def routes(self) -> str:
        """Return the routes into the network and what is behind it."""
        return self.run("ip route show table all | grep -E '^(10\\.80|192\\.168\\.9[01])\\.' || true")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def site(machine: Machine, suite: str, hub_manager: str, tmp_path: Path) -> Iterator[Site]:
    with closing(Site(machine, suite, hub_manager, tmp_path)) as made:
        yield made


@pytest.mark.every_day("trixie-networkmanager")
def test_packages_bring_a_network_change_it_and_take_it_away(site: Site, packages: Packages, suite: str) -> None:
    # From a file, on a host that has its libraries. Nothing is enabled, and nothing starts.
    assert site.run(_LEFT) == ""
    wgnet = packages.wgnet(suite)
    site.put(wgnet)
    site.run(f"dpkg -i {wgnet.path}")
    assert site.run("dpkg -V wgnet; dpkg-query -W -f '${db:Status-Status}' wgnet") == "installed"
    assert (
        site.run("find /etc/systemd -name '*wgnet*' ! -name 'wgnet-lab*'; ls -A /etc/wgnet /usr/lib/wgnet")
        == "/etc/wgnet:\n\n/usr/lib/wgnet:"
    )

    # Another package's topology: its files come, and the interface when the administrator says so.
    site.install(site.package("1", behind=1))
    assert NETWORK in site.run("ls /usr/lib/wgnet") and "wg0" in site.files()
    assert site.run("ip -o link show type wireguard") == ""
    said = site.run("wgnet keys generate")
    public = site.run(f"cat /etc/wgnet/{NETWORK}.pub")
    assert public in said
    site.tell_hub(public)
    site.run("wgnet apply")
    site.pings()
    site.pings_back()
    site.reaches(1)
    files, routes = site.files(), site.routes()
    assert f"{BEHIND[0]} dev wg0" in routes and BEHIND[1] not in routes

    # The same again: nothing differs.
    site.install(site.package("1", behind=1))
    assert (site.files(), site.routes()) == (files, routes)
    # An upgrade: the files follow, the running tunnel is left as it is until somebody applies. A profile is
    # NetworkManager's since the first time, and so are its settings.
    said = site.install(site.package("2", behind=2))
    assert (site.files() == files) == (site.manager == "networkmanager")
    assert ("left to NetworkManager" in said) == (site.manager == "networkmanager")
    assert site.routes() == routes
    site.run("wgnet apply")
    assert f"{BEHIND[1]} dev wg0" in site.routes()
    site.reaches(2)

    # One whose topology is broken breaks neither its own installation nor its neighbour.
    files, routes = site.files(), site.routes()
    broken = site.install(other_package("broken-vpn", "1", {"beta.yaml": BROKEN}))
    assert "beta.yaml" in broken and "wgnet render --system" in broken
    assert site.run("dpkg-query -W -f '${db:Status-Status}' broken-vpn") == "installed"
    assert (site.files(), site.routes()) == (files, routes)
    site.pings()

    # Gone: the files at once, the interface with the next boot.
    site.run("dpkg -r broken-vpn acme-vpn")
    assert site.files() == ""
    site.pings()
    site.network.power_off(EDGE)
    site.boot()
    assert site.run("ip -o link show type wireguard") == ""
    assert site.routes() == ""
    # Purged, nothing is left but what is the administrator's.
    assert "/etc/wgnet" in site.run("exec 2>&1; dpkg --purge wgnet")
    assert site.run(_LEFT) == "/etc/wgnet"
    assert site.run("cd /etc/wgnet; echo *") == f"{NETWORK}.key {NETWORK}.pub"


@pytest.mark.every_day("trixie-networkd")
def test_packages_in_an_image_boot_with_their_tunnel_up(site: Site, packages: Packages, suite: str) -> None:
    """dpkg alone, in another root: no systemd runs there and no network is near, as where images are built."""
    site.network.power_off(EDGE)
    wgnet = packages.wgnet(suite)
    acme = site.package("1", behind=1)
    site.put(wgnet, *acme.files, File("/etc/wgnet/host", f"{EDGE}\n".encode()), root=DISK)
    installing = f"dpkg --root={DISK} -i {DISK}{wgnet.path} {DISK}{acme.path}"
    site.machine.run(
        f"chroot {DISK} sh -c '{acme.build}'; {installing}; systemctl --root={DISK} enable wgnet-keys.service",
        timeout=300,
    )
    # Nobody ships a key.
    shipped = f"find {DISK}/etc/wgnet -name '*.key'; grep -rliE '^private-?key *= *.' {DISK}/etc || true"
    assert site.machine.run(shipped).stdout == ""
    # Twice in a row.
    before = site.machine.run(_FILES.format(DISK)).stdout
    assert "wgnet-wg0" in before
    site.machine.run(f"dpkg --root={DISK} -i {DISK}{acme.path}")
    assert site.machine.run(_FILES.format(DISK)).stdout == before

    site.boot()
    public = site.run(f"cat /etc/wgnet/{NETWORK}.pub")
    assert public != private_key(NETWORK, EDGE).public()
    assert site.run("wg show wg0 public-key") == public
    site.tell_hub(public)
    site.pings()
    site.pings_back()
    site.reaches(1)
