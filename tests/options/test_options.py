"""Options: checked when made, what does not go together, to dicts and back, and instead of keywords."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from tiny import MODELS, net

import onnxfold
from onnxfold import (
    Aim,
    Budget,
    CalibrationOptions,
    DistillOptions,
    FoldOptions,
    FuseOptions,
    Fusion,
    Limits,
    Method,
    OutputOptions,
    Preprocess,
    QuantizeOptions,
    RankOptions,
    RecoveryOptions,
    RequestError,
    RuntimeOptions,
    ScaleOptions,
    SelectionOptions,
    SharingOptions,
    SweepOptions,
)

FULL = FoldOptions(
    budget=Budget.ratio(0.3, {"mlp": 0.5}),
    selection=SelectionOptions(method=Method.FOLD, include=("conv",), round_to=4, fold_heads=True),
    calibration=CalibrationOptions(data="my.npz", samples=64, preprocess=Preprocess.parse("0.5,127.5/255,nchw")),
    distill=DistillOptions(steps=20),
    quantize=QuantizeOptions(),
    runtime=RuntimeOptions(providers=("cpu",), input_shapes={"x": (1, 3, 8, 8)}, seed=7, latency=False),
    output=OutputOptions(path="out.onnx", external_data=True),
    scale=ScaleOptions(max_memory=2**30, jobs=2),
)


@pytest.mark.parametrize(
    "options",
    [
        FoldOptions(), FULL, FuseOptions(), SweepOptions(at=(0.5,)), RankOptions(whole=True),
        FuseOptions.of(how="mix", share=0.25, drop_blocks=2, folding={"ratio": 0.3}, refine=True),
        *(FoldOptions(budget=Budget(aim, 0.5)) for aim in Aim if aim not in (Aim.DROP, Aim.PLAN)),
    ],
)  # fmt: skip
def test_to_a_dict_and_back(options: Any) -> None:
    plain = options.to_dict()
    assert json.loads(json.dumps(plain)) == plain, "plain values only"
    assert type(options).from_dict(plain) == options
    assert pickle.loads(pickle.dumps(options)) == options


def test_from_keywords() -> None:
    found = FoldOptions.of(
        ratio=0.3, group_ratios={"mlp": 0.5}, method="fold", include="conv", round_to=4, fold_heads=True,
        calibration="my.npz", samples=64, preprocess="0.5,127.5/255,nchw", refine=True, steps=20, quantize=True,
        providers="cpu", input_shapes={"x": [1, 3, 8, 8]}, seed=7, latency=False, output="out.onnx",
        external_data=True, max_memory=2**30, jobs=2,
    )  # fmt: skip
    assert found == FULL


def test_nothing_changes_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.selection.round_to = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: SelectionOptions(round_to=0), "round_to"),
        (lambda: CalibrationOptions(save_synthetic=3), "save_synthetic"),  # type: ignore[arg-type]
        (lambda: RecoveryOptions(level="best"), "level"),  # type: ignore[arg-type]
        (lambda: OutputOptions(path=""), "path"),
        (lambda: replace(FULL, selection=None), "selection"),
        (lambda: replace(FULL, budget=0.3), "budget"),
        (lambda: FoldOptions(distill=True), "distill"),  # type: ignore[arg-type]
        (lambda: Budget.macs(0), "target_macs"),
        (lambda: Budget.ratio(1), "ratio"),
        (lambda: Budget(Aim.MACS, None), "target_macs"),  # type: ignore[arg-type]
        (lambda: Budget("macs", 0.5), "aim"),  # type: ignore[arg-type]
        (lambda: Budget(Aim.PLAN, 0.5), "plan"),
        (lambda: FuseOptions.of(save_plan="p.json"), "save_plan"),
        (lambda: FoldOptions.of(target_size=0.5, allow="all", save_plan="p.json"), "save_plan"),
        (lambda: Budget(Aim.MACS, 0.5, {"a": 0.1}), "group_ratios"),
        (lambda: Budget.of(target_mac=0.5), "target_mac"),
        (lambda: Limits(share=0.5, target_size=0.5), "share"),
        (lambda: Limits(max_error=0), "max_error"),
        (lambda: SharingOptions(how=Fusion.MEAN, drop_blocks="x"), "drop_blocks"),
        (lambda: FoldOptions.of(ratio=0.3, target_macs=0.5), "ratio"),
        (lambda: FoldOptions.of(steps=20), "steps"),
        (lambda: FoldOptions.from_dict({"selectoin": {}}), "selectoin"),
        (lambda: FoldOptions.from_dict({"selection": {"round_t": 4}}), "round_t"),
        (lambda: FoldOptions.from_dict({"budget": {"target_macs": 2}}), "target_macs"),
        (lambda: SweepOptions.of(refine=True), "refine"),
        (lambda: FuseOptions.of(how=None, drop_blocks=1, max_error=0.1), "max_error"),
        (lambda: SharingOptions(how=None, drop_blocks="1", limits=Limits(share=0.2)), "share"),
        (lambda: FuseOptions.of(folding={1: 2}), "folding"),
        (lambda: Budget.from_dict({1: 2}), "budget"),  # type: ignore[dict-item]
        (lambda: Budget.from_dict(None), "budget"),  # type: ignore[arg-type]
        (lambda: Limits.from_dict([]), "limits"),  # type: ignore[arg-type]
        (lambda: FoldOptions(budget=np.zeros((3, 3))), "budget"),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused_names_its_field(made: Any, name: str) -> None:
    with pytest.raises(RequestError, match=f"`{name}`") as caught:
        made()
    assert "\n" not in str(caught.value)


def test_sharing_has_the_limit_of_its_keywords() -> None:
    assert FuseOptions() == FuseOptions.of() and FuseOptions().sharing.limits.max_error == 0.1
    assert FuseOptions.of(how=None, drop_blocks=1).sharing.limits.given == ()


def test_arrays_cannot_be_written_down() -> None:
    options = FoldOptions.of(calibration={"x": np.zeros((4, 3), np.float32)})
    with pytest.raises(RequestError, match="`data` holds a ndarray, which cannot be written down"):
        options.to_dict()


def test_options_instead_of_keywords() -> None:
    options = FoldOptions.of(ratio=0.5, effort="fast", latency=False)
    by_options, by_keywords = (
        onnxfold.fold(net(), options=options),
        onnxfold.fold(net(), ratio=0.5, effort="fast", latency=False),
    )
    assert by_options.model == by_keywords.model and by_options.report.settings == by_keywords.report.settings
    with pytest.raises(RequestError, match="not both"):
        onnxfold.fold(net(), options=options, seed=3)
    with pytest.raises(RequestError, match="`options` must be FoldOptions"):
        onnxfold.fold(net(), options=options.to_dict())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="`options` must be SweepOptions"):
        onnxfold.sweep(MODELS / "digits_mlp.onnx", options=options)  # type: ignore[arg-type]
