"""The examples of docs/python.md, run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from tiny import MODELS, ROOT

PAGE = ROOT / "docs" / "python.md"


def test_the_examples_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(MODELS)
    monkeypatch.chdir(tmp_path)
    assert doctest.testfile(str(PAGE), module_relative=False).failed == 0
    assert PAGE.read_text(encoding="utf-8").count(">>> ") > 25
    assert {"out.onnx", "edited.onnx", "plan.json"} <= {path.name for path in tmp_path.iterdir()}
