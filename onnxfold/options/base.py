"""What all classes of options have in common: checks, dicts, JSON, and how they are printed."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from ..compat import Self
from ..errors import RequestError
from .budget import Budget, Limits
from .json_source import parsed
from .parameters import PARAMETERS, checked, mapping, shown, unknown
from .preprocess import Preprocess, PreprocessFile


class Options:
    """What all parts have in common: their fields are checked, and they go to and from dicts.

    `LIKE`: the parameter that a field is checked like, where that is called otherwise.
    """

    LIKE: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        for name, kind in kinds_of(type(self)).items():
            value, parameter = getattr(self, name), self.LIKE.get(name, name)
            if kind is not None:
                if not isinstance(value, kind) and not (value is None and getattr(type(self), name) is None):
                    raise RequestError(f"`{name}` must be {kind.__name__}, not {shown(value)}")
            elif parameter in PARAMETERS:
                object.__setattr__(self, name, checked(parameter, value, name))

    def __repr__(self) -> str:
        """What is not as usual, as Python makes it anew: ``eval`` gives equal options, where `to_dict` can write them
        down.

        >>> from onnxfold import SelectionOptions
        >>> SelectionOptions(method="fold", round_to=16)
        SelectionOptions(method='fold', round_to=16)
        """
        given = ", ".join(f"{name}={_code(getattr(self, name))}" for name in self._unusual())
        return f"{type(self).__name__}({given})"

    def _repr_html_(self) -> str:
        """For notebooks: the options that are not as usual, with what each is for."""
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(text)}</td><td>{html.escape(purpose)}</td></tr>"
            for name, text, purpose in self._rows()
        )
        title = f"<p><strong>{type(self).__name__}</strong>{'' if rows else ': all as usual'}</p>"
        head = "<thead><tr><th>option</th><th>value</th><th>what for</th></tr></thead>"
        return f"{title}<table>{head}<tbody>{rows}</tbody></table>" if rows else title

    def _rows(self, prefix: str = "") -> Iterator[tuple[str, str, str]]:
        """(name, value, what it is for) of what is not as usual, parts taken apart."""
        for name in self._unusual():
            value, parameter = getattr(self, name), self.LIKE.get(name, name)
            if isinstance(value, Options) and value._unusual():
                yield from value._rows(f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", _code(value), _purpose(parameter, value)

    def _unusual(self) -> list[str]:
        """The names of the fields that differ from their defaults."""
        return [name for name in kinds_of(type(self)) if _differs(getattr(self, name), getattr(type(self), name))]

    def to_json(self) -> str:
        """What `to_dict` gives, as text. Raises RequestError as that does."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The options that `to_json` wrote; what is not given has its default. Raises RequestError."""
        try:
            found = parsed(text)
        except ValueError as error:
            raise RequestError(f"these are no {cls.__name__}: no JSON ({error})") from error
        return cls.from_dict(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: names of choices, texts, numbers, lists and dicts, as YAML and JSON hold them.

        Raises RequestError for calibration data that is not a path, and for a metric that is not 'FILE.py:FUNCTION'.
        """
        return {name: _plain(name, getattr(self, name)) for name in kinds_of(type(self))}

    def changed(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """The plain values of the fields that are not the usual ones, but for those in `without`. An empty mapping is
        no other than None."""
        usual = type(self)()
        names = [name for name in kinds_of(type(self)) if name not in set(without)]
        there = [name for name in names if getattr(self, name) not in (getattr(usual, name), {})]
        return {name: _plain(name, getattr(self, name)) for name in there}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is not given has its default. Raises RequestError."""
        kinds = kinds_of(cls)
        made: dict[str, Any] = {}
        for name, value in mapping(cls.__name__, given).items():
            if name not in kinds:
                raise unknown(str(name), kinds, cls.__name__)
            kind = kinds[name]
            made[name] = kind.from_dict(value) if kind is not None and isinstance(value, Mapping) else value
        return cls(**made)


def kinds_of(cls: type[Options]) -> Mapping[str, type[Any] | None]:
    """The fields of a class of options by name: the class of one that is a part with fields of its own, else None."""
    kind: Any = cls  # what mypy thinks of as without a hash
    return _kinds_of(kind)


@cache
def _kinds_of(cls: Any) -> Mapping[str, type[Any] | None]:
    hints = get_type_hints(cls)
    found: dict[str, type[Any] | None] = {}
    for one in fields(cls):
        members = get_args(hints[one.name]) or (hints[one.name],)
        classes = [kind for kind in members if isinstance(kind, type) and get_origin(kind) is None]
        parts = [kind for kind in classes if issubclass(kind, Options | Budget | Limits)]
        found[one.name] = parts[0] if parts else None
    return found


def _differs(value: Any, usual: Any) -> bool:
    """Whether `value` is another one than `usual`; arrays and the like, which do not compare, are."""
    if isinstance(value, Options) and type(value) is type(usual):
        return bool(value._unusual())
    if type(value) is not type(usual) and not isinstance(value, Budget):
        return True
    return value is not usual and bool(value != usual)


def _purpose(parameter: str, value: Any) -> str:
    """What an option is for; of a part, what that is."""
    name = value.aim.parameter if isinstance(value, Budget) else parameter
    said = PARAMETERS[name].purpose if name in PARAMETERS else (type(value).__doc__ or "")
    return said.partition(". ")[0].partition("\n\n")[0].replace("`", "")


def _code(value: Any) -> str:
    """A value as Python code; of what cannot be code, what it calls itself."""
    if isinstance(value, Enum):
        return repr(value.value)
    if isinstance(value, Preprocess | PreprocessFile):
        return repr(str(value))
    if isinstance(value, tuple) and value:
        return f"({', '.join(map(_code, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Options | Budget | Limits):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Preprocess | PreprocessFile):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__fspath__"):
        return str(value)
    instead = "'FILE.py:FUNCTION'" if name == "metric" else "a path"
    raise RequestError(f"`{name}` holds a {type(value).__name__}, which cannot be written down: give {instead}")
