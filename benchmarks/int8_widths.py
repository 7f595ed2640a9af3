"""What convolutions of different widths cost in floats and in INT8: why `--quantize` plans in blocks of channels.

    python benchmarks/int8_widths.py [--widths N ...] [--rounds 200]

Chains of eight convolutions with ReLU, one image, one thread, all versions of a kind run in turn: `3x3` and `1x1` go
from a fixed number of channels to the width and back, `depthwise` has the width between two of 1 x 1. Medians, as
shares of the latency in floats at the largest width. INT8 as the tool writes it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from latency import medians
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxfold
from onnxfold.runtime.session import Feeds, Session

DEPTH = 8
WIDTHS = (8, 12, 16, 24, 32, 40, 48, 56, 64)


@dataclass(frozen=True)
class Kind:
    """Convolutions of a `kernel` size on [1, `fixed`, side, side]: to a width and back; or `depthwise` ones of that
    width, between one of 1 x 1 to it and one back."""

    title: str
    kernel: int
    side: int
    fixed: int
    depthwise: bool = False

    def layers(self, width: int) -> list[tuple[tuple[int, int, int, int], int]]:
        """(shape of the weights, groups) of each."""
        if self.depthwise:
            ends = ((width, self.fixed, 1, 1), 1), ((self.fixed, width, 1, 1), 1)
            return [ends[0], *[((width, 1, self.kernel, self.kernel), width)] * DEPTH, ends[1]]
        there = (width, self.fixed, self.kernel, self.kernel), 1
        back = (self.fixed, width, self.kernel, self.kernel), 1
        return [there, back] * (DEPTH // 2)

    def chain(self, width: int) -> ModelProto:
        """The model, with a ReLU after each convolution."""
        rng = np.random.default_rng(0)
        nodes, weights, at = [], [], "x"
        for i, (shape, group) in enumerate(self.layers(width)):
            drawn = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            weights += [
                numpy_helper.from_array(drawn.astype(np.float32), f"w{i}"),
                numpy_helper.from_array(np.zeros(shape[0], np.float32), f"b{i}"),
            ]
            nodes += [
                helper.make_node("Conv", [at, f"w{i}", f"b{i}"], [f"c{i}"], pads=[shape[2] // 2] * 4, group=group),
                helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            ]
            at = f"r{i}"
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", self.fixed, self.side, self.side])
            for name in ("x", at)
        ]
        graph = helper.make_graph(nodes, self.title, ends[:1], ends[1:], weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


KINDS = (Kind("3x3", 3, 16, 32), Kind("1x1", 1, 28, 64), Kind("depthwise", 3, 28, 8, True))


def in_int8(model: ModelProto, shape: tuple[int, ...]) -> ModelProto:
    """What `--ratio 0 --quantize` makes of it."""
    inputs = np.random.default_rng(1).standard_normal((16, *shape[1:])).astype(np.float32)
    made = onnxfold.fold(model, ratio=0.0, quantize=True, calibration={"x": inputs}, latency=False).model
    assert isinstance(made, ModelProto)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--rounds", type=int, default=200)
    asked = parser.parse_args()
    print("| |" + "".join(f" {w} |" for w in asked.widths))
    print("|---|" + "---|" * len(asked.widths))
    for kind in KINDS:
        versions: list[tuple[Session, Feeds]] = []
        for width in asked.widths:
            model, shape = kind.chain(width), (1, kind.fixed, kind.side, kind.side)
            feeds = {"x": np.random.default_rng(2).standard_normal(shape).astype(np.float32)}
            for version in (model, in_int8(model, shape)):
                versions.append((Session(version.SerializeToString(), threads=1), feeds))
        found = medians(versions, asked.rounds)
        for title, times in (("floats", found[::2]), ("INT8", found[1::2])):
            print(f"| {kind.title}, {title} |" + "".join(f" {t / found[-2]:.2f} |" for t in times), flush=True)


if __name__ == "__main__":
    main()
