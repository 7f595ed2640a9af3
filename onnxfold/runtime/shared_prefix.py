"""The original up to where a version of it begins to differ, run once for many versions."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

from onnx import ModelProto, TensorProto

from ..model.model import Model
from ..model.subgraphs import captures
from .segments import SegmentRunner
from .session import Feeds

_COUNTS = 64  # numbers in a constant of lengths at most; indices of channels are followed as groups


class SharedPrefix:
    """A walk over the original `model` on `feeds` that goes on only where versions differ ever later; else it starts
    anew."""

    def __init__(self, model: Model, feeds: Sequence[Feeds]) -> None:
        self.model, self.feeds = model, feeds
        self._walk = SegmentRunner(model.proto, feeds, model.folder)
        self._lengths = _integers(model.proto)
        self._held = frozenset[str]()  # what versions read later than the original (lengths, in lists of their own)

    def begin(self, version: ModelProto, changed: Container[str]) -> tuple[SegmentRunner, SegmentRunner]:
        """Walks over the original and over `version`, both at the first node where one of the tensors `changed` is
        read or made, a constant that counts channels is another one, or whose text differs. Raises what onnxruntime
        raises."""
        lengths = _integers(version)
        counted = {name for name, tensor in lengths.items() if self._lengths.get(name) != tensor}
        stop = self._same(version, changed, counted)
        late = self._late(version, stop)
        if stop < self._walk.position or not late <= self._held:
            self._held |= late
            self._walk = SegmentRunner(self.model.proto, self.feeds, self.model.folder, self._held)
        self._walk.advance(stop)
        return self._walk.fork(self.model.proto), self._walk.fork(version)

    def _late(self, version: ModelProto, stop: int) -> frozenset[str]:
        """What the first `stop` nodes make, and `version` reads after them where the original does not."""
        sides = (self.model.proto.graph.node[stop:], version.graph.node[stop:])
        old, new = ({name for node in nodes for name in (*node.input, *captures(node))} for nodes in sides)
        made = {name for node in version.graph.node[:stop] for name in node.output if name}
        return frozenset((new - old) & made)

    def _same(self, version: ModelProto, changed: Container[str], counted: Container[str]) -> int:
        """How many nodes at the beginning are the same: exporters count channels long before the node that does."""
        pairs = zip(self.model.proto.graph.node, version.graph.node, strict=False)
        stored = {*self.model.constants.stored, *self.model.constants.between}
        for index, (old, new) in enumerate(pairs):
            if any(name in stored for name in old.output):
                continue  # makes a weight, often far ahead of what reads it; walks compute it where they need it
            if any(name in changed for name in (*old.input, *captures(old), *old.output)) or old != new:
                return index
            if any(name in counted for name in (*new.input, *captures(new))):
                return index
        return min(len(self.model.proto.graph.node), len(version.graph.node))


def _integers(proto: ModelProto) -> dict[str, TensorProto]:
    """The initializers that may count channels, by name."""
    kinds = (TensorProto.INT32, TensorProto.INT64)
    return {t.name: t for t in proto.graph.initializer if t.data_type in kinds and math.prod(t.dims) <= _COUNTS}
