"""Plans: what is applied as it was found gives the same bytes, what was edited exactly the widths asked for, and what
is exact stays exact under them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import CONTROL, EXACT_FOLD_RTOL, EXACT_PERMUTE_RTOL
from onnx import ModelProto
from scipy.sparse import csr_matrix
from tiny import MODELS, net, write

import onnxfold
from onnxfold import Macs, NothingToFoldError, Plan, Ratio, RequestError
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.groups import ChannelGroup
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.merge import Merge, rearranging
from onnxfold.model.model import load
from onnxfold.runtime.probe_inputs import probe
from onnxfold.runtime.session import Session
from onnxfold.testing import pairs, permute
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

RESNET = MODELS / "digits_resnet_bn.onnx"
MLP = MODELS / "digits_mlp.onnx"
WEIGHTS: dict[str, Any] = {"effort": "fast", "latency": False}


def digits(count: int = 24) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"image": rng.standard_normal((count, 64)).astype(np.float32)}


def parameters(path: str) -> float:
    """The user's own measure: the number of parameters, so that every fold lowers it."""
    return float(sum(np.prod(t.dims) for t in onnx.load(path).graph.initializer))


FLAT: dict[str, Any] = {"calibration": digits(), "latency": False}


@pytest.mark.parametrize(
    ("source", "asked", "how"),
    [
        (MLP, {"group_ratios": {"gemm0": 0.5}, "round_to": 2}, WEIGHTS),
        (MLP, {"target_macs": 0.6}, {**WEIGHTS, "recovery": "none"}),
        (MLP, {"target_size": 0.6}, {**WEIGHTS, "device": "x86-avx2"}),
        (MLP, {"max_error": 0.3}, {**WEIGHTS, "round_to": 1}),
        (MLP, {"min_agreement": 0.6}, {**WEIGHTS, "external_data": True}),
        (MLP, {"max_drop": 4000.0}, {**WEIGHTS, "metric": parameters}),
        (MLP, {"target_macs": 0.7}, FLAT),
        (MLP, {"max_error": 0.3}, FLAT),
        (MLP, {"max_drop": 4000.0}, {**FLAT, "metric": parameters}),
        (MLP, {"target_params": 0.6, "quantize": "int8-weights"}, {**FLAT, "method": "fold"}),
    ],
    ids=lambda one: ",".join(one) if isinstance(one, dict) and len(one) < 3 else "",
)
def test_the_same_bytes(source: Path, asked: dict[str, Any], how: dict[str, Any], tmp_path: Path) -> None:
    first, again, plan = tmp_path / "out.onnx", tmp_path / "again" / "out.onnx", tmp_path / "plan.json"
    again.parent.mkdir()
    budgets = ("ratio", "group_ratios", "max_error", "min_agreement")
    rest = {name: value for name, value in asked.items() if name not in budgets and not name.startswith("target")}
    done = onnxfold.fold(source, first, **asked, **how, save_plan=plan)
    back = onnxfold.fold(source, again, plan=plan, **rest, **how)
    assert again.read_bytes() == first.read_bytes()
    assert back.report.groups != () and done.plan == back.plan == Plan.load(plan) and done.plan is not None
    assert [g.after for g in back.report.groups] == [g.after for g in done.report.groups]


