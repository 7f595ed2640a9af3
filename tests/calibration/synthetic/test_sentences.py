"""Sentences without a language: which tokens begin and end them, which are never used, and how often words come."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny import SHARED

from onnxfold.calibration.synthetic.sentences import Vocabulary, sentence_feeds, sentences, vocabulary
from onnxfold.model.model import load
from onnxfold.runtime.session import Session

SIZE, WIDTH, BEGIN, END = 400, 24, 101, 102
TEXT = """<ir_version: 8, opset_import: ["": 17]>
    g (int64[N,16] ids, int64[N,16] mask, int64[N,16] segments) => (float[N,16,24] y) {
    w = Gather(words, ids) k = Gather(kinds, segments) a = Add(w, positions) b = Add(a, k)
    last = Constant<value_ints = [2]>() m = Cast<to = 1>(mask) u = Unsqueeze(m, last) y = Mul(b, u) }"""


def tables(begin: float, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Words and positions, unit rows; the special tokens lean towards the first position, which is `begin` times as
    large as others; some words were never seen."""
    words, positions = (rng.standard_normal((n, WIDTH)) for n in (SIZE, 16))
    words, positions = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (words, positions))
    words[BEGIN] += 0.8 * positions[0]
    words[END] += 0.9 * positions[0]
    words[3:100] *= 0.3
    positions[0] *= begin
    return words, positions


def model(begin: float = 4.0) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    words, positions = tables(begin, rng)
    for name, value in (("words", words), ("positions", positions[None]), ("kinds", rng.standard_normal((2, WIDTH)))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    return proto


def test_begin_and_end_are_found_by_the_first_position() -> None:
    found = vocabulary(load(model()), "ids", SIZE)
    assert (found.begin, found.end) == (BEGIN, END)
    assert not set(found.words.tolist()) & {0, BEGIN, END, *range(3, 100)}, "nor words that training never saw"
    assert len(found.words) == SIZE - 3 - 97


def test_no_begin_where_the_first_position_is_like_the_others() -> None:
    found = vocabulary(load(model(1.0)), "ids", SIZE)
    assert found.begin is None and found.end is None and 0 in found.words


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_a_real_encoder() -> None:
    path = SHARED.parent / "larger" / "minilm_l6.onnx"
    if not path.exists():
        pytest.skip("../shared/data/larger is not there")
    found = vocabulary(load(path), "input_ids", 8192)
    assert (found.begin, found.end) == (2, 3), "0 fills up, 2 begins, 3 ends"


def test_sentences_begin_end_and_differ_in_length() -> None:
    known = Vocabulary(np.arange(5, 300), 2, 3)
    ids, mask = sentences(known, np.random.default_rng(0), 200, 32, True)
    lengths = mask.sum(axis=1)
    assert (ids[:, 0] == 2).all() and (ids[np.arange(200), lengths - 1] == 3).all() and lengths.min() < 10
    assert lengths.max() == 32 and (ids[mask == 0] == 0).all() and ((ids == 3).sum(axis=1) == 1).all()
    counts = np.bincount(ids.ravel(), minlength=300)
    assert 6 < counts[5] / counts[30:34].mean() < 16, "1 / (i + 2.7)"


def test_halves_share_no_word() -> None:
    known = Vocabulary(np.arange(100), 2, 3)
    assert not set(known.half(0).words.tolist()) & set(known.half(1).words.tolist())
    few = Vocabulary(np.arange(20))
    assert few.half(0) is few


def test_the_mask_belongs_to_the_ids_and_segments_stay() -> None:
    loaded = load(model())
    specs, shapes = Session.of(loaded).inputs, dict.fromkeys(("ids", "mask", "segments"), (30, 16))
    feeds = sentence_feeds(loaded, specs, {"ids": SIZE, "segments": 2}, shapes, np.random.default_rng(0), 0)
    assert feeds.keys() == {"ids", "mask"} and ((feeds["ids"] > 0) == (feeds["mask"] == 1)).all()
