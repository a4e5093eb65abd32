"""The attacks of `python -m tests.attack`, with their full counts; and that their table can say no."""

from __future__ import annotations

import pytest

from tests.attack.attacks import ATTACKS
from tests.attack.outcome import Row, table


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", ATTACKS)
def test_everything_holds(name: str) -> None:
    attack, count = ATTACKS[name]
    rows = attack(count)
    assert rows
    assert all(row.cases for row in rows), table(rows)
    assert [row for row in rows if row.held < row.cases] == [], table(rows)


def test_the_table_shows_what_did_not_hold() -> None:
    shown = table([Row("kill -9, torch", 12, 12), Row("mutated .pth", 3000, 2999, "byte 17 set to 0xff: hangs")])
    assert shown.splitlines() == [
        "attack            cases     held  not held",
        "kill -9, torch       12       12         0",
        "mutated .pth       3000     2999         1",
        "    byte 17 set to 0xff: hangs",
    ]
