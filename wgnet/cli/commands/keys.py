"""`wgnet keys`: make keys where they are missing, list them, hand one host its part, change them step by step."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from wgnet.cli.context import EXIT_DONE, EXIT_NOT_STARTED, EXIT_USAGE, Context
from wgnet.cli.hosts import report_unknown_host, this_host
from wgnet.cli.secrets import open_store
from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.keys.match import check_key_pair
from wgnet.keys.types import HIDDEN, PrivateKey
from wgnet.managers.artifact import Artifact
from wgnet.managers.dispatch import key_files
from wgnet.model.topology import Host, Topology
from wgnet.plan.derive import Fleet
from wgnet.plan.types import InterfacePlan
from wgnet.syntax.spec import Manager
from wgnet.system.keystore import KeyStore
from wgnet.system.rootpath import path_below
from wgnet.system.secrets import SecretFinder

#: The version of the JSON shapes of `keys show` and `keys export`.
VERSION = 1


def run(context: Context) -> int:
    """Run the action."""
    if context.options.action == "rotate":
        from wgnet.cli.rotation import run_rotate

        return run_rotate(context)
    return {"generate": _generate, "show": _show, "export": _export}[context.options.action](context)


def _chosen(context: Context, fleet: Fleet) -> list[tuple[Topology, Host]]:
    """Return the hosts that the options choose, or all, with their networks; disabled and external ones left out."""
    wanted = context.options.host
    names = fleet.host_names()
    for name in wanted:
        if name not in names:
            report_unknown_host(context, name, names)
    return [
        (routing.topology, host)
        for routing in fleet.routings
        for host in routing.topology.hosts
        if host.manager is not Manager.EXTERNAL and not host.disabled and (not wanted or host.name in wanted)
    ]


# --- generate --------------------------------------------------------------------------------------------------------


def _generate(context: Context) -> int:
    """Make the missing keys in the key store, or this host's own, and write the public ones into the topology."""
    options = context.options
    if options.keys is None:
        if options.encrypt:
            context.output.error("wgnet keys generate: --encrypt goes with --keys")
            return EXIT_USAGE
        if len(options.host) > 1:
            context.output.error("wgnet keys generate: without --keys it makes the key of one host")
            return EXIT_USAGE
        return _generate_here(context)
    fleet = context.read_fleet(missing_keys=Severity.NOTE)
    if fleet is None:
        return context.status()
    _forget_missing(context)
    store = open_store(context, must_exist=False, encrypt=options.encrypt)
    assert store is not None
    chosen = _chosen(context, fleet)
    if context.failed:
        return context.status()
    publics: dict[str, dict[str, str]] = {}
    made = 0
    for topology, host in chosen:
        if host.private_key.kind == "agent" and host.public_key is not None:
            continue
        key = store.private_key(topology.name, host.name, context.diagnostics)
        if context.failed:
            return context.status()
        if key is None:
            if host.public_key is not None:
                continue  # its private key is elsewhere, on the host itself as a rule
            key = store.create_private_key(topology.name, host.name, context.diagnostics)
            made += key is not None
        if key is None:
            return context.status()
        if not _agrees(key, host, str(store.host_path(topology.name, host.name)), context):
            continue
        if host.public_key is None:
            publics.setdefault(topology.file, {})[host.name] = key.public()
    made_masters = _make_masters(context, fleet, store)
    if context.failed:
        return context.status()
    written = _write_public_keys(context, publics)
    if written is None:
        return EXIT_NOT_STARTED
    parts = [f"{made:,} made in {options.keys}", f"{written:,} written into the topology"]
    if made_masters:
        parts.append("a master secret for preshared keys made")
    context.output.line("keys: " + ", ".join(parts))
    return context.status()


def _forget_missing(context: Context) -> None:
    """Do not report that hosts have no key yet: it is why this runs."""
    context.diagnostics.items = [d for d in context.diagnostics if d.code is not codes.NO_PUBLIC_KEY]


def _agrees(key: PrivateKey, host: Host, where: str, context: Context) -> bool:
    publics = [public for public in (host.public_key, host.next_public_key) if public is not None]
    return not publics or check_key_pair(key, publics, where, context.diagnostics, host.place("public-key"))


def _make_masters(context: Context, fleet: Fleet, store: KeyStore) -> int:
    """Make the master secret of each network that derives preshared keys and has none."""
    made = 0
    for routing in fleet.routings:
        topology = routing.topology
        derives = any(rule.preshared_key is True for rule in topology.rules)
        if derives and store.master(topology.name, context.diagnostics) is None and not context.failed:
            made += store.create_master(topology.name, context.diagnostics) is not None
    return made


