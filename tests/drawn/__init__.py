"""Whole random graphs, valid by construction, and what must be true of every one of them.

A `Recipe` is a list of steps with small numbers; `build` makes the model. A step is a function in a list (`steps/`):
adding an operator is adding a function. A step that does not fit is left out, so that any part of a recipe is a recipe:
that is why failures shrink well, and why a line of text (`corpus.txt`) replays one.
"""

from .build import build
from .builder import Builder, Tensor, UnfitError
from .properties import Outcome, judge
from .recipe import FLAGS, OPSETS, SOURCES, Recipe, Step, draw, shrink
from .steps import NAMES, STEPS

__all__ = [
    "FLAGS", "NAMES", "OPSETS", "SOURCES", "STEPS", "Builder", "Outcome", "Recipe", "Step", "Tensor", "UnfitError",
    "build", "draw", "judge", "shrink",
]  # fmt: skip
