"""What the source distribution holds, and what pyproject.toml says of wheels and onnxruntime."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from tiny import ROOT

from onnxfold.runtime.builds import INSTALL

backend = pytest.importorskip("scikit_build_core.build", reason="needs scikit-build-core")
tomllib = pytest.importorskip("tomllib")  # Python 3.10 has none
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the source distribution, as paths in the project."""
    folder = tmp_path_factory.mktemp("sdist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name = backend.build_sdist(str(folder))
    with tarfile.open(folder / name) as archive:
        return {Path(*Path(one.name).parts[1:]).as_posix() for one in archive.getmembers() if one.isfile()}


def test_everything_that_builds_and_tests_is_in_it(packed: set[str]) -> None:
    wanted = ["pyproject.toml", "CMakeLists.txt", "LICENSE", "README.md", "PKG-INFO", ".ci/lowest.txt"]
    for folder in ("onnxfold", "csrc", "cmake", "models", "tests", "docs"):
        files = [one for one in (ROOT / folder).rglob("*") if one.is_file() and "__pycache__" not in one.parts]
        wanted += [one.relative_to(ROOT).as_posix() for one in files if one.suffix not in (".so", ".pyc")]
    assert not set(wanted) - packed


def test_nothing_else_is(packed: set[str]) -> None:
    strange = re.compile(
        r"(^|/)(\.git|\.github|\.venv|build|dist|shared|__pycache__|\.\w+_cache|\.hypothesis)(/|$)|\.so$"
    )
    assert not [one for one in packed if strange.search(one)]


def test_no_two_builds_of_onnxruntime_come_together() -> None:
    """A plain installation brings none; an extra brings at most one."""
    needed = {"": PROJECT["project"]["dependencies"], **EXTRAS}
    found = {extra: [one for one in names if one.startswith("onnxruntime")] for extra, names in needed.items()}
    assert found[""] == [] and all(len(names) <= 1 for names in found.values())
    assert {"cpu", "gpu", "directml"} <= {extra for extra, names in found.items() if names}
    assert all(f"[{extra}]" in INSTALL for extra in ("cpu", "gpu", "directml"))


def test_wheels_are_built_for_every_interpreter_that_is_declared() -> None:
    declared = re.findall(r"Python :: 3\.(\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert PROJECT["tool"]["cibuildwheel"]["build"] == " ".join(f"cp3{minor}-*" for minor in declared)
