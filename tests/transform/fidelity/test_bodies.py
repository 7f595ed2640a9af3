"""If, Loop and Scan on branches that the fold does not touch, and what their bodies capture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bystanders import Feature, add_nodes, add_weight, base, fold_files, initializer, stays
from onnx import ModelProto, numpy_helper

YES = {"yes": np.array(True)}


def a_branch(p: ModelProto) -> None:
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        t = If (yes) <then_branch = one () => (float[N,3] a) { a = Neg (s) },
                      else_branch = two () => (float[N,3] b) { m = Abs (s)  b = Neg (m) }>
    }""", YES)  # fmt: skip


def weight_in_both_branches(p: ModelProto) -> None:
    """Captured, not copied."""
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        t = If (yes) <then_branch = one () => (float[N,3] a) { a = MatMul (s, outer) },
                      else_branch = two () => (float[N,3] b) { n = Neg (s) b = MatMul (n, outer) }>
    }""", YES | {"outer": np.arange(9, dtype=np.float32).reshape(3, 3)})  # fmt: skip


def weights_inside(p: ModelProto) -> None:
    """A body's own initializer, called like one that is folded outside."""
    node = add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        t = If (yes) <then_branch = one () => (float[N,3] a) { a = Add (s, inner) },
                      else_branch = two () => (float[N,3] b) { b = Neg (s) }>
    }""", YES)[0]  # fmt: skip
    body = next(a.g for a in node.attribute if a.name == "then_branch")
    body.initializer.append(numpy_helper.from_array(np.float32([1, 2, 3]), "inner"))


def nested(p: ModelProto) -> None:
    """The inner body captures from two levels out."""
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        t = If (yes) <
            then_branch = one () => (float[N,3] a) {
                m = Neg (s)
                a = If (yes) <then_branch = in1 () => (float[N,3] c) { c = Add (m, outer) },
                              else_branch = in2 () => (float[N,3] d) { d = Add (s, outer) }>
            },
            else_branch = two () => (float[N,3] b) { b = Identity (s) }>
    }""", YES | {"outer": np.float32([1, 2, 3])})  # fmt: skip


def a_loop(p: ModelProto) -> None:
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        t, all = Loop (three, yes, s) <body = turn (int64 i, bool go, float[N,3] v)
            => (bool on, float[N,3] w, float[N,3] row) { on = Identity (go)  w = Add (v, step)  row = Neg (w) }>
    }""", YES | {"three": np.array(3), "step": np.float32([1, 2, 3])})  # fmt: skip


def a_scan(p: ModelProto) -> None:
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        last, t = Scan <num_scan_inputs = 1, body = turn (float[3] state, float[3] row)
            => (float[3] next, float[3] out) { next = Add (state, row)  out = Mul (next, step) }> (zero, s)
    }""", {"zero": np.zeros(3, np.float32), "step": np.float32([1, 2, 3])})  # fmt: skip


def behind_the_fold(p: ModelProto) -> None:
    """The body captures the output of the folded chain."""
    p.graph.node[2].output[0] = "q"
    add_nodes(p, """(float[N,6] x) => (float[N,4] y) {
        y = If (yes) <then_branch = one () => (float[N,4] a) { a = Softmax (q) },
                      else_branch = two () => (float[N,4] b) { b = Identity (q) }>
    }""", YES)  # fmt: skip


def same_names_inside(p: ModelProto) -> None:
    """Names of values inside a body that are names outside, of other bodies."""
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        m = If (yes) <then_branch = g () => (float[N,3] o) { o = Neg (s) },
                      else_branch = g () => (float[N,3] o) { o = Abs (s) }>
        t = If (yes) <then_branch = g () => (float[N,3] o) { o = Neg (m) },
                      else_branch = g () => (float[N,3] o) { o = Abs (m) }>
    }""", YES)  # fmt: skip


def constant_condition(p: ModelProto) -> None:
    """An If whose condition is a Constant node is not resolved."""
    add_nodes(p, """(float[N,3] s) => (float[N,3] t) {
        c = Constant <value = bool {0}> ()
        t = If (c) <then_branch = one () => (float[N,3] a) { a = Neg (s) },
                    else_branch = two () => (float[N,3] b) { k = Constant <value_float = 2.0> ()  b = Mul (s, k) }>
    }""")  # fmt: skip


FEATURES: list[Feature] = [
    a_branch, weight_in_both_branches, weights_inside, nested, a_loop, a_scan, behind_the_fold, same_names_inside,
    constant_condition,
]  # fmt: skip


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.__name__)
def test_body(tmp_path: Path, feature: Feature) -> None:
    stays(tmp_path, feature)


def test_a_captured_weight_is_stored_once(tmp_path: Path) -> None:
    """The file does not grow by copies in the branches."""
    proto = base()
    add_weight(proto, "unused", np.zeros(1, np.float32))
    weight_in_both_branches(proto)
    folded = fold_files(tmp_path, proto)
    found = initializer(folded.after, "outer").raw_data
    assert folded.after.SerializeToString().count(found) == 1
