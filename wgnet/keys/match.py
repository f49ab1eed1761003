"""Whether a private key is the one that the topology speaks of.

Stage: keys. Input: a private key and a host's public keys; output: a diagnostic where they are no pair.
"""

from __future__ import annotations

from collections.abc import Collection

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics, Label
from wgnet.diagnostics.span import Span
from wgnet.keys.types import PrivateKey

__all__ = ["check_key_pair"]


def check_key_pair(
    private: PrivateKey,
    public_keys: Collection[str],
    where: str,
    diagnostics: Diagnostics,
    at: Span | Label | None = None,
) -> bool:
    """Return whether `private` belongs to one of `public_keys`, and report KEY_MISMATCH if not.

    During a rotation a host has two public keys, and may hold the private key of either. `where` names the
    file that the private key came from, `at` the public key in the topology.
    """
    public = private.public()
    if public in public_keys:
        return True
    if private.reveal() in public_keys:
        diagnostics.report(
            codes.PRIVATE_KEY_IN_TOPOLOGY,
            "the host's private key stands in the topology in the place of its public key",
            at,
            help="make a new key: this one is known to whoever read the file",
        )
        return False
    diagnostics.report(
        codes.KEY_MISMATCH,
        f"the private key in '{where}' does not belong to the host's public key",
        at,
        help=f"write its public key '{public}' into the topology, or put the right private key in its place",
    )
    return False
