"""One block of a model that is too large to run, cut out of the files and run alone: what the fold did to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto
from scipy.sparse import csr_matrix

from ..analysis.groups import ChannelGroup
from ..analysis.result import Analysis
from ..errors import ExecutionError, RequestError
from ..evaluation.metrics import OutputError, output_error
from ..evaluation.verdict import Check
from ..folding.merge import Merge, rearranging
from ..model.kv_cache import Cache
from ..model.model import Model
from ..model.save import inline
from ..progress import Phase
from ..runtime.outputs import as_array
from ..runtime.probe_inputs import emptied, probe
from ..runtime.segments import segment
from ..runtime.session import Feeds, Session, serialized
from ..transform.edits import edits
from ..transform.emit import emit
from .base import BasePass, Run, State
from .fold import FoldRecord

FAITHFUL: Mapping[int, float] = {
    TensorProto.FLOAT: 1e-5, TensorProto.DOUBLE: 1e-12, TensorProto.FLOAT16: 5e-3, TensorProto.BFLOAT16: 4e-2
}  # fmt: skip
"""Relative L2 between a folded block and its reference, by element type: sums in another order (float32: measured
4e-7), and for 16 bits sums of weights rounded once more (float16: 3e-4)."""

_ROWS = 8  # of probe inputs
_Version = tuple[Callable[[], ModelProto], Path | None]  # what makes it, and where its external data is


@dataclass(frozen=True)
class BlockCheck:
    """The block of one `group`: how far its outputs are from the original's (`errors`), and from a `reference`.

    That is the original with every channel replaced by what it was merged into, at its full width: it has to be the
    same but for rounding.
    """

    group: str
    errors: tuple[OutputError, ...]
    reference: float
    tolerance: float

    @property
    def faithful(self) -> bool:
        """Whether the folded block computes what it should."""
        return self.reference <= self.tolerance


class CheckBlock(BasePass):
    """Adds what one block of a streamed model shows to the verdict."""

    name = "verify"
    requires = frozenset(("verdict", "analysis"))
    phases = (Phase.CHECK,)

    def __call__(self, state: State, run: Run) -> State:
        subject = state.known
        if not subject.streamed:
            return state
        assert state.staged is not None
        merges = state.done(FoldRecord).merges
        block = check_block(subject.model, subject.analysis, merges, state.staged.path)
        return state.adding(block_checked(state.done(Check), block))


def check_block(model: Model, analysis: Analysis, merges: Mapping[str, Merge], folded: Path) -> BlockCheck | None:
    """The smallest of the folded groups whose block can be run alone, in the file `folded`; None if there is none."""
    groups = [g for g in analysis.groups if g.name in merges]
    after = ModelProto.FromString(folded.read_bytes())
    for group in sorted(groups, key=lambda g: _weights(model, g)):
        wide = partial(_widened, model, analysis, group.name, merges[group.name])
        versions: list[_Version] = [
            (wide, model.folder), (lambda: model.proto, model.folder), (lambda: after, folded.absolute().parent)
        ]  # fmt: skip
        found = _compared(model, group, versions, analysis.caches)
        if found is not None:
            return found
    return None


def _widened(model: Model, analysis: Analysis, name: str, merge: Merge) -> ModelProto:
    return emit(model, edits(model, analysis, {name: spread(merge)}))


def block_checked(verdict: Check, block: BlockCheck | None) -> Check:
    """The verdict with what a block has shown."""
    if block is None:
        return verdict.noting("no single block of it could be run on its own")
    worst = max(block.errors, key=lambda error: error.relative_l2)
    where = f"the block of '{block.group}' on its own"
    note = f"{where}, on random inputs: {worst.relative_l2:.1%} from the original"
    apart = f"{block.reference:.1e} from the same fold computed at full width"
    if block.faithful:
        return verdict.noting(f"{note}, {apart}")
    return replace(verdict, problems=(*verdict.problems, f"{where} computes something else: {apart}"))


def spread(merge: Merge) -> Merge:
    """`merge` without removing anything: every channel becomes what it is merged into, dropped ones are not read."""
    n, kept = merge.before, np.flatnonzero(merge.labels >= 0)
    whose = csr_matrix((np.ones(len(kept)), (kept, merge.labels[kept])), shape=(n, merge.after))
    read = csr_matrix((np.ones(len(kept)), (kept, kept)), shape=(n, n))
    wide = rearranging(whose @ merge.for_producers, read)
    return replace(wide, scales={tensor: _taken(factors, merge) for tensor, factors in merge.scales.items()})


def _taken(factors: NDArray[np.float64], merge: Merge) -> NDArray[np.float64]:
    return np.where(merge.labels >= 0, factors[np.maximum(merge.labels, 0)], 1.0)


def _compared(
    model: Model, group: ChannelGroup, versions: Sequence[_Version], caches: Sequence[Cache]
) -> BlockCheck | None:
    """The block of `group` in three versions: reference, original, folded; None if it cannot be run. One after the
    other: of two, only one is in memory."""
    inside = {place.tensor for place in group.places if place.role is None}
    block = _block(model, group, inside)
    outputs = [name for i in block for name in model.graph.nodes[i].outputs if name and name not in inside]
    if not outputs or any(map(model.graph.in_body, block)):
        return None
    made = {name for i in block for name in model.graph.nodes[i].outputs if name}
    found = list[list[NDArray[Any]]]()
    feeds: Feeds = {}
    try:
        for version, folder in versions:
            session = Session(_bytes(model, version(), folder, made, outputs), unpacked=True)
            feeds = feeds or emptied(probe(session.inputs, batch=_ROWS), caches)
            if any(spec.name not in feeds for spec in session.inputs):  # reads what the block does not in the reference
                return None
            mine = session.fitted({spec.name: feeds[spec.name] for spec in session.inputs})
            found.append([as_array(n, x) for n, x in zip(session.outputs, session.run(mine), strict=True)])
            del session  # before the next one is made
    except (ExecutionError, RequestError):  # another block may run
        return None
    reference, before, after = found
    if any(a.shape != b.shape for a, b in zip(reference, after, strict=True)):  # its outputs are of another group
        return None
    if not all(np.isfinite(x.astype(np.float64)).all() for x in reference):
        return None
    apart = max(output_error("", a, b).relative_l2 for a, b in zip(reference, after, strict=True))
    errors = tuple(output_error(name, a, b) for name, a, b in zip(outputs, before, after, strict=True))
    kinds = {model.graph.tensor(place.tensor).dtype for place in group.parameters}
    return BlockCheck(group.name, errors, apart, max(FAITHFUL.get(kind, 1e-4) for kind in kinds))


def _block(model: Model, group: ChannelGroup, inside: Collection[str]) -> list[int]:
    """The nodes that make, change or read the channels, but for those whose outputs are constants."""
    found = {i for place in group.parameters for i in place.nodes}
    for name in inside:
        found.update(model.graph.consumers.get(name, ()))
        found.update([model.graph.producer[name]] if name in model.graph.producer else [])
    fixed = model.constants.names
    return sorted(i for i in found if not all(o in fixed for o in model.graph.nodes[i].outputs if o))


def _bytes(model: Model, proto: ModelProto, folder: Path | None, made: set[str], outputs: Sequence[str]) -> bytes:
    """A model of the nodes of `proto` that make the tensors `made`, and the constants that these need."""
    producers = {name: index for index, node in enumerate(proto.graph.node) for name in node.output if name}
    chosen, waiting = set[int](), [*made]
    while waiting:
        name = waiting.pop()
        index = producers.get(name)
        if index is not None and index not in chosen and (name in made or name in model.constants):
            chosen.add(index)
            waiting.extend(proto.graph.node[index].input)
    nodes = [proto.graph.node[index] for index in sorted(chosen)]
    given = {value.name: value for value in proto.graph.input}  # caches may have fewer heads than the original's
    part = segment(proto, nodes, outputs, lambda name: given.get(name) or _typed(model, name))
    return serialized(inline(part, folder))


def _typed(model: Model, name: str) -> ValueInfoProto:
    info = model.graph.tensor(name)
    return onnx.helper.make_tensor_value_info(name, info.dtype or TensorProto.FLOAT, info.declarable)


def _weights(model: Model, group: ChannelGroup) -> int:
    """How many numbers the parameters of a group have."""
    shapes = (model.graph.tensor(tensor).shape or () for tensor in {p.tensor for p in group.parameters})
    return sum(math.prod(d for d in shape if isinstance(d, int)) for shape in shapes)
