"""What distillation came to."""

from __future__ import annotations

from dataclasses import dataclass

from ...units import in_percent


@dataclass(frozen=True)
class RefinementReport:
    """Refinement: whether its weights were `kept`, and the relative error of the outputs on inputs held back, `before`
    and at its best (`after`; nan where it was not measured).

    `losses` of every step, `errors` on the inputs held back with the steps done before; `blocks` whose outputs were
    compared beside those of the model; `note`: why nothing was kept, or why it ended early.
    """

    kept: bool
    before: float
    after: float
    blocks: int
    losses: tuple[float, ...]
    errors: tuple[tuple[int, float], ...]
    note: str

    def __str__(self) -> str:
        """In words."""
        if not self.kept:
            return f"training was not used: {self.note}"
        return f"trained for {len(self.losses)} steps (error {in_percent(self.before)} → {in_percent(self.after)})"
