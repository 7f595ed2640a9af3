"""The table of docs/exit-codes.md is true for each of its lines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_signals import ended
from tiny import FAST, MODELS, ROOT, TEXT, main, net, write

from onnxfold.cli import main as cli

PAGE = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
LISTED = {int(c) for row in re.findall(r"^\| (\d[\d, ]*) \|", PAGE, re.M) for c in row.split(",")}
RESNET = str(MODELS / "digits_resnet_fused.onnx")
MLP = str(MODELS / "digits_mlp.onnx")


def written(folder: Path) -> bool:
    return (folder / "out.onnx").exists()


def unknown(folder: Path) -> str:
    """A model with an operator that onnxruntime lacks."""
    text = TEXT.replace("y = Gemm", "q = Gemm").replace("}", "y = custom.Odd (q)\n}")
    return str(write(folder / "odd.onnx", net(text)))


def nothing(folder: Path) -> str:
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [2, 3]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return str(write(folder / "relu.onnx", made))


def quantized(folder: Path) -> str:
    """In INT8 already."""
    data = folder / "c.npz"
    np.savez(data, image=np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32))
    given = ["--ratio", "0.2", "--quantize", "--calibration", str(data), "-q"]
    assert main([MLP, str(folder / "int8.onnx"), *given]) == 0
    return str(folder / "int8.onnx")


ENDS: dict[str, tuple[int, bool, Callable[[Path], list[str]]]] = {
    "folded": (0, True, lambda _: [MLP, "--ratio", "0.3", *FAST]),
    "over what is usual, by a ratio": (0, True, lambda _: [MLP, "--ratio", "0.5", "--recovery", "none", *FAST]),
    "lost, by a ratio": (1, True, lambda _: [RESNET, "--ratio", "0.75", "--recovery", "none", *FAST]),
    "not measured": (1, False, lambda folder: [unknown(folder), "--ratio", "0.5", *FAST]),
    "not measured, and allowed": (
        0, True, lambda folder: [unknown(folder), "--ratio", "0.5", "--allow-unmeasured", *FAST],
    ),
    "no such option": (2, False, lambda _: [MLP, "--nonsense"]),
    "no such share": (2, False, lambda _: [MLP, "--ratio", "1.5"]),
    "a provider that is not here": (2, False, lambda _: [MLP, "--ratio", "0.5", "--providers", "tensorrt"]),
    "out of reach": (2, False, lambda _: [MLP, "--target-params", "0.0001", *FAST]),
    "no model": (3, False, lambda folder: [str(folder / "none.onnx")]),
    "nothing to fold": (4, False, lambda folder: [nothing(folder)]),
    "a limit that lets nothing go": (4, False, lambda _: [RESNET, "--max-error", "0", *FAST]),
    "quantized already": (5, False, lambda folder: [quantized(folder), "--ratio", "0.5", "--quantize"]),
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_ends(tmp_path: Path, how: str) -> None:
    code, there, given = ENDS[how]
    model, *options = given(tmp_path)
    assert main([model, str(tmp_path / "out.onnx"), *options, "-q"]) == code
    assert written(tmp_path) == there and code in LISTED


def test_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("onnxfold.api.fold", broken)
    assert cli.main([MLP, str(tmp_path / "out.onnx"), "--ratio", "0.3"]) == 70 and 70 in LISTED


@pytest.mark.parametrize(("name", "code"), [("SIGHUP", 129), ("SIGINT", 130), ("SIGTERM", 143)])
def test_signals(tmp_path: Path, name: str, code: int) -> None:
    write(tmp_path / "in.onnx")
    assert ended(tmp_path, name)[0] == code and code in LISTED


def test_no_other_code_is_listed() -> None:
    assert {code for code, _, _ in ENDS.values()} | {70, 129, 130, 143} == LISTED
