"""Files of options, plans and preprocessing that were made to do harm, and outputs that would replace them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny import MODELS

import onnxfold
from onnxfold.cli.main import main
from onnxfold.errors import RequestError

MODEL = str(MODELS / "digits_mlp.onnx")
QUICK = [MODEL, "out.onnx", "--effort", "fast", "-q"]
LAUGHS = "exclude: [" + "&a [x, x], " + ", ".join(f"&b{i} [{', '.join(['*a'] * 9)}]" for i in range(40)) + "]"
HARMFUL = {
    "aliases": ("o.yaml", LAUGHS, "no aliases"),
    "a tag": ("o.yaml", 'quiet: !!bool "x"', "no tags"),
    "a key twice, deep": ("o.yaml", "group-ratio: {fc: .3, fc: .4}", "'fc' is there twice"),
    "a key in two spellings": ("o.yaml", "target-macs: .9\ntarget_macs: .6", "'target-macs' is there twice"),
    "a key twice in JSON": ("o.json", '{"ratio": 0.9, "ratio": 0.6}', "'ratio' is there twice"),
    "a zero byte": ("o.json", '{"report": "a\\u0000.json"}', "a character that no option may have"),
    "half a character": ("o.json", '{"save-plan": "\\ud800"}', "a character that no option may have"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*QUICK, *arguments]) == 2 and not Path("out.onnx").exists()
    line = capsys.readouterr().err
    assert line.startswith("onnxfold: ") and line.count("\n") == 1
    return line


@pytest.mark.parametrize("how", HARMFUL)
def test_options_that_do_harm(capsys: pytest.CaptureFixture[str], how: str) -> None:
    name, text, says = HARMFUL[how]
    Path(name).write_text(text, encoding="utf-8")
    assert says in refused(capsys, "--config", name)


@pytest.mark.parametrize("option", ["--config", "--plan", "--preprocess"])
def test_pipes_are_not_waited_for(capsys: pytest.CaptureFixture[str], option: str) -> None:
    os.mkfifo("pipe.json")
    Path("images").mkdir()
    more = ["--calibration", "images", "--ratio", "0.3"] if option == "--preprocess" else []
    assert "not a" in refused(capsys, option, "pipe.json", *more)


@pytest.mark.parametrize(
    ("option", "text", "more"),
    [("--config", '{"ratio": 0.3}', []), ("--plan", None, []), ("--preprocess", "{}", ["--ratio", "0.3"])],
)
@pytest.mark.parametrize("written", ["--report", "--save-plan"])
def test_what_is_read_is_not_written_over(
    capsys: pytest.CaptureFixture[str], option: str, text: str | None, more: list[str], written: str
) -> None:
    if text is None:
        onnxfold.fold(MODEL, ratio=0.3, save_plan="own.json", effort="fast")
    else:
        Path("own.json").write_text(text, encoding="utf-8")
    before = Path("own.json").read_bytes()
    assert "would overwrite" in refused(capsys, option, "own.json", written, "own.json", *more)
    assert Path("own.json").read_bytes() == before
    if option == "--plan":
        with pytest.raises(RequestError, match="would overwrite the plan"):
            onnxfold.fold(MODEL, plan="own.json", save_plan="own.json", effort="fast")


def test_numbers_without_end_beside_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that nobody named, and that cannot be used, does no harm."""
    Path("m.onnx").write_bytes(Path(MODEL).read_bytes())
    said = '{"do_resize": true, "resample": Infinity, "image_mean": [0.5], "image_std": [0.5]}'
    Path("preprocessor_config.json").write_text(said, encoding="utf-8")
    assert main(["m.onnx", "out.onnx", "--effort", "fast", "--ratio", "0.3", "-q"]) == 0


def test_names_that_yaml_would_fold_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x\x85y.onnx", "out.onnx", "--print-config"]) == 0
    Path("o.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["--config", "o.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == Path("o.yaml").read_text(encoding="utf-8")
