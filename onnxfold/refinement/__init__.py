"""Weights trained on what the original model says: refinement after a compression."""

from .descent import Refinement, refine, refined
from .extent import check_steps, extent, sample_shapes
from .maps import maps_of
from .targets import Map

__all__ = ["Map", "Refinement", "check_steps", "extent", "maps_of", "refine", "refined", "sample_shapes"]
