"""Reports as JSON, and what JSON text holds of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import RequestError
from ..options.json_source import parsed
from .tables import plain

SCHEMA = 1


def to_text(data: Mapping[str, Any]) -> str:
    """JSON in which infinite and undefined numbers are null."""
    return json.dumps(plain(data), indent=2, allow_nan=False)


def from_text(text: str) -> dict[str, Any]:
    """The object that a report's JSON is. Raises RequestError for what is none, or of a later version."""
    try:
        data = parsed(text)
    except ValueError as error:
        raise RequestError(f"this is not an onnxfold report: it is not JSON ({error})") from error
    if not isinstance(data, dict) or type(data.get("schema")) is not int:
        raise RequestError("this is not an onnxfold report: it has no 'schema'")
    if data["schema"] != SCHEMA:
        raise RequestError(
            f"this report has version {data['schema']} of the format, this onnxfold reads {SCHEMA}: "
            "use the onnxfold that wrote it"
        )
    return data
