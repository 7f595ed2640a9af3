"""A pass for onnx_ir, to stand in a `Sequential` or a `PassManager` beside those of onnx_ir and onnxscript."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from ..api import fold
from ..compat import Unpack
from ..errors import NothingToFoldError
from ..options.keywords import FoldKeywords
from ..report.fold_report import FoldReport

_DATA = "model.onnx.data"


class FoldPass(ir.passes.FunctionalPass):
    """Folds the channels of a model; the one that it is called on stays as it is.

    Takes the keywords of `onnxfold.fold`. Of a model with nothing to fold comes a copy, not `modified`. `reports`
    has a report of every fold, in order. Raises what `fold` raises.
    """

    def __init__(self, **given: Unpack[FoldKeywords]) -> None:
        super().__init__()
        self._given = given
        self.reports: list[FoldReport] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """`model` folded, all of its weights in memory."""
        with TemporaryDirectory(prefix="onnxfold-") as folder:
            source, target = Path(folder, "model.onnx"), Path(folder, "folded.onnx")
            ir.save(model, source, external_data=_DATA)
            try:
                self.reports.append(fold(source, target, **self._given).report)
            except NothingToFoldError:
                return ir.passes.PassResult(_in_memory(source), modified=False)
            return ir.passes.PassResult(_in_memory(target), modified=True)


def _in_memory(path: Path) -> ir.Model:
    return ir.external_data.load_to_model(ir.load(path))
