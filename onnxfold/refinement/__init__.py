"""Weights trained on what the original model says: refinement after a compression."""

from .descent import Refinement, refine, refined
from .extent import extent
from .maps import maps_of

NO_INPUTS = "--effort fast makes no inputs: give --calibration or take --effort balanced"

__all__ = ["NO_INPUTS", "Refinement", "extent", "maps_of", "refine", "refined"]
