"""From a graph to readable source of a framework. A backend is a `Target`: tables of text; no framework is imported."""

from portdet.lower.emit import emit
from portdet.lower.target import Layer, Target

__all__ = ["Layer", "Target", "emit"]
