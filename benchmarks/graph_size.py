"""How the analysis grows with the graph: chains of residual blocks of 1,000 to 100,000 nodes.

    python benchmarks/graph_size.py [--nodes 1000,10000,100000]

For each size, CPU seconds of reading (with all shape inference), of the analysis and of pricing, and each per node as a
ratio to the smallest graph: 1 everywhere where all is linear. The channels are few, so that nodes are what takes time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs
from onnxfold.model.model import load

CHANNELS, SIDE, STAGE = 8, 4, 16  # blocks of a stage share one residual stream
T = TypeVar("T")


def chain(count: int, seed: int = 0) -> onnx.ModelProto:
    """About `count` nodes: Conv, Relu, Conv, Add, Relu, again and again; a Conv of its own begins each stage."""
    random = np.random.default_rng(seed)
    nodes, weights = list[onnx.NodeProto](), list[TensorProto]()

    def conv(x: str, name: str) -> str:
        weight = random.standard_normal((CHANNELS, CHANNELS, 1, 1)).astype(np.float32) / CHANNELS**0.5
        weights.append(numpy_helper.from_array(weight, f"{name}_w"))
        nodes.append(helper.make_node("Conv", [x, f"{name}_w"], [name], name=name))
        return name

    def other(op: str, inputs: list[str], name: str) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name))
        return name

    x = "x"
    for block in range(count // 5):
        if block % STAGE == 0:
            x = conv(x, f"stage{block}")
        inner = conv(other("Relu", [conv(x, f"a{block}")], f"r{block}"), f"b{block}")
        x = other("Relu", [other("Add", [inner, x], f"s{block}")], f"y{block}")
    conv(x, "y")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """(CPU seconds, what it gives)."""
    begin = time.process_time()
    found = call()
    return time.process_time() - begin, found


def measured(count: int) -> tuple[int, list[float]]:
    """(nodes, CPU seconds of reading, analysis and pricing)."""
    proto = chain(count)
    reading, model = timed(lambda: load(proto))
    analysis, found = timed(lambda: analyze(model))
    pricing, _ = timed(lambda: costs(model))
    assert len(found.groups) >= count // 5, "a group inside every block"
    return len(proto.graph.node), [reading, analysis, pricing]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1000,10000,100000", help="sizes, with commas between")
    sizes = [int(text) for text in parser.parse_args().nodes.split(",")]
    measured(sizes[0])  # whatever is imported or kept from the first time on
    first: list[float] = []
    print(f"{'nodes':>9}{'reading':>18}{'analysis':>18}{'pricing':>18}   s of CPU (per node, over that of the first)")
    for size in sizes:
        nodes, seconds = measured(size)
        each = [taken / nodes for taken in seconds]
        first = first or each
        shown = "".join(f"{s:>10.2f} ({a / b:4.2f}x)" for s, a, b in zip(seconds, each, first, strict=True))
        print(f"{nodes:>9,}{shown}", flush=True)


if __name__ == "__main__":
    main()
