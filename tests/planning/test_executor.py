"""Groups as tasks: whoever does them, the result has the same bytes, and what goes wrong is said in one line."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gated import damaged, write_gated
from tiny import MODELS, snapshot

import onnxfold
from onnxfold import ModelError, RequestError
from onnxfold.cli import main as cli
from onnxfold.planning import cluster
from onnxfold.planning.executor import Executor

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'onnxfold[dask]'")
HERE = "127.0.0.1"
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed"),
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
    monkeypatch.setattr(cluster, "ANSWER", 2)
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


# silence ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of minutes."""
    for name, seconds in {"ANSWER": 1.5, "ARRIVAL": 0.5, "SILENCE": 4.0, "LOOK": 0.2}.items():
        monkeypatch.setattr(cluster, name, seconds)


def local(workers: int, **how: Any) -> Any:
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        protocol="tcp://",
        host=HERE,
        dashboard_address=f"{HERE}:0",
        silence_logs=50,
        **how,
    )


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_that_accepts_and_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
    begin = time.monotonic()
    with socket.create_server((HERE, 0)) as silent:
        address = f"tcp://{HERE}:{silent.getsockname()[1]}"
        assert cli.main([str(source), str(tmp_path / "out.onnx"), "--ratio=.5", "--scheduler", address]) == 2
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1, shown.err
    assert f"the Dask scheduler at {address} does not answer (TimeoutError): check the address" in shown.err
    assert time.monotonic() - begin < 20


@pytest.mark.usefixtures("impatient")
def test_a_scheduler_without_workers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
    with local(0) as made:
        address = made.scheduler_address
        assert cli.main([str(source), str(tmp_path / "out.onnx"), "--ratio=.5", "--scheduler", address]) == 2
        shown = capfd.readouterr()
        assert f"has no workers: start some with 'dask worker {address}'\n" in shown.err
        assert shown.err.count("\n") == 1


def test_workers_that_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ARRIVAL", 60)
    with local(0, processes=False) as made:
        later = threading.Timer(0.5, made.scale, [1])
        later.start()
        Executor(scheduler=made.scheduler_address).check()
        later.join()


PID, REST = "__import__('os').getpid()", "__import__('time').sleep({})"  # for `eval`: workers import nothing for it


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["vanish", "freeze"])
def test_workers_that_fall_silent(how: str) -> None:
    with local(1, processes=True) as made:
        tasks = Executor(scheduler=made.scheduler_address).each(eval, [PID, REST.format(300)])
        (_, pid), begin = next(tasks), time.monotonic()
        if how == "vanish":
            made.scale(0)
        else:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(RequestError, match=r"no worker of .* has responded for 4 seconds"):
                next(tasks)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert 3.5 < time.monotonic() - begin < 60


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_worker_that_is_busy_is_not_silent() -> None:
    with local(1, processes=True) as made:
        assert list(Executor(scheduler=made.scheduler_address).each(eval, [REST.format(7)])) == [(0, None)]


class Deaf:
    """A client whose scheduler does not answer."""

    scheduler = SimpleNamespace(identity=None)

    def sync(self, *_: Any, callback_timeout: float) -> None:
        assert callback_timeout == cluster.ANSWER
        raise TimeoutError


def test_a_scheduler_that_falls_silent() -> None:
    with pytest.raises(RequestError, match=r"scheduler at tcp://x stopped responding \(10 seconds without an answer"):
        next(cluster.Cluster(distributed, Deaf(), "tcp://x").each(abs, [1]))


def test_more_tasks_than_are_sent_at_once() -> None:
    with local(1, processes=False) as made:
        found = list(Executor(scheduler=made.scheduler_address).each(abs, range(-20, 0)))
    assert sorted(found) == [(i, 20 - i) for i in range(20)]


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RequestError, match=r"pip install 'onnxfold\[dask\]'"):
        Executor(scheduler=f"tcp://{HERE}:1").check()


@pytest.mark.parametrize("jobs", ["0", "-1", "2000", "x"])
def test_jobs_that_make_no_sense(jobs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
    assert cli.main([str(source), str(tmp_path / "out.onnx"), "--jobs", jobs]) == 2
    assert "--jobs" in capsys.readouterr().err
