"""Every benchmark can be imported."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
from tiny import ROOT

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
EXTRAS = {"faiss": "faiss-cpu", "onnxsim": "onnxsim"}  # imported name -> what extra `bench` calls it
HELPERS = {
    "figures.py",
    "nets.py",
    "planned.py",
    "restated.py",
    "tasks.py",
}  # what other benchmarks import; they have no command line


def own_names(source: str) -> set[tuple[str, str]]:
    """(module, name) of all that a source imports from onnxfold, also inside functions."""
    return {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "onnxfold"
        for alias in node.names
    }


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda f: f.name)
def test_benchmarks_can_be_imported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(file.parent), *sys.path])
    spec = importlib.util.spec_from_file_location(f"benchmark_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"{file.name} needs {EXTRAS[error.name]}: pip install '.[bench]'")
    assert callable(getattr(module, "main", None)) or file.name in HELPERS
    for where, name in own_names(file.read_text(encoding="utf-8")):
        found = importlib.import_module(where)
        assert hasattr(found, name) or importlib.util.find_spec(f"{where}.{name}"), f"{where} has no {name}"


def test_what_a_benchmark_imports_is_found() -> None:
    source = "from onnxfold.a import b, c\ndef f():\n    from onnxfold import d\n    from other import e"
    assert own_names(source) == {("onnxfold.a", "b"), ("onnxfold.a", "c"), ("onnxfold", "d")}
