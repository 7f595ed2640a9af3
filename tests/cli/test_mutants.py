"""Broken model files of all kinds, read in a child process (mutants/): refused in plain words, or folded, nothing else.
`benchmarks/mutations.py` does the same with thousands, of more models."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from helpers import model
from mutants import DATA, Runner, mutant
from onnx import TensorProto, helper
from tiny import MODELS, net, write

COUNT = 150
SMALL = ("digits_mobilenet", "digits_resnet_fused", "digits_mlp")


def test_mutants_end_well(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    contents = [net().SerializeToString(), *((MODELS / f"{name}.onnx").read_bytes() for name in SMALL)]
    (tmp_path / DATA).write_bytes(bytes(4096))
    path = tmp_path / "in.onnx"
    with Runner() as runner:
        for seed in range(COUNT):
            content, what = mutant(contents[seed % len(contents)], seed)
            path.write_bytes(content)
            result = runner.read(path, fold=seed % 5 == 0)
            assert result.clean, f"seed {seed}, {what}: {result}"
            ends[result.end] += 1
    assert ends["refused"] > COUNT / 4 and ends["inspected"] + ends["folded"] > COUNT / 8, ends


def test_mutants_are_the_same_every_time() -> None:
    content = net().SerializeToString()
    assert all(mutant(content, seed) == mutant(content, seed) for seed in range(40))
    assert len({mutant(content, seed)[1] for seed in range(200)}) > 15


def test_a_dead_child_is_noticed(tmp_path: Path) -> None:
    """And the next file is read by a new one."""
    path = write(tmp_path / "in.onnx")
    with Runner() as runner:
        assert runner.read(path, fold=False).end == "inspected"
        assert runner.pid is not None
        os.kill(runner.pid, signal.SIGSEGV)
        found = runner.read(path, fold=False)
        assert (found.end, found.error) == ("crashed", str(-signal.SIGSEGV))
        assert runner.read(path, fold=False).end == "inspected"


def test_a_slow_child_and_a_large_one_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    with Runner(seconds=0.05) as runner:
        assert runner.read(path, fold=False).end == "slow"
    with Runner(megabytes=10) as runner:
        assert runner.read(path, fold=False).end == "large"


@pytest.mark.parametrize("how", ["raise KeyError('x')", "raise SystemExit(0)"])
def test_an_exception_that_is_ours_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """By the worker itself: nothing but a result or an OnnxFoldError is clean."""
    from mutants import worker

    def broken(*_: object, **__: object) -> None:
        exec(how)

    monkeypatch.setattr("onnxfold.inspect", broken)
    assert worker.read(str(write(tmp_path / "in.onnx")), fold=False)["end"] == "raised"


@pytest.mark.parametrize("length", [-1, 2**62])
def test_impossible_lengths_end_no_process(tmp_path: Path, length: int) -> None:
    """onnx aborts where a Slice meets -1, and may count to the other; exporters write -1 for open lengths."""
    text = """(float[N,3,D,8] x) => (float[N,5,E,F] y) {
        c = Slice(x, start, end, axis) h = Conv(c, w) r = Relu(h) y = Conv(r, v) }"""
    values = {"start": [0], "end": [4], "axis": [2]}
    proto = model(text, {"w": (8, 3, 3, 3), "v": (5, 8, 1, 1)}, values)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = length
    with Runner() as runner:
        assert runner.read(write(tmp_path / "in.onnx", proto), fold=length < 0).clean


def test_a_list_of_impossible_length_is_not_counted_through(tmp_path: Path) -> None:
    text = """(float[N,3,8,8] x) => (float[N,5,8,8] y) {
        h = Conv(x, w) s = Shape(h) r = Reshape(h, s) y = Conv(r, v) }"""
    proto = model(text, {"w": (8, 3, 1, 1), "v": (5, 8, 1, 1)})
    proto.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2**62]))
    with Runner() as runner:
        assert runner.read(write(tmp_path / "in.onnx", proto), fold=True).clean
