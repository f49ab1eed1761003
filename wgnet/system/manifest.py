"""What was written by an earlier run: only that may be replaced or removed.

Stage: disk. Input: the bytes of a manifest, or the entries of this run. Output: entries by path, or bytes that depend
on nothing but them. Must not hold times, inodes or anything else that differs between two equal runs, nor a secret: a
content is known by its SHA-256, which for what holds a key (256 random bits) tells nothing.

SHA-256 was the fastest of hashlib's on a processor with its instructions (0.08 s for 133 MB; BLAKE2b 0.19 s), and a
thread of its own for it made a run slower, not faster: handing the interpreter's lock over costs more than hashing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from wgnet.managers.artifact import Artifact
from wgnet.system.files import Standing, check_relative

__all__ = ["BadManifestError", "Entry", "Manifest", "digest"]

_VERSION = 1


class BadManifestError(Exception):
    """The text is no manifest that this version could have written."""


def digest(content: bytes) -> str:
    """Return the SHA-256 of a content, in hexadecimal."""
    return hashlib.sha256(content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file as it was written: either `sha256` and `size`, or a symbolic link's `target`."""

    network: str
    sha256: str = ""
    size: int = 0
    mode: int = 0
    owner: str = ""
    group: str = ""
    target: str | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> Entry:
        """Return the entry of an artifact."""
        if artifact.target is not None:
            return cls(network=artifact.network, target=artifact.target)
        return cls(
            network=artifact.network,
            sha256=digest(artifact.content),
            size=len(artifact.content),
            mode=artifact.mode,
            owner=artifact.owner,
            group=artifact.group,
        )

    def describes(self, standing: Standing) -> bool:
        """Return whether this content, or this link, is what stands there; its mode and owner do not matter."""
        if self.target is not None:
            return standing.kind == "link" and standing.target == self.target
        return (
            standing.kind == "file"
            and standing.content is not None
            and len(standing.content) == self.size
            and digest(standing.content) == self.sha256
        )


@dataclass(slots=True, kw_only=True)
class Manifest:
    """Entries by path, relative to the root, and the folders that were made for them."""

    entries: dict[str, Entry] = field(default_factory=dict)
    folders: dict[str, None] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON, an entry a line in the order of the paths."""
        lines = []
        for path, entry in sorted(self.entries.items()):
            value: dict[str, Any] = {"path": path, "network": entry.network}
            if entry.target is not None:
                value["target"] = entry.target
            else:
                value["sha256"] = entry.sha256
                value["size"] = entry.size
                value["mode"] = f"{entry.mode:04o}"
                value["owner"] = entry.owner
                value["group"] = entry.group
            lines.append(json.dumps(value))
        files = ",\n".join(lines)
        folders = ",\n".join(json.dumps(path) for path in sorted(self.folders))
        return f'{{"version": {_VERSION},\n"files": [\n{files}\n],\n"folders": [\n{folders}\n]}}\n'.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Return the manifest of a text. Raises `BadManifestError`, whose text says why."""
        try:
            value = json.loads(data)
            if value["version"] != _VERSION:
                raise BadManifestError(f"expected version {_VERSION}, found {value['version']!r}")
            entries = {str(item["path"]): _entry(item) for item in value["files"]}
            folders = {str(path): None for path in value["folders"]}
            for path in (*entries, *folders):
                check_relative(path)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadManifestError("the text is damaged") from error
        return cls(entries=entries, folders=folders)


def _entry(item: dict[str, Any]) -> Entry:
    network = str(item["network"])
    if "target" in item:
        return Entry(network=network, target=str(item["target"]))
    return Entry(
        network=network,
        sha256=str(item["sha256"]),
        size=int(item["size"]),
        mode=int(item["mode"], 8),
        owner=str(item["owner"]),
        group=str(item["group"]),
    )
