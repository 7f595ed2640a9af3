"""A report as one HTML page: what templates are given, and how they are filled."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import units
from ..choice_report import ChoiceReport
from ..fold_report import FoldReport
from ..layers_report import LayersReport
from ..sweep_report import SweepReport
from ..wordings import PYTHON, Wording
from . import extra
from .choice_page import choice_page
from .fold_page import fold_page
from .layers_page import layers_page
from .sweep_page import sweep_page

if TYPE_CHECKING:
    from jinja2 import Environment

AnyReport = FoldReport | SweepReport | ChoiceReport | LayersReport
_TEMPLATES = Path(__file__).parent / "templates"
LARGEST = 1_150_000  # characters of a page, about
_INSIDE = 400_000  # characters that the report itself may take in it
_SHARES = (1.0, 0.3, 0.1, 0.03)  # of the usual rows of tables
_ENOUGH = 10**6  # characters: no name is cut by the filter that shows what is hidden


def page(report: AnyReport, wording: Wording = PYTHON) -> str:
    """The page, of `LARGEST` characters at most: of large models, tables show fewer rows. Raises RequestError where a
    package that draws is missing."""
    extra.require()
    packed = _packed(report.to_json())
    if len(packed) > _INSIDE:
        packed = ""
    for share in _SHARES:
        made = _page(report, wording, share, packed)
        if len(made) <= LARGEST:  # all of it is ASCII but for names
            break
    return made


def _page(report: AnyReport, wording: Wording, share: float, packed: str) -> str:
    """With this share of the usual rows."""
    if isinstance(report, FoldReport):
        template, given = "fold.html", fold_page(report, share)
    elif isinstance(report, SweepReport):
        template, given = "sweep.html", sweep_page(report, wording)
    elif isinstance(report, ChoiceReport):
        template, given = "choice.html", choice_page(report, wording)
    else:
        template, given = "layers.html", layers_page(report, share)
    charts = given.pop("charts")
    return _environment().get_template(template).render(
        **given, report=report, provenance=report.provenance, words=lambda text: units.readable(wording.text(text)),
        charts={name: _embedded(spec) for name, spec in charts.items()}, runtime=_runtime() if charts else "",
        style=_markup(_read("style.css")), script=_markup(_read("page.js")), json=packed,
    )  # fmt: skip


def _embedded(chart: Any) -> Any:
    """A chart, or a specification of Vega, as JSON that may stand inside a script element."""
    spec = chart if isinstance(chart, Mapping) else chart.to_dict(validate=False)  # tests do
    text = json.dumps(spec, ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _markup(text)


@cache
def _runtime() -> Any:
    return _packed(extra.runtime())


def _packed(text: str) -> Any:
    """A text inside a page: gzip in base64, which is small, and holds no markup, whatever names are in it."""
    return _markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_finalized,
    )  # fmt: skip
    made.filters |= {
        "bytes": units.in_bytes, "count": units.in_units, "ms": units.in_ms, "percent": units.in_percent,
        "name": units.visible, "sentence": lambda text: text[:1].upper() + text[1:],
    }  # fmt: skip
    made.globals |= {"change": units.change}
    return made


def _finalized(value: Any) -> Any:
    """Whatever a template shows: texts with escapes for characters that a browser obeys or hides."""
    return value if not isinstance(value, str) or hasattr(value, "__html__") else units.visible(value, _ENOUGH)


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@cache
def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
