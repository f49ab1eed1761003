"""What of the keys lies on a host: where, and in which form.

Stage: keys. Input: a network's name, preshared keys, or the text of a file; output: paths, the text of a
file, preshared keys. What opens the files is `wgnet.system.hostkeys`. No diagnostic from here quotes a
line: a line holds a secret.

    /etc/wgnet/NETWORK.key   the host's private key, as `wg genkey` writes it
    /etc/wgnet/NETWORK.psk   a line for each peer: public key, preshared key; '#' begins a comment

A derived preshared key belongs to a pair of keys, so a host that is between two keys of its own has a line for each of
them: public key, preshared key, and the host's own public key that it goes with.
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
    "OwnPresharedKeys",
    "format_preshared_keys",
    "parse_preshared_keys",
    "preshared_keys_path",
    "private_key_path",
]

FOLDER = "/etc/wgnet"

#: Preshared keys by the host's own public key ("" where the file does not say which), then by the peer's.
OwnPresharedKeys = Mapping[str, Mapping[str, PresharedKey]]


def private_key_path(network: str) -> str:
    """Return where a host keeps its private key of a network, unless the topology names another file."""
    return f"{FOLDER}/{network}.key"


def preshared_keys_path(network: str) -> str:
    """Return where a host keeps the preshared keys of its own links; the file is 0600 and root's."""
    return f"{FOLDER}/{network}.psk"


def format_preshared_keys(keys: OwnPresharedKeys) -> str:
    """Return the text of a host's file of preshared keys.

    The lines are sorted, so that equal keys give equal files. The text is secret.
    """
    lines = ["# wgnet: a line for each peer: its public key, and the preshared key of the link"]
    if any(keys):
        lines[0] += "; then the own public key that it goes with"
    for own, of_own in sorted(keys.items(), key=lambda item: item[0]):
        for public, key in sorted(of_own.items(), key=lambda item: item[0]):
            lines.append(f"{public} {key.reveal()} {own}".rstrip())
    return "\n".join(lines) + "\n"


def parse_preshared_keys(text: str, path: str, diagnostics: Diagnostics) -> dict[str, dict[str, PresharedKey]]:
    """Return the preshared keys in the text of a host's file, as `OwnPresharedKeys`.

    Every line that is wrong is reported, with its number in `path`, and left out.
    """
    keys: dict[str, dict[str, PresharedKey]] = {}
    first_lines: dict[tuple[str, str], int] = {}
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
                help=(
                    "write a line for each peer: its public key, a space, the preshared key",
                    "while the host's own keys are rotated add a space and its own public key that the line is for",
                ),
            )
    return keys


def _enter_line(
    words: list[str],
    number: int,
    keys: dict[str, dict[str, PresharedKey]],
    first_lines: dict[tuple[str, str], int],
) -> str | None:
    if len(words) not in (2, 3):
        return f"expected a public key and a preshared key, found {len(words)} word{'s'[: len(words) != 1]}"
    public, secret = words[:2]
    own = words[2] if len(words) == 3 else ""
    problem = check_key(public)
    if problem is not None:
        return f"the public key {problem.value}"
    problem = check_key(own) if own else None
    if problem is not None:
        return f"the own public key {problem.value}"
    key = PresharedKey.parse(secret)
    if isinstance(key, KeyProblem):
        return f"the preshared key {key.value}"
    of_own = keys.setdefault(own, {})
    if public in of_own:
        return f"the public key stands in line {first_lines[own, public]} already"
    of_own[public], first_lines[own, public] = key, number
    return None
