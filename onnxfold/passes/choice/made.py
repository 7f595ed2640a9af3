"""The last steps of every chain that is measured."""

from __future__ import annotations

from ...evaluation.quality import ANY
from ...options.choices import Quantization
from ...options.parts import OutputOptions
from ..base import Pass
from ..quantization.apply import Quantize
from ..verify import Stage, Verify

FOLDED = ("analysis", "planner", "samples", "candidate")  # what a state has after a fold
_NOWHERE = OutputOptions()


def measuring(kind: Quantization | None, latency: bool) -> list[Pass]:
    """The passes that store a version of the model in fewer bits (None: as it is), write it and measure it.

    `latency`: whether it is timed. Rows are compared by bytes that say nothing of where they come from."""
    bits: list[Pass] = [] if kind is None else [Quantize(_NOWHERE, kind)]
    return [*bits, Stage(_NOWHERE), Verify(latency, limit=ANY)]
