"""`wgnet explain CODE`: what a diagnostic means, an example, and the way out."""

from __future__ import annotations

from wgnet.cli.context import EXIT_DONE, EXIT_USAGE, Context


def run(context: Context) -> int:
    """Print the page of one code, or the list of all."""
    from wgnet.diagnostics.codes import CODES
    from wgnet.diagnostics.explanations import explain

    output, code = context.output, context.options.code
    if code is None:
        for known in CODES.values():
            output.line(f"{known.name}  {known.severity.value:<7}  {known.title}")
        return EXIT_DONE
    page = explain(code)
    if page is None:
        output.error(f"wgnet: there is no code '{code}'; `wgnet explain` lists all")
        return EXIT_USAGE
    output.line(f"{page.code.name}: {page.code.title} ({page.code.severity.value})")
    output.line()
    output.line(page.meaning)
    for title, text in (("Example", page.example_text()), ("Mended", page.fixed_text())):
        if text:
            output.line(f"\n{title}:\n")
            for line in text.rstrip("\n").split("\n"):
                output.line(f"    {line}" if line else "")
    if page.way_out:
        output.line(f"\n{page.way_out}")
    return EXIT_DONE
