"""Alignment: a permuted copy comes back to distance 0, and no output changes."""

from __future__ import annotations

import numpy as np
import pytest
from alike import ORDER, chain, permuted_copy, two_blocks, weights, with_values
from helpers import EXACT_PERMUTE_RTOL, run
from onnx import ModelProto

from onnxfold.analysis.analyze import analyze
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.model.model import Model, load
from onnxfold.options.choices import Distance
from onnxfold.passes.weight_sharing.alignment import alignable, aligned, permutations
from onnxfold.passes.weight_sharing.distances import alone, pairs, rank
from onnxfold.passes.weight_sharing.fuse import brought_together
from onnxfold.passes.weight_sharing.layers import Layer, layers
from onnxfold.passes.weight_sharing.similarity import euclidean

ZERO = 1e-7  # float32 weights, only moved


def found(model: Model, *weights: str) -> list[Layer]:
    return [next(layer for layer in layers(model)[0] if layer.weight == name) for name in weights]


def apart(model: Model, one: str, other: str) -> float:
    a, b = (model.constants.array(name).astype(np.float64) for name in (one, other))
    return euclidean(a.reshape(len(a), -1), b.reshape(len(b), -1))


def together(proto: ModelProto, *sets: tuple[str, str]) -> tuple[Model, Model]:
    """The model before and after the layers of these weights were brought together."""
    before = load(proto)
    analysis = analyze(before)
    orders = aligned([found(before, *one) for one in sets], before.constants.array, alignable(analysis))
    return before, brought_together(before, analysis, permutations(orders), None)


def test_a_permuted_copy_is_found() -> None:
    before, after = together(permuted_copy(), ("u1", "u2"))
    assert apart(before, "u1", "u2") > 0.5
    assert apart(after, "u1", "u2") <= ZERO
    assert apart(after, "v1", "v2") <= ZERO, "the whole group moves: what reads the channels too"
    assert all((after.constants.array(f"{n}1") == after.constants.array(f"{n}2")).all() for n in ("scale", "beta"))


def test_outputs_do_not_change() -> None:
    before, after = together(permuted_copy(), ("u1", "u2"), ("v1", "v2"))
    assert after is not before
    errors = [relative_l2(a, b) for a, b in zip(run(before, before.proto), run(after, after.proto), strict=True)]
    assert max(errors) <= EXACT_PERMUTE_RTOL


def test_from_the_consumers_alone() -> None:
    """v2 is v1 with its columns in another order."""
    _, after = together(permuted_copy(), ("v1", "v2"))
    assert apart(after, "v1", "v2") <= ZERO and apart(after, "u1", "u2") <= ZERO


def test_both_axes_in_another_order() -> None:
    """Two branches of their own, with nothing shared: outputs and inputs of the second are permuted."""
    proto, rng = chain(5), np.random.default_rng(0)
    left, right = rng.permutation(64), rng.permutation(64)
    held = weights(proto)
    after = {"w3": held["w1"][left][:, right], "w2": held["w2"][:, left], "w4": held["w4"][right]}
    before, aligned_model = together(with_values(proto, **after), ("w1", "w3"))
    assert apart(before, "w1", "w3") > 0.5
    assert apart(aligned_model, "w1", "w3") <= ZERO


def test_never_further_apart() -> None:
    before, after = together(two_blocks(), ("u1", "u2"), ("v1", "v2"))
    total = [apart(m, "u1", "u2") ** 2 + apart(m, "v1", "v2") ** 2 for m in (before, after)]
    assert total[1] < total[0]


def test_nothing_moves_where_nothing_is_gained() -> None:
    proto = two_blocks()
    held = weights(proto)
    before, after = together(with_values(proto, u2=held["u1"], v2=held["v1"]), ("u1", "u2"), ("v1", "v2"))
    assert after is before


def test_a_stream_that_both_share_stays() -> None:
    """v1 and v2 write to one residual stream: their outputs are the same channels, which nothing may part."""
    model = load(permuted_copy())
    analysis = analyze(model)
    orders = aligned([found(model, "v1", "v2")], model.constants.array, alignable(analysis))
    (group,) = orders
    assert alignable(analysis)["u2", 0].group == group != alignable(analysis)["v2", 0].group
    assert (orders[group] == np.argsort(ORDER)).all()


@pytest.mark.parametrize("distance", [Distance.EUCLIDEAN, Distance.COSINE, Distance.MANHATTAN])
def test_ranking_sees_through_permutations(distance: Distance) -> None:
    model = load(permuted_copy())
    units = alone(layers(model)[0])
    blind = {(p.one, p.other): p.distance for p in pairs(rank(model, units, distance, {}, None))}
    seen = {(p.one, p.other): p.distance for p in pairs(rank(model, units, distance, alignable(analyze(model)), None))}
    assert set(blind) == set(seen) == {("Conv#2", "Conv#8"), ("Conv#5", "Conv#11")}
    assert min(blind.values()) > 0.1 and max(seen.values()) <= 1e-6  # a difference of two equal numbers near 1
