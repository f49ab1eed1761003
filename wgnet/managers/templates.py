"""The templates that lay out every rendered file: the only module that knows Jinja2, which it imports when first used.

Stage: managers. Input: a template's name and its values, computed and escaped; output: text. The package's templates
stand in for whatever a person's own folder does not have. Besides template files it opens nothing.
"""

from __future__ import annotations

import os
import stat
from functools import cache

from wgnet.diagnostics import codes
from wgnet.diagnostics.diagnostic import Diagnostics
from wgnet.diagnostics.span import Span
from wgnet.diagnostics.words import system_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import jinja2

__all__ = ["TemplateProblem", "Templates"]


class TemplateProblem(Exception):  # noqa: N818 - a user's mistake, carried to the command, and no error of ours
    """What is wrong with a person's own template; `line` is 0 where it is the file as a whole."""

    def __init__(self, file: str, line: int, message: str, source: str | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.message = message
        self.source = source

    def report(self, diagnostics: Diagnostics) -> None:
        """Add the problem to `diagnostics`, with its place in the template."""
        place = None
        message = self.message
        if self.line:
            lines = (self.source or "").split("\n")
            width = len(lines[self.line - 1]) if self.line <= len(lines) else 0
            place = Span(self.file, self.line, 1, self.line, width + 1)
            if self.source is not None:
                diagnostics.sources.setdefault(self.file, self.source)
        else:
            message = f"template '{self.file}': {message}"
        diagnostics.report(
            codes.TEMPLATE, message, place, help="mend the template, or remove it to use the one that wgnet brings"
        )


class Templates:
    """Renders templates by name, such as `networkd/netdev.j2`.

    `override` is a person's folder: a file in it replaces the package's of the same name; `locate` says where a path
    in it really lies. Templates see nothing but the values they are given, and a value that is not given is an error.
    """

    def __init__(self, override: Path | None = None, locate: Callable[[Path], Path] = lambda path: path) -> None:
        self._override = override
        self._locate = locate
        self._compiled: dict[str, jinja2.Template] = {}
        self._environment: jinja2.Environment | None = None
        #: The text of each file of the person's own that was read, by its path.
        self._own: dict[str, str] = {}

    def render(self, name: str, /, **values: object) -> str:
        """Render a template. Raises TemplateProblem where a person's own template is at fault."""
        template = self._compiled.get(name)
        try:
            if template is None:
                template = self._compiled[name] = self._get_environment().get_template(name)
            return template.render(values)
        except TemplateProblem:
            raise
        except Exception as error:
            problem = self._problem(error)
            if problem is None:
                raise
        # Outside of the handler, since the error's frames hold the values.
        raise problem

    def _get_environment(self) -> jinja2.Environment:
        if self._environment is None:
            import jinja2
            from jinja2.sandbox import ImmutableSandboxedEnvironment

            self._environment = ImmutableSandboxedEnvironment(
                loader=jinja2.FunctionLoader(self._load),
                # Unit files and keyfiles, no HTML: `escape.py` is for them.
                autoescape=False,
                undefined=jinja2.StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
                keep_trailing_newline=True,
                auto_reload=False,
            )
        return self._environment

    def _load(self, name: str) -> tuple[str, str, None] | None:
        from jinja2.loaders import split_template_path

        # Refuses `..`, so that an include cannot leave the folders.
        parts = split_template_path(name)
        if self._override is not None:
            path = self._override.joinpath(*parts)
            text = _read_own(path, self._locate)
            if text is not None:
                self._own[str(path)] = text
                return text, str(path), None
        path = package_folder().joinpath(*parts)
        return (path.read_text(encoding="utf-8"), str(path), None) if path.is_file() else None

    def _problem(self, error: Exception) -> TemplateProblem | None:
        """Return what is wrong with a person's own template, or None where none had a part in it."""
        if not self._own:
            return None
        import jinja2

        # Jinja2 writes templates' own lines into the traceback; the innermost that is a person's is at fault.
        file, line = "", 0
        if isinstance(error, jinja2.TemplateSyntaxError) and error.filename in self._own:
            file, line = error.filename, error.lineno
        else:
            frame = error.__traceback__
            while frame is not None:
                name = frame.tb_frame.f_code.co_filename
                if name in self._own:
                    file, line = name, frame.tb_lineno
                frame = frame.tb_next
        if not file:
            file = next(reversed(self._own))
        if isinstance(error, jinja2.TemplateNotFound):
            message = f"there is no template '{error.name}'"
        else:
            text = str(error.message if isinstance(error, jinja2.TemplateError) else error).rstrip(".")
            message = f"cannot be rendered: {text or type(error).__name__}"
        # A message may quote a value, and among the values are secrets.
        from wgnet.diagnostics.escape import mask_text

        return TemplateProblem(file, line, mask_text(message), self._own[file])


@cache
def package_folder() -> Path:
    """Return the templates of an installed package, else those of the checkout that holds it."""
    from pathlib import Path

    package = Path(__file__).resolve().parent.parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


def _read_own(path: Path, locate: Callable[[Path], Path]) -> str | None:
    """Return a person's template, or None where there is none."""
    try:
        place = locate(path)
        # Opening a pipe that nobody writes to would wait for ever.
        with open(os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), encoding="utf-8") as stream:
            if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return stream.read()
        message = "expected a file"
    except FileNotFoundError:
        if not path.is_symlink():
            return None
        message = "points to a file that does not exist"
    except UnicodeDecodeError:
        message = "expected UTF-8"
    except OSError as error:
        message = f"cannot be read: {system_reason(error)}"
    raise TemplateProblem(str(path), 0, message)
