"""Commands that stand for others with options: inspect, quantize, share and drop. Each has help of its own, which shows
the options that matter to it; it takes all that the command takes which it stands for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..options.choices import Quantization
from . import fold, fuse
from .arguments import DROP, INSPECT, QUANTIZE, SHARE
from .parser import Parser

KINDS = ", ".join(kind.value for kind in Quantization)
_SHOWN = ("--report", "--json", "--verbose", "--quiet")
_ITSELF = ("--config", "--print-config", "--log-level", "--help", "--version")
_INPUTS = ("--calibration", "--samples", "--preprocess", "--input-shape", "--providers")
_WRITTEN = (
    "--max-drop", "--metric", *_INPUTS, "--effort", "--seed", "--save-as-external-data", "--allow-unmeasured",
    "--no-provenance", *_SHOWN, *_ITSELF,
)  # fmt: skip
_REPAIRED = ("--include", "--exclude", "--recovery", "--refine", "--steps", "--quantize")


class Base(Protocol):
    """The command that others stand for."""

    def parser(self) -> Parser: ...
    def run(self, options: argparse.Namespace) -> int: ...


@dataclass(frozen=True)
class Spelled:
    """A command `name` that does what `base` does with some options, and has help of its own.

    `about`: the description; `files`: those that it takes; `shown`: the options that its help shows; `said`: words for
    some of them in place of the base's, and for titles of groups.
    """

    name: str
    base: Base
    about: str
    files: str
    shown: Sequence[str]
    said: Mapping[str, str]

    def parser(self) -> Parser:
        """How the command is called."""
        prog = f"onnxfold {self.name}"
        made = self.base.parser()
        made.prog, made.usage, made.description = prog, f"{prog} {self.files} [options]", self.about
        return made.showing(self.shown, self.said).taking(self.files.split())

    def run(self, options: argparse.Namespace) -> int:
        """Do what is asked, and return the exit code."""
        return self.base.run(options)


OWN_HELP: Mapping[str, Spelled] = {
    one.name: one for one in (
        Spelled(
            "inspect", fold, INSPECT, "IN",
            ("--include", "--exclude", "--fold-heads", "--fold-residual", "--input-shape", *_SHOWN, *_ITSELF),
            {"which channels may go": "which channels might go", "inputs, and what is measured": "inputs"},
        ),
        Spelled(
            "quantize", fold, QUANTIZE, "IN OUT", ("--quantize", "--synthetic", *_WRITTEN),
            {"what follows": "how numbers are stored", "--quantize": f"one of {KINDS} (default int8)",
             "how channels are chosen and repaired": "how it is done",
             "how much (pick one, as 0.3 or 30%; default: the safe limit above)": "how much may be lost"},
        ),
        Spelled(
            "share", fuse, SHARE, "IN OUT",
            ("--fuse", "--share", "--target-size", "--max-error", "--distance", "--whole-blocks", "--no-align",
             *_REPAIRED, *_WRITTEN),
            {"--fuse": "how weights are combined: mean (default), mix, freeze"},
        ),
        Spelled(
            "drop", fuse, DROP, "IN OUT", ("--drop-blocks", *_REPAIRED, *_WRITTEN),
            {"which layers share, and how": "which blocks go",
             "how much (--share or --target-size, with --max-error as a limit)": "how much may be lost"},
        ),
    )
}  # fmt: skip
