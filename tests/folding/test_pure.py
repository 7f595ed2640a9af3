"""The core in Python gives what the compiled one gives, to the last bit; and a whole fold without the compiled one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import MODELS

from onnxfold.folding import pure
from onnxfold.folding._native import NAME
from onnxfold.folding._native import core as _core
from onnxfold.folding.gram import Gram, gram

PERTURBATIONS = 40
pytestmark = pytest.mark.skipif(NAME != "C++", reason="no compiled core here to compare with")


def matrix_of(seed: int, kind: str, real: type) -> tuple[Gram, int]:
    """The Gram matrix of random points, and into how many clusters they go."""
    random = np.random.default_rng(seed)
    n, d = int(random.integers(2, 70)), int(random.integers(1, 30))
    points = random.normal(size=(n, d))
    if kind == "many ties":
        points = np.round(points)
    if kind == "duplicates":
        points = np.concatenate([points, points])
    if kind == "all alike":
        points[:] = 0.3
    made = gram([points]).astype(real) + real(5.0 if kind == "not centered" else 0.0)
    return np.ascontiguousarray(made), int(random.integers(1, len(points) + 1))


@pytest.mark.parametrize("real", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["plain", "many ties", "duplicates", "all alike", "not centered"])
def test_both_cores_agree_to_the_last_bit(kind: str, real: type) -> None:
    for seed in range(3):
        matrix, k = matrix_of(seed, kind, real)
        given = (k, seed, 3, 100, PERTURBATIONS, 1)
        (labels, cost, sweeps), ours = _core.cluster(matrix, *given), pure.cluster(matrix, *given)
        assert np.array_equal(labels, ours[0]) and ours[0].dtype == np.int32
        assert (cost, sweeps) == ours[1:]
        for compiled, plain in zip(_core.ward(matrix), pure.ward(matrix), strict=True):
            assert np.array_equal(compiled, plain) and compiled.dtype == plain.dtype


def test_sums_are_made_anew_in_long_searches() -> None:
    matrix, _ = matrix_of(1, "many ties", np.float32)
    given = (len(matrix) // 2, 7, 1, 3, 1200, 1)
    assert pure.cluster(matrix, *given)[1:] == _core.cluster(matrix, *given)[1:]


@pytest.mark.parametrize(
    ("matrix", "error"),
    [
        (np.eye(4, dtype=np.float16), TypeError),
        (np.eye(4, dtype=">f8"), TypeError),
        (np.ones((2, 3)), ValueError),
        (np.ones((0, 0)), ValueError),
        (np.array([[1.0, np.nan], [0.0, 1.0]]), ValueError),
        (np.array([[1.0, 0.0], [-np.inf, 1.0]], np.float32), ValueError),
        (np.full((2, 2), 1e281), ValueError),
        (np.full((2, 2), 1e29, np.float32), ValueError),
    ],
)
def test_both_refuse_the_same_in_the_same_words(matrix: Gram, error: type[Exception]) -> None:
    for call in ("cluster", "ward"):
        given = (1, 0, 1, 1, 0, 1) if call == "cluster" else ()
        with pytest.raises(error) as compiled:
            getattr(_core, call)(matrix, *given)
        with pytest.raises(error) as plain:
            getattr(pure, call)(matrix, *given)
        assert str(compiled.value) == str(plain.value)


@pytest.mark.parametrize("given", [(0, 0, 1, 1, 0, 1), (5, 0, 1, 1, 0, 1), (2, 0, 0, 1, 0, 1), (2, 0, 1, -1, 0, 1)])
def test_both_refuse_the_same_numbers(given: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as compiled:
        _core.cluster(np.eye(4), *given)
    with pytest.raises(ValueError) as plain:
        pure.cluster(np.eye(4), *given)
    assert str(compiled.value) == str(plain.value)


def test_a_fold_without_the_compiled_core_writes_the_same_bytes(tmp_path: Path) -> None:
    """In processes of their own; the first has no way to import the compiled core."""
    hidden = "import sys; sys.modules['onnxfold.folding._core'] = None; "
    run = "import sys, onnxfold; from onnxfold.cli.main import main; main(['--version']); sys.exit(main(sys.argv[1:]))"
    said = {}
    for name, before in (("python", hidden), ("compiled", "")):
        out = [str(MODELS / "digits_mlp.onnx"), str(tmp_path / f"{name}.onnx")]
        options = ["--ratio=0.4", "--effort=fast", "--quiet", "--no-provenance"]
        done = subprocess.run([sys.executable, "-c", before + run, *out, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert "(core: Python (slower))" in said["python"] and "(core: C++)" in said["compiled"]
    assert (tmp_path / "python.onnx").read_bytes() == (tmp_path / "compiled.onnx").read_bytes()
