"""Inputs and outputs of two models beside each other: names, types and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

from onnx import ModelProto, ValueInfoProto

_Signature = tuple[str, object, str]


def changes(before: ModelProto, after: ModelProto, heads: Mapping[str, int]) -> list[str]:
    """Names, order, element types, ranks and fixed dimensions of inputs and outputs must be the same, but for axes in
    `heads`."""
    constants = {t.name for proto in (before, after) for t in proto.graph.initializer}
    problems = []
    for what, old, new in (
        ("input", before.graph.input, after.graph.input),
        ("output", before.graph.output, after.graph.output),
    ):
        signatures = [
            [_signature(v, heads.get(v.name)) for v in values if what == "output" or v.name not in constants]
            for values in (old, new)
        ]
        if signatures[0] != signatures[1]:
            a, b = next((a, b) for a, b in zip_longest(*signatures) if a != b)
            problems.append(f"the model's {what}s changed ('{(a or b)[0]}'){_other_lengths(a, b)}")
    return problems


def _other_lengths(old: _Signature | None, new: _Signature | None) -> str:
    """The shapes of one input or output in both models, where nothing else differs; '' elsewhere."""
    if old is None or new is None or old[:2] != new[:2] or "" in (old[2], new[2]):
        return ""
    return f": {new[2]} instead of {old[2]}"


def _signature(value: ValueInfoProto, skip: int | None) -> _Signature:
    """(name, type, shape as text or '') of an input or output, without the names of its open dimensions, and without
    axis `skip`."""
    if not value.type.HasField("tensor_type"):
        return value.name, value.type.SerializeToString(deterministic=True), ""
    declared = value.type.tensor_type
    dims = [
        str(d.dim_value) if d.HasField("dim_value") and axis != skip else "?"
        for axis, d in enumerate(declared.shape.dim)
    ]
    return value.name, declared.elem_type, f"[{', '.join(dims)}]" if declared.HasField("shape") else ""


def left_open(proto: ModelProto) -> frozenset[str]:
    """The outputs that leave a length open."""
    declared = {value.name: value.type.tensor_type for value in proto.graph.output}
    return frozenset(
        name
        for name, one in declared.items()
        if not one.HasField("shape") or any(not d.HasField("dim_value") for d in one.shape.dim)
    )
