"""Models that are never loaded whole: the same bytes, the same refusals, and a check of one block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from gated import damaged, write_gated
from numpy.typing import NDArray
from tiny import MODELS, snapshot

import onnxfold
from onnxfold import FoldResult, ModelError, RequestError, ValidationError
from onnxfold.cli import main as cli
from onnxfold.folding.merge import folding, pruning
from onnxfold.options.budget import Aim
from onnxfold.options.parts import PlanningOptions
from onnxfold.passes.block_check import spread
from onnxfold.passes.prepare import subject_of
from onnxfold.planning import time_estimate as estimate
from onnxfold.planning.goal import Goal
from onnxfold.transform import edits

NAMES = [f"layers.{block}.mlp.{part}.weight" for block in range(3) for part in ("gate", "up", "down")]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every model counts as too large to be loaded; undone by `undo`."""
    monkeypatch.setattr("onnxfold.passes.prepare.streamed", lambda *_: True)
    monkeypatch.setattr("onnxfold.passes.verify.comparable", lambda *_: False)
    return monkeypatch


def fold(source: Path, target: Path | None, **how: Any) -> FoldResult:
    return onnxfold.fold(source, target, **{"ratio": 0.4, "effort": "fast", "latency": False, **how})


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "how", [{"recovery": "none"}, {"method": "prune-l2"}, {"recovery": "none", "target_params": 0.7, "ratio": None}]
)
def test_the_same_bytes_as_all_at_once(
    tmp_path: Path, whole: pytest.MonkeyPatch, dtype: type, how: dict[str, Any]
) -> None:
    source = write_gated(tmp_path / "in.onnx", 3, 24, 64, dtype)
    names = ("a", "b")
    for name in names:
        (tmp_path / name).mkdir()
        fold(source, tmp_path / name / "out.onnx", **how)
        whole.undo()  # the second time as usual
    made = [snapshot(tmp_path / name) for name in names]
    assert len(made[0]) == 2 and made[0] == made[1]


def test_what_was_checked_and_what_not(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    report = fold(write_gated(tmp_path / "in.onnx", 3, 24, 64), tmp_path / "out.onnx").report
    assert report.check is not None and report.check.passed
    assert [done.status for done in report.check.providers][:1] == ["skipped"]
    assert report.seconds["estimated"] > 0
    assert "not run as a whole" in report.verdict and "the block of 'layers.0.mlp.gate' on its own" in report.verdict


def test_blocks_that_end_in_other_groups_are_not_compared(whole: pytest.MonkeyPatch) -> None:
    """A chain of convolutions: what a block gives is narrower where the next one was folded too."""
    report = fold(MODELS / "digits_vgg.onnx", None, ratio=0.1).report
    assert report.check is not None and report.check.passed
    assert "no single block of it could be run on its own" in report.verdict


def test_a_block_that_is_wrong_is_not_written(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    """The control: a weight of the result that is not what the merge says."""
    source, merged = write_gated(tmp_path / "in.onnx", 1, 24, 64), edits._Weight.array.fget
    before = snapshot(tmp_path)

    def wrong(weight: edits._Weight) -> NDArray[Any]:
        values = merged(weight)
        folded = values.shape[1] < 64 and "up" in weight.name  # and not the reference
        return values[:, ::-1] if folded else values

    whole.setattr(edits._Weight, "array", property(wrong))
    with pytest.raises(ValidationError, match=r"computes something else: 1\.\de"):
        fold(source, tmp_path / "out.onnx")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("block", "value"), [(0, np.nan), (0, np.inf), (2, np.nan)])
def test_broken_weights_are_found_when_they_are_read(
    tmp_path: Path, whole: pytest.MonkeyPatch, block: int, value: float
) -> None:
    """In a group that is folded, and in a weight that is only copied."""
    source, name = write_gated(tmp_path / "in.onnx", 3, 24, 64), f"layers.{block}.mlp.up.weight"
    damaged(source, name, value)
    before = snapshot(tmp_path)
    with pytest.raises(ModelError, match=f"weight '{name}'"):
        fold(source, tmp_path / "out.onnx", ratio=None, group_ratios={"layers.0": 0.5})
    assert snapshot(tmp_path) == before


def test_infinity_in_a_weight_that_is_copied_stays(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    source = write_gated(tmp_path / "in.onnx", 2, 24, 64)
    damaged(source, "layers.1.mlp.up.weight", np.inf)
    fold(source, tmp_path / "out.onnx", ratio=None, group_ratios={"layers.0": 0.5})


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"calibration": {"x": np.zeros((4, 24), np.float32)}}, "`calibration`"),
        ({"method": "second-order"}, "`method='second-order'`"),
        ({"recovery": "least-squares"}, "`recovery="), ({"ratio": None}, "`max_error`"),
        ({"ratio": None, "target_latency": 0.5}, "`target_latency`"), ({"ratio": None, "min_agreement": 0.9}, "`min_"),
    ],
)  # fmt: skip
def test_what_needs_the_model_to_run_is_refused(
    tmp_path: Path, whole: pytest.MonkeyPatch, how: dict[str, Any], what: str
) -> None:
    source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
    with pytest.raises(RequestError, match=f"^{what}.* needs the model to run"):
        fold(source, tmp_path / "out.onnx", **how)


