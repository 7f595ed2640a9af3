"""What the analysis makes of facts: with rules made up here, and with the real ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers import model, oracles_hold
from onnx import ModelProto, helper, numpy_helper, parser

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.groups import Role
from onnxfold.analysis.result import Analysis
from onnxfold.analysis.rules import FAMILIES, conv
from onnxfold.analysis.rules.facts import At, Axis, Blocks, Count, Fact, Free, OneOf, Refuse, Tie
from onnxfold.analysis.rules.node_view import NodeView
from onnxfold.analysis.rules.table import Rule, RuleTable
from onnxfold.errors import OnnxFoldError, RuleError
from onnxfold.model.model import load

CONVS = {"w": (8, 3, 1, 1), "v": (5, 8, 1, 1)}
TEXT = "(float[2,3,4,4] x) => (float[2,5,4,4] y) { h = Conv(x, w) a = Relu(h) y = Conv(a, v) }"


def relu(*facts: object) -> RuleTable:
    """The rule for Conv, and one for Relu that says these things; each is a function of the view of a node."""

    def rule(n: NodeView) -> Iterator[Fact]:
        for fact in facts:
            yield fact(n)  # type: ignore[operator]

    return RuleTable([*conv.RULES, Rule(rule, ("Relu",))])


def tie(axis: int) -> object:
    return lambda n: Tie(n.x().axis(axis), n.y().axis(axis))


def found(*facts: object, text: str = TEXT, weights: object = None) -> Analysis:
    return analyze(load(model(text, weights or CONVS)), relu(*facts))  # type: ignore[arg-type]


def kinds(analysis: Analysis) -> list[str]:
    return [r.kind for r in analysis.refusals]


# axes -------------------------------------------------------------------------------------------------------------


def axis(*atoms: int, size: int | None = -1) -> Axis:
    return Axis(np.array(atoms, np.int64), len(atoms) if size == -1 else size)


@pytest.mark.parametrize(
    ("made", "atoms"),
    [
        (axis(5, 6, 7, 8)[1:3], [6, 7]),
        (axis(5, 6, 7, 8)[2:], [7, 8]),
        (axis(5, 6, 7, 8)[[3, 0]], [8, 5]),
        (axis(5, 6, 7, 8)[np.array([1])], [6]),
        (axis(5, 6).repeat(3), [5, 5, 5, 6, 6, 6]),
        (axis(5, 6).tile(3), [5, 6, 5, 6, 5, 6]),
        (axis(5, 6).repeat(2).tile(2), [5, 5, 6, 6, 5, 5, 6, 6]),
        (axis(5, 6, 7)[0:0], []),
    ],
)
def test_parts_and_spreads_of_an_axis(made: Axis, atoms: list[int]) -> None:
    assert made.atoms.tolist() == atoms
    assert made.size == len(made) == len(atoms)


def test_axes_without_atoms() -> None:
    """Of length 1 (it broadcasts) and of open length: parts have no atoms either."""
    one, open_ = axis(size=1), axis(size=None)
    assert (len(one), one.repeat(4).size, one.tile(3).size) == (0, 4, 3)
    assert (len(open_), open_[1:].size, open_.repeat(4).size) == (0, None, None)


# facts ------------------------------------------------------------------------------------------------------------


def test_what_is_tied_is_one_group() -> None:
    analysis = found(tie(0), tie(1), tie(2), tie(3))
    (group,) = analysis.groups
    assert (group.name, group.size, group.producers, group.consumers) == ("Conv#0", 8, ("Conv#0",), ("Conv#2",))
    assert [(p.tensor, p.axis, p.role) for p in group.parameters] == [("w", 0, Role.PRODUCES), ("v", 1, Role.CONSUMES)]
    assert kinds(analysis) == ["a graph output"]


def test_an_axis_that_a_rule_leaves_out_is_kept() -> None:
    analysis = found(tie(0), tie(2), tie(3))
    assert not analysis.groups
    refusal = analysis.refusals[0]
    assert (refusal.kind, refusal.channels, refusal.where) == ("Relu mixes this axis", 8, ("Relu#1",))


def test_a_part_that_a_rule_leaves_out_is_kept() -> None:
    analysis = found(tie(0), lambda n: Tie(n.x().axis(1)[:6], n.y().axis(1)[:6]), tie(2), tie(3))
    assert [g.size for g in analysis.groups] == [6]
    assert ("Relu mixes this axis", 2) in [(r.kind, r.channels) for r in analysis.refusals]


def test_free_positions_are_not_kept() -> None:
    """Channels that are dropped are a group of their own: nothing reads them."""
    analysis = found(
        lambda n: Free(n.x().axis(1)[6:]), lambda n: Free(n.y().axis(1)[6:]), tie(0), tie(2), tie(3),
        lambda n: Tie(n.x().axis(1)[:6], n.y().axis(1)[:6]),
    )  # fmt: skip
    assert [(g.size, g.consumers) for g in analysis.groups] == [(6, ("Conv#2",)), (2, ())]


def test_an_operator_without_a_rule_keeps_all_it_touches() -> None:
    analysis = analyze(load(model(TEXT, CONVS)), RuleTable(conv.RULES))
    assert not analysis.groups
    assert ("no rule for Relu", 8, ("Relu#1",)) in [(r.kind, r.channels, r.where) for r in analysis.refusals]


def test_a_refusal_keeps_all_that_the_node_touches() -> None:
    analysis = found(tie(1), lambda n: Refuse("does not feel like it"))
    assert not analysis.groups
    assert kinds(analysis)[0] == "Relu does not feel like it"


def test_ties_of_unequal_length_are_a_bug_of_ours() -> None:
    with pytest.raises(RuleError, match="the rule for Relu ties 8 to 7 positions at 'Relu#1'") as caught:
        found(lambda n: Tie(n.x().axis(1), n.y().axis(1)[:7]))
    assert not isinstance(caught.value, OnnxFoldError)


@pytest.mark.parametrize(("size", "says"), [(0, "ties 8 to 0 positions"), (1, ""), (8, "")])
def test_an_axis_of_length_zero_ties_with_none_that_is_longer(size: int, says: str) -> None:
    """Length 1 broadcasts, length 0 does not."""
    nothing = Axis(np.arange(0), size)

    def rule(n: NodeView) -> Tie:
        return Tie(n.x().axis(1), n.y().axis(1) if size == 8 else nothing)

    if says:
        with pytest.raises(RuleError, match=says):
            found(rule)
    else:
        found(rule)


@pytest.mark.parametrize("count", [3, 0, -1])
def test_blocks_that_do_not_come_out_even_are_a_bug_of_ours(count: int) -> None:
    with pytest.raises(RuleError, match=f"cuts 8 positions into {count} blocks"):
        found(lambda n: Blocks(n.y().axis(1), count))


def test_two_rules_for_one_operator_are_a_bug_of_ours() -> None:
    with pytest.raises(RuleError, match=r"two rules for ai\.onnx::Conv since 1"):
        RuleTable([*conv.RULES, *conv.RULES])
    RuleTable([*conv.RULES, Rule(conv.conv, ("Conv",), since=11), Rule(conv.conv, ("Conv",), domain="mine")])


def test_the_newest_rule_that_is_not_too_new_is_taken() -> None:
    first, second = (Rule(f, ("Relu",), since=s) for f, s in ((conv.conv, 2), (conv.conv_transpose, 13)))
    table = RuleTable([second, first])
    assert [table.find("", "Relu", v) for v in (1, 2, 12, 13, 20)] == [
        None, conv.conv, conv.conv, conv.conv_transpose, conv.conv_transpose
    ]  # fmt: skip
    assert table.find("other", "Relu", 13) is None


def test_an_axis_that_is_cut_to_length_1_is_kept() -> None:
    """One channel of many that ends in an axis of length 1 cannot go, and is not like its neighbors."""
    text = "(float[2,3,4,4] x) => (float[2,5,4,4] y) { h = Conv(x, w) a = Relu(h) g = Conv(h, v) y = Add(g, a) }"
    analysis = found(
        tie(0), lambda n: Tie(n.x().axis(1)[:1], Axis(np.empty(0, np.int64), 1)), lambda n: Free(n.x().axis(1)[1:]),
        lambda n: Free(n.y().axis(1)), tie(2), tie(3), text=text,
    )  # fmt: skip
    assert "tied to an axis of length 1" in kinds(analysis)


def test_an_axis_of_length_1_broadcasts() -> None:
    analysis = found(tie(0), tie(1), tie(2), tie(3), lambda n: Tie(Axis(np.empty(0, np.int64), 1), n.y().axis(1)))
    assert [g.size for g in analysis.groups] == [8]


def test_an_open_axis_keeps_what_is_tied_to_it() -> None:
    analysis = found(tie(0), tie(1), tie(2), tie(3), lambda n: Tie(Axis(np.empty(0, np.int64), None), n.y().axis(1)))
    assert not analysis.groups
    assert kinds(analysis)[0] == "tied to an axis of unknown length (`input_shapes` may help)"


def test_a_choice_is_settled_for_what_nothing_else_keeps() -> None:
    """Either the channels or the (kept) positions of the image may be followed."""
    options = lambda n: OneOf(((tie(2)(n),), (tie(1)(n),)))  # type: ignore[operator]  # noqa: E731
    assert [g.size for g in found(tie(0), tie(3), options).groups] == [8]


def test_blocks() -> None:
    text = "(float[2,3,4,4] x) => (float[2,5,4,4] y) { h = Conv(x, w) a = Relu(h) y = Conv(a, v) }"
    all_of = [tie(0), tie(1), tie(2), tie(3)]
    (group,) = found(*all_of, lambda n: Blocks(n.x().axis(1), 4), text=text).groups
    assert group.cells.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    crossed = (lambda n: Blocks(n.x().axis(1), 2), lambda n: Blocks(n.y().axis(1)[[0, 2, 4, 6, 1, 3, 5, 7]], 2))
    (group,) = found(*all_of, *crossed, text=text).groups
    assert group.blocks == 4
    assert sorted(np.bincount(group.cells)) == [2, 2, 2, 2]


def test_blocks_that_would_become_unequal_are_tied() -> None:
    """The first 5 of 8 channels come from the Conv, so blocks of 4 go in pairs; the fifth stays with the first."""
    analysis = found(tie(0), lambda n: Tie(n.x().axis(1)[:5], n.y().axis(1)[:5]), tie(2), tie(3),
                     lambda n: Blocks(n.y().axis(1), 2))  # fmt: skip
    (group,) = analysis.groups
    assert next(p.positions.tolist() for p in group.places if p.tensor == "a") == [[1, 5], [2, 6], [3, 7]]


def test_counts_are_handed_on() -> None:
    analysis = found(tie(0), tie(1), tie(2), tie(3), lambda n: Count(n.y().axis(1), At(attr="width")))
    (recount,) = analysis.recounts
    assert (recount.node, recount.at, len(recount.of)) == (1, At(attr="width"), 8)


# groups -----------------------------------------------------------------------------------------------------------


def test_channels_that_are_read_elsewhere_are_another_group() -> None:
    """Half of the channels of one Conv are read twice: 8 channels, two groups of 4 that cannot be exchanged."""
    text = """(float[2,3,4,4] x) => (float[2,5,4,4] y, float[2,6,4,4] z) {
        h = Conv(x, w) p, q = Split<axis=1>(h) y = Conv(h, v) z = Conv(q, u) }"""
    analysis = oracles_hold(model(text, {**CONVS, "u": (6, 4, 1, 1)}), groups=[4, 4])
    assert [g.consumers for g in analysis.groups] == [("Conv#2",), ("Conv#2", "Conv#3")]
    assert [g.name for g in analysis.groups] == ["Conv#0", "Conv#0:2"]


def test_groups_of_one_axis_are_in_the_order_of_its_positions() -> None:
    text = """(float[2,3,4,4] x) => (float[2,5,4,4] y) {
        h = Conv(x, w) p, q, r = Split<axis=1>(h, sizes) a = Conv(p, k) b = Conv(q, l) c = Conv(r, m)
        y = Sum(a, b, c) }"""
    weights = {"w": (9, 3, 1, 1), "k": (5, 2, 1, 1), "l": (5, 4, 1, 1), "m": (5, 3, 1, 1)}
    found = oracles_hold(model(text, weights, {"sizes": [2, 4, 3]}), groups=[2, 4, 3])
    assert [g.consumers for g in found.groups] == [("Conv#2",), ("Conv#3",), ("Conv#4",)]


def test_single_channels_are_no_group() -> None:
    text = "(float[2,3,4,4] x) => (float[2,5,4,4] y) { h = Conv(x, w) a = Relu(h) y = Conv(a, v) }"
    analysis = analyze(load(model(text, {"w": (1, 3, 1, 1), "v": (5, 1, 1, 1)})))
    assert not analysis.groups


def test_a_tied_embedding_is_stored_once_for_two_purposes() -> None:
    """The width of the stream is made by Gather and read by the transposed MatMul through another name: it stays, as
    the table would have to be stored twice; what is inside folds."""
    text = """(int64[2,7] x) => (float[2,7,11] y) {
        h = Gather(e, x) g = MatMul(h, w) a = Relu(g) f = MatMul(a, v) i = Add(f, h)
        t = Transpose<perm=[1,0]>(e) y = MatMul(i, t) }"""
    analysis = oracles_hold(model(text, {"e": (11, 8), "w": (8, 6), "v": (6, 8)}), groups=[6])
    assert "a weight that produces and consumes the same axis" in kinds(analysis)


def test_an_axis_both_made_and_read_is_kept() -> None:
    """A tied embedding stored once and used as it is: made by Gather, read by Gemm, along the same axis."""
    text = """(int64[7] x) => (float[7,11] y) {
        h = Gather(e, x) g = MatMul(h, w) a = Relu(g) f = MatMul(a, v) i = Add(f, h) y = Gemm<transB=1>(i, e) }"""
    analysis = oracles_hold(model(text, {"e": (11, 8), "w": (8, 6), "v": (6, 8)}), groups=[6])
    assert "a weight that produces and consumes the same axis" in kinds(analysis)


def test_integer_constants_are_kept() -> None:
    text = """(float[2,3] x) => (float[2,5] y) {
        h = MatMul(x, w) g = Cast<to=7>(h) f = Add(g, c) e = Cast<to=1>(f) y = MatMul(e, v) }"""
    analysis = analyze(load(model(text, {"w": (3, 8), "v": (8, 5)}, {"c": list(range(8))})))
    assert not analysis.groups
    assert kinds(analysis)[0] == "a constant that is not floating point"


# reasons ----------------------------------------------------------------------------------------------------------


def test_a_custom_operator_is_refused_with_its_domain() -> None:
    text = "(float[2,3] x) => (float[2,5] y) <float[2,8] a> { h = MatMul(x, w) a = com.microsoft.Strange(h) "
    text += "y = MatMul(a, v) }"
    analysis = analyze(load(model(text, {"w": (3, 8), "v": (8, 5)})))
    assert not analysis.groups
    assert "no rule for com.microsoft.Strange" in kinds(analysis)


def test_what_a_body_captures_is_kept(batch: str | int) -> None:
    text = """(float[N,3] x, bool c) => (float[N,5] y) {
        h = MatMul(x, w) a = Relu(h)
        g = If(c) <then_branch = yes () => (float[N,8] r) { r = Neg(a) },
                   else_branch = no () => (float[N,8] r) { r = Identity(a) }>
        f = MatMul(g, u) e = Relu(f) y = MatMul(e, v) }"""
    proto = model(text, {"w": (3, 8), "u": (8, 6), "v": (6, 5)}, batch=batch)
    analysis = oracles_hold(proto, groups=[6])
    assert "values that If returns from its body" in kinds(analysis)


@pytest.mark.parametrize("name", ["r", "q"])
def test_a_weight_that_a_body_gives_is_kept(name: str) -> None:
    """What the branches make of it comes out of the model; called alike or not."""
    text = """(float[2,3] x, bool c) => (float[2,5] y, float[8] z) {
        h = MatMul(x, w) i = Add(h, b) a = Relu(i) y = MatMul(a, v)
        z = If(c) <then_branch = yes () => (float[8] r) { r = Neg(b) },
                   else_branch = no () => (float[8] r) { r = Identity(b) }> }"""
    text = text.replace("r = Identity(b)", f"{name} = Identity(b)").replace("(float[8] r) { q", "(float[8] q) { q")
    analysis = analyze(load(model(text, {"w": (3, 8), "b": (8,), "v": (8, 5)})))
    assert not analysis.groups
    assert "values that If returns from its body" in kinds(analysis)


def test_refusals_are_sorted_by_what_they_cost() -> None:
    text = """(float[2,3,6,6] x) => (float[2,5,6,6] y) {
        h = Conv(x, w) a = LRN<size=3>(h) g = Conv(a, u) f = Softmax<axis=1>(g) y = Conv(f, v) }"""
    analysis = analyze(load(model(text, {"w": (6, 3, 1, 1), "u": (9, 6, 1, 1), "v": (5, 9, 1, 1)})))
    assert [(r.kind, r.channels) for r in analysis.refusals] == [
        ("Softmax mixes this axis", 9), ("LRN mixes this axis", 6), ("a graph output", 5)
    ]  # fmt: skip


def test_tensors_of_unknown_shape_are_refused() -> None:
    text = "(float[2,3] x, int64[R] s) => (float[2,5] y) { h = MatMul(x, w) a = Reshape(h, s) y = MatMul(a, v) }"
    analysis = analyze(load(model(text, {"w": (3, 8), "v": (8, 5)})))
    assert not analysis.groups
    assert "Reshape has tensors of unknown shape (`input_shapes` may help)" in kinds(analysis)


def test_the_rules_see_no_graph() -> None:
    for family in FAMILIES:
        names = {getattr(value, "__module__", "") for value in vars(family).values()}
        assert not names & {"onnxfold.graph", "onnxfold.model", "onnxfold.emit", "onnx"}


def declaring(text: str, **weights: tuple[int, ...]) -> ModelProto:
    """A model whose declared shapes stay exactly as the text has them."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17, "custom" : 1]> agraph {text}')
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return proto


