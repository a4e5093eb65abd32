"""Where other programs' results are, and how their weights come into ours."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import bundles
from tests.patience import GUARD, SLOW_GUARD
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  (hooks)

# Drawn cases are the same in every run, and none fails for being slow.
settings.register_profile(
    "portdet", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("portdet")

# Children inherit that a signal is ignored, and would not end where a test stops them: a shell without job control
# starts what goes on behind it with Ctrl-C ignored, and nohup ignores hangups.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL)
):  # fmt: skip
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that hangs is ended, with the stacks of its threads: after several children's guards."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(3 * (SLOW_GUARD if item.get_closest_marker("slow") else GUARD)))


@pytest.fixture(scope="session")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the oracle bundles, one copy a session: `tests/oracles` with its files unpacked."""
    return bundles.unpack(tmp_path_factory.mktemp("oracles"))


@pytest.fixture(scope="session")
def mindspore_weights(oracles: Path) -> bundles.Arrays:
    """The weights of bundle msmodels_yolov3 under our names."""
    names = {
        ".0.weight": ".conv.weight", ".1.gamma": ".norm.weight", ".1.beta": ".norm.bias",
        ".1.moving_mean": ".norm.running_mean", ".1.moving_variance": ".norm.running_var",
    }  # fmt: skip

    def canonical(name: str) -> str:
        name = name.removeprefix("yolo_network.feature_map.")
        for ending, ours in names.items():
            if name.endswith(ending):
                return name.removesuffix(ending) + ours
        return name

    return {canonical(name): array for name, array in bundles.weights(oracles / "msmodels_yolov3").items()}
