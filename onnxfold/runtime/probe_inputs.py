"""Probe inputs: what a model is run on when the user gives no data. Seeded, so the same model gets the same inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..errors import RequestError
from ..model.graph import Graph, Node
from ..model.kv_cache import Cache
from ..model.shapes.nominal import concrete_shape
from .session import Feeds, InputSpec


def emptied(feeds: Feeds, caches: Sequence[Cache]) -> Feeds:
    """`feeds` with zeros in `caches`."""
    pasts = [cache.past for cache in caches if cache.past in feeds]
    return {**feeds, **{name: np.zeros_like(feeds[name]) for name in pasts}}


DESCRIPTION = "random inputs (smooth noise, zero mean, unit variance)"
VOCABULARY = 8  # rows that make a table one of words; smaller ones are of segments and the like
MOST_LENGTH, MOST_VALUES = 2**23, 2**27  # of an axis, and of an input: more would take gigabytes before anything runs
_SAME_NUMBERS = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose")


def index_limits(graph: Graph) -> dict[str, int]:
    """Inputs that number the rows of a table (embeddings), or the classes of a one-hot code: how many there are."""
    limits, source = dict[str, int](), same_numbers(graph)
    for node in graph.nodes:
        for index, table, axis in _numbered(node):
            shape = graph.tensor(table).shape
            rows = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
            if index in source and isinstance(rows, int) and rows > 0:
                limits[source[index]] = min(rows, limits.get(source[index], rows))
    return limits


def same_numbers(graph: Graph) -> dict[str, str]:
    """Tensors that hold the numbers of an input, in whatever shape and type: which one."""
    source = {name: name for name in graph.inputs}
    for node in graph.nodes:
        if node.op in _SAME_NUMBERS and node.inputs[0] in source:
            source[node.outputs[0]] = source[node.inputs[0]]
    return source


def _numbered(node: Node) -> list[tuple[str, str, int]]:
    """(index, table, axis): tensors with numbers of positions along an axis of another."""
    if node.op == "Gather":
        return [(node.inputs[1], node.inputs[0], node.attrs.get("axis", 0))]
    if node.op == "OneHot":
        return [(node.inputs[0], node.outputs[0], node.attrs.get("axis", -1))]
    if node.op == "EmbedLayerNormalization":  # words, and segments where there are any
        return [(node.inputs[i], node.inputs[table], 0) for i, table in ((0, 2), (1, 4)) if node.inputs[i]]
    return []


def shape_of(spec: InputSpec, batch: int, given: Sequence[int] | None) -> tuple[int, ...]:
    """The shape in which an input is made: `concrete_shape`. Raises RequestError for one that would take gigabytes."""
    return _possible(spec, concrete_shape(spec.shape, batch, given), given)


def refuse_huge(proto: ModelProto, batch: int, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise RequestError for inputs that `shape_of` refuses, before a session is opened."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name not in weights:
            shape = tuple(d.dim_value or d.dim_param or None for d in value.type.tensor_type.shape.dim)
            shape_of(InputSpec(value.name, None, shape), batch, shapes.get(value.name))


def tokens(
    specs: Sequence[InputSpec],
    limits: Mapping[str, int],
    *,
    batch: int,
    seed: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Feeds for a language model: words drawn below `limits`, all of one segment (0), all other inputs 1 (masks)."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = shape_of(spec, 1, (shapes or {}).get(spec.name))
        shape = _possible(spec, (batch, *shape[1:]) if shape else (), (shapes or {}).get(spec.name))
        limit = limits.get(spec.name, 0)
        drawn = rng.integers(0, limit, shape) if limit >= VOCABULARY else np.full(shape, 0 if limit else 1)
        feeds[spec.name] = np.asarray(drawn).astype(np.dtype(spec.dtype))
    return feeds


def probe(
    specs: Sequence[InputSpec],
    *,
    batch: int = 8,
    seed: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Mapping[str, int] | None = None,
    drawn: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Feeds for all inputs of a model. `drawn`: of noise only so many positions of an axis are drawn, and repeated.

    Floats with two spatial axes are smooth (1/f) noise, the nearest thing to an image that needs no data; other floats
    are white. Integers (and floats that are indices) are drawn below `limits`, or are 0 and 1; so are strings, spelled
    out. Raises RequestError for inputs that are no tensors, or would take gigabytes.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for spec in specs:
        if spec.dtype is None:
            raise RequestError(f"input '{spec.name}' is not a tensor: onnxfold cannot make probe inputs for it")
        shape = shape_of(spec, batch, (shapes or {}).get(spec.name))
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f" and spec.name not in (limits or {}):
            feeds[spec.name] = _repeated(_smooth(rng, [min(n, drawn or n) for n in shape]).astype(dtype), shape)
        else:
            feeds[spec.name] = rng.integers(0, max(1, (limits or {}).get(spec.name, 2)), shape).astype(dtype)
    return feeds


def _possible(spec: InputSpec, shape: tuple[int, ...], given: Sequence[int] | None) -> tuple[int, ...]:
    """`shape` (`given` by the user, or None). Raises RequestError for one that would take gigabytes."""
    if max(shape, default=0) >= MOST_LENGTH or math.prod(shape) > MOST_VALUES:
        fixed = " (dimensions that the model fixes need another export)" if given is None else ""
        raise RequestError(
            f"input '{spec.name}' of shape {list(shape)} is too large to create: pass a smaller one with "
            f"`input_shapes`{fixed}"
        )
    return shape


def first(feeds: Feeds, count: int) -> dict[str, NDArray[Any]]:
    """The first `count` samples (axis 0) of feeds whose inputs all share one batch length."""
    lengths = {len(x) for x in feeds.values() if x.ndim}
    return {name: x[:count] if x.ndim and len(lengths) == 1 else x for name, x in feeds.items()}


def _repeated(noise: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """`noise`, again and again along axes that are longer."""
    if noise.shape == tuple(shape):
        return noise
    times = [-(-n // m) for n, m in zip(shape, noise.shape, strict=True)]
    return np.tile(noise, times)[tuple(slice(n) for n in shape)]


def _smooth(rng: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float64]:
    noise = rng.standard_normal(shape)
    if len(shape) != 4 or not noise.size:
        return noise
    axes = (2, 3) if shape[1] <= 4 or shape[3] > 4 else (1, 2)
    frequency = np.meshgrid(*(np.fft.fftfreq(shape[a]) for a in axes), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(*frequency), 1 / max(shape[a] for a in axes))
    spread = [1] * 4
    for a in axes:
        spread[a] = shape[a]
    wave = np.fft.ifftn(np.fft.fftn(noise, axes=axes) * amplitude.reshape(spread), axes=axes).real
    deviation = wave.std()
    return np.asarray(wave / deviation if deviation > 0 else wave)
