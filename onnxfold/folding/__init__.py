"""The mathematics of folding: arrays in, merges out. Nothing here knows ONNX."""
