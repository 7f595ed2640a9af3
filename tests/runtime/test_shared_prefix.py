"""Versions of a model from where they differ: the same figures as from the beginning, with less run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attending import TWO_LAYERS
from helpers import model as make_model
from onnx import ModelProto
from tiny import MODELS, TEXT, net

from onnxfold.analysis.analyze import analyze
from onnxfold.evaluation.candidates import Evaluator
from onnxfold.folding.merge import Merge, pruning
from onnxfold.model.model import load
from onnxfold.planning.merger import Merger
from onnxfold.recovery.consumers import touched
from onnxfold.recovery.reconstruct import Changes, reconstruct
from onnxfold.runtime.segments import SegmentRunner
from onnxfold.runtime.session import Feeds, Session
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

NETS = ("digits_mlp", "digits_mobilenet", "digits_resnet_bn", "digits_resnet_fused", "digits_vgg")


def feeds(name: str) -> list[Feeds]:
    rng = np.random.default_rng(0)
    shape = (8, 64) if name.endswith("mlp") else (8, 1, 8, 8)
    return [{"image": rng.standard_normal(shape).astype(np.float32)} for _ in range(2)]


@pytest.mark.parametrize("name", NETS)
def test_what_begins_late_ends_the_same(name: str) -> None:
    model, data = load(MODELS / f"{name}.onnx"), feeds(name)
    work = Merger(model, analyze(model))
    prefix, evaluator = SharedPrefix(model, data), Evaluator(model, lambda _: data)
    for group in [*work.analysis.groups, work.analysis.groups[0]]:  # at last backwards
        merges = {group.name: work.merge(group.name, group.size // 2)}
        changed, results = touched(work.analysis, merges), list[ModelProto]()
        for given in (SharedPrefix(model, data), prefix):
            proto = work.emit(merges)
            reconstruct(given, work.analysis, Changes(merges), proto)
            results.append(proto)
        for a, b in zip(results[0].graph.initializer, results[1].graph.initializer, strict=True):
            one, other = (np.frombuffer(t.raw_data, np.uint8) for t in (a, b))
            assert a.name == b.name and np.array_equal(one, other)
        whole, late = evaluator.error(results[0]), evaluator.error(results[1], changed)
        assert 0 < whole == pytest.approx(late, rel=1e-4)


def test_nothing_runs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three versions that differ from the second convolution on: the first is run once."""
    model = load(net())
    data = [{"x": np.zeros((2, 3, 8, 8), np.float32)}]
    ran, original = list[tuple[int, int]](), SegmentRunner._session

    def watch(self: SegmentRunner, start: int, stop: int, after: Any) -> Any:
        ran.append((start, stop))
        return original(self, start, stop, after)

    monkeypatch.setattr(SegmentRunner, "_session", watch)
    prefix = SharedPrefix(model, data)
    for _ in range(3):
        before, now = prefix.begin(model.proto, {"w2"})
        assert before.position == now.position == 2
        now.advance(3)
    assert ran == [(0, 2), (2, 3), (2, 3), (2, 3)]


def test_nodes_that_differ_are_not_skipped() -> None:
    model = load(net())
    version = net(TEXT.replace("r = Relu (a)", "r = LeakyRelu (a)"))
    _, now = SharedPrefix(model, [{"x": np.ones((1, 3, 8, 8), np.float32)}]).begin(version, set())
    assert now.position == 1


def test_a_merge_touches_weights_and_activations() -> None:
    model = load(net())
    work = Merger(model, analyze(model))
    merges: dict[str, Merge] = {work.analysis.groups[0].name: work.merge(work.analysis.groups[0].name, 8)}
    assert {"w1", "b1", "a", "r", "w2"} <= touched(work.analysis, merges)
    assert not {"x", "w3", "y"} & touched(work.analysis, merges)


def test_a_list_that_is_made_late() -> None:
    """A layer keeps other heads than the one whose list of lengths it had shared: its own list reads a length again."""
    model = load(TWO_LAYERS.model("N"))
    analysis = analyze(model)
    second = analysis.groups[-1]
    merges = {second.name: pruning(np.arange(2), second.size)}
    proto = emit(model, edits(model, analysis, merges))
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((2, 5, 6)).astype(np.float32)} for _ in range(2)]
    prefix = SharedPrefix(model, data)
    for _ in range(2):
        _, walk = prefix.begin(proto, touched(analysis, merges))
        assert 0 < walk.position < len(proto.graph.node)
        found = walk.advance(len(proto.graph.node), ["y"])
        for feed, one in zip(data, found, strict=True):
            (expected,) = Session(proto.SerializeToString()).run(feed)
            assert np.allclose(one["y"], expected, atol=1e-5)


def test_a_count_of_channels_far_ahead_of_them() -> None:
    """TensorFlow's tensordot: the shape that the product gets is put together before the product."""
    text = """(float[N,5,6] x) => (float[N,5,4] y) {
        s = Shape (x) lead = Slice (s, zero, two) shape = Concat <axis = 0> (lead, width)
        t = Reshape (x, rows) m = MatMul (t, w) r = Reshape (m, shape) a = Relu (r) y = MatMul (a, v) }"""
    lengths = {"zero": [0], "two": [2], "width": [16], "rows": [-1, 6]}
    proto = make_model(text, {"w": (6, 16), "v": (16, 4)}, lengths)
    model = load(proto)
    data = [{"x": np.random.default_rng(0).standard_normal((8, 5, 6)).astype(np.float32)}]
    work = Merger(model, analyze(model))
    (group,) = work.analysis.groups
    merges = {group.name: work.merge(group.name, 8)}
    folded = work.emit(merges)
    (done,) = reconstruct(SharedPrefix(model, data), work.analysis, Changes(merges), folded)
    assert done.output == "y" and done.after <= done.before
    assert SharedPrefix(model, data).begin(folded, touched(work.analysis, merges))[0].position == 2
