"""Gradients of ONNX graphs as ONNX graphs, and Adam: what synthetic inputs and refined weights share."""
