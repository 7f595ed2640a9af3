"""Folding, fewer bits, or both: which chains are made, which are worth having, and what is advised."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model
from rich.console import Console
from tiny import MODELS, main, snapshot

import onnxfold
from onnxfold import NothingToFoldError, RequestError, Step
from onnxfold.analysis.costs import Size
from onnxfold.cli.calls import chain_call
from onnxfold.evaluation.own_measure import Measured
from onnxfold.evaluation.quality import Mark
from onnxfold.evaluation.verdict import Status
from onnxfold.options.choices import Quantization
from onnxfold.options.options import ChoiceOptions
from onnxfold.passes.base import Run, State
from onnxfold.passes.choice import explore
from onnxfold.passes.choice.chain import Chain
from onnxfold.passes.choice.front import ORIGINAL, Aspect, Point, best, front, rivals
from onnxfold.passes.choice.row import ChoiceRow, original_row
from onnxfold.passes.sweep import Timing
from onnxfold.passes.weight_sharing.share import ShareWeights
from onnxfold.planning import plan_choice
from onnxfold.planning.sampled import SampledMerger
from onnxfold.report.choice_report import ChoiceReport
from onnxfold.report.provenance import Provenance

MLP = MODELS / "digits_mlp.onnx"
BEFORE = Size(1000, 100, 100)
INT8, HALF, W8 = Quantization.INT8, Quantization.HALF, Quantization.WEIGHTS8


def images() -> dict[str, Any]:
    from sklearn.datasets import load_digits

    return {"image": (load_digits().data[:64] / 8 - 1).astype(np.float32)}


def row(chain: Chain, file: int, latency: float | None, error: float, **more: Any) -> ChoiceRow:
    timings = () if latency is None else (Timing("CPUExecutionProvider", Status.OK, "", 1.0, latency),)
    return ChoiceRow(chain, Size(file, 50, 50), error, None, timings, mark=Mark.KEPT, **more)


# points -------------------------------------------------------------------------------------------------------------


def point(size: float, latency: float, loss: float) -> Point:
    return Point(size, latency, loss, loss, loss > 0.1)


def test_the_front() -> None:
    points = [ORIGINAL, point(0.3, 0.6, 0.05), point(0.5, 0.7, 0.06), point(0.2, 0.9, 0.2), point(0.2, 0.9, 0.2)]
    assert front(points) == [0, 1, 3, 4]  # the third is beaten by the second; of equals both are worth having
    assert front([*points, point(0.1, 0.1, 0.0)]) == [5]


def test_what_is_advised() -> None:
    points = [ORIGINAL, point(0.3, 0.6, 0.05), point(0.25, 2.0, 0.01), point(0.2, 0.5, 0.3), point(0.9, 0.4, 0.2)]
    assert best(points, Aspect.BYTES) == 1  # the third has less loss, and takes twice as long
    assert best(points[:1] + points[2:3], Aspect.BYTES) == 1  # there is nothing else
    assert best(points, Aspect.SPEED) == 4
    assert best(points, Aspect.LOSS) == 1
    assert best([ORIGINAL, point(0.9, 1.2, 0.05)], Aspect.LOSS) == 0  # leave it
    assert best([ORIGINAL], Aspect.BYTES) is None
    assert best([ORIGINAL, point(0.3, 1.2, 0.05)], Aspect.LOSS) == 0  # slower is worse
    nearly = [ORIGINAL, point(0.505, 1.0, 0.002), point(0.45, 0.6, 0.6), point(0.55, 0.6, 0.001)]
    assert best(nearly, Aspect.BYTES) == 1  # float16 is half the bytes


def test_of_losses_that_samples_cannot_tell_apart_the_one_that_takes_least() -> None:
    points = [ORIGINAL, point(0.26, 0.26, 0.302), point(0.24, 0.29, 0.301), point(0.2, 0.2, 0.35)]
    assert best(points, Aspect.SPEED) == best(points, Aspect.BYTES) == 1
    gains = [Point(0.5, 0.5, 0.2, -0.02), Point(0.2, 0.2, 0.3, -0.01)]  # a user's own measure that became better
    assert best(gains, Aspect.BYTES) == 0


def test_what_is_worth_training() -> None:
    """What may become the advice if it loses less: likely ones first, none that is slower or loses far too much."""
    points = [ORIGINAL, point(0.3, 0.4, 0.06), point(0.25, 0.35, 0.11), point(0.2, 0.3, 0.18), point(0.1, 0.2, 0.4),
              point(0.2, 1.2, 0.11), point(0.6, 0.6, 0.15)]  # fmt: skip
    folds = [2, 3, 4, 5, 6]
    assert rivals(points, folds, Aspect.LOSS) == [2, 3]
    assert rivals(points, folds, Aspect.BYTES) == rivals(points, folds, Aspect.SPEED) == [2]
    assert rivals([ORIGINAL, *points[4:]], [1, 2, 3], Aspect.SPEED) == [1]  # nothing better is known


def test_what_two_steps_are_expected_to_give() -> None:
    both = Point(0.5, 0.8, 0.3).then(Point(0.25, 0.5, 0.4))
    assert (both.size, both.latency, both.error) == (0.125, 0.4, 0.5)
    assert Point(1, 1, 0.1).narrowed(0.5) == Point(0.25, 0.5, 0.1)


def test_left_out_is_what_is_beaten_by_a_margin_in_everything() -> None:
    expected = Point(0.5, 0.8, 0.1)
    assert expected.beaten_by(Point(0.4, 0.7, 0.09))
    assert not expected.beaten_by(Point(0.46, 0.7, 0.09)) and not expected.beaten_by(Point(0.4, 0.7, 0.095))


def test_training_that_gains_nothing_is_no_chain() -> None:
    """Nothing is made to train on with the least effort: the row says so, and is neither measured nor advised."""
    report = onnxfold.choose(MLP, allow=["fold", "refine"], at=[0.5], effort="fast", latency=False)
    trained = [row for row in report.rows if row.chain.refine]
    assert [row.size for row in trained] == [None]
    assert "training was not used" in trained[0].note
    assert all("refine" not in (one.chain or "") for one in report.advice)


# chains -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "label", "asked"),
    [
        (Chain(), "leave it", ""),
        (Chain(quantize=INT8), "INT8", "`ratio=0` `quantize='int8'`"),
        (Chain(0.8, refine=True, quantize=HALF), "fold 80 %, refine, float16",
         "`target_macs=0.8` `refine=True` `quantize='fp16'`"),
        (Chain(fuse=Step.SHARE), "share weights", "`how='mean'` `share=0.25`"),
        (Chain(fuse=Step.DROP, quantize=INT8), "drop blocks, INT8", "`drop_blocks='25%'` `quantize='int8'`"),
    ],
)  # fmt: skip
def test_how_a_chain_is_asked_for(chain: Chain, label: str, asked: str) -> None:
    assert (chain.label, chain.asked) == (label, asked)


def test_the_command_that_makes_it() -> None:
    """The options of channels go where whole layers change."""
    given = "sweep 'my model.onnx' --at .8 --allow=all --calibration 'a b' -q --report r.json --round-to 4 --fold-heads"
    rows = (ChoiceRow(Chain(0.8, quantize=INT8)), ChoiceRow(Chain(fuse=Step.SHARE)))
    made = Provenance(f"onnxfold {given}")
    found = [chain_call(example(model="my model.onnx", rows=rows, provenance=made), row) for row in (0, 1)]
    assert found == [
        "onnxfold 'my model.onnx' 'my model-fold-80-int8.onnx' --target-macs 0.8 --quantize int8 --calibration 'a b' "
        "--round-to 4 --fold-heads",
        "onnxfold 'my model.onnx' 'my model-share-weights.onnx' --fuse mean --share 25 --calibration 'a b'",
    ]
    alone = example(rows=rows, settings={"seed": 3, "round_to": 4, "device": "tensorrt"})
    assert chain_call(alone, 0).endswith("--quantize int8 --round-to 4 --seed 3 --device tensorrt")
    assert chain_call(alone, 1) == "onnxfold in.onnx in-share-weights.onnx --fuse mean --share 25 --seed 3"


def test_steps_and_their_spelling() -> None:
    assert ChoiceOptions.of(allow=["fp16", "fold"]).allow == (Step.FOLD, Step.HALF)
    assert ChoiceOptions.of(allow="all").allow == ChoiceOptions.of().allow == tuple(Step)
    with pytest.raises(RequestError, match=r"`allow` must be 'all', or several of .*: 'int3' is none of them"):
        ChoiceOptions.of(allow=["fold", "int3"])
    with pytest.raises(RequestError, match="`allow`"):
        ChoiceOptions.of(allow=[])


# the pass -----------------------------------------------------------------------------------------------------------


def test_all_that_is_allowed_is_measured(tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    report = onnxfold.choose(
        MLP, allow=["fold", "int8", "int8-weights", "fp16", "drop"], at=[0.8, 0.5], calibration=images(), latency=False
    )
    assert snapshot(tmp_path) == before and report.passed
    rows = {one.chain: one for one in report.rows}
    kinds = (INT8, W8, HALF)
    assert {Chain(quantize=kind) for kind in kinds} | {Chain(), Chain(0.8), Chain(0.5, quantize=INT8)} <= rows.keys()
    given = {"calibration": images(), "latency": False, "provenance": False}
    alone = onnxfold.fold(MLP, target_macs=0.8, quantize="int8", **given).report
    assert rows[Chain(0.8, quantize=INT8)].size == alone.after or rows[Chain(0.8, quantize=INT8)].skipped
    assert "no residual block" in rows[Chain(fuse=Step.DROP)].note and rows[Chain(fuse=Step.DROP)].size is None
    advised = {one.aspect: one for one in report.advice}
    assert Aspect.SPEED not in advised  # nothing was timed
    how = dict(advised[Aspect.BYTES].how)
    assert how.pop("quantize") in ("int8", "int8-weights", "fp16") and how == {"ratio": 0}
    made = onnxfold.fold(MLP, **advised[Aspect.BYTES].how, **given).report
    assert made.after == next(r.size for r in report.rows if r.chain.label == advised[Aspect.BYTES].chain)


def test_what_cannot_be_the_best_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 costs nearly nothing here, so folds in floats beyond the first are pointless: their error is larger."""
    made = list[Chain]()

    def known(_: Any, chain: Chain) -> ChoiceRow:
        made.append(chain)
        share = 1.0 if chain.share is None else chain.share
        bits = 1.0 if chain.quantize is None else 0.25
        error = 0.01 if chain.share is None else 0.5
        return row(chain, round(1000 * share * bits), share if chain.quantize is None else 0.1, error)

    monkeypatch.setattr(explore._Exploration, "_made", known)
    report = onnxfold.choose(MLP, allow=["fold", "int8"], at=[0.9, 0.8, 0.7], calibration=images(), latency=False)
    smaller = [Chain(share, quantize=INT8) for share in (0.9, 0.8, 0.7)]  # than INT8 alone
    assert made == [Chain(quantize=INT8), Chain(0.9), *smaller]
    left_out = [one for one in report.rows if one.skipped]
    assert [one.chain for one in left_out] == [Chain(0.8), Chain(0.7)]
    assert all("in every way" in one.skipped for one in left_out)
    assert report.advice[-1].chain == "INT8"


