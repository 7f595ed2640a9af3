"""Crops of varied photographs: for which models, how many, and in which convention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser
from PIL import Image

from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import synthetic_extent, synthetic_samples
from onnxfold.calibration.synthetic import photographed as module
from onnxfold.calibration.synthetic.conventions import CONVENTIONS, Convention
from onnxfold.calibration.synthetic.photographed import photographed, shows_photographs, wants_crops
from onnxfold.calibration.synthetic.photographs import more_photographs, photographs, varied_photographs
from onnxfold.model.model import Model, load
from onnxfold.options.choices import Effort
from onnxfold.planning.sensitivity import RIDGE, RIDGE_OUT_OF_DOMAIN, Sensitivity
from onnxfold.runtime.session import Session


def network(shape: str = "N,3,64,64", convolutions: int = 3, between: str = "Relu") -> Model:
    """Convolutions with biases, and something between two of them."""
    lines, x = [], "x"
    for i in range(convolutions):
        lines.append(f"c{i} = Conv ({x}, w{i}, b{i}) a{i} = {between} (c{i})")
        x = f"a{i}"
    text = f'<ir_version: 8, opset_import: ["" : 17]> agraph (float[{shape}] x) => (float[N,8,h,w] {x}) {{ '
    proto = parser.parse_model(text + " ".join(lines) + " }")
    rng = np.random.default_rng(0)
    values = {f"w{i}": rng.standard_normal((8, 8 if i else 3, 3, 3)) / 6 for i in range(convolutions)}
    values |= {f"b{i}": np.ones(8) for i in range(convolutions)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items())
    return load(proto)


def with_statistics() -> Model:
    proto = onnx.ModelProto.FromString(network().proto.SerializeToString())
    last = proto.graph.node[-1].output[0]
    ones = [onnx.numpy_helper.from_array(np.ones(8, np.float32), n) for n in ("g", "s", "m", "v")]
    proto.graph.initializer.extend(ones)
    proto.graph.node.append(onnx.helper.make_node("BatchNormalization", [last, "g", "s", "m", "v"], ["normal"]))
    proto.graph.output[0].name = "normal"
    return load(proto)


def test_every_photograph_is_small_and_named_in_the_readme() -> None:
    from importlib.resources import files

    folder = files("onnxfold.calibration") / "photographs" / "varied"
    text = (folder / "README.md").read_text(encoding="utf-8")
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".jpg"))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and ".jpg" in line]
    assert names == sorted(row[0].removeprefix("| ") for row in rows) and len(names) == 52
    allowed = {"public domain", "CC0", "CC BY 1.0", "CC BY 2.0", "CC BY 3.0"}
    assert {row[2] for row in rows} <= allowed and all("https://" in row[3] for row in rows)
    for name in names:
        with (folder / name).open("rb") as file:
            assert max(Image.open(file).size) <= 320


def test_photographs_that_judge_are_not_among_them() -> None:
    everything = varied_photographs()
    assert len(everything) == 62 and everything[:10] == more_photographs()
    assert not any(a.shape == b.shape and np.array_equal(a, b) for a in everything for b in photographs())


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((1, 3, 64, 64), True), ((1, 224, 224, 3), True), ((1, 3, 64, 320), False),  # the last: a line of text
        ((1, 3, 32, 32), False), ((1, 3, 63, 80), False), ((1, 1, 64, 64), False),
    ],
)  # fmt: skip
def test_which_images_are_large_enough(shape: tuple[int, ...], wanted: bool) -> None:
    assert shows_photographs(shape) is wanted


def test_models_that_say_more_of_their_data_get_none() -> None:
    for model in (with_statistics(), network(convolutions=2), network("N,3,32,32")):
        specs = Session.of(model).inputs
        assert not wants_crops(model, specs, {}) and photographed(model, specs, 4, 0, {}) is None
    assert wants_crops(network(), Session.of(network()).inputs, {})


def test_the_same_for_a_seed_and_another_for_another() -> None:
    model = network()
    specs = Session.of(model).inputs
    one, again, other = (photographed(model, specs, 6, seed, {}) for seed in (1, 1, 2))
    assert one is not None and again is not None and other is not None
    assert one[0].shape == (6, 3, 64, 64) and one[0].dtype == np.float32 and not one[1]
    assert np.array_equal(one[0], again[0]) and not np.array_equal(one[0], other[0])


@pytest.mark.parametrize("wanted", CONVENTIONS, ids=lambda c: c.name)
def test_in_the_convention_that_the_model_wants(wanted: Convention, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "convention", lambda *_: wanted)
    found = photographed(network(), Session.of(network()).inputs, 16, 0, {})
    assert found is not None
    pixels = np.moveaxis(found[0], 1, 3)[..., :: -1 if wanted.reverse else 1] * wanted.deviation + wanted.mean
    assert pixels.min() >= -0.01 and pixels.max() <= 255.01 and 60 < pixels.mean() < 190


def test_samples_of_a_model_that_takes_one_at_a_time() -> None:
    """A batch of one inside, though the input says any number."""
    proto = onnx.ModelProto.FromString(network().proto.SerializeToString())
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 8, 62, 62]), "one"))
    proto.graph.node.insert(2, onnx.helper.make_node("Reshape", ["a0", "one"], ["shaped"]))
    proto.graph.node[3].input[0] = "shaped"
    model = load(proto)
    found = synthetic_samples(model, Effort.BALANCED, 0, None)
    assert found.origin is Origin.PHOTOGRAPHS and found.apart and {len(f["x"]) for f in found.fit} == {1}
    assert len(found.fit) == synthetic_extent(model, Effort.BALANCED, None).photographs


def test_selection_has_a_larger_ridge_on_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxfold import fold
    from onnxfold.planning import sampled

    seen, real = list[float](), sampled.measure_sensitivity

    def noted(*given: Any, **named: Any) -> Sensitivity:
        seen.append(named["ridge"])
        return real(*given, **named)

    monkeypatch.setattr(sampled, "measure_sensitivity", noted)
    images = np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)
    fold(network().proto, ratio=0.5, round_to=1, latency=False)
    fold(network().proto, ratio=0.5, round_to=1, latency=False, calibration={"x": images})
    assert seen == [RIDGE_OUT_OF_DOMAIN, RIDGE] and RIDGE_OUT_OF_DOMAIN > RIDGE
