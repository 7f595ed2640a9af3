"""The generators of transformers: valid, alike in all styles, like what exporters write, written in little memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import transformer
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from tiny import ROOT, snapshot
from transformer import NETS, PRESETS, Activation, Config, Draw, Kind, Style, build, feeds, runs_batch
from transformer.weights import TILE, Drawn, Joined, Turned

from onnxfold.model.model import load
from onnxfold.model.shapes.nominal import OPEN_OTHER, concrete_shape
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Session

SAME_RTOL = 1e-5  # float32, the same sums by other kernels; measured 5e-7
WRONG = 1e-3  # what a mistake must show; measured 4e-3 and more
HALF_RTOL = 2e-2  # float16; measured 2e-3


def run(proto: ModelProto, given: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(x) for x in session.run(None, given)]


def first_output(config: Config, style: Style, draw: Draw = Draw(), samples: int = 2) -> NDArray[Any]:  # noqa: B008
    proto = build(config, style).model(draw)
    return run(proto, feeds(proto, config, samples))[0]


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
@pytest.mark.parametrize("net", NETS)
def test_valid_and_the_same_in_every_style(net: str, style: Style) -> None:
    config = NETS[net]
    proto = build(config, style).model()
    if any(node.op_type == "SimplifiedLayerNormalization" for node in proto.graph.node):
        with pytest.raises(onnx.checker.ValidationError, match="No Op registered for SimplifiedLayerNormalization"):
            onnx.checker.check_model(proto)  # onnxruntime keeps it in ONNX's own domain
    else:
        onnx.checker.check_model(proto, full_check=True)
    samples = runs_batch(config, style)
    y = run(proto, feeds(proto, config, samples))[0]
    assert y.std() > 0.1
    assert distance(y, first_output(config, Style.DECOMPOSED, samples=samples)) < SAME_RTOL


MISTAKES = {
    "rotary": ("llama3", {"rope_theta": 5000.0}),
    "activation": ("bert", {"activation": Activation.GELU_TANH}),
    "epsilon": ("llama2", {"epsilon": 1e-2}),
    "shared-heads": ("llama2", {"kv_heads": 2}),
    "experts": ("mixtral", {"experts_per_token": 1}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_show(mistake: str) -> None:
    net, change = MISTAKES[mistake]
    config = NETS[net]
    right = first_output(config, Style.DECOMPOSED)
    wrong = first_output(replace(config, **change), Style.FUSED)  # type: ignore[arg-type]
    assert distance(wrong, right) > (1e-5 if mistake == "activation" else WRONG)


@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
@pytest.mark.parametrize("net", ["llama2-cache", "llama3-cache"])
def test_words_one_by_one_are_words_at_once(net: str, style: Style) -> None:
    """What the cache is for."""
    config = NETS[net]
    proto = build(config, style).model()
    samples = runs_batch(config, style)
    given = feeds(proto, config, samples, length=7)
    whole = run(proto, given)[0]
    caches = [name for name in given if name.startswith("past")]
    for i in range(7):
        step = {name: value[:, i : i + 1] for name, value in given.items() if name not in caches}
        if "attention_mask" in step:
            step["attention_mask"] = given["attention_mask"][:, : i + 1]
        y, *present = run(proto, {**step, **{name: given[name] for name in caches}})
        given.update(zip(caches, present, strict=True))
        assert distance(y, whole[:, i : i + 1]) < SAME_RTOL
    assert given[caches[0]].shape == (samples, config.kv_heads, 7, config.head_dim)


@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
def test_probes_have_empty_caches(style: Style) -> None:
    """Random inputs that fit together: as many words in the mask as in the cache and behind it."""
    config = NETS["llama3-cache"]
    session = Session(build(config, style).model().SerializeToString())
    given = probe(session.inputs, batch=runs_batch(config, style))
    assert {value.shape[2] for name, value in given.items() if name.startswith("past")} == {0}
    outputs = dict(zip(session.outputs, session.run(given), strict=True))
    assert outputs["present.1.value"].shape[2] == given["input_ids"].shape[1]
    assert np.isfinite(outputs["logits"]).all()


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("N", 8, "past_sequence_length", 64), (2, 8, 0, 64)),
        (("N", "past_sequence_length + sequence_length"), (2, OPEN_OTHER)),
        (("N", "past_length+1"), (2, 1)),
        (("N", "total_sequence_length", None), (2, OPEN_OTHER, OPEN_OTHER)),
        (("past_batch", 3), (2, 3)),
    ],
)
def test_open_lengths_of_probes(dims: tuple[int | str | None, ...], shape: tuple[int, ...]) -> None:
    assert concrete_shape(dims, 2) == shape


@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
def test_probes_draw_all_words(style: Style) -> None:
    """Words up to the vocabulary and two segments, however the embedding is written."""
    limits = index_limits(load(build(NETS["bert"], style).model()).graph)
    assert (limits["input_ids"], limits["token_type_ids"]) == (53, 2)


COUNTS = Path(transformer.__file__).with_name("exported.txt").read_text(encoding="utf-8")
EXPORTED = [line.split() for line in COUNTS.splitlines() if line[0] != "#"]


@pytest.mark.parametrize("line", EXPORTED, ids=lambda line: f"{line[0]}-{line[1]}")
def test_as_many_nodes_of_every_type_as_exporters_write(line: list[str]) -> None:
    net, style, *counts = line
    found = Counter(node.op_type for node in build(NETS[net], Style(style)).nodes)
    assert found == {kind: int(count) for kind, count in (one.split(":") for one in counts)}


# weights -------------------------------------------------------------------------------------------------------------


def wide(drawn: Drawn, draw: Draw = Draw()) -> NDArray[np.float32]:  # noqa: B008
    return drawn.slab(0, drawn.size[0], 0, draw)


@pytest.mark.parametrize("kind", Kind, ids=lambda k: k.value)
def test_any_part_of_a_weight_is_the_same(kind: Kind) -> None:
    draw = Draw(kind)
    drawn = Drawn("w", (TILE + 30, 2 * TILE + 10), 0.5, 1.0, (True, True))
    whole = wide(drawn, draw)
    assert whole.shape == drawn.size
    np.testing.assert_array_equal(drawn.slab(20, TILE + 25, 0, draw), whole[20 : TILE + 25])
    np.testing.assert_array_equal(drawn.slab(TILE - 1, 2 * TILE + 7, 1, draw), whole[:, TILE - 1 : 2 * TILE + 7])
    np.testing.assert_allclose([whole.mean(), whole.std()], [1.0, 0.5], atol=0.05)
    assert (wide(Drawn("v", drawn.size), draw) != wide(Drawn("w", drawn.size), draw)).all()
    assert (wide(drawn, Draw(kind, seed=1)) != whole).any()


@pytest.mark.parametrize("axis", [0, 1])
def test_layouts(axis: int) -> None:
    draw, parts = Draw(), tuple(Drawn(name, (6, 4) if axis else (4, 6)) for name in "qkv")
    joined = Joined(parts, axis)
    whole = np.concatenate([wide(part) for part in parts], axis)
    assert joined.size == whole.shape and Turned(joined).size == whole.T.shape
    for along in (0, 1):
        for source, array in ((joined, whole), (Turned(joined), whole.T)):
            at = np.take(array, range(2, 6), along)
            np.testing.assert_array_equal(source.slab(2, 6, along, draw), at)


def test_alike_neurons_are_pairs() -> None:
    """Half of the columns repeat the others but for the noise; the rank is low but for the noise."""
    draw = Draw(Kind.ALIKE, rank=8, noise=0.1)
    whole = wide(Drawn("w", (200, 120), alike=(False, True)), draw)
    pairs = np.linalg.norm(whole[:, :60] - whole[:, 60:]) / np.linalg.norm(whole[:, 60:])
    assert 0.1 < pairs < 0.2  # sqrt(2) * 0.1
    others = np.linalg.norm(whole[:, :59] - whole[:, 1:60]) / np.linalg.norm(whole[:, 1:60])
    assert others > 1
    values = np.linalg.svd(whole, compute_uv=False)
    assert values[7] > 3 * values[8]


def test_alike_weights_are_alike_in_every_style() -> None:
    config = NETS["llama3"]
    draw = Draw(Kind.ALIKE, seed=3)
    right = first_output(config, Style.DECOMPOSED, draw)
    assert distance(first_output(config, Style.FUSED, draw), right) < SAME_RTOL
    assert distance(first_output(config, Style.FUSED, Draw(seed=3)), right) > WRONG


# files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
def test_what_is_written_is_valid_and_what_is_made(style: Style, dtype: str, tmp_path: Path) -> None:
    config = PRESETS["llama3-8b"].tiny()
    kind = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(dtype))
    network, path = build(config, style, kind), tmp_path / "net.onnx"
    network.write(path)
    if style is not Style.FUSED:  # as above
        onnx.checker.check_model(str(path), full_check=True)
    inside, outside = network.model(), onnx.load(path, load_external_data=False)
    places = [{e.key: e.value for e in t.external_data} for t in outside.graph.initializer]
    assert all(int(at["offset"]) % 4096 == 0 for at in places if at) and sum(map(bool, places)) > 10
    assert {at["location"] for at in places if at} == {"net.onnx.data"}
    found = onnx.load(path)
    assert [t.name for t in found.graph.initializer] == [t.name for t in inside.graph.initializer]
    for one, other in zip(found.graph.initializer, inside.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
    found.graph.ClearField("initializer")
    inside.graph.ClearField("initializer")
    assert found == inside


@pytest.mark.parametrize("net", ["vit", "bert", "gpt2", "llama3", "mixtral"])
@pytest.mark.parametrize("style", Style, ids=lambda s: s.value)
def test_float16_is_nearly_the_same(net: str, style: Style) -> None:
    config = NETS[net]
    proto = build(config, style, np.float16).model()
    samples = runs_batch(config, style)
    y = run(proto, feeds(proto, config, samples))[0]
    assert y.dtype == np.float16
    assert distance(y, first_output(config, Style.DECOMPOSED, samples=samples)) < HALF_RTOL


def test_a_large_network_is_written_in_little_memory(tmp_path: Path) -> None:
    """105 MB, of which the widest slab, 256 rows of the transposed output weight, is 4 MB in float32."""
    config = PRESETS["llama3-8b"].tiny(hidden=1024, heads=8, head_dim=128, mlp=4096, vocabulary=4096)
    network, path = build(config, Style.DECOMPOSED, np.float16), tmp_path / "net.onnx"
    tracemalloc.start()
    network.write(path, Draw(Kind.ALIKE))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = path.with_name("net.onnx.data").stat().st_size
    assert size > 60e6 and peak < 0.35 * size
    assert Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)["MatMul"] == 19


def test_the_command_writes_the_same_bytes_again(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "write_transformer.py"), "--family", "llama3-8b", "--tiny"]
    more = ["--style", "fused", "--dtype", "float16", "--mlp", "56"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        subprocess.run([*command, *more, str(tmp_path / folder / "net.onnx")], check=True, capture_output=True)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    found = {tuple(t.dims) for t in onnx.load(tmp_path / "one" / "net.onnx").graph.initializer}
    assert (32, 56) in found and (56, 32) in found
    wrong = subprocess.run([*command, "--heads", "5", str(tmp_path / "x.onnx")], capture_output=True, text=True)
    assert wrong.returncode == 2 and "multiple of kv_heads" in wrong.stderr


def test_real_sizes() -> None:
    """Parameters as published, without drawing them."""
    published = {"bert-base": 109e6, "gpt2": 124e6, "llama2-7b": 6.74e9, "llama3-8b": 8.03e9, "vit-b32": 88.2e6,
                 "mixtral-8x7b": 46.7e9}  # fmt: skip
    for name, count in published.items():
        network = build(PRESETS[name], Style.FUSED)
        learned = sum(np.prod(s.shape) for s in network.stored.values() if s.source is not None)
        assert learned == pytest.approx(count, rel=0.01), name
