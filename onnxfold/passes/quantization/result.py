"""What INT8 gained and cost, beside the same model in floats."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...evaluation.latency import SLOWER
from ...units import in_percent


@dataclass(frozen=True)
class QuantizationReport:
    """The last step of a chain, from the compressed model in floats (`before`) to the one in INT8 (`after`).

    `file_*` in bytes; `error_*`: the largest relative L2 error of the outputs against the original, on the inputs of
    the check; latencies in ms, both versions run in turn on `provider` (None where nothing was timed). `samples` gave
    the ranges of activations. `nodes` compute on integers; `floats` are the operators that do not, with how many nodes.
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

    @property
    def speedup(self) -> float | None:
        """Latency in floats over latency in INT8."""
        if self.latency_before_ms is None or not self.latency_after_ms:
            return None
        return self.latency_before_ms / self.latency_after_ms

    @property
    def slower(self) -> bool:
        """Whether INT8 takes longer than the same model in floats."""
        return self.speedup is not None and self.speedup < 1 / SLOWER

    def __str__(self) -> str:
        """In words."""
        quick = "" if self.speedup is None or self.slower else f", {self.speedup:.2f}x as fast as in floats"
        if math.isnan(self.error_before):
            return f"in INT8{quick}"
        return f"in INT8 (without: error {in_percent(self.error_before)}{quick})"
