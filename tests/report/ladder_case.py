"""A made-up ladder with all that a page can have to show: a guilty backend, kinks, a crash, missed faults, odd names.

Its figures are random with a fixed seed; only their places and counts mean anything.
"""

from __future__ import annotations

import math
from random import Random

from portdet.report.align_run import AlignRun, BackendRun, Check
from portdet.report.ladder_data import LadderReport
from portdet.report.outcome import FALSE_ALARMS, LEVELS, Interval, Outcome, Planted, Row, Series

BACKENDS = ["torch", "mindspore", "paddle"]
OPS = ("conv2d", "leaky_relu", "concat", "resize_nearest", "sigmoid")
RULES = ["means equal to 1e-7", "allclose 1e-4", "cosine above 0.99"]
WORDS = (
    "lies apart by 4.9e-03 of its largest value, 1.48e+04 times what one-ulp changes of weights and inputs do to it "
    "(3.3e-07); cosine 0.999999, mean error -1.7e+02 ulp"
)
ODD = "grad/<img src=x onerror=alert(1)> & \"quoted\" 'name'.weight"
INTERVALS = {
    "mindspore": [
        Interval("AP50 final", -0.004, -0.021, 0.013, 0.05, 3, "equivalent", 0.93, 3),
        Interval("curve area", 0.001, -0.01, 0.012, 0.05, 3, "equivalent", 0.99, 2),
    ],
    "paddle": [
        Interval("AP50 final", 0.031, -0.017, 0.079, 0.05, 3, "inconclusive", 0.31, 9),
        Interval("AP final", -0.09, -0.11, -0.07, 0.05, 3, "different", 0.9, 3),
    ],
}
STATES = {"equivalent": "noise", "different": "different", "inconclusive": "unjudged"}
LAYERS = [f"backbone.stage{stage}.conv{layer}" for stage in range(4) for layer in range(3)] + [
    "neck.conv0",
    "head.conv1",
]
LEAVES = ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")


def rich() -> LadderReport:
    """MindSpore's running variances are wrong after one step; Paddle is the same; its ranks crash."""
    random = Random(7)
    outcomes = [*_low(random), *_free(random), *_train(random), *_top()]
    environment = {
        "torch": {"torch": "2.13.0", "device": "cpu", "mode": "eager"},
        "mindspore": {"mindspore": "2.10.0", "device": "CPU", "mode": "graph"},
        "paddle": {"paddle": "3.3.1", "device": "cpu", "mode": "compiled"},
    }
    return LadderReport(
        title="yolov3_tiny <1>",
        verdict="Different. mindspore, level step is the lowest that differs. Below it five levels agree.",
        passed=False,
        reference="torch",
        backends=BACKENDS,
        levels=list(LEVELS),
        outcomes=outcomes,
        training=training(random),
        seeds=3,
        margin=0.05,
        command="portdet align yolov3_tiny --level all --seeds 3",
        environment=environment,
        facts={"self-runs": "16 of the reference, under one-ulp changes", "points": "0, 1, 2, 5, 20, 100"},
    )


def _row(random: Random, name: str, step: int = 0, scale: float = 1.0) -> Row:
    ratio = scale * math.exp(random.gauss(-0.1, 0.35))
    own = 10 ** random.uniform(-7.2, -5.5)
    return Row(name, "noise", step=step, ratio=ratio, max_rel=ratio * own, rel_l2=ratio * own / 3, tolerance=own,
               cosine=1 - own**2, signed_ulp=random.gauss(0, 2))  # fmt: skip


def _guilty(name: str, step: int, ratio: float = 1.48e4) -> Row:
    return Row(name, "different", WORDS, step, ratio, 4.9e-3, 1e-3, 3.3e-7, 0.999999, -170.0)


def _state(random: Random, step: int, backend: str) -> list[Row]:
    rows = []
    for slot in ("weights", "momentum", "ema"):
        for layer in LAYERS:
            for leaf in LEAVES if slot != "momentum" else LEAVES[:3]:
                name = f"step/{slot}/{layer}.{leaf}"
                bad = backend == "mindspore" and leaf.endswith("var")
                rows.append(
                    _guilty(name, step, 2e3 * math.exp(random.gauss(0, 1))) if bad else _row(random, name, step)
                )
    return rows


