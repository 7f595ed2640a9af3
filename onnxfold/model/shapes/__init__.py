"""Shapes: inferred, resolved and computed with, also for operators that ONNX does not know."""
