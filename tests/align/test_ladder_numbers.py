"""The teacher-forced levels on a configuration's own training, torch against torch: what is healthy passes, what is
planted is found at its step and place, an accident of one batch is called one."""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.align.compare import Dump, Envelope
from portdet.align.ladder import reference, rules
from portdet.align.ladder.candidate import rows_at
from portdet.align.ladder.case import Case, open_case, planned
from portdet.align.ladder.looks import Look, LooksMissing, Shelf, judged, observe
from portdet.align.ladder.outcome import Row
from portdet.align.ladder.plan import Plan
from portdet.align.probe import LEVELS
from portdet.config import load
from portdet.errors import PortdetError
from portdet.session import Arrays, Batch, Session
from portdet.train.job import TrainJob

SMALL = ("imgsz=64", "data.train_count=24", "data.val_count=8", "batch=2", "model.width=0.03125", "train.threads=1",
         "epochs=1")  # fmt: skip
NORM = "backblock1.conv3.norm"


def plan_of(folder: Path, **changes: Any) -> Plan:
    config = load("yolov3_scenes", SMALL).model_dump()
    numbers = ("weights", "forward", "loss", "grad", "step", "steps")
    return replace(
        Plan(config, str(folder), ("torch",), numbers, points=(0, 1, 1000), self_runs=4, held_out=2), **changes
    )


def made(plan: Plan, looks: Sequence[Look] = ()) -> Plan:
    """With the reference's looks made, in this process."""
    lacking = reference.prepare(plan, looks)
    reference.add_threads(plan, [Look(*pair) for pair in lacking])
    return plan


@functools.cache
def whole() -> Plan:
    """Both points with all three batches."""
    plan = made(plan_of(Path(tempfile.mkdtemp())))
    return made(plan, [Look(point, batch) for point in (0, 1) for batch in (1, 2)])


@functools.cache
def case() -> Case:
    return planned(whole(), "torch")


def opened(**how: Any) -> Session:
    return open_case(case(), Path(tempfile.mkdtemp()), **how)


def first(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.guilty), None)


class Around:
    """A session, of which some methods are others."""

    def __init__(self, session: Session, **methods: Callable[..., Any]) -> None:
        self._session, self._methods = session, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._session, name)


# ------------------------------------------------------------------ the case and the reference
def test_the_case_is_the_training_itself(tmp_path: Path) -> None:
    """What `portdet train` logs and keeps after two steps is what the case and the reference's state of step 2 say."""
    plan = plan_of(tmp_path / "ladder", points=(2,), self_runs=1)
    made(plan)
    TrainJob(load("yolov3_scenes", [*SMALL, "max_steps=2", "workers=0"]), tmp_path, quiet=True).run()
    here = planned(plan, "torch")
    head, *lines = [line.split(",") for line in (tmp_path / "steps.csv").read_text().splitlines()]
    logged = [dict(zip(head, line, strict=True)) for line in lines]
    entered = [rules.entered(here.batch(step), here.values(step)) for step in range(2)]
    assert [row["batch"] for row in logged] == [one["batch"] for one in entered]
    assert [float(row["lr"]) for row in logged] == pytest.approx([float(one["lr"]) for one in entered], rel=1e-9)
    kept, ours = Dump(tmp_path / "weights" / "last.safetensors"), Dump(Shelf.of(plan).state(2))
    assert sorted(kept) == sorted(ours)
    assert [name for name in ours if not np.array_equal(kept[name], ours[name])] == []


def test_batches_go_on_over_the_ends_of_epochs() -> None:
    one, steps = case(), case().loader.steps_per_epoch
    assert steps == one.steps == 12
    following = one.batches(steps - 1)
    for step in (steps - 1, steps):
        assert np.array_equal(next(following).images, one.batch(step).images)


