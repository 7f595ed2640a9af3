"""The charts of reports, by Altair. Every function takes plain values and returns a chart without a title: that stands
in the page. Names must be as they may be shown (`onnxfold.units.visible`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

BLUE, ORANGE, GREY = "#3b7dd8", "#e8743b", "#8a94a3"  # seen on white and on black alike
HEIGHT = 240  # pixels
Rows = Sequence[Mapping[str, Any]]


def scatter(before: Sequence[float], after: Sequence[float]) -> alt.LayerChart:
    """Values of the result over those of the original, with the line on which both are equal."""
    points = _data({"before": a, "after": b} for a, b in zip(before, after, strict=True))
    ends = min(*before, *after), max(*before, *after)
    line = alt.Chart(_data({"at": end} for end in ends)).mark_line(color=GREY, strokeDash=[4, 3])
    dots = alt.Chart(points).mark_circle(color=BLUE, opacity=0.6, size=24)
    return _sized(
        line.encode(x=_number("at", "original"), y=_number("at", "result"))
        + dots.encode(x=_number("before", "original"), y=_number("after", "result"), tooltip=_tips("before", "after"))
    )


def histogram(edges: Sequence[float], counts: Sequence[int]) -> alt.Chart:
    """How often differences of which size occur."""
    rows = ({"from": a, "to": b, "count": n} for a, b, n in zip(edges, edges[1:], counts, strict=False))
    return _sized(
        alt.Chart(_data(rows)).mark_bar(color=BLUE).encode(
            x=_number("from", "result less original"), x2="to:Q",
            y=_number("count", "values", zero=True), y2=alt.datum(0), tooltip=_tips("from", "to", "count"),
        )
    )  # fmt: skip


def pareto(rows: Rows, title: str) -> alt.LayerChart:
    """Output errors over what remains, joined in their order. `rows` have `remaining` and `error` (shares), `label`,
    and `knee` (a truth value)."""
    base = _losses([{**row, "step": at} for at, row in enumerate(rows)], title, "output error", ".2~%")
    return _sized(base.mark_line(color=GREY).encode(order="step:Q") + _points(base, ".2~%") + _labels(base))


def chains(rows: Rows, title: str, measured: bool) -> alt.LayerChart:
    """The same for points in no order: a line through those that are `best`, and the names of the orange ones.
    `measured`: losses are not errors, but what the user's own measure loses."""
    loss, form = ("loss of the metric", ".3~g") if measured else ("output error", ".2~%")
    base = _losses(rows, title, loss, form)
    line = base.transform_filter("datum.best").mark_line(color=GREY)
    return _sized(line + _points(base, form) + _labels(base.transform_filter("datum.knee")))


def _losses(rows: Rows, title: str, loss: str, form: str) -> alt.Chart:
    return alt.Chart(_data(rows)).encode(
        x=alt.X(
            "remaining:Q",
            title=title,
            axis=alt.Axis(format=".0%", tickCount=5, labelOverlap=True, labelSeparation=8),
            scale=alt.Scale(zero=False),
        ),
        y=alt.Y("error:Q", title=loss, axis=alt.Axis(format=form)),
    )


def _points(base: alt.Chart, form: str) -> alt.Chart:
    return base.mark_point(filled=True, size=90, opacity=1).encode(
        color=alt.condition("datum.knee", alt.value(ORANGE), alt.value(BLUE)),
        shape=alt.condition("datum.knee", alt.value("diamond"), alt.value("circle")),
        tooltip=["label:N", alt.Tooltip("remaining:Q", format=".1%"), alt.Tooltip("error:Q", format=form)],
    )


def _labels(base: alt.Chart) -> alt.Chart:
    return base.mark_text(dy=-11, fontSize=11).encode(text="label:N")


def distillation(losses: Sequence[float], errors: Sequence[tuple[int, float]]) -> alt.LayerChart:
    """The loss of every step, and the errors on inputs held back."""
    loss = ({"step": i + 1, "value": x, "what": "loss in training"} for i, x in enumerate(losses) if x > 0)
    held = ({"step": i, "value": x, "what": "error on inputs held back"} for i, x in errors if x > 0)
    base = alt.Chart(_data([*loss, *held])).encode(
        x=_number("step", "step"),
        y=alt.Y("value:Q", title="loss, error", scale=alt.Scale(type="log"), axis=alt.Axis(format=".1~g", tickCount=5)),
        color=alt.Color(
            "what:N", title=None, scale=alt.Scale(range=[ORANGE, BLUE]), legend=alt.Legend(orient="top", labelLimit=260)
        ),
    )
    held_only = "datum.what == 'error on inputs held back'"
    dots = base.transform_filter(held_only).mark_circle(size=50, opacity=1)
    return _sized(base.mark_line() + dots.encode(tooltip=_tips("step", "value")))


