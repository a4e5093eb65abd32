"""Are two programs the same, given the named tensors that they yield? Pure numpy; knows no framework and no detector.

    with DumpWriter(path, {"program": "ours"}) as dump:      # in each program, with its own hooks
        dump.put("forward/stem.conv", array)

    envelope = Envelope()                                    # what rounding alone does to the reference
    for seed in range(16):
        envelope.add(reference, run_reference_on(perturb(weights, seed)))
    result = compare(reference, [three runs of the other program, perturbed too], envelope)
    print(result.words())

A tensor's tolerance is what one-ulp changes of weights and inputs do to it in the reference itself; the other program
is the median of three such runs, so that one activation that falls on the other side of zero raises no alarm. Names
start with their level: weights, forward, loss, grad, step.
"""

from portdet.align.compare.dump import Dump, DumpWriter
from portdet.align.compare.envelope import Envelope, Median, false_alarms
from portdet.align.compare.judge import compare
from portdet.align.compare.perturb import perturb
from portdet.align.compare.result import Finding, Result
from portdet.align.compare.sketch import Sketches

__all__ = [
    "Dump",
    "DumpWriter",
    "Envelope",
    "Finding",
    "Median",
    "Result",
    "Sketches",
    "compare",
    "false_alarms",
    "perturb",
]
