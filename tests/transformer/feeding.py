"""What the networks are run on: random words and images, full masks, caches that are empty or hold random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from .config import Config

Feeds = dict[str, NDArray[Any]]


def shapes(proto: ModelProto, batch: int = 2, length: int = 7, past: int = 0) -> Mapping[str, Sequence[int]]:
    """The shapes of all inputs, `past` words in the caches."""
    total = length + past
    sizes = {"batch": batch, "sequence": length, "past_sequence_length": past, "total_sequence_length": total}
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else sizes[d.dim_param]
                          for d in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
    }  # fmt: skip


def feeds(proto: ModelProto, config: Config, batch: int = 2, length: int = 7, seed: int = 0, past: int = 0) -> Feeds:
    """Values for all inputs; the same ones for every style."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, max(1, config.vocabulary), (batch, length))
    known = {
        "pixel_values": rng.standard_normal((batch, 3, config.image, config.image)),
        "input_ids": ids,
        "attention_mask": np.ones((batch, length + past), np.int64),
        "token_type_ids": ids % 2,
        "position_ids": np.tile(np.arange(past, past + length), (batch, 1)),
    }
    found = {}
    for value in proto.graph.input:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = shapes(proto, batch, length, past)[value.name]
        found[value.name] = np.asarray(known.get(value.name, rng.standard_normal(shape))).astype(dtype)
    return found
