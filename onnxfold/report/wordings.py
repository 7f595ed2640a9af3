"""How a page words what is said differently on the command line and in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .sweep_report import SweepReport


@dataclass(frozen=True)
class Wording:
    """`text` words a message, which names parameters in backquotes; `call` gives what makes the model of one row of a
    sweep, by its target."""

    text: Callable[[str], str]
    call: Callable[[SweepReport, float], str]


def _call(report: SweepReport, target: float) -> str:
    """For Python."""
    given: Mapping[str, Any] = {"target_macs": target, **chosen(report.settings)}
    return f"onnxfold.fold({report.model!r}, 'smaller.onnx', {', '.join(f'{k}={v!r}' for k, v in given.items())})"


USUAL: Mapping[str, Any] = {
    "effort": "balanced", "method": "auto", "clusterer": "native", "round_to": 8, "seed": 0, "include": [],
    "exclude": [], "fold_heads": False,
}  # fmt: skip
"""Settings of a sweep that are parameters of a fold too, with their defaults."""


def chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the usual ones, as parameters."""
    return {name: settings[name] for name, usual in USUAL.items() if settings.get(name, usual) != usual}


PYTHON = Wording(lambda text: text, _call)