def times(rows: Rows, most: int = 20) -> alt.Chart:
    """Bars of milliseconds: `rows` have `name`, `ms` and `model` ("original" or "result")."""
    names = list(dict.fromkeys(row["name"] for row in rows))[:most]
    shown = [row for row in rows if row["name"] in names]
    return alt.Chart(_data(shown)).mark_bar().encode(
        y=alt.Y("name:N", title=None, sort=names, axis=alt.Axis(labelLimit=160)),
        yOffset=alt.YOffset("model:N", sort=["original", "result"]),
        x=_number("ms", "milliseconds", zero=True), color=_models(), tooltip=["name:N", "model:N", *_tips("ms")],
    ).properties(width="container", height=24 * len(names))  # fmt: skip


def widths(rows: Rows, most: int = 40) -> alt.Chart:
    """Bars of channels before and after: `rows` have `group`, `before` and `after`."""
    shown = sorted(rows, key=lambda row: row["after"] - row["before"])[:most]
    bars = (
        {"group": row["group"], "channels": row[side], "model": model}
        for row in shown for side, model in (("before", "original"), ("after", "result"))
    )  # fmt: skip
    return alt.Chart(_data(bars)).mark_bar().encode(
        y=alt.Y("group:N", title=None, sort=[row["group"] for row in shown], axis=alt.Axis(labelLimit=220)),
        yOffset=alt.YOffset("model:N", sort=["original", "result"]), x=_number("channels", "channels", zero=True),
        color=_models(), tooltip=["group:N", "model:N", "channels:Q"],
    ).properties(width=420, height=alt.Step(10))  # fmt: skip


def remaining(rows: Rows) -> alt.LayerChart:
    """Bars of what remains: `rows` have `what` and `remaining` (a share); a line at the original."""
    bars = alt.Chart(_data(rows)).mark_bar(color=BLUE).encode(
        y=alt.Y("what:N", title=None, sort=[row["what"] for row in rows]),
        x=alt.X("remaining:Q", title="of the original", axis=alt.Axis(format=".0%", tickCount=6)),
        tooltip=["what:N", alt.Tooltip("remaining:Q", format=".1%")],
    )  # fmt: skip
    whole = alt.Chart(_data([{"at": 1.0}])).mark_rule(color=GREY, strokeDash=[4, 3]).encode(x="at:Q")
    return (bars + whole).properties(width=420, height=24 * len(rows))


def distances(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> alt.Chart:
    """How far layers are apart, every one from every other."""
    rows = (
        {"one": a, "other": b, "distance": d}
        for a, line in zip(names, matrix, strict=True) for b, d in zip(names, line, strict=True)
    )  # fmt: skip
    shown = alt.Axis(labelLimit=160, labelFontSize=10)
    return alt.Chart(_data(rows)).mark_rect().encode(
        x=alt.X("one:N", sort=list(names), title=None, axis=alt.Axis(labelAngle=-60, labelLimit=120, labelFontSize=10)),
        y=alt.Y("other:N", sort=list(names), title=None, axis=shown),
        color=alt.Color("distance:Q", title="distance", scale=alt.Scale(scheme="blues", reverse=True)),
        tooltip=["one:N", "other:N", alt.Tooltip("distance:Q", format=".4f")],
    ).properties(width=alt.Step(18), height=alt.Step(18))  # fmt: skip


def _models() -> alt.Color:
    legend = alt.Legend(orient="top")
    return alt.Color(
        "model:N", title=None, legend=legend, scale=alt.Scale(domain=["original", "result"], range=[GREY, BLUE])
    )


def _data(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    with debug_mode(False):  # Altair would check every value: most of the time that a page takes
        return alt.InlineData(values=[dict(row) for row in rows])


def _number(field: str, title: str, zero: bool = False) -> Any:
    """An axis for numbers; `zero`: it begins there, as bars need it. (Altair takes x and y by one kind of channel
    each.)"""
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": zero}, "axis": {"tickCount": 6}}


def _tips(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{field}:Q", format=".4~g") for field in fields]


def _sized(chart: Any) -> Any:
    return chart.properties(width="container", height=HEIGHT)
