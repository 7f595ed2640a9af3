"""Residual blocks: parts of the graph that add something to their input, and how much that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...model.graph import Graph
from ...model.model import Model
from ...runtime.segments import SegmentRunner
from ...runtime.session import Feeds
from .distances import Unit
from .layers import Layer

_SUMS = ("Add", "Sum")
_IDEMPOTENT = ("Relu", "Identity")  # applied twice they do the same as once


@dataclass(frozen=True)
class Block:
    """``total = skip + branch``, where `nodes` (indices) make the branch from the skip and nothing else reads what they
    make. `name` is that of the sum; `root` is the sum (or other tensor) that the skip is, or is the Relu of."""

    name: str
    skip: str
    total: str
    nodes: tuple[int, ...]
    root: str


def blocks(model: Model) -> list[Block]:
    """All residual blocks of the main graph with an identity skip, in order; where one holds others, the smallest."""
    graph, found, taken = model.graph, list[Block](), set[int]()
    captured = {name for node in graph.nodes for name in node.captures}
    for node in graph.main_nodes:
        if node.op not in _SUMS or node.domain or len(node.inputs) != 2 or node.outputs[0] in captured:
            continue
        if node.outputs[0] in graph.outputs:
            continue
        for skip, branch in (node.inputs, node.inputs[::-1]):
            inside = _between(graph, skip, branch)
            if not inside or taken & inside or skip in model.constants:
                continue
            same = graph.tensor(skip).shape == graph.tensor(node.outputs[0]).shape is not None
            makes = {name for i in inside for name in graph.nodes[i].outputs if name}
            users = {i for name in makes for i in graph.consumers.get(name, ())} - inside - {node.index}
            if same and not users and not makes & ({*graph.outputs} | captured):
                found.append(Block(node.label, skip, node.outputs[0], tuple(sorted(inside)), _root(graph, skip)))
                taken |= inside
                break
    return found


def bypasses(graph: Graph, dropped: Sequence[Block]) -> tuple[dict[str, str], dict[str, str]]:
    """(what to read instead of the sums of dropped blocks; by sum in front of dropped blocks, the sum of the original
    behind them, which it should equal: the `aims`).

    A Relu behind the sum of a dropped block is dropped too where the skip comes from a Relu already."""
    instead, aims = dict[str, str](), dict[str, str]()
    for block in dropped:
        instead[block.total] = block.skip
        producer = graph.producer.get(block.skip)
        if producer is not None and graph.nodes[producer].op in _IDEMPOTENT:
            for index in graph.consumers.get(block.total, ()):
                after = graph.nodes[index]
                if after.op == graph.nodes[producer].op and after.outputs[0] not in graph.outputs:
                    instead[after.outputs[0]] = block.skip
        # of several in a row the last one counts
        first = next((root for root, total in aims.items() if total == block.root), block.root)
        aims[first] = block.total
    return instead, aims


def influence(model: Model, found: Sequence[Block], feeds: Sequence[Feeds]) -> dict[str, float]:
    """By the name of a block: |total - skip| / |total| over the samples, 0 where it does nothing.

    The distance of a block from the identity (ShortGPT's block influence is the cosine form: Men et al., 2024)."""
    runner, out = SegmentRunner(model.proto, feeds, model.folder), dict[str, float]()
    made = {name: index for index, node in enumerate(model.proto.graph.node) for name in node.output}
    for block in sorted(found, key=lambda block: made[block.total]):
        at = made[block.total]
        skips = runner.advance(at, [block.skip])
        totals = runner.advance(at + 1, [block.total])
        change = size = 0.0
        for skip, total in zip(skips, totals, strict=True):
            change += float(np.square(total[block.total] - skip[block.skip], dtype=np.float64).sum())
            size += float(np.square(total[block.total], dtype=np.float64).sum())
        out[block.name] = float(np.sqrt(change / max(size, 1e-30)))
    return out


def whole_blocks(found: Sequence[Block], layers: Sequence[Layer]) -> list[list[Unit]]:
    """The layers of every block as one unit, by class: blocks with the same kinds of layers in the same order."""
    kinds: dict[tuple[object, ...], list[Unit]] = {}
    for block in found:
        inside = tuple(layer for layer in layers if set(layer.nodes) <= set(block.nodes))
        if inside:
            kinds.setdefault(tuple(layer.kind for layer in inside), []).append(inside)
    return [units for units in kinds.values() if len(units) > 1]


def writers(model: Model, aims: Mapping[str, str]) -> frozenset[str]:
    """The inputs of the nodes whose outputs the sums in `aims` add up: name them as changed to have these refitted."""
    graph, out = model.graph, set[str]()
    for root in aims:
        producer = graph.producer.get(root)
        for name in graph.nodes[producer].inputs if producer is not None and graph.nodes[producer].op in _SUMS else ():
            index = graph.producer.get(name)
            while index is not None and graph.nodes[index].op == "BatchNormalization":
                index = graph.producer.get(graph.nodes[index].inputs[0])
            if index is not None and len(graph.nodes[index].inputs) > 1:
                out.add(graph.nodes[index].inputs[0])
    return frozenset(out)


def _root(graph: Graph, skip: str) -> str:
    producer = graph.producer.get(skip)
    if producer is not None and graph.nodes[producer].op in _IDEMPOTENT:
        return graph.nodes[producer].inputs[0]
    return skip


def _between(graph: Graph, start: str, end: str) -> set[int]:
    """The nodes on the ways from tensor `start` to tensor `end`; empty if there is none."""
    first = graph.producer.get(start, -1)
    before, waiting = set[int](), [end]
    while waiting:
        index = graph.producer.get(waiting.pop())
        if index is not None and index > first and index not in before:
            before.add(index)
            waiting += [name for name in (*graph.nodes[index].inputs, *graph.nodes[index].captures) if name]
    after = {start}
    inside = set[int]()
    for index in sorted(before):
        if after.intersection((*graph.nodes[index].inputs, *graph.nodes[index].captures)):
            inside.add(index)
            after.update(graph.nodes[index].outputs)
    return inside if end in after else set()
