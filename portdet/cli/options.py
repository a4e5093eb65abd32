"""Configuration keys on the command line: `epochs=3`, `--epochs 3`, `--epochs=3`, `--exist-ok`, `--exist-ok true`,
`--no-nesterov`.

    @click.command(cls=ConfigCommand, keys=("backend", "device"))
    @click.argument("config")
    def command(config: str, overrides: tuple[str, ...]) -> None:
        values = load(config, overrides)

Options of the command itself win over keys of the same name. Words keep their order, so the last one counts.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Sequence
from typing import Any

import click

from portdet.errors import close

_WORD = re.compile(r"[A-Za-z_][\w.]*=")
_TRUTH = ("true", "false", "yes", "no", "on", "off")  # what YAML takes for a boolean
COMMON = ("backend", "device", "mode", "threads")


class Number(click.FloatRange):
    """A finite number within bounds; click's own range takes NaN for any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if math.isnan(found := float(super().convert(value, param, ctx))):
            self.fail(f"{value} is no number", param, ctx)
        return found


class ConfigCommand(click.Command):
    """A command that takes overrides of the configuration anywhere among its words, as parameter `overrides`.

    keys: those that `--help` lists; all others are accepted too.
    """

    def __init__(self, *args: Any, keys: Sequence[str] = COMMON, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys = tuple(keys)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest, words = self.split(args)
        except click.UsageError as error:
            error.ctx = ctx  # to say of which command
            raise
        left = super().parse_args(ctx, rest)
        ctx.params["overrides"] = tuple(words)
        return left

    def split(self, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """Separate the command's own words from `key=value` words, which flags of configuration keys become."""
        rest: list[str] = []
        words: list[str] = []
        queue = deque(args)
        while queue:
            arg = queue.popleft()
            if arg == "--":
                return [*rest, arg, *queue], words
            if self._own(arg):
                rest.append(arg)
                if self._takes_value(arg) and queue:
                    rest.append(queue.popleft())
            elif arg.startswith("--"):
                words.append(self._word(arg, queue))
            elif _WORD.match(arg) and not os.path.exists(arg):  # Path.exists raises at a word of over 255 characters
                words.append(arg)
            else:
                rest.append(arg)
        return rest, words

    def _own_options(self) -> dict[str, click.Option]:
        options = [param for param in self.params if isinstance(param, click.Option)]
        named = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
        return named | {"--help": click.Option(["--help"], is_flag=True)}

    def _own(self, arg: str) -> bool:
        return arg.partition("=")[0] in self._own_options()

    def _takes_value(self, arg: str) -> bool:
        option = self._own_options().get(arg)
        return option is not None and not option.is_flag and not option.count

    def _word(self, arg: str, queue: deque[str]) -> str:
        """`--lr0 0.1` -> `lr0=0.1`; a boolean's flag with neither true nor false behind it is true, --no-... false."""
        flag, equals, value = arg.partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        kinds = _kinds()
        if key in kinds or key.startswith("model."):
            if equals:
                return f"{key}={value}"
            if kinds.get(key) is bool and not (queue and queue[0].lower() in _TRUTH):
                return f"{key}=true"
            if not queue:
                raise click.UsageError(f"{flag} needs a value")
            return f"{key}={queue.popleft()}"
        positive = key.removeprefix("no_")
        if kinds.get(positive) is not bool:
            known = [name.removeprefix("--") for name in (*self._own_options(), *kinds)]
            near = close(flag.removeprefix("--"), known)
            raise click.NoSuchOption(flag, possibilities=[f"--{name}" for name in near])
        if equals:
            raise click.UsageError(f"{flag} takes no value: write {flag}, or --{positive.replace('_', '-')}={value}")
        return f"{positive}=false"

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[KEY=VALUE]..."]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        rows = [(f"--{key.replace('_', '-')} VALUE", _help(key)) for key in self.keys]
        with formatter.section("Configuration (also KEY=VALUE; all keys: portdet help config)"):
            formatter.write_dl(rows)


def _kinds() -> dict[str, Any]:
    """Types of all keys, by `section.key` and by the key alone."""
    from portdet.config import sections

    kinds: dict[str, Any] = {}
    for section, cls in sections().items():
        for key, info in cls.model_fields.items():
            kinds[f"{section}.{key}"] = kinds[key] = info.annotation
    return kinds


def _help(key: str) -> str:
    from portdet.config import sections

    found = [cls.model_fields[key] for cls in sections().values() if key in cls.model_fields]
    return found[0].description or ""
