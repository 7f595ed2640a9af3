"""What starting costs: nobody waits for packages that only some work needs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny import MODELS

import onnxfold

# Of no use before there is something to do, and together over a second of work to import.
SLOW = (
    "PIL", "altair", "distributed", "jinja2", "joblib", "numpy", "onnx", "onnx_ad", "onnx_graphsurgeon", "onnxruntime",
    "rich", "scipy", "shtab", "sklearn", "yaml",
)  # fmt: skip
# Needed by few runs: metrics of layer fusion, clusters, Dask, images, pages, and models that compute their constants.
SELDOM = (
    "PIL", "altair", "distributed", "jinja2", "joblib", "onnx.reference", "onnxruntime.quantization", "scipy.optimize",
    "scipy.stats", "shtab", "sklearn", "vl_convert", "yaml",
)  # fmt: skip
RUN = "import sys; from onnxfold.cli.main import main; code = main(sys.argv[1:]); assert code == {code}, code; "


def imported(script: str, names: tuple[str, ...], *arguments: str) -> list[str]:
    """Which of the packages `names` a fresh interpreter has after `script`."""
    shown = f"{script}\nimport sys; print(); print(*(n for n in {names!r} if n in sys.modules), 'end')"
    done = subprocess.run([sys.executable, "-c", shown, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[:-1]


def test_importing_costs_little() -> None:
    assert imported("import onnxfold; onnxfold.Budget.max_error(0.1); onnxfold.PlanError; dir(onnxfold)", SLOW) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--version",
        "--help",
        "sweep --help",
        "--fuse mean --help",
        "layers --help",
        "cache --help",
        "report --help",
        "completion --help",
    ],
)
def test_questions_about_the_command_cost_little(arguments: str) -> None:
    assert imported(RUN.format(code=0), SLOW, *arguments.split()) == []


def test_wrong_options_cost_little() -> None:
    assert imported(RUN.format(code=2), SLOW, "in.onnx", "out.onnx", "--ratoi", "0.3") == []


@pytest.mark.parametrize(
    "script", ["from onnxfold import fold, sweep, fuse", "import onnxfold.testing", "import onnxfold.cli.output"]
)
def test_what_few_runs_need_is_not_there_before(script: str) -> None:
    assert imported(script, SELDOM) == []


def test_a_plain_run_does_without_it() -> None:
    arguments = ["--ratio=0.25", "--effort=fast", "--quiet"]
    assert imported(f"import onnxfold; onnxfold.inspect({str(MODELS / 'digits_mlp.onnx')!r})", SELDOM) == []
    fold = "import os, sys, tempfile; sys.argv.insert(2, os.path.join(tempfile.mkdtemp(), 'out.onnx')); "
    assert imported(fold + RUN.format(code=0), SELDOM, str(MODELS / "digits_mlp.onnx"), *arguments) == []
    judged = str(MODELS / "digits_vgg.onnx")  # by the photographs of scikit-learn, without scikit-learn
    assert imported(fold + RUN.format(code=0), SELDOM, judged, *arguments) == ["PIL"]


def test_the_control() -> None:
    """The test sees what is imported: the names are those of real packages."""
    assert imported("import onnxfold; onnxfold.fold", SLOW) == [
        "numpy", "onnx", "onnx_ad", "onnx_graphsurgeon", "rich", "scipy"
    ]  # fmt: skip
    assert imported("import scipy.stats, scipy.optimize, joblib", SELDOM) == ["joblib", "scipy.optimize", "scipy.stats"]


# the package's own names --------------------------------------------------------------------------------------------


def test_all_public_names_are_there() -> None:
    for name in onnxfold.__all__:
        assert getattr(onnxfold, name) is not None and name in dir(onnxfold)
    assert len(set(onnxfold.__all__)) == len(onnxfold.__all__)


def test_names_come_late_and_stay() -> None:
    late = "import onnxfold; assert 'fold' not in vars(onnxfold); f = onnxfold.fold; assert vars(onnxfold)['fold'] is f"
    star = "from onnxfold import *; assert fold is f and FoldReport.__name__ == 'FoldReport'"
    assert imported(f"{late}; {star}", ()) == []


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'onnxfold' has no attribute 'flod'"):
        onnxfold.flod  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'flod'"):
        from onnxfold import flod  # type: ignore[attr-defined]  # noqa: F401


def test_the_version_is_a_text() -> None:
    assert onnxfold.__version__[0].isdigit()
