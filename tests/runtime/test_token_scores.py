"""Scores of words: what is compared of them follows the probabilities that they stand for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import model
from tiny import MODELS
from transformer import PRESETS, Style, build

from onnxfold.evaluation.candidates import Evaluator
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.model.model import load
from onnxfold.runtime.token_scores import by_probability, word_scores


def apart(before: np.ndarray, after: np.ndarray) -> float:
    return relative_l2(*by_probability(before, after, before.shape[-1]))


def test_what_counts_and_what_does_not() -> None:
    before = np.random.default_rng(0).normal(0, 3, (2, 5, 40)).astype(np.float32)
    assert apart(before, before + 7) < 1e-6  # a constant is no change
    changed = [before.copy() for _ in range(2)]
    for scores, place in zip(changed, (before.argmax(-1), before.argmin(-1)), strict=True):
        np.put_along_axis(scores, place[..., None], 1 + np.take_along_axis(scores, place[..., None], -1), -1)
    probable, improbable = (apart(before, scores) for scores in changed)
    assert probable > 0.1 and improbable < probable / 50
    assert abs(relative_l2(before, changed[0]) - relative_l2(before, changed[1])) < 1e-6  # raw scores cannot tell


def test_twice_the_divergence() -> None:
    """To second order, |sqrt(p) (log q - log p)|^2 is twice the Kullback-Leibler divergence."""
    rng = np.random.default_rng(1)
    before = rng.normal(0, 1, (64, 30)).astype(np.float32)
    after = before + 0.01 * rng.normal(0, 1, before.shape).astype(np.float32)
    p, q = (np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(1, keepdims=True) for x in (before, after))
    divergence = float((p * np.log(p / q)).sum())
    one, other = by_probability(before, after, 30)
    assert float(np.square(other - one, dtype=np.float64).sum()) == pytest.approx(2 * divergence, rel=0.02)


def test_which_outputs_score_words() -> None:
    writer = build(PRESETS["gpt2"].tiny(vocabulary=300), Style.DECOMPOSED).model()
    assert list(word_scores(load(writer).graph).values()) == [300]
    assert not word_scores(load(onnx.load(MODELS / "digits_mlp.onnx")).graph)


def test_choices_go_by_distance_and_budgets_by_error() -> None:
    """A version that adds a constant to all scores errs, but says the same."""
    text = "(int64[N,6] ids) => (float[N,6,300] y) { e = Gather (table, ids) y = MatMul (e, w) }"
    proto = model(text, {"table": (300, 8), "w": (8, 300)})
    other = model(text.replace("y = MatMul (e, w)", "h = MatMul (e, w) y = Add (h, two)"), {}).graph
    shifted = onnx.ModelProto()
    shifted.CopyFrom(proto)
    del shifted.graph.node[:]
    shifted.graph.node.extend(other.node)
    shifted.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    ids = np.random.default_rng(0).integers(0, 300, (4, 6))
    evaluator = Evaluator(load(proto), lambda _: [{"ids": ids}])
    assert evaluator.distance(shifted) < 1e-5 and evaluator.error(shifted) > 0.1
