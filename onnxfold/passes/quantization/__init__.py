"""INT8 after a compression: onnxruntime's static quantisation, and what it gains and costs."""

from .quantize import Step, check_quantisable, narrowed, quantise
from .result import QuantisationReport

__all__ = ["QuantisationReport", "Step", "check_quantisable", "narrowed", "quantise"]
