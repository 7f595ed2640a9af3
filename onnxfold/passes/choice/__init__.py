"""Folding, fewer bits, or both: chains of steps beside each other, measured and compared."""
