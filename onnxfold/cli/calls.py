"""The commands that a page about a sweep or a choice shows: what makes the model of one row."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report.choice_report import ChoiceReport
from ..report.sweep_report import SweepReport
from ..report.wordings import Wording, chosen, chosen_for
from .wording import as_options

_VALUES = ("--at", "--allow", "--report")  # options of a sweep that mean nothing here, each with a value
_SWITCHES = ("-q", "--quiet")
_CHANNELS = ("--method", "--clusterer", "--round-to", "--device", "--include", "--exclude", "--threads", "--recovery")
_HEADS = ("--fold-heads",)  # both are about channels: a fusion has none of these, or means something else


def call(report: SweepReport, target: float) -> str:
    """The command that folds the model of `report` to `target`, with the options that the sweep had."""
    return _command(report, f"{100 * target:g}", f"--target-macs {target:g}", chosen(report.settings))


def chain_call(report: ChoiceReport, row: int) -> str:
    """The command that makes the model of a row, with the options that the choice had."""
    chain = report.rows[row].chain
    name = re.sub(r"[^a-z0-9.]+", "-", chain.label.lower()).strip("-")
    settings, fuses = chosen_for(report, row), chain.fuse is not None
    return _command(report, name, as_options(chain.asked), settings, (_CHANNELS, _HEADS) if fuses else ((), ()))


def _command(
    report: SweepReport | ChoiceReport,
    name: str,
    asked: str,
    settings: Mapping[str, Any],
    but: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> str:
    """What makes a model as `asked`, called by `name`: with what else the command of the report had `but` for options
    with a value, and others; with `settings` where it is not known."""
    output = f"{Path(report.model).with_suffix('')}-{name}.onnx"
    words = shlex.split(report.provenance.command) if report.provenance is not None else []
    begin = f"onnxfold {shlex.quote(report.model)} {shlex.quote(output)} {asked}"
    if words[1:2] == ["sweep"] and report.model in words[2:]:
        rest = _without(words[2:], (*_VALUES, *but[0]), (*_SWITCHES, *but[1]))
        rest.remove(report.model)
        return f"{begin} {shlex.join(rest)}".rstrip()
    return " ".join([begin, *(as_options(f"`{name}={value!r}`") for name, value in settings.items())])


def _without(words: Sequence[str], valued: Sequence[str], switches: Sequence[str]) -> list[str]:
    """Without the options that the command does not have, or that are about output."""
    left, skip = list[str](), False
    for word in words:
        if not skip and word not in (*valued, *switches) and not word.startswith(tuple(f"{v}=" for v in valued)):
            left.append(word)
        skip = not skip and word in valued
    return left


COMMAND_LINE = Wording(as_options, call, chain_call)
