"""Emission: edits are patched into a copy of the user's own ModelProto."""

from __future__ import annotations

from onnx import ModelProto

from ..model.integer_weights import IntegerWeights
from ..model.model import Model
from ..model.tensors import settled
from .edits import Edits
from .norms import write_epsilon
from .patch import Patch
from .shape_lists import write_integers, write_numbers
from .stored_form import stored_form


def emit(model: Model, changes: Edits) -> ModelProto:
    """A copy of the model's proto with `changes` patched in; everything else is as it was, byte for byte.

    Tensors whose values are pending are left without values (`tensors.is_deferred`): the writer of the file fills them.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    integers, stored = IntegerWeights(proto, model.constants, model.folder), model.constants.stored
    integers.write({name: settled(array) for name, array in changes.arrays.items() if name in stored}, changes.schemes)
    writer = Patch(proto, model)
    writer.suspects |= integers.left
    writer.inputs(changes.inputs)
    writer.bypass(changes.bypass)
    form = stored_form(model, changes)
    writer.arrays(form.arrays, form.follow, form.kinds)
    for (node, number), values in form.lists.items():
        writer.set_input(writer.nodes[node], number, values)
    write_integers(writer, changes.integers)
    write_numbers(writer, changes.numbers)
    for (node, axis), factors in changes.factors.items():
        writer.multiply(node, axis, factors)
    for node, epsilon in changes.epsilons.items():
        write_epsilon(writer.nodes[node], epsilon)
    packed = {name for name, one in stored.items() if one.layout is not None}  # their shapes are those of bytes
    lengths = {**changes.lengths, **form.lengths}
    writer.lengths({at: length for at, length in lengths.items() if at[0] not in packed})
    writer.sweep()
    return proto
