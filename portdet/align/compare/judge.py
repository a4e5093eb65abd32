"""The comparison itself: exact gates first, then each tensor against its calibrated tolerance; one pass, one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from portdet.align.compare import exact
from portdet.align.compare.distance import SMALL, Distance, distance, distances
from portdet.align.compare.envelope import Envelope, Median
from portdet.align.compare.result import Finding, Result
from portdet.errors import PortdetError

Array = NDArray[Any]

DOUBTFUL, DIFFERENT = 4.0, 10.0
"""Times the self-noise. Healthy pairs stay below 2, the weakest of 23 real porting faults lay at 1,770: any factor in
between separates them."""


def compare(
    reference: Mapping[str, Array],
    candidate: Sequence[Mapping[str, Array]],
    envelope: Envelope | None = None,
    *,
    float64: Mapping[str, Array] | None = None,
    factor: float = DIFFERENT,
    widths: bool = True,
) -> Result:
    """Hold runs of another program against the reference; both map names to arrays in order of appearance.

    candidate: one run, or three under perturbed weights and inputs, of which the median counts. envelope: the
    reference's self-noise; without it only the exact gates judge. float64: the same run in float64, for the errors of
    both. widths: whether float32 against float64 is a difference of its own.

    Raises PortdetError if there is no candidate or the envelope is of other tensors.
    """
    if not candidate:
        raise PortdetError("nothing to compare: no run of the other program")
    other = Median(candidate)
    wrong = exact.names(reference, other)
    result = Result(self_runs=envelope.runs if envelope else 0, factor=factor)
    pending: list[tuple[Finding, Array, Array]] = []
    for name in reference:
        if name in wrong:
            result.findings.append(Finding(name, "broken", wrong.pop(name)))
            continue
        want, got = reference[name], other[name]
        if words := exact.values(got, want, widths=widths):
            result.findings.append(Finding(name, "broken", words))
            continue
        finding = Finding(name, "unjudged")
        if float64 is not None and name in float64 and float64[name].shape == want.shape:
            truth = float64[name]
            finding.error, finding.reference_error = (distance(x, truth).max_rel for x in (got, want))
        result.findings.append(finding)
        if want.size > SMALL:
            _calibrate(finding, distance(got, want), envelope, factor)
        else:
            pending.append((finding, got, want))
    for (finding, _, _), apart in zip(pending, distances([pair[1:] for pair in pending]), strict=True):
        _calibrate(finding, apart, envelope, factor)
    result.findings += [Finding(name, "broken", words) for name, words in wrong.items()]
    return result


def _calibrate(finding: Finding, apart: Distance, envelope: Envelope | None, factor: float) -> None:
    finding.max_rel, finding.rel_l2 = apart.max_rel, apart.rel_l2
    finding.cosine, finding.signed_ulp = apart.cosine, apart.signed_ulp
    if apart.equal:
        finding.status = "same"
    if envelope is None:
        return
    if finding.name not in envelope.noise:
        raise PortdetError(
            f"the self-runs have no tensor '{finding.name}'", fix="take them from the reference as it is now"
        )
    largest, norm = envelope.tolerance(finding.name)
    finding.tolerance = factor * largest
    finding.ratio = max(apart.max_rel / largest, apart.rel_l2 / norm)
    if not apart.equal:
        limits = ((factor, "different"), (min(DOUBTFUL, factor), "doubtful"))
        finding.status = next((word for limit, word in limits if finding.ratio > limit), "noise")
        finding.words = (
            f"lies apart by {apart.max_rel:.1e} of its largest value, {finding.ratio:,.3g} times what one-ulp changes "
            f"of weights and inputs do to it ({largest:.1e}); cosine {apart.cosine:.6f}, mean error "
            f"{apart.signed_ulp:+.2g} ulp"
        )
