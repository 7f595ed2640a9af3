"""Weights that a model stores as integers: how they are found, unpacked and packed again."""
