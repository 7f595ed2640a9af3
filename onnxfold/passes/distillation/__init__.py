"""Weights trained on what the original model says: refinement after a compression."""
