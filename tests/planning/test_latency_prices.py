"""What plans take of the latency: what layers take alone, in proportion to what their kind takes in a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MODELS

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs
from onnxfold.errors import ExecutionError
from onnxfold.evaluation.device_latency import CommandTimer
from onnxfold.evaluation.latency import Profiler
from onnxfold.evaluation.layer_times import Layer, Surface
from onnxfold.model.model import load
from onnxfold.planning import latency_prices as module
from onnxfold.planning.group_layout import GroupLayout
from onnxfold.planning.latency_prices import LatencyPrices, latency_prices
from onnxfold.runtime.probe_inputs import probe

CPU = "CPUExecutionProvider"


def made(name: str, timer: CommandTimer | None = None, provider: str = CPU) -> tuple[GroupLayout, LatencyPrices | None]:
    model = load(MODELS / f"{name}.onnx")
    layout = GroupLayout.of(model, analyze(model))
    profiler = Profiler(model, Path("out.onnx"), False, provider, lambda s: probe(s.inputs, batch=1), timer)
    widths = layout.widths(layout.groups)
    return layout, latency_prices(layout, costs(model), profiler, widths, 1)


def in_proportion(layers: Any, _folder: Path) -> Mapping[Layer, Surface]:
    """As if every layer took a millisecond per weight."""
    return {
        one: Surface((0, one.outputs), (0, one.inputs), np.array([[0.0, 0.0], [0.0, float(np.prod(one.w))]]))
        for one, _, _ in layers
    }


def halved(layout: GroupLayout) -> Mapping[tuple[str, int], int]:
    return layout.lengths({name: group.size // 2 for name, group in layout.groups.items()})


@pytest.mark.parametrize("name", ["digits_mlp", "digits_vgg", "digits_mobilenet", "digits_resnet_fused"])
def test_nothing_removed_is_all_and_narrower_is_less(name: str) -> None:
    layout, found = made(name)
    assert found is not None
    assert found.share({}) == pytest.approx(1, abs=0.02)  # what is spent on nothing that is known counts too
    assert 0 < found.share(halved(layout)) <= found.share({})


def test_shares_follow_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "surfaces", in_proportion)
    monkeypatch.setattr(Profiler, "operators", lambda *_: {"FusedGemm": 3.0, "Gemm": 1.0})
    layout, found = made("digits_mlp")
    assert found is not None
    numbers = costs(layout.model).numbers
    weights = [node.inputs[1] for node in layout.model.graph.nodes if node.op == "Gemm"]
    assert len(weights) > 1
    before, after = ([numbers(lengths)[w] for w in weights] for lengths in ({}, halved(layout)))
    assert found.share(halved(layout)) == pytest.approx(sum(after) / sum(before))


@pytest.mark.parametrize("why", ["another device", "another provider", "does not run"])
def test_what_tells_nothing_is_not_timed(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Any:
        raise ExecutionError("no such kernel")

    if why == "does not run":
        monkeypatch.setattr(module, "surfaces", fails)
    else:
        monkeypatch.setattr(Profiler, "operators", lambda *_: pytest.fail("timed"))
    timer = CommandTimer("echo 1", 1) if why == "another device" else None
    assert made("digits_mlp", timer, "CUDAExecutionProvider" if why == "another provider" else CPU)[1] is None


@pytest.mark.parametrize("gains", [True, False])
def test_a_layer_that_gains_nothing_is_left_alone(gains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose time stays the same at all widths: merging in it would cost error and save no latency."""
    source = MODELS / "digits_vgg.onnx"
    groups = {group.name: group for group in onnxfold.inspect(source).groups}
    spared = max(groups, key=lambda name: groups[name].before)
    model = load(source)
    weights = {p.tensor for p in GroupLayout.of(model, analyze(model)).groups[spared].parameters}
    kept = set() if gains else {model.graph.tensor(name).shape for name in weights}

    def surfaces(layers: Any, folder: Path) -> Mapping[Layer, Surface]:
        still = Surface((1,), (1,), np.array([[1e6]]))
        return {one: still if one.w in kept else s for one, s in in_proportion(layers, folder).items()}

    monkeypatch.setattr(module, "surfaces", surfaces)
    monkeypatch.setattr(Profiler, "operators", lambda *_: {"Conv": 1.0, "FusedGemm": 1.0})
    monkeypatch.setattr(Profiler, "latency", lambda *_: 0.75)  # as expected: the first fold is taken
    images = {"image": np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32)}
    report = onnxfold.fold(source, target_latency=0.75, calibration=images, latency=False).report
    assert (spared in {group.name for group in report.groups if group.after < group.before}) == gains
    assert any(group.after < group.before for group in report.groups)
