"""NetworkManager's reasons in words.

Stage: system. Input: numbers of NMActiveConnectionStateReason and NMDeviceStateReason (libnm-core-public/
nm-dbus-interface.h); output: what a person reads, "" for a reason that tells nothing.
"""

from __future__ import annotations

__all__ = ["connection_reason", "device_reason"]

_CONNECTION = {
    2: "the user disconnected it",
    3: "its device was disconnected",
    4: "the service that it needs stopped",
    5: "the IP configuration was invalid",
    6: "it took too long",
    7: "a service that it needs did not start in time",
    8: "a service that it needs did not start",
    9: "no secrets were given",
    10: "the login was refused",
    11: "the profile was deleted",
    12: "a connection that it needs failed",
    13: "its device could not be made",
    14: "its device was removed",
}
_DEVICE = {
    3: "the device is not managed any more",
    4: "the device could not be made ready for configuration",
    5: "the addresses and routes could not be set",
    6: "the IP configuration is no longer valid",
    7: "no secrets were given: no agent is running, or nobody answered it",
    36: "the device was removed",
    37: "the machine goes to sleep, or networking is switched off",
    38: "the profile was deleted",
    39: "a user disconnected it",
    50: "a connection that it needs failed",
    60: "a new activation took its place",
    64: "an IP address is in use already",
    65: "the method of an IP version is not supported",
}


def connection_reason(number: int) -> str:
    """Return what became of an active connection."""
    return _CONNECTION.get(number, "")


def device_reason(number: int) -> str:
    """Return why a device changed its state, where that tells of a failure."""
    return _DEVICE.get(number, "")
