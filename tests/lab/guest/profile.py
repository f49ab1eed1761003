"""Changes wgnet's profile of a host by wgnet's own way to NetworkManager, and says what came of it in JSON.

Run on a host that has wgnet: `profile.py UUID ACTION [ARGUMENT]`. `settle_device` gives the device back the peers that
it had a moment before the change.
"""

from __future__ import annotations

import copy
import json
import sys
import time

from wgnet.live.changes import device_change, restored_device
from wgnet.managers.nm_settings import Property, Setting, Settings
from wgnet.system import nm_apply
from wgnet.system.dbus import Bus
from wgnet.system.nm import NetworkManagerDaemon
from wgnet.system.wireguard import read_devices, set_device

SAVED = "/run/profile-saved.json"


def as_settings(body):
    """Return plain settings as a description of them."""
    return Settings(
        tuple(
            Setting(name, tuple(Property(key, signature, value) for key, (signature, value) in properties.items()))
            for name, properties in body.items()
        )
    )


def with_address(body, address):
    """Return settings with another IPv4 address of 32 bits, and a route."""
    body = copy.deepcopy(body)
    body["ipv4"] = {name: value for name, value in body["ipv4"].items() if name not in ("addresses", "routes")}
    _, addresses = body["ipv4"]["address-data"]
    addresses.append({"address": ("s", address), "prefix": ("u", 32)})
    signature, routes = body["ipv4"].get("route-data", ("aa{sv}", []))
    route = {"dest": ("s", "10.123.0.0"), "prefix": ("u", 16), "metric": ("u", 2000)}
    body["ipv4"]["route-data"] = (signature, [*routes, route])
    return body


def with_peer(body):
    """Return settings with one peer more."""
    body = copy.deepcopy(body)
    key = "GoJ33mA1HrmeB/LXmbtguHI2Aiaf5ws4/IKxrCxUT0g="
    body["wireguard"]["peers"][1].append({"public-key": ("s", key), "allowed-ips": ("as", ["10.80.0.99/32"])})
    return body


def main(uuid, action, argument=""):
    with Bus.system() as bus:
        nm = NetworkManagerDaemon(bus)
        found = nm_apply.find_profile(nm, uuid)
        before = read_devices()
        settled = []

        def settle():
            for name, device in read_devices().items():
                if name in before:
                    configured = dict.fromkeys(device.peers, "another")
                    set_device(device_change(device, restored_device(before[name]), configured))
            settled.append(time.monotonic())

        said = {}
        if action == "restore":
            with open(SAVED) as file:
                saved = nm_apply.SavedProfile.from_json(json.load(file))
            nm_apply.restore_profile(nm, saved, uuid, settle)
        elif action == "remove":
            nm_apply.remove_profile(nm, uuid)
        else:
            with open(SAVED, "w") as file:
                json.dump(nm_apply.save_profile(nm, uuid).to_json(), file)
            body = found.settings
            if action in ("address", "guard"):
                body = with_address(body, argument)
            elif action == "peer":
                body = with_peer(body)
            elif action == "rename":
                body = {**body, "connection": {**body["connection"], "interface-name": ("s", argument)}}
            wanted = as_settings(body)
            said = {"changes": nm_apply.changes(found, wanted), "costs": nm_apply.costs(found, wanted)}
            if action == "guard":
                nm_apply.guard_profile(nm, uuid, 10)
            nm_apply.apply_profile(nm, wanted, settle)
            said["left"] = nm_apply.changes(nm_apply.find_profile(nm, uuid), wanted)
        active = nm.active(uuid)
        said |= {
            "settled": len(settled),
            "active": None if active is None else active.path,
            "was": None if found is None or found.active is None else found.active.path,
        }
        print(json.dumps(said))


main(*sys.argv[1:])
