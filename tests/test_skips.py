"""A test that skips itself fails, whichever way it takes; hardware may be absent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import GUARD, ROOT

WAYS = {
    "call": "def test_it():\n    pytest.skip('no oracles')\n",
    "mark": "@pytest.mark.skip(reason='no oracles')\ndef test_it(): ...\n",
    "condition": "@pytest.mark.skipif(True, reason='no oracles')\ndef test_it(): ...\n",
    "import": "def test_it():\n    pytest.importorskip('nosuch', reason='no oracles')\n",
    "fixture": "@pytest.fixture\ndef given():\n    pytest.skip('no oracles')\n\ndef test_it(given): ...\n",
    "parameter": "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.skip('no oracles'))])\n"
    "def test_it(x): ...\n",
    "none": "@pytest.mark.parametrize('x', [])\ndef test_it(x): ...\n",
    "unittest": "import unittest\nclass Test(unittest.TestCase):\n    def test_it(self):\n"
    "        raise unittest.SkipTest('no oracles')\n",
    "file": "pytest.skip('no oracles', allow_module_level=True)\n",
    "file's import": "pytest.importorskip('nosuch', reason='no oracles')\n",
}


def outcome(folder: Path, text: str) -> tuple[int, str]:
    """Exit code and words of pytest on a file of its own."""
    (folder / "test_one.py").write_text(f"import pytest\n\n{text}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "-p", "no:cacheprovider", "-c", "/dev/null",
         "--rootdir", str(folder), str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("way", list(WAYS))
def test_a_skip_fails(tmp_path: Path, way: str) -> None:
    code, said = outcome(tmp_path, WAYS[way])
    assert code in (1, 2), said
    assert re.search(r"1 (failed|error)", said)
    assert "skipped" not in said.splitlines()[-1]
    assert "no oracles" in said or way == "none"


def test_hardware_may_be_absent(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, f"pytestmark = pytest.mark.hardware\n\n{WAYS['call']}\ndef test_two(): ...\n")
    assert (code, said.count("1 passed, 1 skipped")) == (0, 1), said


def test_the_project_s_tests_are_under_the_rule(request: pytest.FixtureRequest) -> None:
    from tests import skips

    hooks = request.config.pluginmanager.hook
    for name in ("pytest_runtest_makereport", "pytest_make_collect_report"):
        assert getattr(skips, name) in [found.function for found in getattr(hooks, name).get_hookimpls()]
