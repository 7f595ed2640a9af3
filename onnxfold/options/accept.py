"""Checks of single values: each takes what a user gave and returns it as the library wants it, or raises ValueError."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar

from ..units import brief
from .choices import Quantization, Step
from .preprocess import Preprocess, PreprocessFile
from .width_plan import WidthPlan, given_plan

C = TypeVar("C", bound=Enum)
Accept = Callable[[Any], Any]
AUTO = "auto"


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> Accept:
    """A float from `low` to `high`; `above`, `below`: the ends themselves are out."""

    def accept(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(found := float(value)):
            raise ValueError
        if not low <= found <= high or (above and found == low) or (below and found == high):
            raise ValueError
        return found

    return accept


def integer(low: int, high: int) -> Accept:
    """An int from `low` to `high`."""

    def accept(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return accept


def flag(value: Any) -> bool:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise ValueError
    return bool(value)


def choice(choices: type[C]) -> Accept:
    """A member of an enum, or its value."""

    def accept(value: Any) -> C:
        if not isinstance(value, str | choices):
            raise ValueError
        return choices(value)

    return accept


def optional(accept: Accept) -> Accept:
    """None, or what `accept` takes."""
    return lambda value: None if value is None else accept(value)


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError
    return value


def path(value: Any) -> str:
    """A path, as a string."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(found, str) or not found or "\0" in found or any("\ud800" <= c <= "\udbff" for c in found):
        raise ValueError
    return found


def texts(value: Any) -> tuple[str, ...]:
    """One string, or several."""
    if isinstance(value, bytes | Mapping) or not hasattr(value, "__iter__"):
        raise ValueError
    given = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(one, str) and one.isprintable() for one in given):
        raise ValueError
    return given


def patterns(value: Any) -> tuple[str, ...]:
    """One regular expression, or several. The ValueError says which one is none, and why."""
    found = texts(value)
    for one in found:
        _compiled(one)
    return found


def group_ratios(value: Any) -> dict[str, float]:
    """Ratios by regular expression."""
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value):
        raise ValueError
    accept = number(0, 1, below=True)
    found = {}
    for pattern, ratio in value.items():
        _compiled(pattern)
        try:
            found[pattern] = accept(ratio)
        except ValueError:
            raise ValueError(f"'{pattern}' has {brief(ratio)}") from None
    return found


def plan(value: Any) -> WidthPlan:
    """A plan, or widths by group. The ValueError says how to read one that is a file."""
    if isinstance(value, str | os.PathLike):
        raise ValueError(f"'{value}' is a path: read it with Plan.load")
    return given_plan(value)


def shapes(value: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by input name: lengths of at least 0, by which empty caches are given."""
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in value):
        raise ValueError
    accept = integer(0, 2**63 - 1)
    found = {}
    for name, shape in value.items():
        try:
            if isinstance(shape, str) or not hasattr(shape, "__iter__"):
                raise ValueError
            found[name] = tuple(accept(length) for length in shape)
        except ValueError:
            raise ValueError(f"'{name}' has {brief(shape)}") from None
    return found


def preprocess(value: Any) -> Preprocess | PreprocessFile:
    """A `Preprocess`, its text, or the path of a preprocessor_config.json."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.lower().endswith(".json")):
        return PreprocessFile(path(value))
    if isinstance(value, str):
        return Preprocess.parse(value)
    if not isinstance(value, Preprocess | PreprocessFile):
        raise ValueError
    return value


def shares(value: Any) -> tuple[float, ...]:
    """Different shares above 0 and at most 1, falling; one or more."""
    accept = number(0, 1, above=True)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise ValueError
    found = tuple(sorted({accept(one) for one in value}, reverse=True))
    if not found:
        raise ValueError
    return found


def blocks(value: Any) -> str:
    """A number of blocks, or a percentage, as text."""
    given = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(given, str):
        raise ValueError
    percent = given.endswith("%")
    amount = float(given.removesuffix("%"))
    if not amount > 0 or (amount > 100 if percent else not amount.is_integer()):
        raise ValueError
    return given


def function(value: Any) -> Any:
    """Something to call, or FILE.py:FUNCTION as text."""
    if isinstance(value, str):
        file, _, name = value.rpartition(":")
        if not file.endswith(".py") or "\0" in file or not name.isidentifier():
            raise ValueError
    elif not callable(value):
        raise ValueError
    return value


def quantization(value: Any) -> Quantization | None:
    """A `Quantization`, or its value; True for the first of them, and None for False."""
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return Quantization.INT8 if value else None
    if not isinstance(value, str):
        raise ValueError
    return Quantization(value)


def steps(value: Any) -> tuple[Step, ...]:
    """Several steps, each once and in their own order; "all" for all of them. The ValueError names one that is none."""
    if value == "all":
        return tuple(Step)
    given = (value,) if isinstance(value, str) else tuple(value) if hasattr(value, "__iter__") else ()
    for one in given:
        if not isinstance(one, str) or one not in list(Step):
            raise ValueError(f"'{one}' is none of them")
    if not given:
        raise ValueError
    return tuple(step for step in Step if step in given)


def command(value: Any) -> str:
    """A command that names {model} among its arguments. The ValueError says what is wrong with it."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise ValueError(f"'{value}' cannot be split into words: {error}") from None
    if not any("{model}" in word for word in words[1:]):
        raise ValueError(f"'{value}' has no {{model}} among its arguments")
    return value


def rounding(value: Any) -> int | str:
    """A whole number of at least 1, or "auto"."""
    return AUTO if isinstance(value, str) and value == AUTO else int(integer(1, 2**20)(value))


def anything(value: Any) -> Any:
    """Whatever it is: those who read it say what is wrong."""
    return value


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression: {error}") from None
