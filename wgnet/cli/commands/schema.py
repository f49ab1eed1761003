"""`wgnet schema`: the JSON Schema of the topology file, for editors."""

from __future__ import annotations

from wgnet.cli.context import EXIT_DONE, Context


def run(context: Context) -> int:
    """Print the schema."""
    import json

    from wgnet.syntax.schema import build_schema

    context.output.line(json.dumps(build_schema(), indent=2))
    return EXIT_DONE
