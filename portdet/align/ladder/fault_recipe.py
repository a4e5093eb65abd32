"""Faults of the optimiser and of its schedule: in the `Recipe`, or in what the host decides for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from portdet.align.ladder.fault_planting import Fault, Planting, Subject
from portdet.session import Group, Recipe, StepValues

POINTS = range(101)
"""Steps among which values that change are looked for."""


def updated(name: str) -> tuple[str, ...]:
    """Where another update of a weight shows: in itself, or only in its momentum if it is too small for an ulp."""
    return f"step/weights/{name}", f"step/momentum/{name}"


def trained(subject: Subject) -> list[str]:
    """Trained weights, in the spec's order."""
    chosen = {name for group in subject.recipe.groups for name in group.names}
    return [name for name in subject.detector.graph.weights() if name in chosen]


def any_update(subject: Subject) -> tuple[str, ...]:
    """For a rule of all updates. In the order of appearance the first that shows it may be any: of some weights the
    update is less than an ulp in the first steps, or lost in what rounding does to their gradients."""
    return tuple(place for name in trained(subject) for place in updated(name))


def _recipe(
    name: str,
    real: str,
    change: Callable[[Recipe], Recipe],
    first: Callable[[Subject], tuple[str, ...]],
    since: int = 0,
) -> Fault:
    def plant(subject: Subject) -> Planting | None:
        faulty = change(subject.recipe)
        return None if faulty == subject.recipe else Planting(first(subject), recipe=faulty, since=since)

    return Fault(name, real, "recipe", plant)


def _any_kernel(subject: Subject) -> tuple[str, ...]:
    """Of the weights that decay."""
    return tuple(place for group in subject.recipe.groups if group.weight_decay for name in group.names
                 for place in updated(name))  # fmt: skip


def _any_plain(subject: Subject) -> tuple[str, ...]:
    """Of the weights that do not decay."""
    return tuple(place for group in subject.recipe.groups if not group.weight_decay for name in group.names
                 for place in updated(name))  # fmt: skip


def _decay_everywhere(recipe: Recipe) -> Recipe:
    most = max(group.weight_decay for group in recipe.groups)
    return replace(recipe, groups=tuple(replace(group, weight_decay=most) for group in recipe.groups))


def _decay_times(factor: float) -> Callable[[Recipe], Recipe]:
    def change(recipe: Recipe) -> Recipe:
        groups = tuple(replace(group, weight_decay=group.weight_decay * factor) for group in recipe.groups)
        return replace(recipe, groups=groups)

    return change


def _faster_biases(recipe: Recipe) -> Recipe:
    groups = tuple(replace(g, lr_scale=g.lr_scale * (1 if g.weight_decay else 2)) for g in recipe.groups)
    return replace(recipe, groups=groups)


def _frozen(subject: Subject) -> Planting | None:
    name = trained(subject)[0]
    groups = tuple(Group(tuple(n for n in g.names if n != name), g.weight_decay, g.lr_scale)
                   for g in subject.recipe.groups)  # fmt: skip
    return Planting((f"grad/{name}",), recipe=replace(subject.recipe, groups=groups))


RECIPE = [
    _recipe("decay on biases and norms", "all parameters handed to the optimiser, as torch's examples do",
            _decay_everywhere, _any_plain),
    _recipe("decay half as large", "the gradient of w^2 for that of w^2 / 2, as L2 of another framework",
            _decay_times(0.5), _any_kernel),
    _recipe("no decay", "an argument of another framework's optimiser that is ignored", _decay_times(0.0), _any_kernel),
    _recipe("momentum 0.95", "a default of another system", lambda r: replace(r, momentum=0.95), any_update,
            since=1),
    _recipe("Nesterov", "YOLOv5's SGD in a port of a detector with plain momentum",
            lambda r: replace(r, nesterov=not r.nesterov), any_update),
    _recipe("gradients clipped at half", "another norm, or a mean over ranks before it",
            lambda r: replace(r, clip_norm=r.clip_norm / 2 or 10.0), any_update),
    _recipe("gradients clipped by group", "miemiedetection clips each group by itself, ppdet all together",
            lambda r: replace(r, clip_groups=not r.clip_groups) if r.clip_norm else r, any_update),
    _recipe("biases at twice the rate", "Caffe's and Paddle's bias_lr_factor 2", _faster_biases, _any_plain),
    Fault("first layer frozen", "freeze_at counted from another stage, as in miemiedetection's ResNet", "recipe",
          _frozen),
]  # fmt: skip


def _values(
    name: str,
    real: str,
    change: Callable[[Subject, int], StepValues],
    first: Callable[[Subject], tuple[str, ...]],
    of: Callable[[StepValues], float],
) -> Fault:
    """Other values, from the first step on at which the number that `of` picks is another."""

    def plant(subject: Subject) -> Planting | None:
        changed = (t for t in POINTS if of(change(subject, t)) != of(subject.values(t)))
        since = next(changed, None)
        if since is None:
            return None
        return Planting(first(subject), values=lambda step: change(subject, step), since=since)

    return Fault(name, real, "step", plant)


def _rate(values: StepValues) -> float:
    return values.lr


def _decay(values: StepValues) -> float:
    return values.ema_decay


def _rate_rule(subject: Subject) -> tuple[str, ...]:
    return ("rule/lr",)


def _decay_rule(subject: Subject) -> tuple[str, ...]:
    return ("rule/ema_decay",)


STEP = [
    _values("learning rate 1 % off", "a base rate rounded, or scaled by another batch size",
            lambda s, t: replace(s.values(t), lr=s.values(t).lr * 1.01), _rate_rule, _rate),
    _values("learning rate of the step before", "a scheduler stepped after the optimiser, or before",
            lambda s, t: replace(s.values(t), lr=s.values(max(t - 1, 0)).lr), _rate_rule, _rate),
    _values("decay of the average, an update late", "its counter increased after the update for before",
            lambda s, t: replace(s.values(t), ema_decay=s.values(max(t - 1, 0)).ema_decay), _decay_rule, _decay),
    _values("decay of the average begins anew", "the counter is 0 after resuming (YOLOv5 #292, #310)",
            lambda s, t: replace(s.values(t), ema_decay=s.values(0).ema_decay), _decay_rule, _decay),
    _values("decay of the average without its ramp", "0.9998 from the first step on",
            lambda s, t: replace(s.values(t), ema_decay=0.9998 * bool(s.recipe.ema)), _decay_rule, _decay),
]  # fmt: skip
