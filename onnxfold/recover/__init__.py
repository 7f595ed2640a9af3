"""Recovery: repairing what a merge disturbs. Functions on arrays; nothing here sees a graph."""

from enum import Enum

from .closed_form import fold_ar, variance_correction


class Recovery(Enum):
    """How much is repaired."""

    NONE = "none"
    """The plain merge."""

    CLOSED_FORM = "closed-form"
    """From the weights alone: Fold-AR where BatchNormalization is in the graph, variance correction where it was fused."""


__all__ = ["Recovery", "fold_ar", "variance_correction"]
