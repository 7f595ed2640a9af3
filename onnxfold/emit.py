"""Emission: merges become edits of single tensors and integers, patched into a copy of the user's own ModelProto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from scipy.sparse import csr_matrix

from .analyse import Analysis
from .atoms import SlotKey
from .bodies import every_initializer, every_node, opened, subgraphs
from .channels import ChannelGroup, Place, Role
from .errors import RuleError
from .facts import At
from .graph import SAME_LIST
from .merge import Merge, apply
from .model import Model
from .quantise import Scheme
from .schemes import merged
from .shelf import Shelf
from .tensors import made, replaced


@dataclass(frozen=True)
class Edits:
    """All that changes: new `arrays` by constant name, `integers` (node, place, all new values of that list), `lengths`
    of axes by (tensor, axis). `schemes`: how those of `arrays` become integers that are stored so, before rounding."""

    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    integers: Sequence[tuple[int, At, int]]
    lengths: Mapping[tuple[str, int], int]
    schemes: Mapping[str, Scheme] = field(default_factory=dict, repr=False)


def edits(
    model: Model,
    analysis: Analysis,
    merges: Mapping[str, Merge],
    skip: frozenset[SlotKey] = frozenset(),
) -> Edits:
    """What the merges (by group name) change.

    `skip` leaves out parameter axes on purpose: the negative control of the oracles, never anything else.
    """
    groups = [(g, merges[g.name]) for g in analysis.groups if g.name in merges]
    removed = [removed_atoms(g, m.keep) for g, m in groups]
    kept = np.ones(analysis.atoms, bool)
    for atoms in removed:
        kept[atoms] = False
    changes: dict[str, list[tuple[Place, ChannelGroup, Merge]]] = {}
    for group, merge in groups:
        for place in group.parameters:
            if (place.tensor, place.axis, place.blocks) not in skip:
                changes.setdefault(place.tensor, []).append((place, group, merge))
    arrays = {name: _merged(model, analysis, name, parts, kept) for name, parts in changes.items()}
    integers = [(r.node, r.at, r.sign * int(kept[r.of].sum())) for r in analysis.recounts]
    changed = {(r.node, r.at.attr, r.at.input) for r in analysis.recounts if not kept[r.of].all()}
    return Edits(
        arrays,
        [(node, at, value) for node, at, value in integers if (node, at.attr, at.input) in changed],
        analysis.lengths(removed),
        {n: _scheme(model, analysis, n, parts, kept) for n, parts in changes.items() if n in model.constants.stored},
    )


def removed_atoms(group: ChannelGroup, keep: NDArray[np.int64]) -> NDArray[np.int64]:
    """The atoms of the channels of `group` that are not in `keep`."""
    gone = np.ones(group.size, bool)
    gone[keep] = False
    return group.atoms[gone[group.owner]]


def _merged(
    model: Model,
    analysis: Analysis,
    name: str,
    parts: Sequence[tuple[Place, ChannelGroup, Merge]],
    kept: NDArray[np.bool_],
) -> NDArray[Any]:
    """Parameter `name` after all merges that touch it."""
    original = model.constants.array(name)
    array = original if original.dtype in (np.float32, np.float64) else original.astype(np.float32)
    axes = sorted({(p.axis, p.blocks) for p, _, _ in parts}, key=lambda a: (-a[1], a[0]))  # blocked axes first
    for axis, blocks in axes:
        here = [(p, m) for p, _, m in parts if (p.axis, p.blocks) == (axis, blocks)]
        start, size = analysis.slots[name, axis, blocks]
        matrix = _axis_matrix(here, name, kept[start : start + size])
        array = apply(matrix, array, axis, blocks)
    return (array if original.dtype.kind not in "iu" else np.rint(array)).astype(original.dtype)


def _scheme(
    model: Model,
    analysis: Analysis,
    name: str,
    parts: Sequence[tuple[Place, ChannelGroup, Merge]],
    kept: NDArray[np.bool_],
) -> Scheme:
    """The scheme of stored constant `name` after all merges that touch it."""
    scheme = model.constants.scheme(name)
    for axis, blocks in sorted({(p.axis, p.blocks) for p, _, _ in parts}):
        start, size = analysis.slots[name, axis, blocks]
        left = kept[start : start + size]
        matrix = _axis_matrix([(p, m) for p, _, m in parts if p.axis == axis], name, left)
        scheme = merged(scheme, axis, blocks, left, matrix, model.constants.stored[name].block)
    return scheme


def _axis_matrix(
    parts: Sequence[tuple[Place, Merge]], name: str, kept: NDArray[np.bool_], made: bool = False
) -> csr_matrix:
    """[new length, old length]: identity on positions that no merge touches, the merges' matrices elsewhere."""
    place_of = np.cumsum(kept) - 1
    free = kept.copy()
    rows, columns, values = list[Any](), list[Any](), list[Any]()
    for place, merge in parts:
        free[place.positions.ravel()] = False
        matrix = (merge.makes if made or place.role is Role.MAKES else merge.reads).tocoo()
        factor = merge.scales.get(name)
        weights = matrix.data if factor is None or place.role is not Role.MAKES else matrix.data * factor[matrix.row]
        for r in range(place.positions.shape[1]):
            rows.append(place_of[place.positions[merge.keep[matrix.row], r]])
            columns.append(place.positions[matrix.col, r])
            values.append(weights)
    untouched = np.flatnonzero(free)
    rows.append(place_of[untouched])
    columns.append(untouched)
    values.append(np.ones(len(untouched)))
    return csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(int(kept.sum()), len(kept))
    )


