"""Standard output that nobody reads any more, and one that is full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import FAST, ROOT, write

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs POSIX devices")
FOLD = ["in.onnx", "out.onnx", "--ratio", "0.5", *FAST]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("streams")
    write(made / "in.onnx")
    return made


def run(folder: Path, given: list[str], output: object) -> subprocess.CompletedProcess[str]:
    (folder / "out.onnx").unlink(missing_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "onnxfold", *given], cwd=folder, stdout=output, stderr=subprocess.PIPE, text=True,  # type: ignore[call-overload]
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120,
    )  # fmt: skip


def closed() -> int:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    "given",
    [["--help"], ["completion", "bash"], ["in.onnx", "out.onnx", "--print-config"], FOLD],
    ids=lambda given: given[0] if len(given) == 1 else given[-1],
)  # fmt: skip
def test_a_reader_that_stops_early(given: list[str], folder: Path) -> None:
    """As with ``| head -1``: nothing is said of it, and the exit code is that of the work."""
    pipe = closed()
    done = run(folder, given, pipe)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "out.onnx").exists() == (given is FOLD)


@pytest.mark.parametrize(
    ("given", "after"),
    [
        (["--version"], ""), (["completion", "fish"], ""),
        (FOLD, " (out.onnx is written)"), ([*FOLD, "--json", "-q"], " (out.onnx is written)"),
    ],
    ids=lambda given: given[-1] if isinstance(given, list) else "",
)  # fmt: skip
def test_a_full_disk(given: list[str], after: str, folder: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run(folder, given, full)
    assert done.returncode == 2
    assert done.stderr == f"onnxfold: cannot write to standard output: No space left on device{after}\n"
    assert (folder / "out.onnx").exists() == bool(after)


@pytest.mark.parametrize("closing", [">&-", ">&- 2>&-"])
def test_streams_that_are_closed_from_the_start(closing: str, folder: Path) -> None:
    command = f"{sys.executable} -m onnxfold {' '.join(FOLD)} {closing}"
    (folder / "out.onnx").unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"") and (folder / "out.onnx").exists()
