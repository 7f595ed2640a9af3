"""Tensors that are written as a whole by a ScatterND, as exporters write ``x[:, :, a:] = y`` with an open batch.

The indices are then made of one Range for every axis, as long as that, and name all positions in order: what is written
is the result, and the Ranges may become shorter with it. Only such are found; of other indices nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..model.graph import Graph, Node
from .responses import Values
from .rules.index import counted_positions, overwritten
from .rules.table import RuleFunction

_MOVES = ("Reshape", "Unsqueeze", "Expand", "Cast", "Identity", "Concat")


def find_grids(graph: Graph, constants: Values, lengths_only: Callable[[str], bool]) -> Mapping[int, RuleFunction]:
    """Rules for nodes of such grids, by index: of ScatterND, and of Ranges that serve nothing else. `lengths_only`
    tells of a tensor that nothing but Shape uses."""
    found, grids = dict[int, RuleFunction](), _Grids(graph, constants, lengths_only)
    for node in graph.nodes:
        ranges = grids.ranges(node) if node.op == "ScatterND" and not node.domain else None
        if ranges is not None:
            grids.indices[node.index] = node.inputs[1]
            found.update({node.index: overwritten, **dict.fromkeys(ranges, counted_positions)})
    served = {i: rule for i, rule in found.items() if graph.nodes[i].op != "Range" or grids.serves(graph.nodes[i])}
    return served if len(served) == len(found) else {}


@dataclass
class _Grids:
    graph: Graph
    constants: Values
    lengths_only: Callable[[str], bool]
    indices: dict[int, str] = field(default_factory=dict)

    def ranges(self, node: Node) -> list[int] | None:
        """The Ranges that the indices of a ScatterND are made of, one for each axis, where these are all positions."""
        shapes = [self.graph.tensor(name).shape for name in (*node.inputs, node.outputs[0])]
        x, index, updates, _ = shapes
        whole = x is not None and None not in x and updates == x and index == (*x, len(x))
        concat = self._made_by(node.inputs[1], "Concat")
        if not whole or x is None or concat is None or node.attrs.get("reduction", b"none") not in ("none", b"none"):
            return None
        if concat.attrs["axis"] not in (-1, len(x)) or len(concat.inputs) != len(x):
            return None
        found = [self._along(name, axis, x) for axis, name in enumerate(concat.inputs)]
        return [i for i in found if i is not None] if None not in found else None

    def _along(self, column: str, axis: int, whole: tuple[object, ...]) -> int | None:
        """The Range that a column of indices repeats along `axis` of a tensor of shape `whole`."""
        spread = self._made_by(column, "Unsqueeze")
        expand = None if spread is None else self._made_by(spread.inputs[0], "Expand")
        if expand is None or self.graph.tensor(column).shape != (*whole, 1):
            return None
        turned = self._made_by(expand.inputs[0], "Reshape")
        shape = self.graph.tensor(expand.inputs[0]).shape
        if shape is None or shape != (whole[axis], *(1,) * (len(whole) - 1 - axis)):
            return None
        made = self._made_by(turned.inputs[0] if turned is not None else expand.inputs[0], "Range")
        if made is None or self.graph.tensor(made.outputs[0]).shape != (whole[axis],):
            return None
        return made.index if self._number(made.inputs[0]) == 0 and self._number(made.inputs[2]) == 1 else None

    def serves(self, node: Node) -> bool:
        """Whether what a node gives is only used in indices of these grids, or for its lengths."""
        output = node.outputs[0]
        if output in self.graph.outputs or output in self.graph.borders:
            return False
        for user in (self.graph.nodes[i] for i in self.graph.consumers.get(output, ())):
            if user.index in self.indices:
                if list(user.inputs).count(output) != 1 or self.indices[user.index] != output:
                    return False
            elif user.op == "Shape" or (user.op == "Add" and self._measured(user)):
                continue
            elif user.op not in _MOVES or user.domain or not self.serves(user):
                return False
        return True

    def _measured(self, node: Node) -> bool:
        """Whether a sum serves for its lengths, perhaps as part of others that do."""
        output = node.outputs[0]
        users = [self.graph.nodes[i] for i in self.graph.consumers.get(output, ())]
        if self.lengths_only(output):
            return True
        return output not in self.graph.outputs and all(
            user.op == "Shape" or (user.op == "Add" and self._measured(user)) for user in users
        )

    def _made_by(self, name: str, op: str) -> Node | None:
        index = self.graph.producer.get(name)
        node = None if index is None else self.graph.nodes[index]
        return node if node is not None and node.op == op and not node.domain else None

    def _number(self, name: str) -> float | None:
        array = self.constants.array(name) if name in self.constants else np.zeros(0)
        return float(array.ravel()[0]) if array.size == 1 else None
