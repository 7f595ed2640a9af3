"""The commands that a page about a sweep shows: what makes the model of one row."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..report.sweep_report import SweepReport
from ..report.wordings import Wording, chosen
from .wording import as_options

_VALUES = ("--at", "--report")  # options of a sweep that mean nothing here, each with a value
_SWITCHES = ("-q", "--quiet")


def call(report: SweepReport, target: float) -> str:
    """The command that folds the model of `report` to `target`, with the options that the sweep had."""
    output = f"{Path(report.model).with_suffix('')}-{100 * target:g}.onnx"
    words = shlex.split(report.provenance.command) if report.provenance is not None else []
    at = f"--target-macs {target:g}"
    if words[1:2] == ["sweep"] and report.model in words[2:]:
        rest = _without(words[2:])
        rest.remove(report.model)
        return " ".join(["onnxfold", shlex.quote(report.model), shlex.quote(output), at, shlex.join(rest)]).rstrip()
    more = [as_options(f"`{name}={value!r}`") for name, value in chosen(report.settings).items()]
    return " ".join(["onnxfold", shlex.quote(report.model), shlex.quote(output), at, *more])


def _without(words: Sequence[str]) -> list[str]:
    """Without the options that a single fold does not have, or that are about output."""
    left, skip = list[str](), False
    for word in words:
        if not skip and word not in (*_VALUES, *_SWITCHES) and not word.startswith(tuple(f"{v}=" for v in _VALUES)):
            left.append(word)
        skip = not skip and word in _VALUES
    return left


COMMAND_LINE = Wording(as_options, call)
