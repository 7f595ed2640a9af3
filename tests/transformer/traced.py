"""What a traced network begins with: embeddings, positions, and the mask as transformers 5 makes it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from .config import Config, Family
from .layers import dotted
from .scoped import LAST, Scoped, filled
from .style import BATCH, SEQUENCE, TOTAL
from .weights import Turned


def begin(s: Scoped) -> str:
    """Inputs and embeddings; sets the style's mask, and its cosines and sines."""
    if s.config.family is Family.VIT:
        return _image(s)
    return {Family.BERT: _bert, Family.GPT2: _gpt2, Family.LLAMA: _llama}[s.config.family](s)


def _image(s: Scoped) -> str:
    c, at, patches = s.config, "vit/embeddings", "vit/embeddings/patch_embeddings"
    pixels = s.builder.input("pixel_values", [BATCH, 3, c.image, c.image])
    batch = s.length(pixels, 0, at)
    path = f"{patches}/projection"
    kernel = s.parts.linear(path, 3 * c.patch**2, c.hidden)
    weight = s.builder.weight(f"{dotted(path)}.weight", Turned(kernel.weight), (c.hidden, 3, c.patch, c.patch))
    sides = {"kernel_shape": [c.patch] * 2, "strides": [c.patch] * 2, "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    x = s.op("Conv", pixels, weight, s.bias(kernel), at=path, **sides)
    bounds = [s.number([b], patches) for b in (0, 2, 0)]
    kept = s.op("Slice", s.op("Shape", x, at=patches), *bounds, at=patches)
    x = s.shaped(x, s.op("Concat", kept, s.number([-1], patches), at=patches, axis=0), patches)
    x = s.op("Transpose", x, at=patches, perm=[0, 2, 1])
    token = s.builder.weight("vit.embeddings.cls_token", s.parts.embedding(at, 1, ".cls_token"), (1, 1, c.hidden))
    x = s.op("Concat", s.expanded(token, at, batch, -1, -1), x, at=at, axis=1)
    places = s.parts.embedding(at, c.patches + 1, ".position_embeddings")
    return s.op("Add", x, s.builder.weight(places.name, places, (1, c.patches + 1, c.hidden)), at=at)


def _ids(s: Scoped, *names: str) -> list[str]:
    lengths = {"attention_mask": TOTAL if s.config.cache else SEQUENCE}
    return [s.builder.input(name, [BATCH, lengths.get(name, SEQUENCE)], TensorProto.INT64) for name in names]


def _bert(s: Scoped) -> str:
    c, at = s.config, "embeddings"
    ids, mask, types = _ids(s, "input_ids", "attention_mask", "token_type_ids")
    length = s.length(ids, 1, at)
    places = s.loose(np.arange(c.positions)[None], "Slice")
    places = s.cut(places, at, 1, 0, length)
    tables = {"word_embeddings": (c.vocabulary, ids), "token_type_embeddings": (2, types),
              "position_embeddings": (c.positions, places)}  # fmt: skip
    word, kind, place = (_embedded(s, f"{at}/{name}", *table) for name, table in tables.items())
    x = s.op("Add", s.op("Add", word, kind, at=at), place, at=at)
    x, _ = s.norm(x, f"{at}/LayerNorm")
    s.mask = mask_of(s, x, mask, "")
    return x


def _gpt2(s: Scoped) -> str:
    c, at = s.config, "transformer"
    ids, mask = _ids(s, "input_ids", "attention_mask")
    rows = s.shaped(ids, s.target(at, -1, s.length(ids, 1, at)), at)
    batch = s.length(rows, 0, at)
    words = _embedded(s, "transformer/wte", c.vocabulary, rows)
    places = s.unsqueezed(_range(s, s.length(words, 1, at), at), at, 0)
    place = _embedded(s, "transformer/wpe", c.positions, places)
    x = s.op("Add", words, s.cast(place, at), at=at)
    mask = s.shaped(mask, s.target(at, batch, -1), at)
    s.mask = mask_of(s, words, mask, at, places)
    bounds = [s.number([b], at) for b in (-1, LAST, 0)]
    width = s.op("Slice", s.op("Shape", x, at=at), *bounds, at=at)
    s.width = s.op("Squeeze", width, s.number([0], at), at=at)
    return x


def rows_again(s: Scoped, x: str) -> str:
    """GPT-2 gives its output the batch of its input."""
    at = "transformer"
    return s.shaped(x, s.target(at, -1, s.length("input_ids", 1, at), s.width), at)


def _llama(s: Scoped) -> str:
    c, at = s.config, "model"
    ids, mask = _ids(s, "input_ids", "attention_mask")
    past = ""
    if c.cache:
        s.pasts = [s.cache(i) for i in range(c.layers)]
        whole = s.op("Concat", s.pasts[0][0], at="", axis=-2)
    x = _embedded(s, "model/embed_tokens", c.vocabulary, ids)
    if c.cache:
        past = s.length(whole, 2, at)
    counted = _range(s, s.length(x, 1, at), at)
    places = s.unsqueezed(s.op("Add", counted, past, at=at) if past else counted, at, 0)
    s.mask = mask_of(s, x, mask, at, places, past, counted)
    s.cosines, s.sines = _rotary(s, places, f"{at}/rotary_emb")
    return x


def _rotary(s: Scoped, places: str, at: str) -> tuple[str, str]:
    """[1, length, head_dim]: from tables, or from the frequencies."""
    c = s.config
    frequencies = rotary_frequencies(c.rope_theta, c.head_dim)
    if c.rope_tables:
        tables = {name: np.tile(table, (1, 2)) for name, table in rotary_angles(c).items()}
        names = [s.builder.table(f"{dotted(at)}.{name}_cached", table) for name, table in tables.items()]
        cosines, sines = (s.op("Gather", name, places, at=at) for name in names)
        return cosines, sines
    angles = s.op("Mul", s.cast(s.unsqueezed(places, at, 2), at, TensorProto.FLOAT),
                  s.number(frequencies, at, np.float32), at=at)  # fmt: skip
    angles = s.op("Concat", angles, angles, at=at, axis=-1)
    found = []
    for kind in ("Cos", "Sin"):
        scaled = s.op("Mul", s.op(kind, angles, at=at), s.number(1.0, at, np.float32), at=at)
        found.append(s.cast(scaled, at))
    return found[0], found[1]


def rotary_frequencies(theta: float, width: int) -> np.ndarray:
    """1 / theta^(2i / width) for each pair (RoFormer, Su et al. 2021)."""
    return theta ** -(np.arange(0, width, 2) / width)


def rotary_angles(c: Config) -> dict[str, np.ndarray]:
    """Cosines and sines of every position: [positions, head_dim / 2]."""
    angles = np.arange(c.positions)[:, None] * rotary_frequencies(c.rope_theta, c.head_dim)
    return {"cos": np.cos(angles), "sin": np.sin(angles)}


def mask_of(s: Scoped, x: str, mask: str, at: str, places: str | None = None, past: str = "", counted: str = "") -> str:
    """[batch, 1, length, total]: 0 where attention may look, the least number of its type elsewhere.

    Causal if `places` [1, length], the positions of the words, are given. `past`: how many words are in the cache, to
    which `counted` is added.
    """
    kept = s.cast(mask, at, TensorProto.BOOL)
    queries = s.length(x, 1, at)
    if past:
        earlier = s.cast(past, at, TensorProto.INT64)
        keys, batch = s.op("Add", past, queries, at=at), s.length(x, 0, at)
    else:
        keys, batch = s.length(kept, 1, at), s.length(x, 0, at)
    rows = s.unsqueezed(_range(s, batch, at), at, 1, 2, 3)
    if past:
        places = s.unsqueezed(s.op("Add", counted, earlier, at=at), at, 0)
    here = s.unsqueezed(places or s.unsqueezed(_range(s, queries, at), at, 0), at, 1, 3)
    there = s.unsqueezed(_range(s, keys, at), at, 0, 1, 2)
    empty = s.number(np.zeros(0, np.int64), at)
    true = s.op("ConstantOfShape", empty, at=at, value=filled(True, bool))
    seen = s.op("LessOrEqual", there, here, at=at) if places else s.op("GreaterOrEqual", here, s.number(0, at), at=at)
    seen = s.op("And", true, s.cast(seen, at, TensorProto.BOOL), at=at)
    width = s.op("Gather", s.op("Shape", kept, at=at), s.number([1], at), at=at, axis=0)
    index = s.op("Add", there, s.op("Mul", rows, width, at=at), at=at)
    found = s.op("Gather", s.op("Flatten", kept, at=at, axis=2), index, at=at, axis=0)
    shape = s.op("Concat", s.op("Shape", index, at=at), at=at, axis=0)
    found = s.shaped(s.shaped(found, s.number([-1], at), at), shape, at)
    seen = s.op("And", seen, s.cast(found, at, TensorProto.BOOL), at=at)
    seen = s.expanded(seen, at, batch, -1, queries, keys)
    return s.op("Where", seen, s.number(0.0, at), s.number(least(s.builder.dtype), at), at=at)


def least(dtype: np.dtype) -> float:
    """The most negative number of a type, as masks have it."""
    return float(np.finfo(dtype).min) if dtype != "bfloat16" else -3.3895313892515355e38


def _range(s: Scoped, end: str, at: str) -> str:
    return s.op("Range", s.number(0, at), s.cast(end, at, TensorProto.INT64), s.number(1, at), at=at)


def _embedded(s: Scoped, path: str, rows: int, ids: str) -> str:
    table = s.parts.embedding(path, rows)
    return s.op("Gather", s.builder.weight(table.name, table), ids, at=path)
