"""Groups as tasks: whoever does them, the result has the same bytes, and what goes wrong is said in one line."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gated import damaged, write_gated
from tiny import MODELS, snapshot

import onnxfold
from onnxfold import ModelError, RequestError
from onnxfold.cli import main as cli
from onnxfold.planning.executor import Executor

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'onnxfold[dask]'")
HERE = "127.0.0.1"
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed"),
    pytest.mark.usefixtures("lossy"),
]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a cluster of two worker processes."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host=HERE, dashboard_address=f"{HERE}:0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


def fold(source: Path, target: Path, **how: Any) -> dict[str, bytes | None]:
    """The files that a fold writes."""
    target.parent.mkdir()
    onnxfold.fold(source, target, **{"ratio": 0.4, "effort": "fast", "latency": False, **how})
    return snapshot(target.parent)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"target_params": 0.7, "ratio": None}, {"method": "prune-l1"}])
def test_the_same_bytes_whoever_works(tmp_path: Path, scheduler: str, how: dict[str, Any]) -> None:
    outside, inside = write_gated(tmp_path / "in.onnx", 5, 32, 96, np.float16), MODELS / "digits_resnet_bn.onnx"
    for name, source in (("outside", outside), ("inside", inside)):
        crews = [{"jobs": 1}, {"jobs": 2}, {"jobs": 3, "threads": 2}, {"scheduler": scheduler}]
        made = [
            fold(source, tmp_path / f"{name}{i}" / "out.onnx", **executor, **how) for i, executor in enumerate(crews)
        ]
        assert made[0] and all(other == made[0] for other in made)


def test_tasks_run_side_by_side_and_come_as_they_are_done() -> None:
    found = list(Executor(jobs=2).each(lambda x: x * x, range(7)))
    assert sorted(found) == [(i, i * i) for i in range(7)]


@pytest.mark.slow
def test_what_a_worker_finds_wrong_arrives_as_it_is(tmp_path: Path, scheduler: str) -> None:
    source = write_gated(tmp_path / "in.onnx", 3, 24, 64)
    damaged(source, "layers.1.mlp.up.weight", np.inf)
    said = r"weight 'layers\.1\.mlp\.up\.weight' is not a finite number at \[0, 10\]"
    for executor in ({"jobs": 2}, {"scheduler": scheduler}):
        with pytest.raises(ModelError, match=said):
            onnxfold.fold(source, tmp_path / "out.onnx", ratio=0.4, effort="fast", **executor)
    assert not (tmp_path / "out.onnx").exists()


def test_addresses_that_lead_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("onnxfold.planning.executor._ANSWER", 2)
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        closed = f"tcp://{HERE}:{taken.getsockname()[1]}"
    source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
    before = snapshot(tmp_path)
    for address in (closed, "nowhere", "ftp://127.0.0.1:1", f"tcp://{HERE}:port", "tcp://"):
        assert cli.main([str(source), str(tmp_path / "out.onnx"), "--ratio=.5", "--scheduler", address]) == 2
        shown = capfd.readouterr()
        assert shown.out == "" and shown.err.count("\n") == 1, shown.err
        assert f"the Dask scheduler at {address} does not answer" in shown.err
    assert snapshot(tmp_path) == before


def test_a_scheduler_without_workers() -> None:
    with (
        distributed.LocalCluster(n_workers=0, host=HERE, dashboard_address=f"{HERE}:0", silence_logs=50) as cluster,
        pytest.raises(RequestError, match="has no workers"),
    ):
        Executor(scheduler=cluster.scheduler_address).check()


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RequestError, match=r"pip install 'onnxfold\[dask\]'"):
        Executor(scheduler=f"tcp://{HERE}:1").check()


@pytest.mark.parametrize("jobs", ["0", "-1", "2000", "x"])
def test_jobs_that_make_no_sense(jobs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
    assert cli.main([str(source), str(tmp_path / "out.onnx"), "--jobs", jobs]) == 2
    assert "--jobs" in capsys.readouterr().err
