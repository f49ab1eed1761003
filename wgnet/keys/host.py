"""What of the keys lies on a host: where, and in which form.

Stage: keys. Input: a network's name, preshared keys, or the text of a file; output: paths, the text of a
file, preshared keys. What opens the files is `wgnet.system.hostkeys`. No diagnostic from here quotes a
line: a line holds a secret.

    /etc/wgnet/NETWORK.key   the host's private key, as `wg genkey` writes it
    /etc/wgnet/NETWORK.psk   a line for each peer: public key, preshared key; '#' begins a comment
"""

from __future__ import annotations

from collections.abc import Mapping

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.span import Span
from wgnet.keys.base64 import KeyProblem, check_key
from wgnet.keys.types import PresharedKey

__all__ = [
    "FOLDER",
    "format_preshared_keys",
    "parse_preshared_keys",
    "preshared_keys_path",
    "private_key_path",
]

FOLDER = "/etc/wgnet"


def private_key_path(network: str) -> str:
    """Return where a host keeps its private key of a network, unless the topology names another file."""
    return f"{FOLDER}/{network}.key"


def preshared_keys_path(network: str) -> str:
    """Return where a host keeps the preshared keys of its own links; the file is 0600 and root's."""
    return f"{FOLDER}/{network}.psk"


def format_preshared_keys(keys: Mapping[str, PresharedKey]) -> str:
    """Return the text of a host's file of preshared keys; `keys` goes by the peers' public keys.

    The lines are sorted, so that equal keys give equal files. The text is secret.
    """
    lines = ["# wgnet: a line for each peer: its public key, and the preshared key of the link"]
    lines += [f"{public} {key.reveal()}" for public, key in sorted(keys.items(), key=lambda item: item[0])]
    return "\n".join(lines) + "\n"


def parse_preshared_keys(text: str, path: str, diagnostics: Diagnostics) -> dict[str, PresharedKey]:
    """Return the preshared keys in the text of a host's file by the peers' public keys.

    Every line that is wrong is reported, with its number in `path`, and left out.
    """
    keys: dict[str, PresharedKey] = {}
    first_lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        # Whole-line or trailing: '#' is in no key.
        words = line.partition("#")[0].split()
        if not words:
            continue
        problem = _enter_line(words, number, keys, first_lines)
        if problem is not None:
            diagnostics.report(
                codes.KEY_STORE,
                problem,
                # The place has no width, and the text is not among the sources: no excerpt shows the line.
                Span(path, number, 1, number, 1),
                help="write a line for each peer: its public key, a space, the preshared key",
            )
    return keys


def _enter_line(
    words: list[str], number: int, keys: dict[str, PresharedKey], first_lines: dict[str, int]
) -> str | None:
    if len(words) != 2:
        return f"expected a public key and a preshared key, found {len(words)} word{'s'[: len(words) != 1]}"
    public, secret = words
    problem = check_key(public)
    if problem is not None:
        return f"the public key {problem.value}"
    key = PresharedKey.parse(secret)
    if isinstance(key, KeyProblem):
        return f"the preshared key {key.value}"
    if public in keys:
        return f"the public key stands in line {first_lines[public]} already"
    keys[public], first_lines[public] = key, number
    return None
