"""Weights trained on what the original model says: refinement after a compression."""

from .descent import Refinement, refine, refined
from .extent import extent
from .maps import maps_of
from .targets import Map

__all__ = ["Map", "Refinement", "extent", "maps_of", "refine", "refined"]
