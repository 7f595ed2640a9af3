"""Weights trained on what the original model says: refinement after a compression."""

from .descent import Refinement, refine, refined
from .extent import extent
from .maps import maps_of

__all__ = ["Refinement", "extent", "maps_of", "refine", "refined"]
