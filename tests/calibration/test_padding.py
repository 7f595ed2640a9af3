"""Texts are cut to their own lengths where a mask hides what fills them up, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxfold
from onnxfold.calibration.judge import Judge
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.padding import mask_of, padded, without_padding
from onnxfold.calibration.samples import Samples, calibration_samples, save_samples
from onnxfold.model.model import load
from onnxfold.passes.distillation.block_targets import Counterparts
from onnxfold.passes.distillation.problem import pose
from onnxfold.passes.distillation.train import TrainSettings, refine
from onnxfold.runtime.session import SHORT, Session

Feeds = dict[str, NDArray[Any]]
VOCABULARY, WIDTH, LONGEST = 300, 16, 48
TEXT = """<ir_version: 8, opset_import: ["": 17]>
    g (int64[N,{T}] ids, int64[N,{T}] mask, int64[N,{T}] segments) => (float[N,{T},16] y) {{
    w = Gather(words, ids) e = Gather(kinds, segments) x = Add(w, e)
    q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) kt = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, kt)
    m = Cast<to = 1>(mask) off = Sub(m, one) far = Mul(off, {far}) axis = Constant<value_ints = [1]>()
    u = Unsqueeze(far, axis) s2 = Add(s, u) p = Softmax<axis = -1>(s2) a = MatMul(p, v) z = Add(x, a)
    h = MatMul(z, w1) r = Relu(h) y = MatMul(r, w2) }}"""
SHAPES = {
    "words": (VOCABULARY, WIDTH), "kinds": (2, WIDTH), **{name: (WIDTH, WIDTH) for name in ("wq", "wk", "wv")},
    "w1": (WIDTH, 64), "w2": (64, WIDTH),
}  # fmt: skip


def encoder(words: str = "T", hides: bool = True) -> onnx.ModelProto:
    """One layer of attention and one of an MLP; `hides`: whether the mask keeps what it hides from the words."""
    proto = onnx.parser.parse_model(TEXT.format(T=words, far="much" if hides else "nothing"))
    random = np.random.default_rng(0)
    values = {name: random.standard_normal(shape) / shape[0] ** 0.5 for name, shape in SHAPES.items()}
    values["words"] *= 8
    scalars = {"one": 1.0, "much": 1e5, "nothing": 0.0}
    for name, value in {**values, **scalars}.items():
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
    return proto


def texts(count: int = 48, fill: int = 0, seed: int = 0) -> Feeds:
    """Of 16, 32 or 48 words, filled up with the word `fill`."""
    random = np.random.default_rng(seed)
    lengths = random.choice((16, 32, LONGEST), count)
    lengths[:2] = 16, LONGEST
    mask = (np.arange(LONGEST) < lengths[:, None]).astype(np.int64)
    ids = random.integers(1, VOCABULARY, (count, LONGEST))
    return {"ids": np.where(mask, ids, fill), "mask": mask, "segments": 0 * ids}


def session(proto: onnx.ModelProto) -> Session:
    return Session(proto.SerializeToString())


def test_every_text_is_there_once_and_says_the_same() -> None:
    run, given = session(encoder()), texts()
    assert mask_of([given], run) == "mask"
    cut = without_padding([given], run.inputs, "mask", 4)
    assert all(feed["mask"].all() and len(feed["mask"]) <= 4 for feed in cut)
    assert {feed["mask"].shape[1] for feed in cut[: len(cut) // 2]} == {16, 32, 48}, "also of the first ones alone"
    found = {tuple(row): y for feed in cut for row, y in zip(feed["ids"], run.run(feed)[0], strict=True)}
    assert len(found) == len(given["ids"])
    for ids, mask, y in zip(given["ids"], given["mask"], run.run(given)[0], strict=True):
        assert np.allclose(found[tuple(ids[mask > 0])], y[mask > 0], rtol=1e-4, atol=1e-4)


def test_texts_of_about_one_length_stay_together() -> None:
    given = texts(4)
    given["mask"] = (np.arange(LONGEST) < np.array([[17], [30], [32], [48]])).astype(np.int64)
    cut = without_padding([given], session(encoder()).inputs, "mask", 16)
    assert [feed["mask"].shape for feed in cut] == [(3, 32), (1, 48)]


@pytest.mark.parametrize("why", ["fixed length", "does not hide", "nothing filled up", "no prefix", "no mask"])
def test_what_stays_as_it_is(why: str) -> None:
    proto = encoder(str(LONGEST) if why == "fixed length" else "T", why != "does not hide")
    given = texts()
    if why == "nothing filled up":
        given["mask"] = np.ones_like(given["mask"])
    if why == "no prefix":
        given["mask"] = given["mask"][:, ::-1].copy()
    if why == "no mask":
        given["mask"] = 2 * given["mask"]
    assert mask_of([given], session(proto)) == ""


def test_what_fills_up_decides_nothing() -> None:
    """Two sets of texts that differ only in what the mask hides give the same file."""
    found = [
        onnxfold.fold(encoder(), target_macs=0.7, calibration=texts(fill=fill), latency=False).model for fill in (0, 7)
    ]
    assert found[0].SerializeToString() == found[1].SerializeToString()


def test_texts_that_are_made_are_cut_too(tmp_path: Path) -> None:
    kept = tmp_path / "made.npz"
    report = onnxfold.fold(encoder(), target_macs=0.7, synthetic=kept, latency=False).report
    assert report.after is not None and report.after.macs < report.before.macs
    with np.load(kept) as made:
        assert {made[name].shape for name in ("ids", "mask", "segments")} == {made["ids"].shape}
        assert not made["mask"].all()


def test_saved_texts_are_of_one_length(tmp_path: Path) -> None:
    feeds = without_padding([texts()], session(encoder()).inputs, "mask", 16)
    save_samples(Samples(feeds, Judge(feeds, "", True), Origin.OWN, "", mask="mask"), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as saved:
        assert saved["ids"].shape == (48, LONGEST)
        assert sorted(saved["mask"].sum(1)) == sorted(texts()["mask"].sum(1))
    assert {x.shape[1] for feed in padded(feeds) for x in feed.values()} == {LONGEST}


def test_training_does_not_look_at_what_is_hidden() -> None:
    original, folded = load(encoder()), onnxfold.fold(encoder(), ratio=0.3, effort="fast", latency=False).model
    given = texts()
    shapes = {name: x.shape for name, x in given.items()}
    losses = []
    for mask in ("mask", ""):
        problem = pose(original, load(folded), shapes, Counterparts(), SHORT["cpu"], mask)
        losses.append([problem.evaluate(problem.start, texts(fill=fill))[0] for fill in (0, 7)])
    assert losses[0][0] == pytest.approx(losses[0][1], rel=1e-5)
    assert losses[1][0] != pytest.approx(losses[1][1], rel=1e-3)


def test_texts_of_all_lengths_are_trained_on() -> None:
    folded = onnxfold.fold(encoder(), ratio=0.3, effort="fast", latency=False).model
    samples = calibration_samples(load(encoder()), texts(), 48, None, None)
    assert samples.mask == "mask" and len({feed["ids"].shape[1] for feed in samples.fit}) == 3
    found = refine(load(encoder()), folded, samples, TrainSettings(60, 16))
    assert found.improved and found.after < 0.8 * found.before, found.note
