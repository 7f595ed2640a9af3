"""How many steps on how many samples at a time: what was asked for, or what the effort and the model's size allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...analysis.costs import activations, costs, step_seconds
from ...calibration.samples import Samples
from ...errors import RequestError
from ...model.model import Model
from ...options.choices import Effort
from ...runtime.batching import Batching
from ...runtime.session import Session

STEPS = {Effort.FAST: 200, Effort.BALANCED: 800, Effort.BEST: 3200}
SECONDS = {Effort.FAST: 60.0, Effort.BALANCED: 240.0, Effort.BEST: 1800.0}  # about, on two cores
BATCH = 32
_FEWEST = 100  # steps; smaller batches before fewer steps
_SMALLEST = 8
_MEMORY = 1 << 30  # bytes of activations; a step holds about four times as much


def check_steps(steps: int | None) -> None:
    """Raise RequestError for a number of `steps` below 1."""
    if steps is not None and steps < 1:
        raise RequestError(f"`steps` must be at least 1, not {steps}")


def sample_shapes(model: Model, samples: Samples) -> dict[str, Sequence[int]]:
    """The shapes of the inputs of one sample: texts may be longer than the model's nominal length."""
    form = Batching.of(Session.of(model).inputs)
    cut = form.names if form.size is None else frozenset[str]()
    return {name: (1, *x.shape[1:]) if name in cut else x.shape for name, x in samples.fit[0].items()}


def extent(
    model: Model, effort: Effort, shapes: Mapping[str, Sequence[int]] | None, steps: int | None
) -> tuple[int, int]:
    """(steps, samples in each). It depends on the model and the effort, not on how busy the machine is.

    Raises RequestError for a number of `steps` below 1.
    """
    check_steps(steps)
    prices = costs(model, shapes)
    elements, each = activations(model, prices), step_seconds(model, prices)
    batch, wanted = BATCH, steps or STEPS[effort]
    while batch > _SMALLEST and (
        4 * elements * batch > _MEMORY or (steps is None and each * batch * wanted > 2 * SECONDS[effort])
    ):
        batch //= 2
    if steps is None:
        wanted = max(_FEWEST, min(wanted, round(SECONDS[effort] / (each * batch))))
    return wanted, batch
