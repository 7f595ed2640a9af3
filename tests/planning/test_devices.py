"""Widths that follow what the kernels of a device compute at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tiny import MODELS, main

import onnxfold
from onnxfold import RequestError
from onnxfold.options.budget import Aim
from onnxfold.options.devices import BLOCKS, Device
from onnxfold.options.parts import PlanningOptions, SelectionOptions
from onnxfold.passes.prepare import subject_of
from onnxfold.planning.goal import Goal

RESNET, MLP = MODELS / "digits_resnet_bn.onnx", MODELS / "digits_mlp.onnx"
IMAGES = (load_digits().images.reshape(-1, 1, 8, 8)[:64] / 8 - 1).astype(np.float32)
FAST: dict[str, Any] = {"effort": "fast", "latency": False}


def widths(**how: Any) -> list[int]:
    return [g.after for g in onnxfold.fold(RESNET, **FAST, **how).report.groups if g.after < g.before]


def test_every_device_has_a_table_with_its_source() -> None:
    assert set(BLOCKS) == set(Device)
    for blocks in BLOCKS.values():
        assert blocks.source and blocks.conv % blocks.grain == blocks.int8 % blocks.grain == 0
        assert BLOCKS[Device.PORTABLE].conv % min(blocks.conv, 16) == 0


@pytest.mark.parametrize(("device", "block"), [("avx512", 16), ("x86-avx2", 8), ("web", 4)])
def test_convolutions_keep_whole_blocks_of_the_device(device: str, block: int) -> None:
    found = widths(target_macs=0.6, device=device)
    assert found and all(width % block == 0 for width in found)
    if block < 16:
        assert any(width % (2 * block) for width in found)


def test_auto_is_portable_and_fixed() -> None:
    found = widths(target_macs=0.6, round_to="auto")
    assert found == widths(target_macs=0.6, device="portable") and all(width % 16 == 0 for width in found)
    assert found != widths(target_macs=0.6, round_to=8)


def test_with_samples_too() -> None:
    given: dict[str, Any] = {"calibration": {"image": IMAGES}, "latency": False, "target_macs": 0.6}
    groups = onnxfold.fold(RESNET, round_to="auto", **given).report.groups
    shrunk = [g.after for g in groups if g.after < g.before]
    assert shrunk and all(width % 16 == 0 for width in shrunk)


def test_a_target_that_blocks_cannot_meet_is_met_without() -> None:
    """Groups of 32 channels keep 16 where whole blocks are kept, and 8 where they are not."""
    assert min(widths(target_macs=0.3, device="portable")) == 16
    assert 8 in widths(target_macs=0.08, device="portable")
    with pytest.raises(onnxfold.PlanError, match="cannot be reached"):
        widths(target_macs=0.5, device="qnn-int8")  # most groups have 32 channels


def test_multiples_by_what_computes_a_group() -> None:
    """A group of one block may be halved; matrix products have blocks of their own."""
    for path, kinds in ((RESNET, {16}), (MLP, {8})):
        subject = subject_of(path, PlanningOptions())
        layout = subject.merger(PlanningOptions()).layout
        goal = Goal(Aim.MACS, 0.5, 8, blocks=BLOCKS[Device.PORTABLE])
        found = {w.multiple for w in layout.widths(subject.chosen, goal) if w.size > 16}
        assert found == kinds
        assert {w.multiple for w in layout.widths(subject.chosen)} == {1}


@pytest.mark.parametrize("value", [0, -8, "8", "automatic", None, 1.5])
def test_what_widths_cannot_be_rounded_to(value: Any) -> None:
    with pytest.raises(RequestError, match="`round_to` must be a whole number of at least 1, or 'auto'"):
        SelectionOptions(round_to=value)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(RESNET), "out.onnx", "--ratio", "0.3", "--device", "toaster"]) == 2
    assert "invalid choice: 'toaster'" in capsys.readouterr().err
    assert main([str(RESNET), "out.onnx", "--ratio", "0.3", "--device", "avx512", "--round-to", "4"]) == 2
    assert "--device and --round-to both set what widths are rounded to" in capsys.readouterr().err
    assert main([str(RESNET), "out.onnx", "--ratio", "0.3", "--round-to", "x"]) == 2
    assert "give a whole number like 8, or auto, not 'x'" in capsys.readouterr().err
