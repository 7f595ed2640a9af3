"""Every parameter refuses what it may not be, in one line that names it as Python spells it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MODELS

import onnxfold
from onnxfold import Effort, Fusion, Layout, Method, Preprocess, Recovery, RequestError
from onnxfold.options.keywords import CompareKeywords, FoldKeywords, FuseKeywords, RankKeywords, SweepKeywords
from onnxfold.options.parameters import PARAMETERS, checked

SHARES = ("ratio", "target_params", "target_macs", "target_size", "target_latency", "max_error", "min_agreement")
FLAGS = (
    "fold_heads", "fold_residual", "refine", "quantize", "latency", "external_data", "resume", "whole", "align",
    "allow_unmeasured", "provenance",
)  # fmt: skip
WRONG: dict[str, list[Any]] = {
    **{name: ["0.3", -0.1, 1.5, math.nan, math.inf, True, [0.3], object(), 1j] for name in SHARES},
    "max_drop": ["0.3", -0.1, math.nan, math.inf, True, [0.3]],
    "metric": ["own.py", "own.py:", ":f", "own.py:f()", "own:f", "a\0b.py:f", 3, ["own.py:f"], Path("own.py")],
    "metric_timeout": [0, -1, math.nan, math.inf, "5", None, True],
    "group_ratios": ["mlp=0.5", {"(": 0.5}, {"mlp": 1.0}, {"mlp": "x"}, {1: 0.5}, [("mlp", 0.5)]],
    "plan": ["p.json", Path("p.json"), 3, [("a", 8)], {1: 8}, {"a": "8"}, {"a": 0}, {"keep": {}, "kind": 1}],
    "save_plan": [3, "", b"p.json"],
    "method": ["nonsense", 3, Effort.FAST],
    "clusterer": ["nonsense", 0],
    "include": [3, [3], "(", ["a", "("], {"a": 1}, b"a"],
    "exclude": [3, [None], "["],
    "round_to": [0, -8, 2.5, "8", True],
    "samples": [0, -1, 1.5, "128", None],
    "preprocess": ["0.5,...", "imagenet?", 0.5, (0.5, 0.5), "0.5,0.5,nchw,x", "1,0,nchw"],
    "effort": ["slow", 1, None],
    "synthetic": [3, "", b"x.npz"],
    "recovery": ["nonsense", 2],
    "steps": [0, -5, 1.5, "20", True],
    "providers": [3, ["cpu", 3], {"cpu": 1}],
    "input_shapes": ["x:1,3", {"x": "1,3"}, {"x": (1, "N")}, {"x": (1, -3)}, {"x": 3}, {3: (1,)}, [("x", (1,))]],
    "seed": [-1, 2**32, 1.5, "0", None],
    "threads": [-1, 5000, "2"],
    "output": [3, "", b"out.onnx"],
    "max_memory": ["4G", 0, 1.5],
    "jobs": [0, 5000, "2"],
    "scheduler": [3, None],
    "device": ["toaster", 3],
    "keep_bn": [1, None, "yes"],
    "latency_command": ["bench", "{model}", "bench '{model}", 3],
    "latency_timeout": [0, -1, math.inf, "5", None],
    "allow": [[], ["int3"], 3, None, "everything", ["fold", 1]],
    "at": [[], [0], [1.1], "0.5", 0.5, [math.nan], ["x"]],
    "how": ["nonsense", 3],
    "distance": ["nonsense", None],
    "share": [0, 1.5, "25%"],
    "drop_blocks": [0, -1, 2.5, "x", "0%", "200%", [1]],
    **{name: [1, "yes", None, 0.0] for name in FLAGS},
}  # fmt: skip


def test_every_parameter_is_tried() -> None:
    assert set(WRONG) == set(PARAMETERS) - {"calibration"}, "calibration is judged by those who read it"
    kinds = (FoldKeywords, FuseKeywords, SweepKeywords, RankKeywords, CompareKeywords)
    keywords = {name for kind in kinds for name in kind.__annotations__}
    assert keywords - {"folding"} == set(PARAMETERS) - {"output", "at"}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, wrong in WRONG.items() for value in wrong])
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"`{name}`") as caught:
        checked(name, value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("ratio", np.float32(0.5), 0.5),
        ("ratio", 0, 0.0),
        ("round_to", np.int64(4), 4),
        ("method", "fold", Method.FOLD),
        ("method", Method.FOLD, Method.FOLD),
        ("how", None, None),
        ("how", "mix", Fusion.MIX),
        ("recovery", "none", Recovery.NONE),
        ("include", "conv", ("conv",)),
        ("include", ["a", "b"], ("a", "b")),
        ("synthetic", Path("a") / "b.npz", str(Path("a") / "b.npz")),
        ("input_shapes", {"x": [1, np.int64(3)]}, {"x": (1, 3)}),
        ("at", [0.5, 0.9, 0.5], (0.9, 0.5)),
        ("drop_blocks", 3, "3"),
        ("drop_blocks", "25%", "25%"),
        ("latency", np.bool_(True), True),
        ("preprocess", "0.5,0.25,nhwc", Preprocess.parse("0.5,0.25,nhwc")),
        ("providers", "cpu", ("cpu",)),
    ],
)
def test_what_counts_as_right(name: str, given: Any, found: Any) -> None:
    value = checked(name, given)
    assert value == found and type(value) is type(found)


CALLS = {
    "fold": lambda **given: onnxfold.fold("no-such-model.onnx", **given),
    "fuse": lambda **given: onnxfold.fuse("no-such-model.onnx", **given),
    "sweep": lambda **given: onnxfold.sweep("no-such-model.onnx", **given),
    "rank_layers": lambda **given: onnxfold.rank_layers("no-such-model.onnx", **given),
    "inspect": lambda **given: onnxfold.inspect("no-such-model.onnx", **given),
    "compare": lambda **given: onnxfold.compare("no-such-model.onnx", "no-such-model.onnx", **given),
}


@pytest.mark.parametrize(
    ("call", "name", "value"),
    [
        ("fold", "ratio", "0.3"), ("fold", "preprocess", "0.5,..."), ("fold", "target_macs", 70), ("fold", "steps", 0),
        ("fold", "input_shapes", {"x": "1,3,224,224"}), ("fold", "max_memory", "4G"), ("fold", "output", 3),
        ("fold", "include", 3), ("fold", "seed", None), ("fuse", "share", 25), ("fuse", "drop_blocks", "x%"),
        ("fuse", "folding", 0.3), ("fuse", "distance", "near"), ("sweep", "at", 0.5), ("sweep", "method", "best"),
        ("rank_layers", "whole", "yes"), ("inspect", "exclude", ["("]), ("compare", "latency", "no"),
        ("compare", "inputs", [1, 2]), ("compare", "seed", -1),
    ],
)  # fmt: skip
def test_the_functions_name_what_is_wrong_before_they_read_the_model(call: str, name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"`{name}`"):
        CALLS[call](**{name: value})


@pytest.mark.parametrize("model", [None, 5, [], b"x", {}, "a\0b"])
@pytest.mark.parametrize("call", ["fold", "inspect", "sweep"])
def test_what_is_no_model(call: str, model: Any) -> None:
    with pytest.raises(RequestError, match="`model` must be the path"):
        getattr(onnxfold, call)(model)


@pytest.mark.parametrize(
    ("mean", "std", "layout"),
    [(None, (0.5,), Layout.NCHW), (0.5, (0.5,), Layout.NCHW), (("x",), (0.5,), Layout.NCHW), ((0.5,), (0.5,), "nchw"),
     ((True,), (0.5,), Layout.NCHW), ({0.5: 1}, (0.5,), Layout.NCHW), ((0.5,), (0.5,), 1)],
)  # fmt: skip
def test_what_is_no_preprocessing(mean: Any, std: Any, layout: Any) -> None:
    with pytest.raises(RequestError, match="of a Preprocess must be"):
        Preprocess(mean, std, layout)


def test_preprocessing_as_text_and_back() -> None:
    made = Preprocess([np.float64(0.5)], (0.25, np.float32(0.5), 1), Layout.NHWC)  # type: ignore[arg-type]
    assert Preprocess.parse(str(made)) == made and made.mean == (0.5,)


@pytest.mark.parametrize("inputs", [{"y": np.zeros((1, 64), np.float32)}, {}])
def test_inputs_of_a_comparison_are_those_of_the_model(inputs: Any) -> None:
    with pytest.raises(RequestError, match="`inputs`"):
        onnxfold.compare(MODELS / "digits_mlp.onnx", MODELS / "digits_mlp.onnx", inputs=inputs)


@pytest.mark.parametrize(
    ("call", "name", "near"),
    [("fold", "ratoi", "ratio"), ("fold", "target_mac", "target_macs"), ("fuse", "sahre", "share"),
     ("sweep", "calibrate", "calibration"), ("rank_layers", "distances", "distance"), ("fuse", "quantise", "quantize")],
)  # fmt: skip
def test_an_unknown_keyword_gets_a_suggestion(call: str, name: str, near: str) -> None:
    with pytest.raises(RequestError, match=f"{call} has no `{name}`: did you mean `{near}`"):
        CALLS[call](**{name: 1})
