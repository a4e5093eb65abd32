"""Whether paired trainings of two backends score alike: two one-sided t-tests, their power, and tests per epoch.

That two means lie close shows nothing: if equal systems scatter by 0.1 AP from run to run, every second pair lies
further apart than 0.1. So equality is what has to be shown, against a stated margin (Schuirmann 1987), and the answer
may be that there are too few runs. Differences are paired by seed: both backends of a pair had the same initial
weights and the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

from portdet.errors import PortdetError

ALPHA = 0.05  # of each of the two one-sided tests; their interval is therefore one of 90 %
POWER = 0.8  # that a plan of runs should have
_MOST_RUNS = 1000

Verdict = Literal["equivalent", "different", "inconclusive"]


@dataclass(frozen=True)
class Paired:
    """What n paired differences say of their mean.

    mean, sd: of the differences; sd is NaN for one. low, high: the 90 % confidence interval of the mean, unbounded for
    one. p_low, p_high: of the one-sided tests whose null hypotheses are a true mean of -margin or less, and of margin
    or more; p_zero: two-sided, of a true mean of 0.
    """

    n: int
    margin: float
    mean: float
    sd: float
    low: float
    high: float
    p_low: float
    p_high: float
    p_zero: float

    @property
    def power(self) -> float:
        """Probability that n runs show equivalence, where the true mean is 0 and the true deviation is `sd`."""
        return power(self.margin, self.sd / math.sqrt(self.n), self.n - 1) if self.n > 1 else 0.0

    @property
    def needed(self) -> int:
        """Runs that would make it 0.8; 0 if more than 1000, or if one pair shows no scatter."""
        return runs_needed(self.margin, self.sd) if self.n > 1 else 0

    @property
    def verdict(self) -> Verdict:
        """Equivalent: the whole interval lies inside of +-margin, so both one-sided tests reject at 5 %. Different: the
        whole interval lies outside, so the difference is shown to exceed the margin. Else the runs do not tell."""
        if -self.margin < self.low and self.high < self.margin:
            return "equivalent"
        return "different" if self.low > self.margin or self.high < -self.margin else "inconclusive"

    def words(self) -> str:
        """Figures in a line: '+0.012, 90 % interval -0.003 to +0.027, margin 0.1, 5 seeds'."""
        if self.n < 2:
            return f"{self.mean:+.3f} in one pair, margin {self.margin:g}, which bounds no small difference"
        interval = f"90 % interval {self.low:+.3f} to {self.high:+.3f}"
        return f"{self.mean:+.3f}, {interval}, margin {self.margin:g}, {self.n} seeds"


def paired(differences: Sequence[float], margin: float) -> Paired:
    """Test paired differences (candidate minus reference, in the margin's unit) for equivalence and for difference.

    Differences that are all the same have no scatter: their mean counts as exact. Raises PortdetError for none, for one
    that is not finite, and for a margin that is not positive.
    """
    values = np.asarray(differences, np.float64)
    if not values.size or not np.isfinite(values).all():
        raise PortdetError(f"differences {values.tolist()} cannot be tested", fix="each run must have a finite score")
    if not margin > 0:
        raise PortdetError(f"a margin of {margin} cannot be shown", fix="give the largest difference that is harmless")
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Paired(1, margin, mean, math.nan, -math.inf, math.inf, 1.0, 1.0, 1.0)
    sd = float(values.std(ddof=1)) if np.ptp(values) else 0.0
    error, student = sd / math.sqrt(n), stats.t(n - 1)
    half = float(student.ppf(1 - ALPHA)) * error
    return Paired(
        n, margin, mean, sd, mean - half, mean + half,
        p_low=_upper(mean + margin, error, student), p_high=_upper(margin - mean, error, student),
        p_zero=min(1.0, 2 * _upper(abs(mean), error, student)),
    )  # fmt: skip


def power(margin: float, error: float, freedom: int, true: float = 0.0) -> float:
    """Probability that both one-sided tests reject, where the true difference is `true`.

    error: true standard error of the mean difference (deviation / sqrt(n) for pairs, deviation * sqrt(2 / n) for two
    independent arms); freedom: degrees of freedom of its estimate (n - 1, or 2n - 2). Exact: the probability given the
    estimated deviation, integrated over that one's chi distribution (Owen's Q, as Phillips 1990 has it).
    """
    if error == 0:
        return float(abs(true) < margin)
    chi, step = stats.chi(freedom), float(stats.t.ppf(1 - ALPHA, freedom)) / math.sqrt(freedom)

    def density(c: NDArray[np.float64]) -> NDArray[np.float64]:
        upper, lower = (margin - true) / error - step * c, -(margin + true) / error + step * c
        return np.asarray(chi.pdf(c) * (special.ndtr(upper) - special.ndtr(lower)))

    first, last = float(chi.ppf(1e-12)), min(margin / error / step, float(chi.ppf(1 - 1e-12)))
    return float(integrate.fixed_quad(density, first, last, n=200)[0]) if first < last else 0.0


def runs_needed(margin: float, sd: float) -> int:
    """Pairs that show equivalence with probability 0.8, if the true difference is 0; 0 if more than 1000."""
    known = (sd / margin * float(stats.norm.ppf(1 - ALPHA) + stats.norm.ppf((1 + POWER) / 2))) ** 2
    first = max(2, math.floor(min(known, _MOST_RUNS)))  # what a known deviation needs; an estimated one, more
    enough = (n for n in range(first, _MOST_RUNS + 1) if power(margin, sd / math.sqrt(n), n - 1) >= POWER)
    return next(enough, 0)


def curve_area(epochs: Sequence[float], scores: Sequence[float]) -> float:
    """The area under a curve of scores divided by its length: a whole training in one number of the score's unit.

    Trapezoids between the epochs given, in rising order; of a single epoch its score.
    """
    xs, ys = np.asarray(epochs, np.float64), np.asarray(scores, np.float64)
    return float(integrate.trapezoid(ys, xs) / (xs[-1] - xs[0])) if len(xs) > 1 else float(ys[0])


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of many tests: of those below 0.05 none is chance, at 95 % (Holm 1979)."""
    count, worst = len(p_values), 0.0
    adjusted = [1.0] * count
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


def _upper(distance: float, error: float, student: stats.rv_continuous) -> float:
    """P value of a mean that lies `distance` above its null hypothesis; without scatter the mean is exact."""
    return float(student.sf(distance / error)) if error else float(distance <= 0)
