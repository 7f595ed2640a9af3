"""INT8 after a compression: onnxruntime's static quantization, and what it gains and costs."""
