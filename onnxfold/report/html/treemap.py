"""The parameters of a model as areas: a Vega specification (Vega-Lite, and so Altair, has no treemap)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...units import in_units, visible
from ..layer_sizes import LayerSize

COLORS = "#a9c6ea", "#f7dca6", "#f0894a"  # of a layer that keeps all, half, and nothing; dark text is read on them
HEIGHT = 250
_RECTANGLE = ("x", "x0"), ("y", "y0"), ("x2", "x1"), ("y2", "y1")


def treemap(layers: Sequence[LayerSize], side: str) -> dict[str, Any]:
    """`side`: "before" or "after", whose parameters are the areas; colors are the shares that were removed."""
    return {
        "$schema": "https://vega.github.io/schema/vega/v6.json", "height": HEIGHT, "padding": 0,
        "autosize": "none",
        "signals": [{"name": "width", "init": _WIDTH, "on": [{"events": "window:resize", "update": _WIDTH}]}],
        "data": [
            {"name": "tree", "values": _values(layers, side), "transform": [_STRATIFY, _LAY_OUT]},
            {"name": "leaves", "source": "tree", "transform": [{"type": "filter", "expr": "datum.id > 0"}]},
        ],
        "scales": [{"name": "removed", "type": "linear", "domain": [0, 0.5, 1], "range": COLORS, "clamp": True}],
        "marks": [_RECTANGLES, _NAMES],
    }  # fmt: skip


def _values(layers: Sequence[LayerSize], side: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"id": 0, "name": "all"}]
    for number, one in enumerate(layers, 1):
        removed = 1 - one.after / one.before if one.before else 0.0
        name = visible(one.name, 120)
        text = f"{name} ({visible(one.op, 40)})" if one.op else name
        said = f"{text}: {in_units(one.before)} → {in_units(one.after)} parameters, {100 * removed:.0f} % removed"
        size = one.before if side == "before" else one.after
        label = _label(name, one.op)
        found.append({"id": number, "parent": 0, "name": label, "said": said, "size": size, "removed": removed})
    return found


def _label(name: str, op: str) -> str:
    """The last two parts of a name, without one that only repeats the operator."""
    parts = [part for part in name.split("/") if part]
    if len(parts) > 1 and parts[-1] == op:
        parts.pop()
    return "/".join(parts[-2:]) or name


_WIDTH = "max(120, containerSize()[0] || 600)"
_STRATIFY = {"type": "stratify", "key": "id", "parentKey": "parent"}
_LAY_OUT = {
    "type": "treemap", "field": "size", "sort": {"field": "value", "order": "descending"}, "round": True,
    "method": "squarify", "ratio": 1.5, "paddingInner": 1, "size": [{"signal": "width"}, {"signal": "height"}],
}  # fmt: skip
_RECTANGLES = {
    "type": "rect", "from": {"data": "leaves"}, "description": "layers",
    "encode": {
        "enter": {"fill": {"scale": "removed", "field": "removed"}, "tooltip": {"field": "said"}},
        "update": {to: {"field": field} for to, field in _RECTANGLE},
    },
}  # fmt: skip
_NAMES = {
    "type": "text", "from": {"data": "leaves"}, "interactive": False, "aria": False,
    "encode": {
        "enter": {
            "text": {"field": "name"}, "fill": {"value": "#12233a"}, "baseline": {"value": "top"},
            "fontSize": {"value": 11},
        },
        "update": {
            "x": {"field": "x0", "offset": 4}, "y": {"field": "y0", "offset": 4},
            "limit": {"signal": "max(0, datum.x1 - datum.x0 - 8)"},
            "opacity": {"signal": "datum.x1 - datum.x0 > 36 && datum.y1 - datum.y0 > 17 ? 1 : 0"},
        },
    },
}  # fmt: skip
