"""Groups whose producers and consumers are recurrent layers: merged by their weights, other consumers refitted."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs
from onnxfold.analysis.extract import gather
from onnxfold.model.model import load

UNITS = 32
TEXT = f"""(float[9,N,6] x) => (float y) {{
    e = MatMul(x, k) a = Relu(e) o = LSTM<hidden_size={UNITS}, direction="bidirectional">(a, w, r, b)
    t = Transpose<perm=[0,2,1,3]>(o) s = Reshape(t, join) y = MatMul(s, v) }}"""
SIZES = {
    "k": (6, 16), "w": (2, 4 * UNITS, 16), "r": (2, 4 * UNITS, UNITS), "b": (2, 8 * UNITS), "v": (2 * UNITS, 5),
}  # fmt: skip


def proto() -> onnxfold.model.ModelProto:
    return model(TEXT, SIZES, {"join": [0, 0, -1]})


def fold(**how: object) -> onnxfold.FoldResult:
    return onnxfold.fold(proto(), ratio=0.25, round_to=4, latency=False, **how)  # type: ignore[arg-type]


def error(result: onnxfold.FoldResult) -> float:
    check = result.report.check
    assert check is not None and check.worst is not None and not check.problems
    return check.worst.relative_l2


@pytest.mark.parametrize("how", [{"effort": "fast"}, {"effort": "balanced"}, {"method": "prune-l2"}], ids=str)
def test_without_data(how: dict[str, str]) -> None:
    result = fold(**how)
    assert [(g.before, g.after) for g in result.report.groups] == [(16, 12), (2 * UNITS, 48)]


def test_what_reads_the_units_is_refitted() -> None:
    samples = np.random.default_rng(1).standard_normal((64, 9, 1, 6)).astype(np.float32)
    feeds = [{"x": sample} for sample in samples]
    refitted, merged = fold(calibration=feeds), fold(calibration=feeds, recovery="none")
    assert error(refitted) < error(merged)
    notes = refitted.report.check.notes if refitted.report.check else ()
    assert "group 'LSTM#2' was ranked by its weights: a recurrent layer reads it" in notes


def test_gates_are_not_scaled_up() -> None:
    loaded = load(proto())
    analysis = analyze(loaded)
    units = next(g for g in analysis.groups if g.size == 2 * UNITS)
    weights = gather(loaded, analysis, units)
    assert {p.tensor for p in weights.rows} == {"w", "r"}
    assert {p.tensor for p in weights.vectors} == {"b"}
    assert {p.tensor for p in weights.columns} == {"r", "v"}
    assert not weights.plain


def test_macs_of_a_recurrent_layer() -> None:
    steps = 9
    read, state = 2 * 4 * UNITS * 16, 2 * 4 * UNITS * UNITS
    assert costs(load(proto()), {"x": (9, 1, 6)}).macs({}) == steps * (6 * 16 + read + state + 2 * UNITS * 5)
