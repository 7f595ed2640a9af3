"""onnxfold inside other tools: one module a tool, which imports it. Nothing else in onnxfold needs them."""
