"""What a command is given: its options, the output, the collector; and how a run ends."""

from __future__ import annotations

from wgnet.cli.terminal import Output
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.severity import Severity
from wgnet.plan.derive import Fleet
from wgnet.record import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from pathlib import Path

EXIT_DONE = 0
EXIT_TOPOLOGY = 1
EXIT_USAGE = 2
EXIT_CHANGES = 3
EXIT_IN_PART = 5
EXIT_NOT_STARTED = 6


@record(frozen=False)
class Context:
    """One run of one command."""

    options: argparse.Namespace
    output: Output
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    printed: bool = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Context:
        """Return the context of a parsed command line on this process's streams."""
        return cls(options=options, output=Output.of_process(options.color))

    @property
    def root(self) -> Path:
        """The folder that system paths are under."""
        from pathlib import Path

        return Path(getattr(self.options, "root", "/"))

    @property
    def files(self) -> list[str]:
        """The topology files that the command line names."""
        return [*getattr(self.options, "files", []), *getattr(self.options, "more_files", [])]

    def read_fleet(
        self, *, missing_keys: Severity = Severity.ERROR, required: bool = True, host: str | None = None
    ) -> Fleet | None:
        """Read and check the command's topology files, or the system's; None when there are errors.

        Unless one is `required`, no topology at all is a fleet without networks. A command about this machine, which is
        `host`, needs no public key of the machine itself: a package's topology cannot know the key of who installs it.
        """
        from wgnet.cli.inputs import find_files, read_fleet

        root = getattr(self.options, "root", "/")
        files = find_files(self.files, root, self.diagnostics, required=required)
        if self.diagnostics.has_errors:
            return None
        return read_fleet(
            files, self.diagnostics, missing_keys=missing_keys, host=host, root="/" if self.files else root
        )

    @property
    def failed(self) -> bool:
        """Whether there are errors, or with `--strict` warnings."""
        if self.diagnostics.has_errors:
            return True
        strict = getattr(self.options, "strict", False)
        return bool(strict) and self.diagnostics.count(Severity.WARNING) > 0

    def print_diagnostics(self, output_format: str | None = None, *, result: bool = False) -> None:
        """Print the diagnostics once, to stderr, or to stdout where they are the result."""
        if not self.printed:
            self.printed = True
            chosen = str(output_format or getattr(self.options, "diagnostics", "full"))
            # Without a problem only JSON says so.
            if self.diagnostics.items or (result and chosen == "json"):
                self.output.diagnostics(self.diagnostics, chosen, result=result)

    def finish(self, status: int) -> int:
        """Print what has not been printed; return the exit status of the process."""
        self.print_diagnostics()
        return self.output.finish(status)

    def status(self) -> int:
        """Return the status that the diagnostics alone make: 1 for errors, else 0."""
        return EXIT_TOPOLOGY if self.failed else EXIT_DONE
