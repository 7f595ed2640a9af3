"""Reports read back from JSON: dataclasses of plain values, by the types of their fields."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ..errors import RequestError
from ..evaluation.metrics import OutputError
from ..evaluation.quality import Deviation
from ..units import brief

T = TypeVar("T")


def decoded(kind: type[T], data: object, where: str = "the report") -> T:
    """A `kind` of what JSON holds of it.

    Fields that JSON lacks have their defaults, those that `kind` lacks are left out (other versions had others); null
    is NaN where a number is needed. Raises RequestError for what does not fit.
    """
    if not isinstance(data, Mapping):
        raise RequestError(f"{where} must be an object, not {_shown(data)}")
    data = _filled(kind, data)
    given, made = {}, cast(Any, kind)
    hints = _hints(made)
    for one in dataclasses.fields(made):
        if one.name in data:
            given[one.name] = _value(hints[one.name], data[one.name], f"{where}: '{one.name}'")
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise RequestError(f"{where} lacks '{one.name}'")
    return kind(**given)


def _filled(kind: type[Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """`data` with infinite numbers where null stands for these: errors, and the SQNR of equal outputs."""
    if not issubclass(kind, OutputError | Deviation):
        return data
    errors = {n: math.inf for n in ("error", "relative_l2", "max_abs") if n in data and data[n] is None}
    sqnr = (
        {"sqnr_db": math.inf if data.get("relative_l2") == 0 else -math.inf} if data.get("sqnr_db", 0) is None else {}
    )
    return {**data, **errors, **sqnr}


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, data: object, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        return None if data is None else _value(inner, data, where)
    if origin is tuple:
        return _tuple(arguments, data, where)
    if origin in (dict, Mapping):
        return {str(key): _value(arguments[1], one, where) for key, one in _checked(dict, data, where).items()}
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return decoded(kind, data, where)
    return _single(kind, data, where)


def _tuple(arguments: tuple[Any, ...], data: object, where: str) -> tuple[Any, ...]:
    items = _checked(list, data, where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_value(arguments[0], one, where) for one in items)
    if len(items) != len(arguments):
        raise RequestError(f"{where} must have {len(arguments)} items, not {len(items)}")
    return tuple(_value(kind, one, where) for kind, one in zip(arguments, items, strict=True))


def _single(kind: Any, data: object, where: str) -> Any:
    """A number, a text, a truth value or a choice."""
    if kind is float:
        return float("nan") if data is None else float(_checked((int, float), data, where))
    if isinstance(kind, type) and issubclass(kind, Enum):
        if data not in [one.value for one in kind]:
            raise RequestError(
                f"{where} must be one of {', '.join(str(one.value) for one in kind)}, not {_shown(data)}"
            )
        return kind(data)
    return _checked(kind, data, where)


def _checked(kind: Any, data: object, where: str) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise RequestError(f"{where} must be of type {names}, not {_shown(data)}")
    return data


def _shown(data: object) -> str:
    return brief(data)
