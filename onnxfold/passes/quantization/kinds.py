"""The kinds of quantization beside each other: what each needs, who does it, and what it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import ModelProto

from ...options.choices import Quantization
from ...runtime.session import Feeds
from .half import halved, in_half
from .ort_quantizer import ACTIVATIONS_AS, WEIGHTS_AS, backend, in_int8, on_integers
from .ort_weights import dynamic, dynamically, in_weights, needs_blocks, of_integers

STORED_AS: Mapping[Quantization, tuple[str, str]] = {
    Quantization.INT8: (WEIGHTS_AS, ACTIVATIONS_AS),
    Quantization.DYNAMIC: (WEIGHTS_AS, ACTIVATIONS_AS),
    Quantization.WEIGHTS8: ("int8", "float32"),
    Quantization.WEIGHTS4: ("int4", "float32"),
    Quantization.HALF: ("float16", "float16"),
}
"""How weights and activations are stored."""

Changed = tuple[int, tuple[tuple[str, int], ...]]
_CHANGED: Mapping[Quantization, Callable[[ModelProto], Changed]] = {
    Quantization.INT8: on_integers,
    Quantization.DYNAMIC: lambda proto: (dynamically(proto), ()),
    Quantization.WEIGHTS8: lambda proto: (of_integers(proto), ()),
    Quantization.WEIGHTS4: lambda proto: (of_integers(proto), ()),
    Quantization.HALF: lambda proto: (halved(proto), ()),
}


def needed(kind: Quantization, proto: ModelProto) -> None:
    """Raises QuantizationError where a module is missing that storing `proto` so needs."""
    if kind is not Quantization.HALF:
        backend()
    if kind in (Quantization.WEIGHTS8, Quantization.WEIGHTS4):
        needs_blocks(proto, 8 if kind is Quantization.WEIGHTS8 else 4)


def stored(kind: Quantization, proto: ModelProto, feeds: Sequence[Feeds]) -> ModelProto:
    """`proto` (its weights inside it) in fewer bits; `feeds` give the ranges of activations where any are fixed.

    Raises ExecutionError where onnxruntime cannot do it."""
    if kind is Quantization.INT8:
        return in_int8(proto, feeds)
    if kind is Quantization.DYNAMIC:
        return dynamic(proto)
    if kind is Quantization.HALF:
        return in_half(proto)
    return in_weights(proto, 8 if kind is Quantization.WEIGHTS8 else 4)


def changed(kind: Quantization, proto: ModelProto) -> Changed:
    """(nodes of a quantized `proto` that are so, the operators that stay in floats with their number where activations
    are quantized)."""
    return _CHANGED[kind](proto)
