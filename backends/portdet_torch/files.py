"""Weight files through torch's own loader."""

from __future__ import annotations

from pathlib import Path

import torch

from portdet.session import Arrays


def load_file(path: Path) -> Arrays:
    """The tensors of a state dict by name; nothing that the file asks for is called. bfloat16 comes as float32."""
    table = torch.load(path, map_location="cpu", weights_only=True)
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy() for name, t in table.items()}