def test_trained_is_what_may_be_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """First what has half the bytes, then what may lose nothing that can be seen; not what loses far too much."""
    made = list[Chain]()

    def known(_: Any, chain: Chain) -> ChoiceRow:
        made.append(chain)
        share = 1.0 if chain.share is None else chain.share
        error = {1.0: 0.0, 0.7: 0.15, 0.5: 0.28, 0.4: 0.6}[share]
        trained = error / 2 if chain.refine else error
        return row(chain, round(MLP.stat().st_size * share), share, trained)

    monkeypatch.setattr(explore._Exploration, "_made", known)
    report = onnxfold.choose(MLP, allow=["fold", "refine"], at=[0.7, 0.5, 0.4], calibration=images(), latency=False)
    trained = [Chain(0.5, refine=True), Chain(0.7, refine=True)]
    assert [chain for chain in made if chain.refine] == [*trained, *trained]  # at last as their commands do it
    assert {one.aspect: one.chain for one in report.advice} == {
        Aspect.LOSS: "fold 70 %, refine", Aspect.BYTES: "fold 50 %, refine", Aspect.SPEED: "fold 50 %, refine",
    }  # fmt: skip


def test_a_fold_that_is_compared_is_planned_in_a_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the first of those of the fold alone, which can only find better ones."""
    tried = dict[tuple[tuple[str, int], ...], float]()
    trial = SampledMerger._trial

    def noted(sampled: SampledMerger, keep: Mapping[str, int]) -> float:
        tried[tuple(sorted(keep.items()))] = trial(sampled, keep)
        return tried[tuple(sorted(keep.items()))]

    monkeypatch.setattr(SampledMerger, "_trial", noted)
    monkeypatch.setattr(explore, "FEW", 2)
    monkeypatch.setattr(explore._Exploration, "_settle", lambda _: None)
    given = {"calibration": images(), "latency": False, "round_to": 1}
    onnxfold.choose(MLP, allow=["fold"], at=[0.6], **given)
    few = dict(tried)
    tried.clear()
    onnxfold.fold(MLP, target_macs=0.6, **given)
    assert len(few) == 2 < len(tried) and few.items() <= tried.items()


def test_what_is_advised_is_what_its_command_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fold is made again with all plans: with one plan it would be another one."""
    monkeypatch.setattr(explore, "FEW", 1)
    monkeypatch.setattr(plan_choice, "MOST", 24)
    given = {"calibration": images(), "latency": False, "round_to": 1}
    report = onnxfold.choose(MLP, allow=["fold"], at=[0.4], **given)
    advice, row = report.advice[0], report.rows[1]
    assert advice.chain == row.chain.label == "fold 40 %"
    made = onnxfold.fold(MLP, **advice.how, provenance=False, **given).report
    assert row.size == made.after and made.check.quality is not None and row.error == made.check.quality.error
    monkeypatch.setattr(explore._Exploration, "_settle", lambda _: None)
    briefly = onnxfold.choose(MLP, allow=["fold"], at=[0.4], **given).rows[1]
    assert briefly.error != row.error


