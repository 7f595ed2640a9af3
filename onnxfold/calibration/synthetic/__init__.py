"""Synthetic inputs: calibration data made from the model alone."""

from .image_ops import contact_sheet
from .synthesize import Synthetic, synthesize

__all__ = ["Synthetic", "contact_sheet", "synthesize"]
