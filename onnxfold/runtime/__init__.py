"""Running models with onnxruntime, whole or in segments."""
