"""Layers that are timed alone: they run at every width, and what lies between two widths lies between their times."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxfold.evaluation import layer_times
from onnxfold.evaluation.layer_times import Layer, Surface, surfaces


def attributes(**given: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(given.items()))


CONV = Layer("Conv", attributes(group=1, pads=(1, 1, 1, 1)), (1, 32, 8, 8), (64, 32, 3, 3))
DEPTHWISE = Layer("Conv", attributes(group=48), (1, 48, 8, 8), (48, 1, 3, 3))
GROUPED = Layer("Conv", attributes(group=4), (1, 32, 8, 8), (64, 8, 1, 1))
MATMUL = Layer("MatMul", (), (1, 5, 40), (40, 24))
GEMM = Layer("Gemm", attributes(transB=1), (1, 40), (24, 40))
ALL = (CONV, DEPTHWISE, GROUPED, MATMUL, GEMM)


@pytest.mark.parametrize(
    ("layer", "outputs", "inputs", "x", "w", "groups"),
    [
        (CONV, 40, 16, (1, 16, 8, 8), (40, 16, 3, 3), 1),
        (DEPTHWISE, 24, 1, (1, 24, 8, 8), (24, 1, 3, 3), 24),
        (GROUPED, 32, 8, (1, 16, 8, 8), (32, 8, 1, 1), 2),
        (GROUPED, 64, 4, (1, 16, 8, 8), (64, 4, 1, 1), 4),
        (MATMUL, 16, 8, (1, 5, 8), (8, 16), 1),
        (GEMM, 16, 8, (1, 8), (16, 8), 1),
    ],
)
def test_a_narrower_layer(
    layer: Layer, outputs: int, inputs: int, x: tuple[int, ...], w: tuple[int, ...], groups: int
) -> None:
    made = layer.at(outputs, inputs)
    assert (made.x, made.w, made.groups, made.outputs, made.inputs) == (x, w, groups, outputs, inputs)


def test_every_kind_runs_at_every_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_times, "_AT_ONCE", 10_000)  # several sessions
    found = surfaces([(one, True, one not in (DEPTHWISE, GROUPED)) for one in ALL], tmp_path)
    assert set(found) == set(ALL) and not list(tmp_path.iterdir())
    assert found[CONV].outputs == (16, 32, 64) and found[CONV].inputs == (16, 32)
    assert found[DEPTHWISE].outputs == (16, 32, 48) and found[DEPTHWISE].inputs == (1,)
    for one in found.values():
        assert np.all(one.times >= 0) and one.times[-1, -1] > 0
        assert np.all(np.diff(one.times, axis=0) >= 0) and np.all(np.diff(one.times, axis=1) >= 0)


def test_what_does_not_change_is_timed_once(tmp_path: Path) -> None:
    found = surfaces([(MATMUL, False, True)], tmp_path)[MATMUL]
    assert (
        found.outputs == (24,)
        and found.inputs == (16, 32, 40)
        and found.at(24, 16) == found.at(7, 16) == found.times[0, 0]
    )


def test_times_in_between() -> None:
    surface = Surface((8, 16, 32), (8, 16), np.array([[1.0, 2.0], [2.0, 4.0], [6.0, 12.0]]))
    for (i, outputs), (j, inputs) in itertools.product(enumerate(surface.outputs), enumerate(surface.inputs)):
        assert surface.at(outputs, inputs) == surface.times[i, j]
    assert surface.at(24, 16) == 8.0 and surface.at(16, 12) == 3.0 and surface.at(12, 12) == 2.25
    assert surface.at(4, 8) == 0.5  # falling on as it falls
    assert Surface((8, 16), (4,), np.array([[1.0], [9.0]])).at(1, 4) == 0.0  # not below zero


def test_convolutions_compute_whole_blocks() -> None:
    surface = Surface((16, 32, 40), (16,), np.array([[1.0], [2.0], [3.0]]), 16)
    assert surface.at(24, 16) == surface.at(32, 16) == 2.0 and surface.at(8, 16) == surface.at(16, 16) == 1.0
    assert surface.at(33, 16) == surface.at(40, 16) == 3.0
