"""portdet: write a detector once; train, convert and prove it on PyTorch, MindSpore and Paddle."""

import sys

# `python -m portdet` looks for modules in the folder that it is started in, which may be a run folder of somebody
# else's with a `torch.py` in it. While -m looks for its package, argv[0] is "-m".
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and any(word.startswith("portdet") for word in sys.orig_argv):
    del sys.path[0]

__version__ = "0.1.0"
