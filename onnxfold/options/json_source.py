"""JSON that users wrote, or edited: what is wrong in it is said in plain words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
MOST_DIGITS = 400  # of a whole number; floats reach 1e308, and Python refuses to read more than 4300


def parsed(text: object, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What JSON text says; `pairs`: makes an object of its keys and values.

    Raises ValueError (a JSONDecodeError where that is what is wrong) also for what is no text, is nested too deep, or
    holds a number that is too long to be meant.
    """
    if not isinstance(text, str | bytes | bytearray):
        raise ValueError(f"it is no text, but {type(text).__name__}")
    try:
        return json.loads(text, parse_int=_whole, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def once(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """An object of keys and values. Raises ValueError where a key stands twice."""
    found = dict[str, T]()
    for key, value in pairs:
        if key in found:
            raise ValueError(f"'{key}' is there twice")
        found[key] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, which nothing here can be")
    return int(digits)
