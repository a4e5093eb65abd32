"""From a configuration's `model` section to a traced detector."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from portdet.config import Config as RunConfig
from portdet.data.scenes import SCENE_NAMES
from portdet.errors import PortdetError, nearest
from portdet.ir.graph import DType, ModuleGraph
from portdet.ir.trace import graph
from portdet.ir.verify import verify
from portdet.outside import complaint, shown
from portdet.postprocess.detections import Detections
from portdet.session import Array
from portdet.spec import Module


@dataclass(frozen=True)
class Detector:
    """A detector: its checked fields, its spec, its graph with the entries `loss` and `predict`, and the host's part.

    detections(predictions, sizes, config): one `Detections` per image from the output of `predict`.
    head: prefixes of the weights whose shape depends on the classes; transfer may leave them out.
    stages: prefixes of what `optim.freeze_at` freezes first, second, ...; none: the model has no numbered stages.
    scores: whether the loss weighs boxes. noise: shape of an image's training noise by the input's side, if it has one.
    """

    fields: Any
    spec: Module
    graph: ModuleGraph
    detections: Callable[[Array, Array, RunConfig], list[Detections]]
    head: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...] = ()
    scores: bool = False
    noise: Callable[[int], tuple[int, ...]] | None = None


def model_names() -> list[str]:
    """Models that portdet ships: the files of portdet/models that have a `build`."""
    import portdet.models as package

    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg]
    return [name for name in names if name not in ("layers", "registry")]


def load_model(section: Mapping[str, Any], *, imgsz: int = 416, batch: int = 2, max_boxes: int = 50) -> Detector:
    """Build and trace the model of a `model:` section.

    Shapes of the trace do not enter the generated source; they serve parameter counts, FLOPs and checks.
    Raises PortdetError for an unknown model, an unknown field or a wrong value.
    """
    module = _module(section)
    _check_side(module, "imgsz", imgsz)
    fields = _check(module.Config, section)
    spec: Module = module.build(fields)
    noise = getattr(spec, "noise_shape", None)
    inputs = _train_inputs(spec, batch, imgsz, max_boxes, noise(imgsz) if noise else ())
    traced = graph(spec, {"loss": (True, inputs), "predict": (False, {"images": inputs["images"]})})
    verify(traced)
    asks = "noise" in inputs
    stages = getattr(module, "STAGES", ())
    scores, noise = "scores" in inputs, noise if asks else None
    return Detector(fields, spec, traced, module.detections, module.HEAD, stages, scores, noise)


def section_of(config: RunConfig, names: Sequence[str] = ()) -> dict[str, Any]:
    """The `model` section for the classes of the data: `names`, else those that the configuration says.

    Without `classes` where nothing says them, as with a COCO file that was not opened. Raises PortdetError where the
    data and `model.classes` are both given and disagree.
    """
    section, data = dict(config.model), config.data
    told = names or data.names
    if told and section.setdefault("classes", len(told)) != len(told):
        raise PortdetError(
            f"model.classes = {shown(section['classes'])}, but the data has {len(told)} classes: {shown(list(told))}",
            fix="leave model.classes out, or set it to the number of classes",
        )
    if data.format == "scenes" and not told:
        section.setdefault("classes", len(SCENE_NAMES))
    return section


def fields_of(section: Mapping[str, Any]) -> Any:
    """A `model` section as its model's own checked fields. Raises PortdetError as `load_model` does."""
    return _check(_module(section).Config, section)


def check(config: RunConfig) -> None:
    """Raise for a model that does not exist, for its wrong fields, for sizes that it cannot take and for an
    eval section that is not its own. Builds nothing."""
    module = _module(config.model)
    _check(module.Config, config.model)
    for key, sides in (("imgsz", [config.data.imgsz]), ("sizes", config.data.sizes)):
        for side in sides:
            _check_side(module, key, side)
    module.check(config)


def _module(section: Mapping[str, Any]) -> ModuleType:
    name = section.get("name", "")
    if type(name) is not str or name not in model_names():
        raise PortdetError(f"unknown model {shown(name)}", fix=nearest(str(name), model_names()))
    return importlib.import_module(f"portdet.models.{name}")


def _check_side(module: ModuleType, key: str, side: int) -> None:
    """The coarsest grid has whole cells, and the finer ones join it."""
    if over := side % module.STRIDE:
        good = [str(number) for number in (side - over, side - over + module.STRIDE) if number]
        raise PortdetError(
            f"data.{key} has {side}, which is no multiple of {module.STRIDE}, the model's coarsest stride",
            fix=f"use {' or '.join(good)}",
        )


def _train_inputs(
    spec: Module, batch: int, imgsz: int, max_boxes: int, noise: tuple[int, ...]
) -> dict[str, tuple[tuple[int, ...], DType]]:
    """Shape and dtype of what the model's `loss` takes, by its parameters' names: `session.Batch` tells what is there.

    A model that takes `noise` has `noise_shape(side)`, the shape for one image; () leaves the input out.
    """
    known: dict[str, tuple[tuple[int, ...], DType]] = {
        "images": ((batch, 3, imgsz, imgsz), "float"),
        "boxes": ((batch, max_boxes, 4), "float"),
        "labels": ((batch, max_boxes), "int32"),
        "valid": ((batch, max_boxes), "bool"),
        "scores": ((batch, max_boxes), "float"),
        **({"noise": ((batch, *noise), "float")} if noise else {}),
    }
    asked = inspect.signature(type(spec).loss).parameters  # type: ignore[attr-defined]
    return {name: type_ for name, type_ in known.items() if name in asked}


def _check(config: type[BaseModel], section: Mapping[str, Any]) -> Any:
    try:
        return config.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in ("model", *first["loc"]))
        if first["type"] == "extra_forbidden":
            fix = nearest(str(first["loc"][-1]), config.model_fields)
            raise PortdetError(f"unknown key {shown(place)}", fix=fix) from None
        raise complaint(error, "", "see `portdet help model`", under="model") from None
