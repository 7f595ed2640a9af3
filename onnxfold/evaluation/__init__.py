"""How far a version of a model is from the original, and how fast it is."""
