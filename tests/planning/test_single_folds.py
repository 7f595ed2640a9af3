"""Which groups are folded alone before that takes too long."""

from __future__ import annotations

import pytest
from helpers import model

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.planning import single_folds
from onnxfold.planning.group_layout import GroupLayout
from onnxfold.planning.single_folds import ROWS, affordable
from onnxfold.recovery.moments import fit_work

BODY = "h = MatMul(x, a) r = Relu(h) g = MatMul(r, b) s = Relu(g) f = MatMul(s, c) t = Relu(f) y = MatMul(t, d)"


def layout() -> GroupLayout:
    """Groups of 8, 32 and 16 channels, each with one consumer."""
    shapes = {"a": (4, 8), "b": (8, 32), "c": (32, 16), "d": (16, 3)}
    loaded = load(model(f"(float[N,4] x) => (float[N,3] y) {{ {BODY} }}", shapes))
    return GroupLayout.of(loaded, analyze(loaded))


def test_the_cheapest_groups_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = layout()
    sizes = {name: group.size for name, group in found.groups.items()}
    prices = {size: 2 * fit_work(size, ROWS) for size in sizes.values()}
    assert sorted(prices) == [8, 16, 32]
    for limit, kept in ((1e9, [8, 16, 32]), (prices[8] + prices[16], [8, 16]), (prices[8], [8]), (1.0, [])):
        monkeypatch.setattr(single_folds, "_MOST_WORK", limit)
        names = affordable(found, sizes, 2)
        assert [sizes[name] for name in names] == kept
        assert names == pytest.approx({name: prices[sizes[name]] for name in names})


def test_a_consumer_of_many_groups_is_fitted_once() -> None:
    """What reads a concatenation is fitted as a whole."""
    body = "p = MatMul(x, a) q = MatMul(x, b) u = Relu(p) v = Relu(q) j = Concat<axis=1>(u, v) y = MatMul(j, c)"
    shapes = {"a": (4, 8), "b": (4, 24), "c": (32, 3)}
    loaded = load(model(f"(float[N,4] x) => (float[N,3] y) {{ {body} }}", shapes))
    found = GroupLayout.of(loaded, analyze(loaded))
    assert len(found.groups) == 2
    assert found.fit_work(found.groups, ROWS) == fit_work(32, ROWS)
    assert [found.fit_work([name], ROWS) for name in found.groups] == [fit_work(32, ROWS)] * 2
