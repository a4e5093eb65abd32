"""`portdet show`: a model's shapes and cost, a resolved configuration, a graph, what is there. Needs no framework."""

from __future__ import annotations

from pathlib import Path

import click

from portdet.cli.options import ConfigCommand
from portdet.console import say


@click.group()
def command() -> None:
    """Show a model, a configuration, a graph, the shipped configurations or the backends; imports no framework."""


@command.command(cls=ConfigCommand, keys=("imgsz",))
@click.argument("config")
@click.option("--depth", type=click.IntRange(0, 1000), default=2, show_default=True, help="Levels of modules to list.")
@click.option(
    "--images",
    type=click.IntRange(1, 65_536),
    default=1,
    show_default=True,
    help="Images of the batch that shapes and costs are for.",
)
def model(config: str, depth: int, images: int, overrides: tuple[str, ...]) -> None:
    """Parameters, output shapes, GFLOPs and memory of activations.

    \b
    portdet show model yolov3_coco imgsz=416
    """
    from portdet.cli.model import detector_of
    from portdet.config import load
    from portdet.console import console
    from portdet.ir.summary import print_summary, summary

    values = load(config, overrides)
    rows = summary(detector_of(values, batch=images).graph)
    print_summary(rows, depth=depth, console=console(soft_wrap=True, width=None))
    total = rows[0]
    size, weights = values.data.imgsz, total.parameters * 4 / 1e6
    say(
        f"{total.parameters / 1e6:.2f} M parameters ({weights:.1f} MB as float32), {total.flops / 1e9:.2f} GFLOPs and "
        f"{total.activation_bytes / 1e6:.1f} MB of activations for {images} x 3 x {size} x {size}"
    )


@command.command("config", cls=ConfigCommand)
@click.argument("config")
def show_config(config: str, overrides: tuple[str, ...]) -> None:
    """The resolved configuration as YAML: defaults, file and KEY=VALUE words together."""
    from portdet.config import load

    say(load(config, overrides).dump(), nl=False)


@command.command(cls=ConfigCommand, keys=("imgsz", "batch"))
@click.argument("config")
def graph(config: str, overrides: tuple[str, ...]) -> None:
    """The typed graph that sources are generated from, as text."""
    from portdet.cli.model import detector_of
    from portdet.config import load
    from portdet.ir.text import print_graph

    say(print_graph(detector_of(load(config, overrides)).graph), nl=False)


@command.command()
def backends() -> None:
    """Backends by name, and the framework of each as far as its package says; `portdet doctor` tries them."""
    from portdet.backends import backend_names

    formatter = click.HelpFormatter()
    formatter.write_dl([(name, _framework(name)) for name in backend_names()])
    say(formatter.getvalue(), nl=False)


def _framework(backend: str) -> str:
    from portdet.versions import FRAMEWORKS, framework, known_good

    if backend not in FRAMEWORKS:
        return "from another package"
    if (found := framework(backend)) is None:
        return f"not installed: pip install 'portdet[{backend}]'"
    name, version = found
    tested = known_good().get(FRAMEWORKS[backend][0])
    return f"{name} {version}" + ("" if version == tested else f"; tested with {tested}")


@command.command()
def configs() -> None:
    """Configurations that portdet ships, with the first line of each."""
    from portdet.config import config_root

    rows = [(path.stem, _first_line(path)) for path in sorted(config_root().glob("*.yaml"))]
    formatter = click.HelpFormatter(width=120)
    formatter.write_dl(rows)
    say(formatter.getvalue(), nl=False)


def _first_line(path: Path) -> str:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix("#").strip() if first.startswith("#") else ""
