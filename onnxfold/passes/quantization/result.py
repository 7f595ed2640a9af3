"""What fewer bits gained and cost, beside the same model in floats."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...evaluation.latency import SLOWER
from ...evaluation.verdict import ProviderCheck
from ...options.choices import Quantization
from ...units import as_fast, in_percent


@dataclass(frozen=True)
class QuantizationReport:
    """The last step of a chain, from the compressed model in floats (`before`) to that in fewer bits (`after`).

    `file_*` in bytes; `error_*`: the largest relative L2 error of the outputs against the original, on the inputs of
    the check; `judged_*`: the error by which results are judged, on all inputs that judge (None: not measured);
    latencies in ms, both versions and the original run in turn on `provider` (None where nothing was timed). `samples`
    gave the ranges of activations, where `kind` wants any; `synthetic`: they were made (None: not known). `nodes`
    compute on integers (weights alone: have weights that are integers; float16: have weights in it); `floats` are the
    operators of the other nodes, with how many there are.
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
    judged_before: float | None = None
    judged_after: float | None = None
    synthetic: bool | None = None

    @property
    def errors(self) -> tuple[float, float] | None:
        """(in floats, in fewer bits) by one and the same measure, the one that `measure` names; None: not measured."""
        if self.judged_before is not None and self.judged_after is not None:
            return self.judged_before, self.judged_after
        return None if math.isnan(self.error_before) else (self.error_before, self.error_after)

    @property
    def alone(self) -> bool:
        """Whether nothing came before it: the model in floats is the original."""
        return self.errors is not None and self.errors[0] == 0

    def timed(self, done: ProviderCheck) -> QuantizationReport:
        """The same with the latencies of a comparison, which every table shows; the original's where it is the model in
        floats."""
        floats = done.latency_before_ms if self.alone else done.latency_floats_ms
        if floats is None:
            return self
        return replace(self, latency_before_ms=floats, latency_after_ms=done.latency_after_ms)

    @property
    def measure(self) -> str:
        """What `errors` are."""
        judged = self.judged_before is not None and self.judged_after is not None
        return "output error" if judged else "relative L2 error"

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
            what = {None: "samples", True: "synthetic inputs", False: "samples of your data"}[self.synthetic]
            return f"{self.nodes} nodes compute on integers; activation ranges from {self.samples} {what}"
        if self.kind is Quantization.DYNAMIC:
            return f"{self.nodes} nodes compute on integers; activation ranges are computed at run time"
        return f"{self.nodes} nodes have weights of {self.weights}"

    def __str__(self) -> str:
        """In words."""
        text, where = f"in {self.kind.label}", "in floats"
        if self.alone:
            return text
        if self.speedup is not None and not self.slower:
            text, where = f"{text}, {as_fast(self.speedup)} as in floats", "there"
        return text if self.errors is None else f"{text} ({self.measure} {where}: {in_percent(self.errors[0])})"
