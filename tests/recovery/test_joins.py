"""Consumers whose outputs are added up: each is refitted to what the sum still misses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import constant, model
from onnx import ModelProto, numpy_helper
from twins import BN, CONTROL, norm, refitted, reproduces

from onnxfold.analysis.analyze import analyze
from onnxfold.folding.merge import Merge, pruning
from onnxfold.model.model import load
from onnxfold.recovery.epilogue import Epilogue, Epilogues

JOIN = """(float[N,4,6,6] x) => (float y) {
    u = Conv (x, wu) v = Conv (x, wv) a = Conv (u, wa) b = Conv (v, wb) y = Add (a, b) }"""
JOIN_WEIGHTS = {"wu": (8, 4, 1, 1), "wv": (8, 4, 1, 1), "wa": (6, 8, 1, 1), "wb": (6, 8, 1, 1)}


def join_merges(proto: ModelProto) -> dict[str, Merge]:
    """The first branch left with 2 channels, far too few; the second with 6, more than it needs."""
    first, second = analyze(load(proto)).groups
    return {first.name: pruning(np.arange(2), 8), second.name: pruning(np.arange(6), 8)}


def test_one_branch_makes_up_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(JOIN, JOIN_WEIGHTS)
    found = refitted(proto, join_merges(proto))
    reproduces(found)
    assert found.done[0].after > 0.05
    inner = Epilogues.epilogue

    def alone(self: Epilogues, of: Any) -> Epilogue:
        return replace(inner(self, of), join="", other="")

    monkeypatch.setattr(Epilogues, "epilogue", alone)
    assert refitted(proto, join_merges(proto)).refitted > CONTROL


def test_a_join_behind_a_normalization() -> None:
    text = JOIN.replace("y = Add (a, b)", f"n = {BN} (b, scale1, bias1, mean1, var1) y = Add (n, a)")
    proto = model(text, {**JOIN_WEIGHTS, **norm(1, 6)})
    reproduces(refitted(proto, join_merges(proto)))


def test_faint_channels_of_a_normalization_aim_at_nothing_wild() -> None:
    text = JOIN.replace("y = Add (a, b)", f"n = {BN} (b, scale1, bias1, mean1, var1) y = Add (n, a)")
    proto = model(text, {**JOIN_WEIGHTS, **norm(1, 6)})
    tensor = next(t for t in proto.graph.initializer if t.name == "scale1")
    gamma = numpy_helper.to_array(tensor).copy()
    gamma[2] = 1e-9
    tensor.raw_data = gamma.tobytes()
    found = refitted(proto, join_merges(proto))
    sizes = np.abs(constant(found.proto, "wb")).max(axis=(1, 2, 3))
    assert sizes[2] < 10 * np.median(sizes)


def test_a_join_that_broadcasts() -> None:
    text = """(float[N,4,6,6] x) => (float y) {
        u = Conv (x, wu) a = Conv (u, wa) p = GlobalAveragePool (x) v = Conv (p, wv) b = Conv (v, wb)
        y = Add (a, b) }"""
    proto = model(text, JOIN_WEIGHTS)
    first, second = analyze(load(proto)).groups
    merges = {first.name: pruning(np.arange(4), 8), second.name: pruning(np.arange(4), 8)}
    reproduces(refitted(proto, merges))
