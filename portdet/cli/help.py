"""`portdet help`: configuration keys, a model's fields, or a command."""

from __future__ import annotations

import importlib
import json
from typing import Any

import click
from pydantic import BaseModel

from portdet.config import sections
from portdet.console import say
from portdet.errors import PortdetError, nearest


@click.command()
@click.argument("topic", required=False)
@click.argument("name", required=False)
@click.pass_context
def command(context: click.Context, topic: str | None, name: str | None) -> None:
    """Explain TOPIC: config, config SECTION, model NAME, or a command.

    \b
    portdet help config
    portdet help config optim
    portdet help model yolov3
    portdet help train
    """
    group = context.parent.command if context.parent else None
    commands = group.list_commands(context) if isinstance(group, click.Group) else []
    if topic == "config":
        _config(name)
    elif topic == "model":
        _model(name)
    elif topic in commands and isinstance(group, click.Group):
        found = group.get_command(context, topic)
        if found is not None:
            say(found.get_help(click.Context(found, info_name=f"portdet {topic}")))
    elif topic is None and context.parent:
        say(context.parent.get_help())
    else:
        raise PortdetError(f"no help on '{topic}'", fix=nearest(str(topic), ["config", "model", *commands]))


def _config(name: str | None) -> None:
    known = sections()
    if name is not None and name not in known:
        raise PortdetError(f"no section '{name}'", fix=nearest(name, [*known, "model"]))
    for section in [name] if name else known:
        _fields(section, known[section])
    if name is None:
        say("model: fields of the model; portdet help model yolov3")


def _model(name: str | None) -> None:
    from portdet.models.registry import model_names

    if name not in model_names():
        raise PortdetError(f"no model '{name or ''}'", fix=nearest(name or "", model_names()))
    _fields("model", importlib.import_module(f"portdet.models.{name}").Config)


def _fields(title: str, cls: type[BaseModel]) -> None:
    say(f"{title}: {(cls.__doc__ or '').strip().splitlines()[0]}")
    formatter = click.HelpFormatter(width=120)
    rows = [(f"{key}={_value(info)}", info.description or "") for key, info in cls.model_fields.items()]
    with formatter.indentation():
        formatter.write_dl(rows)
    say(formatter.getvalue())


def _value(info: Any) -> str:
    """The default as it is written in YAML and in `key=value`."""
    default = info.get_default(call_default_factory=True)
    return default if isinstance(default, str) else json.dumps(default)
