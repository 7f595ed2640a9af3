"""Refinement after layers were shared and blocks dropped: every activation is compared with what it stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from alike import chain, two_blocks, with_values
from onnx import ModelProto

from onnxfold import fuse
from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.options.choices import Fusion
from onnxfold.passes.distillation.block_targets import Counterparts
from onnxfold.passes.distillation.block_targets import blocks as compared
from onnxfold.passes.distillation.channel_maps import maps_of
from onnxfold.passes.distillation.problem import pose
from onnxfold.passes.weight_sharing.fuse import FuseSettings, fuse_layers
from onnxfold.passes.weight_sharing.layers import layers
from onnxfold.passes.weight_sharing.residual_blocks import blocks, bypasses
from onnxfold.runtime.autodiff.prepare import static_copy

ROUNDING = 1e-9  # of a squared relative error in float32


def moved_chain() -> ModelProto:
    """A chain whose third layer is the second with its outputs in another order."""
    rng = np.random.default_rng(3)
    w1 = rng.standard_normal((64, 64)) / 6
    return with_values(chain(), w1=w1, w2=w1[:, rng.permutation(64)], w3=rng.standard_normal((64, 64)) / 6)


def test_channels_that_were_permuted_are_compared_in_their_order() -> None:
    original = load(moved_chain())
    analysis, by_name = analyze(original), {layer.weight: layer for layer in layers(original)[0]}
    made = fuse_layers(original, analysis, [[by_name["w1"], by_name["w2"]]], FuseSettings(Fusion.MEAN))
    feeds = {"x0": np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)}
    losses = []  # of the original with its channels in another order
    for pairs in (Counterparts(maps_of(analysis, made.moves)), Counterparts()):
        problem = pose(original, made.base, {"x0": (8, 64)}, pairs, "CPUExecutionProvider")
        assert problem.blocks == 3
        losses.append(problem.evaluate(problem.start, feeds)[0])
    assert losses[0] < ROUNDING and losses[1] > 0.1


def test_a_sum_in_front_of_a_dropped_block_is_compared_with_the_one_behind() -> None:
    loaded = load(two_blocks())
    first, _ = blocks(loaded)
    instead, aims = bypasses(loaded.graph, [first])
    made = replace(fuse_layers(loaded, analyze(loaded), [], FuseSettings(Fusion.MEAN), bypass=instead), aims=aims)
    before, after = (static_copy(one, {"x": (2, 3, 8, 8)}).graph for one in (loaded, load(made.proto)))
    found = compared(before, after, Counterparts(aims=made.aims), {"y"})
    assert [(one.name, one.source) for one in found] == [("h", "s1"), ("f", "f")]


@pytest.mark.parametrize("folding", [None, {"ratio": 0.25, "recovery": "none"}])
def test_all_blocks_count_after_a_fold(folding: dict[str, object] | None) -> None:
    """Widths differ from the original's in every layer of a chain; the three activations inside are compared still."""
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    report = fuse(moved_chain(), share=0.3, folding=folding, calibration={"x0": x}, refine=True, steps=2, latency=False)
    assert report.report.refinement is not None and report.report.refinement.blocks == 3
