"""Distillation: weights of a compressed model trained on the outputs of the original (called refinement for users)."""
