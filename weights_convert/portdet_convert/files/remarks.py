"""Text that travels in a weight file where no loader of a framework looks: the header of the darknet file it came from.

A zip's comment (.pth, .npz), a field that MindSpore's schema does not have (.ckpt), a string that the pickle takes off
its stack again (.pdparams). safetensors has a place for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

_MAGIC = b"portdet:"
MOST = 1000
"""Remarks in a safetensors file, which may hold any number; the trainers' that write most have some dozens."""


def pack(remarks: Mapping[str, str] | None) -> bytes:
    """The bytes to write; none without remarks."""
    return _MAGIC + json.dumps(dict(remarks), separators=(",", ":")).encode() if remarks else b""


def unpack(data: bytes | memoryview) -> dict[str, str]:
    """What `pack` was given; nothing from text that is somebody else's, or damaged."""
    text = bytes(data[:4096])
    try:
        found = json.loads(text.removeprefix(_MAGIC)) if text.startswith(_MAGIC) else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()) else {}
