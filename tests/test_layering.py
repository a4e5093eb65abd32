"""Who may import whom. The table is ARCHITECTURE.md's: each line may use what stands above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import GUARD

ROOT = Path(__file__).parents[1]

LAYERS = (
    {"errors", "outside", "__version__"},
    {"config", "console", "files", "plain_yaml", "processes", "ranks", "section", "settings", "tensors"},
    {"ir", "ops", "spec"},  # the core: ops are methods of the graph's values, a spec traces itself
    {"passes", "lower", "reference", "assign"},
    {"losses", "outputs", "session", "shadow", "source", "state"},
    {"postprocess", "data", "versions"},
    {"models"},
    {"evaluate", "backends"},
    {"report"},
    {"train", "predict"},
    {"align", "bench", "conformance"},
    {"cli"},
    {"__main__"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

FRAMEWORKS = {
    "torch", "torchvision", "torch_npu", "mindspore", "mindcv", "luojianet_ms", "paddle", "ppdet", "tensorflow", "jax",
    "onnx", "onnxruntime",
}  # fmt: skip
BACKENDS = {"portdet_torch", "portdet_mindspore", "portdet_paddle", "portdet_onnx"}
LIBRARIES = {
    "numpy", "cv2", "PIL", "yaml", "pydantic", "pydantic_core", "click", "rich", "safetensors", "pycocotools",
    "matplotlib", "psutil", "scipy", "hotcoco",
}  # fmt: skip
OWN = {
    "portdet.cli": {"portdet_convert"},  # the command line brings files of any format to the rest
    "portdet_torch": {"torch", "torch_npu"},
    "portdet_mindspore": {"mindspore"},
    "portdet_paddle": {"paddle"},
    "portdet_onnx": {"onnx"},
}


def imported(source: str) -> Iterator[str]:
    """Every module that a source imports, at any depth, by name or by `import_module("name")`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def breaches(package: str, source: str) -> list[str]:
    """Imports that a file of `package` ('portdet.ir', 'portdet_torch', 'portdet_convert') may not have."""
    top, _, part = package.partition(".")
    found = []
    for name in imported(source):
        root, *rest = name.split(".")
        if root in sys.stdlib_module_names or root == "__future__" or root == top != "portdet":
            continue
        if root != "portdet":
            allowed = LIBRARIES | OWN.get(top, set()) | OWN.get(package, set())
            if root not in allowed:
                found.append(f"{package} imports {name}")
        elif top == "portdet" and rest and RANK.get(rest[0], 0) > RANK.get(part, len(LAYERS)):
            found.append(f"{package} imports {name}")
    return found


def sources() -> Iterator[tuple[str, Path]]:
    for folder in ("portdet", "backends", "weights_convert"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT if folder == "portdet" else ROOT / folder).with_suffix("").parts
            if parts != ("portdet", "__init__"):
                yield (".".join(parts[:2]) if parts[0] == "portdet" else parts[0]), path


def test_every_part_has_its_layer() -> None:
    parts = {package.partition(".")[2] for package, _ in sources() if package.startswith("portdet.")}
    assert parts <= set(RANK), f"give {sorted(parts - set(RANK))} a place in LAYERS and in ARCHITECTURE.md"


def test_imports_go_down_only() -> None:
    found = [breach for package, path in sources() for breach in breaches(package, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("portdet.ir", "def f():\n    import torch"),
        ("portdet.train", "from mindspore import nn"),
        ("portdet.cli", "importlib.import_module('paddle.nn')"),
        ("portdet.models", "from portdet.train import loop"),
        ("portdet.ops", "import portdet.models.yolov3"),
        ("portdet.data", "from portdet_convert import convert"),
        ("portdet_torch", "import portdet_paddle"),
        ("portdet_torch", "import paddle"),
        ("portdet_convert", "import torch"),
        ("portdet.errors", "import pandas"),
    ],
)
def test_a_breach_is_found(package: str, source: str) -> None:
    assert len(breaches(package, source)) == 1


def test_importing_everything_loads_no_framework() -> None:
    code = """
import importlib, pkgutil, sys
import portdet, portdet_convert
for package in (portdet, portdet_convert):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name != "portdet.__main__":
            importlib.import_module(found.name)
assert "portdet.cli.__main__" in sys.modules
print(",".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.strip().split(","))
    assert "numpy" in loaded
    assert loaded & (FRAMEWORKS | BACKENDS) == set()
