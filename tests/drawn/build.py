"""From a recipe to a model: inputs, steps, and heads on the ends that are left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from helpers import as_constant_nodes, as_inputs
from onnx import ModelProto, TensorProto

from .builder import Builder, Numbers, Tensor, UnfitError
from .recipe import Recipe
from .steps import STEPS
from .steps.heads import head

MOST_ELEMENTS = 20_000  # of a tensor: graphs stay small


def build(recipe: Recipe) -> tuple[ModelProto, list[str]]:
    """The model, and the names of the steps in it."""
    g = Builder(recipe.opset, recipe.seed, "static" not in recipe.flags)
    SOURCES[recipe.source](g)
    done = []
    for step in recipe.steps:
        before = g.snapshot()
        try:
            STEPS[step.name](g, Numbers(step.numbers))
            if any(_size(tensor) > MOST_ELEMENTS for tensor in g.pool):
                raise UnfitError("too large")
        except UnfitError:
            g.restore(before)
        else:
            done.append(step.name)
    ends = list(_ends(g))
    for i, tensor in enumerate(ends):
        head(g, tensor, recipe.seed + i)
    return _finished(g, recipe), done


def image(g: Builder) -> None:
    """What networks for images begin with: a convolution."""
    x = g.input((3, 8, 8))
    g.put(g.op("Conv", x, g.weight(8, 3, 3, 3), g.bias(8), pads=[1, 1, 1, 1]))


def images(g: Builder) -> None:
    """Two inputs, two stems."""
    for _ in range(2):
        x = g.input((4, 6, 6))
        g.put(x.name)
        g.put(g.op("Conv", x, g.weight(6, 4, 1, 1), g.bias(6)))


def vector(g: Builder) -> None:
    """A vector, and a layer on it."""
    x = g.input((6,))
    g.put(x.name)
    g.put(g.op("Gemm", x, g.weight(12, 6), g.bias(12), transB=1))


def sequence(g: Builder) -> None:
    """Five places of eight features, channels last, and a layer on them."""
    x = g.input((5, 8))
    g.put(x.name, 2)
    g.put(g.op("Add", g.op("MatMul", x, g.weight(8, 8, reads=8)), g.bias(8)), 2)


def words(g: Builder) -> None:
    """Five words of a vocabulary of eleven, and their embedding."""
    x = g.input((5,), TensorProto.INT64)
    g.put(g.op("Gather", g.weight(11, 8, reads=1), x), 2)


SOURCES: dict[str, Callable[[Builder], None]] = {
    "image": image, "images": images, "vector": vector, "sequence": sequence, "words": words,
}  # fmt: skip


def _ends(g: Builder) -> Iterator[Tensor]:
    """Tensors that no node reads yet, the newest first."""
    used = {name for node in g.nodes for name in node.input}
    yield from (tensor for tensor in reversed(g.pool) if tensor.name not in used | set(g.inputs))


def _size(tensor: Tensor) -> int:
    size = 1
    for d in tensor.shape:
        size *= d
    return size


def _finished(g: Builder, recipe: Recipe) -> ModelProto:
    used = {name for node in g.nodes for name in node.input}
    for name in set(g.inputs) - used:
        del g.inputs[name]
    proto = g.model("shapes" in recipe.flags)
    floats = [name for name, tensor in g.weights.items() if tensor.data_type == TensorProto.FLOAT]
    if "constants" in recipe.flags:
        as_constant_nodes(proto, floats[::2])
    if "inputs" in recipe.flags:
        as_inputs(proto, floats[1::3])
    if "unnamed" in recipe.flags:
        for node in proto.graph.node:
            node.ClearField("name")
    return proto
