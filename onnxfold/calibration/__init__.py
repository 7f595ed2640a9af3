"""Calibration data: the user's own, or synthetic."""
