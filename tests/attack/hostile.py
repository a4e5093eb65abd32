"""Hostile configurations, data sets and run folders through the real commands.

Each command has to end with an exit code that it documents, and where that is no success with one error: printable, of
at most 2,000 characters, without a traceback. Nothing outside of the case's folder is opened and no program is started,
but by a training that goes on. Most cases run in this process; those that need a framework or a process of their own
cost seconds each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from portdet.cli.__main__ import run
from portdet.config import sections
from tests.attack.outcome import Row
from tests.outside import mutate
from tests.outside.ends import inside, refused_well
from tests.patience import SLOW_GUARD

TINY = [
    "imgsz=64", "batch=2", "workers=0", "threads=1", "model.width=0.0625", "model.depths=[1,1,1,1,1]", "device=cpu",
]  # fmt: skip
Case = Callable[[Path, Random], list[str]]


def attack(count: int) -> list[Row]:
    """`count` cases: three in ten configurations, words and COCO files each, one VOC, and a few run folders."""
    with tempfile.TemporaryDirectory(prefix="portdet-hostile-") as scratch:
        root = Path(scratch)
        return [
            _held("configurations", root / "config", _configuration, count * 3 // 10),
            _held("words of the command line", root / "words", _words, count * 2 // 10),
            _held("COCO data sets", root / "coco", _coco, count * 3 // 10),
            _held("VOC data sets", root / "voc", _voc, count // 10),
            _held("files and folders in a file's place", root / "places", _place, count // 20),
            _held("checkpoints, weights show", root / "weights", _checkpoint, count // 20),
            _resumed(root / "resume", max(count // 500, 3)),
            _alone(root / "alone", max(count // 1000, 3)),
        ]


def _held(name: str, folder: Path, case: Case, count: int, *, watched: bool = True) -> Row:
    """watched: what is opened, and what is started. A framework opens what it likes, and a run asks git."""
    folder.mkdir()
    random, held, first = Random(name), 0, ""
    for number in range(count):
        words: list[str] = []
        try:
            words = case(folder, random)
            with inside(folder) if watched else contextlib.nullcontext():
                code, printed, said = called(words)
            judge(code, printed, said)
            held += 1
        except Exception:
            first = first or f"case {number}, {' '.join(words)[:300]!r}\n{traceback.format_exc(limit=-4)}"
    return Row(name, count, held, first)


def called(words: list[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `portdet *words` in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(words)
    return code, out.getvalue(), err.getvalue()


def judge(code: int, printed: str, said: str) -> None:
    """Raise AssertionError for an end that is none of those that the module's words allow."""
    assert code in (0, 1, 2, 3), f"exit code {code}"
    assert "Traceback" not in said, said[-2000:]
    assert printed.replace("\n", "").isprintable(), f"not printable: {printed[:300]!r}"
    refused_well(said)
    assert code == 0 or "rror: " in said, f"exit code {code} without an error: {said[:300]!r}"


# ---------------------------------------------------------------------------------------------- cases
def _configuration(folder: Path, random: Random) -> list[str]:
    document = mutate.mutated(mutate.CONFIG, mutate.drawn(random))
    text = mutate.as_yaml(document).encode("utf-8", "surrogatepass")
    if random.random() < 0.3:  # bytes, too
        place = random.randrange(len(text) + 1)
        more = random.choice([b"\xff", b"\0", b"\t", b"&a ", b"*a", b"{", b"- " * 90, b"<<: *a\n"])
        text = text[:place] + more + text[place:]
    (folder / "c.yaml").write_bytes(text)
    return ["show", random.choice(["config", "config", "model"]), str(folder / "c.yaml")]


def _words(folder: Path, random: Random) -> list[str]:
    (folder / "c.yaml").write_text(mutate.as_yaml(mutate.CONFIG))
    keys = [f"{name}.{key}" for name, section in sections().items() for key in section.model_fields]
    words = []
    for _ in range(random.randrange(1, 4)):
        key, value = random.choice([*keys, "epochs", "model.width", "x", "-", "--x", ""]), random.choice(mutate.VALUES)
        text = value if isinstance(value, str) else mutate.as_yaml(value).split("\n")[0]
        words.append(f"{key}={text}")
    return ["show", "config", str(folder / "c.yaml"), *words]


def _coco(folder: Path, random: Random) -> list[str]:
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            Image.new("RGB", (40, 30)).save(folder / name)
    (folder / "a.json").write_text(json.dumps(mutate.mutated(mutate.COCO, mutate.drawn(random))))
    return ["data", "show", _data(folder, "coco", "a.json"), f"bad_image={random.choice(['skip', 'error'])}"]


def _voc(folder: Path, random: Random) -> list[str]:
    for place in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / "JPEGImages" / "a.png")
    text = mutate.as_xml(mutate.mutated(mutate.VOC, mutate.drawn(random)))
    (folder / "Annotations" / "a.xml").write_bytes(text.encode("utf-8", "surrogatepass"))
    entry = random.choice(["a", "a", "a", *(value for value in mutate.VALUES if isinstance(value, str))])
    (folder / "ImageSets/Main/train.txt").write_bytes(entry.encode("utf-8", "surrogatepass"))
    return ["data", "show", _data(folder, "voc", "ImageSets/Main/train.txt")]


