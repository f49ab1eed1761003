"""No command shows a secret, whatever the network, the format, the error or the command line."""

from __future__ import annotations

import binascii
import contextlib
import io
import itertools
import os
import tempfile
from pathlib import Path

import pytest
from example_keys import master_secret, next_private_key
from example_keys import private_key as example_key
from example_trees import examples, read_fleet, store_of
from hypothesis import given, settings
from hypothesis import strategies as st

from property.networks import Draft, drafts, private_key
from property.rendered import MASTER
from wgnet.cli.main import main
from wgnet.keys.derive import derive_preshared_key
from wgnet.keys.types import Secret


def spellings(secrets: list[Secret]) -> list[str]:
    """Return the secrets in every way in which one could slip out."""
    texts: list[str] = []
    for secret in secrets:
        text = secret.reveal()
        raw = binascii.a2b_base64(text)
        texts += [text, text.rstrip("="), raw.hex(), repr(raw)[2:-1]]
    return texts


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run a command line; return its status and all that it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
    return status, said.getvalue()


def everything_said(files: list[Path], hosts: list[str], store: Path, folder: Path) -> str:
    """Return what the commands say that have to do with a network, in all their formats."""
    keys, given_files = ("--keys", store), [item for path in files for item in ("-f", path)]
    said = [run("render", *files, *keys, "-o", folder / "out")]
    said += [run("check", *files, "--format", style) for style in ("full", "concise", "json", "github")]
    said += [run("diff", files[0], files[-1], *form) for form in ((), ("--format", "json"))]
    for host in hosts:
        said += [run("render", *files, *keys, "--host", host, "--stdout")]
        said += [run("show", host, *given_files, "--format", style) for style in ("table", "json", "hosts")]
    # The files are on the disk now; one was changed, so that the second run has something to say.
    for path in itertools.islice((path for path in (folder / "out").rglob("*") if path.is_file()), 3):
        path.write_bytes(b"changed " + path.read_bytes())
    said += [run("render", *files, *keys, "-o", folder / "out", *form) for form in ((), ("--force",))]
    assert all(status in (0, 1, 3, 6) for status, _ in said), said
    assert all(text for status, text in said if status)
    return "".join(text for _, text in said)


@pytest.mark.parametrize("name", examples())
def test_no_command_shows_a_secret_of_an_example(name: str, tmp_path: Path) -> None:
    paths = examples()[name]
    fleet, _ = read_fleet({path.name: path.read_text() for path in paths})
    store = store_of(fleet, tmp_path / "store")
    secrets: list[Secret] = []
    for routing in fleet.routings:
        network, hosts = routing.topology.name, routing.topology.hosts
        master = master_secret(network)
        secrets.append(master)
        for host in hosts:
            secrets += [example_key(network, host.name), next_private_key(network, host.name)]
            for rank in routing.links.rules[routing.links.rank[host.name]] if not host.disabled else ():
                peer = routing.links.hosts[rank]
                secrets.append(derive_preshared_key(master, str(host.public_key), str(peer.public_key)))
    hosts = fleet.host_names()[:6]
    said = everything_said(paths, hosts, store, tmp_path)
    assert not [text for text in spellings(secrets) if text in said]
    # Masks are there where a file of root's alone has something to mask.
    assert ("(hidden)" in said) is (name != "site-to-site")


# A dozen commands each time, with files on the disk.
@settings(max_examples=settings.default.max_examples // 2)  # type: ignore[union-attr]
@given(drafts(max_hosts=5), st.integers(0, 3))
def test_no_command_shows_a_secret_of_any_network(draft: Draft, damage: int) -> None:
    names = list(draft.hosts)
    secrets: list[Secret] = [MASTER, *map(private_key, names)]
    for one, two in itertools.combinations(names, 2):
        secrets.append(derive_preshared_key(MASTER, private_key(one).public(), private_key(two).public()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = folder / "store" / "net"
        network.mkdir(mode=0o700, parents=True)
        for host, secret in [("_master", MASTER), *((name, private_key(name)) for name in names)]:
            text = secret.reveal()
            if damage == 1:  # keys of others
                text = private_key(f"{host}-other").reveal()
                secrets.append(private_key(f"{host}-other"))
            elif damage == 2:  # keys that are cut off, or have something behind
                text = text[:-3] if len(host) % 2 else f"{text} {text}"
            path = network / f"{host}.key"
            path.touch(mode=0o644 if damage == 3 else 0o600)
            path.write_text(text + "\n")
        os.chmod(folder / "store", 0o700)
        topology = folder / "net.yaml"
        topology.write_text(draft.text())
        said = everything_said([topology], names[:2], folder / "store", folder)
    assert not [text for text in spellings(secrets) if text in said]


@given(drafts(max_hosts=4), st.data())
def test_a_private_key_that_strays_into_a_topology_is_not_shown(draft: Draft, data: st.DataObject) -> None:
    secret = private_key("stray")
    text = draft.text()
    # As it stands, a character too long or too short: it may have been copied badly.
    shape = data.draw(st.sampled_from(["{}", "{}x", "{:.43}", "{:.40}"]))
    place = data.draw(st.sampled_from(["private-key", "preshared-key", "PrivateKey", "psk", "secret", "description"]))
    shown = shape.format(secret.reveal())
    name = next(iter(draft.hosts))
    stray = text.replace(f"  {name}: {{", f'  {name}: {{{place}: "{shown}", ', 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.yaml")
        path.write_text(stray)
        for style in ("full", "concise", "json", "github"):
            status, said = run("check", path, "--format", style)
            assert status == (0 if place == "description" else 1)
            assert shown[:40] not in said
