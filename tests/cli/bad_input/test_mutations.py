"""Models damaged at random: a result or one clear line, never a crash."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
from mutants import mutate, mutated
from tiny import MODELS, fold, net, write

from onnxfold import OnnxFoldError


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("digits_resnet_bn", range(70)),
        pytest.param("digits_resnet_bn", range(70, 150), marks=pytest.mark.full),
        pytest.param("digits_mobilenet", range(150), marks=pytest.mark.full),
    ],
)
def test_mutated_bytes(tmp_path: Path, name: str, seeds: range) -> None:
    """A model with damaged bytes is folded or refused; it never ends in another exception."""
    content = (MODELS / f"{name}.onnx").read_bytes()
    path, outcomes = tmp_path / "in.onnx", {True: 0, False: 0}
    for seed in seeds:
        path.write_bytes(mutated(content, random.Random(seed)))
        try:
            fold(path, ratio=0.3, latency=False)
            outcomes[True] += 1
        except OnnxFoldError as error:
            outcomes[False] += 1
            assert str(error)
    assert min(outcomes.values()) > 10, "the mutations say nothing: all end alike"


@pytest.mark.parametrize("start", range(0, 240, 40))
def test_mutated_structure(tmp_path: Path, start: int) -> None:
    """A model that parses but says strange things: odd lengths, names, types, missing or doubled parts."""
    refusals = 0
    for seed in range(start, start + 40):
        proto = onnx.shape_inference.infer_shapes(net())
        chance = random.Random(seed)
        for _ in range(chance.choice([1, 1, 2, 3])):
            mutate(proto, chance)
        try:
            fold(write(tmp_path / "in.onnx", proto), ratio=0.5, latency=False)
        except OnnxFoldError:
            refusals += 1
    assert 5 < refusals < 40
