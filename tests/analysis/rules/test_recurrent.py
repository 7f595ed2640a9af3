"""LSTM, GRU and RNN."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import (
    Case,
    as_constant_nodes,
    assert_holds,
    attribute,
    by_name,
    constant,
    fold_by,
    folds,
    keep_first,
    model,
    oracles_hold,
)

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.groups import Role
from onnxfold.model.model import load

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
H = 8


def sizes(op: str, suffix: str = "", inputs: int = 3, dirs: int = 1, hidden: int = H) -> dict[str, tuple[int, ...]]:
    """Shapes of W, R and B."""
    gates = GATES[op]
    return {
        f"w{suffix}": (dirs, gates * hidden, inputs),
        f"r{suffix}": (dirs, gates * hidden, hidden),
        f"b{suffix}": (dirs, 2 * gates * hidden),
    }


def layer(name: str, op: str, body: str, attrs: str = "", dirs: int = 1, **more: object) -> Case:
    """A recurrent layer of 8 units over x [7,N,3], called with ``{args}``, and `body` from its outputs to y.

    s has [7,N,8] per direction.
    """
    extra = more.pop("weights", {})
    weights = {**sizes(op, dirs=dirs), "v": (H * dirs, 5), **extra}  # type: ignore[dict-item]
    text = f"(float[7,N,3] x) => (float y) {{ {body} }}".replace("OP", f"{op}<hidden_size={H}{attrs}>")
    return Case(name, text, weights, more.pop("groups", (H,)), **more)  # type: ignore[arg-type]


READ = "s = Squeeze(o, one) y = MatMul(s, v)"
ONE = {"one": [1], "zero": [0]}
LAST = "o, last = OP(x, w, r, b) s = Squeeze(last, zero) y = MatMul(s, v)"
BOTH = "t = Transpose<perm=[0,2,1,3]>(o) s = Reshape(t, join) y = MatMul(s, v)"
JOIN = {**ONE, "join": [0, 0, -1]}
BIDIRECTIONAL = ', direction="bidirectional"'
OPS = tuple(GATES)

CASES = [
    *(layer(op, op, f"o = OP(x, w, r, b) {READ}", values=ONE) for op in OPS),
    *(layer(f"{op}-opset7", op, "o = OP(x, w, r, b) s = Squeeze<axes=[1]>(o) y = MatMul(s, v)", opset=7) for op in OPS),
    *(layer(f"{op}-opset22", op, f"o = OP(x, w, r, b) {READ}", values=ONE, opset=22) for op in OPS),
    *(layer(f"{op}-no-bias", op, f"o = OP(x, w, r) {READ}", values=ONE) for op in OPS),
    *(layer(f"{op}-last-state", op, LAST, values=ONE) for op in OPS),
    *(layer(f"{op}-reverse", op, f"o = OP(x, w, r, b) {READ}", ', direction="reverse"', values=ONE) for op in OPS),
    *(layer(f"{op}-bidirectional", op, f"o = OP(x, w, r, b) {BOTH}", BIDIRECTIONAL, 2, values=JOIN, groups=(2 * H,))
      for op in OPS),
    layer("LSTM-bidirectional-last-state", "LSTM", """o, h, c = OP(x, w, r, b) t = Transpose<perm=[1,0,2]>(h)
        s = Reshape(t, flat) y = MatMul(s, v)""", BIDIRECTIONAL, 2, values={"flat": [-1, 2 * H]}, groups=(2 * H,)),
    layer("GRU-bidirectional-all-outputs", "GRU", """o, h = OP(x, w, r, b) t = Transpose<perm=[0,2,1,3]>(o)
        s = Reshape(t, join) k = Transpose<perm=[1,0,2]>(h) l = Reshape(k, flat) e = Add(s, l) y = MatMul(e, v)""",
          BIDIRECTIONAL, 2, values={"join": [0, 0, -1], "flat": [0, -1]}, groups=(2 * H,)),
    layer("LSTM-bidirectional-zeros", "LSTM", f"""d = Shape<start=1, end=2>(x) t0 = Concat<axis=0>(two, d, units)
        h = ConstantOfShape(t0) e = Expand(half, t0) o = OP(x, w, r, b, , h, e) {BOTH}""", BIDIRECTIONAL, 2,
          values={**JOIN, "two": [2], "units": [H], "half": 0.5}, groups=(2 * H,)),
    Case("GRU-bidirectional-constant-state", f"""(float[7,2,3] x) => (float y) {{
        o = GRU<hidden_size=8, direction="bidirectional">(x, w, r, b, , h) {BOTH} }}""",
         {**sizes("GRU", dirs=2), "h": (2, 2, H), "v": (2 * H, 5)}, (2 * H,), {"join": [0, 0, -1]}),
    layer("LSTM-bidirectional-peepholes", "LSTM", f"o = OP(x, w, r, b, , , , p) {BOTH}", BIDIRECTIONAL, 2, values=JOIN,
          weights={"p": (2, 3 * H)}, groups=(2 * H,)),
    layer("RNN-bidirectional-through-tanh", "RNN", """o = OP(x, w, r, b) t = Transpose<perm=[0,2,1,3]>(o) a = Tanh(t)
        s = Reshape(a, join) y = MatMul(s, v)""", BIDIRECTIONAL, 2, values=JOIN, groups=(2 * H,)),
    layer("RNN-bidirectional-state-handed-on", "RNN", f"""m, h = OP(x, w, r, b) o = OP(x, w2, r2, b2, , h) {BOTH}""",
          BIDIRECTIONAL, 2, values=JOIN, weights=sizes("RNN", "2", dirs=2), groups=(2 * H,)),
    *(layer(f"GRU-bidirectional-{name}", "GRU", f"{body} y = MatMul(s, v)", BIDIRECTIONAL, 2, values=values, opset=o,
            groups=(2 * H,))
      for name, o, body, values in (
          ("states-picked", 17, "o, h = OP(x, w, r, b) f = Gather<axis=0>(h, i) g = Gather<axis=0>(h, j) "
           "s = Concat<axis=1>(f, g)", {"i": -2, "j": -1}),
          ("backward-first", 17, "o, h = OP(x, w, r, b) f = Gather<axis=0>(h, i) g = Gather<axis=0>(h, j) "
           "k = Tanh(g) s = Concat<axis=-1>(f, k)", {"i": 1, "j": 0}),
          ("split", 17, "o = OP(x, w, r, b) f, g = Split<axis=1>(o) k = Squeeze(f, one) l = Squeeze(g, one) "
           "s = Concat<axis=2>(k, l)", {"one": [1]}),
          ("split-opset12", 12, "o = OP(x, w, r, b) f, g = Split<axis=1>(o) j = Concat<axis=3>(f, g) "
           "s = Squeeze<axes=[1]>(j)", {}),
          ("sliced", 17, "o = OP(x, w, r, b) f = Slice(o, zero, one, one) g = Slice(o, one, two, one) "
           "t = Transpose<perm=[1,0,2,3]>(f) k = Squeeze(t, zero) l = Squeeze(g, one) s = Concat<axis=2>(k, l)",
           {"zero": [0], "one": [1], "two": [2]}))),
    layer("LSTM-bidirectional-states-of-two-layers", "LSTM", """o, h, c = OP(x, w, r, b)
        t = Transpose<perm=[0,2,1,3]>(o) m = Reshape(t, join) p, h2, d = OP(m, w2, r2, b2)
        e = Concat<axis=0>(h, h2) f = Gather<axis=0>(e, i) g = Gather<axis=0>(e, j) s = Concat<axis=1>(f, g)
        y = MatMul(s, v)""", BIDIRECTIONAL, 2, values={"join": [0, 0, -1], "i": 2, "j": 3}, groups=(2 * H,),
          weights=sizes("LSTM", "2", 2 * H, 2)),
    *(layer(f"LSTM-bidirectional-{name}", "LSTM", body, BIDIRECTIONAL, 2, values=values, weights={"v": (H, 5)})
      for name, body, values in (
          ("sum", "o = OP(x, w, r, b) s = ReduceSum<keepdims=0>(o, one) y = MatMul(s, v)", ONE),
          ("one-beside-a-sum", """o = OP(x, w, r, b) f, g = Split<axis=1>(o) a = Add(f, g) j = Concat<axis=3>(a, f)
                s = Squeeze(j, one) y = MatMul(s, k0)""", {**ONE, "k0": np.ones((2 * H, 5), np.float32)}),
          ("one-picked", "o = OP(x, w, r, b) s = Gather<axis=1>(o, pick) y = MatMul(s, v)", {"pick": 1}),
          ("seen-twice", """o = OP(x, w, r, b) t = Transpose<perm=[0,2,1,3]>(o) s = Reshape(t, join)
                k = MatMul(s, k0) g = Gather<axis=1>(o, pick) z = MatMul(g, v) y = Add(k, z)""",
           {"pick": 0, "join": [0, 0, -1], "k0": np.ones((2 * H, 5), np.float32)}))),
    *(Case(f"{op}-lengths", f"""(float[7,2,3] x) => (float y) {{
        l = Cast<to=6>(lengths) o = {op}<hidden_size={H}>(x, w, r, b, l) {READ} }}""",
        {**sizes(op), "v": (H, 5)}, (H,), {**ONE, "lengths": [4, 7]}) for op in OPS),
    layer("GRU-linear-before-reset", "GRU", f"o = OP(x, w, r, b) {READ}", ", linear_before_reset=1", values=ONE),
    layer("GRU-clip", "GRU", f"o = OP(x, w, r, b) {READ}", ", clip=0.3", values=ONE),
    layer("GRU-activations", "GRU", f"o = OP(x, w, r, b) {READ}",
          ', activations=["HardSigmoid", "LeakyRelu"], activation_alpha=[0.3, 0.1], activation_beta=[0.4]', values=ONE),
    layer("RNN-relu", "RNN", f"o = OP(x, w, r, b) {READ}", ', activations=["Relu"]', values=ONE),
    layer("LSTM-peepholes", "LSTM", f"o = OP(x, w, r, b, , , , p) {READ}", values=ONE, weights={"p": (1, 3 * H)}),
    layer("LSTM-input-forget", "LSTM", f"o = OP(x, w, r, b) {READ}", ", input_forget=1", values=ONE),
    layer("LSTM-cell-state-read", "LSTM", """o, h, c = OP(x, w, r, b) t = Squeeze(o, one) s = Add(t, c)
        y = MatMul(s, v)""", values=ONE),
    layer("LSTM-residual", "LSTM", """e = MatMul(x, k) o = OP(e, w, r, b) t = Squeeze(o, one) s = Add(t, e)
        y = MatMul(s, v)""", values=ONE, weights={"k": (3, H), "w": (1, 4 * H, H)}),
    layer("LSTM-reads-channels", "LSTM", f"e = MatMul(x, k) a = Relu(e) o = OP(a, w, r, b) {READ}", groups=(6, H),
          values=ONE, weights={"k": (3, 6), "w": (1, 4 * H, 6)}),
    layer("GRU-stacked", "GRU", """m = OP(x, w, r, b) t = Squeeze(m, one)
        o = GRU<hidden_size=6>(t, w2, r2, b2) s = Squeeze(o, one) y = MatMul(s, v)""", groups=(H, 6), values=ONE,
          weights={**sizes("GRU", "2", H, 1, 6), "v": (6, 5)}),
    layer("LSTM-stacked-bidirectional", "LSTM", """m = OP(x, w, r, b) t = Transpose<perm=[0,2,1,3]>(m)
        e = Reshape(t, join) o = LSTM<hidden_size=6>(e, w2, r2, b2) s = Squeeze(o, one) y = MatMul(s, v)""",
          BIDIRECTIONAL, 2, groups=(2 * H, 6), values=JOIN, weights={**sizes("LSTM", "2", 2 * H, 1, 6), "v": (6, 5)}),
    layer("GRU-one-layer-twice", "GRU", """m = OP(x, w, r, b) t = Squeeze(m, one) e = MatMul(t, k)
        o = OP(e, w, r, b) s = Squeeze(o, one) y = MatMul(s, v)""", values=ONE, weights={"k": (H, 3)}),
    layer("RNN-state-handed-on", "RNN", """m, h = OP(x, w, r, b) o = OP(x, w2, r2, b2, , h) t = Squeeze(o, one)
        y = MatMul(t, v)""", values=ONE, weights=sizes("RNN", "2")),
    Case("LSTM-constant-states", f"""(float[7,2,3] x) => (float y) {{
        o = LSTM<hidden_size=8>(x, w, r, b, , h, c) {READ} }}""",
         {**sizes("LSTM"), "h": (1, 2, H), "c": (1, 2, H), "v": (H, 5)}, (H,), ONE),
    layer("LSTM-states-of-zeros", "LSTM", f"""d = Shape<start=1, end=2>(x) t = Concat<axis=0>(one, d, units)
        h = ConstantOfShape(t) o = OP(x, w, r, b, , h, h) {READ}""", values={**ONE, "units": [H]}),
    layer("RNN-states-cast-and-zeros", "RNN", f"""d = Shape<start=1, end=2>(x) e = Cast<to=6>(d) i = Cast<to=6>(one)
        u = Cast<to=6>(units) k = Concat<axis=0>(i, e, u) t = Cast<to=7>(k) h = ConstantOfShape(t)
        o = OP(x, w, r, b, , h) {READ}""", values={**ONE, "units": [H]}),
    layer("GRU-one-list-for-two-states", "GRU", """d = Shape<start=1, end=2>(x) t = Concat<axis=0>(one, d, units)
        h = ConstantOfShape(t) h2 = Expand(half, t) m = OP(x, w, r, b, , h) n = OP(x, w2, r2, b2, , h2)
        s = Squeeze(m, one) s2 = Squeeze(n, one) f = MatMul(s, v) f2 = MatMul(s2, v2) y = Add(f, f2)""",
          groups=(H, H), values={**ONE, "units": [H], "half": 0.5}, weights={**sizes("GRU", "2"), "v2": (H, 5)}),
    layer("GRU-states-expanded", "GRU", f"""d = Shape<start=1, end=2>(x) t = Concat<axis=0>(one, d, units)
        h = Expand(half, t) o = OP(x, w, r, b, , h) {READ}""", values={**ONE, "units": [H], "half": 0.5}),
    layer("LSTM-states-of-a-branch", "LSTM", f"""m = ReduceMean<axes=[0]>(x) h = MatMul(m, k)
        o = OP(x, w, r, b, , h, h) {READ}""", values=ONE, weights={"k": (3, H)}),
    Case("LSTM-one-unit", """(float[7,N,3] x) => (float y) {
        o = LSTM<hidden_size=1>(x, w, r, b) s = Squeeze(o, one) g = MatMul(s, k) a = Tanh(g) y = MatMul(a, v) }""",
         {**sizes("LSTM", hidden=1), "k": (1, 6), "v": (6, 5)}, (6,), ONE),
]  # fmt: skip
case = by_name(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, batch: str | int) -> None:
    assert_holds(case, batch)


def test_a_recurrent_weight_makes_units_and_reads_them() -> None:
    (group,) = analyze(load(case("GRU").model())).groups
    roles = {(p.tensor, p.axis): p.role for p in group.parameters}
    assert roles == {
        ("w", 1): Role.PRODUCES, ("r", 1): Role.PRODUCES, ("b", 1): Role.PRODUCES, ("r", 2): Role.CONSUMES, ("v", 0):
        Role.CONSUMES,
    }  # fmt: skip


def test_gates_are_cut_alike_and_hidden_size_is_recounted() -> None:
    before = case("LSTM").model()
    after = keep_first(5, before)
    units = [gate * H + unit for gate in range(4) for unit in range(5)]
    np.testing.assert_array_equal(constant(after, "w"), constant(before, "w")[:, units])
    np.testing.assert_array_equal(constant(after, "r"), constant(before, "r")[:, units][:, :, :5])
    np.testing.assert_array_equal(constant(after, "b"), constant(before, "b")[:, [*units, *(4 * H + u for u in units)]])
    assert attribute(after, "LSTM", "hidden_size") == 5


def test_what_a_merged_unit_reads_of_the_state_is_summed() -> None:
    before = case("RNN").model()
    after = fold_by({"RNN#0": [0, 0, 1, 2, 3, 4, 5, 6]}, before)
    r = constant(before, "r")[0]
    rows = np.concatenate([r[:2].mean(axis=0, keepdims=True), r[2:]])
    summed = np.concatenate([rows[:, :2].sum(axis=1, keepdims=True), rows[:, 2:]], axis=1)
    np.testing.assert_allclose(constant(after, "r")[0], summed, rtol=1e-5)


def test_states_from_outside_keep_the_units(batch: str | int) -> None:
    text = f"(float[7,N,3] x, float[1,N,8] h) => (float y) {{ o = GRU<hidden_size=8>(x, w, r, b, , h) {READ} }}"
    found = oracles_hold(model(text, {**sizes("GRU"), "v": (H, 5)}, ONE, batch=batch), groups=[])
    assert "a graph input" in [r.kind for r in found.refusals]


def test_a_recurrent_weight_from_outside_keeps_the_units() -> None:
    text = f"(float[7,N,3] x, float[1,8,8] r) => (float y) {{ o = RNN<hidden_size=8>(x, w, r, b) {READ} }}"
    weights = {**sizes("RNN"), "v": (H, 5)}
    del weights["r"]
    found = oracles_hold(model(text, weights, ONE), groups=[])
    assert "a graph input" in [r.kind for r in found.refusals]


def test_parameters_that_contradict_each_other_are_refused() -> None:
    text = f"(float[7,N,3] x) => (float[7,N,5] y) {{ e = MatMul(x, k) o = GRU<hidden_size=8>(e, w, r, b) {READ} }}"
    found = analyze(load(model(text, {**sizes("GRU"), "b": (1, 40), "k": (3, 3), "v": (H, 5)}, ONE)))
    assert not found.groups
    assert "GRU has parameters that do not match each other" in [r.kind for r in found.refusals]


@pytest.mark.parametrize("op", OPS)
def test_batch_first(op: str) -> None:
    """onnxruntime runs no such model (layout=1): the analysis alone is tested, and that shapes still fit."""
    text = f"""(float[2,7,3] x) => (float[2,7,5] y) {{
        o, h = {op}<hidden_size=8, layout=1>(x, w, r, b) t = Squeeze(o, two) s = Add(t, h) y = MatMul(s, v) }}"""
    proto = model(text, {**sizes(op), "v": (H, 5)}, {"two": [2]})
    (group,) = analyze(load(proto)).groups
    assert group.size == H
    assert {(p.tensor, p.axis) for p in group.places} >= {("o", 3), ("h", 2), ("w", 1), ("r", 1), ("r", 2), ("b", 1)}
    onnx.checker.check_model(keep_first(5, proto), full_check=True)


def test_weights_in_constant_nodes() -> None:
    proto = as_constant_nodes(case("LSTM").model(), ["w", "r", "b", "v"])
    oracles_hold(proto, groups=[H])
    folds(proto)


def test_directions_keep_units_of_their_own() -> None:
    before = case("GRU-bidirectional").model()
    labels = [0, 0, 1, 2, 3, 4, 5, 6, *range(7, 12), 11, 12, 13]
    after = fold_by({"GRU#0": labels}, before)
    w, v = constant(before, "w").reshape(2, 3, H, 3), constant(before, "v")
    first = np.concatenate([w[0][:, :2].mean(axis=1, keepdims=True), w[0][:, 2:]], axis=1)
    second = np.concatenate([w[1][:, :4], w[1][:, 4:6].mean(axis=1, keepdims=True), w[1][:, 6:]], axis=1)
    np.testing.assert_allclose(constant(after, "w"), np.stack([first, second]).reshape(2, 21, 3), rtol=1e-6)
    read = np.concatenate([v[:2].sum(0, keepdims=True), v[2:12], v[12:14].sum(0, keepdims=True), v[14:]])
    np.testing.assert_allclose(constant(after, "v"), read, rtol=1e-6)
    assert attribute(after, "GRU", "hidden_size") == 7
