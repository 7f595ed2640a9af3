"""INT8 after a compression: onnxruntime's static quantization, and what it gains and costs."""

from .quantize import Step, check_quantizable, narrowed, quantize
from .result import QuantizationReport

__all__ = ["QuantizationReport", "Step", "check_quantizable", "narrowed", "quantize"]
