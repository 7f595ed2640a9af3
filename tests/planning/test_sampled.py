"""Folding with samples, end to end, on the small trained models: accuracy on data that nothing was fitted on."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model
from numpy.typing import NDArray
from onnx import numpy_helper
from tiny import MODELS, ROOT, net

import onnxfold
from onnxfold import FoldResult
from onnxfold.analysis.analyze import analyze
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import Samples, calibration_samples
from onnxfold.errors import PlanError, RequestError
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.folding.merge import Merge
from onnxfold.model.model import load
from onnxfold.options.choices import Method, Recovery
from onnxfold.planning import sampled as sampled_module
from onnxfold.planning.merger import Merger
from onnxfold.planning.sampled import SampledMerger
from onnxfold.planning.single_folds import SingleFolds
from onnxfold.planning.subject import reference_of
from onnxfold.progress import silent
from onnxfold.runtime.session import Session
from onnxfold.runtime.shared_prefix import SharedPrefix

sys.path.append(str(ROOT / "models"))
import digits

POINT = 1.0  # of top-1 accuracy: 5 of the 500 test images
RESNET = MODELS / "digits_resnet_bn.onnx"
SMALL = MODELS / "digits_mlp.onnx"
NETS = ("digits_mlp", "digits_mobilenet", "digits_resnet_bn", "digits_resnet_fused", "digits_vgg")
BALANCED: Mapping[str, Any] = {"effort": "balanced", "latency": False}


@functools.cache
def images(flat: bool = False) -> NDArray[np.float32]:
    """Training images, without their labels."""
    return digits.load_train(flat)[0][:256]


def calibration(name: str) -> dict[str, NDArray[np.float32]]:
    return {"image": images(flat=name.endswith("mlp"))}


def lost(result: FoldResult, name: str) -> float:
    """Points of top-1 accuracy on the test images."""
    return round(digits.accuracy(MODELS / f"{name}.onnx") - digits.accuracy(result.model.SerializeToString()), 6)


def samples_of(name: str, count: int = 128) -> Samples:
    return calibration_samples(load(MODELS / f"{name}.onnx"), calibration(name), count, None, None)


def measured(result: FoldResult, name: str) -> tuple[float, float]:
    """Error and agreement on the samples that were held back."""
    samples = samples_of(name)
    evaluator = Evaluator(load(MODELS / f"{name}.onnx"), lambda _: samples.check, reference=reference_of(samples))
    return evaluator.error(result.model), evaluator.agreement(result.model)


def on_others(result: FoldResult, name: str) -> float:
    """The error on 512 more images, to compare ways by: 32 are few."""
    others = digits.load_train(name.endswith("mlp"))[0][256:768]
    return Evaluator(load(MODELS / f"{name}.onnx"), lambda _: [{"image": others}]).error(result.model)


@pytest.mark.parametrize("name", NETS)
def test_real_samples_keep_the_accuracy(name: str) -> None:
    result = onnxfold.fold(MODELS / f"{name}.onnx", calibration=calibration(name), target_macs=0.6, **BALANCED)
    report = result.report
    assert report.after is not None and report.check is not None and report.check.passed
    assert report.after.macs <= 0.6 * report.before.macs
    assert report.settings["samples_used"] and report.settings["recovery"] == "least-squares"
    assert lost(result, name) <= POINT
    onnx.checker.check_model(result.model, full_check=True)


LONG = ("digits_resnet_bn", "digits_resnet_fused", "digits_mobilenet")  # to invert: a tenth of the suite's time


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.full if n in LONG else ()) for n in NETS])
def test_synthetic_samples_keep_the_accuracy(name: str) -> None:
    result = onnxfold.fold(MODELS / f"{name}.onnx", target_macs=0.6, **BALANCED)
    assert result.report.settings["samples"].startswith("deep inversion")
    assert result.report.settings["samples_used"]
    assert lost(result, name) <= POINT


def test_samples_beat_weights_alone() -> None:
    name = "digits_mobilenet"
    fast = onnxfold.fold(MODELS / f"{name}.onnx", target_macs=0.6, effort="fast", latency=False)
    assert not fast.report.settings["samples_used"]
    assert lost(fast, name) > 10 * POINT  # the control: this target is no small thing


@pytest.mark.parametrize("name", ["digits_vgg", "digits_mlp"])
@pytest.mark.parametrize("allowed", [0.3, 0.1])
def test_max_error_holds_on_the_samples(allowed: float, name: str) -> None:
    result = onnxfold.fold(MODELS / f"{name}.onnx", calibration=calibration(name), max_error=allowed, **BALANCED)
    error, _ = measured(result, name)
    assert allowed / 20 < error <= allowed
    assert result.report.after is not None
    assert result.report.after.parameters < result.report.before.parameters


@pytest.mark.parametrize("name", ["digits_vgg", "digits_mlp"])
@pytest.mark.parametrize("wanted", [1.0, 0.9])
def test_min_agreement_holds_on_the_samples(wanted: float, name: str) -> None:
    result = onnxfold.fold(MODELS / f"{name}.onnx", calibration=calibration(name), min_agreement=wanted, **BALANCED)
    _, agreement = measured(result, name)
    assert agreement >= wanted
    assert result.report.after is not None
    assert result.report.after.macs < 0.9 * result.report.before.macs


def test_more_error_buys_a_smaller_model() -> None:
    sizes = []
    for allowed in (0.05, 0.2, 0.6):
        result = onnxfold.fold(SMALL, calibration=calibration("digits_mlp"), max_error=allowed, **BALANCED)
        assert result.report.after is not None
        sizes.append(result.report.after.macs)
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]


def test_a_target_out_of_reach() -> None:
    with pytest.raises(PlanError, match="cannot be reached"):
        onnxfold.fold(SMALL, calibration=calibration("digits_mlp"), target_macs=0.01, **BALANCED)


@pytest.mark.parametrize(
    "option",
    [
        {"method": "second-order"},
        {"method": "functional-fold"},
        {"recovery": "least-squares"},
        {"recovery": "statistics"},
    ],
)
def test_samples_that_effort_fast_does_not_make(option: dict[str, str]) -> None:
    asked = {**option, "effort": "fast", "ratio": 0.5, "latency": False}
    with pytest.raises(RequestError, match=r"needs sample inputs \(`effort='fast'` makes none\): pass `calibration`"):
        onnxfold.fold(SMALL, **asked)
    assert onnxfold.fold(SMALL, calibration=calibration("digits_mlp"), **asked).report.settings["samples_used"]


TWO_INPUTS = """(float[N,6] x, float[N,6] z) => (float y) {
    a = Add (x, z) h = Gemm <transB=1> (a, w, b) r = Relu (h) y = Gemm <transB=1> (r, v, c) }"""
TWO_WEIGHTS = {"w": (16, 6), "b": (16,), "v": (5, 16), "c": (5,)}


NO_CLASSES = {**TWO_WEIGHTS, "v": (1, 16), "c": (1,)}  # one number comes out: nothing to aim at


def test_models_that_cannot_be_inverted_are_folded_from_weights() -> None:
    result = onnxfold.fold(model(TWO_INPUTS, NO_CLASSES), ratio=0.5, provenance=False, **BALANCED)
    settings = result.report.settings
    assert settings["samples_used"] is False
    assert settings["recovery"] == "closed-form"
    assert settings["samples"] == "random inputs" or "random" in settings["samples"]
    fast = onnxfold.fold(model(TWO_INPUTS, NO_CLASSES), ratio=0.5, effort="fast", latency=False, provenance=False)
    assert fast.model.SerializeToString() == result.model.SerializeToString()


@pytest.mark.parametrize(
    "option", [{"method": "second-order"}, {"method": "functional-fold"}, {"recovery": "least-squares"}]
)
def test_samples_that_cannot_be_made(option: dict[str, str]) -> None:
    with pytest.raises(
        RequestError, match=r"needs sample inputs \(none can be made for this model.*pass `calibration`"
    ):
        onnxfold.fold(model(TWO_INPUTS, NO_CLASSES), ratio=0.5, **BALANCED, **option)


def test_two_inputs_are_inverted_together() -> None:
    result = onnxfold.fold(model(TWO_INPUTS, TWO_WEIGHTS), ratio=0.5, **BALANCED)
    assert result.report.settings["samples"] == "deep inversion for varied class scores"
    assert result.report.settings["recovery"] == "least-squares"


def test_two_inputs_with_data() -> None:
    rng = np.random.default_rng(0)
    data = {name: rng.standard_normal((96, 6)).astype(np.float32) for name in ("x", "z")}
    proto = model(TWO_INPUTS, TWO_WEIGHTS)
    result, plain = (
        onnxfold.fold(proto, ratio=0.5, calibration=data, recovery=r, method="second-order", **BALANCED)
        for r in ("least-squares", "none")
    )
    new = {name: rng.standard_normal((200, 6)).astype(np.float32) for name in ("x", "z")}
    y, fitted, dropped = (Session(p.SerializeToString()).run(new)[0] for p in (proto, result.model, plain.model))
    assert np.linalg.norm(fitted - y) < 0.6 * np.linalg.norm(dropped - y)


# the parts ----------------------------------------------------------------------------------------------------------


def sampled(name: str, method: Method = Method.AUTO, recovery: Recovery = Recovery.LEAST_SQUARES) -> SampledMerger:
    loaded = load(MODELS / f"{name}.onnx")
    analysis = analyze(loaded)
    merger = Merger(loaded, analysis, method)
    return SampledMerger.of(merger, samples_of(name), [g.name for g in analysis.groups], method, recovery, silent)


@pytest.mark.parametrize("method", [Method.AUTO, Method.FUNCTIONAL_FOLD, Method.FOLD, Method.PRUNE_L1])
def test_curves_fall_to_what_whole_groups_cost(method: Method) -> None:
    made = sampled("digits_mlp", method)
    widths = made.merger.layout.widths(made.chosen)
    for width, curve in zip(widths, made.curves(widths, 8).values(), strict=True):
        assert curve.shape == (width.size + 1,)
        assert abs(curve[width.size]) < 1e-9
        assert (curve[width.cells : -1] >= 0).all()
        assert curve[width.size // 4] > curve[3 * width.size // 4]


def test_curves_are_measured() -> None:
    """At half the channels a curve is the error that folding the group alone makes, on other samples of the same."""
    made = sampled("digits_mlp")
    widths = made.merger.layout.widths(made.chosen)
    curves = made.curves(widths, 8)
    for width in widths:
        folded = made.finish({width.name: width.size // 2})
        error = made.evaluator.distance(folded.proto) ** 2
        assert error / 3 < curves[width.name][width.size // 2] < error * 3


def test_nothing_is_fitted_on_the_samples_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fitted = sampled("digits_mlp"), list[Any]()
    original = sampled_module.reconstruct

    def watch(prefix: SharedPrefix, *others: Any) -> Any:
        fitted.extend(prefix.feeds)
        return original(prefix, *others)

    monkeypatch.setattr(sampled_module, "reconstruct", watch)
    done = made.finish({name: 32 for name in made.chosen})
    held = np.concatenate([feed["image"] for feed in made.samples.check])
    used = np.concatenate([feed["image"] for feed in fitted])
    assert len(held) and len(used) and not (used[:, None] == held).all(axis=-1).any()
    assert all(one.after < one.before for one in done.refitted)


# choosing among merges ----------------------------------------------------------------------------------------------


def test_the_merge_with_the_least_measured_error_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sampled("digits_vgg")
    name = made.chosen[1]
    keep = made.merger.layout.widths([name])[0].size // 2
    asked: list[Merge] = []

    def measured(prefers: str) -> Callable[[SingleFolds, str, Merge, bool], float]:
        def error(_: SingleFolds, name: str, merge: Merge, few: bool) -> float:
            asked.append(merge)
            dropped = merge.labels.min() < 0 and np.bincount(merge.labels[merge.labels >= 0]).max() == 1
            return 0.1 if (dropped == (prefers == "drop")) else 0.2

        return error

    monkeypatch.setattr("onnxfold.planning.merge_choice._CLOSE", np.inf)  # all are measured
    drop = made.merge(name, keep)
    taken = {}
    for prefers in ("drop", "merge"):
        asked.clear()
        monkeypatch.setattr(SingleFolds, "error", measured(prefers))
        made = sampled("digits_vgg")
        taken[prefers] = made.finish({name: keep}, choose=True).merges[name]
        assert len(asked) == 4
    made.finish({name: keep - 8}, choose=True)
    assert len(asked) == 8
    assert made.finish({name: keep}, choose=True).merges[name] is taken["merge"] and len(asked) == 8  # remembered
    np.testing.assert_array_equal(taken["drop"].labels, drop.labels)
    assert taken["merge"].after == keep and np.bincount(taken["merge"].labels[taken["merge"].labels >= 0]).max() > 1
    asked.clear()
    monkeypatch.setattr(SingleFolds, "error", measured("merge"))
    monkeypatch.setattr("onnxfold.planning.merge_choice._CLOSE", 0.0)  # nothing can win
    made = sampled("digits_vgg")
    np.testing.assert_array_equal(made.finish({name: keep}, choose=True).merges[name].labels, drop.labels)
    assert not asked
    np.testing.assert_array_equal(made.finish({name: keep}).merges[name].labels, drop.labels)  # nor unmeasured


def test_samples_that_were_made_do_not_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """They gained nothing that way, and it takes time."""
    monkeypatch.setattr("onnxfold.planning.merge_choice._CLOSE", np.inf)
    monkeypatch.setattr(SingleFolds, "error", lambda *_, **__: pytest.fail("measured"))
    loaded = load(SMALL)
    analysis = analyze(loaded)
    names = [g.name for g in analysis.groups]
    synthetic = replace(samples_of("digits_mlp"), origin=Origin.BN_STATISTICS)
    merger = Merger(loaded, analysis, Method.AUTO)
    made = SampledMerger.of(merger, synthetic, names, Method.AUTO, Recovery.LEAST_SQUARES, silent)
    merges = made.finish({name: 32 for name in names}, choose=True).merges
    assert all(np.bincount(m.labels[m.labels >= 0]).max() == 1 for m in merges.values())


@pytest.mark.parametrize("name", ["digits_mlp", "digits_vgg"])
def test_choosing_does_no_worse_than_second_order_alone(name: str) -> None:
    errors = []
    for method in ("auto", "second-order"):
        result = onnxfold.fold(
            MODELS / f"{name}.onnx", calibration=calibration(name), method=method, ratio=0.5, **BALANCED
        )
        errors.append(on_others(result, name))
    assert errors[0] <= 1.05 * errors[1]


def test_clusters_of_functions_beat_those_of_weights() -> None:
    data, errors = calibration("digits_resnet_fused"), []
    for method in ("functional-fold", "fold"):
        result = onnxfold.fold(
            MODELS / "digits_resnet_fused.onnx",
            calibration=data,
            method=method,
            ratio=0.5,
            **BALANCED,
        )
        assert result.report.settings["method"] == method
        assert any(g.clusters for g in result.report.groups)
        errors.append(on_others(result, "digits_resnet_fused"))
    assert errors[0] < errors[1]


@pytest.mark.parametrize("method", ["auto", "second-order", "functional-fold", "fold"])
def test_groups_that_samples_break_are_decided_by_weights(method: str) -> None:
    """The square root of what is negative is NaN; the other output is as good as ever."""
    text = """(float[N,3,6,6] x) => (float[N,5,2,2] y, float[N,5,2,2] z) {
        h = Conv (x, w, b) s = Sqrt (h) y = Conv (s, v, c) i = Conv (x, u) r = Relu (i) z = Conv (r, t, c) }"""
    weights = {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,), "u": (6, 3, 3, 3), "t": (5, 6, 3, 3)}
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((64, 3, 6, 6)).astype(np.float32)}
    result = onnxfold.fold(model(text, weights), calibration=data, ratio=0.5, method=method, round_to=1, **BALANCED)
    report = result.report
    assert [g.after for g in report.groups] == [4, 3]
    assert report.check is not None
    said = [note for note in report.check.notes if "was ranked by its weights" in note]
    assert len(said) == (method != "fold")
    assert all(f"'{report.groups[0].name}'" in note and "NaN or infinity" in note for note in said)
    new = {"x": rng.standard_normal((50, 3, 6, 6)).astype(np.float32)}
    z, folded = (Session(p.SerializeToString()).run(new)[1] for p in (model(text, weights), result.model))
    assert np.isfinite(folded).all() and np.linalg.norm(folded - z) < 0.8 * np.linalg.norm(z)
    again = onnxfold.fold(model(text, weights), ratio=0.5, method="fold", effort="fast", round_to=1, latency=False)
    tensors = [{t.name: numpy_helper.to_array(t) for t in r.model.graph.initializer} for r in (result, again)]
    np.testing.assert_allclose(tensors[0]["v"], tensors[1]["v"], rtol=1e-6)  # not refitted to NaN either


def test_cells_stay_equal() -> None:
    text = """(float[N,3,6,6] x) => (float y) {
        h = Conv (x, w, b) g = Conv <group=2> (h, u, d) r = Relu (g) p = GlobalAveragePool (r) f = Flatten (p)
        y = Gemm <transB=1> (f, v, c) }"""
    weights = {"w": (16, 3, 3, 3), "b": (16,), "u": (24, 8, 3, 3), "d": (24,), "v": (5, 24), "c": (5,)}
    proto = model(text, weights)
    data = {"x": np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32)}
    for budget in ({"target_macs": 0.5}, {"ratio": 0.4}, {"max_error": 0.5}):
        result = onnxfold.fold(proto, calibration=data, round_to=2, **BALANCED, **budget)
        onnx.checker.check_model(result.model, full_check=True)
        assert result.report.check is not None and result.report.check.passed
        widths = {g.blocks: g.after for g in result.report.groups}
        assert widths[2] % 2 == 0
        assert any(g.after < g.before for g in result.report.groups if g.blocks == 2)


def test_statistics_beat_nothing_and_least_squares_beat_statistics() -> None:
    data, errors = calibration("digits_resnet_bn"), []
    for recovery in ("none", "statistics", "least-squares"):
        result = onnxfold.fold(RESNET, calibration=data, ratio=0.5, method="fold", recovery=recovery, **BALANCED)
        errors.append(on_others(result, "digits_resnet_bn"))
    assert errors[2] < errors[1] < errors[0]


def test_random_weights_do_not_fail() -> None:
    """A network that was never trained, with a domain of the user's own: whatever is made of it passes its checks."""
    for budget in ({"ratio": 0.5}, {"target_macs": 0.5}):
        report = onnxfold.fold(net(), **BALANCED, **budget).report
        assert report.check is not None and report.check.passed


def test_the_same_seed_gives_the_same_bytes() -> None:
    data = calibration("digits_mlp")
    one, same = (onnxfold.fold(SMALL, calibration=data, target_macs=0.5, **BALANCED).model for _ in range(2))
    assert one.SerializeToString(deterministic=True) == same.SerializeToString(deterministic=True)
