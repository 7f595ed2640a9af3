"""Which bodies of If, Loop and Scan run on given inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers import model, run
from onnx import ModelProto, parser

from onnxfold.errors import ExecutionError
from onnxfold.model.model import load
from onnxfold.model.subgraphs import opened
from onnxfold.runtime.watch import Watch, watched

X = np.ones((2, 3), np.float32)
NESTED = """(float[2,3] x, bool c, bool d) => (float[2,3] y) {
    y = If(c) <then_branch = yes () => (float[2,3] r) {
        r = If(d) <then_branch = inner () => (float[2,3] p) { p = Neg(x) },
                   else_branch = other () => (float[2,3] o) { o = Abs(x) }> },
        else_branch = no () => (float[2,3] q) { q = Sin(x) }> }"""
LOOPED = """(float[2,3] x, int64 n, bool go, int64 at) => (float[2,3] y, float[M,2,3] all) {
    y, all = Loop(n, go, x) <body = turn (int64 i, bool on, float[2,3] s)
        => (bool next, float[2,3] t, float[2,3] row) {
        next = Identity(on)
        here = Equal(i, at)
        t = If(here) <then_branch = yes () => (float[2,3] r) { r = Neg(s) },
                      else_branch = no () => (float[2,3] q) { q = Sin(s) }>
        row = Identity(t) }> }"""
SCANNED = """(float[N,3] x, bool c) => (float[3] last, float[N,3] y) {
    last, y = Scan <num_scan_inputs = 1, body = turn (float[3] state, float[3] row) => (float[3] next, float[3] out) {
        next = Add(state, row)
        out = If(c) <then_branch = yes () => (float[3] r) { r = Neg(next) },
                     else_branch = no () => (float[3] q) { q = Sin(next) }> }> (zero, x) }"""


def ran(proto: ModelProto, **feeds: Any) -> list[str]:
    """The names of the bodies that run."""
    bodies = opened(proto)
    seen = Watch(load(proto)).bodies({name: np.asarray(value) for name, value in feeds.items()})
    return sorted(bodies[number].graph.name for number in seen)


@pytest.mark.parametrize(
    ("c", "d", "names"),
    [(True, True, ["inner", "yes"]), (True, False, ["other", "yes"]), (False, True, ["no"]), (False, False, ["no"])],
)
def test_branches_in_branches(c: bool, d: bool, names: list[str]) -> None:
    assert ran(model(NESTED), x=X, c=c, d=d) == names


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_a_loop_that_never_turns(opset: int) -> None:
    looped = model(LOOPED, opset=opset)
    assert ran(looped, x=X, n=0, go=True, at=0) == []
    assert ran(looped, x=X, n=5, go=False, at=0) == []


def test_one_turn_of_many_counts() -> None:
    looped = model(LOOPED)
    assert ran(looped, x=X, n=3, go=True, at=1) == ["no", "turn", "yes"]
    assert ran(looped, x=X, n=3, go=True, at=7) == ["no", "turn"]
    assert ran(looped, x=X, n=1, go=True, at=0) == ["turn", "yes"]


def test_a_loop_without_states_or_conditions() -> None:
    """Its inputs may be left out, and all that it gives are rows."""
    text = """<ir_version: 8, opset_import: ["" : 17]> agraph (int64 n) => (int64[M] y) {
        y = Loop(n) <body = turn (int64 i, bool on) => (bool next, int64 row) { next = Identity(on) row = Neg(i) }> }"""
    proto = parser.parse_model(text)
    proto.graph.node[0].input.append("")
    assert ran(proto, n=2) == ["turn"] and ran(proto, n=0) == []


def test_a_scan_carries_marks_beside_its_states() -> None:
    proto = model(SCANNED, values={"zero": np.zeros(3, np.float32)})
    assert ran(proto, x=X, c=True) == ["turn", "yes"]
    assert ran(proto, x=X, c=False) == ["no", "turn"]


def test_constants_decide_too() -> None:
    proto = model(NESTED.replace(", bool c, bool d", ""), values={"c": np.array(True), "d": np.array(False)})
    assert ran(proto, x=X) == ["other", "yes"]


def test_the_model_itself_stays_as_it_was() -> None:
    proto = model(LOOPED)
    before = proto.SerializeToString()
    copy = watched(proto)
    assert proto.SerializeToString() == before and [v.name for v in copy.graph.output] != ["y", "all"]
    onnx.checker.check_model(copy, full_check=True)


def test_what_does_not_run_is_an_error() -> None:
    proto = model(NESTED)
    with pytest.raises(ExecutionError):
        Watch(load(proto)).bodies({"x": X})
    assert run(load(proto), proto)[0].shape == (2, 3)
