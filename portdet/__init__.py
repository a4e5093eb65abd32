"""portdet: write a detector once; train, convert and prove it on PyTorch, MindSpore and Paddle."""

__version__ = "0.1.0"
