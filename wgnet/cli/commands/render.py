"""`wgnet render`: write every host's files below a folder, this host's in place, or print one host's."""

from __future__ import annotations

from pathlib import Path

from wgnet.cli.context import EXIT_DONE, EXIT_USAGE, Context
from wgnet.cli.hosts import report_unknown_host
from wgnet.cli.rendering import Rendering, not_written, summarize
from wgnet.cli.secrets import open_store
from wgnet.system.secrets import SecretFinder

DEFAULT_OUTPUT = "rendered"


def run(context: Context) -> int:
    """Render as the options say."""
    options = context.options
    if options.runtime and not options.system:
        return _usage(context, "--runtime goes with --system")
    if options.show_secrets and not options.stdout:
        return _usage(context, "--show-secrets goes with --stdout")
    if options.stdout and not options.host:
        return _usage(context, "--stdout prints one host's files: name it with --host")
    if options.system and len(options.host) > 1:
        return _usage(context, "--system writes the files of one host")
    if options.system:
        from wgnet.cli.in_place import render_in_place

        return render_in_place(context)
    fleet = context.read_fleet()
    if fleet is None or context.failed:
        return context.status()
    hosts = fleet.host_names()
    chosen = list(dict.fromkeys(options.host))
    for name in chosen:
        if name not in hosts:
            report_unknown_host(context, name, hosts)
    if context.failed:
        return context.status()
    rendering = Rendering(context, fleet, SecretFinder(store=open_store(context)))
    if options.stdout:
        return _print(context, rendering, chosen)
    return _render_tree(context, rendering, hosts, chosen)


def _usage(context: Context, message: str) -> int:
    context.output.error(f"wgnet render: {message}")
    return EXIT_USAGE


def _render_tree(context: Context, rendering: Rendering, hosts: list[str], chosen: list[str]) -> int:
    from wgnet.system.tree import write_tree

    options = context.options
    directory = Path(options.output or DEFAULT_OUTPUT)
    names = chosen or hosts
    with context.output.progress("rendering") as progress:
        report = write_tree(
            directory,
            rendering.all(names),
            only=frozenset(chosen) if chosen else None,
            force=options.force,
            diagnostics=context.diagnostics,
            progress=lambda done: progress.update(done, len(names)),
        )
    if report is None:
        return not_written(context)
    return summarize(context, report, f"{len(names):,} {'host' if len(names) == 1 else 'hosts'}", str(directory))


def _print(context: Context, rendering: Rendering, names: list[str]) -> int:
    """Print the files one after another, each under a line with its path, mode and owner; secrets masked."""
    from wgnet.cli.masking import mask_secrets

    for name, artifacts in rendering.all(names):
        if context.failed:
            return context.status()
        for artifact in artifacts:
            title = artifact.path if len(names) == 1 else f"{name}:{artifact.path}"
            context.output.line(f"# {title} {artifact.mode:04o} {artifact.owner}:{artifact.group}")
            if artifact.target is not None:
                context.output.line(f"-> {artifact.target}")
                continue
            text = artifact.content.decode()
            if artifact.secret and not context.options.show_secrets:
                text = mask_secrets(text)
            context.output.write(text if text.endswith("\n") else f"{text}\n")
    return EXIT_DONE if not context.failed else context.status()