def test_a_plan_that_is_made_alone_is_that_of_the_fold(tmp_path: Path) -> None:
    """Also where several are made, in any order."""
    model = onnxfold.analyze(MLP, **FLAT)
    assert model.groups[0].before == 128 and repr(model).startswith("<Analyzed of ")
    wide, narrow = model.plan(Macs(0.8)), model.plan(onnxfold.Size(0.6))
    for plan, asked in ((narrow, {"target_size": 0.6}), (wide, {"target_macs": 0.8})):
        assert onnxfold.fold(MLP, tmp_path / "out.onnx", **asked, **FLAT).plan == plan, asked
    wide.apply(tmp_path / "applied.onnx")
    assert (tmp_path / "applied.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


@pytest.mark.parametrize(
    ("source", "how"), [(RESNET, WEIGHTS), (MLP, {**FLAT, "method": "second-order"})], ids=["weights", "samples"]
)
def test_edited_widths_are_those_asked_for(source: Path, how: dict[str, Any]) -> None:
    plan = onnxfold.analyze(source, **how).plan(Ratio(0.25))
    names = list(plan.keep)
    plan.keep[names[0]], plan.keep[names[1]] = 11, plan.groups[names[1]].channels
    asked = dict(plan.keep)
    result = plan.apply()
    assert {g.name: g.after for g in result.report.groups} == asked
    (second,) = [g for g in result.report.groups if g.name == names[1]]
    assert second.note == "kept by the plan" and result.report.settings["budget"] == {"plan": plan.frozen().shrinks}
    error, control = (getattr(permute(load(result.model)), name) for name in ("error", "control"))
    assert error < EXACT_PERMUTE_RTOL and control > CONTROL


def doubled() -> ModelProto:
    """A network in which every second channel of every group is a copy of the one before, made and used alike."""
    source = load(MLP)
    analysis = analyze(source)

    def alike(group: ChannelGroup) -> Merge:
        labels = pairs(group)
        same = (labels[:, None] == labels[None, :]).astype(float)
        copy = (np.arange(group.size)[None, :] == labels[:, None]).astype(float)
        return rearranging(csr_matrix(copy), csr_matrix(same / same.sum(axis=1, keepdims=True)))

    return emit(source, edits(source, analysis, {group.name: alike(group) for group in analysis.groups}))


def test_copies_fold_exactly_by_an_edited_plan() -> None:
    twice = doubled()
    model = onnxfold.analyze(twice, **WEIGHTS, method="fold", recovery="none")
    plan = model.plan(Ratio(0.25))
    first, second = plan.keep
    feeds = probe(Session.of_version(twice, None).inputs, batch=8, seed=0)
    expected = Session.of_version(twice, None).run(feeds)[0]

    def error() -> float:
        return relative_l2(expected, Session.of_version(plan.apply().model, None).run(feeds)[0])

    plan.keep.update({first: plan.groups[first].channels // 2, second: plan.groups[second].channels})
    assert error() < EXACT_FOLD_RTOL
    plan.keep[second] = plan.groups[second].channels // 2
    assert error() < EXACT_FOLD_RTOL
    plan.keep[second] -= 8
    assert error() > CONTROL, "the control: channels that are no copies"


def test_a_network_that_was_trained_again_takes_the_plan(tmp_path: Path) -> None:
    """Structure counts; the note says that it is another file."""
    one, other = write(tmp_path / "a.onnx", net()), write(tmp_path / "b.onnx", net(seed=1))
    plan = onnxfold.fold(one, ratio=0.5, **WEIGHTS).plan
    assert plan is not None and plan.model == "a.onnx"
    here, there = (onnxfold.fold(path, plan=plan, **WEIGHTS) for path in (one, other))
    assert [g.after for g in here.report.groups] == [g.after for g in there.report.groups] == [8, 8]
    assert "made for another file" in there.report.verdict and "made for another file" not in here.report.verdict
    assert here.model.metadata_props[1].value == '{"budget": {"ratio": 0.5}, "calibration": {"effort": "fast"}}'
    assert '{"plan": {"' in there.model.metadata_props[1].value


@pytest.mark.parametrize(
    ("plan", "how", "said"),
    [
        ({"nothing": 8}, {}, "names 'nothing', which is no channel group"),
        ({"gemm0": 200}, {}, "cannot keep 200 of the 128 channels of 'gemm0'"),
        ({"gemm0": 64}, {"exclude": "gemm0"}, r"shrinks 'gemm0', which stays as it is \(excluded\)"),
        ({"gemm0": 64}, {"include": "gemm1"}, r"shrinks 'gemm0', which stays as it is \(not included\)"),
        ({"keep": {}, "groups": {"gemm0": {"channels": 64}}}, {}, "its group 'gemm0' has 64 channels, here it has 128"),
        ({"keep": {}, "groups": {"gemm0": {"channels": 128, "blocks": 2}}}, {}, "has 2 equal blocks, here it has 1"),
        ({"keep": {}, "groups": {"conv": {"channels": 64}}}, {}, "for another model: this one has no group 'conv'"),
    ],
)
def test_what_does_not_fit_the_model(plan: dict[str, Any], how: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        onnxfold.fold(MLP, tmp_path / "out.onnx", plan=plan, **WEIGHTS, **how)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_groups_that_a_plan_does_not_know_stay_whole() -> None:
    result = onnxfold.fold(MLP, plan={"keep": {"gemm1": 30}, "groups": {"gemm1": {"channels": 64}}}, **WEIGHTS)
    assert [g.after for g in result.report.groups] == [128, 30]
    assert "1 groups that the plan does not know stay whole" in result.report.verdict


def test_a_plan_that_keeps_everything_folds_nothing() -> None:
    with pytest.raises(NothingToFoldError, match="`plan` keeps all channels of all groups"):
        onnxfold.fold(MLP, plan={}, **WEIGHTS)
    assert onnxfold.analyze(MLP, **WEIGHTS).plan({}).edited == {}


def test_what_analyze_refuses() -> None:
    for given in ({"ratio": 0.3}, {"plan": {"gemm0": 8}}, {"save_plan": "p.json"}):
        with pytest.raises(RequestError, match=r"analyze (takes no budget|writes no model)"):
            onnxfold.analyze(MLP, **given)
    model = onnxfold.analyze(MLP, **WEIGHTS)
    with pytest.raises(RequestError, match=r"`target` must be one like onnxfold.Macs"):
        model.plan(0.7)  # type: ignore[arg-type]
    with pytest.raises(onnxfold.PlanError, match=r"`target_macs=0.0001` cannot be reached"):
        model.plan(Macs(0.0001))
    with pytest.raises(RequestError, match="pass `metric` too"):
        model.plan(onnxfold.MaxDrop(0.5))


def test_a_fusion_takes_a_plan_for_its_fold(tmp_path: Path) -> None:
    plan = onnxfold.analyze(MLP, **WEIGHTS).plan({"gemm0": 64})
    assert onnxfold.FuseOptions.of(folding={"plan": plan}).folding == onnxfold.FoldOptions.of(plan=plan)
    with pytest.raises(RequestError, match="cannot read the plan"):
        onnxfold.fuse(MLP, folding={"plan": tmp_path / "p.json"})
