"""How long the inputs are made that leave dimensions open: one length for one name, and long enough for the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ExecutionError, RequestError
from ..model.graph import skeleton
from ..model.model import Model, Shapes
from ..model.shapes.inference import negative
from ..model.shapes.nominal import Lengths, agreed, concrete_shape, stretchable
from ..model.shapes.resolve import shaped
from .probe_inputs import MOST_LENGTH, index_limits, probe
from .session import Session, brief

# of images and of raw audio, after doubled ones: sides that positions are learned for, seconds at 16 and 48 kHz
_LONGER = (32, 64, 96, 128, 224, 256, 384, 512, 1024, 2048, 4096, 8192, 16000, 32000, 48000, 64000, 160000, 480000)


@dataclass(frozen=True)
class Settled:
    """`shapes` of inputs, those that were given and those that had to be found (where the first length is 0, any number
    of samples may stand); `note` tells the user of the latter. `failure`: why nothing runs, '' where something may."""

    shapes: Shapes = field(repr=False)
    note: str = ""
    failure: str = ""


def settled(model: Model, given: Shapes, may_run: bool = True) -> Settled:
    """Shapes with which `model` can be run and priced, beside those that were `given`.

    Lengths are those of `concrete_shape`; where the graph is too short for its inputs, longer ones are tried until it
    runs. A session is opened only where shapes alone do not tell, and if it `may_run`.
    """
    shapes = agreed(model.graph, model.constants, given or {})
    places = stretchable(model.graph, model.constants, given or {})
    if not places or (fits := _fits(model, shapes)) or (fits is None and not may_run):
        return Settled(shapes or given)
    runner = _Runner(model) if may_run else None
    if fits is None and runner is not None and (runner.session is None or runner.runs(shapes)):
        return Settled(shapes or given)
    for lengths in _trials(places):
        longer = agreed(model.graph, model.constants, given or {}, lengths)
        good = _fits(model, longer)
        if good is not False and (runner is None or runner.session is None or runner.runs(longer)):
            return Settled(longer, _note(model, longer, given or {}))
    return Settled(shapes or given, failure="" if runner is None else runner.failure)


def _trials(places: Lengths) -> Iterator[Lengths]:
    """Longer lengths: of all places together, then of each by itself."""
    for longer in _LONGER:
        if any(longer > length for length in places.values()):
            yield {place: max(length, longer) for place, length in places.items()}
    for place, length in places.items() if len(places) > 1 else ():
        yield from ({place: longer} for longer in _LONGER if longer > length)


def _fits(model: Model, shapes: Mapping[str, Sequence[int]]) -> bool | None:
    """Whether all tensors have a length with inputs of these `shapes`, and outputs something in them; None where that
    cannot be told without running the model."""
    graph, bare = model.graph, skeleton(model.proto, _full(model, shapes))
    if negative(bare):
        return False
    found, empty = shaped(graph, bare, model.constants), any(0 in shape for shape in _full(model, shapes).values())
    if not empty and any(0 in (found.tensor(name).shape or ()) for name in graph.outputs):
        return False
    made = (found.tensor(name).shape for node in graph.main_nodes for name in node.outputs if name)
    return True if all(shape is not None and all(isinstance(d, int) for d in shape) for shape in made) else None


def _full(model: Model, shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs for one sample."""
    found = {}
    for name in model.graph.inputs:
        declared = model.graph.tensor(name).declarable
        if name not in model.constants and declared is not None:
            found[name] = concrete_shape(declared, 1, shapes.get(name))
    return found


class _Runner:
    """Runs a model on one made sample; `session` is None where onnxruntime does not load it. `failure`: why the last
    run failed."""

    def __init__(self, model: Model) -> None:
        self._limits, self.failure = index_limits(model.graph), ""
        try:
            self.session: Session | None = Session.of(model)
        except ExecutionError:
            self.session = None

    def runs(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether the model runs on inputs of these shapes."""
        assert self.session is not None
        if any(max(shape, default=0) >= MOST_LENGTH for shape in shapes.values()):
            return False
        try:
            self.session.run(probe(self.session.inputs, batch=1, shapes=shapes, limits=self._limits))
        except (ExecutionError, RequestError) as error:
            self.failure = brief(error)
            return False
        return True


def _note(model: Model, shapes: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> str:
    """What the user should know of inputs that are longer than usual."""
    usual = agreed(model.graph, model.constants, given)
    longer = {name: shape for name, shape in _full(model, shapes).items() if shape != _full(model, usual)[name]}
    made = ", ".join(f"'{name}' {list(shape)}" for name, shape in longer.items())
    return f"inputs are made as long as the model needs: {made} (other lengths: `input_shapes`)"
