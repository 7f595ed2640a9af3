"""Commands that are spelled with options, and words that argparse would take for something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import FAST, net, write

from onnxfold.cli import fold, fuse
from onnxfold.cli.commands import chosen
from onnxfold.cli.main import main
from onnxfold.cli.parser import with_values
from onnxfold.cli.spelled import OWN_HELP
from onnxfold.errors import RequestError


@pytest.mark.parametrize(
    ("given", "command", "words"),
    [
        ("fold a b", fold, "a b"),
        ("inspect a", fold, "--inspect a"),
        ("share a b", fuse, "--fuse=mean a b"),
        ("share a b --fuse mix", fuse, "a b --fuse mix"),
        ("drop a b --drop-blocks 2", fuse, "a b --drop-blocks 2"),
        ("drop --help", fuse, "--drop-blocks=1 --help"),
        ("quantize a b", fold, "--ratio=0 --quantize=int8 a b"),
        ("quantize a b --quantize int4", fold, "--ratio=0 a b --quantize int4"),
        ("help drop", fuse, "--drop-blocks=1 --help"),
    ],
)
def test_what_they_stand_for(given: str, command: object, words: str) -> None:
    found, rest = chosen(given.split())
    assert getattr(found, "base", found) is command and list(rest) == words.split()


def test_what_a_file_sets_counts() -> None:
    assert list(chosen(["share", "a", "b"], {"--fuse"})[1]) == ["a", "b"]
    assert chosen(["drop", "a", "b"], {"--drop-blocks"})[0] is OWN_HELP["drop"]
    with pytest.raises(RequestError, match="say how many"):
        chosen(["drop", "a", "b"])


def test_quantize_folds_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    given = ["quantize", str(path), str(tmp_path / "out.onnx"), "--quantize", "fp16", "-q", *FAST]
    assert main(given) == 0
    before, after = (onnx.load(tmp_path / name).graph.initializer for name in ("in.onnx", "out.onnx"))
    floats = [t for t in after if len(t.dims) > 1]
    assert {tuple(t.dims) for t in floats} == {tuple(t.dims) for t in before if len(t.dims) > 1}
    assert {t.data_type for t in floats} == {onnx.TensorProto.FLOAT16}


def test_one_that_becomes_another_command_is_that() -> None:
    assert chosen(["quantize", "a", "b", "--fuse", "mean"])[0] is fuse
    assert chosen(["fold", "a", "b"])[0] is fold


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--preprocess", "-1-1", "a"], ["--preprocess=-1-1", "a"]),
        (["a", "--preprocess", "-1-1,nhwc"], ["a", "--preprocess=-1-1,nhwc"]),
        (["--preprocess", "--quiet"], ["--preprocess", "--quiet"]),
        (["--", "--preprocess", "-1-1"], ["--", "--preprocess", "-1-1"]),
        (["--quantize", "int16"], ["--quantize", "int16"]),
        (["--quantize", "in.onnx"], ["--quantize=int8", "in.onnx"]),
    ],
)
def test_values_that_look_like_options(given: list[str], found: list[str]) -> None:
    assert with_values(given) == found


def test_minus_one_to_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With images, all the way."""
    path = write(tmp_path / "in.onnx", net())
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8))
    given = [str(path), str(path), "--calibration", str(tmp_path / "c.npz"), "--preprocess", "-1-1"]
    assert main(["compare", *given]) == 0
    assert "16 samples of c.npz" in capsys.readouterr().out


@pytest.mark.parametrize("amount", ["--ratio 0.3", "--target-macs=0.7", "--plan p.json", "--max-error 5%"])
def test_quantize_refuses_to_fold(amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "a.onnx", "b.onnx", *amount.split()]) == 2
    option = amount.replace("=", " ").split()[0]
    assert f"quantize folds no channels: to fold too, say onnxfold IN OUT {option}" in capsys.readouterr().err


def test_inspect_goes_by_a_file_of_options_for_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.onnx")
    assert main([str(path), "out.onnx", "--ratio", "0.3", "--print-config"]) == 0
    (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
    assert main(["inspect", str(path), "--config", str(tmp_path / "c.yaml")]) == 0
