"""What `fold` and `fuse` return: a model with what is known of it, in place if it passed its checks; and the plan that
makes it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from ..errors import RequestError, ValidationError
from ..model.files import Read
from ..model.model import Model
from ..model.save import check_target, staged
from ..model.tensors import Pending
from ..options.parameters import checked, given_path
from ..options.parts import OutputOptions
from ..options.width_plan import WidthPlan
from ..passes.base import State
from ..passes.distillation.block_targets import Map
from .fold_report import FoldReport
from .plans.plan import EditablePlan, Price

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class FoldResult:
    """A folded model and what is known about it. `model` refers to the original's external data, if that has any.

    Of a model too large to be in memory, new values are not in `model`: `save` computes them while it writes. `maps()`
    says what became of the channels of activations. `plan`: the widths, to be edited, saved and applied; None where
    layers share weights, or several chains of steps were tried.
    """

    model: ModelProto = field(repr=False)
    report: FoldReport
    _source: Model = field(repr=False)
    _pending: Mapping[str, Pending] = field(default_factory=dict, repr=False)
    maps: Callable[[], Mapping[str, Map | None]] = field(default=dict, repr=False)
    plan: Plan | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return repr(self.report).replace("FoldReport", "FoldResult", 1)

    def _repr_html_(self) -> str:
        """For notebooks: as the report."""
        return self.report._repr_html_()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return self.report.to_dict()

    def to_json(self) -> str:
        """The same as text, which `FoldReport.from_json` reads."""
        return self.report.to_json()

    def to_pandas(self) -> pandas.DataFrame:
        """The channel groups as a data frame. Raises RequestError where pandas is missing."""
        return self.report.to_pandas()

    def plot(self) -> Any:
        """The widths of the groups, before and after (`FoldReport.plot`)."""
        return self.report.plot()

    def save(self, path: str | os.PathLike[str], external_data: bool = False) -> None:
        """Write the model atomically, with a new external data file where the original has one."""
        target = Path(given_path("path", path))
        check_target(target, self._source.path)
        with staged(self.model, self._source, target, external_data, self._pending) as written:
            written.commit()


Applied = Callable[[WidthPlan, str | None], FoldResult]


class Plan(EditablePlan):
    """How many channels every group of a model keeps: made by `Analyzed.plan`, of a result (`FoldResult.plan`), or read
    by `load`. To be looked at, edited, kept in a file, and applied.

    Attributes:
        keep: the widths, by group, to be read and set: ``plan.keep["layer1.0/conv1"] = 48``, or all at once:
            ``plan.keep = {"conv1": 48}``. A group may be named by any layer that makes its channels.
        groups: what the groups of the model are (`PlannedGroup`); empty of a plan that was written by hand.
        budget: what the widths were found for, like ``{"target_macs": 0.7}``; None where nobody looked for them.
        model, source_sha256: the name of the model's file, and its SHA-256 (of a model in memory: of its bytes).
    """

    def __init__(
        self,
        widths: WidthPlan,
        price: Price | None = None,
        applied: Applied | None = None,
        reads: Iterable[Read] = (),
    ) -> None:
        """`price`: what remains under widths; `applied`: folds the model by a plan, to a path. None: nobody knows.
        `reads`: files that it is never saved over."""
        super().__init__(widths, price, reads)
        self._applied = applied

    def apply(self, output: str | os.PathLike[str] | None = None) -> FoldResult:
        """Fold the model by these widths, with the options that the plan was made with; written to `output` if that is
        given.

        Raises RequestError for a plan that was read from a file: give it to `onnxfold.fold` with its model. Else raises
        as `onnxfold.fold` does.
        """
        if self._applied is None:
            raise RequestError("this plan comes from a file: call onnxfold.fold(model, output, plan=plan)")
        return self._applied(self.frozen(), checked("output", output))


def committed(state: State, report: FoldReport, output: OutputOptions, plan: Plan | None = None) -> FoldResult:
    """The result, its file put in place if it is to be kept. Raises ValidationError where its checks failed."""
    if report.check is None or not report.check.passed:
        error = ValidationError(f"{report.model}: the result was not written: {report.verdict}")
        error.report = report
        raise error
    if output.path is not None and state.staged is not None:
        state.staged.commit()
    current = state.current
    proto = state.source.entry.back(current.proto)
    return FoldResult(proto, report, state.source, current.pending, lambda: current.counterparts().maps, plan)