def test_no_sweep(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="too large to run here"):
        onnxfold.sweep(write_gated(tmp_path / "in.onnx", 1, 24, 64))


def test_bfloat16_that_fits_is_compared_all_the_same(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    whole.setattr("onnxfold.passes.verify.comparable", lambda *_: True)
    report = fold(write_gated(tmp_path / "in.onnx", 2, 24, 64, ml_dtypes.bfloat16), tmp_path / "out.onnx").report
    assert "the block of" in report.verdict or "no single block of it" in report.verdict


def test_an_estimate_counts_the_groups_that_shrink(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    whole.setattr(estimate, "_rate", lambda: 1e9)
    found = subject_of(write_gated(tmp_path / "in.onnx", 4, 24, 64), PlanningOptions())
    half = Goal(Aim.RATIO, 0.0, special=((re.compile(r"layers\.[01]"), 0.5),))
    none, some, most = (
        estimate.estimate_streamed(found, budget).fold for budget in (Goal(Aim.RATIO, 0.0), half, Goal(Aim.PARAMS, 0.5))
    )
    assert 0 < none < some < most and most - none == pytest.approx(2 * (some - none))


def test_saved_later(tmp_path: Path, whole: pytest.MonkeyPatch) -> None:
    source = write_gated(tmp_path / "in.onnx", 2, 24, 64)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fold(source, tmp_path / "a" / "out.onnx").save(tmp_path / "b" / "out.onnx")
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


class TestGroupRatios:
    def test_first_match_counts_others_stay(self, tmp_path: Path) -> None:
        source = write_gated(tmp_path / "in.onnx", 4, 24, 64)
        ratios = {r"layers\.1\.": 0.75, r"layers\.[12]\.": 0.5}
        report = fold(source, tmp_path / "out.onnx", ratio=None, group_ratios=ratios).report
        assert [group.after for group in report.groups] == [64, 16, 32, 64]
        report = fold(source, tmp_path / "out.onnx", ratio=0.25, group_ratios=ratios).report
        assert [group.after for group in report.groups] == [48, 16, 32, 48]

    def test_on_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source, target = write_gated(tmp_path / "in.onnx", 2, 24, 64), str(tmp_path / "out.onnx")
        given = [str(source), target, "--effort", "fast", "-q", "--group-ratio"]
        assert cli.main([*given, r"layers.1.*=.5"]) == 0
        assert len(onnx.load(target).graph.initializer[3].dims) == 2
        assert [t.dims[1] for t in onnx.load(target).graph.initializer if "up" in t.name] == [64, 32]
        for text, said in (("a", "wants REGEX=R"), ("a=b", "wants REGEX=R"), ("(=.5", "no"), ("a=1", "below 1")):
            assert cli.main([*given, text]) == 2
            assert said in capsys.readouterr().err
        assert cli.main([*given, "layers=.5", "--target-params", ".5"]) == 2
        assert "--group-ratio goes with --ratio only" in capsys.readouterr().err


class TestMaxMemory:
    @pytest.mark.parametrize("text", ["", "x", "4 parrots", "-1G", "0"])
    def test_sizes_that_make_no_sense(self, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
        assert cli.main([str(source), str(tmp_path / "out.onnx"), f"--max-memory={text}"]) == 2
        assert "--max-memory wants a size" in capsys.readouterr().err

    def test_too_little_for_the_widest_group(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write_gated(tmp_path / "in.onnx", 1, 24, 64)
        assert cli.main([str(source), str(tmp_path / "out.onnx"), "--max-memory=1K", "--ratio=.5"]) == 2
        assert "the widest group may need 250 MB" in capsys.readouterr().err


@pytest.mark.parametrize("merge", [folding(np.array([0, 1, 0, 2, 1, 0])), pruning(np.array([1, 4]), 6)])
def test_spread_is_the_projection(merge: Any) -> None:
    """Full width: makes then reads gives what the fold gives (C = U (U'U)^-1 U', or the pruned identity)."""
    rng = np.random.default_rng(0)
    producer, consumer = rng.standard_normal((6, 4)), rng.standard_normal((3, 6))
    wide = spread(merge)
    folded = (merge.for_consumers @ consumer.T).T @ (merge.for_producers @ producer)
    assert (wide.for_consumers @ consumer.T).T @ (wide.for_producers @ producer) == pytest.approx(folded)
