"""Pictures of random shapes: what they share with photographs, and for which models they are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import parser

from onnxfold.calibration import samples
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import synthetic_samples
from onnxfold.calibration.synthetic import deep_inversion as inversion
from onnxfold.calibration.synthetic import problem
from onnxfold.calibration.synthetic.dead_leaves import leaves
from onnxfold.calibration.synthetic.image_ops import is_images, noise, roughness
from onnxfold.calibration.synthetic.synthesize import Extent, Synthetic, synthesize
from onnxfold.model.model import load
from onnxfold.options.choices import Effort
from onnxfold.runtime.session import Session

SHAPE = (64, 3, 32, 32)


def kurtosis(x: NDArray[np.float32]) -> float:
    """Of differences between neighbors: 3 for Gaussian noise of any spectrum, 10 and more for photographs."""
    steps = np.diff(x.astype(np.float64), axis=-1)
    return float(np.mean(steps**4) / np.mean(steps**2) ** 2)


def test_edges_and_even_areas() -> None:
    rng = np.random.default_rng(0)
    found, smooth = leaves(rng, SHAPE), noise(rng, SHAPE)
    assert kurtosis(found) > 10 > 4 > kurtosis(smooth)
    assert abs(found.mean()) < 1e-5 and abs(found.std() - 1) < 1e-5 and found.dtype == np.float32
    colors = np.corrcoef(found[:, 0].ravel(), found[:, 1].ravel())[0, 1]
    assert 0.7 < colors < 0.98  # channels alike, as in photographs, but not gray
    brightness = found.mean(axis=(1, 2, 3)).std()
    assert 0.2 < brightness < 0.8  # and some pictures lighter than others


def test_layouts_and_seeds() -> None:
    first = leaves(np.random.default_rng(3), (4, 3, 20, 28))
    assert first.shape == (4, 3, 20, 28)
    last = leaves(np.random.default_rng(3), (4, 20, 28, 3))
    assert np.array_equal(np.moveaxis(last, 3, 1), first)
    assert not np.array_equal(leaves(np.random.default_rng(4), (4, 3, 20, 28)), first)
    assert np.ptp(first, axis=0).min() > 0  # no two pictures alike anywhere


@pytest.mark.parametrize(
    ("shape", "fits"), [((1, 3, 32, 32), True), ((1, 28, 28, 1), True), ((1, 2, 32, 32), False), ((1, 64), False)]
)
def test_what_is_a_picture(shape: tuple[int, ...], fits: bool) -> None:
    assert is_images(shape) is fits


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no images have the shape \[4, 64\]"):
        leaves(np.random.default_rng(0), (4, 64))


@pytest.mark.parametrize(
    "text",
    [
        "(float[N,3,16,16] x) => (float[N,10] y) { f = Flatten (x) y = MatMul (f, w) }",  # classes and nothing else
        "(float[1,3,16,16] x) => (float[1,10,1] y) { f = Flatten (x) h = MatMul (f, w) y = Unsqueeze (h, two) }",
        "(float16[N,3,16,16] x) => (float16[N,10] y) { f = Flatten (x) g = Cast <to: int = 1> (f) h = MatMul (g, w) "
        "y = Cast <to: int = 10> (h) }",
    ],
)
def test_models_that_hold_nothing_of_their_data(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_PICTURES", 64)
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> agraph {text}')
    weight = np.random.default_rng(0).standard_normal((768, 10)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "two"))
    made = synthesize(load(proto), Extent(count=24, steps=3))
    assert made.origin is Origin.PICTURES and made.note == "" and made.match is None
    assert made.feeds["x"].shape == (24, 3, 16, 16)
    found = synthetic_samples(load(proto), Effort.BALANCED, 0, None)
    assert found.trusted and found.faithful and found.described == Origin.PICTURES.text
    for feed in found.fit[:2]:
        Session(proto.SerializeToString()).run(feed)


def normalized() -> onnx.ModelProto:
    """A convolution with BatchNormalization, which hold something of the data."""
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,32,32] x) => (float[N,8,30,30] y) {'
        " c = Conv (x, w) y = BatchNormalization (c, scale, shift, mean, spread) }"
    )
    rng = np.random.default_rng(0)
    values = {"w": rng.standard_normal((8, 3, 3, 3)) / 5, "scale": np.ones(8), "shift": np.zeros(8)}
    values |= {"mean": np.zeros(8), "spread": rng.uniform(0.5, 1.5, 8)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(x.astype(np.float32), n) for n, x in values.items())
    return proto


def fused() -> onnx.ModelProto:
    """Convolutions with biases, of which only a prior is known."""
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> agraph (float[N,3,32,32] x) => (float[N,8,26,26] y) {'
        " a = Conv (x, v, b) r = Relu (a) c = Conv (r, w, b) s = Relu (c) y = Conv (s, w, b) }"
    )
    rng = np.random.default_rng(0)
    values = {"v": rng.standard_normal((8, 3, 3, 3)), "w": rng.standard_normal((8, 8, 3, 3)), "b": np.ones(8)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(x.astype(np.float32), n) for n, x in values.items())
    return proto


def test_a_prior_leaves_pictures_as_rough_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = synthesize(load(fused()), Extent(count=16, steps=40))
    assert made.origin is Origin.CONV_PRIOR
    start = roughness(leaves(np.random.default_rng([0, 1]), (16, 3, 32, 32)), (2, 3))[0]

    def relative(found: Synthetic) -> float:
        x = found.feeds["x"]
        return roughness((x - x.mean()) / x.std(), (2, 3))[0] / start

    monkeypatch.setattr(problem, "PRIOR", replace(problem.PRIOR, smoothness=0.0))
    free = synthesize(load(fused()), Extent(count=16, steps=40))
    assert 0.8 < relative(made) < 1.2 < 2 < relative(free)


def test_descents_start_at_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images made from statistics have edges and even areas, which descents from noise do not find."""
    made = synthesize(load(normalized()), Extent(count=16, steps=20))
    assert made.origin is Origin.BN_STATISTICS
    monkeypatch.setattr(inversion.images, "is_images", lambda shape: False)
    smooth = synthesize(load(normalized()), Extent(count=16, steps=20))
    assert made.losses[-1] < made.losses[0] and smooth.losses[-1] < smooth.losses[0]
    found = kurtosis(made.feeds["x"]), kurtosis(smooth.feeds["x"])
    assert found[0] > 6 > 5 > found[1], found
