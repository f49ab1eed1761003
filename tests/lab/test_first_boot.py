"""Images: a package's topology, `wgnet render --system --root`, a first boot that makes the key, and files below /run.

Input: a hub that runs, and a host whose disk is made anew while it is off, as an image is built. Output: it boots with
its tunnel up, under a key that nobody shipped; and the same from /run alone, where nothing was rendered before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from example_keys import private_key
from helpers import REPOSITORY

from lab.hub_and_edge import DISK, EDGE, HubAndEdge, topology
from lab.machine import File, Machine
from lab.product import FOLDER, install_product

TOPOLOGY = f"{DISK}/usr/lib/wgnet/corp.yaml"
#: What a package of wgnet brings beside its modules.
PROGRAM = f'#!/bin/sh\nexport PYTHONPATH={FOLDER}\nexec python3 -m wgnet "$@"\n'
UNITS = REPOSITORY / "packaging/systemd"
_NO_FILES = (
    f"rm -rf {DISK}/etc/systemd/network/*-wgnet-* {DISK}/etc/NetworkManager/*/*wgnet-* {DISK}/etc/wgnet"
    f" {DISK}/var/lib/wgnet {DISK}/etc/sysctl.d/50-wgnet* {DISK}/etc/systemd/system/wgnet-m*"
    f" {DISK}/etc/systemd/system/*.wants/wgnet-m*\nmkdir -p {DISK}/usr/lib/wgnet {DISK}/etc/wgnet\n"
)


def corp(manager: str, *, key: bool) -> dict[str, Any]:
    """Return a hub and a host behind which others masquerade; `key`: whether the host's public key is known."""
    return topology("corp", manager, key=key, edge={"advertise": ["192.168.99.0/24"], "masquerade": "true"})


class Image(HubAndEdge):
    """The hub, and a host with wgnet as a package installs it, whose disk can be worked on while it is off."""

    def __init__(self, machine: Machine, suite: str, manager: str, folder: Path) -> None:
        super().__init__(machine, suite, manager, folder, corp(manager, key=True))
        install_product(self.running, [EDGE])
        units = [File(f"/usr/lib/systemd/system/{path.name}", path.read_bytes(), 0o644) for path in UNITS.iterdir()]
        machine.put([File("/usr/bin/wgnet", PROGRAM.encode(), 0o755), *units], node=self.network.node(EDGE))

    def wgnet(self, command: str) -> str:
        """Run wgnet on the machine that builds the image, with the image's own modules."""
        return self.machine.run(f"PYTHONPATH={DISK}{FOLDER} python3 -m wgnet {command} --root {DISK}").stdout

    def put(self, *, key: bool) -> None:
        """Leave of the image what a distribution ships: no file that was rendered, no key, a package's topology."""
        text = yaml.dump(corp(self.manager, key=key), sort_keys=False)
        self.machine.put([File(TOPOLOGY, text.encode(), 0o644)], first=_NO_FILES)

    def boot_named(self) -> None:
        """Boot the host; which one it is, it is told by a credential."""
        self.boot({"wgnet.host": EDGE})


@pytest.fixture
def image(machine: Machine, suite: str, hub_manager: str, tmp_path: Path) -> Iterator[Image]:
    with closing(Image(machine, suite, hub_manager, tmp_path)) as made:
        yield made


@pytest.mark.every_day("trixie-networkmanager")
def test_an_image_without_a_key_boots_with_its_tunnel_up(image: Image) -> None:
    image.run("systemctl enable wgnet-keys.service")
    image.network.power_off(EDGE)
    image.put(key=False)
    assert "written" in image.wgnet(f"render --system --host {EDGE}")
    # Nobody ships a key.
    shipped = f"find {DISK}/etc/wgnet -name '*.key'; grep -rliE '^private-?key *= *.' {DISK}/etc || true"
    assert image.machine.run(shipped).stdout == ""
    image.boot_named()
    public = image.run("cat /etc/wgnet/corp.pub")
    assert image.run("wg show wg0 public-key") == public
    assert f"corp: {EDGE} {public} (in /etc/wgnet/corp.pub)" in image.run(
        "journalctl -b -q -o cat -u wgnet-keys.service"
    )
    # Whoever has the hub is told the key.
    image.tell_hub(public)
    image.pings()
    # Once.
    image.network.power_off(EDGE)
    image.boot_named()
    assert image.run("wg show wg0 public-key") == public
    assert image.run("systemctl show -P ConditionResult wgnet-keys.service") == "no"
    image.pings()


@pytest.mark.every_day("bookworm-networkmanager")
def test_a_boot_renders_below_run(image: Image) -> None:
    """The tunnel, the kernel's parameters and the services come of files that nobody wrote before this boot."""
    image.run("systemctl enable wgnet-render.service")
    image.network.power_off(EDGE)
    image.put(key=True)
    key = private_key("corp", EDGE).reveal()
    image.machine.run(
        f"umask 027; cat >{DISK}/etc/wgnet/corp.key; chroot {DISK} chgrp systemd-network /etc/wgnet/corp.key",
        given=f"{key}\n",
    )
    image.boot_named()
    image.pings()
    assert (
        image.run("find /etc/systemd /etc/NetworkManager /etc/sysctl.d -name '*wgnet-wg0*' -o -name 'wgnet-m*'") == ""
    )
    where = {"networkd": "systemd/network/50-wgnet-wg0.netdev"}.get(
        image.manager, "NetworkManager/system-connections/wgnet-wg0.nmconnection"
    )
    assert image.run(f"ls /run/{where}") == f"/run/{where}"
    assert image.run("sysctl -n net.ipv4.ip_forward") == "1"
    assert image.run("systemctl is-active wgnet-masquerade-wg0.service") == "active"
    assert "masquerade" in image.run("nft list table inet wgnet_masquerade_wg0")
    # It was there before the network began.
    started = image.run(
        "systemctl show -P ActiveEnterTimestampMonotonic wgnet-masquerade-wg0.service network-pre.target"
    ).split()
    assert int(started[0]) <= int(started[1])
