"""The one error that users see: what is wrong, with which value, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PortdetError(Exception):
    """An error meant for a person.

    `what` says the thing and its value, `where` the file and line (spec, config or data file), `fix` the next
    step. The command line prints it without a traceback and exits with code 1.
    """

    def __init__(self, what: str, *, fix: str = "", where: str = "") -> None:
        self.what, self.fix, self.where = what, fix, where
        super().__init__("\n".join(filter(None, [f"{where}: {what}" if where else what, fix and f"  -> {fix}"])))


def nearest(name: str, known: Iterable[str]) -> str:
    """Text that names the closest known word, or lists all of them: `did you mean 'epochs'?`."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