def test_initial_weights_of_a_file(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    given = {name: array + 1 for name, array in case().initial.items()}
    save_file(given, tmp_path / "given.safetensors")
    found = planned(replace(whole(), weights=str(tmp_path / "given.safetensors")), "torch").initial
    assert all(np.array_equal(found[name], given[name]) for name in given)
    save_file({name: given[name] for name in [*given][1:]}, tmp_path / "given.safetensors")
    with pytest.raises(PortdetError, match="1 weights missing"):
        _ = planned(replace(whole(), weights=str(tmp_path / "given.safetensors")), "torch").initial


def test_noise_is_that_of_whole_runs() -> None:
    """The streamed envelope against the library's, which takes whole runs; seed 0 is of the other threads."""
    shelf = Shelf.of(whole())
    found, base, state = Envelope.load(shelf.noise(Look(0))), Dump(shelf.dump(Look(0))), dict(Dump(shelf.state(0)))
    assert found.runs == 4
    run: Arrays = {}
    observe(opened(threads=2), case(), Look(0), state, run.__setitem__, LEVELS, seed=0)
    own = Envelope()
    own.add(base, run)
    assert set(own.noise) == set(found.noise) == set(base)
    for name, noise in own.noise.items():
        assert found.noise[name].max_rel[-1:] == noise.max_rel, name
        assert found.noise[name].rel_l2[-1:] == pytest.approx(noise.rel_l2), name


def test_points_beyond_the_training_are_left_out_and_nothing_is_made_twice() -> None:
    plan, shelf = whole(), Shelf.of(whole())
    assert not shelf.state(1000).exists()
    before = {path: path.stat().st_mtime_ns for path in shelf.folder.glob("*.*")}
    assert made(plan) is plan
    assert {path: path.stat().st_mtime_ns for path in shelf.folder.glob("*.*")} == before


# ------------------------------------------------------------------ what is healthy
@pytest.mark.parametrize("point", [0, 1])
def test_another_number_of_threads_is_the_same(point: int) -> None:
    rows = rows_at(whole(), case(), opened(threads=2), point)
    assert first(rows) is None
    assert {row.step for row in rows} == {point}
    levels = [*dict.fromkeys(row.name.partition("/")[0] for row in rows)]
    assert levels == ["rule", "weights", "forward", "loss", "grad", "step"]
    assert {row.name.rpartition("/")[2] for row in rows[:4]} == {"batch", "lr", "loss_scale", "ema_decay"}
    parts = {row.name.split("/")[1] for row in rows if row.name.startswith("step/")}
    assert parts == {"weights", "momentum", "ema"}
    assert max(row.ratio for row in rows) < 10


def test_held_out_runs_raise_no_alarm() -> None:
    answer = reference.held_out(whole())
    assert [row["name"] for row in answer["rows"]] == ["held-out/0/0", "held-out/1/0"]
    assert {row["status"] for row in answer["rows"]} == {"noise"}
    assert answer["kinks"] == 0


def test_errors_against_float64_are_the_references_own() -> None:
    rows = [row for row in rows_at(whole(), case(), opened(threads=2), 0) if row.name.startswith(("forward/", "loss/"))]
    assert len(rows) > 100
    for row in rows:
        assert row.error is not None
        assert row.reference_error is not None
        assert row.error < 1e-4
        assert row.error < 10 * max(row.reference_error, 2**-23)  # its runs are perturbed, the reference is not
    assert max(row.error or 0.0 for row in rows) > 1e-8
    assert {row.error for row in rows_at(whole(), case(), opened(), 1)} == {None}


@pytest.mark.parametrize(("held", "counts"), [(30, [15, 15]), (5, [3, 2]), (1, [1]), (0, [])])
def test_held_out_runs_are_spread_over_the_points(held: int, counts: list[int]) -> None:
    runs = reference.spread(replace(whole(), held_out=held), case())
    assert len(runs) == len(set(runs)) == held
    assert [sum(point == at for point, _ in runs) for at in (0, 1)][: len(counts)] == counts


# ------------------------------------------------------------------ what is planted
def touched(**settings: Any) -> Any:
    session: Any = opened()
    for name, value in settings.items():
        setattr(session.model.get_submodule(NORM), name, value)
    return session


def test_a_layers_fault_is_found_in_the_forward_pass() -> None:
    found = first(rows_at(whole(), case(), touched(eps=1e-4), 0))
    assert found is not None
    assert (found.name, found.status) == (f"forward/{NORM}", "different")


def test_a_statistics_fault_is_found_in_the_state_after_the_step() -> None:
    found = first(rows_at(whole(), case(), touched(momentum=0.03), 0))
    assert found is not None
    assert found.name == f"step/weights/{NORM}.running_mean"


def test_a_fault_of_the_momentum_shows_at_a_later_point_alone() -> None:
    """At step 0 there is no velocity to be multiplied."""
    session = opened(recipe=replace(case().recipe, momentum=0.95))
    assert first(rows_at(whole(), case(), session, 0)) is None
    rows = rows_at(whole(), case(), session, 1)
    found = first(rows)
    assert found is not None
    assert (found.name, found.step) == ("step/weights/backbone.conv0.conv.weight", 1)
    assert {row.name.split("/")[0] for row in rows if row.guilty} == {"step"}


def test_one_target_in_a_neighbouring_cell_is_found_in_the_loss() -> None:
    """Indices of targets are not compared one by one: one that is moved stands out in the loss's terms, by at least
    1,000 times the noise."""
    session: Any = opened()
    module: Any = sys.modules[type(session.model).__module__]
    real = module.cells

    def moved(centre: Any, grid: Any) -> Any:
        cell = real(centre, grid).clone()
        cell[0, 0, 0] = (cell[0, 0, 0] + 1) % grid[0]
        return cell

    module.cells = moved
    assert case().batch(0).valid[0, 0]
    rows = rows_at(whole(), case(), session, 0)
    found = first(rows)
    assert found is not None
    assert found.name.startswith("loss/")
    assert found.ratio > 1000


def bent(session: Session, batches: Sequence[int], name: str) -> Any:
    """A session in which a thousandth of one weight's gradient is missing, on the batches of these steps."""
    ids = [case().batch(step).image_ids.tobytes() for step in batches]

    def losses_and_gradients(batch: Batch) -> tuple[dict[str, float], Arrays]:
        losses, gradients = session.losses_and_gradients(batch)
        if batch.image_ids.tobytes() in ids:
            gradients[name] = gradients[name] * np.float32(0.999)
        return losses, gradients

    return Around(session, losses_and_gradients=losses_and_gradients)


def test_what_is_apart_on_one_batch_alone_is_a_kink() -> None:
    name = f"{NORM}.weight"
    steps = [Look(0, batch).step(case()) for batch in range(3)]
    assert len(set(steps)) == 3
    session = opened()
    for apart in (steps[:1], steps[:2]):
        rows = {row.name: row for row in rows_at(whole(), case(), bent(session, apart, name), 0)}
        assert rows[f"grad/{name}"].status == "kink"
        assert rows[f"grad/{name}"].ratio > 10
        assert "; not on that of step " in rows[f"grad/{name}"].words
        assert first([*rows.values()]) is None
    found = first(rows_at(whole(), case(), bent(session, steps, name), 0))
    assert found is not None
    assert (found.name, found.status) == (f"grad/{name}", "different")


def test_the_reference_is_asked_for_other_batches_only_where_something_is_different(tmp_path: Path) -> None:
    plan = made(plan_of(tmp_path, points=(0,), self_runs=4))
    assert first(judged(plan, case(), opened(), 0)) is None
    assert sorted(path.name for path in tmp_path.glob("reference/dump*")) == ["dump0.safetensors"]
    with pytest.raises(LooksMissing) as caught:
        judged(plan, case(), touched(eps=1e-4), 0)
    assert caught.value.looks == [Look(0, 1)]
    asked: list[Look] = []

    def make(looks: Sequence[Look]) -> None:
        asked.extend(looks)
        made(plan, looks)

    found = first(judged(plan, case(), touched(eps=1e-4), 0, make=make))
    assert found is not None
    assert found.name == f"forward/{NORM}"
    assert asked == [Look(0, 1), Look(0, 2)]


# ------------------------------------------------------------------ rules
@pytest.mark.parametrize(("name", "change"), [("lr", 1e-9), ("loss_scale", 1.0), ("ema_decay", 1e-9)])
def test_a_schedules_fault_is_named_before_what_it_does(name: str, change: float) -> None:
    values = case().values(0)
    other = replace(values, **{name: getattr(values, name) * (1 + change)})
    rows = rows_at(whole(), case(), opened(), 0, values=other)
    found = first(rows)
    assert found is not None
    assert (found.name, found.status, found.step) == (f"rule/{name}", "broken", 0)


def test_another_batch_is_named_before_what_it_does() -> None:
    config = case().config.model_copy(deep=True)
    config.train.seed = 1
    other = planned(replace(whole(), config=config.model_dump()), "torch")
    found = first(rows_at(whole(), other, opened(), 0))
    assert found is not None
    assert (found.name, found.status) == ("rule/batch", "broken")


def about(**changes: Any) -> dict[str, Any]:
    return {**json.loads(Shelf.of(whole()).about.read_text()), **changes}


def test_rules_of_a_whole_run() -> None:
    own = rules.about(case(), opened())
    rows = rules.once(about(), own)
    assert [row.name for row in rows if row.status == "same"] == [row.name for row in rows]
    assert len(rows) == 8
    lr = [*own["lr"]]
    lr[3] *= 1 + 2e-12
    changes: list[tuple[dict[str, Any], str, str]] = [
        ({"weights": "0" * 64}, "weights", "starts from 000000000000"),
        ({"device": ["npu", "cpu"]}, "device", "runs on cpu, not on npu"),
        ({"mode": ["compiled", "eager"]}, "mode", "runs on eager, not on compiled"),
        ({"dtype": "float16"}, "dtype", "computes in float16 instead of float32"),
        ({"slots": own["slots"][1:]}, "slots", "is missing"),
        ({"lr": lr}, "lr", "at step 3, and differs at 1 of 12 steps"),
        ({"total": 13}, "steps", "has 13 steps instead of 12"),
    ]
    for change, rule, words in changes:
        found = first(rules.once(about(), {**own, **change}))
        assert found is not None
        assert found.name == f"rule/{rule}"
        assert words in found.words


def test_steps_of_a_long_training_are_looked_at_in_part() -> None:
    steps = rules.looked_at_steps(5_000_000)
    assert len(steps) == 40_000
    assert (steps[0], steps[19_999], steps[-1]) == (0, 19_999, 4_999_999)
    assert steps == sorted(steps)
    assert rules.looked_at_steps(3) == [0, 1, 2]


# ------------------------------------------------------------------ what is not asked for
def test_the_forward_level_computes_nothing_else(tmp_path: Path) -> None:
    plan = made(plan_of(tmp_path, levels=("forward",), points=(0, 1), self_runs=4))
    assert sorted(path.name for path in tmp_path.glob("reference/*.safetensors")) == [
        "dump0.safetensors",
        "float64-0.safetensors",
        "state0.safetensors",
    ]

    def never(*_: Any) -> Any:
        raise AssertionError("nobody asked for this")

    session: Any = Around(opened(), train_step=never, losses_and_gradients=never)
    rows = rows_at(plan, planned(plan, "torch"), session, 0)
    assert first(rows) is None
    assert {row.name.partition("/")[0] for row in rows} == {"rule", "forward"}


def test_more_levels_later_make_the_dump_anew(tmp_path: Path) -> None:
    plan = made(plan_of(tmp_path, levels=("forward",), points=(0,), self_runs=1))
    more = made(replace(plan, levels=("forward", "loss")))
    assert Dump(Shelf.of(more).dump(Look(0))).about["levels"] == "forward loss"
    assert any(name.startswith("loss/") for name in Envelope.load(Shelf.of(more).noise(Look(0))).noise)
