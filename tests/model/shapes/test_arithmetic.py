"""Numbers that graphs compute of lengths: as onnxruntime computes them, and with the lengths that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from onnxfold.model.model import load
from onnxfold.model.shapes.arithmetic import ShapeValues
from onnxfold.runtime.session import Session

ONE, OTHER = (12, 7, 30), (20, 9, 48)  # lengths of the input of the random programs
END = 2**63 - 1


@dataclass
class Program:
    """A graph that computes lists from the shape of `x`; `lists` holds the names of what it has, with their sizes. What
    is `loose` is picked by a length, and may be unknown."""

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    lists: list[tuple[str, int]] = field(default_factory=list)
    loose: set[str] = field(default_factory=set)

    def constant(self, values: Sequence[int] | int, dtype: Any = np.int64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def op(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        if self.loose.intersection(inputs):
            self.loose.update(names)
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def take(self) -> tuple[str, int]:
        return self.lists[self.rng.integers(len(self.lists))]

    def pair(self) -> tuple[str, str, int]:
        """Two lists of one size."""
        name, size = self.take()
        others = [other for other, length in self.lists if length == size]
        return name, str(self.rng.choice(others)), size

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def model(self) -> ModelProto:
        outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [size]) for name, size in self.lists]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", "c"])
        graph = helper.make_graph(self.nodes, "program", [x], outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def joined(p: Program) -> tuple[str, int]:
    (a, n), (b, m) = p.take(), p.take()
    return p.op("Concat", a, b, axis=0)[0], n + m


def picked(p: Program) -> tuple[str, int]:
    name, size = p.take()
    places = [p.number(-size, size) for _ in range(p.number(1, 4))]
    return p.op("Gather", name, p.constant(places), axis=0)[0], len(places)


def cut(p: Program) -> tuple[str, int]:
    name, size = p.take()
    start, end, step = p.number(-size, size + 2), p.number(-size - 2, size + 2), int(p.rng.choice([-2, -1, 1, 2]))
    end = int(p.rng.choice([end, -END if step < 0 else END]))
    bounds = [p.constant([bound]) for bound in (start, end, 0, step)]
    left = len(range(size)[slice(start, None if step < 0 and end < -size else end, step)])
    return (p.op("Slice", name, *bounds)[0], left) if left else (name, size)


def turned(p: Program) -> tuple[str, int]:
    """As exporters turn pads around: [n] -> [n / 2, 2] -> [2, n / 2] -> [n]."""
    name, size = joined(p)
    name = p.op("Concat", name, name, axis=0)[0]
    table = p.op("Reshape", name, p.constant([-1, 2]))[0]
    return p.op("Reshape", p.op("Transpose", table, perm=[1, 0])[0], p.constant([-1]))[0], 2 * size


def arithmetic(p: Program) -> tuple[str, int]:
    a, b, size = p.pair()
    op = p.rng.choice(["Add", "Sub", "Mul", "Max", "Min"])
    return p.op(op, a, b)[0], size


def scaled(p: Program) -> tuple[str, int]:
    name, size = p.take()
    op = p.rng.choice(["Mul", "Div", "Mod", "Add", "Sub", "Max", "Min"])
    operands = [name, p.constant(p.number(1, 7))]
    if op in ("Mul", "Add", "Sub", "Max", "Min"):
        p.rng.shuffle(operands)
    return p.op(op, *operands)[0], size


def compared(p: Program) -> tuple[str, int]:
    a, b, size = p.pair()
    limit = p.constant(p.number(-2, 20))
    op = p.rng.choice(["Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"])
    return p.op("Where", p.op(op, a, limit)[0], b, p.constant(p.number(0, 9)))[0], size


def rounded(p: Program) -> tuple[str, int]:
    """ceil(length / stride) in floats."""
    name, size = p.take()
    kind = p.rng.choice([TensorProto.FLOAT, TensorProto.DOUBLE])
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float64
    real = p.op("Cast", name, to=int(kind))[0]
    real = p.op(p.rng.choice(["Div", "Mul"]), real, p.constant(p.rng.choice([0.5, 2, 3, 4]), dtype))[0]
    how = p.rng.choice(["Ceil", "Floor", "Round", "Cast"])
    real = p.op(how, real)[0] if how != "Cast" else real
    return p.op("Cast", real, to=TensorProto.INT64)[0], size


def unary(p: Program) -> tuple[str, int]:
    name, size = p.take()
    op = p.rng.choice(["Neg", "Abs", "Relu", "Identity", "Clip"])
    more = [p.constant(0)] if op == "Clip" else []
    return p.op(op, name, *more)[0], size


def filled(p: Program) -> tuple[str, int]:
    name, size = p.take()
    rank = p.op("Shape", name)[0]
    ones = p.op("ConstantOfShape", rank, value=numpy_helper.from_array(np.array([3]), "v"))[0]
    return p.op("Mul", p.op("Expand", p.constant([2]), rank)[0], ones)[0], size


def counted(p: Program) -> tuple[str, int]:
    name, size = p.take()
    rank = p.op("Squeeze", p.op("Shape", name)[0])[0]
    places = p.op("Range", p.constant(0), rank, p.constant(1))[0]
    return p.op("Add", name, places)[0], size


def tiled(p: Program) -> tuple[str, int]:
    name, size = p.take()
    return p.op("Tile", name, p.constant([2]))[0], 2 * size


def hot(p: Program) -> tuple[str, int]:
    """As torch writes the repeats of a repeat_interleave."""
    name, size = p.take()
    two, depth = p.op("Gather", name, p.constant([p.number(0, size), p.number(0, size)]), axis=0)[0], p.number(2, 6)
    found = p.op("OneHot", p.constant([p.number(-depth, depth + 1)]), p.constant(depth), two)[0]
    return p.op("Reshape", found, p.constant([-1]))[0], depth


def parted(p: Program) -> tuple[str, int]:
    name, size = joined(p)
    first = p.number(1, size)
    return p.op("Split", name, p.constant([first, size - first]), outputs=2, axis=0)[1], size - first


def added_up(p: Program) -> tuple[str, int]:
    name, _ = p.take()
    op = p.rng.choice(["ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin"])
    return p.op(op, name, keepdims=1)[0], 1


def placed(p: Program) -> tuple[str, int]:
    name, size = p.take()
    other, _ = p.take()
    value = p.op("Gather", other, p.constant([0]))[0]
    return p.op("ScatterND", name, p.constant([[p.number(0, size)]]), value)[0], size


def indexed(p: Program) -> tuple[str, int]:
    """Which one is picked depends on a length."""
    name, size = p.take()
    other, _ = p.take()
    first = p.op("Gather", other, p.constant([0]))[0]
    found = p.op("Gather", name, p.op("Mod", first, p.constant(size))[0])[0]
    p.loose.add(found)
    return found, 1


STEPS: Sequence[Callable[[Program], tuple[str, int]]] = [
    joined, picked, cut, turned, arithmetic, scaled, compared, rounded, unary, filled, counted, tiled, hot, parted,
    added_up, placed, indexed,
]  # fmt: skip


def program(seed: int) -> Program:
    p = Program(np.random.default_rng(seed))
    p.lists.append((p.op("Shape", "x")[0], 3))
    p.lists.append((p.op("Identity", p.constant([4, 2, 9]))[0], 3))
    for _ in range(10):
        name, size = STEPS[p.number(0, len(STEPS))](p)
        if size <= 12:
            p.lists.append((name, size))
    return p


def values(proto: ModelProto, shape: Sequence[int] | None) -> ShapeValues:
    loaded = load(proto, {"x": shape} if shape else None)
    return ShapeValues(loaded.graph, loaded.constants)


def ran(proto: ModelProto, shape: Sequence[int]) -> Mapping[str, Any]:
    session = Session(proto.SerializeToString())
    found = session.run({"x": np.zeros(shape, np.float32)})
    return dict(zip([o.name for o in proto.graph.output], found, strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed: int) -> None:
    """Numbers are right; one that comes of no length is the same whatever these are; what is `linear` is the product of
    its lengths, and so often as they are."""
    drawn = program(seed)
    proto = drawn.model()
    fixed, opened = values(proto, ONE), values(proto, None)
    one, other = ran(proto, ONE), ran(proto, OTHER)
    for name, right in one.items():
        if name in drawn.loose and (fixed.get(name) is None or opened.get(name) is None):
            continue
        known, free = fixed.need(name), opened.need(name)
        assert [v.number for v in known.ravel()] == right.ravel().tolist(), name
        for v, w, a, b in zip(known.ravel(), free.ravel(), right.ravel(), other[name].ravel(), strict=True):
            assert v.live or a == b, name
            assert w.number is None or w.number == a == b, name
            ratio = np.prod([OTHER[axis] / ONE[axis] for _, axis in v.sources])
            exact = all(length % v.unit == 0 for _, axis in v.sources for length in (ONE[axis], OTHER[axis]))
            assert not v.linear or not exact or b == round(a * ratio), name


def length(body: str) -> Any:
    """The first number of list `r` that `body` computes of x [12, 7, 30]."""
    header = '<ir_version: 8, opset_import: ["" : 18]> agraph (float[12,7,30] x) => (int64[K] r)'
    return values(parser.parse_model(f"{header} {{ s = Shape(x) {body} }}"), None).need("r").ravel()[0]


@pytest.mark.parametrize(
    "body",
    [
        "k = Constant<value_ints=[1]>() z = Constant<value_ints=[0]>() g = Gather(s, k) r = Add(g, z)",
        "k = Constant<value_ints=[1]>() g = Gather(s, k) r = Div(g, k)",
        "k = Constant<value_ints=[1]>() z = Constant<value_ints=[0]>() g = Gather(s, k) r = Max(z, g)",
        "k = Constant<value_ints=[1]>() g = Gather(s, k) r = Relu(g)",
        "k = Constant<value_ints=[1]>() g = Gather(s, k) f = Cast<to=1>(g) c = Ceil(f) r = Cast<to=7>(c)",
        "k = Constant<value_ints=[1]>() n = Constant<value_ints=[-1]>() g = Gather(s, k) e = Equal(g, n) "
        "r = Where(e, n, g)",
    ],
)
def test_what_leaves_a_length_as_it_is(body: str) -> None:
    found = length(body)
    assert (found.tensor, found.axis, found.number, found.linear) == ("x", 1, 7, True)


def test_half_of_a_length_in_floats_is_a_length() -> None:
    """As long as it is even: 12 / 2, but not 7 / 2."""
    text = """k = Constant<value_ints=[{}]>() g = Gather(s, k) f = Cast<to=1>(g) two = Constant<value_floats=[2.0]>()
    h = Div(f, two) q = Floor(h) r = Cast<to=7>(q)"""
    even, odd = length(text.format(0)), length(text.format(1))
    assert (even.number, even.linear, even.unit) == (6, True, 2)
    assert (odd.number, odd.linear) == (3, False)


def test_a_split_into_other_parts_than_it_has_outputs() -> None:
    """A broken model: what it makes is not known, and it is read all the same."""
    text = "agraph (float[2,6] x) => (int64[2] p) { s = Shape(x) p = Split(s, sizes) }"
    proto = parser.parse_model('<ir_version: 8, opset_import: ["": 17]>' + text)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 1]), "sizes"))
    loaded = load(proto)
    assert ShapeValues(loaded.graph, loaded.constants).get("p") is None
