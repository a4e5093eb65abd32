"""Detectors: a file each, found by its name (`model: {name: yolov3}` is portdet/models/yolov3.py)."""

from portdet.models.registry import Detector, load_model

__all__ = ["Detector", "load_model"]
