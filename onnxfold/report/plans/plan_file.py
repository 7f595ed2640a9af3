"""Plans as files: JSON that people may edit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from ...errors import RequestError
from ...model.files import Read, check_file, write_text
from ...model.input_files import no_file
from ...model.metadata import installed, sha256
from ...options.budget import Budget
from ...options.json_source import once, parsed
from ...options.width_plan import WidthPlan
from ...units import brief

FORMAT, VERSION = "onnxfold plan", 1
_ABOUT = ("format", "version", "onnxfold")  # of the file, not of the plan
_HALF = re.compile("[\ud800-\udfff]")  # of a pair: no file can hold it alone
_AGAIN = "fix it, or write the plan again with `save_plan`"


def to_text(widths: WidthPlan) -> str:
    """A plan as JSON, one line for every group."""
    found = {"format": FORMAT, "version": VERSION, "onnxfold": installed("onnxfold"), **widths.to_dict()}
    groups = ",\n".join(f"    {_one_line(name)}: {_one_line(group)}" for name, group in found["groups"].items())
    text = json.dumps({**found, "groups": {}}, indent=2, ensure_ascii=False)
    return text.replace('"groups": {}', f'"groups": {{\n{groups}\n  }}') + "\n" if groups else text + "\n"


def from_text(text: str, file: str = "") -> WidthPlan:
    """The plan that JSON holds; `file`: where it was read from, for messages. Raises RequestError."""
    named = f"the plan '{file}'" if file else "the plan"
    try:
        found = parsed(text, once)
    except json.JSONDecodeError as error:
        raise RequestError(f"{named} is not valid JSON: line {error.lineno}, {error.msg.lower()}: {_AGAIN}") from error
    except ValueError as error:
        raise RequestError(f"{named}: {error}: {_AGAIN}") from error
    if (half := _HALF.search(json.dumps(found, ensure_ascii=False))) is not None:
        raise RequestError(f"{named} has half a character in a text ({half[0]!a}): {_AGAIN}")
    return from_document(found, file)


def from_document(found: object, file: str = "") -> WidthPlan:
    """The plan that plain values hold, as `from_text` reads them. Raises RequestError."""
    named = f"the plan '{file}'" if file else "the plan"
    if not isinstance(found, Mapping) or not isinstance(found.get("format"), str) or found["format"] != FORMAT:
        raise RequestError(f'{named} is no plan of onnxfold: it lacks "format": "{FORMAT}": {_AGAIN}')
    if type(found.get("version")) is not int or found["version"] != VERSION:
        raise RequestError(
            f"{named} has version {brief(found.get('version'), 20)} of the format, this onnxfold reads {VERSION}: use "
            "the onnxfold that wrote it, or write it anew with `save_plan`"
        )
    widths = WidthPlan.from_dict({key: value for key, value in found.items() if key not in _ABOUT}, file)
    Budget.plan(widths)  # raises for a budget that there is not
    return widths


def read_plan(path: str | os.PathLike[str]) -> WidthPlan:
    """The plan in a file. Raises RequestError."""
    try:
        if kind := no_file(Path(path)):
            raise RequestError(f"cannot read the plan '{os.fspath(path)}': it is {kind}, not a file")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot read the plan '{os.fspath(path)}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the plan '{os.fspath(path)}' is not valid JSON: it is not UTF-8 text") from error
    return from_text(text, os.fspath(path))


def write_plan(widths: WidthPlan, path: str | os.PathLike[str], reads: Iterable[Read] = ()) -> None:
    """Write a plan, atomically. Raises RequestError, also where `path` is one of the files `reads`, or the model itself
    by its SHA-256."""
    check_file(Path(path), "the plan", chain(reads, _itself(widths, Path(path))))
    try:
        write_text(Path(path), to_text(widths))
    except OSError as error:
        raise RequestError(f"cannot write the plan '{os.fspath(path)}': {error.strerror or error}") from error


def _itself(widths: WidthPlan, path: Path) -> Iterator[Read]:
    """The file at `path`, if it is what the plan was made for; of a plan that was read, only its hash is known."""
    if widths.source_sha256 is not None and sha256(path) == widths.source_sha256:
        yield path, "the model"


def _one_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
