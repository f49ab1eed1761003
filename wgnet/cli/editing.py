"""Writes into a topology file in place: the change is proved by reading the result before it replaces the file."""

from __future__ import annotations

from pathlib import Path

from wgnet.cli.inputs import read_bytes
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.record import replace
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.edit import apply_insertions, insert_entry
from wgnet.syntax.spec import Specification
from wgnet.system.textfiles import replace_file


def write_public_keys(file: str, keys: dict[str, str], diagnostics: Diagnostics) -> bool:
    """Write the public keys of hosts without one into a topology file; comments, order and layout stay.

    Return False after reporting why nothing was written. A host whose mapping is shared with another by an alias
    cannot have a key of its own.
    """
    if file == "<stdin>":
        diagnostics.report(
            codes.CANNOT_WRITE,
            "cannot write public keys into standard input",
            help="name the topology's file",
        )
        return False
    data = read_bytes(file, diagnostics)
    before = None if data is None else parse_specification(data, file, Diagnostics())
    if data is None or before is None:
        return False
    marked = data.startswith(b"\xef\xbb\xbf")
    text = data.decode("utf-8-sig")
    shared = _shared_mappings(before)
    insertions = []
    for host, key in keys.items():
        spec = before.hosts.get(host)
        if spec is None or spec.public_key is not None:
            continue
        if id(spec.node) in shared:
            diagnostics.report(
                codes.CANNOT_WRITE,
                f"cannot write the public key of '{host}' into '{file}': by an alias its mapping stands elsewhere too",
                before.host_keys[host].span,
                help="write the host out, and put what is shared into `defaults`",
            )
            return False
        insertions.append(insert_entry(text, spec.node, "public-key", f'"{key}"', "addresses"))
    edited = apply_insertions(text, insertions)
    if not _is_proved(before, edited, file, keys):
        diagnostics.report(
            codes.CANNOT_WRITE,
            f"cannot write public keys into '{file}': its layout is one that wgnet cannot edit; nothing was changed",
            help=[f"write it there by hand: '{host}' has public-key: {key}" for host, key in keys.items()],
        )
        return False
    return replace_file(Path(file), (b"\xef\xbb\xbf" if marked else b"") + edited.encode(), diagnostics)


def _shared_mappings(spec: Specification) -> set[int]:
    seen: set[int] = set()
    shared: set[int] = set()
    for host in (*spec.defaults.values(), *spec.hosts.values()):
        (shared if id(host.node) in seen else seen).add(id(host.node))
    return shared


def _is_proved(before: Specification, edited: str, file: str, keys: dict[str, str]) -> bool:
    """Whether the new text says what the old said, and the keys, and nothing else."""
    diagnostics = Diagnostics()
    after = parse_specification(edited.encode(), file, diagnostics)
    if after is None or diagnostics.has_errors:
        return False
    hosts = {
        name: host if host.public_key is not None or name not in keys else replace(host, public_key=keys[name])
        for name, host in before.hosts.items()
    }
    return list(after.hosts) == list(before.hosts) and after == replace(before, hosts=hosts)
