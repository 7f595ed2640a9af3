"""Weights trained on what the original model says: refinement after a compression."""

from .descent import Refinement, refine, refined
from .extent import check_steps, extent, sample_shapes
from .maps import composed, maps_of
from .targets import Counterparts, Map

__all__ = [
    "Counterparts", "Map", "Refinement", "check_steps", "composed", "extent", "maps_of", "refine", "refined",
    "sample_shapes",
]  # fmt: skip
