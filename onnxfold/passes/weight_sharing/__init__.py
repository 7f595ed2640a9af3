"""Layers that are alike: how like they are, one set of weights for several of them, and blocks that can go."""
