"""What reaches the terminal: every line and table goes through here, and none can command it.

Class names, file names and other programs' texts may hold escape sequences, newlines and rich's own markup. They are
shown as they are spelled, whichever way they came.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

import click

from portdet.errors import plain, plain_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print lines, to stderr if asked."""
    click.echo(plain_lines(text), err=err, nl=nl)


def cell(text: str, style: str = "") -> Text:
    """A table's cell, title or head."""
    from rich.text import Text

    return Text(plain(text), style=style)


def console(file: IO[str] | None = None, **options: Any) -> Console:
    """rich's console without its markup; into files and pipes 160 columns wide instead of 80, so that no name is cut.

    Strings are printed as `say` does; `Text` has to be made by `cell`.
    """
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **kwargs: Any) -> Text:
            return super().render_str(plain_lines(text), **kwargs)

    wide = None if (file or sys.stdout).isatty() else 160
    return Plain(**{"file": file, "width": wide, "markup": False, "emoji": False, **options})
