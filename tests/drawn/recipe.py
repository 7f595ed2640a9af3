"""Recipes: what a random graph is made of, as data that is drawn, shrunk, printed and read back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

OPSETS = (17, 11, 13, 18, 21)
SOURCES = ("image", "vector", "sequence", "words", "images")
FLAGS = ("static", "constants", "inputs", "shapes", "unnamed")
"""A batch of 2 instead of an open one; weights in Constant nodes; weights that are graph inputs too; shapes of all
tensors written out; nodes without names."""
NUMBERS = 8  # that a step can ask for; the others are 0
HIGHEST = 15


@dataclass(frozen=True)
class Step:
    """The name of a step, and the numbers that its choices are taken from, first those of the tensors that it takes."""

    name: str
    numbers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *map(str, self.numbers)])


@dataclass(frozen=True)
class Recipe:
    """A graph: `source` says what its inputs are, `seed` makes its weights."""

    opset: int = OPSETS[0]
    source: str = SOURCES[0]
    flags: tuple[str, ...] = ()
    seed: int = 0
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        head = " ".join([str(self.opset), self.source, str(self.seed), *self.flags])
        return " | ".join([head, *map(str, self.steps)])

    @classmethod
    def parse(cls, line: str) -> Recipe:
        """A recipe from the line that `str` makes of it."""
        head, *steps = (part.split() for part in line.split("|"))
        made = tuple(Step(name, tuple(map(int, numbers))) for name, *numbers in steps)
        return cls(int(head[0]), head[1], tuple(head[3:]), int(head[2]), made)


def draw(names: Sequence[str], seed: int) -> Recipe:
    """The recipe number `seed`, of 4 to 16 of the steps `names` (of which a third will not fit)."""
    chance = random.Random(seed)
    flags = tuple(flag for flag in FLAGS if chance.random() < (0.4 if flag == "static" else 0.1))
    source = chance.choices(SOURCES, (10, 4, 4, 2, 3))[0]
    steps = tuple(
        Step(chance.choice(names), tuple(_number(chance) for _ in range(NUMBERS))) for _ in range(chance.randint(4, 16))
    )
    return Recipe(chance.choice(OPSETS), source, flags, chance.randrange(1000), steps)


def _number(chance: random.Random) -> int:
    """Often 0, which means the simplest choice and the newest tensor."""
    return 0 if chance.random() < 0.3 else chance.randint(0, HIGHEST)


def shrink(recipe: Recipe, fails: Callable[[Recipe], bool]) -> Recipe:
    """A smaller recipe that `fails` too, if there is one: fewer steps, fewer flags, smaller numbers."""
    again = True
    while again:
        again = False
        for smaller in _smaller(recipe):
            if fails(smaller):
                recipe, again = smaller, True
                break
    return recipe


def _smaller(recipe: Recipe) -> Iterator[Recipe]:
    steps = recipe.steps
    for i in range(len(steps)):
        yield replace(recipe, steps=steps[:i] + steps[i + 1 :])
    for flag in recipe.flags:
        yield replace(recipe, flags=tuple(f for f in recipe.flags if f != flag))
    if recipe.opset != OPSETS[0]:
        yield replace(recipe, opset=OPSETS[0])
    if recipe.source != SOURCES[0]:
        yield replace(recipe, source=SOURCES[0])
    for i, step in enumerate(steps):
        for numbers in _smaller_numbers(step.numbers):
            yield replace(recipe, steps=(*steps[:i], Step(step.name, numbers), *steps[i + 1 :]))


def _smaller_numbers(numbers: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if numbers:
        yield numbers[: len(numbers) // 2]
        yield numbers[:-1]
    for i, n in enumerate(numbers):
        for smaller in {0, n // 2, n - 1} - {n, -1}:
            yield (*numbers[:i], smaller, *numbers[i + 1 :])
