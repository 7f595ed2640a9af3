"""Both oracles on well-known architectures, and on the trained models of this repository.

The onnx package ships the architectures, with constants for weights; they get random ones here. The large ones become
narrower: how their layers are connected, and on what sides of images, is what is asked, and stays. ``pytest -m full``
runs them at their full width, and `.ci/run` does so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import folds, oracles_hold
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, version_converter
from shufflenet import shufflenet
from tiny import MODELS

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
TRAINED = sorted(MODELS.glob("*.onnx"))
TRAINED_GROUPS = {
    "digits_mlp": 2, "digits_mobilenet": 9, "digits_resnet_bn": 6, "digits_resnet_fused": 6, "digits_vgg": 5
}  # fmt: skip


CLASSES = 1000
NARROWER = 4

Refused = Sequence[tuple[str, int]]


def light(name: str, opset: int, seed: int = 0, narrower: int = 1) -> ModelProto:
    """A light model of the onnx package at `opset`, with random weights: He's for kernels, positive scales.

    It has so many times fewer channels, but for colors and classes.
    """
    path = LIGHT / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip(f"the installed onnx has no {path.name}")
    proto = onnx.load(str(path))
    if narrower > 1:
        narrow(proto, narrower)
    if opset != proto.opset_import[0].version:
        proto = version_converter.convert_version(proto, opset)
    given = {t.name: t for t in proto.graph.initializer}
    roles: dict[str, tuple[str, int]] = {}
    for node in reversed(proto.graph.node):
        for i, used in enumerate(node.input):  # an Unsqueeze passes on what its result is for
            roles[used] = roles[node.output[0]] if node.op_type == "Unsqueeze" else (node.op_type, i)
    rng = np.random.default_rng(seed)
    for node in [n for n in proto.graph.node if n.op_type == "ConstantOfShape"]:
        shape = numpy_helper.to_array(given[node.input[0]]).tolist()
        array = weight(roles[node.output[0]], shape, rng)
        proto.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        proto.graph.node.remove(node)
    for tensor in given.values():
        role = roles.get(tensor.name, ("", 0))
        if role[0] == "ConstantOfShape" or not role[0]:
            proto.graph.initializer.remove(tensor)
        elif tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(weight(role, tensor.dims, rng), tensor.name))
    left = {t.name for t in proto.graph.initializer}
    for value in [v for v in proto.graph.input if v.name in given and v.name not in left]:
        proto.graph.input.remove(value)
    if proto.ir_version < 4:
        listed = {v.name for v in proto.graph.input}
        for tensor in [t for t in proto.graph.initializer if t.name not in listed]:
            proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return proto


def narrow(proto: ModelProto, times: int) -> None:
    """Divides all widths by `times`: in the shapes of weights, and in those that are given as lists."""
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64:
            shape = [narrowed(n, times) for n in numpy_helper.to_array(tensor).tolist()]
            tensor.CopyFrom(numpy_helper.from_array(np.array(shape, np.int64), tensor.name))
        else:
            values = np.zeros([narrowed(n, times) for n in tensor.dims], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    held = {t.name: t for t in proto.graph.initializer}
    for value in [v for v in proto.graph.input if v.name in held]:  # files of old list weights among the inputs too
        tensor = held[value.name]
        value.CopyFrom(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def narrowed(length: int, times: int) -> int:
    """A width divided by `times`; sides of kernels and images, colors and classes as they are."""
    return length // times if length % 8 == 0 and length != CLASSES else length


def weight(role: tuple[str, int], shape: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Random values for a parameter, by the operator and the input it is for."""
    if role in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
        return rng.uniform(0.5, 1.5, tuple(shape)).astype(np.float32)
    values = rng.standard_normal(tuple(shape), np.float32)
    spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return values * np.float32(spread)


SOFTMAX, LRN = ("Softmax mixes this axis", 1000), ("LRN mixes this axis", 352)

