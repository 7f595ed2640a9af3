"""Fixtures that all tests share, and what keeps them from waiting: one thread each, short measurements, one cache."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest

# Before numpy is imported, and for child processes too: the matrices of tests are small, and threads that wait for each
# other take several times the time of one (22 s instead of 5 s for a fusion). onnxruntime gets one thread below.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: one more than there are cores, for many tests wait for child processes or for a silence."""
    return 1 + (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: the garbage collector need not go through them again and again,
    which took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


PLANS = 3  # that are tried for a target, instead of 24
LATENCY_SECONDS = 0.02  # instead of 1.5: only tests of latencies look at what is measured, and they set their own


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Synthetic inputs are kept for the session, by all workers of pytest-xdist; never in the user's own cache.

    So is bytecode where none is to be written beside the sources: a hundred child processes would compile them anew.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "bytecode"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick() -> Iterator[None]:
    """Models run on one thread, latencies are measured briefly, few plans are tried, and logs get no lines."""
    from onnxfold.evaluation import latency
    from onnxfold.planning import plan_choice
    from onnxfold.progress import display
    from onnxfold.runtime.session import Session

    start = Session.__init__

    def on_one_thread(self: Session, *given: Any, **named: Any) -> None:
        if len(given) < 3:  # model, provider, threads
            named.setdefault("threads", 1)
        start(self, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "LATENCY_SECONDS", LATENCY_SECONDS)
        patch.setattr(plan_choice, "MOST", PLANS)
        patch.setattr(display, "EVERY", 3600.0)  # a busy machine gives time for lines in logs
        patch.setattr(Session, "__init__", on_one_thread)
        yield


@pytest.fixture(params=["N", 2], ids=["symbolic", "static"])
def batch(request: pytest.FixtureRequest) -> str | int:
    """What stands for N in the text of a test model."""
    return request.param
