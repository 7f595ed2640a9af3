"""Recovery: repairing what a merge disturbs. Functions on arrays; nothing here sees a graph."""

from enum import Enum

from .closed_form import fold_ar, variance_correction


class Recovery(Enum):
    """How much is repaired."""

    AUTO = "auto"
    """Least squares where samples can be had, else closed form."""

    NONE = "none"
    """The plain merge."""

    CLOSED_FORM = "closed-form"
    """From weights alone: Fold-AR where BatchNormalization is in the graph, else variance correction."""

    STATISTICS = "statistics"
    """With samples: means and variances of what the readers give are restored (REPAIR)."""

    LEAST_SQUARES = "least-squares"
    """With samples: the readers are refitted to the original's outputs."""


__all__ = ["Recovery", "fold_ar", "variance_correction"]
