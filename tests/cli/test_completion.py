"""`onnxfold completion`: bash runs the script."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from onnxfold.cli.commands import COMMANDS, SPELLED
from onnxfold.cli.completion import SHELLS
from onnxfold.cli.main import main

TRY = """\
. ./script
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_onnxfold 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
COMPLETED: dict[str, set[str]] = {
    "onnxfold |": {*COMMANDS, *SPELLED},
    "onnxfold sw|": {"sweep"},
    "onnxfold a.onnx b.onnx --target-m|": {"--target-macs"},
    "onnxfold a.onnx b.onnx --fuse |": {"mean", "mix", "freeze"},
    "onnxfold fold a.onnx b.onnx --effort b|": {"balanced", "best"},
    "onnxfold sweep a|": {"a.onnx"},
    "onnxfold sweep a.onnx --ratio|": set(),
    "onnxfold compare --calibration c|": {"c.npz"},
    "onnxfold layers a.onnx --distance co|": {"cosine", "covariance"},
    "onnxfold cache |": {"show", "clear"},
    "onnxfold completion |": set(SHELLS),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("completion")
    for name in ("a.onnx", "c.npz"):
        (made / name).touch()
    with pytest.MonkeyPatch.context() as patch, (made / "script").open("w", encoding="utf-8") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return made


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("typed", COMPLETED)
def test_bash(typed: str, folder: Path) -> None:
    words = typed.removesuffix("|").split(" ")
    done = subprocess.run(
        ["bash", "-c", TRY, "bash", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert {line for line in done.stdout.splitlines() if line} == COMPLETED[typed]


@pytest.mark.parametrize("shell", SHELLS)
def test_all_shells_have_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, *SPELLED, "target-macs", "fuse", "allow"):
        assert word in script


def test_no_such_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean bash?" in capsys.readouterr().err
