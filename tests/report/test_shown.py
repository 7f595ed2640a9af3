"""Reports and results in a prompt, a notebook, a data frame and a chart."""

from __future__ import annotations

import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from pages import HOSTILE, choice_page_of, fold_page_of, layers_page_of, sweep_page_of
from tiny import MODELS, fold

from onnxfold import RequestError

MAKERS = [fold_page_of, sweep_page_of, choice_page_of, layers_page_of]
named = pytest.mark.parametrize("make", MAKERS, ids=lambda one: one.__name__)


@named
def test_a_prompt_shows_one_short_line(make: Any) -> None:
    for name in ("conv", HOSTILE, "x" * 1000):
        text = repr(make(name))
        assert len(text) < 400 and text.isprintable() and text.startswith("<")
    assert "conv.onnx: failed: output 'conv' is NaN" in repr(fold_page_of())


@named
def test_a_notebook_shows_a_table(make: Any) -> None:
    tags = list[str]()

    class Seen(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)

    Seen().feed(make(HOSTILE)._repr_html_())
    plain = {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert plain <= set(tags) <= {*plain, "details", "summary"} and tags.count("tr") > 2


@pytest.mark.parametrize(
    ("make", "columns", "rows"),
    [
        (fold_page_of, {"name", "before", "after", "removed", "error"}, 8),
        (sweep_page_of, {"target", "file", "error", "latency_ms", "knee"}, 4),
        (choice_page_of, {"chain", "file", "latency", "worth"}, 8),
        (layers_page_of, {"layer", "other", "distance", "shape"}, 3),
    ],
)
def test_a_data_frame(make: Any, columns: set[str], rows: int) -> None:
    pytest.importorskip("pandas")
    frame = make().to_pandas()
    assert columns <= set(frame.columns) and len(frame) == rows


@named
def test_a_chart(make: Any) -> None:
    pytest.importorskip("altair", reason="charts need the extra 'report'")
    spec = make("conv").plot().to_dict()
    assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite/")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(RequestError, match="pip install pandas"):
        fold_page_of().to_pandas()
    with pytest.raises(RequestError, match=r"pip install 'onnxfold\[report\]'"):
        fold_page_of().plot()


def test_reports_without_groups_have_something_to_show() -> None:
    """Of a comparison the outputs, of a fusion the layers that share weights; and what remains of both."""
    fused = replace(fold_page_of(), groups=())
    compared = replace(fused, shared=())
    assert fused.records()[0]["layers"] and compared.records()[0].keys() >= {"provider", "name", "relative_l2", "top1"}
    pytest.importorskip("altair", reason="charts need the extra 'report'")
    bars = [row for rows in compared.plot().to_dict()["datasets"].values() for row in rows if "what" in row]
    assert [row["what"] for row in bars] == ["file", "parameters", "MACs", "latency CPU"]
    assert bars[-1]["remaining"] == 0.8 and all(0 < row["remaining"] <= 1 for row in bars)


def test_a_notebook_opens_groups_and_outputs() -> None:
    shown = fold_page_of("conv")._repr_html_()
    assert "<summary>7 of 8 groups that shrank</summary>" in shown and "<td>64 → 8</td>" in shown
    assert "<summary>outputs</summary>" in shown and "<td>25 %</td>" in shown
    assert shown.startswith("<p>✘ <strong>conv.onnx</strong>: failed")
    inspected = replace(fold_page_of("conv"), after=None, check=None)._repr_html_()
    assert "<summary>8 of 8 groups</summary>" in inspected and "outputs</summary>" not in inspected
    assert inspected.startswith("<p><strong>")


def test_a_result_shows_its_report() -> None:
    result = fold(MODELS / "digits_mlp.onnx", ratio=0.5, effort="fast", latency=False)
    assert repr(result).startswith("<FoldResult of ") and "output error" in repr(result)
    assert result.to_dict() == result.report.to_dict() and result.report.to_dict()["schema"] == 1
    assert result._repr_html_() == result.report._repr_html_() and "<td>parameters</td>" in result._repr_html_()
