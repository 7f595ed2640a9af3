"""Token ids: drawn at random, or written by the model itself where it is a language model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, parser

from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import synthetic_samples
from onnxfold.calibration.synthetic.synthesize import Extent, synthesize
from onnxfold.model.model import load
from onnxfold.model.shapes.nominal import OPEN_OTHER
from onnxfold.options.choices import Effort
from onnxfold.runtime import probe_inputs as inputs

VOCABULARY, LENGTH = 12, 6
NEXT = "(int64[N,T] ids) => (float[N,T,12] y) { y = Gather (table, ids) }"
AHEAD = """(int64[N,T] ids) => (float[N,T,12] y) {
    g = Gather (table, ids) m = ReduceMean <axes: ints = [1], keepdims: int = 1> (g) y = Add (g, m) }"""
FEATURES = "(int64[N,T] ids) => (float[N,T,5] y) { y = Gather (features, ids) }"


def model(text: str) -> ModelProto:
    """Tables: after word i comes word i + 1 almost surely; five random features."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> agraph {text}')
    table = 30 * np.eye(VOCABULARY, dtype=np.float32)[(np.arange(VOCABULARY) + 1) % VOCABULARY]
    features = np.random.default_rng(0).standard_normal((VOCABULARY, 5)).astype(np.float32)
    for name, value in (("table", table), ("features", features)):
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    return proto


def made_of(text: str, count: int = 9, seconds: float = math.inf, seed: int = 0) -> tuple[NDArray[Any], Origin, str]:
    extent = Extent(count=count, steps=1, writing=seconds)
    made = synthesize(load(model(text)), extent, seed=seed, input_shapes={"ids": (1, LENGTH)})
    assert made.match is None and made.losses == ()
    return made.feeds["ids"], made.origin, made.note


def test_a_language_model_writes() -> None:
    ids, origin, note = made_of(NEXT, 60)
    assert (origin, note) == (Origin.GENERATED_TEXT, "")
    assert ids.shape == (60, LENGTH) and ids.dtype == np.int64
    assert (np.diff(ids, axis=1) % VOCABULARY == 1).all()
    assert len(set(ids[:, 0].tolist())) > 6  # first words are drawn at random
    np.testing.assert_array_equal(ids, made_of(NEXT, 60)[0])
    assert not np.array_equal(ids, made_of(NEXT, 60, seed=1)[0])


def test_words_follow_their_probabilities() -> None:
    proto = model(NEXT)
    table = np.zeros((VOCABULARY, VOCABULARY), np.float32)
    table[:, 3] = np.log(VOCABULARY - 1)  # word 3 follows in one of two cases
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    made = synthesize(load(proto), Extent(count=500, steps=1), input_shapes={"ids": (1, LENGTH)})
    assert abs(float((made.feeds["ids"][:, 1:] == 3).mean()) - 0.5) < 0.05


@pytest.mark.parametrize(("text", "says"), [(AHEAD, "uses later tokens"), (FEATURES, "")])
def test_random_words_for_other_models(text: str, says: str) -> None:
    ids, origin, note = made_of(text, 200)
    assert origin is Origin.SENTENCES
    assert says in note and bool(says) == bool(note)
    assert set(ids.ravel().tolist()) == set(range(VOCABULARY))


def test_no_text_where_that_would_take_too_long() -> None:
    ids, origin, note = made_of(NEXT, seconds=0.0)
    assert origin is Origin.SENTENCES and "seconds" in note
    assert not (np.diff(ids, axis=1) % VOCABULARY == 1).all()


def test_masks_and_segments() -> None:
    text = """(int64[N,T] ids, int64[N,T] mask, int64[N,T] segment, float[N,T] other) => (float[N,T,5] y) {
        u = Cast <to: int = 7> (ids) g = Gather (features, u) h = Gather (segments, segment) s = Add (g, h)
        c = Cast <to: int = 1> (mask) e = Unsqueeze (c, last) y = Mul (s, e) }"""
    proto = model(text.replace(", float[N,T] other", ""))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((2, 5), np.float32), "segments"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2]), "last"))
    made = synthesize(load(proto), Extent(count=20, steps=1))
    assert made.origin is Origin.SENTENCES
    assert (
        made.feeds["ids"].max() > 5
        and set(made.feeds["mask"].ravel().tolist()) == {0, 1}
        and (made.feeds["segment"] == 0).all()
    )
    with_floats = model(text)
    with_floats.graph.initializer.extend(proto.graph.initializer[2:])
    made = synthesize(load(with_floats), Extent(count=2, steps=1))
    assert made.origin is not Origin.SENTENCES  # an activation beside the words


def test_words_given_as_floats() -> None:
    text = """(float[N,7] codes) => (float[N,7,12] y) {
        c = Cast <to: int = 7> (codes) y = OneHot <axis: int = -1> (c, depth, values) }"""
    proto = model(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([12]), "depth"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, 1], np.float32), "values"))
    loaded = load(proto)
    assert inputs.index_limits(loaded.graph) == {"codes": 12}
    made = synthesize(loaded, Extent(count=40, steps=1))
    assert made.feeds["codes"].dtype == np.float32
    assert set(made.feeds["codes"].ravel().tolist()) <= set(range(12)) and made.feeds["codes"].max() == 11


def test_samples_of_words_are_trusted() -> None:
    found = synthetic_samples(load(model(NEXT)), Effort.BALANCED, 0, None)
    assert found.trusted and found.faithful and found.described == Origin.GENERATED_TEXT.text
    assert isinstance(found.fit[0]["ids"], np.ndarray) and found.fit[0]["ids"].dtype == np.int64


def test_texts_are_long_where_that_is_open_and_can_be() -> None:
    """Of short texts attention seems to do little. Where a table of positions ends sooner, texts are as usual."""
    assert synthesize(load(model(NEXT)), Extent(count=4, steps=1)).feeds["ids"].shape == (4, 64)
    positions = """(int64[N,T] ids) => (float[N,T,12] y) { g = Gather (table, ids) s = Shape (ids)
        t = Gather (s, one) r = Range (zero, t, one) p = Gather (places, r) y = Add (g, p) }"""
    proto = model(positions)
    for name, value in (("zero", np.int64(0)), ("one", np.int64(1)), ("places", np.zeros((20, 12), np.float32))):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    made = synthesize(load(proto), Extent(count=4, steps=1))
    assert made.origin is Origin.GENERATED_TEXT and made.feeds["ids"].shape == (4, OPEN_OTHER)
    assert made_of(NEXT)[0].shape == (9, LENGTH)  # a length that is given holds
