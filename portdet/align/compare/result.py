"""What a comparison found: every tensor's figures, the first guilty one, and plain words for a person."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from portdet.files import write_text

WIDE = 0.01
"""A tolerance above this hides faults that matter. It comes from activations that change sides of zero when weights
move by an ulp: the gradients below them jump by 0.1 to 20 % in a program against itself."""


@dataclass
class Finding:
    """One tensor. status: same (bit for bit), noise, doubtful, different, broken (an exact gate), unjudged.

    ratio: distance over the largest that the reference shows against itself. error, reference_error: max_rel of the
    candidate and of the reference from the float64 run, where there is one.
    """

    name: str
    status: str
    words: str = ""
    max_rel: float = 0.0
    rel_l2: float = 0.0
    tolerance: float = 0.0
    ratio: float = 0.0
    cosine: float = 1.0
    signed_ulp: float = 0.0
    error: float | None = None
    reference_error: float | None = None

    @property
    def guilty(self) -> bool:
        return self.status in ("different", "broken")

    @property
    def level(self) -> str:
        """What its name starts with: weights, forward, loss, grad, step."""
        return self.name.partition("/")[0]


@dataclass
class Result:
    """Findings in the reference's order of appearance. `self_runs`: how many set the tolerances."""

    findings: list[Finding] = field(default_factory=list)
    self_runs: int = 0
    factor: float = 10.0

    @property
    def first(self) -> Finding | None:
        """The first guilty tensor in order of appearance."""
        return next((finding for finding in self.findings if finding.guilty), None)

    @property
    def passed(self) -> bool | None:
        """None where nothing is guilty, but no self-run says what rounding does."""
        if self.first:
            return False
        return None if any(finding.status == "unjudged" for finding in self.findings) else True

    def guilty(self, level: str = "") -> list[Finding]:
        return [f for f in self.findings if f.guilty and (not level or f.level == level)]

    def wide(self) -> list[Finding]:
        """Tensors whose tolerance is so wide that only large faults show in them."""
        return [finding for finding in self.findings if finding.tolerance > WIDE]

    def levels(self) -> dict[str, tuple[int, int, float]]:
        """By level: tensors, guilty ones, largest cross/self ratio (exact gates apart)."""
        out = {}
        for level in dict.fromkeys(finding.level for finding in self.findings):
            here = [f for f in self.findings if f.level == level]
            out[level] = (len(here), sum(f.guilty for f in here), max(f.ratio for f in here))
        return out

    def words(self) -> str:
        """The verdict, the first guilty tensor with its figures, and how far the difference reaches."""
        total, first = len(self.findings), self.first
        worst = max((f for f in self.findings if not f.guilty), key=lambda f: f.ratio, default=None)
        if first is None:
            if self.passed is None:
                return f"Undecided: {total} tensors, but no self-runs of the reference say what rounding does to them."
            largest = f"; largest cross/self ratio {worst.ratio:.2g} ({worst.name})" if worst else ""
            words = f"The same: all {total} tensors within {self.factor:g} times the self-noise{largest}."
            return f"{words} {self._blind()}".rstrip()
        place = self.findings.index(first)
        before = self.findings[:place]
        lines = [f"Different, first in {first.name}: it {first.words}."]
        if before:
            ratio = max(f.ratio for f in before)
            lines.append(f"All {place} before it agree (largest cross/self ratio {ratio:.2g}).")
        else:
            lines.append("It is the first tensor of all: compare what goes in (weights, images) before the model.")
        rest = self.guilty()
        if len(rest) > 1:
            lines.append(f"Of the {total - place - 1} after it {len(rest) - 1} differ too{_alike(rest)}.")
        elif total - place - 1:
            lines.append("Nothing after it differs.")
        return " ".join(lines)

    def _blind(self) -> str:
        if not (wide := self.wide()):
            return ""
        most = max(wide, key=lambda f: f.tolerance)
        return (
            f"In {len(wide)} of them rounding alone moves values so far that faults below {WIDE:.0%} do not show "
            f"(below {most.tolerance:.0%} in {most.name}): take other inputs to see more."
        )

    def to_json(self) -> str:
        """The verdict and all figures; numbers that JSON lacks are text."""
        rows = [{k: _plain(v) for k, v in asdict(f).items()} for f in self.findings]
        first = self.first.name if self.first else None
        head = {"passed": self.passed, "first": first, "words": self.words(), "wide": [f.name for f in self.wide()]}
        return json.dumps({**head, "self_runs": self.self_runs, "factor": self.factor, "tensors": rows}, indent=1)

    def save(self, path: Path) -> None:
        write_text(path, self.to_json() + "\n")


def _alike(guilty: list[Finding]) -> str:
    """What the names of guilty tensors have in common, where it is nearly all of them: a rule, not a layer."""
    ends = Counter(f"{f.level}/...{_ending(f.name)}" for f in guilty)
    end, count = ends.most_common(1)[0]
    return f", {count} of them {end}" if count > 0.8 * len(guilty) and count > 2 else ""


def _ending(name: str) -> str:
    return "." + name.rpartition(".")[2] if "." in name else "/" + name.rpartition("/")[2]


def _plain(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
