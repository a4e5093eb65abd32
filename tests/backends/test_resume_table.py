"""A run that is left and resumed in a new session ends with the bits of one that was not: every backend, mode and
setting. Real sessions under the real loop; what differs between two processes is held by `tests/cli/test_resume.py`."""

from __future__ import annotations

import functools

import pytest

from portdet.session import Arrays
from tests.backends.harness import require, run_child
from tests.backends.resume_cases import OPTIONS, Case, most, pairs, pairs_of, product, singles
from tests.patience import GUARD, SLOW_GUARD

BACKENDS = ("torch", "mindspore", "paddle")
EAGER, COMPILED = pairs(), singles()  # a graph takes seconds to compile
QUICK = [(b, m, case) for b in BACKENDS for m, cases in (("eager", EAGER), ("compiled", COMPILED)) for case in cases]


@functools.cache
def ran(backend: str, mode: str) -> Arrays:
    require(backend)
    cases = EAGER if mode == "eager" else COMPILED
    return run_child("resume_child.py", backend, mode, *map(",".join, cases), timeout=GUARD)


@pytest.mark.parametrize(("backend", "mode", "case"), QUICK)
def test_a_resumed_run_ends_with_the_same_bits(backend: str, mode: str, case: Case) -> None:
    check(ran(backend, mode), case)


def check(found: Arrays, case: Case) -> None:
    """Nothing differs, and there was something that could: an average, skipped steps, weights that moved."""
    assert found[f"{','.join(case)}/apart"].tolist() == []
    kept = found[f"{','.join(case)}/kept"].tolist()
    parts = {"weights", "momentum"} | ({"ema"} if case[0] != "none" else set())
    skipped = {"skipped 1", "skipped 4"} if case[1] == "dynamic" else set()
    assert set(kept) == parts | skipped | {f"moved {part}" for part in parts}


@pytest.mark.parametrize("forgotten", ["momentum", "ema"])
def test_a_resume_that_forgets_something_is_seen(forgotten: str) -> None:
    require("torch")
    words = f"{forgotten}!" + ",".join(("constant", "1", "momentum", "none", "nothing", "1"))
    apart = run_child("resume_child.py", "torch", "eager", words)[f"{words}/apart"].tolist()
    assert {"state: ema/conv.weight", "last: ema/conv.weight"} <= set(apart)
    assert ("state: momentum/conv.weight" in apart) == (forgotten == "momentum")


def test_every_value_meets_every_backend_and_mode() -> None:
    values = {(option, value) for option, values in OPTIONS.items() for value in values}
    for backend in BACKENDS:
        for mode in ("eager", "compiled"):
            cases = [case for b, m, case in QUICK if (b, m) == (backend, mode)]
            assert {pair for case in cases for pair in zip(OPTIONS, case, strict=True)} == values
    assert {pair for case in EAGER for pair in pairs_of(case)} == {
        pair for case in product() for pair in pairs_of(case)
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_combination(backend: str, mode: str) -> None:
    """All settings together in eager mode; compiled, every two values."""
    require(backend)
    cases = most() if mode == "eager" else pairs()
    for start in range(0, len(cases), 60):
        part = cases[start : start + 60]
        found = run_child("resume_child.py", backend, mode, *map(",".join, part), timeout=SLOW_GUARD)
        for case in part:
            check(found, case)
