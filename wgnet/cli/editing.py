"""Writes into a topology file in place: the change is proved by reading the result before it replaces the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wgnet.cli.inputs import read_bytes
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.record import replace
from wgnet.syntax.decode import parse_specification
from wgnet.syntax.edit import Insertion, apply_insertions, insert_entry, remove_entry, replace_value
from wgnet.syntax.spec import HostSpec, Specification
from wgnet.system.textfiles import replace_file

#: From the text, a host and the key to write, the changes of the text; None where the layout allows none.
_Edit = Callable[[str, HostSpec, str], list[Insertion] | None]


def write_public_keys(file: str, keys: dict[str, str], diagnostics: Diagnostics) -> bool:
    """Write the public keys of hosts without one into a topology file; comments, order and layout stay.

    Return False after reporting why nothing was written. A host whose mapping is shared with another by an alias
    cannot have a key of its own.
    """

    def edit(text: str, host: HostSpec, key: str) -> list[Insertion]:
        return [insert_entry(text, host.node, "public-key", f'"{key}"', "addresses")]

    return _write(
        file,
        keys,
        edit,
        lambda host, key: host if host.public_key is not None else replace(host, public_key=key),
        "public-key",
        diagnostics,
    )


def write_next_public_keys(file: str, keys: dict[str, str], diagnostics: Diagnostics) -> bool:
    """Write the keys that hosts change to into a topology file, as `write_public_keys` does."""

    def edit(text: str, host: HostSpec, key: str) -> list[Insertion]:
        return [insert_entry(text, host.node, "next-public-key", f'"{key}"', "public-key")]

    return _write(
        file,
        keys,
        edit,
        lambda host, key: host if host.next_public_key is not None else replace(host, next_public_key=key),
        "next-public-key",
        diagnostics,
    )


def end_rotations(file: str, keys: dict[str, str], diagnostics: Diagnostics) -> bool:
    """Make hosts' next public keys, which are `keys`, their only ones in a topology file, as `write_public_keys` does.

    What the line of `next-public-key` has of a comment goes with it.
    """

    def edit(text: str, host: HostSpec, key: str) -> list[Insertion] | None:
        edits = (replace_value(host.node, "public-key", f'"{key}"'), remove_entry(text, host.node, "next-public-key"))
        return [one for one in edits if one is not None] if all(edits) else None

    return _write(
        file,
        keys,
        edit,
        lambda host, key: host if host.public_key == key else replace(host, public_key=key, next_public_key=None),
        "public-key (in the place of next-public-key)",
        diagnostics,
    )


def _write(
    file: str,
    keys: dict[str, str],
    edit: _Edit,
    expected: Callable[[HostSpec, str], HostSpec],
    what: str,
    diagnostics: Diagnostics,
) -> bool:
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
    hosts = dict(before.hosts)
    insertions: list[Insertion] = []
    possible = True
    for host, key in keys.items():
        spec = before.hosts.get(host)
        if spec is None or expected(spec, key) == spec:
            continue
        if id(spec.node) in shared:
            diagnostics.report(
                codes.CANNOT_WRITE,
                f"cannot write the public key of '{host}' into '{file}': by an alias its mapping stands elsewhere too",
                before.host_keys[host].span,
                help="write the host out, and put what is shared into `defaults`",
            )
            return False
        hosts[host] = expected(spec, key)
        edits = edit(text, spec, key)
        possible = possible and edits is not None
        insertions += edits or ()
    edited = apply_insertions(text, insertions)
    if not possible or not _is_proved(replace(before, hosts=hosts), edited, file):
        diagnostics.report(
            codes.CANNOT_WRITE,
            f"cannot write public keys into '{file}': its layout is one that wgnet cannot edit; nothing was changed",
            help=[f"write it there by hand: '{host}' has {what}: {key}" for host, key in keys.items()],
        )
        return False
    if edited == text:
        return True
    return replace_file(Path(file), (b"\xef\xbb\xbf" if marked else b"") + edited.encode(), diagnostics)


def _shared_mappings(spec: Specification) -> set[int]:
    seen: set[int] = set()
    shared: set[int] = set()
    for host in (*spec.defaults.values(), *spec.hosts.values()):
        (shared if id(host.node) in seen else seen).add(id(host.node))
    return shared


def _is_proved(expected: Specification, edited: str, file: str) -> bool:
    """Whether the new text says what the old said, and the keys, and nothing else."""
    diagnostics = Diagnostics()
    after = parse_specification(edited.encode(), file, diagnostics)
    if after is None or diagnostics.has_errors:
        return False
    return list(after.hosts) == list(expected.hosts) and after == expected
