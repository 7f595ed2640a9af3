"""Sizes that stand for open dimensions, wherever a model has to be run or priced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph import Graph, Names

Place = str | tuple[str, int]
"""An open dimension: by its name where several inputs have it, else by the input and the axis."""
Lengths = Mapping[Place, int]
BATCH = -1  # in a shape: any number of samples
UNNAMED = frozenset({None, "", "?", "-1", "None"})  # how exporters write a dimension without a name
OPEN_SPATIAL = 64  # for open dimensions of images and the like: every usual stride divides it
OPEN_COLOR = (
    256  # of color images: detectors and readers of text do something else with 64 pixels than with photographs
)
_COLORS = 3
OPEN_OTHER = 16
_DIGITS = 6  # of numbers in names such as "past_length + 1"; longer ones are no lengths


def concrete_shape(
    shape: Sequence[int | str | None], batch: int, given: Sequence[int] | None = None
) -> tuple[int, ...]:
    """`shape` with its open dimensions filled in: the first with `batch`, those of color images with 256, of
    other images and volumes with 64, others with 16.

    Caches of attention are empty: dimensions called "past..." have length 0, also as part of a sum. `given`: the shape
    to take instead, `batch` in place of `BATCH`.

    >>> concrete_shape(("N", 8, "past_sequence_length", 64), 2), concrete_shape(("N", "past_length + sequence"), 2)
    ((2, 8, 0, 64), (2, 16))
    """
    if given is not None:
        return tuple(batch if n == BATCH else n for n in given)
    other = OPEN_OTHER if len(shape) < 4 else OPEN_COLOR if _is_color(shape) else OPEN_SPATIAL

    def length(dim: int | str | None) -> int:
        if isinstance(dim, int) and dim > 0:
            return dim
        parts = [part.strip() for part in dim.split("+")] if isinstance(dim, str) else [""]
        if not any(part.startswith("past") for part in parts):
            return other
        return sum(_number(part, other) for part in parts)

    return tuple(length(d) if axis or (isinstance(d, int) and d > 0) else batch for axis, d in enumerate(shape))


def _is_color(shape: Sequence[int | str | None]) -> bool:
    return len(shape) == 4 and (shape[1] == _COLORS or shape[3] == _COLORS)


def agreed(
    graph: Graph, constants: Names, given: Mapping[str, Sequence[int]], lengths: Lengths | None = None
) -> dict[str, Sequence[int]]:
    """`given` shapes of inputs, and those of others in which the usual lengths (`concrete_shape`) contradict these or
    each other: an open dimension whose name several inputs share has one length, the number of samples (`BATCH`) where
    it is the first of one of them. `lengths`: of some, instead.
    """
    declared = _declared(graph, constants)
    known = dict(_known(declared, given)) | dict(lengths or {})
    found: dict[str, Sequence[int]] = dict(given)
    for name, shape in declared.items():
        usual = _usual(shape)
        made = [_length(known, name, axis, dim, n) for axis, (dim, n) in enumerate(zip(shape, usual, strict=True))]
        if name not in given and made != usual:
            found[name] = tuple(made)
    return found


def stretchable(graph: Graph, constants: Names, given: Mapping[str, Sequence[int]]) -> dict[str, dict[Place, int]]:
    """By input, the open dimensions that may be made longer, and the usual length of each: no batch, no cache, none
    `given`."""
    declared, found = _declared(graph, constants), dict[str, dict[Place, int]]()
    told, known, shared = _told(declared, given), _known(declared, given), _shared(declared)
    for name, shape in declared.items():
        for axis, (dim, usual) in enumerate(zip(shape, _usual(shape), strict=True)):
            place = dim if isinstance(dim, str) and dim in shared else (name, axis)
            length = known.get(place, usual)
            if name not in given and axis and length > 0 and not _fixed(dim) and dim not in told:
                found.setdefault(name, {})[place] = length
    return found


def _declared(graph: Graph, constants: Names) -> dict[str, tuple[int | str | None, ...]]:
    shapes = {name: graph.tensor(name).declarable for name in graph.inputs if name not in constants}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _usual(shape: Sequence[int | str | None]) -> list[int]:
    """The lengths of `concrete_shape`, with `BATCH` for a first one that is open."""
    return list(concrete_shape(shape, BATCH))


def _fixed(dim: int | str | None) -> bool:
    return isinstance(dim, int) and dim > 0


def _shared(declared: Mapping[str, Sequence[int | str | None]]) -> set[str]:
    """Names of open dimensions that several inputs have."""
    names = [dim for shape in declared.values() for dim in {d for d in shape if isinstance(d, str)} - UNNAMED]
    return {name for name in names if names.count(name) > 1}


def _told(
    declared: Mapping[str, Sequence[int | str | None]], given: Mapping[str, Sequence[int]]
) -> dict[int | str | None, int]:
    """Lengths by name that `given` shapes tell."""
    pairs = [pair for name, shape in given.items() for pair in zip(declared.get(name, ()), shape, strict=False)]
    return {dim: n for dim, n in pairs if isinstance(dim, str) and dim not in UNNAMED}


def _known(declared: Mapping[str, Sequence[int | str | None]], given: Mapping[str, Sequence[int]]) -> dict[Place, int]:
    """Lengths of open dimensions by name: those of `given` shapes, and what inputs that share a name make of it."""
    known: dict[Place, int] = {dim: n for dim, n in _told(declared, given).items() if isinstance(dim, str)}
    shared = _shared(declared) - set(known)
    for shape in declared.values():
        for axis, (dim, n) in enumerate(zip(shape, _usual(shape), strict=True)):
            if isinstance(dim, str) and dim in shared:
                known[dim] = BATCH if axis == 0 or known.get(dim) == BATCH else max(n, known.get(dim, 0))
    return known


def _length(known: Lengths, name: str, axis: int, dim: int | str | None, usual: int) -> int:
    """The length of an axis of an input: of its name, or of the sum in that, where these are known; else the usual."""
    if (name, axis) in known or not isinstance(dim, str):
        return known.get((name, axis), usual)
    parts = [part.strip() for part in dim.split("+")]
    if dim in known or len(parts) == 1 or not any(part in known for part in parts):
        return known.get(dim, usual)
    return sum(known[part] if part in known else _number(part, OPEN_OTHER) for part in parts)


def _number(part: str, other: int) -> int:
    """What a part of a sum stands for: a number (not one beyond any length), an empty past, or an open length."""
    if part.isdecimal() and len(part) <= _DIGITS:
        return int(part)
    return 0 if part.startswith("past") else other


def empty_shape(shape: Sequence[int | str | None], batch: int) -> tuple[int, ...] | None:
    """The shape of an input that holds nothing to begin with (a cache without tokens); None for all others.

    >>> empty_shape(("N", 8, "past_sequence_length", 64), 2), empty_shape(("N", 8), 2)
    ((2, 8, 0, 64), None)
    """
    found = tuple(0 if d == 0 else n for d, n in zip(shape, concrete_shape(shape, batch), strict=True))
    return found if 0 in found[1:] else None
