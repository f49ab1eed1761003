"""A diagnostic is a value: what is wrong, where, and the way out. How it is shown is the printers' business."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wgnet.diagnostics.codes import Code
from wgnet.diagnostics.severity import Severity
from wgnet.diagnostics.span import Span
from wgnet.record import field, record

__all__ = ["Diagnostic", "Diagnostics", "Label", "Severity"]


@record(kw_only=False)
class Label:
    """A place and what is to be said about it; `message` may be empty."""

    span: Span
    message: str = ""


@record()
class Diagnostic:
    """One problem: `message` says it in a line, `primary` is where it is, `secondary` what it clashes with.

    `help` holds imperative sentences, each a way out. No field ever holds a secret.
    """

    code: Code
    severity: Severity
    message: str
    primary: Label | None = None
    secondary: tuple[Label, ...] = ()
    help: tuple[str, ...] = ()

    def sort_key(self) -> tuple[str, int, int, str, str]:
        """Return the key that orders diagnostics by place, then code."""
        if self.primary is None:
            return ("", 0, 0, self.code.name, self.message)
        span = self.primary.span
        return (span.file, span.line, span.column, self.code.name, self.message)


@record(frozen=False, kw_only=False)
class Diagnostics:
    """Collects the diagnostics of one run, and the texts that they point into."""

    items: list[Diagnostic] = field(default_factory=list)
    #: The text of each file by the name that spans use, for the printers' excerpts.
    sources: dict[str, str] = field(default_factory=dict)

    def report(
        self,
        code: Code,
        message: str,
        at: Span | Label | None = None,
        *also: Label,
        help: str | Iterable[str] = (),  # noqa: A002 - the field's name
        severity: Severity | None = None,
    ) -> None:
        """Add a diagnostic of `code`, with the code's own severity unless `severity` is given."""
        primary = Label(at) if isinstance(at, Span) else at
        self.items.append(
            Diagnostic(
                code=code,
                severity=code.severity if severity is None else severity,
                message=message,
                primary=primary,
                secondary=also,
                help=(help,) if isinstance(help, str) else tuple(help),
            )
        )

    @property
    def has_errors(self) -> bool:
        """Whether any diagnostic is an error: the gate between the stages."""
        return any(d.severity is Severity.ERROR for d in self.items)

    def count(self, severity: Severity) -> int:
        """Return how many diagnostics have this severity."""
        return sum(d.severity is severity for d in self.items)

    def sorted(self) -> list[Diagnostic]:
        """Return the diagnostics in the order of their places, each once."""
        return sorted(dict.fromkeys(self.items), key=Diagnostic.sort_key)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
