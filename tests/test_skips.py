"""A test that skips itself fails, whichever way it takes; hardware may be absent."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from tests import skips
from tests.patience import GUARD, ROOT

WAYS = {
    "call": "def test_it():\n    pytest.skip('no oracles')\n",
    "mark": "@pytest.mark.skip(reason='no oracles')\ndef test_it(): ...\n",
    "condition": "@pytest.mark.skipif(True, reason='no oracles')\ndef test_it(): ...\n",
    "absent": "def test_it():\n    pytest.importorskip('nosuch', reason='no oracles')\n",
    "fixture": "@pytest.fixture\ndef given():\n    pytest.skip('no oracles')\n\ndef test_it(given): ...\n",
    "parameter": "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.skip('no oracles'))])\n"
    "def test_it(x): ...\n",
    "none": "@pytest.mark.parametrize('x', [])\ndef test_it(x): ...\n",
    "unittest": "import unittest\nclass Test(unittest.TestCase):\n    def test_it(self):\n"
    "        raise unittest.SkipTest('no oracles')\n",
    "file": "pytest.skip('no oracles', allow_module_level=True)\n",
    "file_absent": "pytest.importorskip('nosuch', reason='no oracles')\n",
}
HARDWARE = "pytestmark = pytest.mark.hardware\n\ndef test_it():\n    pytest.skip('no oracles')\n"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What pytest makes of a file of each kind: passed, failure, error or skipped, and its words."""
    folder = tmp_path_factory.mktemp("skips")
    for name, text in {**WAYS, "hardware": HARDWARE, "good": "def test_it(): ...\n"}.items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n\n{text}")
    said = folder / "said.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "-p", "no:cacheprovider", "-c", "/dev/null",
         "--rootdir", str(folder), "--continue-on-collection-errors", "--junitxml", str(said), str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    found = {}
    for case in ElementTree.parse(said).iter("testcase"):
        file = (case.get("classname") or case.get("name") or "").split(".")[0].removeprefix("test_")
        what = next(iter(case), None)
        words = "" if what is None else f"{what.get('message')} {what.text}"
        found[file] = ("passed" if what is None else what.tag, words)
    return found


@pytest.mark.parametrize("way", list(WAYS))
def test_a_skip_fails(outcomes: dict[str, tuple[str, str]], way: str) -> None:
    outcome, words = outcomes[way]
    assert outcome in ("failure", "error")
    assert "no oracles" in words or way == "none"
    assert "hardware" in words


def test_hardware_may_be_absent(outcomes: dict[str, tuple[str, str]]) -> None:
    assert outcomes["hardware"][0] == "skipped"
    assert outcomes["good"][0] == "passed"


def test_the_project_s_tests_are_under_the_rule(request: pytest.FixtureRequest) -> None:
    hooks = request.config.pluginmanager.hook
    for name in ("pytest_runtest_makereport", "pytest_make_collect_report"):
        assert getattr(skips, name) in [found.function for found in getattr(hooks, name).get_hookimpls()]