def _low(random: Random) -> list[Outcome]:
    found = []
    for backend in BACKENDS:
        ops = [Row(f"{op}/{what}", "noise", max_rel=1e-7) for op in OPS for what in ("value", "gradient")]
        found.append(
            Outcome.of("ops", backend, ops, "all 5 ops of the model as numpy has them", facts={"mode": "eager"})
        )
    for backend in BACKENDS[1:]:
        weights = [
            Row("rule/device", "same"),
            *(Row(f"weights/{layer}.{leaf}", "same") for layer in LAYERS for leaf in LEAVES),
        ]
        forward = [_row(random, f"forward/{layer}.{part}") for layer in LAYERS for part in ("conv", "norm", "act")]
        grad = [_row(random, f"grad/{layer}.{leaf}") for layer in reversed(LAYERS) for leaf in LEAVES[:3]]
        grad[11].status, grad[11].ratio = "kink", 4300.0
        grad[11].words = "apart on the first batch only"
        grad[20].status, grad[20].ratio = "doubtful", 6.1
        grad.append(_row(random, ODD))
        losses = [_row(random, f"loss/{term}") for term in ("xy", "wh", "obj", "cls", "loss")]
        for level, rows in (("weights", weights), ("forward", forward), ("loss", losses), ("grad", grad)):
            found.append(Outcome.of(level, backend, rows, f"The same: all {len(rows)} within 10 times the self-noise."))
        found.append(
            Outcome.of("step", backend, [Row("rule/lr", "same", step=0), *_state(random, 0, backend)], "Statistics.")
        )
        later = [row for step in (1, 2, 5, 20, 100) for row in _state(random, step, backend)]
        found.append(Outcome.of("steps", backend, later, "At five later steps."))
    healthy = [Row(f"held-out/{n}/{n % 5}", "noise", ratio=1.3) for n in range(30)]
    facts = {FALSE_ALARMS: "0 of 30 held-out healthy runs (95 % sure: below 9.5 %)", "kinks": "in 2 of these runs"}
    found.append(Outcome.of("steps", "torch", healthy, "torch against itself: 0 of 30.", facts=facts))
    return found


def _free(random: Random) -> list[Outcome]:
    found, steps = [], list(range(1, 31))
    base = [90 * math.exp(-0.08 * s) + 12 for s in steps]
    spread = [min(1e-6 * 3**s, 0.35) for s in steps]
    for backend in BACKENDS[1:]:
        ys = [b * (1 + random.gauss(0, 0.3) * w) for b, w in zip(base, spread, strict=True)]
        series = [Series("loss of each step", backend, [float(s) for s in steps], ys)]
        for line in series:
            line.low, line.high = ([b * (1 + sign * w) for b, w in zip(base, spread, strict=True)] for sign in (-1, 1))
            line.marks = {"horizon": 9.0}
        rows = [Row("loss up to the horizon", "noise"), Row("loss in the band", "noise")]
        found.append(
            Outcome.of(
                "free", backend, rows, "In the band at all 30 steps.", series=series, facts={"horizon": "step 9"}
            )
        )
    return found


def _train(random: Random) -> list[Outcome]:
    found, epochs = [], [float(e) for e in range(1, 13)]
    for number, backend in enumerate(BACKENDS):
        mean = [0.62 * (1 - math.exp(-e / 4)) + random.gauss(0, 0.006) for e in epochs]
        low, high = [m - 0.02 for m in mean], [m + 0.02 for m in mean]
        series = [Series("AP50 by epoch", backend, epochs, mean, low, high)]
        intervals = INTERVALS.get(backend, [])
        rows = [Row("rule/batches", "same", "equal (hashes of 96 batches)")] if number else []
        rows += [Row(i.name, STATES[i.verdict], i.verdict) for i in intervals]
        outcome = Outcome.of(
            "train", backend, rows, f"AP50 {mean[-1]:.3f} at the end.", series=series, intervals=intervals
        )
        outcome.passed = True if number == 0 else outcome.passed
        found.append(outcome)
    return found


def training(random: Random) -> AlignRun:
    runs = [
        BackendRun(name, "1.0", "cpu", 61.0,
                   [{"epoch": e, "AP": 0.03 * e + random.gauss(0, 0.004), "AP50": 0.05 * e} for e in range(1, 13)],
                   [100 * math.exp(-s / 30) + 10 for s in range(96)], {"AP": 0.36, "AP50": 0.6, "APl": -1.0})
        for name in BACKENDS
    ]  # fmt: skip
    checks = [Check("initial weights", True, "equal (SHA-256)"), Check("final AP50", None, "too few seeds")]
    return AlignRun("yolov3_tiny <1>", "a rule", "Inconclusive.", runs, None, checks, {"numpy": "1.26.4"})


def _top() -> list[Outcome]:
    """Two processes, on one backend a crash; 24 planted faults, of which number 5 is missed, number 9 named wrongly."""
    one = [Row("gradient/head.conv1.weight", "noise", ratio=1.1)]
    facts = {"launcher": "msrun", "processes": "2, 4 of 8 images each"}
    ranks = Outcome.of("ranks", "mindspore", one, "Two processes as one.", facts=facts)
    faults = [_fault(number) for number in range(24)]
    rows = [Row(fault.name, "caught" if fault.caught else "missed") for fault in faults]
    words, healthy = "23 of 24 planted faults were caught.", {"healthy": "0 of 3 alarms"}
    power = Outcome.of("power", "torch", rows, words, planted=faults, facts=healthy)
    return [ranks, Outcome.failed("ranks", "paddle", "Traceback ...\nRuntimeError: <no> launcher"), power]


def _fault(number: int) -> Planted:
    caught, place = number != 5, f"step/weights/{LAYERS[number % len(LAYERS)]}.norm.running_var"
    return Planted(
        name=f"fault number {number}",
        expected=place,
        caught=caught,
        named=number not in (5, 9),
        first=place if caught else "",
        gate=("forward", "step", "steps")[number % 3] if caught else "",
        one_step=number % 7 != 0,
        rules={rule: number % (place + 2) == 0 for place, rule in enumerate(RULES)},
    )
