"""Structures by chance: 2,000 documents here, 100,000 in the slow tests, each refused in a line or held to invariants.

`PORTDET_FUZZ=20000 pytest tests/outside/test_fuzz.py` tries that many of each kind, new ones every time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from portdet.config import Config, sections
from portdet.train import checkpoint
from portdet.train.checkpoint import Progress
from tests.outside import ends, mutate

TRIES = int(os.environ.get("PORTDET_FUZZ", "0"))

VALUES = st.one_of(
    st.sampled_from(mutate.VALUES),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=3),
                 lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
                 max_leaves=8),
)  # fmt: skip
CHANGES = st.lists(
    st.tuples(st.integers(0, 999), st.integers(0, len(mutate.CHANGES) - 1), VALUES), min_size=1, max_size=4
)
POLICIES = st.tuples(st.sampled_from(["clip", "error"]), st.sampled_from(["error", "skip"]),
                     st.sampled_from(["train", "val"]))  # fmt: skip
KEYS = [f"{name}.{key}" for name, section in sections().items() for key in section.model_fields]
WORDS = st.lists(
    st.tuples(st.sampled_from([*KEYS, "epochs", "model.width", "model.a.b", "x", "names", ""]), VALUES).map(
        lambda pair: f"{pair[0]}={pair[1] if isinstance(pair[1], str) else mutate.as_yaml(pair[1]).split(chr(10))[0]}"
    ),
    max_size=3,
)


def cases(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=TRIES or count, deadline=None, derandomize=not TRIES, database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


def coco(folder: Path, count: int) -> Counter[bool]:
    taken: Counter[bool] = Counter()
    for name in ("a.png", "b.png"):
        Pillow.new("RGB", (40, 30)).save(folder / name)

    @cases(count)
    @given(CHANGES, POLICIES)
    def run(changes: list[mutate.Change], policies: tuple[str, ...]) -> None:
        taken[ends.coco_ends(mutate.mutated(mutate.COCO, changes), folder, policies)] += 1

    run()
    return taken


def voc(folder: Path, count: int) -> Counter[bool]:
    taken: Counter[bool] = Counter()
    for place in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / place).mkdir(parents=True)
    Pillow.new("RGB", (40, 30)).save(folder / "JPEGImages" / "a.png")
    (folder / "ImageSets/Main/train.txt").write_text("a\n")

    @cases(count)
    @given(CHANGES, POLICIES)
    def run(changes: list[mutate.Change], policies: tuple[str, ...]) -> None:
        taken[ends.voc_ends(mutate.mutated(mutate.VOC, changes), folder, policies)] += 1

    run()
    return taken


def config(folder: Path, count: int) -> Counter[bool]:
    taken: Counter[bool] = Counter()

    @cases(count)
    @given(CHANGES | st.just([]), WORDS)
    def run(changes: list[mutate.Change], words: list[str]) -> None:
        taken[ends.config_ends(mutate.mutated(mutate.CONFIG, changes), folder, words)] += 1

    run()
    return taken


def progress(folder: Path, count: int) -> Counter[bool]:
    taken: Counter[bool] = Counter()
    made = Config()
    valid = asdict(
        Progress(epoch=2, epoch_step=3, step=13, ema_updates=12, loss_sums={"loss": 3.5}, loss_count=2, best=0.5,
                 best_epoch=1, steps_per_epoch=5, config=checkpoint.config_values(made),
                 loss_scale={"scale": 2.0, "dynamic": True, "window": 2000, "good_steps": 1, "skipped_steps": 1})
    )  # fmt: skip
    assert ends.checkpoint_ends(valid, folder, made)
    small = valid | {"config": {}}  # most changes hit what is not the configuration

    @cases(count)
    @given(CHANGES)
    def run(changes: list[mutate.Change]) -> None:
        document = mutate.mutated(small, changes)
        if isinstance(document, dict) and document.get("config") == {}:
            document["config"] = valid["config"]
        taken[ends.checkpoint_ends(document, folder, made)] += 1

    run()
    return taken


KINDS: dict[str, tuple[Callable[[Path, int], Counter[bool]], int]] = {
    "coco": (coco, 700), "voc": (voc, 400), "config": (config, 500), "progress": (progress, 400)
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_structures_by_chance(kind: str, tmp_path: Path) -> None:
    """Both ends are reached: some documents are still good, most are not."""
    run, count = KINDS[kind]
    taken = run(tmp_path, count)
    assert taken[True] > count / 100
    assert taken[False] > count / 4


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_structures(kind: str, tmp_path: Path) -> None:
    run, count = KINDS[kind]
    taken = run(tmp_path, 50 * count)
    assert min(taken.values()) > 100


def test_the_counts_are_the_ones_that_are_claimed() -> None:
    assert sum(count for _, count in KINDS.values()) == 2000


# ---------------------------------------------------------------------------------------------- the judge can say no
@pytest.mark.parametrize(
    ("said", "what"), [("x" * 2000, "2000 characters"), ("\x1b[2J", "not printable"), ("\u202e", "not printable")]
)
def test_a_bad_refusal_is_seen(said: str, what: str) -> None:
    with pytest.raises(AssertionError, match=what):
        ends.refused_well(said)


def test_a_file_elsewhere_and_a_program_are_seen(tmp_path: Path) -> None:
    for work in (lambda: Path("/etc/passwd").read_text(), lambda: os.system("true")):
        with pytest.raises(AssertionError, match="opened"):
            ends.ended(work, tmp_path)
    (tmp_path / "x").write_text("x")
    assert ends.ended(lambda: (tmp_path / "x").read_text(), tmp_path) == "x"


def test_every_change_changes(tmp_path: Path) -> None:
    for number, change in enumerate(mutate.CHANGES):
        made = [mutate.mutated(mutate.COCO, [(place, number, "x")]) for place in range(30)]
        assert any(document != mutate.COCO for document in made), change
    assert mutate.mutated(mutate.COCO, []) == mutate.COCO
    assert mutate.as_xml(mutate.element("a", "t", mutate.element("b"))) == "<a>t<b></b></a>"
