"""The page for users of mindspore-ai/models: its keys exist, its defaults are ours, no flag of theirs is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from portdet.config import _resolve, sections
from portdet.models.yolov3 import Config as ModelConfig
from portdet.section import Section

PAGE = (Path(__file__).parents[2] / "docs" / "from-mindspore-yolov3.md").read_text(encoding="utf-8")
KNOWN: dict[str, type[Section]] = {**sections(), "model": ModelConfig}

FLAGS = """
device_target data_dir per_batch_size pretrained_backbone resume_yolov3 lr_scheduler lr lr_epochs lr_gamma
eta_min T_max max_epoch warmup_epochs weight_decay momentum loss_scale label_smooth label_smooth_factor
log_interval ckpt_path ckpt_interval is_save_on_master is_distributed rank group_size need_profiler
training_shape resize_rate bind_cpu device_num use_modelarts ckpt_max_num max_box num_classes run_eval
eval_start_epoch eval_interval save_best_ckpt pretrained testing_shape nms_thresh eval_ignore_threshold
log_path annFile input_file output_file file_format file_name keep_detect batch_size
""".split()  # noqa: SIM905

ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `--")]


def field(key: str) -> Any:
    section, _, name = key.partition(".")
    return KNOWN[section].model_fields[name]


def test_every_key_exists() -> None:
    keys = set(re.findall(rf"`({'|'.join(KNOWN)})\.(?!py\b)(\w+)", PAGE))
    assert len(keys) > 30
    assert not [f"{section}.{name}" for section, name in keys if name not in KNOWN[section].model_fields]


@pytest.mark.parametrize("row", [row for row in ROWS if row[3]], ids=lambda row: row[0])
def test_defaults_are_ours(row: list[str]) -> None:
    stated, default = yaml.safe_load(row[3].strip("`")), field(row[1].strip("`")).get_default(call_default_factory=True)
    assert stated == default
    assert type(stated) is type(default) or isinstance(default, float)


def test_words_of_the_example_are_accepted() -> None:
    example = re.search(r"portdet train yolov3_coco((?:.|\n)*?)\n\n", PAGE)
    assert example is not None
    words = [word for word in example[1].split() if "=" in word]
    assert len(words) == 8
    for word in words:
        assert field(".".join(_resolve(word.partition("=")[0]))) is not None


@pytest.mark.parametrize("flag", FLAGS)
def test_no_flag_is_left_out(flag: str) -> None:
    assert re.search(rf"--{flag}\b", PAGE)


def test_the_gpu_recipe_in_plain_numbers() -> None:
    """lr 0.1 on (g / 1024 + wd w) is lr 0.1 / 1024 on (g + 1024 wd w), momentum included."""
    rng = np.random.default_rng(0)
    theirs, ours = np.ones(4), np.ones(4)
    v, u = np.zeros(4), np.zeros(4)
    for _ in range(20):
        g = rng.standard_normal(4) * 100
        v = 0.9 * v + g / 1024 + 5e-4 * theirs
        theirs = theirs - 0.1 * v
        u = 0.9 * u + g + 0.512 * ours
        ours = ours - 9.765625e-05 * u
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
