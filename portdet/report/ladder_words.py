"""A ladder in plain words: its levels, verdicts with a sign each, and places of a detector by a tensor's name."""

from __future__ import annotations

from html import escape

from portdet.report.outcome import LEVELS, Outcome, Row

LEVEL_WORDS = {
    "ops": "each single operation, against NumPy in float64",
    "weights": "the initial weights as loaded",
    "forward": "every layer's output on one batch",
    "loss": "every term of the loss on that batch",
    "grad": "every weight's gradient",
    "step": "all that one training step leaves: weights, statistics, momentum, average",
    "steps": "the same at later steps, each from the reference's own state",
    "free": "losses of a training of each one's own",
    "train": "AP of whole trainings",
    "ranks": "one process against several",
    "power": "planted faults: would this ladder have seen them?",
}
_LEAVES = {
    "running_mean": "running mean",
    "running_var": "running variance",
    "weight": "weight",
    "bias": "bias",
    "gamma": "scale",
    "beta": "shift",
}
_STATUS = {
    "same": ("ok", "= same bits"),
    "noise": ("ok", "✓ noise"),
    "kink": ("quiet", "≈ kink"),
    "known": ("quiet", "≈ declared"),
    "doubtful": ("unsure", "? doubtful"),
    "unjudged": ("unsure", "? unjudged"),
    "different": ("failed", "✗ different"),
    "broken": ("failed", "✗ broken"),
    "caught": ("ok", "✓ caught"),
    "missed": ("failed", "✗ missed"),
}
_VERDICT = {True: ("ok", "✓ equivalent"), False: ("failed", "✗ different"), None: ("unsure", "? inconclusive")}
_POWER = {True: ("ok", "✓ caught"), False: ("failed", "✗ faults missed"), None: ("unsure", "? inconclusive")}
_VERBS = {"lies", "is", "has", "starts", "runs", "sees", "computes", "differs", "holds"}


_PREDICTED = {"predict": "the predictions", "predict.scores": "the predicted scores"}


def place(name: str) -> str:
    """'step/weights/conv0.norm.running_var': 'the running variance of conv0.norm after one training step'."""
    kind, _, rest = name.partition("/")
    if kind == "step" and "/" in rest:
        slot, _, rest = rest.partition("/")
        what = f"the {slot} of {_tensor(rest)}" if slot in ("momentum", "ema") else _tensor(rest)
        return f"{what.replace('the ema of', 'the moving average (EMA) of')} after one training step"
    if kind == "ranks":
        inner = rest.removeprefix("state/") if rest.count("/") < 2 else rest.replace("state/", "step/", 1)
        return f"{place(inner.replace('gradient/', 'grad/', 1))} with several processes"
    known = {
        "weights": f"{_tensor(rest)} as loaded",
        "forward": _PREDICTED.get(rest, f"the output of {rest}"),
        "loss": "the total loss" if rest == "loss" else f"the loss term {rest}",
        "grad": f"the gradient of {_tensor(rest)}",
        "ops": f"the operation {rest}",
        "norm": f"the statistic {rest}",
        "rule": f"the {rest.replace('_', ' ')}, which has to be exactly the same",
    }
    return known.get(kind, name) if rest else "the total loss" if name == "loss" else name


def _tensor(name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    return f"the {_LEAVES.get(leaf, leaf)} of {layer}" if layer else name


def status(row: Row) -> str:
    """A row's verdict: sign, word and colour."""
    kind, words = _STATUS.get(row.status, ("unsure", f"? {row.status}"))
    return f'<span class="{kind}">{escape(words)}</span>'


def verdict(outcome: Outcome, reference: str) -> str:
    """A level's verdict on a backend: sign, word and colour."""
    if outcome.crashed and outcome.passed is None:
        return '<span class="unsure">! could not run</span>'
    if outcome.passed and not outcome.rows and outcome.backend == reference:  # with nothing to differ from
        return '<span class="ok">✓ done</span>'
    kind, words = (_POWER if outcome.level == "power" else _VERDICT)[outcome.passed]
    return f'<span class="{kind}">{words}</span>'


def sentence(words: str) -> str:
    """A finding as a sentence: 'is 0.1 instead of 0.2' as 'It is 0.1 instead of 0.2.'."""
    words = words.strip()
    text = f"It {words}" if words.partition(" ")[0] in _VERBS else words[:1].upper() + words[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def breakable(name: str) -> str:
    """A tensor's name as HTML that may be broken at its dots and slashes."""
    return escape(name).replace("/", "/<wbr>").replace(".", ".<wbr>")


def ratio(value: float) -> str:
    """Two digits; ∞ where the reference shows no noise at all."""
    return "∞" if value == float("inf") else f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def lowest(outcomes: list[Outcome]) -> list[tuple[Outcome, Row | None]]:
    """Each different backend's lowest level that differs, with its first guilty row: where to look first."""
    found: dict[str, tuple[Outcome, Row | None]] = {}
    for outcome in sorted(outcomes, key=lambda o: LEVELS.index(o.level)):
        if outcome.passed is False and outcome.level != "power" and outcome.backend not in found:
            guilty = (row for row in outcome.rows if row.guilty and row.name == outcome.first)
            found[outcome.backend] = outcome, next(guilty, None)
    return list(found.values())
