"""PaddleDetection's PP-YOLO held against miemiedetection's, from the same weights and the same inputs.

    PORTDET_PPDET=folder PORTDET_MIEMIE=folder python -m tests.align.peers.run OUT [CASE...]

The folders hold the sources of both programs (`ppdet` and `configs` of PaddleDetection develop, 666f597; `mmdet` and
`exps` of miemiedetection, 7193fa8). Each runs in a process of its own and is seen by hooks alone; nothing of them is
changed but what a case's name says. Prints every verdict; OUT keeps the dumps, and what is there is not run again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from portdet.align.compare import Dump, Envelope, Result, compare
from portdet.align.compare.names import shared
from portdet.files import write_text
from portdet.session import Arrays
from tests.align.peers.case import AS_IT_IS, PORT_RUNS, SELF_RUNS
from tests.backends.harness import ROOT
from tests.patience import SLOW_GUARD

CASES = {
    "r50vd_dcn as they are": ("r50vd_dcn", "none"),
    "r50vd_dcn, old coordinates, no clip": ("r50vd_dcn", "coordinates+clip"),
    "r18vd as they are": ("r18vd", "none"),
    "r18vd, no clip": ("r18vd", "clip"),
}
"""By name: the model, and what PaddleDetection is made to do like miemiedetection."""


def child(module: str, *arguments: str) -> None:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"tests.align.peers.{module}", *arguments], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=SLOW_GUARD, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{module} {arguments}: {done.stderr[-3000:]}")


def dumps(folder: Path, module: str, arguments: tuple[str, ...], seeds: tuple[int, ...]) -> list[Arrays]:
    """Of the seeds' runs; those that are not there yet are made."""
    place = folder / "-".join((module, *arguments))
    place.mkdir(parents=True, exist_ok=True)
    missing = [str(seed) for seed in seeds if not (place / f"{seed}.safetensors").exists()]
    if missing:
        child(module, str(place), *arguments, *missing)
    return [dict(Dump(place / f"{seed}.safetensors")) for seed in seeds]


def held(folder: Path, name: str) -> tuple[Result, list[str]]:
    """The verdict on the tensors that both have, and the names that one alone has."""
    variant, edits = CASES[name]
    ours = dumps(folder, "ppdet_child", (variant, edits), (AS_IT_IS, *SELF_RUNS))
    theirs = dumps(folder, "miemie_child", (variant,), PORT_RUNS)
    reference, *port = shared(ours[0], *theirs)
    left = sorted((set(ours[0]) | set(theirs[0])) - set(reference))
    envelope = Envelope()
    for run in ours[1:]:
        envelope.add(reference, {tensor: run[tensor] for tensor in reference})
    return compare(reference, port, envelope), left


def rules(folder: Path) -> Result:
    """Single rules as functions of the same numbers: ten float32 ulp are allowed, since no self-run moves anything."""
    for module in ("ppdet_rules", "miemie_rules"):
        if not (folder / f"{module}.safetensors").exists():
            folder.mkdir(parents=True, exist_ok=True)
            child(module, str(folder.resolve() / f"{module}.safetensors"))
    ours, theirs = (Dump(folder / f"{module}.safetensors") for module in ("ppdet_rules", "miemie_rules"))
    envelope = Envelope()
    envelope.add(ours, ours)
    return compare(ours, [theirs], envelope)


def main() -> None:
    folder, names = Path(sys.argv[1]).resolve(), sys.argv[2:]
    for name in names or CASES:
        result, left = held(folder, name)
        result.save(folder / f"{name}.json")
        told = [f"{name}: {len(result.findings)} tensors of both, {len(left)} of one alone. {result.words()}"]
        for level, (count, guilty, ratio) in result.levels().items():
            told.append(f"  {level}: {count} tensors, {guilty} different, largest ratio {ratio:.3g}")
        write_text(folder / f"{name}.txt", "\n".join([*told, *left]) + "\n")
        print("\n".join(told), flush=True)
    for finding in rules(folder).findings:
        print(f"  {finding.name}: {finding.status}, ratio {finding.ratio:.3g}, {finding.words}")


if __name__ == "__main__":
    main()
