"""Finding backends by name, and opening a session of one on a detector. No framework is imported here."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from portdet import __version__
from portdet.errors import PortdetError, nearest
from portdet.files import write_text
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.lower.target import Target
from portdet.models import Detector
from portdet.outputs import tensors
from portdet.outside import shown
from portdet.session import Array, Arrays, Backend, Options, Recipe, Session, Source

OWN = {"torch": "portdet_torch", "mindspore": "portdet_mindspore", "paddle": "portdet_paddle"}


def backend_names() -> list[str]:
    """Our own backends, then those of other packages (entry points `portdet.backends`)."""
    others = [point.name for point in entry_points(group="portdet.backends")]
    return list(dict.fromkeys([*OWN, *others]))


def load_backend(name: str) -> Backend:
    """The backend of that name; its framework stays unimported until a session is opened."""
    if name in OWN:
        return importlib.import_module(OWN[name]).BACKEND  # type: ignore[no-any-return]
    for point in entry_points(group="portdet.backends", name=name):
        loaded = point.load()
        return getattr(loaded, "BACKEND", loaded)  # type: ignore[no-any-return]
    raise PortdetError(f"unknown backend '{name}'", fix=nearest(name, backend_names()))


def source_text(detector: Detector, target: Target, *, title: str = "") -> str:
    """A detector's generated source."""
    title = title or f"{detector.graph.class_name} in {target.name}, written by portdet {__version__}."
    return emit(detector.graph, target, title=title, notes=describe_fields(detector.fields))


def write_source(detector: Detector, target: Target, path: Path, *, title: str = "") -> Source:
    """A detector's generated source, also written to a file for people."""
    source = Source(source_text(detector, target, title=title), path)
    write_text(path, source.text)
    return source


def describe_fields(fields: Any) -> str:
    """The model's fields that differ from the defaults, wrapped as a note of the source; empty if none does."""
    values = fields.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    listed = ", ".join(f"{key}={value}" for key, value in values.items())
    return textwrap.fill(f"Fields: {listed}.", 118) if listed else ""


def target_of(backend: Backend, precision: str) -> Target:
    """The words of a backend in a precision. Raises PortdetError for one that it does not compute in."""
    targets = {"float32": backend.target, **backend.other_precisions}
    if precision not in targets:
        offers = [name for name in OWN if precision in load_backend(name).other_precisions]
        fix = f"it computes in {', '.join(targets)}" + (f"; for {precision} use {', '.join(offers)}" if offers else "")
        raise PortdetError(f"{backend.name} has no precision {shown(precision)}", fix=fix)
    return targets[precision]


def open_session(detector: Detector, backend: str, recipe: Recipe, options: Options, folder: Path) -> Session:
    """Write the source into `folder` and build the backend's session of it."""
    chosen = load_backend(backend)
    target = target_of(chosen, options.precision)
    if options.mode == "default":
        options = replace(options, mode=chosen.default_mode)
    if options.mode not in chosen.modes:
        raise PortdetError(f"{backend} has no mode {shown(options.mode)}", fix=nearest(options.mode, chosen.modes))
    source = write_source(detector, target, folder / f"model_{target.name}.py")
    names = native_names(detector.graph, target)
    return chosen.open_session(source, detector.graph.class_name, recipe, names, options)


@contextmanager
def watched(
    modules: Iterable[tuple[str, Any]], register: str, tensor: type, to_numpy: Callable[[Any], Array]
) -> Iterator[Arrays]:
    """Collects what modules return while the context is open: tensors by path, see `portdet.outputs.tensors`.

    register: the framework's method that takes a hook (module, inputs, output).
    """
    found: Arrays = {}

    def keep(path: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            for name, one in tensors(output, path, tensor):
                found[name] = to_numpy(one)

        return hook

    hooks = [getattr(module, register)(keep(path)) for path, module in modules if path]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
