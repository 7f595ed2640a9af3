"""A target of bytes or latency, met by whichever chain of the allowed steps loses least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits
from tiny import MODELS, main, snapshot

import onnxfold
from onnxfold import PlanError, RequestError
from onnxfold.analysis.costs import Size
from onnxfold.evaluation.verdict import Status
from onnxfold.options.choices import Quantization, Step
from onnxfold.options.options import FoldOptions
from onnxfold.passes.choice.chain import Chain
from onnxfold.passes.choice.row import ChoiceRow
from onnxfold.passes.choice.target import MeetTarget
from onnxfold.passes.sweep import Timing

MLP = MODELS / "digits_mlp.onnx"
IMAGES = (load_digits().data[:64] / 8 - 1).astype(np.float32)
GIVEN: dict[str, Any] = {"calibration": {"image": IMAGES}, "latency": False}


def test_fewer_bits_alone_where_they_lose_less(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    report = onnxfold.fold(MLP, target, target_size=0.6, allow=["fold", "fp16"], provenance=False, **GIVEN).report
    alone = onnxfold.fold(MLP, ratio=0, quantize="fp16", provenance=False, **GIVEN).report
    assert report.after == alone.after and report.after is not None
    assert target.stat().st_size == report.after.file <= 0.6 * MLP.stat().st_size
    assert report.quantization is not None and report.quantization.kind == "fp16"
    assert "best of 2 chains of steps: float16" in report.verdict and "quantized only" not in report.verdict
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]  # nothing is left of the other


def test_what_could_not_be_made_is_said() -> None:
    report = onnxfold.fold(MLP, target_size=0.3, allow=["fold", "int8"], effort="fast", latency=False).report
    assert "the only chain of steps that was made: fold; not made: INT8: " in report.verdict


def test_both_together_where_neither_is_enough() -> None:
    result = onnxfold.fold(MLP, target_size=0.2, allow=["fold", "int8"], round_to=1, **GIVEN)
    report = result.report
    assert report.after is not None and report.after.file <= 0.2 * MLP.stat().st_size
    assert report.after.macs < report.before.macs and "best of" in report.verdict
    stored = {t.data_type for t in result.model.graph.initializer if len(t.dims) == 2}
    assert stored == {onnx.TensorProto.INT8}
    made = json.loads({p.key: p.value for p in result.model.metadata_props}["onnxfold.options"])["chain"]
    assert made.pop("steps") == "fold, INT8" and made.keys() == {"target_size", "quantize"}
    alone = onnxfold.fold(MLP, round_to=1, **made, **GIVEN).report
    assert alone.after is not None  # the text of what was allowed takes bytes, too: a channel or two
    assert alone.quantization is not None and alone.after.macs == pytest.approx(report.after.macs, rel=0.1)


def test_what_no_chain_meets(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"`target_size=0\.01` cannot be met by any chain of `allow`: the lowest"):
        onnxfold.fold(MLP, tmp_path / "out.onnx", target_size=0.01, allow=["fold", "fp16"], **GIVEN)
    assert not snapshot(tmp_path)


def test_what_is_better_otherwise_is_said() -> None:
    def row(chain: Chain, file: int, latency: float, error: float) -> ChoiceRow:
        return ChoiceRow(chain, Size(file, 1, 1), error, timings=(Timing("cpu", Status.OK, "", 1.0, latency),))

    made: list[Any] = [
        type("Made", (), {"row": row(Chain(0.5), 500, 0.9, 0.05)}),
        type("Made", (), {"row": row(Chain(quantize=Quantization.INT8), 300, 0.5, 0.052)}),
    ]
    points = [one.row.point(Size(1000, 1, 1)) for one in made]
    choice = MeetTarget(FoldOptions.of(target_size=0.5, allow="all"))
    assert choice._words(made, points, 0) == (
        "best of 2 chains of steps: fold; INT8 takes 50 % of the latency (this one 90 %) and loses 5.2 %"
    )
    assert choice._words(made, points, 1) == "best of 2 chains of steps: INT8"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ratio": 0.5, "allow": ["int8"]}, "is met: pass `target_size` or `target_latency`"),
        ({"target_size": 0.5, "allow": ["int8"], "quantize": True}, "tries `quantize` and `refine` itself"),
        ({"target_size": 0.5, "allow": ["int8", "drop"]}, "cannot meet a target with 'drop'"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        FoldOptions.of(**given)


def test_all_are_those_that_meet_a_target() -> None:
    found = FoldOptions.of(target_size=0.5, allow="all")
    assert set(Step) - set(found.allow) == {Step.SHARE, Step.DROP} and found.chooses
    assert not FoldOptions.of(ratio=0.5, allow="fold").chooses
    assert FoldOptions.from_dict(found.to_dict()) == found


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "out.onnx")
    assert main([str(MLP), target, "--target-size", "60%", "--allow", "fold,fp16"]) == 0
    assert "Best of 2 chains of steps: float16" in " ".join(capsys.readouterr().out.split())
    assert main([str(MLP), target, "--ratio", "0.3", "--allow", "fp16"]) == 2
    assert "--allow chooses how a target is met: pass --target-size" in capsys.readouterr().err
