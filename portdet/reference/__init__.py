"""The oracle: a graph run in numpy, and its gradients by central differences."""

from portdet.reference.gradients import gradients
from portdet.reference.run import run

__all__ = ["gradients", "run"]
