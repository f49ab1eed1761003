"""How far a host is in changing its keys.

Stage: keys. Input: what the topology says and which private keys are at hand; output: a stand, and the step that comes
next. Opens no file.

A rotation goes through four states of the topology and the private keys, each applied on every host concerned before
the next one is entered:

    stand      topology            private key   others kept   who must have applied it before the next step
    IDLE       K                   K
    PREPARED   K, next N           K             next N        the peers: they know N too, without AllowedIPs
    SWITCHED   K, next N           N             previous K    the host: it speaks under N now
    (IDLE)     N                   N                           nobody: K is known in vain where it still is

So any mix of two neighbouring states talks: before the switch every host uses K, which all know; at the switch every
peer knows both, and `wgnet refresh` moves the AllowedIPs to the one that shook hands last; at the end the host uses N,
which all know. A derived preshared key belongs to a pair of keys, so two hosts that rotate at once agree on one for
whichever two keys they use. BEGUN and ENDING are what a killed run leaves of the steps `prepare` and `finish`.
"""

from __future__ import annotations

import enum

from wgnet.keys.types import PrivateKey
from wgnet.record import record

__all__ = ["STEPS", "KeysAtHand", "Stand", "stand_of"]

#: The steps in their order.
STEPS = ("prepare", "switch", "finish")


class Stand(enum.Enum):
    """Where a host stands; the values are an interface (`keys rotate --format json`)."""

    #: No rotation is under way.
    IDLE = "idle"
    #: A next private key was made, but does not stand in the topology: `prepare` was killed.
    BEGUN = "begun"
    #: The next key stands in the topology; the host uses its present one.
    PREPARED = "prepared"
    #: The host's private key is the next one.
    SWITCHED = "switched"
    #: The topology has the new key alone, but the old private key is still there: `finish` was killed.
    ENDING = "ending"
    #: The topology has a next public key, and its private key is nowhere.
    LOST = "lost"
    #: The private key is not at hand, so the topology is all there is.
    UNKNOWN = "unknown"
    #: The private key belongs to neither public key.
    MISMATCH = "mismatch"

    @property
    def next_step(self) -> str | None:
        """The step that comes next, where one can be taken."""
        return {
            Stand.IDLE: "prepare",
            Stand.BEGUN: "prepare",
            Stand.PREPARED: "switch",
            Stand.SWITCHED: "finish",
            Stand.ENDING: "finish",
        }.get(self)


@record()
class KeysAtHand:
    """A host's private keys where one looked: its own, the one that it changes to, whether the one before is there."""

    present: PrivateKey | None
    following: PrivateKey | None
    has_previous: bool


def stand_of(public_key: str | None, next_public_key: str | None, keys: KeysAtHand) -> Stand:
    """Return where a host stands that has these public keys in the topology and these private keys."""
    if keys.present is None or public_key is None:
        return Stand.UNKNOWN
    present = keys.present.public()
    if next_public_key is None:
        if present != public_key:
            return Stand.MISMATCH
        if keys.has_previous:
            return Stand.ENDING
        return Stand.IDLE if keys.following is None else Stand.BEGUN
    if present == next_public_key:
        return Stand.SWITCHED
    if present != public_key:
        return Stand.MISMATCH
    if keys.following is None or keys.following.public() != next_public_key:
        return Stand.LOST
    return Stand.PREPARED
