"""What `benchmarks/choice.py` and `benchmarks/without_data.py` conclude from figures."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from tiny import ROOT

from onnxfold.options.devices import BLOCKS
from onnxfold.passes.choice.front import Aspect


@pytest.fixture(scope="module")
def choice() -> ModuleType:
    return loaded("choice")


@pytest.fixture(scope="module")
def without_data() -> ModuleType:
    return loaded("without_data")


def loaded(name: str) -> ModuleType:
    folder = ROOT / "benchmarks"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def row(chain: str, size: float, latency: float, accuracy: float) -> dict[str, Any]:
    return {"chain": chain, "bytes": size, "latency": latency, "error": 0.1, "accuracy": accuracy, "noise": 0.5}


ROWS = [
    row("leave it", 1, 1, 90), row("INT8", 0.3, 0.6, 89.8), row("fold 80 %, INT8", 0.2, 0.45, 90.5),
    row("INT4 weights", 0.2, 3.0, 91), row("fold 50 %", 0.5, 0.55, 60),
]  # fmt: skip


@pytest.mark.parametrize(
    ("aspect", "advised", "kept"),
    [
        (Aspect.BYTES, "INT8", False),  # fold 80 %, INT8 is better by more than noise
        (Aspect.BYTES, "fold 80 %, INT8", True),  # INT4 weights are slower than the original
        (Aspect.SPEED, "fold 80 %, INT8", True),
        (Aspect.SPEED, None, False),
        (Aspect.LOSS, "INT8", True),
        (Aspect.LOSS, "fold 50 %", False),
    ],
)
def test_whether_advice_was_right(choice: ModuleType, aspect: Aspect, advised: str | None, kept: bool) -> None:
    assert choice.right(aspect, advised, ROWS) is kept


def test_what_stands_beside_int8_alone(choice: ModuleType) -> None:
    """What is more often right in as much, and what is as often right in less."""
    smaller = row("fold 90 %, INT8", 0.25, 0.5, 89.7)
    assert choice.beside_int8([*ROWS, smaller]) == (["fold 80 %, INT8"], ["fold 90 %, INT8"])
    assert choice.beside_int8(ROWS[:2]) == ([], [])


def test_the_number_of_a_line() -> None:
    tasks = loaded("tasks")
    assert tasks.percent("top-1 90.44 %, as the original 98.2 %", 0) == 90.44
    assert tasks.percent("cosine 0.9912, nearest neighbour kept 74.0 %", 1) == 74.0


def test_the_script_for_gpus_can_be_read_by_a_shell() -> None:
    assert subprocess.run(["sh", "-n", str(ROOT / "benchmarks" / "cuda.sh")], check=False).returncode == 0


def test_the_page_has_the_table_of_devices() -> None:
    page = (ROOT / "docs" / "choice.md").read_text(encoding="utf-8")
    for device, blocks in BLOCKS.items():
        assert f"| `{device}` | {blocks.conv} | {blocks.int8} | {blocks.linear} | " in page


def test_the_table_has_medians_and_every_accuracy(without_data: ModuleType) -> None:
    row = without_data.ROWS[0]
    keys = ("claim", "true", "macs", "parameters", "cpu_seconds", "seconds", "expected", "megabytes")
    runs = {str(i): {"accuracy": 70.0 + i, **dict.fromkeys(keys, 0.1 * i)} for i in range(3)}
    line = without_data.table({row.title: {"before": 88, "runs": runs}}).splitlines()[2]
    assert line.startswith(f"| {row.title} | 70.0, 71.0, 72.0 (88.0) | 10.0 % | 10.0 % |")
    assert line.endswith("| 0 | 0 | 0 | 0 |"), "a tenth of a second"


def test_what_a_run_does_not_expect_stays_empty(without_data: ModuleType) -> None:
    """Sharing weights says nothing beforehand."""
    row = without_data.ROWS[0]
    keys = ("accuracy", "claim", "true", "macs", "parameters", "cpu_seconds", "seconds", "megabytes")
    runs = {"0": {**dict.fromkeys(keys, 1.0), "expected": None}}
    line = without_data.table({row.title: {"before": 88, "runs": runs}}).splitlines()[2]
    assert line.endswith("| 1 | 1 |  | 1 |")
