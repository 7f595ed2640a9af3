"""Recovery: repairing what a merge disturbs. Functions on arrays; nothing here sees a graph."""

from .closed_form import fold_ar, variance_correction

__all__ = ["Recovery", "fold_ar", "variance_correction"]
