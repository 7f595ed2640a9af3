"""Synthetic inputs: what a model is calibrated on when nobody has its data."""

from .image_ops import contact_sheet
from .synthesize import Synthetic, synthesize

__all__ = ["Synthetic", "contact_sheet", "synthesize"]
