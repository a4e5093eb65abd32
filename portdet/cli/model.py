"""The detector of a configuration, for commands that open no data."""

from __future__ import annotations

from portdet.config import Config
from portdet.console import say
from portdet.models.registry import Detector, load_model, section_of


def detector_of(config: Config, *, imgsz: int = 0, batch: int = 0) -> Detector:
    """The detector that training would build: for the classes of the data, as far as the configuration says."""
    section, data = section_of(config), config.data
    if "classes" not in section:
        say("data.names is empty: shown for the model's default number of classes", err=True)
    return load_model(section, imgsz=imgsz or data.imgsz, batch=batch or data.batch, max_boxes=data.max_boxes)
