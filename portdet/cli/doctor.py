"""`portdet doctor`: what is installed, which versions are known to work, which device is usable, what is slow."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from portdet import versions
from portdet.backends import backend_names, load_backend
from portdet.console import say
from portdet.errors import PortdetError
from portdet.processes.child import run_child
from portdet.session import Check

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
TIMEOUT = 1800.0  # it takes 3 to 15 s where nothing else runs; who waits for it sees which backend hangs


@click.command()
@click.option("--backend", "names", multiple=True, metavar="NAME", help="Only this backend; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Check libraries, frameworks and devices; exit code 1 if none of the backends works.

    Each backend is tried in a process of its own.
    """
    for name in names:
        load_backend(name)
    chosen = list(names) or backend_names()
    # one after the other: each measures how fast it is
    report = {"portdet": versions.compare(versions.LIBRARIES)} | {name: examine(name) for name in chosen}
    if as_json:
        say(json.dumps({name: [asdict(check) for check in checks] for name, checks in report.items()}, indent=2))
    else:
        say("\n\n".join(_text(name, checks) for name, checks in report.items()))
    context.exit(0 if any(usable(report[name]) for name in chosen) else 1)


def usable(checks: list[Check]) -> bool:
    """Whether a backend works: nothing failed."""
    return all(check.level != "fail" for check in checks)


def examine(backend: str) -> list[Check]:
    """A backend's version and, where its framework is installed, the findings of its own doctor."""
    if backend in versions.FRAMEWORKS:
        found = versions.framework(backend)
        if found is None:
            return [
                Check(
                    "fail", f"{versions.FRAMEWORKS[backend][0]} is not installed", f"pip install 'portdet[{backend}]'"
                )
            ]
        checks = versions.compare([found[0]])
    else:
        checks = []
    try:
        answer = run_child("portdet.cli.probe", {"backend": backend}, timeout=TIMEOUT)
    except PortdetError as error:
        return [*checks, Check("fail", f"trying it: {error.what}", "reinstall the framework")]
    return [*checks, *(Check(**check) for check in answer)]


def _text(name: str, checks: list[Check]) -> str:
    lines = [name]
    for check in checks:
        lines.append(f"  {_MARKS[check.level]} {check.what}")
        if check.advice:
            lines.append(f"       -> {check.advice}")
    return "\n".join(lines)
