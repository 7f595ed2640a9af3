"""What is said where onnxruntime is missing, broken, or there twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import MODELS

import onnxfold
from onnxfold.errors import RequestError
from onnxfold.runtime import builds, session
from onnxfold.runtime.builds import unusable
from onnxfold.runtime.session import SHORT, resolve_providers

GONE = ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")


def having(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(builds, "packages_distributions", lambda: {"onnxruntime": [*names, *names], "onnx": ["onnx"]})


def test_the_build_that_is_here_is_found() -> None:
    assert builds.installed() and all(name.startswith("onnxruntime") for name in builds.installed())


@pytest.mark.parametrize(
    ("names", "error", "said"),
    [
        ([], GONE, "onnxruntime is not installed: pip install 'onnxfold[cpu]'"),
        (
            ["onnxruntime_gpu"],
            ImportError("libcudart.so.13: no\nsuch file"),
            "onnxruntime-gpu does not start here (lib",
        ),
        (["onnxruntime-gpu"], None, "in part: pip uninstall -y onnxruntime-gpu && pip install onnxruntime-gpu"),
        ([], None, "onnxruntime is there only in part: pip uninstall -y onnxruntime && pip install onnxruntime"),
        (
            ["onnxruntime-gpu", "onnxruntime"],
            None,
            "onnxruntime and onnxruntime-gpu are installed together and overwrite each other: pip uninstall -y "
            "onnxruntime onnxruntime-gpu && pip install 'onnxfold[cpu]'",
        ),
    ],
)
def test_an_onnxruntime_that_cannot_be_used(
    names: list[str], error: ImportError | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    having(monkeypatch, *names)
    assert said in unusable(error) and "\n" not in unusable(error)


@pytest.mark.parametrize(
    ("names", "provider", "said"),
    [
        (["onnxruntime"], "cuda", "only CPU: install onnxruntime-gpu in place of onnxruntime, or leave it out"),
        (["onnxruntime"], "directml", "only CPU: install onnxruntime-directml in place of onnxruntime"),
        (["onnxruntime"], "CoreMLExecutionProvider", "only CPU: install the build that has it, or leave it out"),
        (["onnxruntime", "onnxruntime-gpu"], "tensorrt", "together and overwrite each other: pip uninstall -y"),
        (["onnxruntime", "onnxruntime-gpu"], "cuda", "onnxruntime-gpu && pip install 'onnxfold[gpu]'"),
    ],
)
def test_a_provider_that_this_build_lacks(
    names: list[str], provider: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    having(monkeypatch, *names)
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [SHORT["cpu"]])
    with pytest.raises(RequestError) as refused:
        resolve_providers([provider])
    assert said in str(refused.value)


def test_without_onnxruntime_there_is_one_line(tmp_path: Path) -> None:
    """The command line and the function, in a process that cannot import it. Reports and the cache do without it."""
    report, page = tmp_path / "r.json", tmp_path / "r.html"
    report.write_text(onnxfold.inspect(MODELS / "digits_mlp.onnx").to_json(), encoding="utf-8")
    run = (
        "import contextlib, io, sys; sys.modules['onnxruntime'] = None; import onnxfold\n"
        "from onnxfold.cli.main import main\n"
        f"assert main(['report', {str(report)!r}, {str(page)!r}]) == 0\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    assert main(['cache', 'show']) == 0\n"
        "try:\n    onnxfold.fold(sys.argv[1])\nexcept onnxfold.RequestError as error:\n    print(error)\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    given = [str(MODELS / "digits_mlp.onnx"), str(tmp_path / "out.onnx")]
    done = subprocess.run([sys.executable, "-c", run, *given], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout.count("\n") == done.stderr.count("\n") == 1
    assert done.stderr == f"onnxfold: {done.stdout}" and "onnxruntime" in done.stderr
    assert sorted(tmp_path.iterdir()) == [page, report]
