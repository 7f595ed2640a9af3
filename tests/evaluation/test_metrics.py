"""One definition of agreement for budgets, sweeps and verdicts: which axis has the classes, and how batches pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

import onnxfold
from onnxfold import RequestError
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.evaluation.metrics import agreement, class_axis, output_error
from onnxfold.model.model import load
from onnxfold.runtime.session import Session

FAST = {"effort": "fast", "latency": False, "round_to": 1}


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 3), 1), ((2, 3, 1), 1), ((2, 3, 1, 1), 1), ((2, 3, 1, 1, 1), 1), ((1, 3), 1),
        ((2, 16, 300), 2), ((2, 1, 300), 2), ((2, 300, 16), 2),
        ((2, 19, 32, 32), 1), ((2, 19, 1024, 2048), 1), ((2, 512, 7, 7), 1), ((2, 19, 16, 16), 1), ((2, 4, 9, 9, 7), 1),
        ((2, 32, 32, 19), 3), ((2, 1024, 2048, 19), 3), ((2, 7, 7, 512), 3), ((2, 1, 1, 10), 3), ((2, 9, 8, 9, 4), 4),
        ((2, 5, 5, 5), 1), ((2, 4, 8, 16), 1),
        ((2, 1), None), ((2, 1, 1, 1), None), ((2, 1, 32, 32), None), ((2, 32, 32, 1), None),
        ((6,), None), ((), None), ((0, 3), None), ((2, 0), None), ((2, 0, 3), None),
    ],
)  # fmt: skip
def test_where_the_classes_are(shape: tuple[int, ...], axis: int | None) -> None:
    assert class_axis(np.zeros(shape, np.float32)) == axis


@pytest.mark.parametrize("kind", [np.int64, np.bool_, np.str_])
def test_only_floats_are_scores(kind: Any) -> None:
    assert class_axis(np.zeros((2, 3), kind)) is None
    assert class_axis(np.zeros((2, 3), np.float16)) == 1


def scores(best: Sequence[int], classes: int = 5) -> NDArray[np.float32]:
    """[len(best), classes] with the largest score where `best` says, and noise elsewhere."""
    found = np.random.default_rng(len(best)).uniform(0, 1, (len(best), classes)).astype(np.float32)
    found[np.arange(len(best)), best] = 2.0
    return found


BEFORE, AFTER = [0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 0, 1, 4]  # 6 of 8 are the same


def channels_first(x: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    return np.moveaxis(x.reshape(-1, height, width, x.shape[-1]), -1, 1)


@pytest.mark.parametrize(
    "arranged",
    [
        lambda x: x, lambda x: x[:, :, None, None], lambda x: x.reshape(2, 4, 5), lambda x: x.reshape(1, 8, 5),
        lambda x: x[:, None, None, :], lambda x: np.repeat(np.repeat(x, 16, 0).reshape(2, 4, 16, 5), 4, 1),
        lambda x: channels_first(np.repeat(x, 32, 0), 16, 8), lambda x: x.astype(np.float16),
    ],
    ids=["[N,C]", "[N,C,1,1]", "[N,T,C]", "[1,T,C]", "[N,1,1,C]", "[N,H,W,C]", "[N,C,H,W]", "halves"],
)  # fmt: skip
def test_every_arrangement_has_the_same_agreement(arranged: Any) -> None:
    expected, found = arranged(scores(BEFORE)), arranged(scores(AFTER))
    assert agreement([expected], [found]) == 0.75
    assert agreement([expected], [expected]) == 1.0
    assert output_error("y", expected, found).top1 == 0.75


def test_batches_pool_their_samples() -> None:
    """Of batches of 6 and 2 samples, not the mean of their shares: 5/6 and 1/2 make 6/8."""
    parts = [slice(0, 6), slice(6, 8)]
    pairs = [(scores(BEFORE)[part], scores(AFTER)[part]) for part in parts]
    assert agreement([a for a, _ in pairs], [b for _, b in pairs]) == 0.75
    single = [scores([i]) for i in range(4)]
    assert agreement(single, [scores([0])] * 4) == 0.25


def test_one_sample_has_no_share() -> None:
    assert agreement([scores([1])], [scores([1])]) is None
    assert agreement([scores([1])[:, :, None, None]], [scores([2])[:, :, None, None]]) is None
    assert agreement([], []) is None
    assert output_error("y", scores([1]), scores([1])).top1 is None


def test_what_has_another_shape_does_not_agree() -> None:
    assert agreement([scores(BEFORE), scores(BEFORE)], [scores(BEFORE), scores(BEFORE, 6)]) == 0.5


# end to end ---------------------------------------------------------------------------------------------------------

SHAPES = {"w": (32, 3, 3, 3), "b": (32,), "v": (10, 32, 1, 1), "k": (10, 32, 6, 6), "u": (32, 10)}
HEADS = {
    "[N,C]": ("float[N,10] y", "c = Conv (r, k) y = Flatten (c)"),
    "[N,C,1,1]": ("float[N,10,1,1] y", "y = Conv (r, k)"),
    "[N,T,C]": ("float[N,36,10] y", "f = Reshape (r, rows) t = Transpose <perm = [0,2,1]> (f) y = MatMul (t, u)"),
    "[N,H,W,C]": ("float[N,6,6,10] y", "c = Conv (r, v) y = Transpose <perm = [0,2,3,1]> (c)"),
    "[N,C,H,W]": ("float[N,10,6,6] y", "y = Conv (r, v)"),
}


def classifier(outputs: str, head: str) -> ModelProto:
    """A model of 32 channels, of which the second half nearly repeats the first."""
    used = {name: shape for name, shape in SHAPES.items() if name in "wb" or f", {name})" in head}
    text = f"(float[N,3,8,8] x) => ({outputs}) {{ c0 = Conv (x, w, b) r = Relu (c0) {head} }}"
    proto = model(text, used, {"rows": [0, 32, 36]} if "rows" in head else {})
    for tensor in proto.graph.initializer:
        if tensor.name in "wb":
            half = numpy_helper.to_array(tensor)[:16]
            noise = np.random.default_rng(1).standard_normal(half.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([half, half + 1e-3 * noise]), tensor.name))
    return proto


def agreed(report: onnxfold.FoldReport) -> float | None:
    assert report.check is not None and report.check.quality is not None
    return report.check.quality.agreement


def top1(report: onnxfold.FoldReport) -> Mapping[str, float | None]:
    assert report.check is not None
    return {error.name: error.top1 for error in report.check.providers[0].outputs}


@pytest.mark.parametrize("arranged", HEADS)
@pytest.mark.parametrize("wanted", [1.0, 0.95])
def test_the_report_says_that_a_budget_is_kept(arranged: str, wanted: float) -> None:
    report = onnxfold.fold(classifier(*HEADS[arranged]), min_agreement=wanted, **FAST).report
    kept = agreed(report)
    assert kept is not None and wanted <= kept <= 1
    free = agreed(onnxfold.fold(classifier(*HEADS[arranged]), ratio=0.95, **FAST).report)
    assert free is not None and free < wanted, "the control: the budget forbids something"


def test_the_worst_of_several_outputs_counts() -> None:
    outputs, head = ("float[N,10,1,1] y, float[N,36,10] z", f"{HEADS['[N,C,1,1]'][1]} {HEADS['[N,T,C]'][1]}")
    proto = classifier(outputs, head.replace("y = MatMul", "z = MatMul"))
    feeds = {"x": np.random.default_rng(5).standard_normal((8, 3, 8, 8)).astype(np.float32)}
    half = onnxfold.fold(proto, ratio=0.5, **FAST).model
    before, after = (Session(version.SerializeToString()).run(feeds) for version in (proto, half))
    shares = [agreement([a], [b]) for a, b in zip(before, after, strict=True)]
    assert len(shares) == len(set(shares)) == 2 and None not in shares
    worst = min(share for share in shares if share is not None)
    assert Evaluator(load(proto), lambda _: [feeds, feeds]).agreement(half) == worst
    kept = top1(onnxfold.fold(proto, min_agreement=0.8, **FAST).report)
    assert set(kept) == {"y", "z"} and all(share is not None and share >= 0.8 for share in kept.values())


@pytest.mark.parametrize("outputs", ["float[N,1,1,1] y", "float[N,1,6,6] y"])
def test_no_classes_no_budget_of_agreement(outputs: str) -> None:
    """A budget that nothing could break was kept by every fold."""
    pool = "p = GlobalAveragePool (r)" if outputs.startswith("float[N,1,1") else "p = Relu (r)"
    text = f"(float[N,3,8,8] x) => ({outputs}) {{ c0 = Conv (x, w, b) r = Relu (c0) {pool} y = Conv (p, v) }}"
    proto = model(text, {"w": (32, 3, 3, 3), "b": (32,), "v": (1, 32, 1, 1)})
    with pytest.raises(RequestError, match=r"`min_agreement` has nothing to measure.*`calibration`.*`max_error=0.1`"):
        onnxfold.fold(proto, min_agreement=0.9, **FAST)


def test_a_batch_of_one_needs_more_samples() -> None:
    """Whether the one sample of a probe keeps its class is luck; samples that run one by one are counted together."""
    proto = classifier("float[1,10,1,1] y", HEADS["[N,C,1,1]"][1])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    with pytest.raises(RequestError, match=r"more than one sample\. Pass `calibration`"):
        onnxfold.fold(proto, min_agreement=0.9, calibration=x, **FAST)
    x = np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)
    result = onnxfold.fold(proto, min_agreement=0.7, calibration=x, latency=False, round_to=1)
    assert top1(result.report)["y"] is None and result.report.after is not None
    assert result.report.after.macs < result.report.before.macs


def test_a_sweep_measures_the_same() -> None:
    proto = classifier(*HEADS["[N,C,1,1]"])
    (row,) = onnxfold.sweep(proto, at=[0.3], effort="fast", latency=False).rows
    folded = onnxfold.fold(proto, target_macs=0.3, effort="fast", latency=False)
    assert row.agreement is not None and row.agreement == agreed(folded.report) < 1


def test_int8_counts_the_same_classes() -> None:
    """INT8 alone must keep an agreement too, on outputs of any arrangement."""
    proto = classifier(*HEADS["[N,C,1,1]"])
    x = np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32)
    report = onnxfold.fold(proto, min_agreement=0.8, quantize=True, calibration=x, latency=False).report
    assert (top1(report)["y"] or 0) >= 0.8