def _data(folder: Path, form: str, listed: str) -> str:
    section = {"format": form, "root": str(folder), "train": listed, "val": listed}
    section |= {"train_images": ".", "val_images": "."}
    (folder / "c.yaml").write_text(mutate.as_yaml({"model": {"name": "yolov3"}, "data": section}))
    return str(folder / "c.yaml")


def _place(folder: Path, random: Random) -> list[str]:
    """A pipe, a folder, a device, a link to itself, a long or odd name where a file is meant."""
    pipe, loop = folder / "pipe", folder / "loop"
    if not pipe.exists():
        os.mkfifo(pipe)
        loop.symlink_to(loop)
    names = [
        str(pipe),
        str(loop),
        str(folder),
        "/dev/zero",
        "/dev/null",
        "n" * 300,
        str(folder / ("n" * 300)),
        "\x1b[2J",
        "",
    ]
    name = random.choice(names)
    (folder / "base.yaml").write_text(mutate.as_yaml({"_base_": name}))
    commands = [
        ["show", "config", name], ["show", "config", str(folder / "base.yaml")], ["train", name], ["val", name],
        ["train", "--resume", name], ["val", "yolov3_scenes", "--weights", name], ["predict", name, name],
        ["align", "--resume", name], ["align", "--against", name, str(folder)], ["compare", name, name],
        ["compare", name, name, "--rename", name], ["weights", "show", name],
        ["data", "show", "yolov3_scenes", "data.format=coco", f"train={name}", f"val={name}"],
        ["data", "show", "yolov3_scenes", "data.format=voc", f"root={name}", f"train={name}", f"val={name}"],
    ]  # fmt: skip
    return [*random.choice(commands)]


def _checkpoint(folder: Path, random: Random) -> list[str]:
    """Of metadata as a run writes it, changed."""
    valid = {
        "epoch": 1, "step": 5, "ema_updates": 5, "config": {"ema.kind": "exponential"}, "format": 1, "version": "1",
        "loss_scale": {"scale": 1.0}, "loss_sums": {"loss": 1.0}, "weights": "exponential", "ema_correction": 1.0,
    }  # fmt: skip
    text = json.dumps(mutate.mutated(valid, mutate.drawn(random)))
    header = {"__metadata__": {"portdet": text}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    table = json.dumps(header).encode()
    path = folder / "w.safetensors"
    path.write_bytes(len(table).to_bytes(8, "little") + table + b"\0\0\x80?")
    return ["weights", "show", str(path)]


# ---------------------------------------------------------------------------------------------- with a framework
def _resumed(folder: Path, count: int) -> Row:
    """A stopped run on torch whose checkpoint, configuration or log is changed: refused, or it goes on."""
    words = ["train_count=8", "val_count=2", "scene_size=64", "epochs=2", "max_steps=2", f"project={folder}"]
    code, _, said = called(["train", "yolov3_scenes", *TINY, *words])
    assert code == 0, said
    shutil.copytree(folder / "train" / "yolov3_scenes", folder / "good")
    last = folder / "good" / "weights" / "last.safetensors"
    arrays = load_file(last)
    with safe_open(last, framework="numpy") as file:
        progress = json.loads(file.metadata()["portdet"])

    def case(place: Path, random: Random) -> list[str]:
        target = place / "again"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "good", target)
        if random.random() < 0.8:
            changed = json.dumps(mutate.mutated(progress, mutate.drawn(random)))
            save_file(arrays, target / "weights" / "last.safetensors", metadata={"portdet": changed})
        else:
            path = target / random.choice(["args.yaml", "steps.csv", "results.csv"])
            text = path.read_text()
            path.write_text(text[: random.randrange(len(text))] + random.choice(["\0", '"', "x,y\n", ""]))
        if (what := random.random()) < 0.3:
            return ["val", str(target), "--weights", str(target / "weights" / "last.safetensors"), f"project={place}"]
        if what < 0.5:  # whose configuration is written into the file
            (target / "weights" / "last.safetensors").rename(place / "alone.safetensors")
            return ["val", str(place / "alone.safetensors"), f"project={place}", "workers=0", "threads=1"]
        return ["train", "--resume", str(target), "max_steps=4"]

    return _held("run folders, resumed and scored on torch", folder / "cases", case, count, watched=False)


def _alone(folder: Path, count: int) -> Row:
    """Configurations in processes of their own, where nothing catches what the command does not."""
    folder.mkdir()
    random, held, first = Random("alone"), 0, ""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for number in range(count):
        words = [*random.choice([_configuration, _words, _coco, _place])(folder, random)]
        if any("\0" in word for word in words):
            words = ["show", "config", str(folder / "base.yaml")]
        done = subprocess.run(
            [sys.executable, "-m", "portdet", *words], capture_output=True, env=env, timeout=SLOW_GUARD, check=False
        )
        try:
            judge(done.returncode, done.stdout.decode(), done.stderr.decode())
            held += 1
        except Exception:
            first = first or f"case {number}, {words!r:.300}\n{traceback.format_exc(limit=-2)}"
    return Row("commands in processes of their own", count, held, first)
