"""A skipped test has checked nothing: unless it is marked `hardware`, it fails, and so does a file that skips itself.

Hooks of pytest, for `tests/conftest.py`. What needs another program (a browser, the sources of a peer) is no part of
`make test`: it stands in files that pytest takes when they are named, see CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("hardware") is None:
        _fail(report, "only tests marked `hardware` may skip")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _fail(report, "a file that skips itself hides its tests: mark those that need hardware `hardware`")
    return report


def _fail(report: Any, rule: str) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome, report.longrepr = "failed", f"{rule}. It said: {reason}"