def test_layers_change_once_for_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    from alike import permuted_copy

    shared, share = list[State](), ShareWeights.__call__

    def counted(step: ShareWeights, state: State, run: Run) -> State:
        shared.append(share(step, state, run))
        return shared[-1]

    monkeypatch.setattr(ShareWeights, "__call__", counted)
    report = onnxfold.choose(permuted_copy(), allow=["share", "fp16", "int8-weights"], effort="fast", latency=False)
    made = [one.chain.label for one in report.rows if one.usable and one.chain.fuse is not None]
    assert made == ["share weights", "share weights, INT8 weights", "share weights, float16"] and len(shared) == 1


def test_fewer_bits_where_nothing_folds() -> None:
    """They need no channel to fold, and neither does their command."""
    proto = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> agraph (float[N,32] x) => (float[N,16] y) { y = MatMul(x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    given: dict[str, Any] = {"calibration": {"x": np.eye(32, dtype=np.float32)}, "latency": False}
    report = onnxfold.choose(proto, allow=["fold", "int8"], at=[0.9, 0.5], **given)
    rows = {one.chain: one for one in report.rows}
    assert rows.keys() == {Chain(), Chain(quantize=INT8), Chain(0.9)} and rows[Chain(quantize=INT8)].usable
    assert rows[Chain(0.9)].note.startswith("nothing to fold in this model")
    alone = onnxfold.fold(proto, ratio=0, quantize="int8", provenance=False, **given).report
    assert alone.after == rows[Chain(quantize=INT8)].size
    with pytest.raises(NothingToFoldError):
        onnxfold.choose(proto, allow=["fold"], **given)
    with pytest.raises(NothingToFoldError):
        onnxfold.fold(proto, ratio=0.5, quantize="int8", **given)


def test_a_chain_of_whole_layers_is_compared_without_what_only_says_where_it_comes_from() -> None:
    from alike import permuted_copy

    report = onnxfold.choose(permuted_copy(), allow=["share"], effort="fast", latency=False)
    row = report.rows[1]
    given = {**row.chain.how, "effort": "fast", "latency": False}
    made = [onnxfold.fuse(permuted_copy(), **given, provenance=there).report.after for there in (False, True)]
    assert row.size == made[0] and made[1] is not None and made[1].file > made[0].file


def test_a_step_that_cannot_be_had_is_a_row() -> None:
    report = onnxfold.choose(MLP, allow=["int8", "fp16"], effort="fast", latency=False)
    found = {one.chain: one for one in report.rows}
    assert "makes none" in found[Chain(quantize=INT8)].note and found[Chain(quantize=HALF)].usable


# the report ---------------------------------------------------------------------------------------------------------


def example(**change: Any) -> ChoiceReport:
    rows = (
        row(Chain(quantize=INT8), 290, 0.6, 0.04), row(Chain(0.8), 700, 0.9, 0.2),
        row(Chain(0.5, quantize=INT8), 150, 0.45, 0.4), ChoiceRow(Chain(0.9), skipped="expected to be worse than INT8"),
        ChoiceRow(Chain(quantize=HALF), note="it crashes"),
    )  # fmt: skip
    given = {"model": "in.onnx", "settings": {}, "before": BEFORE, "rows": (original_row(BEFORE, rows), *rows),
             "samples": "your inputs", **change}  # fmt: skip
    return ChoiceReport(**given)


def test_the_table() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    example().print(console)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "leave it 100.0 % 100 % 0 %" in lines  # it takes as long as it takes
    assert "* INT8 29.0 % 60 % 4 %" in lines and "fold 80 % 70.0 % 90 % 20 %" in lines
    assert "float16: it crashes" in lines and [line[:1] for line in lines].count("*") == 2
    assert "half the bytes: INT8 (`ratio=0` `quantize='int8'`)" in lines
    assert "twice as fast: fold 50 %, INT8 (`target_macs=0.5` `quantize='int8'`)" in lines
    assert example().worth == (0, 1, 3)


def test_what_is_said_of_many_chains_is_said_once() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    skipped = [(Chain(0.9), "INT8"), (Chain(0.9, quantize=HALF), "INT8"), (Chain(0.8, quantize=HALF), "fold 50 %")]
    broken = [ChoiceRow(Chain(fuse=Step.DROP, quantize=kind), note="there is no block") for kind in (None, INT8)]
    rows = [ChoiceRow(chain, skipped=f"expected to be worse than {other} in every way") for chain, other in skipped]
    example(rows=(row(Chain(quantize=INT8), 290, 0.6, 0.04), *rows, *broken)).print(console)
    lines = console.export_text().splitlines()[-3:]
    assert [line.strip() for line in lines] == [
        "measured on your inputs",
        "drop blocks; drop blocks, INT8: there is no block",
        "3 more not measured, something above is expected to be better in every way: fold 90 % (in floats, float16); "
        "fold 80 % (float16)",
    ]


def test_json_is_plain() -> None:
    data = json.loads(example().to_json())
    assert [one["worth"] for one in data["rows"]] == [True, True, False, True, False, False]
    assert data["advice"][0]["how"] == {"ratio": 0, "quantize": "int8"} and data["rows"][4]["skipped"]


def test_a_measure_of_the_users_own_decides() -> None:
    def judged(after: float) -> Measured:
        return Measured("m", 90.0, after, 90.0 - after)

    rows = (
        row(Chain(quantize=INT8), 290, 0.6, 0.4, measure=judged(90.0)),
        row(Chain(0.8), 200, 0.5, 0.01, measure=judged(80.0)),
    )
    report = example(rows=(original_row(BEFORE, rows), *rows))
    assert report.rows[0].measure == judged(90.0)
    assert {one.aspect: one.chain for one in report.advice} == {
        Aspect.BYTES: "INT8", Aspect.SPEED: "fold 80 %", Aspect.LOSS: "INT8",
    }  # fmt: skip


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "r.json"
    assert main(["sweep", str(MLP), "--allow", "fp16,int8-weights", "--report", str(kept)]) == 0
    out = capsys.readouterr().out
    assert f"half the bytes: onnxfold {MLP} {MLP.with_suffix('')}-float16.onnx --ratio 0 --quantize fp16" in out
    assert {one["label"] for one in json.loads(kept.read_text())["rows"]} == {"leave it", "float16", "INT8 weights"}
    assert main(["sweep", str(MLP), "--allow", "int3"]) == 2
    assert "--allow must be all, or several of fold" in capsys.readouterr().err
