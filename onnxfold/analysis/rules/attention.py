"""Attention in one node, and rotary embedding: heads are blocks of positions that stay together.

Inside a head Q and K are multiplied with each other, so its positions are one channel: whole heads pass, of queries,
keys, values and the output. Where keys and values have fewer heads (grouped-query), a channel is such a head with all
the query heads that read it; a single one (multi-query) is kept, and the query heads are the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from .facts import At, Axis, Count, Fact, Refuse, Tie
from .node_view import NodeView, TensorView
from .table import Rule

_FEW = "has head counts that do not match its tensors"


def packed(n: NodeView) -> Iterator[Fact]:
    """com.microsoft.Attention: the projections inside, weight [width, Q + K + V] and bias."""
    x, w, y, heads = n.x(0), n.x(1), n.y(), n.attr("num_heads")
    sizes = n.attr("qkv_hidden_sizes") or [(w.size(1) or 0) // 3] * 3
    if sum(sizes) != w.size(1) or any(size % heads for size in sizes) or n.attr("do_rotary", 0):
        yield Refuse(_FEW if not n.attr("do_rotary", 0) else "rotates positions inside the node (do_rotary)")
        return
    whole, start, parts = w.axis(1), 0, list[Axis]()
    for size in sizes:
        parts.append(whole[start : start + size])
        start += size
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(2), w.axis(0))
    if n.has(2):
        yield Tie(n.x(2).axis(0), whole)
    first = parts[0][:: sizes[0] // heads]
    for part in parts:
        yield Tie(first.repeat(len(part) // heads), part)
    yield Tie(parts[2], y.axis(2))
    yield from _masked(n, first, 5)
    yield from _cached(n, first, (4,), (1,), 2)
    yield Count(first, At(attr="num_heads"))
    if "qkv_hidden_sizes" in n.attrs:
        for i, part in enumerate(parts):
            yield Count(part, At(attr="qkv_hidden_sizes", index=i))


def multi_head(n: NodeView) -> Iterator[Fact]:
    """com.microsoft.MultiHeadAttention with Q, K and V apart, [batch, tokens, heads * dimension], keys and values also
    [batch, heads, tokens, dimension]; a bias for all three."""
    q, heads = n.x(0), n.attr("num_heads")
    if q.rank != 3 or not (n.has(1) and n.has(2)):
        yield Refuse("packs Q, K and V into one tensor")
        return
    found = _heads(q, heads)
    if found is None or any(_heads(x, heads) is None for x in (n.x(1), n.x(2), n.y())):
        yield Refuse(_FEW)
        return
    yield from _batches(n, (0, 1, 2))
    for x in (q, n.x(1), n.x(2), n.y()):
        yield from _whole(x, found, heads)
    if n.has(3):
        bias, start = n.x(3).axis(0), 0
        for x in (q, n.x(1), n.x(2)):
            size = x.axis(2).size if x.rank == 3 else (x.size(1) or 0) * (x.size(3) or 0)
            part = bias[start : start + (size or 0)]
            yield Tie(found.repeat(len(part) // heads), part)
            start += size or 0
    yield from _masked(n, found, 5)
    yield from _cached(n, found, (6, 7), (1, 2), 1)
    yield Count(found, At(attr="num_heads"))


def grouped_query(n: NodeView) -> Iterator[Fact]:
    """com.microsoft.GroupQueryAttention: Q, K and V apart, or in one tensor in a row."""
    heads, kv = n.attr("num_heads"), n.attr("kv_num_heads")
    if heads % kv:
        yield Refuse(_FEW)
        return
    q = n.x(0)
    if n.has(1) and n.has(2):
        sides = [q.axis(2), n.x(1).axis(2), n.x(2).axis(2)]
        yield from _batches(n, (0, 1, 2))
    else:
        whole = q.axis(2)
        each = (whole.size or 0) // (heads + 2 * kv)
        cut = [0, heads * each, (heads + kv) * each, (heads + 2 * kv) * each]
        sides = [whole[a:b] for a, b in pairwise(cut)]
        yield Tie(q.axis(0), n.y().axis(0))
    yield from _grouped(n, [*sides, n.y().axis(2)], heads, kv, (3, 4), ("num_heads", "kv_num_heads"), 10)
    if n.has(11):  # one number per query head
        yield from _each(n.x(11).axis(0), sides[0], heads)


def default(n: NodeView) -> Iterator[Fact]:
    """Attention since opset 23: [batch, tokens, heads * dimension] with numbers of heads, or [batch, heads, tokens,
    dimension]."""
    q, k, v, y = n.x(0), n.x(1), n.x(2), n.y()
    if {q.rank, k.rank, v.rank} == {3}:
        heads, kv = n.attr("q_num_heads"), n.attr("kv_num_heads")
        yield from _batches(n, (0, 1, 2))
        sides = [x.axis(2) for x in (q, k, v, y)]
    else:
        heads, kv = q.size(1), k.size(1)
        yield from (Tie(x.axis(0), y.axis(0)) for x in (q, k, v))
        sides = [x.axis(1) for x in (q, k, v, y)]
    if not heads or not kv or heads % kv:
        yield Refuse(_FEW)
        return
    named = q.rank == 3
    names = ("q_num_heads" if named else None, "kv_num_heads" if named else None)
    yield from _grouped(n, sides, heads, kv, (4, 5), names, 3)
    scores = n.outputs[3] if len(n.outputs) > 3 else None
    if scores is not None:
        yield from _each(scores.axis(1), sides[0], heads)


def rotary(n: NodeView) -> Iterator[Fact]:
    """RotaryEmbedding (x, cosines, sines, positions) since opset 23."""
    yield from _turned(n, n.x(1))


def rotary_microsoft(n: NodeView) -> Iterator[Fact]:
    """com.microsoft.RotaryEmbedding (x, positions, cosines, sines)."""
    yield from _turned(n, n.x(2))


def _turned(n: NodeView, table: TensorView) -> Iterator[Fact]:
    """The positions inside a head are turned. x is [batch, heads, tokens, dimension], or [batch, tokens, heads *
    dimension] with the dimension told by the number of heads, else by a table that is half as wide."""
    x, y = n.x(0), n.y()
    yield Tie(x.axis(0), y.axis(0))
    if x.rank == 4:
        yield Tie(x.axis(1), y.axis(1))
        if n.attr("num_heads", 0) == x.size(1):
            yield Count(x.axis(1), At(attr="num_heads"))
        return
    heads, width = n.attr("num_heads", 0), x.size(2) or 0
    if not heads and not n.attr("rotary_embedding_dim", 0) and table.size(-1):
        heads = width // (2 * (table.size(-1) or 1))
    if not heads or not width or width % heads:
        yield Refuse(_FEW)
        return
    first = x.axis(2)[:: width // heads]
    yield Tie(first.repeat(width // heads), x.axis(2))
    yield Tie(x.axis(2), y.axis(2))
    if n.attr("num_heads", 0):
        yield Count(first, At(attr="num_heads"))


def _heads(x: TensorView, heads: int) -> Axis | None:
    """The first position of every head of x; None where they do not fit."""
    if x.rank == 4:
        return x.axis(1) if x.size(1) == heads else None
    axis = x.axis(2)
    return None if not axis.size or axis.size % heads else axis[:: axis.size // heads]


def _whole(x: TensorView, first: Axis, heads: int) -> Iterator[Fact]:
    axis = x.axis(1 if x.rank == 4 else 2)
    yield Tie(first.repeat((axis.size or 0) // heads), axis)


def _each(axis: Axis, queries: Axis, heads: int) -> Iterator[Fact]:
    """An axis with one position per query head, or with one for all."""
    if axis.size == heads:
        yield Tie(axis, queries[:: (queries.size or 0) // heads])


def _batches(n: NodeView, inputs: tuple[int, ...]) -> Iterator[Fact]:
    y = n.y()
    for i in inputs:
        yield Tie(n.x(i).axis(0), y.axis(0))
    yield Tie(n.x(0).axis(1), y.axis(1))


def _grouped(
    n: NodeView, sides: list[Axis], heads: int, kv: int, caches: tuple[int, int],
    names: tuple[str | None, str | None], mask: int,
) -> Iterator[Fact]:  # fmt: skip
    """Q, K, V and Y (`sides`), where `heads` / `kv` query heads in a row read one key head."""
    q, k, v, y = sides
    if not all(map(len, sides)) or len(q) % heads or len(k) % kv or len(v) % kv:
        yield Refuse(_FEW)
        return
    if kv == 1:  # all read the same keys and values, which stay; query heads are alike
        first = q[:: len(q) // heads]
        yield Tie(first.repeat(len(q) // heads), q)
        yield Tie(first.repeat(len(y) // heads), y)
    else:
        first = k[:: len(k) // kv]
        for side in sides:
            yield Tie(first.repeat(len(side) // kv), side)
        yield from _cached(n, first, caches, (1, 2), 1)
        if names[1]:
            yield Count(first, At(attr=names[1]))
    if names[0]:
        yield Count(q[:: len(q) // heads], At(attr=names[0]))
    if n.has(mask) and n.x(mask).rank > 2:
        yield from _each(n.x(mask).axis(-3), q, heads)


def _masked(n: NodeView, first: Axis, number: int) -> Iterator[Fact]:
    """What is added to the scores, [batch, heads or 1, tokens, tokens]."""
    if n.has(number) and n.x(number).rank == 4 and n.x(number).size(1) == len(first):
        yield Tie(n.x(number).axis(1), first)


def _cached(n: NodeView, first: Axis, past: tuple[int, ...], present: tuple[int, ...], axis: int) -> Iterator[Fact]:
    """Keys and values of earlier tokens, that come in and go out."""
    tensors = [n.x(i) for i in past if n.has(i)]
    tensors += [y for i in present if i < len(n.outputs) and (y := n.outputs[i]) is not None]
    for tensor in tensors:
        yield Tie(tensor.axis(axis), first)


MICROSOFT = "com.microsoft"
RULES = (
    Rule(packed, ("Attention",), domain=MICROSOFT),
    Rule(multi_head, ("MultiHeadAttention",), domain=MICROSOFT),
    Rule(grouped_query, ("GroupQueryAttention",), domain=MICROSOFT),
    Rule(rotary_microsoft, ("RotaryEmbedding",), domain=MICROSOFT),
    Rule(default, ("Attention",), since=23),
    Rule(rotary, ("RotaryEmbedding",), since=23),
)
