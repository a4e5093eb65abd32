"""The one error that users see: what is wrong, with which value, where, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST_LIST = 900  # characters of a list of known words; the keys of all sections are 800


class PortdetError(Exception):
    """An error meant for a person.

    `what` says the thing and its value, `where` the file and line (spec, config or data file), `fix` the next
    step. The command line prints it without a traceback and exits with code 1. What a terminal would take for a
    command is spelled out, whatever the values in the texts are.
    """

    def __init__(self, what: str, *, fix: str = "", where: str = "") -> None:
        what, fix, where = plain_lines(what), plain_lines(fix), plain_lines(where)
        self.what, self.fix, self.where = what, fix, where
        super().__init__("\n".join(filter(None, [f"{where}: {what}" if where else what, fix and f"  -> {fix}"])))


LISTED, LONGEST_LISTED = 16, 60  # names in a message, characters of each
_TRIED = 5000  # names that a name is compared with, letter by letter


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Text that names the closest known words, or the first of all: `did you mean 'epochs'?`, `known: a, b`.

    otherwise: said where none is close and there are too many to list.
    """
    known = sorted(known)
    if found := close(name, known):
        *first, last = [f"'{word[:200]}'" for word in found]
        return f"did you mean {' or '.join(filter(None, [', '.join(first), last]))}?"
    if otherwise and len(known) > LISTED:
        return otherwise
    listed = [word if len(word) <= LONGEST_LISTED else f"{word[: LONGEST_LISTED - 3]}..." for word in known[:LISTED]]
    more = f", ... ({len(known)} in all)" if len(known) > LISTED else ""
    return f"known: {', '.join(listed)}{more}"


def close(name: str, known: Iterable[str]) -> list[str]:
    """What `name` was probably meant to be, at most three words; none rather than a wrong one.

    In this order: the same but for case and dashes; cut short or drawn out (`lr` for lr0, `batch_size` for batch); a
    slip of the keyboard, one letter up to seven, two up to eleven, else three; a key of another section (`train.lr0`).
    Words whose numbers differ are never close: conv1 is not conv2.
    """
    wanted, scored, tried = _folded(name), list[tuple[float, str]](), 0
    for word in sorted(set(known)):
        other = _folded(word)
        kin = 0.0 if other == wanted else _kin(wanted, other)
        if kin is None and abs(len(other) - len(wanted)) <= _slips(wanted) and tried < _TRIED:
            tried += 1
            kin = _distance(wanted, other, _slips(wanted)) if _numbers(wanted) == _numbers(other) else None
        if kin is not None:
            scored.append((kin, word))
    best = min((kin for kin, _ in scored), default=0.0)
    found = [word for kin, word in sorted(scored, key=lambda pair: (pair[0], len(pair[1]))) if kin == best]
    return found[:3] if len(found) <= 3 or best == _CUT else []


_CUT, _PART, _ELSEWHERE = 1.0, 1.5, 3.5  # beside the number of slips


def _folded(word: str) -> str:
    return word[:200].lower().replace("-", "_")


def _slips(word: str) -> int:
    return 0 if len(word) < 3 else 1 if len(word) < 8 else 2 if len(word) < 12 else 3


def _numbers(word: str) -> list[str]:
    return re.findall(r"\d+", word)


def _kin(a: str, b: str) -> float | None:
    """How far two words are apart of which one begins the other or is the same key elsewhere; None for others."""
    short, long = sorted((a, b), key=len)
    if len(short) > 1 and long.startswith(short):
        after = long[len(short)]
        if len(short) >= 0.6 * len(long) and not (short[-1].isdigit() and after.isdigit()):
            return _CUT
        if after in "._/":
            return _PART
    if a.count(".") == b.count(".") == 1 and a.partition(".")[2] == b.partition(".")[2]:
        return _ELSEWHERE if _numbers(a) == _numbers(b) else None
    return None


def _distance(a: str, b: str, most: int) -> float | None:
    """Letters to insert, delete, replace or swap with the next; None above `most`."""
    before, row = list[int](), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return None
    return float(row[-1]) if row[-1] <= most else None


def plain(text: str) -> str:
    """The text with everything that a terminal may take for a command (escapes, newlines, direction) spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plain_lines(text: str) -> str:
    """As `plain`, for messages of our own of several lines: newlines stay."""
    return "\n".join(plain(line) for line in text.split("\n"))
