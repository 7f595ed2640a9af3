"""The promise of docs/large-models.md: peak memory goes by the widest group, not by the model. Measured, in a child."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from gated import write_gated

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.planning.memory import most_memory

BLOCKS, WIDTH = 32, 1024  # 403 MB of weights; the bound is 360 MB

CHILD = """
import sys
from onnxfold import fold
limit = int(sys.argv[3]) or None
how = {"effort": "fast", "recovery": "none", "latency": False}
fold(sys.argv[1], sys.argv[2], group_ratios={r"layers\\.[01]\\.": 0.3}, max_memory=limit, **how)
with open("/proc/self/status") as file:  # ru_maxrss counts what the parent had when it forked
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


def peak(source: Path, target: Path, limit: int) -> int:
    """Bytes that a process takes at most to fold two groups."""
    target.parent.mkdir()
    command = [sys.executable, "-c", CHILD, str(source), str(target), str(limit)]
    return 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_is_bounded(tmp_path: Path) -> None:
    source = write_gated(tmp_path / "in.onnx", BLOCKS, WIDTH, WIDTH)
    model = load(source)
    analysis = analyze(model)
    bound = most_memory(model, analysis, [group.name for group in analysis.groups], jobs=1)
    assert bound < 0.98 * model.size
    streamed, loaded = peak(source, tmp_path / "a" / "out.onnx", bound), peak(source, tmp_path / "b" / "out.onnx", 0)
    assert streamed <= bound
    assert loaded > 1.5 * bound, "the control: loaded whole it takes more"
    one, other = (
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / name).iterdir()}
        for name in ("a", "b")
    )
    assert one == other


CLUSTERING = """
import sys
import numpy as np
from onnxfold.folding._native import core
def most():
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
points = np.random.default_rng(0).standard_normal((4500, 20), dtype=np.float32)
gram = points @ points.T
before = most()
core.cluster(gram, int(sys.argv[1]), 0, 2, 1, 0, int(sys.argv[2]))
print((most() - before) / gram.nbytes)
"""


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("keep", "threads"), [(2250, 1), (4000, 1), (2250, 2)])
def test_a_start_takes_half_of_what_the_gram_matrix_takes(keep: int, threads: int) -> None:
    command = [sys.executable, "-c", CLUSTERING, str(keep), str(threads)]
    grown = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.3 < grown < 0.53 * threads, "on a busy machine two may not be at it at the same time"