@pytest.mark.parametrize("declared", ["float", "float[N,16]", "float[N,99,6,6]", "float[N,16,1,1,6]"])
def test_a_declared_shape_that_contradicts_the_operators_is_not_believed(declared: str) -> None:
    text = f"""(float[N,3,8,8] x) => (float[N,10] y) <{declared} r, float z> {{
        c = Conv <kernel_shape: ints = [3,3]> (x, w1)
        r = Relu (c)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        y = Gemm (f, w2)
    }}"""
    assert [g.size for g in analyze(load(declaring(text, w1=(16, 3, 3, 3), w2=(16, 10)))).groups] == [16]


def test_a_declared_output_shape_that_contradicts_the_operators_is_not_believed() -> None:
    text = "(float[N,3,8,8] x) => (float y) { c = Conv <kernel_shape: ints = [3,3]> (x, w1) y = Conv (c, w2) }"
    assert [g.size for g in analyze(load(declaring(text, w1=(16, 3, 3, 3), w2=(5, 16, 1, 1)))).groups] == [16]


def test_a_declared_shape_fills_what_inference_cannot_know() -> None:
    text = """(float[N,16] x) => (float[N,10] y) <float[N,16] u> {
        h = MatMul (x, w1)
        g = Relu (h)
        v = custom.Mystery (g)
        u = custom.Mystery (x)
        k = MatMul (u, w2)
        q = Relu (k)
        y = MatMul (q, w3)
    }"""
    assert [g.size for g in analyze(load(declaring(text, w1=(16, 8), w2=(16, 12), w3=(12, 10)))).groups] == [12]


def test_sparse_initializers_are_kept_and_named() -> None:
    proto = model("(float[N,3] x) => (float[N,5] y) { h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }", {"v": (8, 5)})
    values, places = (helper.make_tensor(n, k, [2], x) for n, k, x in (("w", 1, [1.0, 2.0]), ("at", 7, [3, 20])))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 8]))
    analysis = analyze(load(proto))
    assert not analysis.groups
    assert next(r for r in analysis.refusals if r.kind == "a sparse_initializer").where == ("w",)