OLDER, NEWER = 9, 13  # opsets
FIELDS = ("name", "opset", "groups", "channels", "refused")  # channels: at full width
SMALL_NETWORKS = [
    ("squeezenet", OLDER, 25, 2944, [SOFTMAX]),
    ("squeezenet", NEWER, 25, 2944, [SOFTMAX]),
    ("shufflenet", OLDER, 14, 1014, [SOFTMAX, ("its blocks would end up with different sizes", 136)]),
    ("shufflenet", NEWER, 14, 1014, [SOFTMAX, ("its blocks would end up with different sizes", 136)]),
    ("inception_v1", OLDER, 55, 7024, [SOFTMAX, ("LRN mixes this axis", 256)]),
    ("inception_v1", NEWER, 55, 7024, [SOFTMAX, ("LRN mixes this axis", 256)]),
]
LARGE_NETWORKS = [  # 7 to 144 million parameters
    ("inception_v2", NEWER, 69, 9952, [SOFTMAX]),
    ("resnet50", OLDER, 37, 11456, [SOFTMAX]),
    ("resnet50", NEWER, 37, 11456, [SOFTMAX]),
    ("densenet121", OLDER, 120, 10240, [("a graph output", 1000)]),
    ("densenet121", NEWER, 120, 10240, [("a graph output", 1000)]),
    ("bvlc_alexnet", NEWER, 5, 9216, [SOFTMAX, LRN]),
    ("zfnet512", NEWER, 5, 6656, [SOFTMAX, LRN]),
    ("vgg19", NEWER, 18, 13696, [SOFTMAX]),
]


@pytest.mark.parametrize(FIELDS, SMALL_NETWORKS)
def test_oracles(name: str, opset: int, groups: int, channels: int, refused: Refused) -> None:
    assert_oracles(light(name, opset), (groups, channels), refused)


@pytest.mark.slow
@pytest.mark.parametrize(FIELDS, LARGE_NETWORKS)
def test_oracles_on_narrow_networks(name: str, opset: int, groups: int, channels: int, refused: Refused) -> None:
    assert_oracles(light(name, opset, narrower=NARROWER), (groups, channels), refused, NARROWER)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize(FIELDS, LARGE_NETWORKS)  # 8 to 140 s; VGG-19: 5.3 GB
def test_oracles_at_full_width(name: str, opset: int, groups: int, channels: int, refused: Refused) -> None:
    assert_oracles(light(name, opset), (groups, channels), refused)


def assert_oracles(proto: ModelProto, sizes: tuple[int, int], refused: Refused, narrower: int = 1) -> None:
    """Both oracles hold, and what they find has the expected sizes, in a network `narrower` by this factor."""
    found = oracles_hold(proto)
    assert (len(found.groups), narrower * sum(g.size for g in found.groups)) == sizes
    kept = [(r.kind, r.channels * (1 if r.channels == CLASSES else narrower)) for r in found.refusals if r.channels]
    assert sorted(kept) == sorted(refused)


def test_shuffles_of_halves() -> None:
    """ShuffleNetV2: every shuffle can be followed in two ways, and what one block takes decides others."""
    found = oracles_hold(shufflenet())
    assert (len(found.groups), sum(g.size for g in found.groups)) == (30, 2077)
    assert [(r.kind, r.channels) for r in found.refusals if r.channels] == [("a graph output", 10)]


@pytest.mark.slow
def test_resnet50_is_followed_but_for_its_classes() -> None:
    """Every Sum of a residual stage is one group with all that it joins: 4 stages and the stem, 32 inner layers."""
    found = analyze(load(light("resnet50", 13)))
    assert sum(r.channels for r in found.refusals) == 1000
    sizes = sorted((g.size for g in found.groups if len(g.producers) > 1), reverse=True)
    assert sizes == [2048, 1024, 512, 256]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_folding_runs(name: str) -> None:
    folds(light(name, 13), alone=False)


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_oracles_on_trained_models(path: Path) -> None:
    proto = onnx.load(str(path))
    found = oracles_hold(proto)
    assert len(found.groups) == TRAINED_GROUPS[path.stem]
    assert [r.kind for r in found.refusals] == ["a graph output"]
    folds(proto)
