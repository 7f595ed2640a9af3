"""New values of computed weights in the form in which the model stores them: a tensor, and the steps behind it.

What views (model/tied.py) should be is carried back to the tensor they are made of; lists of Reshapes follow. What is
computed in another way becomes a tensor of its own, in the type of what it was computed from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from ..analysis.rules.reshape import segments
from ..errors import RuleError
from ..frozen import read_only
from ..model.expressions import SELECTS, backward, new_lengths, permutation, selected_from
from ..model.model import Model
from ..model.quantized.tensor import Stored
from ..model.subgraphs import every_node
from ..model.tensors import Pending, settled
from ..model.tied import Family, View, small
from .edits import Edits

Array = NDArray[Any]
Arrays = Mapping[str, "Array | Pending"]
Shape = tuple[int, ...]
_LOST = 2**-7  # relative: what rounding to the type that is stored may change, that of bfloat16 included


@dataclass(frozen=True, eq=False)
class StoredForm:
    """New `arrays` by the name of what is written, and the ONNX types (`kinds`) of those that a Cast is to follow; the
    constants that `follow` from them by themselves; numbers in lists by (node, input); and `lengths` of axes."""

    arrays: Mapping[str, Array | Pending] = field(repr=False)
    kinds: Mapping[str, int]
    follow: frozenset[str]
    lists: Mapping[tuple[int, int], Mapping[int, int]]
    lengths: Mapping[tuple[str, int], int]

    def __post_init__(self) -> None:
        read_only(self)


def stored_form(model: Model, changes: Edits) -> StoredForm:
    """What is to be written for the new arrays of `changes`, but for those that are stored as integers."""
    arrays = {name: array for name, array in changes.arrays.items() if name not in model.constants.stored}
    back = _Back(model, arrays, changes.lengths)
    for name in arrays:
        back.put(name)
    for name in changes.arrays.keys() & model.constants.stored.keys():
        back.between(model.constants.stored[name], settled(changes.arrays[name]).shape)
    return StoredForm(back.written, back.kinds, frozenset(back.follow), back.lists, back.made)


class _Back:
    """Carries new values back to what is stored, and notes what a `StoredForm` holds."""

    def __init__(self, model: Model, arrays: Arrays, lengths: Mapping[tuple[str, int], int]) -> None:
        self.written, self.kinds, self.follow = dict[str, Array | Pending](), dict[str, int](), set[str]()
        self.lists, self.made = dict[tuple[int, int], dict[int, int]](), dict[tuple[str, int], int]()
        self._model, self._tied, self._arrays, self._lengths = model, model.tied, arrays, lengths
        self._protos = every_node(model.proto)
        self._read = partial(small, model.graph, model.constants)

    def put(self, name: str) -> None:
        """Take in the new values of one weight."""
        family = self._tied.family.get(name)
        if family is None:
            self.written[name] = self._arrays[name]
        elif family.tied:
            self._together(name, family)
        elif name not in self.follow and not self._alike(name, family):
            self._apart(name, family)

    def between(self, one: Stored, last: Shape) -> None:
        """The lengths and the lists of the steps behind a weight that is stored as integers, by its new shape."""
        shapes = [] if one.form is None else one.form.shapes(last)
        for name, shape in zip(one.tensors, shapes, strict=False):
            self.made.update({(name, axis): n for axis, n in enumerate(shape)})
        for name, before, after in zip(one.tensors[1:], shapes, shapes[1:], strict=False):
            step = self._model.graph.producer[name]
            changed = new_lengths(self._protos[step], before, after, self._read)
            if changed:
                self.lists[step, 1] = changed

    def _together(self, name: str, family: Family) -> None:
        """One stored tensor for several weights, and the lists of all steps behind it."""
        written = self._write(self._tied.views[name])
        for view in (self._tied.views[leaf] for leaf in family.leaves):
            shapes = self._shapes(view, self._shape(view.name))
            if not written or shapes is None or shapes[0] != self._shape(view.root):
                raise RuleError(f"'{view.name}' cannot be stored in one tensor with '{name}'")
            self._list(view, shapes)

    def _alike(self, name: str, family: Family) -> bool:
        """Whether the only view of a tensor was written back to it, or all views of a vector, with one value."""
        if not family.viewed or any(leaf not in self._arrays for leaf in family.leaves):
            return False
        views = [self._tied.views[leaf] for leaf in family.leaves]
        if len(views) > 1:
            first = settled(self._arrays[name])
            same = all(np.array_equal(settled(self._arrays[view.name]), first) for view in views)
            if not same or any(view.axes != views[0].axes for view in views):
                return False
        return all(self._write(view) for view in views)

    def _apart(self, name: str, family: Family) -> None:
        """A tensor of its own, in the type of what it was computed from; so too what else was computed from that."""
        array, view = settled(self._arrays[name]), self._tied.views.get(name)
        kind = self._tied.kinds.get(name, 0) if view is None else self._model.graph.tensor(view.root).dtype
        self.written[name] = array
        if kind and name not in family.roots and _narrower(array, kind):
            self.kinds[name] = kind
        if not family.viewed and not family.grows:
            for leaf in set(family.leaves) - set(family.roots) - set(self._arrays):
                self.written[leaf] = self._model.constants.array(leaf)

    def _write(self, view: View) -> bool:
        """Put the new values of a view into its root, if there is a shape for that."""
        array = self._arrays[view.name]
        if not view.steps:
            self.written[view.root] = array
            return True
        value = settled(array)
        shapes = self._shapes(view, value.shape)
        if shapes is None:
            return False
        steps = list(zip(view.steps, view.tensors, shapes, strict=False))
        for step, name, shape in reversed(steps):
            value = backward(self._protos[step], value, shape, _dtype(self._model.graph.tensor(name).dtype), self._read)
        if not np.isfinite(value.astype(np.float32)).all() and np.isfinite(settled(array).astype(np.float32)).all():
            return False
        self.written[view.root] = value
        self._list(view, shapes)
        return True

    def _shapes(self, view: View, last: Shape) -> list[Shape] | None:
        """The new shapes of all tensors of a view, from its root on; None where none can be found."""
        shapes = [tuple(last)]
        for step, name, after in reversed(list(zip(view.steps, view.tensors, view.tensors[1:], strict=False))):
            before = self._before(step, name, after, shapes[0])
            if before is None:
                return None
            shapes.insert(0, before)
        return shapes

    def _before(self, step: int, name: str, after: str, made: Shape) -> Shape | None:
        """The new shape of what a step makes a tensor of shape `made` of."""
        old, node, known = list(self._old(name)), self._protos[step], self._shape(name)
        if node.op_type in SELECTS:
            return selected_from(node, old, made, self._read)
        if math.prod(known) == math.prod(made):
            return known
        if node.op_type == "Transpose":
            return tuple(made[axis] for axis in np.argsort(permutation(node, len(made))))
        for of_x, of_y in segments(old, self._old(after)):
            total = math.prod(made[axis] for axis in of_y)
            for axis in sorted(of_x, key=lambda axis: -old[axis]):
                whole = math.prod(old[a] for a in of_x)
                rest = whole // old[axis] if old[axis] else 0
                if whole != total and rest and total % rest == 0:
                    old[axis] = total // rest
        return tuple(old) if math.prod(old) == math.prod(made) else None

    def _list(self, view: View, shapes: Sequence[Shape]) -> None:
        for number, step in enumerate(view.steps):
            changed = new_lengths(self._protos[step], shapes[number], shapes[number + 1], self._read)
            if changed:
                self.lists[step, 1] = changed
        self.follow.update(view.tensors[1:])
        for name, shape in zip(view.tensors, shapes, strict=True):
            self.made.update({(name, axis): n for axis, n in enumerate(shape)})

    def _old(self, name: str) -> Shape:
        return tuple(d if isinstance(d, int) else 1 for d in self._model.graph.tensor(name).shape or ())

    def _shape(self, name: str) -> Shape:
        """The shape of a tensor after the edits, as far as the analysis follows it."""
        return tuple(self._lengths.get((name, axis), n) for axis, n in enumerate(self._old(name)))


def _dtype(kind: int) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind))


def _narrower(array: Array, kind: int) -> bool:
    """Whether values can be stored in another type of floats, which takes less room."""
    if _dtype(kind).itemsize >= array.dtype.itemsize:
        return False
    exact = array.astype(np.float64)
    with np.errstate(over="ignore"):
        lost = np.abs(array.astype(_dtype(kind)).astype(np.float64) - exact)
    return bool(np.isfinite(lost).all() and np.linalg.norm(lost) <= _LOST * np.linalg.norm(exact))
