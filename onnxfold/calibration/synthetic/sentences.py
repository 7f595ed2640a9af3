"""Sentences without a language: token ids by Zipf's law between the tokens that begin and end a text.

Vocabularies of word pieces are in order of frequency, and word i of a text comes with a probability in proportion to
1 / (i + 2.7) (Zipf 1935; Mandelbrot, "An informational theory of the statistical structure of language", 1953). Which
tokens begin and end a text no file says, but the tables do: the begin token is always at position 0, and nothing else
is, so training writes their sum into both rows, and the end token goes along (MiniLM: cosines of 0.56 and 0.36 with the
first row of the table of positions, 0.22 and less for all other words; that row has five times the norm of others).
Rows of tokens that training never saw stay small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...frozen import read_only
from ...model.model import Model
from ...runtime.probe_inputs import VOCABULARY, same_numbers
from ...runtime.session import InputSpec

Array = NDArray[Any]
_SHIFT = 2.7
_UNSEEN = 0.7  # of the median norm: smaller rows were hardly trained (BERT: 0.41 for unused, 0.8 for frequent ones)
_SPECIAL = 128  # special tokens have numbers below, or are among the last ones
_LAST = 16
_STANDS_OUT = 1.5  # times the median norm of a table of positions: that of its first row, if a text has a begin token
_FIRST = 3  # rows in which positions may begin (RoBERTa: 2)
_WIDE = 16  # numbers in a row: norms of shorter ones differ by chance
_ENOUGH = 64  # words, to tell half of them from the others
_LEAST_ROWS = 16  # of a table of positions
_SHORTEST = 0.15  # of the length that there is, of a sentence
_MATRICES = ("MatMul", "Gemm", "Conv", "MatMulInteger", "Einsum", "FusedMatMul")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """`words`, the most frequent ones first; `begin` and `end` of a text, None where it has none."""

    words: Array = field(repr=False)
    begin: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        read_only(self)

    def half(self, which: int) -> Vocabulary:
        """Every other word: 0 or 1 of two vocabularies that share none. All words where these are few."""
        return Vocabulary(self.words[which::2], self.begin, self.end) if divides(len(self.words)) else self


def divides(size: int) -> bool:
    """Whether there are words enough for two halves."""
    return size >= _ENOUGH


def vocabulary(model: Model, name: str, size: int) -> Vocabulary:
    """What the tables of a model tell of the tokens of input `name`, of which there are `size`."""
    table = _table(model, name, size)
    everything = np.arange(size)
    if table is None:
        return Vocabulary(everything)
    norms = np.linalg.norm(table, axis=1)
    words = everything[norms >= _UNSEEN * np.median(norms)] if table.shape[1] >= _WIDE else everything
    ends = _begin_and_end(table, norms, _positions(model, table.shape))
    if ends is None:
        return Vocabulary(words if len(words) >= VOCABULARY else everything)
    words = words[~np.isin(words, (0, *ends))]  # 0 fills up, where there are such tokens
    return Vocabulary(words, *ends) if len(words) >= VOCABULARY else Vocabulary(everything)


def sentences(known: Vocabulary, rng: np.random.Generator, count: int, length: int, vary: bool) -> tuple[Array, Array]:
    """(ids, mask), both [count, length] int64: words by Zipf's law between begin and end; `vary`: some are shorter, and
    filled up with 0, where the mask is 0."""
    ids = _drawn(known, rng, (count, length))
    lengths = np.full(count, length)
    if vary:
        shortest = min(length, max(2, round(_SHORTEST * length)))
        lengths = rng.integers(shortest, length, count, endpoint=True)
    if known.begin is not None and known.end is not None and length > 2:
        ids[:, 0] = known.begin
        ids[np.arange(count), lengths - 1] = known.end
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return ids * mask, mask


def _drawn(known: Vocabulary, rng: np.random.Generator, shape: Sequence[int]) -> Array:
    likely = 1 / (np.arange(len(known.words)) + _SHIFT)
    drawn = rng.choice(len(known.words), tuple(shape), p=likely / likely.sum())
    return np.asarray(known.words[drawn], np.int64)


def sentence_feeds(
    model: Model,
    specs: Sequence[InputSpec],
    limits: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
    half: int | None,
) -> dict[str, Array]:
    """Ids for a model of tokens, in `shapes` by input, and the mask that belongs to them; other inputs are left out.

    Args:
        limits: how many rows the tables have that inputs number (`probe_inputs.index_limits`).
        half: of the vocabulary, None for all of it.

    Ids [N, T] are sentences, which differ in length where there is one input of integers beside ids and segments: the
    mask. Ids of other shapes are words.
    """
    feeds = dict[str, Array]()
    tokens = [s for s in specs if limits.get(s.name, 0) >= VOCABULARY and len(shapes.get(s.name, ())) > 0]
    masks = [
        s for s in specs
        if s.name not in limits and s.dtype is not None and np.dtype(s.dtype).kind in "iub"
        and tokens and tuple(shapes.get(s.name, ())) == tuple(shapes[tokens[0].name])
    ]  # fmt: skip
    vary = len(masks) == 1 and len(tokens) == 1
    for spec in tokens:
        known, shape = vocabulary(model, spec.name, limits[spec.name]), shapes[spec.name]
        known = known if half is None else known.half(half)
        if len(shape) != 2:
            feeds[spec.name] = _drawn(known, rng, shape).astype(spec.dtype)
            continue
        ids, mask = sentences(known, rng, shape[0], shape[1], vary)
        feeds[spec.name] = ids.astype(spec.dtype)
        feeds |= {one.name: mask.astype(one.dtype) for one in masks if vary}
    return feeds


def _table(model: Model, name: str, size: int) -> Array | None:
    """The table [size, width] of words that input `name` numbers; None where it is no constant of floats."""
    source = same_numbers(model.graph)
    for node in model.graph.main_nodes:
        if node.op == "Gather" and source.get(node.inputs[1]) == name and node.attrs.get("axis", 0) == 0:
            found = _floats(model, node.inputs[0])
            if found is not None and found.ndim == 2 and len(found) == size:
                return found
    return None


def _positions(model: Model, words: tuple[int, ...]) -> list[Array]:
    """The tables [rows, width] that may be of positions."""
    found = list[Array]()
    for name in model.constants.names:
        shape = model.graph.tensor(name).shape or ()
        rows = [n for n in shape if isinstance(n, int) and n != 1]
        if len(rows) != 2 or not all(isinstance(n, int) for n in shape) or tuple(rows) == words:
            continue
        if rows[1] != words[1] or rows[0] < _LEAST_ROWS:
            continue
        if any(model.graph.nodes[i].op in _MATRICES for i in model.graph.consumers.get(name, ())):
            continue
        array = _floats(model, name)
        if array is not None:
            found.append(array.reshape(rows))
    return found


def _floats(model: Model, name: str) -> Array | None:
    """A constant as float64; None for what is none, or has numbers that are not finite."""
    if name not in model.constants:
        return None
    array = model.constants.array(name)
    if array.dtype.kind not in "fV" or not np.isfinite(array.astype(np.float64)).all():
        return None
    return array.astype(np.float64)


def _begin_and_end(table: Array, norms: Array, positions: Sequence[Array]) -> tuple[int, int] | None:
    """The two special tokens that lie closest to the first position; None where no position stands out."""
    for rows in positions:
        sizes = np.linalg.norm(rows, axis=1)
        first = int(np.argmax(sizes[:_FIRST]))
        if sizes[first] < _STANDS_OUT * np.median(sizes):
            continue
        along = table @ rows[first] / np.maximum(norms * sizes[first], 1e-30)
        size = len(table)
        special = np.array([i for i in range(size) if i < _SPECIAL or i >= size - _LAST])
        best = special[np.argsort(-along[special])[:2]]
        return int(best.min()), int(best.max())
    return None
