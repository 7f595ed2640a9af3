"""Reports as files: JSON or HTML, by the ending, and read back from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import RequestError
from ..model.files import check_file, kind_of, write_text
from ..options.json_source import parsed
from .choice_report import ChoiceReport
from .fold_report import FoldReport
from .html import extra
from .layers_report import LayersReport
from .sweep_report import SweepReport
from .wordings import PYTHON, Wording

AnyReport = FoldReport | SweepReport | ChoiceReport | LayersReport
HTML, JSON = (".html", ".htm"), (".json",)
_READERS: Mapping[str, Callable[[str], AnyReport]] = {
    "advice": ChoiceReport.from_json, "rows": SweepReport.from_json, "pairs": LayersReport.from_json,
    "groups": FoldReport.from_json,
}  # fmt: skip
"""By a field that no later one of these has."""


def check_format(path: Path, what: str = "the report") -> None:
    """Find out before the work whether there is a format for `path`. Raises RequestError."""
    if _is_html(path):
        extra.require(f"{what} {path}")
    elif path.suffix.lower() not in JSON and not kind_of(path):
        raise RequestError(f"{what} is a .json or an .html file, not {path}: name one of these")


def check_page(source: Path, path: Path) -> None:
    """The same for a page that is made of the report in `source`, which must stay."""
    if not _is_html(path):
        raise RequestError(f"the page is an .html file, not {path}: name one")
    check_file(path, "the page", [(source, "the report that it is made of")])
    check_format(path, "the page")


def save(report: AnyReport, path: Path, wording: Wording = PYTHON) -> None:
    """Write a report, atomically: HTML where `path` ends in that, else JSON. Raises OSError, and RequestError where a
    package that draws is missing."""
    if _is_html(path):
        from .html.page import page  # with Jinja and Altair, of which JSON needs none

        write_text(path, page(report, wording))
    else:
        write_text(path, report.to_json() + "\n")


def load(path: Path) -> AnyReport:
    """The report in a JSON file. Raises RequestError for what cannot be read, or is none."""
    try:
        text = path.read_text(encoding="utf-8")
        found = parsed(text)
    except OSError as error:
        raise RequestError(f"cannot read the report {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RequestError(f"{path} is not an onnxfold report: it is not JSON") from error
    read = next((read for name, read in _READERS.items() if isinstance(found, dict) and name in found), None)
    if read is None:
        raise RequestError(f"{path} is not an onnxfold report: pass the .json file that a run wrote")
    try:
        return read(text)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def _is_html(path: Path) -> bool:
    return path.suffix.lower() in HTML
