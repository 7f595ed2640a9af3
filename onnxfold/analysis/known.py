"""What is known of a graph while it is analyzed: the facts of all nodes, and what follows from them together."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from ..model.graph import Graph
from .atoms import NONE, AtomTable, SlotKey, Tied, ends
from .components import Integers, connected
from .groups import Blocked, Role
from .node_facts import Asked, AtomFact, Averaged, AxisRole, Counted, Indexed, Normed, Product
from .pins import Pin
from .result import Frozen
from .rules.facts import Atoms, Normalize


class Known:
    """Facts about the atoms of `table`, in the order in which they came. `summed`: what products add up. `lists`: those
    of lengths in whose place plain numbers stand after a fold.

    Of several pins of a channel the first is the reason that is given.
    """

    def __init__(self, graph: Graph) -> None:
        self.table = AtomTable(graph)
        self.ties: list[Tied] = []
        self.pins: dict[Pin, None] = {}
        self.roles: dict[SlotKey, dict[Role, list[int]]] = {}
        self.blocks: list[Blocked] = []
        self.norms: list[Normalize] = []
        self.counts: list[Counted] = []
        self.lists: list[Frozen] = []
        self.choices: list[Asked] = []
        self.products: list[Product] = []
        self.averages: list[Averaged] = []
        self.indexed: list[Indexed] = []
        self.normed: list[Normed] = []
        self.summed: Atoms = NONE

    def add(self, facts: Iterable[AtomFact]) -> None:
        """Take in more facts."""
        for fact in facts:
            match fact:
                case Pin():
                    if len(fact.atoms):
                        self.pins[fact] = None
                case Tied():
                    self.ties.append(fact)
                case AxisRole():
                    self.roles.setdefault(fact.key, {}).setdefault(fact.role, []).append(fact.node)
                case Blocked():
                    self.blocks.append(fact)
                case Normalize():
                    self.norms.append(fact)
                case Counted():
                    self.counts.append(fact)
                case Asked():
                    self.choices.append(fact)
                case Averaged():
                    self.averages.append(fact)
                case Indexed():
                    self.indexed.append(fact)
                case Normed():
                    self.normed.append(fact)
                case Product():
                    self.products.append(fact)
                    self.add(fact.pins)

    def follow(self, product: Product, summed: Atoms) -> None:
        """The products are followed after all: `summed` is what they add up on one side."""
        self.summed = np.union1d(self.summed, summed)
        for pin in product.pins:
            del self.pins[pin]

    def labels(self) -> Integers:
        """[atoms] the channel of every atom."""
        return connected(*ends(self.ties), self.table.count)

    def pinned(self, labels: Integers, products: bool = True) -> NDArray[np.bool_]:
        """[channels] whether something keeps a channel; without `products`, something else than these."""
        without = () if products else self._of_products
        found = np.zeros(int(labels.max(initial=-1)) + 1, bool)
        found[labels[np.concatenate([NONE, *(pin.atoms for pin in self.pins if pin not in without)])]] = True
        return found

    def reasons(self, labels: Integers) -> NDArray[np.object_]:
        """[channels] the `Reason` of the first pin of every channel; None where nothing keeps it."""
        pins = list(self.pins)
        first = np.full(int(labels.max(initial=-1)) + 1, len(pins))
        atoms = np.concatenate([NONE, *(pin.atoms for pin in pins)])
        np.minimum.at(first, labels[atoms], np.repeat(np.arange(len(pins)), [len(pin.atoms) for pin in pins]))
        reasons: NDArray[np.object_] = np.array([*(pin.reason for pin in pins), None], object)
        return np.asarray(reasons[first])

    @property
    def _of_products(self) -> Collection[Pin]:
        return {pin for product in self.products for pin in product.pins}
