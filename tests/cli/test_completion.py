"""`onnxfold completion`: bash, zsh and fish themselves run the scripts."""

from __future__ import annotations

import os
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
    "onnxfold inspect a.onnx --rat|": set(),
    "onnxfold drop a.onnx b.onnx --drop|": {"--drop-blocks"},
    "onnxfold a.onnx b.onnx --preprocess i|": {"imagenet"},
    "onnxfold sweep a.onnx --allow int8|": {"int8", "int8-dynamic", "int8-weights"},
    "onnxfold a.onnx b.onnx --device a|": {"avx512", "arm64"},
    "onnxfold compare --providers cu|": {"cuda"},
    "onnxfold a.onnx b.onnx --round-to a|": {"auto"},
}
TYPED = {
    "onnxfold swe": "onnxfold sweep ", "onnxfold a.onnx b.onnx --target-ma": "onnxfold a.onnx b.onnx --target-macs ",
    "onnxfold a.o": "onnxfold a.onnx ", "onnxfold a.onnx c": "onnxfold a.onnx c.npz ",
    "onnxfold fold a.onnx b.onnx --effort ba": "onnxfold fold a.onnx b.onnx --effort balanced ",
    "onnxfold quantize a.onnx b.onnx --preprocess im": "onnxfold quantize a.onnx b.onnx --preprocess imagenet ",
    "onnxfold sweep a.onnx --allow ref": "onnxfold sweep a.onnx --allow refine ",
    "onnxfold sweep a.onnx --device arm": "onnxfold sweep a.onnx --device arm64 ",
    "onnxfold compare --calibration c": "onnxfold compare --calibration c.npz ",
}  # fmt: skip
"""What stands on the line of zsh after a tab: of words that can only go on in one way."""
ZSH = """\
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D'
zpty -w shell 'seen() { print -r -- "$BUFFER" > seen.part; mv seen.part seen }; zle -N seen; bindkey "^X" seen'
for typed in "$@"; do
    zpty -w -n shell $'\\C-U'"$typed"$'\\t\\C-X'
    for _ in {1..200}; do [[ -e seen ]] && break; sleep 0.1; done
    cat seen; rm seen
done
zpty -d shell
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("completion")
    for name in ("a.onnx", "c.npz"):
        (made / name).touch()
    (made / "functions").mkdir()
    for shell, name in (("bash", "script"), ("zsh", "functions/_onnxfold"), ("fish", "script.fish")):
        with pytest.MonkeyPatch.context() as patch, (made / name).open("w", encoding="utf-8") as file:
            patch.setattr("sys.stdout", file)
            assert main(["completion", shell]) == 0
    return made


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("typed", COMPLETED)
def test_bash(typed: str, folder: Path) -> None:
    words = typed.removesuffix("|").split(" ")
    done = subprocess.run(
        ["bash", "-c", TRY, "bash", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert {line for line in done.stdout.splitlines() if line} == COMPLETED[typed]


def asked(command: list[str], folder: Path) -> list[str]:
    """The lines that a shell prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "HOME": str(folder)},
    )
    return done.stdout.splitlines()


def test_bash_completes_the_first_file(folder: Path) -> None:
    """Which the function above leaves to readline."""
    lines = (folder / "script").read_text(encoding="utf-8").splitlines()
    assert lines[-1] == "complete -o bashdefault -o default -F _shtab_onnxfold onnxfold"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh(folder: Path) -> None:
    """An interactive one, with a terminal."""
    lines = asked(["zsh", "-f", "-c", ZSH, "zsh", *TYPED], folder)
    assert dict(zip(TYPED, lines, strict=True)) == TYPED


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish(folder: Path) -> None:
    """Which offers files beside commands, so those are left out where none is meant."""
    more = {"onnxfold a|": {"a.onnx"}, "onnxfold a.onnx c|": {"c.npz"}}
    typed = [line.removesuffix("|") for line in (*COMPLETED, *more)]
    ask = 'source script.fish; for typed in $argv; complete -C "$typed"; echo ----; end'
    parts = "\n".join(asked(["fish", "--no-config", "-c", ask, *typed], folder)).split("----")
    found = [{line.partition("\t")[0] for line in part.splitlines() if line} for part in parts]
    for (line, words), one in zip([*COMPLETED.items(), *more.items()], found, strict=False):
        assert one >= words and all((folder / file).exists() for file in one - words), line
        assert one == words or line == "onnxfold |", "files beside commands alone"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_says_how_it_is_installed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    head = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in head) and (shell != "zsh" or head[0] == "#compdef onnxfold")
    assert any(f"onnxfold completion {shell} > ~/" in line for line in head) and "Usage" not in "".join(head)


@pytest.mark.parametrize("shell", SHELLS)
def test_all_shells_have_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, *SPELLED, "target-macs", "fuse", "allow"):
        assert word in script


def test_no_such_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean bash?" in capsys.readouterr().err
