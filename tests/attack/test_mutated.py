"""Some hundred of the attack's spoiled weight files; and that the attack sees a reader that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.attack import mutated, mutations
from tests.attack.outcome import table

ROOT = Path(__file__).parents[2]


def test_spoiled_files_are_refused_or_read_and_nothing_else() -> None:
    rows = mutated.attack(280)
    assert [row.cases for row in rows] == [40] * 7
    assert [row for row in rows if row.held < row.cases] == [], table(rows)


@pytest.mark.parametrize(
    ("plant", "form", "said"),
    [
        ("runs code", "pdparams", "it ran something: "),
        ("runs code", "pth, legacy", "it ran something: "),
        ("dies", "safetensors", "the process ended with -9"),
        ("traceback", "ckpt", "Failed: planted"),
        ("wrong bits", "safetensors", "came out otherwise"),
    ],
)
def test_a_reader_that_fails_is_seen(plant: str, form: str, said: str) -> None:
    row = mutated.rows(form, 60, plant)
    assert row.cases == 60
    assert row.held < 60
    assert said in row.first_failure


def test_the_cases_are_many_and_the_same_in_every_process() -> None:
    script = "from tests.attack.mutations import *; import hashlib\n"
    script += "print(hashlib.sha256(b''.join(case(f, n)[1] for f in FORMATS for n in range(40))).hexdigest())"
    said = {subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True) for _ in range(2)}
    assert len(said) == 1
    for form in mutations.FORMATS:
        cases = [mutations.case(form, number) for number in range(200)]
        assert len({data for _, data in cases}) > 150
        words = " ".join(what for what, _ in cases)
        assert all(name in words for name in ("bits flipped", "truncated", "spliced", "a length", "a token"))
        assert ("opcodes" in words) == (form in ("pth, zip", "pth, legacy", "pdparams"))
