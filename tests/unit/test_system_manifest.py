"""The manifest: the same entries give the same bytes, and no text makes it name a place outside."""

from __future__ import annotations

import json

import pytest

from wgnet.managers.artifact import Artifact
from wgnet.system.files import Standing
from wgnet.system.manifest import BadManifestError, Entry, Manifest, digest

FILE = Artifact(path="/etc/x", network="office", content=b"[x]\n", mode=0o640, group="systemd-network", secret=True)
LINK = Artifact(path="/etc/y", network="office", target="../x")


def standing(**values: object) -> Standing:
    given: dict[str, object] = {
        "kind": "file",
        "found": "a file",
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": 0,
        "identity": (1, 2, 3),
        "content": b"",
    }
    return Standing(**{**given, **values})  # type: ignore[arg-type]


def test_a_manifest_is_read_as_it_was_written() -> None:
    manifest = Manifest(entries={"etc/y": Entry.of(LINK), "etc/x": Entry.of(FILE)}, folders={"etc/b": None, "a": None})
    text = manifest.to_bytes()
    assert Manifest.from_bytes(text) == manifest
    turned = Manifest(entries={"etc/x": Entry.of(FILE), "etc/y": Entry.of(LINK)}, folders={"a": None, "etc/b": None})
    assert turned.to_bytes() == text
    assert json.loads(text)["files"][0] == {
        "path": "etc/x",
        "network": "office",
        "sha256": digest(b"[x]\n"),
        "size": 4,
        "mode": "0640",
        "owner": "root",
        "group": "systemd-network",
    }
    assert Manifest.from_bytes(Manifest().to_bytes()) == Manifest()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/../../b", ""])
@pytest.mark.parametrize("part", ["files", "folders"])
def test_a_path_that_leads_out_spoils_the_manifest(path: str, part: str) -> None:
    value = json.loads(Manifest(entries={"etc/x": Entry.of(FILE)}, folders={"a": None}).to_bytes())
    value[part][0] = path if part == "folders" else {**value["files"][0], "path": path}
    with pytest.raises(BadManifestError, match="damaged"):
        Manifest.from_bytes(json.dumps(value).encode())


@pytest.mark.parametrize("text", [b"", b"\0\0", b"[]", b"{}", b'{"version": 1}', b"\xff", b"[" * 100000])
def test_damage_is_said(text: bytes) -> None:
    with pytest.raises(BadManifestError):
        Manifest.from_bytes(text)


def test_a_later_version_is_not_guessed() -> None:
    with pytest.raises(BadManifestError, match="expected version 1, found 2"):
        Manifest.from_bytes(b'{"version": 2}')


def test_an_entry_describes_its_content_alone() -> None:
    entry = Entry.of(FILE)
    assert entry.describes(standing(content=b"[x]\n"))
    assert not entry.describes(standing(content=b"[y]\n"))
    assert not entry.describes(standing(content=None))
    assert not entry.describes(standing(kind="link", content=None, target="../x"))
    assert Entry.of(LINK).describes(standing(kind="link", content=None, target="../x"))
    assert not Entry.of(LINK).describes(standing(kind="link", content=None, target="x"))
