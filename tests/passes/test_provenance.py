"""The result says where it comes from, in three entries of its metadata, and nothing else of it changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from tiny import FAST, MODELS, net, write

import onnxfold
from onnxfold.cli.main import main
from onnxfold.model.metadata import entry_bytes
from onnxfold.passes.provenance import OPTIONS, SOURCE, VERSION

QUICK: dict[str, Any] = {"ratio": 0.5, "effort": "fast", "latency": False}


def entries(model: ModelProto | Path) -> dict[str, str]:
    proto = onnx.load(model) if isinstance(model, Path) else model
    return {entry.key: entry.value for entry in proto.metadata_props}


def with_notes(path: Path) -> Path:
    """A model with metadata of the user's own."""
    proto = net()
    proto.metadata_props.add(key="author", value="somebody")
    proto.metadata_props.add(key="onnx", value="fold")
    return write(path, proto)


def test_three_entries_and_nothing_else(tmp_path: Path) -> None:
    source = with_notes(tmp_path / "in.onnx")
    noted, plain = (
        onnxfold.fold(source, tmp_path / f"{there}.onnx", **QUICK, provenance=there).model for there in (True, False)
    )
    found = entries(noted)
    assert list(found) == ["author", "onnx", VERSION, OPTIONS, SOURCE] and entries(tmp_path / "True.onnx") == found
    assert found[VERSION] == onnxfold.__version__
    assert found[SOURCE] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert json.loads(found[OPTIONS]) == {"budget": {"ratio": 0.5}, "calibration": {"effort": "fast"}}
    del noted.metadata_props[2:]
    assert noted == plain and list(entries(plain)) == ["author", "onnx"]


def test_a_model_in_memory_has_no_file() -> None:
    assert list(entries(onnxfold.fold(net(), **QUICK).model)) == [VERSION, OPTIONS]


def test_another_fold_says_so_anew(tmp_path: Path) -> None:
    source = with_notes(tmp_path / "in.onnx")
    once = tmp_path / "once.onnx"
    onnxfold.fold(source, once, **QUICK)
    found = entries(onnxfold.fold(once, **{**QUICK, "round_to": 1, "ratio": 0.25}).model)
    assert list(found) == list(entries(once)) and found["author"] == "somebody"
    assert found[SOURCE] == hashlib.sha256(once.read_bytes()).hexdigest()
    assert json.loads(found[OPTIONS])["selection"] == {"round_to": 1}


def test_same_input_same_bytes(tmp_path: Path) -> None:
    """Whatever the number of threads and jobs, and wherever files lie."""
    (tmp_path / "other").mkdir()
    places = [with_notes(tmp_path / "in.onnx"), with_notes(tmp_path / "other" / "same.onnx")]
    more: list[dict[str, Any]] = [{}, {"jobs": 2, "threads": 1, "external_data": False}]
    made = [
        onnxfold.fold(place, tmp_path / f"{i}.onnx", **QUICK, **given)
        for i, (place, given) in enumerate(zip(places, more, strict=True))
    ]
    assert len(made) == 2 and (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()


def test_no_place_and_no_secret(tmp_path: Path) -> None:
    images = tmp_path / "private.npz"
    np.savez(images, image=np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32))
    given = {"calibration": images, "ratio": 0.5, "latency": False, "metric": lambda _: 1.0, "providers": ["cpu"]}
    model = onnxfold.fold(MODELS / "digits_mlp.onnx", **given, quantize=True).model
    found = json.loads(entries(model)[OPTIONS])
    assert found == {"budget": {"ratio": 0.5}, "own_data": True, "quantize": "int8"}


def test_what_else_changes_a_result_is_told() -> None:
    """How numbers are stored, which steps were allowed, which widths; not who measured latency."""
    given = {"target_size": 0.5, "keep_bn": True, "device": "tensorrt", "latency_command": "ssh secret bench {model}"}
    found = onnxfold.FoldOptions.of(**given, allow=["fold", "fp16"]).recorded()
    widths = {"selection": {"device": "tensorrt"}, "output": {"keep_bn": True}}
    assert found == {"budget": {"target_size": 0.5}, "allow": ["fold", "fp16"], **widths}
    kinds = [cls.of(quantize="int4").recorded()["quantize"] for cls in (onnxfold.FoldOptions, onnxfold.FuseOptions)]
    assert kinds == ["int4", "int4"]


def test_shared_layers(tmp_path: Path) -> None:
    from alike import permuted_copy

    model = onnxfold.fuse(
        permuted_copy(), share=0.1, effort="fast", latency=False, folding={"ratio": 0.25, "round_to": 1}
    ).model
    assert json.loads(entries(model)[OPTIONS])["folding"]["budget"] == {"ratio": 0.25}


@pytest.mark.parametrize("off", [False, True])
def test_on_the_command_line(tmp_path: Path, off: bool) -> None:
    source, target = with_notes(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    given = [str(source), str(target), "--ratio", "0.5", "-q", *FAST, *(["--no-provenance"] if off else [])]
    assert main(given) == 0
    assert (VERSION in entries(target)) is not off
    onnxfold.fold(source, tmp_path / "python.onnx", **QUICK, provenance=not off)
    assert target.read_bytes() == (tmp_path / "python.onnx").read_bytes(), "the same, from wherever it is called"


def test_what_it_takes_is_counted() -> None:
    proto = net()
    size = proto.ByteSize()
    proto.metadata_props.add(key=VERSION, value="0.1.0")
    assert proto.ByteSize() == size + entry_bytes({VERSION: "0.1.0"})
