"""A model that is analyzed, to make plans of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from ...errors import RequestError
from ...options.budget import DEFAULT_BUDGET, Budget
from ...units import brief
from ..fold_report import FoldReport
from ..fold_result import Plan
from ..group_report import GroupReport


class Analyzed:
    """What `onnxfold.analyze` returns: the channel groups of a model, and plans for it.

    `report`: what can be folded, and what is kept and why, as `onnxfold.inspect` gives it.
    """

    def __init__(self, report: FoldReport, planned: Callable[[Budget], Plan]) -> None:
        """`planned`: makes the plan of a budget."""
        self.report, self._planned = report, planned

    @property
    def groups(self) -> tuple[GroupReport, ...]:
        """The channel groups: name, channels (`before`), the layers that make and use them."""
        return self.report.groups

    def plan(self, target: Budget | Mapping[str, int] = DEFAULT_BUDGET) -> Plan:
        """How many channels every group keeps, to meet a target: Macs(0.7), Params(0.5), Size(0.5), Latency(0.8),
        Ratio(0.3), MaxError(0.05), MinAgreement(0.99) or MaxDrop(0.5). Or widths by group, ``{"conv1": 48}``: groups
        that are not named stay whole.

        Samples and sensitivities are had once for all plans. Nothing is written. Raises PlanError for a target that
        cannot be met, NothingToFoldError where it lets nothing go, RequestError for what is no target.
        """
        if isinstance(target, Mapping):
            target = Budget.plan(target)
        if not isinstance(target, Budget):
            raise RequestError(f"`target` must be one like onnxfold.Macs(0.7), or widths by group, not {brief(target)}")
        return self._planned(target)

    def print(self, console: Console | None = None, verbose: bool = False) -> None:
        """Show the groups, and what is kept and why; None: on standard output."""
        self.report.print(console, verbose)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return self.report.to_dict()

    def to_pandas(self) -> Any:
        """The groups as a data frame. Raises RequestError where pandas is missing."""
        return self.report.to_pandas()

    def __repr__(self) -> str:
        return repr(self.report).replace("FoldReport", "Analyzed", 1)

    def _repr_html_(self) -> str:
        """For notebooks: as the report."""
        return self.report._repr_html_()
