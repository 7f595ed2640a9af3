"""Weights trained on what the original model says: refinement after a compression."""

from .block_targets import Counterparts, Map
from .channel_maps import composed, maps_of
from .schedule import check_steps, extent, sample_shapes
from .train import Refinement, TrainSettings, refine, refined

__all__ = [
    "Counterparts", "Map", "Refinement", "TrainSettings", "check_steps", "composed", "extent", "maps_of", "refine",
    "refined", "sample_shapes",
]  # fmt: skip
