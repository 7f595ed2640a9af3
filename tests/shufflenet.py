"""ShuffleNetV2 (Ma et al., ECCV 2018) as torchvision's exports have it: Split, Concat, and shuffles by Reshape and
Transpose, in every block."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDTHS = (24, 48, 96, 192, 1024)  # x0.5: the stem, three stages, the last convolution
REPEATS = (4, 8, 4)


class _Net:
    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(seed)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attrs: object) -> str:
        """The first output of a new node; a second one has "b" instead of "a" at its end."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name + "ab"[i] for i in range(outputs)], name=name, **attrs))
        return name + "a"

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights[name] = array
        return name

    def conv(self, x: str, before: int, after: int, size: int, stride: int = 1, group: int = 1) -> str:
        shape = (after, before // group, size, size)
        w = self.rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        b = self.rng.standard_normal(after) * 0.1
        return self.op(
            "Conv", x, self.constant(w.astype(np.float32)), self.constant(b.astype(np.float32)),
            kernel_shape=[size, size], strides=[stride] * 2, pads=[size // 2] * 4, group=group,
        )  # fmt: skip

    def branch(self, x: str, before: int, after: int, stride: int) -> str:
        x = self.op("Relu", self.conv(x, before, after, 1))
        x = self.conv(x, after, after, 3, stride, after)
        return self.op("Relu", self.conv(x, after, after, 1))

    def shuffle(self, x: str, channels: int, size: int) -> str:
        apart = self.constant(np.array([-1, 2, channels // 2, size, size], np.int64))
        together = self.constant(np.array([-1, channels, size, size], np.int64))
        x = self.op("Transpose", self.op("Reshape", x, apart), perm=[0, 2, 1, 3, 4])
        return self.op("Reshape", x, together)

    def block(self, x: str, channels: int, size: int) -> str:
        half = self.constant(np.array([channels // 2] * 2, np.int64))
        first = self.op("Split", x, half, outputs=2, axis=1)
        second = self.branch(first[:-1] + "b", channels // 2, channels // 2, 1)
        return self.shuffle(self.op("Concat", first, second, axis=1), channels, size)

    def first_block(self, x: str, before: int, after: int, size: int) -> str:
        """Halves the size: both branches see all channels."""
        left = self.op("Relu", self.conv(self.conv(x, before, before, 3, 2, before), before, after // 2, 1))
        right = self.branch(x, before, after // 2, 2)
        return self.shuffle(self.op("Concat", left, right, axis=1), after, size)


def shufflenet(
    widths: tuple[int, ...] = WIDTHS,
    repeats: tuple[int, ...] = REPEATS,
    size: int = 32,
    classes: int = 10,
    seed: int = 0,
) -> ModelProto:
    """The network for images of `size`, with random weights; 0.35 M parameters by default."""
    net = _Net(seed)
    x = net.op("Relu", net.conv("x", 3, widths[0], 3))
    now = size
    for before, after, times in zip(widths, widths[1:-1], repeats, strict=False):
        now //= 2
        x = net.first_block(x, before, after, now)
        for _ in range(times - 1):
            x = net.block(x, after, now)
    x = net.op("Relu", net.conv(x, widths[-2], widths[-1], 1))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    w = net.rng.standard_normal((classes, widths[-1])) / np.sqrt(widths[-1])
    net.op("Gemm", x, net.constant(w.astype(np.float32)), net.constant(np.zeros(classes, np.float32)), transB=1)
    net.nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        net.nodes, "shufflenet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(array, name) for name, array in net.weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
