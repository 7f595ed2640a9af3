"""What is public: all classes that signatures of public functions, methods and options mention, with docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import onnxfold
from onnxfold.options import keywords

NAMES = [name for name in onnxfold.__all__ if name != "__version__"]
DATA = ("Options", "Budget", "Limits", "WidthPlan", "PlannedGroup", "Preprocess", "Remaining")
"""How classes end whose fields are arguments; those of reports are data, which docs/report.md describes."""

PANDAS = types.SimpleNamespace(DataFrame=object)  # which need not be installed


def classes_in(hint: Any) -> Iterator[type]:
    """All classes that a type mentions."""
    if isinstance(hint, list | tuple):
        for one in hint:
            yield from classes_in(one)
    elif isinstance(hint, type) and typing.is_typeddict(hint):
        yield from classes_in(list(typing.get_type_hints(hint).values()))
    else:
        yield from [hint] if isinstance(hint, type) else []
        yield from classes_in(list(typing.get_args(hint)))


def functions_of(name: str) -> Iterator[tuple[str, Any]]:
    """What can be called, or read like a property, of a public name."""
    one = getattr(onnxfold, name)
    if inspect.isfunction(one):
        yield name, one
    if isinstance(one, type):
        ours = [kind for kind in one.__mro__ if kind.__module__.startswith("onnxfold")]
        for attribute, found in [pair for kind in ours for pair in vars(kind).items()]:
            function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
            if inspect.isfunction(function) and not attribute.startswith("_"):
                yield f"{name}.{attribute}", function


def mentioned(name: str) -> Iterator[tuple[str, type]]:
    """(where, class) of what the signatures of a public name mention of onnxfold."""
    one = getattr(onnxfold, name)
    given: list[tuple[str, Any]] = [*functions_of(name)]
    given += [(name, one)] if dataclasses.is_dataclass(one) and name.endswith(DATA) else []
    for where, function in given:
        for hint in typing.get_type_hints(function, None, {"pandas": PANDAS}).values():
            yield from ((where, kind) for kind in classes_in(hint) if kind.__module__.startswith("onnxfold"))


def fields_of(kind: type) -> Iterator[tuple[str, type]]:
    """(where, class) of what the fields of a dataclass mention of onnxfold."""
    hints = typing.get_type_hints(kind, None, {"pandas": PANDAS})
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        if not one.name.startswith("_"):
            found = (inner for inner in classes_in(hints[one.name]) if inner.__module__.startswith("onnxfold"))
            yield from ((f"{kind.__name__}.{one.name}", inner) for inner in found)


PUBLIC = {id(getattr(onnxfold, name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_what_signatures_mention_is_public(name: str) -> None:
    assert not {where: kind for where, kind in mentioned(name) if id(kind) not in PUBLIC}


@pytest.mark.parametrize("name", NAMES)
def test_what_fields_mention_is_public(name: str) -> None:
    """Whoever writes a function of a report's part can name its type. Each mentioned class is public, and so has its
    own turn: what stands deep inside is found too."""
    one = getattr(onnxfold, name)
    given = fields_of(one) if dataclasses.is_dataclass(one) and isinstance(one, type) else ()
    assert not {where: kind for where, kind in given if id(kind) not in PUBLIC}


def test_mentioned_classes_are_seen() -> None:
    """A search that finds nothing would pass everything."""
    found = {kind for name in ("fold", "FoldOptions", "Plan") for _, kind in mentioned(name)}
    assert {onnxfold.Method, onnxfold.SelectionOptions, onnxfold.FoldResult, onnxfold.Remaining} <= found
    assert onnxfold.Device in classes_in(keywords.FoldKeywords)
    found = {kind for name in ("FoldReport", "Check", "Quality") for _, kind in fields_of(getattr(onnxfold, name))}
    assert {onnxfold.ModelSize, onnxfold.Quality, onnxfold.ProviderCheck, onnxfold.Deviation} <= found


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_says_what_it_is(name: str) -> None:
    one = getattr(onnxfold, name)
    assert (one.__doc__ or "").strip() and not (one.__doc__ or "").startswith(f"{name}("), "not the one that is made"
    silent = [where for where, function in functions_of(name) if not inspect.getdoc(function)]
    assert not silent
