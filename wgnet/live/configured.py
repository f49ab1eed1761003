"""What a file of systemd-networkd says of its peers' endpoints.

Stage: live. Input: the text of a .netdev as wgnet writes it; output: endpoints by public key. A live endpoint may be
where a peer roamed to, so only the file tells whether what is configured has changed. Opens nothing.
"""

from __future__ import annotations

__all__ = ["endpoints_of_netdev"]


def endpoints_of_netdev(text: str) -> dict[str, str | None]:
    """Return each peer's `Endpoint=`, None where it has none."""
    found: dict[str, str | None] = {}
    section: dict[str, str] = {}
    for line in (*text.splitlines(), "["):
        if line.startswith("["):
            if "PublicKey" in section:
                found[section["PublicKey"]] = section.get("Endpoint")
            section = {}
        elif not line.startswith(("#", ";")):
            key, equals, value = line.partition("=")
            if equals:
                section[key.strip()] = value.strip()
    return found
