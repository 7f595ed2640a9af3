"""An ONNX file as a frozen view, and back."""