def _generate_here(context: Context) -> int:
    """Make this host's own key, where its manager will look for it, and say its public key.

    The public key is written into the topology if that is the administrator's. A package's is not to be changed: there
    it is written beside the private key, for whoever tells the other hosts.
    """
    from wgnet.system.hostkeys import write_host_public_key

    read = _read_here(context)
    if read is None:
        return context.status()
    fleet, name = read
    if name is None:
        return EXIT_NOT_STARTED
    appearances = fleet.appearances(name)
    if not appearances:
        report_unknown_host(
            context,
            name,
            fleet.host_names(),
            "name this machine with --host, or in /etc/wgnet/host",
            "make all hosts' keys with --keys DIR",
        )
        return context.status()
    publics: dict[str, dict[str, str]] = {}
    failed = False
    for planner, host in appearances:
        topology = planner.routing.topology
        if host.private_key.kind != "file":
            context.output.line(f"{topology.name}: the private key of '{name}' is not kept in a file")
            continue
        path = PurePosixPath(host.private_key.name)
        key = _own_private_key(context, host, path)
        if key is None:
            failed = True
            continue
        if not _agrees(key, host, str(path), context):
            continue
        where = ""
        if host.public_key is None and not _may_be_edited(context, topology.file):
            public_path = write_host_public_key(context.root, path, key, context.diagnostics)
            if public_path is None:
                failed = True
                continue
            where = f" (in {public_path})"
        elif host.public_key is None:
            publics.setdefault(topology.file, {})[host.name] = key.public()
        context.output.line(f"{topology.name}: {name} {key.public()}{where}")
    if failed or _write_public_keys(context, publics) is None:
        return context.status() if context.failed else EXIT_NOT_STARTED
    return context.status()


def _own_private_key(context: Context, host: Host, path: PurePosixPath) -> PrivateKey | None:
    """Return this host's private key, made where there is none; None after reporting why not.

    That another network's key could not be had does not count.
    """
    from wgnet.system.hostkeys import create_host_private_key, host_key_ownership, read_host_private_key

    own = Diagnostics(sources=context.diagnostics.sources)
    key = read_host_private_key(context.root, path, own)
    if key is None and host.public_key is not None and not own.has_errors:
        own.report(
            codes.KEY_STORE,
            f"the topology has a public key of '{host.name}', but its private key is not in '{path}'",
            host.place("public-key"),
            help=(
                f"bring the private key here, with `wgnet keys export {host.name} --keys DIR` from the key store, say",
                "remove `public-key` from the topology to have a new pair made",
            ),
        )
    if key is None and not own.has_errors:
        mode, uid, gid = host_key_ownership(host.manager, own)
        key = create_host_private_key(context.root, path, own, mode=mode, uid=uid, gid=gid)
    context.diagnostics.items.extend(own.items)
    return key


def _read_here(context: Context) -> tuple[Fleet, str | None] | None:
    """Return the topologies that were named, or those of the system that are sound, and this host's name."""
    from wgnet.cli.inputs import find_files, read_sound_fleet

    if context.files:
        fleet = context.read_fleet(missing_keys=Severity.NOTE)
        if fleet is None:
            return None
        _forget_missing(context)
        return fleet, this_host(context, context.options.host)
    files = find_files((), context.options.root, context.diagnostics)
    if context.diagnostics.has_errors:
        return None
    name = this_host(context, context.options.host)
    fleet = read_sound_fleet(
        files, context.diagnostics, missing_keys=Severity.NOTE, present=(), root=context.options.root
    ).fleet
    _forget_missing(context)
    return fleet, name


def _may_be_edited(context: Context, file: str) -> bool:
    """Tell whether a topology is the administrator's: it was named, or it lies in /etc, and not elsewhere by a link."""
    if context.files:
        return True
    own = f"etc/wgnet/{Path(file).name}"
    places = {file, str(context.root / own)}
    if str(context.root) != "/":
        places.add(path_below(str(context.root), own))
    # However the root was written down: `./image`, `//image`.
    return len({os.path.normpath(Path(place).absolute()).lstrip("/") for place in places}) == 1


def _write_public_keys(context: Context, publics: dict[str, dict[str, str]]) -> int | None:
    """Write `public-key` into the files in place; return how many, or None after reporting why not."""
    from wgnet.cli.editing import write_public_keys

    written = 0
    for file, keys in publics.items():
        if not write_public_keys(file, keys, context.diagnostics):
            return None
        written += len(keys)
    return written


# --- show ------------------------------------------------------------------------------------------------------------


