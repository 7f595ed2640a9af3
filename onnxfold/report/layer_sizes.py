"""How many parameters every layer has, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..analysis.costs import Costs
from ..model.model import Model

MOST = 400  # layers that a report names
OTHERS = "(all others)"
Lengths = Mapping[tuple[str, int], int]  # of axes that changed
Counted = Mapping[str, tuple[str, int]]  # by node: its operator, and the numbers in its weights


@dataclass(frozen=True)
class LayerSize:
    """A node with weights of its own: its operator, and how many numbers they hold in the original and in the result.

    Weights that several nodes share count for the first of them.
    """

    name: str
    op: str
    before: int
    after: int


def counted(model: Model, prices: Costs, lengths: Lengths | None = None) -> Counted:
    """The numbers in the weights of every node, in the order of the graph, with the changed axis `lengths`."""
    left = prices.numbers(lengths or {})
    found = dict[str, tuple[str, int]]()
    for node in model.graph.nodes:
        count = sum(left.pop(name, 0) for name in node.inputs)
        if count:
            found[node.label] = node.op, count + found.get(node.label, ("", 0))[1]
    return found | {name: ("", count) for name, count in left.items()}


def layer_sizes(before: Counted, after: Counted) -> tuple[LayerSize, ...]:
    """Both beside each other, in the order of the original; those beyond `MOST` are taken together."""
    made = [LayerSize(name, op, count, after.get(name, ("", 0))[1]) for name, (op, count) in before.items()]
    if len(made) <= MOST:
        return tuple(made)
    large = {one.name for one in sorted(made, key=lambda one: -one.before)[: MOST - 1]}
    rest = [one for one in made if one.name not in large]
    others = LayerSize(OTHERS, "", sum(one.before for one in rest), sum(one.after for one in rest))
    return (*(one for one in made if one.name in large), others)
