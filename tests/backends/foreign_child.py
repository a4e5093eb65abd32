"""A session whose source file has hostile company, and is changed before anything is compiled:
`python foreign_child.py IN OUT BACKEND MODE`. Writes <where>/<what> for a clean folder and a hostile one."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.session import Arrays, Group, Options, Recipe, Source, StepValues
from tests.backends.foreign import plant
from tests.backends.resume_child import Loader, initial, traced


def main() -> None:
    backend, mode = sys.argv[3:]
    net, chosen, batch = traced(), load_backend(backend), next(Loader(()).epoch(0))
    recipe = Recipe((Group(tuple(name for name, info in net.weights().items() if info.trainable), 0.0),), ema=True)
    text, names = emit(net, chosen.target, title="A net."), native_names(net, chosen.target)
    found: Arrays = {}
    for where in ("clean", "hostile"):
        folder, marker = Path(where).resolve(), Path("ran").resolve()
        folder.mkdir()
        if where == "hostile":
            plant(folder, marker, [f"model_{backend}"])
        shown = folder / f"model_{backend}.py"
        shown.write_text(text)
        session: Any = chosen.open_session(Source(text, shown), "Net", recipe, names, Options(mode=mode, threads=1))
        if where == "hostile":  # after it was written, before a graph compiler asks for its text
            shown.write_text(text.replace("0.1", "0.9"))
        session.load_weights(initial(net))
        result = session.train_step(batch, StepValues(1e-4, 1.0, 0.5))
        found |= {f"{where}/loss/{name}": np.array(value) for name, value in result.losses.items()}
        found |= {f"{where}/state/{name}": array for name, array in session.state().items()}
        found[f"{where}/predict"] = session.predict(batch.images)
        found[f"{where}/text"] = np.array(inspect.getsource(type(session.model)) in text)
        found[f"{where}/changed"] = np.array(shown.read_text() != text)
        session.close()
    found["ran"] = np.array(Path("ran").read_text() if Path("ran").exists() else "")
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
