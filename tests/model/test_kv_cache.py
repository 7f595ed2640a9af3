"""Key-value caches among inputs and outputs: their heads stay, or fold where that is allowed (`fold_heads`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from attending import DIM, HEADS, NEW, OUT, PAIRS, PAST, SCORES, SPLIT, cached
from helpers import CONTROL, EXACT_FOLD_RTOL, EXACT_PERMUTE_RTOL, attribute
from numpy.typing import NDArray
from onnx import ModelProto
from transformer import NETS, PRESETS, Config, Draw, Kind, Style, build, feeds, runs_batch, shapes

from onnxfold import ModelError, PlanError, RequestError, fold, inspect, sweep
from onnxfold.analysis.analyze import analyze
from onnxfold.cli.main import main
from onnxfold.model.kv_cache import KEPT, Cache, find_caches
from onnxfold.model.model import load
from onnxfold.runtime.session import Session, fitted
from onnxfold.testing import duplicate, permute

WIDE = PRESETS["llama3-8b"].tiny(cache=True, heads=8, kv_heads=4)  # 4 heads in the caches, each for 2 of queries
SAME_RTOL = 1e-5  # float32, the same sums by other kernels
CACHED = [
    (net, style) for net in ("llama2-cache", "llama3-cache", "phi3") for style in Style
    if NETS[net].cache or style in (Style.OPSET23_3D, Style.FUSED)
]  # fmt: skip


def alike(style: Style, config: Config = WIDE) -> ModelProto:
    """A network of which half of the heads nearly repeat the others."""
    return build(config, style).model(Draw(Kind.ALIKE))


def heads_in(proto: ModelProto) -> set[int]:
    """The declared numbers of heads of all caches."""
    ends = [*proto.graph.input, *proto.graph.output]
    return {v.type.tensor_type.shape.dim[1].dim_value for v in ends if v.name.startswith(("past", "present"))}


def run(proto: ModelProto, given: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = Session(proto.SerializeToString())
    return dict(zip(session.outputs, session.run(given), strict=True))


# analysis ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("net", "style"), CACHED, ids=lambda x: getattr(x, "value", x))
def test_whole_heads_fold_where_allowed(net: str, style: Style) -> None:
    """Heads of past, present, queries, keys, values and output are one group; the oracles hold with words in the
    cache and without."""
    config = NETS[net]
    proto = build(config, style).model()
    model = load(proto)
    kept = analyze(model)
    assert not kept.caches and KEPT in {refusal.kind for refusal in kept.refusals}
    found = analyze(model, fold_heads=True)
    assert [g.size for g in found.groups] == [config.kv_heads, config.mlp] * config.layers
    ends = {name for cache in found.caches for name in (cache.past, cache.present)}
    assert len(ends) == 4 * config.layers
    for i, group in enumerate(found.groups[::2]):
        mine = {place.tensor for place in group.places} & ends
        assert mine == {f"{way}.{i}.{part}" for way in ("past_key_values", "present") for part in ("key", "value")}
    for past in (0, 3):
        batch = 1 if past else runs_batch(config, style)  # GroupQueryAttention continues one text at a time
        given = feeds(proto, config, batch, past=past)
        for oracle, rtol in ((permute, EXACT_PERMUTE_RTOL), (duplicate, EXACT_FOLD_RTOL)):
            result = oracle(model, found, feeds=given)
            assert result.error <= rtol, (oracle.__name__, past, result)
            assert result.control > CONTROL, (oracle.__name__, past, result)


def given(proto: ModelProto, words: int = 3) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(5)
    sizes = {"N": 2, "P": words}
    return {
        v.name: rng.standard_normal([d.dim_value or sizes[d.dim_param] for d in v.type.tensor_type.shape.dim])
        .astype(np.float32) for v in proto.graph.input
    }  # fmt: skip


FORMS = {
    "decomposed": (cached(), [("pk", "k2", 1), ("pv", "v2", 1)]),
    "tokens-before-heads": (
        cached(
            f"""{SPLIT} k3 = Concat<axis=1>(pk, kh) v3 = Concat<axis=1>(pv, vh) k2 = Transpose<perm=[0,2,1,3]>(k3)
                v2 = Transpose<perm=[0,2,1,3]>(v3) {SCORES}""",
            f"float[N,P,{HEADS},{DIM}] pk, float[N,P,{HEADS},{DIM}] pv",
            f"float[N,{NEW},6] y, float[N,T,{HEADS},{DIM}] k3, float[N,T,{HEADS},{DIM}] v3",
        ), [("pk", "k3", 2), ("pv", "v3", 2)],
    ),
    "keys-turned": (
        cached(
            f"""{SPLIT} ku = Transpose<perm=[0,2,3,1]>(kh) kt = Concat<axis=3>(pk, ku) v2 = Concat<axis=2>(pv, vn)
                {SCORES.replace('kt = Transpose<perm=[0,1,3,2]>(k2)', '')}""",
            f"float[N,{HEADS},{DIM},P] pk, float[N,{HEADS},P,{DIM}] pv",
            f"float[N,{NEW},6] y, float[N,{HEADS},{DIM},T] kt, float[N,{HEADS},T,{DIM}] v2",
        ), [("pk", "kt", 1), ("pv", "v2", 1)],
    ),
    "microsoft-packed": (
        cached(
            f"a, k2 = com.microsoft.Attention<num_heads={HEADS}, unidirectional=1>(x, w, b, , pk) y = MatMul(a, o)",
            f"float[2,N,{HEADS},P,{DIM}] pk", f"float[N,{NEW},6] y, float[2,N,{HEADS},T,{DIM}] k2",
        ), [("pk", "k2", 2)],
    ),
    "microsoft-apart": (
        cached(
            f"""q1 = MatMul(x, q) k1 = MatMul(x, k) v1 = MatMul(x, v)
                a, k2, v2 = com.microsoft.MultiHeadAttention<num_heads={HEADS}>(q1, k1, v1, , , , pk, pv)
                y = MatMul(a, o)"""
        ), [("pk", "k2", 1), ("pv", "v2", 1)],
    ),
    "opset23": (
        cached(
            f"""q1 = MatMul(x, q) k1 = MatMul(x, k) v1 = MatMul(x, v)
                a, k2, v2 = Attention<q_num_heads={HEADS}, kv_num_heads={HEADS}>(q1, k1, v1, , pk, pv)
                y = MatMul(a, o)""", opset=23,
        ), [("pk", "k2", 1), ("pv", "v2", 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_caches(form: str) -> None:
    proto, expected = FORMS[form]
    model = load(proto)
    assert [(c.past, c.present, c.axis) for c in find_caches(model.graph, model.constants)] == expected
    assert [g.size for g in analyze(model).groups] == []
    assert any(r.kind == KEPT for r in analyze(model).refusals)
    found = analyze(model, fold_heads=True)
    assert [g.size for g in found.groups] == [HEADS], found.refusals
    for oracle, rtol in ((permute, EXACT_PERMUTE_RTOL), (duplicate, EXACT_FOLD_RTOL)):
        result = oracle(model, found, feeds=given(proto))
        assert result.error <= rtol and result.control > CONTROL, (oracle.__name__, result)


NONE = {
    "no-attention": f"{SPLIT} {PAIRS} kt = Relu(k2) y = Relu(v2)",
    "new-tokens-first": f"{SPLIT} k2 = Concat<axis=2>(kn, pk) v2 = Concat<axis=2>(vn, pv) {SCORES}",
    "of-another-model": f"{SPLIT} k2 = Identity(pk) v2 = Identity(pv) {SCORES}",
}


@pytest.mark.parametrize("form", NONE)
def test_what_is_no_cache(form: str) -> None:
    """States that no attention reads, keys from another model, a Concat of something else."""
    model = load(cached(NONE[form]))
    assert find_caches(model.graph, model.constants) == ()
    assert [g.size for g in analyze(model, fold_heads=True).groups] == [g.size for g in analyze(model).groups]


def test_an_output_that_is_not_there_pairs_with_nothing() -> None:
    model = load(cached(out=OUT.rpartition(",")[0].rpartition(", float")[0]))
    assert [c.past for c in find_caches(model.graph, model.constants)] == ["pk"]
    assert not analyze(model, fold_heads=True).groups, "heads of the values are kept, and with them those of the keys"


# folding -------------------------------------------------------------------------------------------------------------


def step_by_step(proto: ModelProto, config: Config, samples: int, length: int = 7) -> NDArray[Any]:
    """The scores of all words, read one by one with the caches that the model itself gives back."""
    whole, caches = feeds(proto, config, samples, length=length), dict[str, NDArray[Any]]()
    caches = {name: value for name, value in whole.items() if name.startswith("past")}
    scores = []
    for i in range(length):
        step = {name: value[:, i : i + 1] for name, value in whole.items() if name not in caches}
        if "attention_mask" in step:
            step["attention_mask"] = whole["attention_mask"][:, : i + 1]
        y, *present = run(proto, {**step, **caches}).values()
        caches = dict(zip(caches, present, strict=True))
        scores.append(y)
    return np.concatenate(scores, axis=1)


@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
def test_a_folded_model_has_smaller_caches_and_uses_them(style: Style) -> None:
    """Declared shapes of inputs and outputs, numbers of heads in attributes; words one by one are words at once."""
    proto = alike(style)
    result = fold(proto, ratio=0.5, fold_heads=True, effort="fast", latency=False, allow_unmeasured=True)
    assert heads_in(proto) == {4} and heads_in(result.model) == {2}
    names = {f"{way}.{i}.{part}" for way in ("past_key_values", "present") for i in (0, 1) for part in ("key", "value")}
    changed = result.report.interface
    assert {(c.name, c.axis, c.before, c.after) for c in changed} == {(name, 1, 4, 2) for name in names}
    assert all((c.kind == "input") == c.name.startswith("past") for c in changed)
    op = {Style.FUSED: "GroupQueryAttention", Style.OPSET23_3D: "Attention"}.get(style)
    if op:
        queries = "num_heads" if style is Style.FUSED else "q_num_heads"
        assert (attribute(result.model, op, queries), attribute(result.model, op, "kv_num_heads")) == (4, 2)
    samples = runs_batch(WIDE, style)
    empty = feeds(result.model, WIDE, samples)
    whole = next(iter(run(result.model, empty).values()))
    np.testing.assert_allclose(step_by_step(result.model, WIDE, samples), whole, rtol=0, atol=SAME_RTOL * 20)
    before = next(iter(run(proto, feeds(proto, WIDE, samples)).values()))
    assert np.linalg.norm(whole - before) < 0.05 * np.linalg.norm(before)


def test_without_the_flag_the_interface_stays() -> None:
    result = fold(alike(Style.FUSED), ratio=0.5, effort="fast", latency=False)
    assert heads_in(result.model) == {4} and result.report.interface == ()
    assert any("`fold_heads`" in refusal.kind for refusal in result.report.refusals)


def test_present_outputs_are_not_compared_where_they_changed() -> None:
    proto = alike(Style.DECOMPOSED)
    report = fold(proto, ratio=0.5, fold_heads=True, effort="fast", latency=False).report
    assert report.check is not None and [o.name for o in report.check.providers[0].outputs] == ["logits"]
    half = fold(proto, ratio=0.5, fold_heads=True, effort="fast", latency=False, exclude=["layers.1/self_attn"]).report
    assert half.check is not None and len(half.interface) == 4
    assert [o.name for o in half.check.providers[0].outputs] == ["logits", "present.1.key", "present.1.value"]
    assert "4 inputs and outputs have fewer heads" in half.verdict


def prompts(proto: ModelProto, count: int = 24) -> dict[str, NDArray[Any]]:
    found = feeds(proto, WIDE, count, seed=3)
    return {name: value for name, value in found.items() if not name.startswith("past")}


@pytest.mark.parametrize("style", [Style.DECOMPOSED, Style.FUSED], ids=lambda s: s.value)
def test_samples_need_no_caches(style: Style) -> None:
    """Caches that calibration data leaves out are empty; the consumers of heads are refitted on it."""
    proto = alike(style, PRESETS["llama3-8b"].tiny(cache=True, heads=8, kv_heads=4))
    how: dict[str, Any] = {"ratio": 0.5, "fold_heads": True, "latency": False, "calibration": prompts(proto)}
    fitted_error = fold(proto, **how).report.check
    plain_error = fold(proto, **how, recovery="none", method="prune-l1").report.check
    assert fitted_error is not None and plain_error is not None
    assert fitted_error.worst is not None and plain_error.worst is not None
    assert fitted_error.worst.relative_l2 < 0.1 < plain_error.worst.relative_l2


@pytest.mark.full
def test_samples_may_hold_empty_caches_but_no_full_ones() -> None:
    proto = alike(Style.DECOMPOSED)
    empty = feeds(proto, WIDE, 24, seed=3)
    report = fold(proto, ratio=0.5, fold_heads=True, latency=False, calibration=empty).report
    assert report.settings["samples_used"] and report.settings["fold_heads"]
    full = feeds(proto, WIDE, 24, seed=3, past=2)
    with pytest.raises(RequestError, match=r"`fold_heads` changes the heads of the cache 'past_key_values\.0\.key'"):
        fold(proto, ratio=0.5, fold_heads=True, latency=False, calibration=full)
    assert fold(proto, ratio=0.5, latency=False, calibration=full).report.interface == ()
    zeros = {name: value * 0 if name.startswith("past") else value for name, value in full.items()}
    assert fold(proto, ratio=0.5, fold_heads=True, latency=False, calibration=zeros).report.interface


def test_caches_of_fixed_length_are_compared_as_zeros() -> None:
    proto = cached(past=PAST.replace(",P,", ",3,"))
    result = fold(proto, ratio=0.5, fold_heads=True, effort="fast", round_to=1)
    assert [(c.name, c.before, c.after) for c in result.report.interface] == [
        ("pk", 4, 2), ("pv", 4, 2), ("k2", 4, 2), ("v2", 4, 2)
    ]  # fmt: skip
    assert result.report.check is not None and result.report.check.providers[0].speedup


def test_only_caches_that_hold_nothing_are_cut() -> None:
    zeros, ones = np.zeros((2, 4, 3, 8)), np.ones((2, 4, 3, 8))
    declared = {"a": ("N", 2, "P", 8)}
    assert fitted({"a": zeros}, declared)["a"].shape == (2, 2, 3, 8)
    assert fitted({"a": zeros[:, :, :0]}, declared)["a"].shape == (2, 2, 0, 8)
    assert fitted({"a": ones}, declared)["a"] is ones
    assert fitted({"a": zeros}, {"a": ("N", 2, "P", 4)})["a"] is zeros, "heads alone may change"
    assert fitted({"a": zeros}, {"a": ("N", 8, "P", 8)})["a"] is zeros


@pytest.mark.parametrize("step", ["refine", "quantize"])
def test_what_compares_caches_as_they_were_is_refused(step: str) -> None:
    how: dict[str, Any] = {step: True}
    with pytest.raises(RequestError, match=f"leave out `{step}` or `fold_heads`"):
        fold(alike(Style.FUSED), ratio=0.5, fold_heads=True, **how)


def test_models_that_stay_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("onnxfold.passes.prepare.streamed", lambda *_: True)
    monkeypatch.setattr("onnxfold.passes.verify.comparable", lambda *_: False)
    build(WIDE, Style.OPSET23_3D).write(tmp_path / "in.onnx", Draw(Kind.ALIKE))
    how: dict[str, Any] = {"ratio": 0.5, "fold_heads": True, "latency": False, "exclude": ["mlp"]}
    report = fold(tmp_path / "in.onnx", tmp_path / "out.onnx", **how).report
    assert heads_in(onnx.load(tmp_path / "out.onnx", load_external_data=False)) == {2} and len(report.interface) == 8
    assert "the block of '/model/layers.0/self_attn/q_proj/MatMul' on its own" in report.verdict


def test_a_sweep_measures_them_too() -> None:
    proto = alike(Style.FUSED)
    (row,) = sweep(proto, at=[0.6], fold_heads=True, calibration=prompts(proto), latency=False).rows
    assert row.problems == () and row.error is not None and row.error < 0.1
    with pytest.raises(PlanError, match="cannot be reached"):
        sweep(proto, at=[0.6], calibration=prompts(proto), latency=False)


# the command line ----------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, report = tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "report.json"
    onnx.save(alike(Style.DECOMPOSED), source)
    assert main([str(source), "--inspect"]) == 0
    assert "--fold-heads" in capsys.readouterr().out
    options = ["--fold-heads", "--ratio", "0.5", "--effort", "fast", "--report", str(report)]
    assert main([str(source), str(target), *options]) == 0
    shown = capsys.readouterr().out
    assert "changed inputs and outputs" in shown and "4 → 2" in shown
    data = json.loads(report.read_text(encoding="utf-8"))
    assert len(data["interface"]) == 8 and data["settings"]["fold_heads"]
    assert data["interface"][0] == {
        "name": "past_key_values.0.key", "kind": "input", "axis": 1, "before": 4, "after": 2
    }  # fmt: skip
    assert heads_in(onnx.load(target)) == {2}


# lengths of 0 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
def test_shapes_of_empty_caches_may_be_given(style: Style) -> None:
    proto = alike(style)
    asked = shapes(proto, runs_batch(WIDE, style))
    assert {shape[2] for name, shape in asked.items() if name.startswith("past")} == {0}
    for allowed in (False, True):
        open_, closed = (inspect(proto, fold_heads=allowed, input_shapes=s) for s in (None, asked))
        assert [g.before for g in open_.groups] == [g.before for g in closed.groups]
    report = fold(proto, ratio=0.5, effort="fast", latency=False, fold_heads=True, input_shapes=asked).report
    assert report.check is not None and report.check.providers[0].status == "ok"


def test_a_length_of_0_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(FORMS["decomposed"][0], source)
    assert main([str(source), "--inspect", "--input-shape", "pk:1x4x0x8", "--input-shape", "pv:1,4,0,8"]) == 0
    for shape, why in (
        ("0,4,3,8", "positive dimensions"),
        ("1,0,0,8", "has length 4"),
        ("1,4,-1,8", "--input-shape must be"),
    ):
        assert main([str(source), "--inspect", "--input-shape", f"pk:{shape}"]) == 2
        assert why in capsys.readouterr().err


def test_missing_inputs_that_are_no_caches_are_still_missed() -> None:
    proto = alike(Style.DECOMPOSED)
    arrays = prompts(proto)
    del arrays["attention_mask"]
    with pytest.raises((RequestError, ModelError), match="no array for input 'attention_mask'"):
        fold(proto, calibration=arrays)


def test_a_cache_is_what_it_says() -> None:
    model = load(alike(Style.FUSED))
    assert find_caches(model.graph, model.constants)[0] == Cache("past_key_values.0.key", "present.0.key", 1)
