"""From a configuration's `model` section to a traced detector."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from portdet.config import Config as RunConfig
from portdet.errors import PortdetError, nearest
from portdet.ir.graph import DType, ModuleGraph
from portdet.ir.trace import graph
from portdet.ir.verify import verify
from portdet.postprocess.detections import Detections
from portdet.session import Array
from portdet.spec import Module

TRAIN_INPUTS = ("images", "boxes", "labels", "valid")


@dataclass(frozen=True)
class Detector:
    """A detector: its checked fields, its spec, its graph with the entries `loss` and `predict`, and the host's part.

    detections(predictions, sizes, config): one `Detections` per image from the output of `predict`.
    head: prefixes of the weights whose shape depends on the classes; transfer may leave them out.
    """

    fields: Any
    spec: Module
    graph: ModuleGraph
    detections: Callable[[Array, Array, RunConfig], list[Detections]]
    head: tuple[str, ...]


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
    name = str(section.get("name", ""))
    if name not in model_names():
        raise PortdetError(f"unknown model '{name}'", fix=nearest(name, model_names()))
    module = importlib.import_module(f"portdet.models.{name}")
    fields = _check(module.Config, section)
    spec: Module = module.build(fields)
    floats: DType = "float"
    images = ((batch, 3, imgsz, imgsz), floats)
    targets: dict[str, tuple[tuple[int, ...], DType]] = {
        "images": images,
        "boxes": ((batch, max_boxes, 4), "float"),
        "labels": ((batch, max_boxes), "int32"),
        "valid": ((batch, max_boxes), "bool"),
    }
    traced = graph(spec, {"loss": (True, targets), "predict": (False, {"images": images})})
    verify(traced)
    return Detector(fields, spec, traced, module.detections, module.HEAD)


def _check(config: type[BaseModel], section: Mapping[str, Any]) -> Any:
    try:
        return config.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("model", *first["loc"]))
        if first["type"] == "extra_forbidden":
            fix = nearest(str(first["loc"][-1]), config.model_fields)
            raise PortdetError(f"unknown key '{place}'", fix=fix) from None
        raise PortdetError(f"{place} = {first['input']!r}: {first['msg'].lower()}") from None
