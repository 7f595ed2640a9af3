"""The examples of docs/python.md, run as they stand, and the plan that docs/plan.md shows."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest
from tiny import MODELS, ROOT

from onnxfold import Plan

PAGE, PLAN = ROOT / "docs" / "python.md", ROOT / "docs" / "plan.md"


def test_the_examples_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(MODELS)
    monkeypatch.chdir(tmp_path)
    assert doctest.testfile(str(PAGE), module_relative=False).failed == 0
    assert PAGE.read_text(encoding="utf-8").count(">>> ") > 25
    assert {"out.onnx", "edited.onnx", "plan.json"} <= {path.name for path in tmp_path.iterdir()}


def test_the_file_that_the_page_shows_is_a_plan() -> None:
    """And its table has a row for every field."""
    page = PLAN.read_text(encoding="utf-8")
    (text,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found, data = Plan.from_json(text), json.loads(text)
    assert (
        found.edited == {} and found.to_dict().items() <= data.items() and {*data} - {*found.to_dict()} == {"onnxfold"}
    )
    rows = "".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE))
    groups = {f"groups.*.{name}" for name in next(iter(data["groups"].values()))}
    assert set(re.findall(r"`([^`]+)`", rows)) == {*data, *groups}
