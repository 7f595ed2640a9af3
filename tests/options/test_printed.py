"""Options as they are printed: what differs from the defaults, as code that makes them again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxfold
from onnxfold import (
    Budget,
    CalibrationOptions,
    ChoiceOptions,
    CompareOptions,
    FoldOptions,
    FuseOptions,
    Latency,
    Limits,
    Macs,
    MaxDrop,
    MaxError,
    MinAgreement,
    OutputOptions,
    Params,
    RankOptions,
    Ratio,
    RequestError,
    SharingOptions,
    Size,
    SweepOptions,
)

TARGETS = [
    (Ratio(0.3), Budget.ratio(0.3)), (Ratio(0.3, {"mlp": 0.5}), Budget.ratio(0.3, {"mlp": 0.5})),
    (Params(0.5), Budget.params(0.5)), (Macs(0.7), Budget.macs(0.7)), (Size(0.5), Budget.size(0.5)),
    (Latency(0.8), Budget.latency(0.8)), (MaxError(0.05), Budget.max_error(0.05)),
    (MinAgreement(0.99), Budget.min_agreement(0.99)), (MaxDrop(0.5), Budget.max_drop(0.5)),
]  # fmt: skip
EVERYTHING: dict[str, Any] = {
    "group_ratios": {"mlp": 0.5}, "ratio": 0.3, "method": "fold", "clusterer": "sklearn", "include": ["conv", "a'b"],
    "device": "tensorrt", "calibration": "my.npz", "samples": 64, "preprocess": "0.5:0.4:0.3,127.5/255,nhwc",
    "effort": "fast", "recovery": "none", "refine": True, "steps": 20, "quantize": "int4", "providers": "cpu",
    "input_shapes": {"x": (1, 3, 8, 8)}, "seed": 7, "latency": False, "output": "o.onnx", "keep_bn": True, "jobs": 2,
    "max_memory": 2**30, "metric": "own.py:f", "max_drop": 0.5, "synthetic": "s.npz", "save_plan": "p.json",
}  # fmt: skip


def made_again(options: Any) -> Any:
    return eval(repr(options), {name: getattr(onnxfold, name) for name in onnxfold.__all__})


@pytest.mark.parametrize(
    "options",
    [
        FoldOptions(), FoldOptions.of(**EVERYTHING), FoldOptions.of(plan={"conv": 8}), FoldOptions.of(quantize=True),
        FoldOptions.of(target_size=0.5, allow="all"), FoldOptions.of(max_drop=0.5, metric="own.py:f"),
        FuseOptions(), FuseOptions.of(how=None, drop_blocks=2), FuseOptions.of(share=0.2, folding={"ratio": 0.3}),
        SweepOptions.of(at=[0.5]), ChoiceOptions.of(allow=["fold", "int8"]), RankOptions.of(distance="cka", whole=True),
        CompareOptions.of(seed=3), SharingOptions(limits=Limits(target_size=0.5)),
        *(FoldOptions(budget=target) for target, _ in TARGETS[:-1]),
    ],
    ids=lambda options: type(options).__name__,
)  # fmt: skip
def test_what_is_printed_makes_the_same_again(options: Any) -> None:
    assert made_again(options) == options and "\n" not in repr(options)
    assert type(options).from_json(options.to_json()) == options


def test_what_is_usual_is_left_out() -> None:
    assert repr(FoldOptions()) == "FoldOptions()" and repr(SweepOptions.of()) == "SweepOptions()"
    assert repr(FoldOptions.of(target_macs=0.7, round_to=16)) == (
        "FoldOptions(selection=SelectionOptions(round_to=16), budget=Macs(0.7))"
    )
    assert repr(FoldOptions.of(refine=True)) == "FoldOptions(distill=DistillOptions())"


def test_what_cannot_be_code_is_still_printed() -> None:
    """Arrays do not even compare."""
    options = CalibrationOptions(data={"x": np.zeros((2, 2))})
    assert "data={'x': array(" in repr(options) and "array" in options._repr_html_()
    assert "data=array(" in repr(CalibrationOptions(data=np.zeros(3)))


@pytest.mark.parametrize(("target", "budget"), TARGETS, ids=lambda one: repr(one))
def test_targets_are_budgets(target: Budget, budget: Budget) -> None:
    assert target == budget and hash(target) == hash(budget) and repr(target) == repr(budget)
    assert made_again(target) == budget and Budget.from_dict(target.to_dict()) == target


@pytest.mark.parametrize("made", [lambda: Macs(70), lambda: Ratio(1), lambda: MaxError("0.1")])  # type: ignore[arg-type]
def test_wrong_targets_are_refused(made: Any) -> None:
    with pytest.raises(RequestError, match="must be a number"):
        made()


def test_a_notebook_shows_what_is_not_usual() -> None:
    shown = FoldOptions.of(target_macs=0.7, include=["<b>"], refine=True)._repr_html_()
    assert "<td>selection.include</td><td>(&#x27;&lt;b&gt;&#x27;,)</td><td>only these groups" in shown
    assert "<td>budget</td><td>Macs(0.7)</td><td>share of the multiply-adds to keep</td>" in shown
    assert "<td>distill</td><td>DistillOptions()</td><td>Training of the result" in shown
    assert "all as usual" in OutputOptions()._repr_html_() and "<table>" not in OutputOptions()._repr_html_()


def test_no_json_is_refused() -> None:
    with pytest.raises(RequestError, match="no JSON"):
        FoldOptions.from_json("{")
    with pytest.raises(RequestError, match="must be a mapping"):
        FoldOptions.from_json("[]")
