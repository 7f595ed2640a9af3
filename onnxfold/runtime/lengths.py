"""How long the inputs are made that leave dimensions open: one length for one name, and long enough for the graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ExecutionError, RequestError
from ..model.graph import Graph
from ..model.model import Model, Shapes
from ..model.shapes.inference import Bounds
from ..model.shapes.nominal import BATCH, OPEN_COLOR, OPEN_SPATIAL, Lengths, agreed, concrete_shape, stretchable
from .probe_inputs import index_limits, probe
from .session import Session

_QUICK = 2**28  # bytes; models below are loaded and run in no time
# sides of images, then of raw audio: doubled, and those that positions and grids are often made for
_LONGER = (
    32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 416, 448, 512, 608, 640, 800, 1024, 2048, 4096, 8192,
    16000, 32000, 48000, 64000, 160000, 480000,
)  # fmt: skip
_TEXT = 48, 320  # rows and columns of a line of text, as PaddleOCR cuts them
_ABSURD = 2**30  # numbers in one tensor: 4 GB
_DRAWN = 64  # positions of an axis with noise of their own
_MOST = 2**23  # values of all inputs for one sample; more would take long


@dataclass(frozen=True)
class Settled:
    """`shapes` of inputs, those that were given and those that had to be found (`BATCH` in them is any number of
    samples); `note` tells the user of the latter, or that nothing runs; `refusal` why the model must not be run."""

    shapes: Shapes = field(repr=False)
    note: str = ""
    refusal: str = ""


def settled(model: Model, given: Shapes, may_run: bool = True) -> Settled:
    """Shapes with which `model` can be run and priced, beside those that were `given`.

    Lengths are those of `concrete_shape`; where they are too short for the graph, longer ones are tried until it runs,
    if it `may_run`. Of a large model, shapes that tell enough are believed. One with a tensor of a billion numbers is
    not run.
    """
    shapes = agreed(model.graph, model.constants, given or {})
    places = stretchable(model.graph, model.constants, given or {})
    if not places:
        return Settled(shapes or given, refusal=_too_large(model.graph, bool(given)) if may_run else "")
    bounds = Bounds(model.hollow)
    found = _found(model, shapes, bounds)
    if may_run and found is not None and (said := _too_large(found, True)):
        return Settled(shapes or given, refusal=said)
    fits = _fits(model, shapes, found)
    if fits is not False and (not may_run or (fits and model.size > _QUICK)):
        return Settled(shapes or given)
    runner = _Runner(model) if may_run else None
    if fits is not False and runner is not None and (runner.session is None or runner.runs(shapes)):
        return Settled(shapes or given)
    for lengths in _trials(list(places.values())):
        longer = agreed(model.graph, model.constants, given or {}, lengths)
        if _size(model, longer) > _MOST or bounds.negative(_full(model, longer)):
            continue
        runs = runner is None or runner.session is None or runner.runs(longer)
        # the other way round it takes ten times as long
        if not runs or _fits(model, longer, model.at(_full(model, longer))) is False:
            continue
        if runner is None or runner.session is None:
            return Settled(longer, _note(model, longer, given or {}))
        if not runner.runs(longer, 2):  # a batch of one inside
            longer = {name: tuple(1 if n == BATCH else n for n in shape) for name, shape in longer.items()}
        return Settled(longer, _note(model, longer, given or {}))
    failed = runner is not None and runner.session is not None
    return Settled(shapes or given, "the model ran at none of the lengths tried: pass `input_shapes`" * failed)


def _too_large(graph: Graph, adjustable: bool) -> str:
    """What to say of a tensor that no machine should be asked to make; '' where there is none. Dimensions that nobody
    knows count as 1; `adjustable`: whether the user can give other lengths."""
    do = "give smaller `input_shapes`, or export it again" if adjustable else "export it again, for smaller inputs"
    for node in graph.nodes:
        for name in filter(None, node.outputs):
            count = math.prod(n for n in graph.tensor(name).shape or () if isinstance(n, int))
            if count >= _ABSURD:
                return f"tensor '{name}' has {count} numbers ({node.op}), too many to run the model: {do}"
    return ""


def _trials(places: Sequence[Lengths]) -> Iterator[Lengths]:
    """Other lengths, by what is open in every input: those of a line of text, of small images, then longer ones of all
    together, of one input, and of one with the number of samples for the others (states of a recurrent network)."""
    usual = {place: length for own in places for place, length in own.items()}
    sides = [place for place, length in usual.items() if length == OPEN_COLOR]
    if len(sides) == len(_TEXT):
        yield usual | dict(zip(sides, _TEXT, strict=True))
    if sides:
        yield usual | dict.fromkeys(sides, OPEN_SPATIAL)
    for longer in _LONGER:
        yield {place: max(length, longer) for place, length in usual.items()}
    for own in places if len(places) > 1 else ():
        for longer in _LONGER:
            yield {place: max(length, longer) for place, length in own.items()}
    for own in places if len(places) > 1 else ():
        for longer in (1, *_LONGER):
            yield {**dict.fromkeys(usual, BATCH), **{place: max(length, longer) for place, length in own.items()}}


def _found(model: Model, shapes: Mapping[str, Sequence[int]], bounds: Bounds) -> Graph | None:
    """The graph with the lengths that inputs of these `shapes` give; None where they are too short for it."""
    full = _full(model, shapes)
    return None if bounds.negative(full) else model.at(full)


def _fits(model: Model, shapes: Mapping[str, Sequence[int]], found: Graph | None) -> bool | None:
    """Whether all tensors have a length with inputs of these `shapes`, as `_found`, and outputs something in them; None
    where that cannot be told without running the model."""
    if found is None:
        return False
    graph, empty = model.graph, any(0 in shape for shape in _full(model, shapes).values())
    if not empty and any(0 in (found.tensor(name).shape or ()) for name in graph.outputs):
        return False
    made = (found.tensor(name).shape for node in graph.main_nodes for name in node.outputs if name)
    return True if all(shape is not None and all(isinstance(d, int) for d in shape) for shape in made) else None


def _size(model: Model, shapes: Mapping[str, Sequence[int]]) -> int:
    """The number of values that all inputs hold for one sample."""
    return sum(math.prod(shape) for shape in _full(model, shapes).values())


def _full(model: Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs for one sample."""
    found = {}
    for name in model.graph.inputs:
        declared = model.graph.tensor(name).declarable
        if name not in model.constants and declared is not None:
            found[name] = concrete_shape(declared, 1, shapes.get(name))
    return found


class _Runner:
    """Runs a model on one made sample; `session` is None where onnxruntime does not load it."""

    def __init__(self, model: Model) -> None:
        self._limits = index_limits(model.graph)
        try:
            self.session: Session | None = Session.of(model)
        except ExecutionError:
            self.session = None

    def runs(self, shapes: Mapping[str, Sequence[int]], batch: int = 1) -> bool:
        """Whether the model runs on inputs of these shapes."""
        assert self.session is not None
        try:
            self.session.run(probe(self.session.inputs, batch=batch, shapes=shapes, limits=self._limits, drawn=_DRAWN))
        except (ExecutionError, RequestError):
            return False
        return True


def _note(model: Model, shapes: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> str:
    """What the user should know of inputs that are longer than usual."""
    usual = agreed(model.graph, model.constants, given)
    longer = {name: shape for name, shape in _full(model, shapes).items() if shape != _full(model, usual)[name]}
    made = ", ".join(f"'{name}' {list(shape)}" for name, shape in longer.items())
    return f"inputs were made in the shapes that the model needs: {made} (change them with `input_shapes`)"