def axis_matrix(analysis: Analysis, parts: Sequence[tuple[Place, Merge]], tensor: str) -> csr_matrix:
    """[new, old]: what becomes of the channels of activation `tensor` under the merges of the places in it."""
    (axis,) = {place.axis for place, _ in parts}
    size = analysis.slots[tensor, axis, 1][1]
    kept = np.ones(size, bool)
    for place, merge in parts:
        gone = np.ones(merge.before, bool)
        gone[merge.keep] = False
        kept[place.positions[gone].ravel()] = False
    return _axis_matrix(parts, tensor, kept, made=True)


def emit(model: Model, changes: Edits) -> ModelProto:
    """A copy of the model's proto with `changes` patched in; everything else is as it was, byte for byte."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    shelf, stored = Shelf(proto, model.constants, model.folder), model.constants.stored
    shelf.write({name: array for name, array in changes.arrays.items() if name in stored}, changes.schemes)
    writer = _Patch(proto, model)
    writer.suspects |= shelf.left
    writer.arrays({name: array for name, array in changes.arrays.items() if name not in stored})
    writer.integers(changes.integers)
    packed = {name for name, one in stored.items() if one.layout is not None}  # their shapes are those of bytes
    writer.lengths({at: length for at, length in changes.lengths.items() if at[0] not in packed})
    writer.sweep()
    return proto


class _Patch:
    """Edits of one ModelProto in place; node indices stay those of the original until `sweep`."""

    def __init__(self, proto: ModelProto, model: Model) -> None:
        self.graph, self.model = proto.graph, model
        self.bodies = [body.graph for body in opened(proto)]
        self.nodes = every_node(proto)
        self.initializers = {t.name: t for t in every_initializer(proto)}
        self.uses: dict[str, int] = {}
        for node, seen in zip(self.nodes, model.graph.nodes, strict=True):
            for name in (*node.input, *seen.captures):
                self.uses[name] = self.uses.get(name, 0) + 1
        for value in [v for graph in (self.graph, *self.bodies) for v in graph.output]:
            self.uses[value.name] = self.uses.get(value.name, 0) + 1
        self.names = set(self.uses) | set(self.initializers) | _all_names(self.graph)
        self.gone: set[int] = set()
        self.suspects: set[str] = set()
        self.as_they_were: set[str] = set()  # weights whose new values have a name of their own

    def arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name, array in arrays.items():
            if self._feeds_constants(name, arrays):
                self._beside(name, array)
                continue
            if not self._in_place(name, array):
                self._release(self.model.graph.producer[name])
                self._add(made(array, name, 0))

    def _in_place(self, name: str, array: NDArray[Any]) -> bool:
        """New values for constant `name` where they are stored; False if another node computes them."""
        if name in self.initializers:
            replaced(self.initializers[name], array)
            return True
        node = self.nodes[self.model.graph.producer[name]]
        if node.op_type != "Constant":
            return False
        _replace_constant(node, array)
        return True

    def _feeds_constants(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Whether a constant that stays as it is (the other half of a shared weight, say) is computed from `name`."""
        made = [o for i in self.model.graph.consumers.get(name, ()) for o in self.model.graph.nodes[i].outputs if o]
        return any(o in self.model.constants and o not in arrays for o in made)

    def _beside(self, name: str, array: NDArray[Any]) -> None:
        """New values under a name of their own, for all readers that do not compute constants."""
        fresh = self._fresh(name)
        self._add(made(array, fresh, self.initializers[name].data_type if name in self.initializers else 0))
        self.uses[fresh] = 0
        for index in self.model.graph.consumers[name]:
            if all(o in self.model.constants for o in self.model.graph.nodes[index].outputs if o):
                continue
            inputs = self.nodes[index].input
            for i in [i for i, given in enumerate(inputs) if given == name]:
                inputs[i] = fresh
                self.uses[name] -= 1
                self.uses[fresh] += 1
        self.suspects.add(name)
        self.as_they_were.add(name)

    def integers(self, changes: Sequence[tuple[int, At, int]]) -> None:
        lists: dict[tuple[int, str | None, int | None, str | None], dict[int | None, int]] = {}
        for index, at, value in changes:
            where, at = self._trace(index, at)
            lists.setdefault((where, at.attr, at.input, at.instead_of), {})[at.index] = value
        for (index, attr, number, instead_of), values in lists.items():
            node = self.nodes[index]
            if attr is not None:
                self._set_attribute(node, attr, values)
            else:
                assert number is not None
                self._set_input(node, number, values, instead_of)

    def lengths(self, lengths: Mapping[tuple[str, int], int]) -> None:
        graphs = (self.graph, *self.bodies)
        for value in [v for graph in graphs for v in (*graph.value_info, *graph.input, *graph.output)]:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if (value.name, axis) in lengths and value.name not in self.as_they_were and dim.WhichOneof("value"):
                    dim.dim_value = lengths[value.name, axis]

    def sweep(self) -> None:
        """Drop what the edits left without a reader: replaced nodes, then their inputs, and so on."""
        while self.suspects:
            name = self.suspects.pop()
            if self.uses.get(name, 0):
                continue
            if name in self.initializers:
                tensor = self.initializers.pop(name)
                owner = next(g for g in (self.graph, *self.bodies) if any(t.name == name for t in g.initializer))
                owner.initializer.remove(tensor)
                for value in [v for v in self.graph.input if v.name == name]:
                    self.graph.input.remove(value)
            elif name in self.model.graph.producer:
                index = self.model.graph.producer[name]
                node = self.nodes[index]
                if index not in self.gone and not any(self.uses.get(o, 0) for o in node.output):
                    self._release(index)
        main = len(self.graph.node)
        for index in sorted(self.gone, reverse=True):
            if index < main:
                del self.graph.node[index]
            else:
                node = self.nodes[index]
                next(body for body in self.bodies if node in body.node).node.remove(node)

    def _release(self, index: int) -> None:
        if index in self.gone:
            return
        self.gone.add(index)
        for name in self.nodes[index].input:
            self.uses[name] -= 1
            self.suspects.add(name)

    def _trace(self, index: int, at: At) -> tuple[int, At]:
        """Where an element of an input list really stands: in the list itself, or in a piece that Concat joins.

        A Cast (of a list to another kind of integer) stands in between at times."""
        node = self.nodes[index]
        if at.input is None or at.input >= len(node.input) or not node.input[at.input] or at.index is None:
            return index, at
        name = node.input[at.input]
        if name in self.model.constants:
            return index, at
        maker, before = self.model.graph.producer[name], 0
        if self.nodes[maker].op_type in SAME_LIST:
            return self._trace(maker, At(input=0, index=at.index))
        for i, piece in enumerate(self.nodes[maker].input):
            shape = self.model.graph.tensor(piece).shape or (1,)
            size = int(shape[0] or 1)
            if at.index < before + size:
                return self._trace(maker, At(input=i, index=at.index - before))
            before += size
        raise RuleError(f"element {at.index} of '{name}' cannot be found")

    @staticmethod
    def _set_attribute(node: NodeProto, attr: str, values: Mapping[int | None, int]) -> None:
        found = next((a for a in node.attribute if a.name == attr), None)
        if None in values:
            if found is None:
                found = node.attribute.add(name=attr, type=onnx.AttributeProto.INT)
            found.i = values[None]
            return
        if found is None:
            found = node.attribute.add(name=attr, type=onnx.AttributeProto.INTS)
            found.ints.extend([0] * len(values))
        for i, value in values.items():
            assert i is not None
            found.ints[i] = value

    def _set_input(
        self, node: NodeProto, number: int, values: Mapping[int | None, int], instead_of: str | None
    ) -> None:
        old = node.input[number] if number < len(node.input) else ""
        if old:
            array = np.array(self.model.constants.array(old))
        else:
            array = np.zeros(len(values), np.int64)
            for attribute in [a for a in node.attribute if a.name == instead_of]:
                node.attribute.remove(attribute)
        for i, value in values.items():
            array.reshape(-1)[i or 0] = value
        if old and self.uses[old] == 1 and self._in_place(old, array):
            return
        name = self._fresh(old or f"{node.name or node.op_type}_sizes")
        self._add(made(array, name, 0))
        while len(node.input) <= number:
            node.input.append("")
        node.input[number] = name
        self.uses[name] = 1
        if old:
            self.uses[old] -= 1
            self.suspects.add(old)

    def _add(self, tensor: TensorProto) -> None:
        self.graph.initializer.append(tensor)
        self.initializers[tensor.name] = self.graph.initializer[-1]
        if self.model.proto.ir_version < 4:  # then every initializer must be listed as an input too
            self.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    def _fresh(self, base: str) -> str:
        number, name = 0, f"{base}_folded"
        while name in self.names:
            number += 1
            name = f"{base}_folded{number}"
        self.names.add(name)
        return name


def _all_names(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    names |= {v.name for v in (*graph.input, *graph.output, *graph.value_info)} | {t.name for t in graph.initializer}
    for node in graph.node:
        for body in subgraphs(node):
            names |= _all_names(body)
    return names


def _replace_constant(node: NodeProto, array: NDArray[Any]) -> None:
    """New values for a Constant node, in the attribute that holds them where that can."""
    held = node.attribute[0]
    if held.name == "value":
        replaced(held.t, array)
    elif held.name == "value_floats" and array.ndim == 1 and array.dtype == np.float32:
        held.floats[:] = array.tolist()
    elif held.name == "value_ints" and array.ndim == 1 and array.dtype == np.int64:
        held.ints[:] = array.tolist()
    else:
        held.CopyFrom(onnx.helper.make_attribute("value", made(array, "", 0)))
