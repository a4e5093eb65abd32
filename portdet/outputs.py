"""Names for the tensors in what a module returns: one naming for all frameworks, the reference and dumps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def tensors(output: Any, name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """The tensors of type `kind` in what the module `name` returned; anything else is left out.

    Of a tuple, a list or a mapping each has its place in brackets, 'neck[1]', 'head[boxes]': a dot leads to a child.
    """
    if isinstance(output, kind):
        yield name, output
    elif isinstance(output, Mapping):
        for key, item in output.items():
            yield from tensors(item, f"{name}[{key}]", kind)
    elif isinstance(output, list | tuple):
        for index, item in enumerate(output):
            yield from tensors(item, f"{name}[{index}]", kind)
