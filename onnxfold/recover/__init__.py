"""Recovery: repairing what a merge disturbs. Functions on arrays; nothing here sees a graph."""

from enum import Enum

from .closed_form import fold_ar, variance_correction


class Recovery(Enum):
    """How much is repaired."""

    NONE = "none"
    """The plain merge."""

    CLOSED_FORM = "closed-form"
    """From weights alone: Fold-AR where BatchNormalization is in the graph, else variance correction."""


__all__ = ["Recovery", "fold_ar", "variance_correction"]
