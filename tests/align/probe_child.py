"""One backend on the tiny YOLOv3: `python probe_child.py FOLDER BACKEND SEED...`: a dump per seed (- for none)."""

from __future__ import annotations

import sys
from pathlib import Path

from portdet.align.compare import DumpWriter
from portdet.align.probe import perturbed, probe
from tests.align.compare_case import VALUES, case, opened, recipe


def main() -> None:
    folder, backend, *seeds = sys.argv[1:]
    one = case()
    session = opened(one.detector, recipe(one.detector), Path(folder), backend)
    for seed in seeds:
        state, batch = (one.state, one.batch) if seed == "-" else perturbed(one.state, one.batch, int(seed))
        with DumpWriter(Path(folder, f"{backend}{seed}.safetensors"), session.facts()) as dump:
            probe(session, state, batch, VALUES, dump.put)
    session.close()


if __name__ == "__main__":
    main()
