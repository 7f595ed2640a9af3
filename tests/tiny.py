"""A small network and what the tests of the edges do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, parser

import onnxfold
from onnxfold.cli import main as cli

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
SHARED = ROOT.parent / "shared" / "data" / "models"  # real networks, where they are
CASES = ROOT.parent / "shared" / "cases"  # small inputs that failed once, where they are

TEXT = """<ir_version: 8, opset_import: ["" : 17, "custom" : 1]> agraph (float[N,3,8,8] x) => (float[N,10] y) {
    a = Conv <kernel_shape: ints = [3,3]> (x, w1, b1)
    r = Relu (a)
    c = Conv <kernel_shape: ints = [3,3]> (r, w2, b2)
    s = Relu (c)
    p = GlobalAveragePool (s)
    f = Flatten (p)
    y = Gemm <transB: int = 1> (f, w3, b3)
}"""
SHAPES = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "w3": (10, 16), "b3": (10,)}


def reshaped_inside(path: Path, shape: Sequence[int]) -> ModelProto:
    """The model of a file with a Reshape to `shape` behind its first ReLU."""
    proto = onnx.load(path)
    first = next(n for n in proto.graph.node if n.op_type == "Relu")
    (there,), first.output[0] = list(first.output), "before"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "shape_inside"))
    reshape = onnx.helper.make_node("Reshape", ["before", "shape_inside"], [there])
    proto.graph.node.insert(list(proto.graph.node).index(first) + 1, reshape)
    return proto


def net(
    text: str = TEXT, shapes: Mapping[str, tuple[int, ...]] = SHAPES, dtype: Any = np.float32, seed: int = 0
) -> ModelProto:
    """A network with random weights; by default two convolutions of 16 channels and a linear layer."""
    proto = parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights(shapes, dtype, seed).items())
    return proto


def weights(shapes: Mapping[str, tuple[int, ...]], dtype: Any = np.float32, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {n: (rng.standard_normal(s) / np.sqrt(max(1, np.prod(s[1:])))).astype(dtype) for n, s in shapes.items()}


def write(path: Path, proto: ModelProto | None = None) -> Path:
    path.write_bytes((proto or net()).SerializeToString())
    return path


def write_external(path: Path, proto: ModelProto | None = None, data: str = "weights.bin") -> Path:
    """The model at `path`, all weights in `data` beside it."""
    onnx.save(
        proto or net(), path, save_as_external_data=True, all_tensors_to_one_file=True, location=data, size_threshold=0
    )
    return path


def edit(proto: ModelProto, change: Callable[[ModelProto], Any]) -> ModelProto:
    change(proto)
    return proto


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t, str(path.parent)) for t in onnx.load(path).graph.initializer}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """All files below `folder` with their contents; folders as None."""
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


FAST = ("--effort", "fast")
fold = partial(onnxfold.fold, effort="fast")
"""Folding from weights alone: the edges are the same, and no test waits for synthetic inputs."""


def with_and_without_repair(proto: ModelProto, **given: Any) -> tuple[dict[str, float], dict[str, Sequence[str]]]:
    """Errors and notes by recovery, "none" and "least-squares", of folding with samples; no weight changes its type."""
    errors, notes, kinds = {}, {}, {t.name: t.data_type for t in proto.graph.initializer}
    for recovery in ("none", "least-squares"):
        result = fold(proto, latency=False, method="fold", recovery=recovery, **given)
        check = result.report.check
        assert check is not None and check.passed and check.worst is not None
        errors[recovery], notes[recovery] = check.worst.relative_l2, check.notes
        assert {t.name: t.data_type for t in result.model.graph.initializer} == kinds
    return errors, notes


def main(arguments: Sequence[str]) -> int:
    """The command line with the same; `compare`, and what says otherwise, as they are."""
    if {"compare", "--effort"} & set(arguments):
        return cli.main([*arguments])
    command = 1 if [*arguments][:1] and str(arguments[0]).isalpha() else 0
    return cli.main([*arguments[:command], *FAST, *arguments[command:]])