def _show(context: Context) -> int:
    """List the keys; the private ones masked unless told otherwise."""
    options = context.options
    fleet = context.read_fleet(missing_keys=Severity.NOTE)
    if fleet is None:
        return context.status()
    context.diagnostics.items = [d for d in context.diagnostics if d.code is not codes.NO_PUBLIC_KEY]
    store = open_store(context)
    rows = []
    for topology, host in _chosen(context, fleet):
        key = following = None
        if store is not None:
            key = store.private_key(topology.name, host.name, context.diagnostics)
            following = store.next_private_key(topology.name, host.name, context.diagnostics)
            if key is not None:
                _agrees(key, host, str(store.host_path(topology.name, host.name)), context)
        secrets = [
            None if one is None else one.reveal() if options.show_secrets else HIDDEN for one in (key, following)
        ]
        rows.append((topology.name, host.name, host.public_key, host.next_public_key, *secrets))
    if context.diagnostics.has_errors:
        return context.status()
    if options.format == "json":
        import json

        names = ("network", "host", "public_key", "next_public_key", "private_key", "next_private_key")
        shape = {"version": VERSION, "keys": [dict(zip(names, row, strict=True)) for row in rows]}
        context.output.line(json.dumps(shape, indent=2))
        return EXIT_DONE
    width = max((len(f"{network}/{name}") for network, name, *_ in rows), default=0)
    for network, name, public, next_public, secret, next_secret in rows:
        line = f"{f'{network}/{name}':<{width}}  {public or '(no public key yet)':<44}"
        if next_public:
            line += f"  next {next_public}"
        if store is not None:
            line += f"  private key {secret or 'not in the store'}"
            if next_secret:
                line += f", next {next_secret}"
        context.output.line(line.rstrip())
    return EXIT_DONE


# --- export ----------------------------------------------------------------------------------------------------------


def _export(context: Context) -> int:
    """Write what one host keeps in /etc/wgnet: its private key and the preshared keys of its own links."""
    options = context.options
    if options.keys is None:
        context.output.error("wgnet keys export: --keys DIR names the key store to take them from")
        return EXIT_USAGE
    if options.output is not None and options.format == "json":
        context.output.error("wgnet keys export: --format json prints, and -o writes")
        return EXIT_USAGE
    fleet = context.read_fleet()
    if fleet is None:
        return context.status()
    names = fleet.host_names(external=True)
    if options.host not in names:
        report_unknown_host(context, options.host, names)
        return context.status()
    finder = SecretFinder(store=open_store(context))
    artifacts = []
    for plan in fleet.plan_host(options.host, external=True).interfaces:
        secrets = finder.find(plan, context.diagnostics)
        # An external host has a private key of its own, and any other may have: the preshared keys are what it needs.
        needs_nothing = plan.manager is Manager.EXTERNAL or bool(secrets.preshared_keys)
        if secrets.private_key is None and not needs_nothing and not context.failed:
            _absent(context, plan)
        artifacts += key_files(plan, secrets)
    if context.failed:
        return context.status()
    if options.output is None:
        _print_export(context, artifacts)
        return EXIT_DONE

    from wgnet.system.tree import write_tree

    report = write_tree(
        Path(options.output),
        [(options.host, artifacts)],
        only={options.host},
        force=False,
        diagnostics=context.diagnostics,
        progress=None,
    )
    if report is None:
        return EXIT_NOT_STARTED
    for path in (*report.written, *report.unchanged):
        context.output.line(path)
    return context.status()


def _print_export(context: Context, artifacts: list[Artifact]) -> None:
    from wgnet.cli.masking import mask_secrets

    options = context.options
    texts = [each.content.decode() for each in artifacts]
    if not options.show_secrets:
        texts = [mask_secrets(text) for text in texts]
    if options.format == "json":
        import json

        files = [
            {"path": each.path, "mode": f"{each.mode:04o}", "owner": each.owner, "group": each.group, "content": text}
            for each, text in zip(artifacts, texts, strict=True)
        ]
        context.output.line(json.dumps({"version": VERSION, "host": options.host, "files": files}, indent=2))
        return
    for each, text in zip(artifacts, texts, strict=True):
        context.output.line(f"# {each.path} {each.mode:04o} {each.owner}:{each.group}")
        context.output.write(text)


def _absent(context: Context, plan: InterfacePlan) -> None:
    context.diagnostics.report(
        codes.KEY_STORE,
        f"the key store has no private key of '{plan.host.name}' in the network '{plan.network}'",
        help="make it with `wgnet keys generate --keys DIR`, unless the host has made its own",
    )
