"""Reports read back from JSON: all of it, that of earlier versions too; what is none is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pages import choice_page_of, fold_page_of, layers_page_of, sweep_page_of

from onnxfold import FoldReport, LayersReport, RequestError, SweepReport
from onnxfold.report.saved import load

ALL: list[Any] = [fold_page_of(), sweep_page_of(), choice_page_of(), layers_page_of()]


@pytest.mark.parametrize("report", ALL, ids=lambda one: type(one).__name__)
def test_what_was_written_comes_back(report: Any, tmp_path: Path) -> None:
    back = type(report).from_json(report.to_json())
    assert back == report and back.to_json() == report.to_json() and back.verdict == report.verdict
    (tmp_path / "r.json").write_text(report.to_json(), encoding="utf-8")
    assert load(tmp_path / "r.json") == report


NEW: dict[str, tuple[str, ...]] = {
    "": ("layers", "sheet", "provenance"), "groups": ("curve",),
    "providers": ("p90_before_ms", "p90_after_ms", "operators"), "quality": ("seen",),
}  # fmt: skip


def test_reports_of_earlier_versions_are_read() -> None:
    """Those that had none of the fields for pages."""
    data = json.loads(fold_page_of().to_json())
    places = [data, *data["groups"], *data["check"]["providers"], data["check"]["quality"]]
    names = [name for fields in NEW.values() for name in fields]
    for place in places:
        for name in names:
            place.pop(name, None)
    back = FoldReport.from_json(json.dumps({**data, "of a later one": 1}))
    assert back.verdict == fold_page_of().verdict and back.layers == () and back.groups[0].curve == ()


def test_infinite_numbers_come_back() -> None:
    back = FoldReport.from_json(fold_page_of().to_json())
    assert back.check is not None and back.check.providers[0].outputs[1].sqnr_db == float("inf")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "version 2 of the format"), ({"schema": True}, "it has no 'schema'"),
        ({"schema": None}, "it has no 'schema'"),
        ({"before": 3}, "'before' must be an object, not 3"), ({"model": 1}, "'model' must be of type str, not 1"),
        ({"groups": [{"name": "x"}]}, "'groups' lacks 'before'"), ({"notes": "x"}, "'notes' must be of type list"),
        ({"check": {"problems": [], "notes": [], "inputs": "", "providers": [{"provider": "", "status": "odd"}]}},
         "'status' must be one of ok, skipped, failed, not 'odd'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        FoldReport.from_json(json.dumps({**json.loads(fold_page_of().to_json()), **change}))
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"schema": 1}', '{"schema": 1, "pairs": 3}'])
def test_files_that_are_no_reports(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=r"r\.json"):
        load(tmp_path / "r.json")


def test_the_control() -> None:
    """Reports that differ are told apart."""
    assert SweepReport.from_json(sweep_page_of().to_json()) != sweep_page_of("other")
    assert LayersReport.from_json(layers_page_of().to_json()) != layers_page_of("other")
