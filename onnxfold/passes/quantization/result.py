"""What fewer bits gained and cost, beside the same model in floats."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...evaluation.latency import SLOWER
from ...options.choices import Quantization
from ...units import in_percent


@dataclass(frozen=True)
class QuantizationReport:
    """The last step of a chain, from the compressed model in floats (`before`) to that in fewer bits (`after`).

    `file_*` in bytes; `error_*`: the largest relative L2 error of the outputs against the original, on the inputs of
    the check; latencies in ms, both versions run in turn on `provider` (None where nothing was timed). `samples` gave
    the ranges of activations, where `kind` wants any. `nodes` compute on integers (weights alone: have weights that are
    integers; float16: have weights in it); `floats` are the operators of the other nodes, with how many there are.
    """

    weights: str
    activations: str
    samples: int
    nodes: int
    floats: tuple[tuple[str, int], ...]
    provider: str
    file_before: int
    file_after: int
    error_before: float
    error_after: float
    latency_before_ms: float | None
    latency_after_ms: float | None
    kind: Quantization = Quantization.INT8

    @property
    def speedup(self) -> float | None:
        """Latency in floats over latency in fewer bits."""
        if self.latency_before_ms is None or not self.latency_after_ms:
            return None
        return self.latency_before_ms / self.latency_after_ms

    @property
    def slower(self) -> bool:
        """Whether it takes longer than the same model in floats."""
        return self.speedup is not None and self.speedup < 1 / SLOWER

    @property
    def done_on(self) -> str:
        """On which nodes it was done, in words."""
        if self.kind is Quantization.INT8:
            return f"{self.nodes} nodes compute on integers; activation ranges from {self.samples} samples"
        if self.kind is Quantization.DYNAMIC:
            return f"{self.nodes} nodes compute on integers; activation ranges are computed at run time"
        return f"{self.nodes} nodes have weights of {self.weights}"

    def __str__(self) -> str:
        """In words."""
        quick = "" if self.speedup is None or self.slower else f", {self.speedup:.2f}x as fast as in floats"
        if math.isnan(self.error_before):
            return f"in {self.kind.label}{quick}"
        return f"in {self.kind.label} (without: error {in_percent(self.error_before)}{quick})"
