"""One weight for several layers by least squares, and the distances that look at activations."""

from __future__ import annotations

import numpy as np
import pytest
from alike import ORDER, chain, permuted_copy, two_blocks, weights, with_values
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto

from onnxfold.analysis.analyze import analyze
from onnxfold.errors import RequestError
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.model.model import load
from onnxfold.options.choices import Distance, Fusion
from onnxfold.passes.weight_sharing.alignment import alignable
from onnxfold.passes.weight_sharing.distances import alone, pairs, rank
from onnxfold.passes.weight_sharing.fuse import FuseSettings, fuse_layers, repaired
from onnxfold.passes.weight_sharing.joint_fit import joint, seen
from onnxfold.passes.weight_sharing.layers import layers
from onnxfold.recovery.reconstruct import Changes, reconstruct
from onnxfold.runtime.shared_prefix import SharedPrefix

EXACT = 1e-6  # least squares in double precision on float32 activations


def feeds(name: str = "x", shape: tuple[int, ...] = (3, 8, 8), seed: int = 1) -> list[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(seed)
    return [{name: rng.standard_normal((64, *shape), dtype=np.float32)} for _ in range(2)]


def test_without_normalization_it_is_the_stacked_regression() -> None:
    """Two products: the weight is numpy's least squares on the rows of both, each over its energy."""
    loaded = load(chain(2))
    found = layers(loaded)[0]
    data = feeds("x0", (64,))
    known = seen(loaded, found, data)
    best = joint([known[layer.key] for layer in found], np.zeros((1, 64, 64)), ridge=1e-9)
    x = [np.concatenate([d["x0"] for d in data]).astype(np.float64)]
    y = [x[0] @ loaded.constants.array("w0")]
    x.append(np.maximum(y[0], 0))
    y.append(x[1] @ loaded.constants.array("w1"))
    rows = [(a - a.mean(0), b - b.mean(0)) for a, b in zip(x, y, strict=True)]
    rows = [(a / np.linalg.norm(b), b / np.linalg.norm(b)) for a, b in rows]
    stacked = [np.concatenate(side) for side in zip(*rows, strict=True)]
    expected, residual, *_ = np.linalg.lstsq(stacked[0], stacked[1], rcond=None)
    assert np.abs(best.weight[0] - expected.T).max() < 1e-4 * np.abs(expected).max()  # float32 moments
    assert best.after == pytest.approx(residual.sum() / 2, rel=1e-3)
    assert best.after < best.before


def test_equal_layers_miss_nothing() -> None:
    proto = two_blocks()
    held = weights(proto)
    loaded = load(with_values(proto, u2=held["u1"]))
    both = layers(loaded)[0][1:4:2]
    assert [layer.weight for layer in both] == ["u1", "u2"]
    known = seen(loaded, both, feeds())
    best = joint([known[layer.key] for layer in both], both[0].matrix(held["u1"])[None])
    assert best.before <= EXACT and best.after <= EXACT


def test_normalization_takes_factors() -> None:
    """Rows in another length are the same layer where a normalization with a factor of its own follows."""
    proto = two_blocks()
    held = weights(proto)
    lengths = np.linspace(0.5, 2, 6)[:, None, None, None]
    loaded = load(with_values(proto, u2=held["u1"] * lengths))
    both = layers(loaded)[0][1:4:2]
    known = seen(loaded, both, feeds())
    best = joint([known[layer.key] for layer in both], both[0].matrix(held["u1"])[None])
    assert best.after <= EXACT
    plain = load(with_values(chain(2), w1=weights(chain(2))["w0"] * np.linspace(0.5, 2, 64)))
    known = seen(plain, layers(plain)[0], feeds("x0", (64,)))
    alone_ = joint(list(known.values()), plain.constants.array("w0").T[None])
    assert alone_.after > 0.01, "the control: without one they are not"


def test_repair_brings_outputs_back() -> None:
    """Fitted on some inputs, measured on others; the shared weight stays shared."""
    loaded = load(two_blocks())
    analysis, found = analyze(loaded), layers(loaded)[0]
    sets = [[layer for layer in found if layer.weight in names] for names in (("u1", "u2"), ("v1", "v2"))]
    plain = fuse_layers(loaded, analysis, sets, FuseSettings(Fusion.MEAN))
    fitted = fuse_layers(loaded, analysis, sets, FuseSettings(Fusion.MEAN), feeds=feeds())
    done = repaired(fitted, feeds())
    evaluator = Evaluator(loaded, lambda _: feeds(seed=2))
    errors = [evaluator.error(version.proto) for version in (plain, fitted, done)]
    assert errors[2] < 0.5 * errors[0] and errors[2] < errors[1]
    assert not set(weights(done.proto)) & {"u2", "v2"}
    refitted = {one.output: one for one in done.refitted}
    assert set(refitted) >= {"a1", "a2", "y"}, "normalizations behind shared weights, and consumers"
    assert all(one.after <= one.before + EXACT for one in done.refitted)
    assert (weights(done.proto)["scale1"] != weights(loaded.proto)["scale1"]).any()


def test_a_weight_shared_before_is_left_alone_by_folds() -> None:
    """Only weights that fusion shared have what follows them fitted."""
    text = "(float[N,6] x) => (float y) { a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) d = Relu(c) y = MatMul(d, v) }"
    proto = model(text, {"w": (6, 6), "v": (6, 6)})
    loaded = load(proto)
    version = ModelProto()
    version.CopyFrom(proto)
    changes = Changes(tensors=frozenset({"b"}))
    done = reconstruct(SharedPrefix(loaded, feeds("x", (6,))), analyze(loaded), changes, version)
    assert {one.output for one in done} == {"y"}


# distances of activations ------------------------------------------------------------------------------------------


def test_activations_of_a_permuted_copy() -> None:
    """u1 and u2 see other inputs; fed the same, a permuted copy gives the same activations, turned."""
    text = """(float[N,3,8,8] x) => (float[N,6,6,6] y) { a = Conv(x, u) c = Conv(x, v) d = Conv(x, t)
              e = Relu(a) f = Relu(c) g = Relu(d) h = Add(e, f) y = Add(h, g) }"""
    proto = model(text, {name: (6, 3, 3, 3) for name in "uvt"})
    loaded = load(with_values(proto, v=weights(proto)["u"][ORDER]))
    ranked = rank(loaded, alone(layers(loaded)[0]), Distance.ACTIVATIONS, {}, feeds())
    found = {frozenset((p.one, p.other)): p.distance for p in pairs(ranked)}
    assert found[frozenset(("Conv#0", "Conv#1"))] <= EXACT
    assert min(d for names, d in found.items() if "Conv#2" in names) > 0.05


def test_refit_is_what_one_weight_for_both_misses() -> None:
    """0 for a permuted copy once it is aligned, and not before."""
    loaded = load(permuted_copy())
    units = alone(layers(loaded)[0])
    free = alignable(analyze(loaded))
    for names in (("Conv#2", "Conv#8"), ("Conv#5", "Conv#11")):
        found = [
            next(p.distance for p in pairs(rank(loaded, units, Distance.REFIT, how, feeds())) if p.one == names[0])
            for how in (free, {})
        ]
        assert found[0] <= EXACT < 0.01 < found[1]


@pytest.mark.parametrize("distance", [Distance.ACTIVATIONS, Distance.REFIT])
def test_samples_are_needed(distance: Distance) -> None:
    loaded = load(two_blocks())
    with pytest.raises(RequestError, match=f"`distance='{distance.value}'` needs samples"):
        rank(loaded, alone(layers(loaded)[0]), distance, {}, None)
