"""Residual streams under norms: folds of dependent ones lose nothing, and weights alone fold none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dependent import network, of_rank, stream, with_dead
from onnx import ModelProto
from transformer import Style

from onnxfold import Plan, PlannedGroup, RequestError, WidthPlan, fold, inspect
from onnxfold.analysis.analyze import analyze
from onnxfold.errors import NothingToFoldError
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.basis import Basis, selection
from onnxfold.folding.merge import Merge
from onnxfold.model.model import Model, load
from onnxfold.planning.residual import measured
from onnxfold.runtime.session import Feeds, Session
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit
from onnxfold.transform.plain_norms import plain_norms

EXACT = 1e-5  # float32, sums in another order; measured 8e-7
WRONG = 5e-3  # what one direction too few must show; measured 1e-2
RANK = 20  # of 32 channels


def plain(proto: ModelProto) -> Model:
    model = load(proto)
    return plain_norms(model, analyze(model, fold_residual=True))


def error(model: Model, proto: ModelProto, merge: Merge, given: Feeds) -> float:
    """Of the outputs of a fold of the stream of `model`, which is as good as `proto`."""
    after = emit(model, edits(model, analyze(model, fold_residual=True), {stream(model).group.name: merge}))
    before, found = (Session.of_version(one, None).run(given) for one in (proto, after))
    return max(relative_l2(a, b) for a, b in zip(before, found, strict=True))


@pytest.mark.parametrize(
    ("net", "style", "least"),
    [
        ("llama2", Style.DECOMPOSED, RANK), ("llama2", Style.FUSED, RANK), ("phi3", Style.OPSET23, RANK),
        ("vit", Style.DECOMPOSED, RANK + 1), ("clip", Style.DYNAMO, RANK + 1),
    ],
    ids=str,
)  # fmt: skip
def test_dead_directions_go_without_loss(net: str, style: Style, least: int) -> None:
    """Layer normalization keeps one channel more, by which new channels have the mean 0."""
    proto, given = network(net, style)
    narrow = of_rank(proto, RANK)
    model = plain(narrow)
    found = stream(model)
    assert found.obstacle() == ""
    spreads = measured(found, [given])
    basis = Basis.of(spreads)
    assert error(model, narrow, basis.merge(24, spreads), given) < EXACT
    assert error(model, narrow, basis.merge(least, spreads), given) < EXACT
    assert error(model, narrow, basis.merge(least - 1, spreads), given) > WRONG


@pytest.mark.parametrize("style", [Style.DECOMPOSED, Style.FUSED], ids=str)
def test_dead_channels_go_without_loss(style: Style) -> None:
    """RMS normalization over the channels that are left stands for that over all, by its factor; not without it."""
    proto, given = network("llama2", style)
    dead = np.array([1, 5, 6, 20])
    narrow = with_dead(proto, dead)
    model = load(narrow)
    spreads = measured(stream(model), [given])
    kept = np.setdiff1d(np.arange(32), dead)
    merge = selection(kept, 32, spreads)
    assert all(factor == pytest.approx(28 / 32) for factor in merge.squares.values())
    assert error(model, narrow, merge, given) < EXACT
    assert error(model, narrow, selection(kept[1:], 32, spreads), given) > WRONG


def test_what_keeps_a_basis_is_told() -> None:
    proto, _ = network("gpt2-untied", Style.DECOMPOSED)
    assert "mean can be taken" in stream(plain(proto)).obstacle(), "layer normalization that is written out"
    proto, _ = network("vit-packed", Style.FUSED)
    assert "cannot be taken into what reads it" in stream(plain(proto)).obstacle(), "Attention has weights of its own"


@pytest.mark.parametrize("net", ["llama2", "vit"])
def test_a_fold_to_a_target(net: str) -> None:
    """With the stream, targets that the other groups alone cannot meet are met, and nothing grows."""
    proto, given = network(net, Style.DYNAMO)
    narrow = of_rank(proto, 12)
    rng = np.random.default_rng(0)
    feeds = [_more(given, rng) for _ in range(8)]
    how: dict[str, Any] = {"latency": False, "calibration": feeds, "round_to": 1, "allow_unmeasured": True}
    found = fold(narrow, target_params=0.6, fold_residual=True, **how).report
    assert found.after.parameters <= 0.6 * found.before.parameters
    widths = {g.before: g.after for g in found.groups}
    assert widths[32] < 32 and any("residual stream" in note for note in found.check.notes)
    assert found.settings["fold_residual"]


def _more(given: Feeds, rng: np.random.Generator) -> Feeds:
    fresh = {}
    for name, x in given.items():
        ids = x.dtype.kind == "i" and "mask" not in name and x.max(initial=0) > 1
        fresh[name] = rng.integers(0, 50, x.shape).astype(x.dtype) if ids else x
        if x.dtype.kind == "f":
            fresh[name] = rng.normal(size=x.shape).astype(x.dtype)
    return fresh


def test_weights_alone_fold_no_stream() -> None:
    proto, _ = network("llama2", Style.DYNAMO)
    found = fold(proto, ratio=0.5, fold_residual=True, effort="fast", latency=False, round_to=1).report
    assert {g.before: g.after for g in found.groups}[32] == 32
    assert {g.before: g.after for g in found.groups}[40] == 20
    (kept,) = (g for g in found.groups if g.before == 32)
    assert kept.note.startswith("only samples tell")
    with pytest.raises(NothingToFoldError, match="pass `calibration`"):
        fold(proto, ratio=0.5, fold_residual=True, effort="fast", latency=False, include=f"^{kept.name}$")


def test_off_unless_asked_for() -> None:
    proto, _ = network("llama2", Style.DYNAMO)
    assert 32 not in {g.before for g in inspect(proto).groups}
    assert 32 in {g.before for g in inspect(proto, fold_residual=True).groups}


def test_a_stream_that_is_an_output_stays() -> None:
    proto, _ = network("bert", Style.DECOMPOSED)
    found = inspect(proto, fold_residual=True)
    assert 32 not in {g.before for g in found.groups}
    assert any(r.kind == "a graph output" and r.parameters for r in found.refusals)
    with pytest.raises(NothingToFoldError):
        fold(proto, ratio=0.5, fold_residual=True, include="embeddings", latency=False)


def test_a_plan_of_streams_needs_them() -> None:
    """Without `fold_residual` the model has no such group: the error says with which options it would."""
    proto, _ = network("llama2", Style.DECOMPOSED)
    group = inspect(proto, fold_residual=True).groups
    name = next(one.name for one in group if one.name not in {two.name for two in inspect(proto).groups})
    made = Plan(WidthPlan({name: 16}, {name: PlannedGroup(32)}))
    with pytest.raises(RequestError, match=f"no group '{name}'; .* `fold_heads`, `fold_residual` and `input_shapes`"):
        fold(proto, plan=made, effort="fast")
