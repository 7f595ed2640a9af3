"""How a page words what is said differently on the command line and in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .choice_report import ChoiceReport
from .sweep_report import SweepReport


@dataclass(frozen=True)
class Wording:
    """`text` words a message, which names parameters in backquotes; `call` gives what makes the model of one row of a
    sweep, by its target; `chain` what makes that of one row of a choice, by its number."""

    text: Callable[[str], str]
    call: Callable[[SweepReport, float], str]
    chain: Callable[[ChoiceReport, int], str]


def _call(report: SweepReport, target: float) -> str:
    """For Python."""
    return _python("fold", report.model, {"target_macs": target, **chosen(report.settings)})


def _chain(report: ChoiceReport, row: int) -> str:
    chain = report.rows[row].chain
    return _python(chain.function, report.model, {**chain.how, **chosen_for(report, row)})


def _python(function: str, model: str, given: Mapping[str, Any]) -> str:
    return f"onnxfold.{function}({model!r}, 'smaller.onnx', {', '.join(f'{k}={v!r}' for k, v in given.items())})"


USUAL: Mapping[str, Any] = {
    "effort": "balanced", "method": "auto", "clusterer": "native", "round_to": 8, "seed": 0, "include": [],
    "exclude": [], "fold_heads": False, "fold_residual": False, "device": None,
}  # fmt: skip
"""Settings of a sweep that are parameters of a fold too, with their defaults."""


def chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the usual ones, as parameters."""
    return {name: settings[name] for name, usual in USUAL.items() if settings.get(name, usual) != usual}


def chosen_for(report: ChoiceReport, row: int) -> dict[str, Any]:
    """The same for a row of a choice: where whole layers change, there are fewer of them."""
    found = chosen(report.settings)
    known = found if report.rows[row].chain.fuse is None else ("effort", "seed")
    return {name: value for name, value in found.items() if name in known}


PYTHON = Wording(lambda text: text, _call, _chain)
