"""How many inputs are expected to be made, and how long that is expected to take, by kind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from drawn_lines import reader
from onnx import ModelProto, parser
from tiny import MODELS

from onnxfold.calibration.samples import synthetic_samples
from onnxfold.calibration.synthetic.synthesize import Extent
from onnxfold.model.model import Model, load
from onnxfold.options.choices import Effort
from onnxfold.planning.making_time import longer, making

EXTENT = Extent(count=32, steps=16, pictures=80, photographs=48, writing=200.0)
FORWARD = 0.01


def graph(text: str, **weights: tuple[int, ...]) -> Model:
    proto: ModelProto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    rng = np.random.default_rng(0)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    )
    return load(proto)


def tokens(outputs: int) -> Model:
    text = f"(int64[N,8] ids) => (float[N,8,{outputs}] y) {{ e = Gather (table, ids) y = MatMul (e, w) }}"
    return graph(text, table=(200, 16), w=(16, outputs))


def convolutions(shape: str, count: int) -> Model:
    nodes = [f"a{i} = Conv (a{i - 1}, w{i}, b{i})" for i in range(1, count + 1)]
    nodes[0] = nodes[0].replace("a0", "x")
    weights = {f"w{i}": (4, 3 if i == 1 else 4, 3, 3) for i in range(1, count + 1)}
    weights |= {f"b{i}": (4,) for i in range(1, count + 1)}
    return graph(f"(float[N,{shape}] x) => (float[N,4,h,w] a{count}) {{ {' '.join(nodes)} }}", **weights)


@pytest.mark.parametrize(
    ("model", "seconds", "count"),
    [
        (tokens(4), (0.0, 0.0), 32),  # sentences
        (tokens(200), (100.0, 150.0), 32),  # a text, word by word
        (convolutions("3,64,64", 3), (1.0, 20.0), 48),  # crops
        (load(reader()), (1.0, 20.0), 48),  # lines
        (convolutions("3,64,64", 1), (0.0, 0.0), 80),  # pictures
        (convolutions("3,32,32", 3), (30.0, 40.0), 32),  # a descent: 32 samples, 16 steps of 6 passes
    ],
    ids=["sentences", "a-text", "crops", "lines", "pictures", "a-descent"],
)
def test_by_kind(model: Model, seconds: tuple[float, float], count: int) -> None:
    found = making(model, EXTENT, FORWARD, None)
    assert seconds[0] <= found.seconds <= seconds[1] and found.count == count and longer(model, None) == 1


def test_a_text_that_would_take_too_long_is_not_written() -> None:
    assert making(tokens(200), EXTENT, 10 * FORWARD, None).seconds == 0


def test_as_many_as_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.calibration.samples.synthetic_extent", lambda *_: EXTENT)
    for model in (tokens(4), convolutions("3,64,64", 3), load(reader()), load(MODELS / "digits_vgg.onnx")):
        made = synthetic_samples(model, Effort.BALANCED, 0, None)
        assert sum(len(next(iter(feeds.values()))) for feeds in made.fit) == making(model, EXTENT, FORWARD, None).count


def test_texts_of_open_length_are_longer_than_usual() -> None:
    text = "(int64[N,t] ids) => (float[N,t,4] y) { e = Gather (table, ids) y = MatMul (e, w) }"
    model = graph(text, table=(200, 16), w=(16, 4))
    feeds = synthetic_samples(model, Effort.BALANCED, 0, None).fit[0]
    assert feeds["ids"].shape[1] == 16 * longer(model, None) == 64
