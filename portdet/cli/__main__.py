"""`portdet`: the group of all commands, and how errors reach the user.

`EXIT_CODES` is the one table of exit codes; `portdet --help` prints it, and docs/comparing.md repeats it.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from portdet import __version__
from portdet.cli.scarce import note, refusal
from portdet.errors import PortdetError, nearest, plain_lines

# name: (module, attribute, what `portdet --help` says of it), so that the help imports none of them
COMMANDS = {
    "train": ("portdet.cli.train", "command", "Train a detector on one backend."),
    "val": ("portdet.cli.val", "command", "Score trained weights with COCO's metric."),
    "predict": ("portdet.cli.predict", "command", "Find objects in images; write drawings and JSON."),
    "align": (
        "portdet.cli.align",
        "command",
        "The same detector on several backends, from single ops to AP per epoch.",
    ),
    "compare": ("portdet.cli.compare", "command", "Compare dumps of two programs, tensor by tensor."),
    "show": ("portdet.cli.show", "command", "Show a model, a configuration, a graph or the backends."),
    "emit": ("portdet.cli.emit", "command", "Write a model as source code of one framework."),
    "doctor": ("portdet.cli.doctor", "command", "Check frameworks, versions and devices."),
    "conformance": ("portdet.cli.conformance", "command", "Hold a backend against the checklist of all backends."),
    "bench": ("portdet.cli.bench", "command", "Time training steps against the bare framework."),
    "data": ("portdet.cli.data", "command", "Convert, inspect and draw data sets."),
    "convert": ("portdet_convert.command", "convert", "Convert weights between formats."),
    "weights": ("portdet_convert.weights_command", "weights", "Look into weight files."),
    "help": ("portdet.cli.help", "command", "Explain configuration keys, model fields or a command."),
}

EXIT_CODES = {
    0: "done; of what compares (align, compare, weights diff): the same, by the rule that it states",
    1: "an error, or a check that failed; of what compares: different",
    2: "a wrong command line; of what compares: undecided",
    3: "of what compares: it could not run, for a wrong command line, too",
    130: "interrupted by Ctrl-C, SIGTERM or a terminal that closed; what could be saved is saved",
    141: "the reader of a pipe went away",
}
_COMPARING = ("portdet align", "portdet compare", "portdet weights diff")


class Commands(click.Group):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'; {nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), line) for code, line in EXIT_CODES.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="portdet", message="%(prog)s %(version)s")
def portdet() -> None:
    """Write a detector once; train, convert and prove it on PyTorch, MindSpore and Paddle."""


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are printed, without a traceback if meant for a person."""
    try:
        # not portdet.main(): that turns a closed pipe into exit code 1
        with portdet.make_context("portdet", list(sys.argv[1:] if args is None else args)) as context:
            portdet.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        print(plain_lines(text.getvalue()), end="", file=sys.stderr)  # it quotes what the command line was given
        at = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        return 3 if at in _COMPARING else error.exit_code
    except PortdetError as error:
        from portdet.train.interrupt import Interrupted

        with suppress(OSError):  # the terminal may be gone, and with it SIGHUP came
            print(f"error: {error}", file=sys.stderr, flush=True)
        return 130 if isinstance(error, Interrupted) else 1
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # what is left in the buffer would raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MemoryError, ImportError, OSError) as error:
        what, fix = refusal(error)
        if not what:
            raise
        print(f"error: {PortdetError(what, fix=fix)}", file=sys.stderr)
        return 1


def main() -> None:
    """Entry point of the installed command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks
    if line := note():
        print(line, file=sys.stderr)
    os.environ["PYTHONSAFEPATH"] = "1"  # loader workers and ranks look for no module in the folder that they start in
    sys.exit(run())


if __name__ == "__main__":
    main()
